"""The search without Ray: suggestions, failures, and which trial is best."""

import optuna

from study.config_file import load_config
from study.early_stopping import Rungs
from study.tuning import StudySearch, TrialState, _choose_best, _row


def load(*overrides):
    return load_config("smoke", None, list(overrides))


def suggestions(config, n=5):
    search = StudySearch(config, "test")
    return [search.suggest(str(i)) for i in range(n)]


def report(objective, **others):
    metrics = {"valid/objective": objective, "valid/collapsed": 0.0, "valid/spread": 0.5}
    return {**metrics, "snippets_seen": 100, "reason": "", **others}


def state(number, *reports, config=None):
    sampled = config or dict.fromkeys(load().search.space, 1.0)
    numbered = {i: {**r, "report": i} for i, r in enumerate(reports, 1)}
    return TrialState(number, {**sampled, "trial_number": number}, "run", numbered)


def row(trial, rungs=None):
    rungs = rungs or Rungs([], 3)
    rungs.values[trial.number] = {
        i: r["valid/objective"] for i, r in trial.reports.items() if "valid/objective" in r
    }
    return _row(trial, load("mdgan.n_reports=2"), rungs)


def test_the_same_seed_suggests_the_same_trials_and_another_seed_others():
    first, again = suggestions(load()), suggestions(load())
    assert first == again
    assert [s["trial_number"] for s in first] == [0, 1, 2, 3, 4]
    other = suggestions(load("seed=1"))
    assert not {s["lr"] for s in first} & {s["lr"] for s in other}


def test_suggestions_stay_inside_the_space():
    for s in suggestions(load(), 20):
        assert s["latent_dim"] in (4, 8)
        assert 100 <= s["lambda_recon"] <= 600
        assert 1e-3 <= s["lr"] <= 3e-3


def test_a_search_with_every_parameter_fixed_runs_that_one():
    config = load(
        "mdgan.latent_dim=8", "mdgan.lambda_recon=100", "mdgan.lambda_latent=1", "mdgan.lr=1e-3",
        "mdgan.normalisation=layer",
    )  # fmt: skip
    assert config.search.space == {}
    assert suggestions(config, 1) == [{"latent_dim": 8, "trial_number": 0}]


def test_a_failed_training_is_a_failure_to_optuna():
    search = StudySearch(load(), "test")
    for i in range(2):
        search.suggest(str(i))
    search.on_trial_complete("0", {"valid/objective": 1000.0, "reason": "it diverged"})
    search.on_trial_complete("1", {"valid/objective": 1.5, "reason": ""})
    states = [trial.state for trial in search._ot_study.trials]
    assert states == [optuna.trial.TrialState.FAIL, optuna.trial.TrialState.COMPLETE]
    assert search._ot_study.best_value == 1.5


def test_the_status_of_a_trial_says_how_it_ended():
    assert row(state(0, report(2.0), report(1.0)))["status"] == "completed"
    assert row(state(0, report(2.0)))["status"] == "failed"  # ended before its last report
    collapsed = row(state(0, report(2.0), report(1000.0, **{"valid/collapsed": 1.0})))
    assert collapsed["status"] == "collapsed"
    assert "0.500 times as much as real ones" in collapsed["reason"]
    diverged = row(state(0, report(2.0), {**report(1000.0), "reason": "lr is too high"}))
    assert (diverged["status"], diverged["reason"]) == ("failed", "lr is too high")


def test_the_row_of_a_stopped_trial_holds_the_numbers_of_its_rung():
    rungs = Rungs([1], 2, {0: {1: 1.0, 2: 0.9}}, ended={0})
    stopped = row(state(1, report(3.0), report(0.1)), rungs)
    assert stopped["status"] == "stopped"
    assert stopped["reports"] == 1
    assert stopped["objective"] == stopped["valid/objective"] == 3.0


def test_only_completed_trials_can_be_best():
    rows = [
        {"number": i, "status": status, "valid/objective": value}
        for i, (status, value) in enumerate(
            [("stopped", 0.1), ("failed", 0.2), ("collapsed", 0.3), ("completed", 2.0),
             ("completed", 1.0), ("completed", 1.0)]
        )
    ]  # fmt: skip
    assert _choose_best(rows, "valid/objective")["number"] == 4
    assert _choose_best(rows[:3], "valid/objective") is None
