"""The search without Ray: suggestions, failures, and which trial is best."""

import dataclasses

import numpy as np
import optuna
import torch

from data_io.snippets import FramePool
from models import training
from models.mdgan_params import MdganParams
from models.reference import fit_reference
from study import trial
from study.config_file import load_config
from study.early_stopping import Rungs
from study.trial import TrialData, run_trial
from study.tuning import StudySearch, TrialState, _choose_best, _row

REFERENCE = fit_reference(*torch.rand(2, 40, 1, 129, 16, generator=torch.Generator()), seed=0)
TINY = MdganParams(
    latent_dim=2, dense_width=2, n_components=3, disc_width=2, n_snippets=32, n_reports=1,
    batch_size=16,
)  # fmt: skip


def load(*overrides):
    return load_config("smoke", None, list(overrides))


def suggestions(config, n=5):
    search = StudySearch(config, "test")
    return [search.suggest(str(i)) for i in range(n)]


def report(objective, **others):
    metrics = {"valid/objective": objective, "valid/collapsed": 0.0, "valid/spread": 0.5}
    metrics["objective"] = objective
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
        assert 3 <= s["lambda_prior"] <= 30
        assert 5e-4 <= s["lr"] <= 2e-3


def test_a_search_with_every_parameter_fixed_runs_that_one():
    config = load(
        "mdgan.latent_dim=8", "mdgan.lambda_prior=10", "mdgan.lr=1e-3", "mdgan.order=joint",
        "mdgan.lambda_recon=300", "mdgan.lambda_latent=1",
    )  # fmt: skip
    assert config.search.space == {}
    assert suggestions(config, 1) == [{"latent_dim": 8, "trial_number": 0}]


def test_a_failed_training_is_a_failure_to_optuna():
    search = StudySearch(load(), "test")
    for i in range(2):
        search.suggest(str(i))
    search.on_trial_complete("0", {"objective": 1000.0, "reason": "it diverged"})
    search.on_trial_complete("1", {"objective": 1.5, "reason": ""})
    states = [trial.state for trial in search._ot_study.trials]
    assert states == [optuna.trial.TrialState.FAIL, optuna.trial.TrialState.COMPLETE]
    assert search._ot_study.best_value == 1.5


def test_the_status_of_a_trial_says_how_it_ended():
    assert row(state(0, report(2.0), report(1.0)))["status"] == "completed"
    assert row(state(0, report(2.0)))["status"] == "failed"  # ended before its last report
    collapsed = row(state(0, report(2.0), report(1000.0, **{"valid/collapsed": 1.0})))
    assert collapsed["status"] == "collapsed"
    assert "0.500 times as much as real ones" in collapsed["reason"]
    diverged = row(
        state(0, report(2.0), {**report(1000.0), "ended": "failed", "reason": "lr is too high"})
    )
    assert (diverged["status"], diverged["reason"]) == ("failed", "lr is too high")


def test_the_row_of_a_stopped_trial_holds_the_numbers_of_its_rung():
    rungs = Rungs([1], 2, {0: {1: 1.0, 2: 0.9}}, ended={0})
    stopped = row(state(1, report(3.0), report(0.1)), rungs)
    assert stopped["status"] == "stopped"
    assert stopped["reports"] == 1
    assert stopped["objective"] == stopped["valid/objective"] == 3.0


def test_only_completed_trials_can_be_best():
    rows = [
        {"number": i, "status": status, "objective": value}
        for i, (status, value) in enumerate(
            [("stopped", 0.1), ("failed", 0.2), ("collapsed", 0.3), ("completed", 2.0),
             ("completed", 1.0), ("completed", 1.0)]
        )
    ]  # fmt: skip
    assert _choose_best(rows)["number"] == 4
    assert _choose_best(rows[:3]) is None


def test_a_collapsed_decoder_is_ranked_last_whatever_the_objective(monkeypatch):
    reported = []
    monkeypatch.setattr(trial.tune, "get_checkpoint", lambda: None)
    monkeypatch.setattr(trial.tune, "report", lambda metrics, **_: reported.append(metrics))
    metrics = {"valid/collapsed": 1.0, "valid/recon_l1": 0.1, "valid/objective": 1000.0}
    monkeypatch.setattr(trial, "evaluate", lambda *_: dict(metrics))
    pool = FramePool(np.random.default_rng(0).random((64, 129), "f4"), np.arange(40), 16)
    data = TrialData(pool, np.zeros((2, 1, 129, 16), "f4"), REFERENCE, "hash")
    run_trial({"trial_number": 0, "latent_dim": 2}, data, TINY, 0, 1, False, "valid/recon_l1")
    assert [r["objective"] for r in reported] == [1000.0]
    assert reported[0]["valid/recon_l1"] == 0.1  # what was measured stays
    metrics["valid/collapsed"] = 0.0
    run_trial({"trial_number": 0, "latent_dim": 2}, data, TINY, 0, 1, False, "valid/recon_l1")
    assert reported[1]["objective"] == 0.1


def test_a_training_that_diverges_is_reported_with_its_reason(monkeypatch):
    reported = []
    monkeypatch.setattr(trial.tune, "get_checkpoint", lambda: None)
    monkeypatch.setattr(trial.tune, "report", lambda metrics, **_: reported.append(metrics))
    pool = FramePool(np.full((64, 129), np.nan, "f4"), np.arange(40), 16)
    data = TrialData(pool, np.zeros((2, 1, 129, 16), "f4"), REFERENCE, "hash")
    run_trial({"trial_number": 0}, data, TINY, 0, 1, False, "valid/objective")
    assert reported[0]["objective"] == 1000.0
    assert "training has diverged" in reported[0]["reason"]
    assert reported[0]["ended"] == "failed"


def test_a_training_that_collapses_on_the_way_is_reported_as_collapsed(monkeypatch):
    reported = []
    monkeypatch.setattr(trial.tune, "get_checkpoint", lambda: None)
    monkeypatch.setattr(trial.tune, "report", lambda metrics, **_: reported.append(metrics))
    monkeypatch.setattr(training, "CHECK_EVERY", 1)
    pool = FramePool(np.random.default_rng(0).random((64, 129), "f4"), np.arange(40), 16)
    data = TrialData(pool, np.zeros((2, 1, 129, 16), "f4"), REFERENCE, "hash")
    # A decoder without a linear part, before it has learned anything, gives one snippet only.
    base = dataclasses.replace(
        TINY, width=2, dense_width=0, initialisation="normal", lr=1e-6, collapse_after=1
    )
    run_trial({"trial_number": 0}, data, base, 0, 1, False, "valid/objective")
    assert [(r["objective"], r["ended"]) for r in reported] == [(1000.0, "collapsed")]
    assert "After 1 steps decoded snippets vary less than 0.05" in reported[0]["reason"]
    assert row(state(0, reported[0]))["status"] == "collapsed"
