"""Who proposes trials: the same whatever was killed in between, from what is on disk."""

import copy
import dataclasses

import numpy as np
import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState as OptunaState
from ray.tune.search import Searcher

from study.config.reader import ConfigError, load_config
from study.search.proposals import StudySearch
from study.search.rungs import Rungs
from study.search.samplers import OrderedNSGAII
from study.search.state import SearchState, TrialState
from study.search.trial_folder import TrialFolder


def load(*overrides):
    return load_config("smoke", None, ["search.n_trials=40", *overrides])


def report(number, objective, **others):
    metrics = {"valid/objective": objective, "valid/collapsed": 0.0, "valid/spread": 0.5}
    both = {"valid/recon_l1": 0.1, "valid/frechet_sample": 0.2}
    position = {"report": number, "snippets_seen": 100, "reason": ""}
    return {"objective": objective, **metrics, **both, **position, **others}


def new_search(config, folder, *states):
    state = SearchState(Rungs([], 2), config.mdgan.n_reports)
    for one in states:
        state.add(one)
    return StudySearch(config, state, folder)


def specs(search, n):
    return [search.suggest(str(i))["spec"] for i in range(n)]


def params(search, n=5):
    return [spec["params"] for spec in specs(search, n)]


def complete(search, trial_id, *reports):
    number = search._ot_trials[trial_id].number
    for one in reports:
        search._state.add_report(number, one)
    search._state.trials[number].ended = {"reason": "", "may_go_on": False}
    search._state.rungs.end(number)
    search.on_trial_complete(trial_id, reports[-1] if reports else None)


def on_disk(config, folder):
    """The optuna.log as any other reader sees it."""
    storage = JournalStorage(JournalFileBackend(str(folder / "optuna.log")))
    return optuna.load_study(study_name=config.name, storage=storage)


def test_the_same_seed_suggests_the_same_trials_and_another_seed_others(tmp_path):
    first = specs(new_search(load(), tmp_path / "a"), 5)
    assert first == specs(new_search(load(), tmp_path / "b"), 5)
    assert [s["number"] for s in first] == [0, 1, 2, 3, 4]
    assert [s["name"] for s in first[:2]] == ["trial-000", "trial-001"]
    assert TrialFolder(tmp_path / "a" / "trial-002").spec().params == first[2]["params"]
    other = params(new_search(load("seed=1"), tmp_path / "c"))
    assert not {s["params"]["lr"] for s in first} & {p["lr"] for p in other}


@pytest.mark.parametrize("sampler", ["tpe", "gp", "quasi_random", "nsga2"])
def test_suggestions_stay_inside_the_space_and_differ(tmp_path, sampler):
    got = params(new_search(load(f"search.sampler={sampler}"), tmp_path), 20)
    assert len({p["lr"] for p in got}) == 20
    for p in got:
        assert p["latent_dim"] in (4, 8)
        assert 3 <= p["lambda_prior"] <= 30
        assert 5e-4 <= p["lr"] <= 2e-3


@pytest.mark.parametrize("sampler", ["tpe", "gp", "quasi_random", "nsga2", "grid"])
def test_a_search_that_was_killed_suggests_what_it_would_have_suggested(tmp_path, sampler):
    narrow = [f"search.sampler={sampler}", "search.n_startup_trials=3"]
    if sampler == "grid":
        narrow += [f"mdgan.{name}=1" for name in ("lambda_recon", "lambda_prior", "lambda_latent")]
    config = load(*narrow)

    def run(folder, kill_at):
        search = new_search(config, folder)
        got = []
        for i in range(8):
            if i in kill_at:
                search = new_search(config, folder, *search._state.trials.values())
            spec = search.suggest(str(i))["spec"]
            got.append(spec["params"])
            complete(search, str(i), report(1, 1.0), report(2, 1.0 + spec["params"]["lr"]))
        return got

    whole = run(tmp_path / "whole", ())
    assert run(tmp_path / "killed", (1, 4, 5, 7)) == whole
    # A child of a genetic search may be its parent again.
    assert sampler == "nsga2" or len({tuple(p.values()) for p in whole}) == 8


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2"])
def test_trials_that_run_at_once_and_a_kill_change_no_proposal(tmp_path, sampler):
    config = load(f"search.sampler={sampler}", "search.n_startup_trials=2", "search.n_trials=40")

    def ends(search, i, lr):
        complete(search, str(i), report(1, 1.0), report(2, 1.0 + lr))

    whole = new_search(config, tmp_path / "whole")
    asked = [whole.suggest(str(i))["spec"]["params"] for i in range(3)]
    for i in range(12):
        ends(whole, i, asked[i]["lr"])
        known = [copy.deepcopy(whole._state.trials[n]) for n in range(i + 3)]
        asked.append(whole.suggest(str(i + 3))["spec"]["params"])
        again = new_search(config, tmp_path / f"again-{i}", *known)
        found = [again.suggest(str(n))["spec"] for n in range(3)]
        assert [one["number"] for one in found] == [i + 1, i + 2, i + 3]
        assert found[2]["params"] == asked[i + 3]


def test_nsga2_has_no_most_number_of_generations():
    study = optuna.create_study(sampler=OrderedNSGAII(population_size=2, seed=1))
    space = {"x": optuna.distributions.FloatDistribution(0.0, 1.0)}
    key = OrderedNSGAII._get_generation_key()
    for number in range(2400):
        made = optuna.create_trial(
            params={"x": number / 2400}, distributions=space, value=1.0 - number / 2400,
            system_attrs={key: number // 2},
        )  # fmt: skip
        study.add_trial(made)
    parents = study.sampler.get_parent_population(study, 1200)
    assert [trial.number for trial in parents] == [2398, 2399]


def test_unfinished_trials_come_first_and_no_number_twice(tmp_path):
    config = load("search.n_trials=4")
    search = new_search(config, tmp_path)
    begun = specs(search, 3)
    complete(search, "1", report(1, 2.0), report(2, 1.0))
    again = new_search(config, tmp_path, *search._state.trials.values())
    assert again.pending == [0, 2]
    assert specs(again, 2) == [begun[0], begun[2]]
    assert again.suggest("2")["spec"]["number"] == 3
    assert again.suggest("3") == Searcher.FINISHED  # None would let Tune ask for ever
    states = [trial.state for trial in on_disk(config, tmp_path).trials]
    assert states == [OptunaState.RUNNING, OptunaState.COMPLETE, *[OptunaState.RUNNING] * 2]


def test_a_trial_whose_folder_was_removed_is_proposed_anew_with_its_number(tmp_path):
    config = load("search.n_trials=4")
    search = new_search(config, tmp_path)
    begun = specs(search, 3)
    known = [state for n, state in search._state.trials.items() if n != 1]
    again = new_search(config, tmp_path, *known)
    assert again.pending == [0, 1, 2]
    assert [spec["params"] for spec in specs(again, 3)] == [s["params"] for s in begun]


def test_a_failed_training_is_a_failure_to_optuna_with_its_reason(tmp_path):
    config = load()
    search = new_search(config, tmp_path)
    specs(search, 4)
    failed = {"reason": "it diverged", "ended": "failed", "may_go_on": False}
    complete(search, "0", report(1, 1000.0, **failed))
    complete(search, "1", report(1, 2.0), report(2, 1.5))
    complete(search, "2", report(1, 2.0), report(2, float("nan")))
    search.on_trial_complete("3", None, error=True)
    for study in (
        on_disk(config, tmp_path),
        new_search(config, tmp_path, *search._state.trials.values()).optuna_study,
    ):
        states = [trial.state for trial in study.trials[:3]]
        assert states == [OptunaState.FAIL, OptunaState.COMPLETE, OptunaState.FAIL]
        assert study.trials[0].user_attrs["reason"] == "it diverged"
        assert study.best_value == 1.5


def test_a_collapsed_decoder_is_infeasible_so_that_the_sampler_keeps_away(tmp_path):
    config = load()
    search = new_search(config, tmp_path)
    specs(search, 2)
    collapsed = {"valid/collapsed": 1.0, "valid/spread": 0.01}
    complete(search, "0", report(1, 1000.0, **collapsed), report(2, 1000.0, **collapsed))
    complete(search, "1", report(1, 2.0), report(2, 1.5))
    again = new_search(config, tmp_path, *search._state.trials.values()).optuna_study
    for study in (search.optuna_study, again):
        first, second = (trial.constraints["collapsed"] for trial in study.trials)
        assert first == pytest.approx(0.04)
        assert second < 0


def stopped_search(config, folder):
    """Trial 0 completed, trial 1 stopped at report 1, trial 2 collapsed there and stopped."""
    state = SearchState(Rungs([1], 2), config.mdgan.n_reports)
    search = StudySearch(config, state, folder)
    specs(search, 3)
    collapsed = {"valid/collapsed": 1.0, "valid/spread": 0.01}
    complete(search, "0", report(1, 1.0), report(2, 0.8))
    complete(search, "1", report(1, 3.0), report(2, 0.1))
    complete(search, "2", report(1, 1000.0, **collapsed))
    return search


def again(config, folder, search):
    """The search as a later run of the study makes it from the trials."""
    state = SearchState(Rungs([1], 2), config.mdgan.n_reports)
    for one in search._state.trials.values():
        state.add(one)
    return StudySearch(config, state, folder)


def test_a_stopped_trial_is_pruned_to_optuna_at_its_rung_now_and_after_a_restart(tmp_path):
    config = load()
    search = stopped_search(config, tmp_path)
    seen = on_disk(config, tmp_path).trials
    rebuilt = again(config, tmp_path, search)
    for trials in (seen, rebuilt.optuna_study.trials, on_disk(config, tmp_path).trials):
        first, second, third = trials
        assert (first.state, first.value, first.intermediate_values) == (
            OptunaState.COMPLETE, 0.8, {},
        )  # fmt: skip
        assert (second.state, second.value) == (OptunaState.PRUNED, 3.0)
        assert second.intermediate_values == {1: 3.0}
        assert (third.state, third.constraints["collapsed"]) == (
            OptunaState.COMPLETE, pytest.approx(0.04),
        )  # fmt: skip


def test_a_search_with_stopped_trials_goes_on_after_a_restart_as_it_would_have(tmp_path):
    config = load("search.n_startup_trials=2")
    whole = stopped_search(config, tmp_path / "a")
    killed = again(config, tmp_path / "b", stopped_search(config, tmp_path / "b"))
    expected, got = ([one.suggest(i)["spec"] for i in ("3", "4")] for one in (whole, killed))
    assert got == expected


def test_optuna_is_told_of_an_ended_trial_once_it_is_decided(tmp_path):
    config = load()
    state = SearchState(Rungs([1], 2), config.mdgan.n_reports)
    search = StudySearch(config, state, tmp_path)
    specs(search, 2)
    complete(search, "1", report(1, 3.0), report(2, 0.1))  # trial 0 has not reported
    rebuilt = again(config, tmp_path / "again", search)
    for one in (search, rebuilt):
        assert one.optuna_study.trials[1].state == OptunaState.RUNNING
        for number in (1, 2):
            one._state.add_report(0, report(number, 1.0))
        one.tell_decided()
        assert one.optuna_study.trials[1].state == OptunaState.PRUNED
        assert one.optuna_study.trials[1].value == 3.0


def test_points_to_try_first_come_first(tmp_path):
    first = "search.first=[{latent_dim: 4, lr: 1e-3}, {lr: 0.0007}]"
    got = params(new_search(load(first), tmp_path), 3)
    assert (got[0]["latent_dim"], got[0]["lr"]) == (4, 0.001)
    assert got[1]["lr"] == 0.0007
    assert got[2]["lr"] not in (0.001, 0.0007)


@pytest.mark.parametrize(
    ("point", "says"),
    [
        ("{latent_dim: 5}", "first[0] holds latent_dim=5, which lies outside the space"),
        ("{lr: 1}", "first[0] holds lr=1, which lies outside the space"),
        ("{speed: 1}", "first[0] holds speed, which is no mdgan parameter"),
    ],
)
def test_a_point_to_try_first_outside_the_space_is_refused(point, says):
    with pytest.raises(ConfigError) as caught:
        load(f"search.first=[{point}]")
    assert says in str(caught.value)


def test_a_grid_takes_every_combination_of_scientific_choices(tmp_path):
    config = load(
        "search.sampler=grid", "mdgan.lambda_recon=300", "mdgan.lambda_latent=1",
        "search.space.lambda_prior={choice: [3.0, 10.0, 30.0], role: scientific}",
    )  # fmt: skip
    got = params(new_search(config, tmp_path), 7)
    pairs = [(p["latent_dim"], p["lambda_prior"]) for p in got]
    assert len(set(pairs[:6])) == 6
    assert pairs[6] == pairs[0]
    assert len({p["lr"] for p in got}) == 7


def test_a_grid_over_a_range_is_refused():
    with pytest.raises(ConfigError, match="grid, but space.lambda_recon is a range"):
        load("search.sampler=grid")


def test_several_objectives_are_all_told(tmp_path):
    config = load("search.objectives=[valid/recon_l1, valid/frechet_sample]")
    assert not config.search.stops_early
    search = new_search(config, tmp_path)
    specs(search, 1)
    complete(search, "0", report(1, 2.0), report(2, 1.5))
    assert search.optuna_study.trials[0].values == [0.1, 0.2]
    assert on_disk(config, tmp_path).best_trials[0].number == 0


TWO = "search.objectives=[valid/recon_l1, valid/frechet_sample]"


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2"])
def test_each_sampler_that_lowers_several_metrics_comes_near_their_front(tmp_path, sampler):
    # Both are lowest where lambda_prior is 3; lr trades one for the other.
    config = load(f"search.sampler={sampler}", "search.n_startup_trials=8", TWO)
    search = new_search(config, tmp_path)
    found = []
    for i in range(30):
        got = search.suggest(str(i))["spec"]["params"]
        far, between = np.log(got["lambda_prior"] / 3), np.log(got["lr"] / 5e-4)
        values = {"valid/recon_l1": 1 + far + between, "valid/frechet_sample": 3 + far - between}
        complete(search, str(i), report(1, 1.0, **values), report(2, 1.0, **values))
        found.append(far)
    assert np.mean(found[-10:]) < 0.6 * np.mean(found[:8])


def test_the_order_of_latent_sizes_is_told_to_optuna_and_their_values_to_all_others(tmp_path):
    sizes = "search.space.latent_dim={choice: [32, 8, 64, 16, 4], role: scientific}"
    config = load(sizes, "search.first=[{latent_dim: 64}]", "search.n_startup_trials=30")
    search = new_search(config, tmp_path)
    got = specs(search, 20)
    assert {spec["params"]["latent_dim"] for spec in got} == {4, 8, 16, 32, 64}
    assert got[0]["params"]["latent_dim"] == 64
    rebuilt = new_search(config, tmp_path / "again", *search._state.trials.values())
    for study in (search.optuna_study, rebuilt.optuna_study, on_disk(config, tmp_path)):
        for spec, trial in zip(got, study.trials, strict=True):
            assert trial.distributions["latent_dim"] == IntDistribution(0, 4)
            assert [4, 8, 16, 32, 64][trial.params["latent_dim"]] == spec["params"]["latent_dim"]
            assert trial.user_attrs["params"] == spec["params"]
            assert type(trial.params["order"]) is str  # words have no order
    assert TrialFolder(tmp_path / "trial-000").spec().params["latent_dim"] == 64


def test_a_gaussian_process_learns_from_stopped_trials_and_is_not_led_astray_by_collapsed_ones(
    tmp_path,
):
    # The lower lr, the better; every trial but one is stopped, and a third collapses.
    config = load("search.sampler=gp", "search.n_startup_trials=8", "search.n_trials=60")
    state = SearchState(Rungs([1], 1000), config.mdgan.n_reports)
    search = StudySearch(config, state, tmp_path)
    collapsed = {"valid/collapsed": 1.0, "valid/spread": 0.01}
    found = []
    for i in range(24):
        lr = search.suggest(str(i))["spec"]["params"]["lr"]
        found.append(lr)
        if i == 0:
            complete(search, "0", report(1, 0.4), report(2, 0.4))
        elif lr > 1.5e-3:
            complete(search, str(i), report(1, 1000.0, **collapsed))
        else:
            complete(search, str(i), report(1, 0.5 + lr / 2e-3))
    states = [trial.state for trial in search.optuna_study.trials]
    assert states.count(OptunaState.PRUNED) > 12
    assert np.median(found[12:]) < 7e-4 < np.median(found[:8])


def test_a_search_with_every_parameter_fixed_runs_that_one(tmp_path):
    config = load(
        "mdgan.latent_dim=8", "mdgan.lambda_prior=10", "mdgan.lr=1e-3", "mdgan.order=joint",
        "mdgan.lambda_recon=300", "mdgan.lambda_latent=1",
    )  # fmt: skip
    assert config.search.space == {}
    search = new_search(config, tmp_path)
    assert params(search, 1) == [{}]
    again = new_search(config, tmp_path, *search._state.trials.values())
    assert again.pending == [0]


def test_a_broken_record_of_optuna_is_written_again_from_the_trials(tmp_path):
    config = load()
    search = new_search(config, tmp_path)
    specs(search, 2)
    log = tmp_path / "optuna.log"
    log.write_bytes(log.read_bytes()[:-20])
    (tmp_path / "optuna.log.lock").touch()  # of a driver that was killed
    new_search(config, tmp_path, *search._state.trials.values())
    assert len(on_disk(config, tmp_path).trials) == 2


def test_two_searches_in_one_process_do_not_mix(tmp_path):
    one, two = (new_search(load(f"seed={i}"), tmp_path / str(i)) for i in (0, 1))
    specs(one, 3)
    specs(two, 1)
    assert len(one.optuna_study.trials) == 3
    assert len(two.optuna_study.trials) == 1


def test_the_state_of_a_trial_says_how_it_ended():
    def status(*reports, ended=None, rungs=()):
        state = SearchState(Rungs(list(rungs), 2), 2)
        spec = dataclasses.make_dataclass("Spec", ["number"])(0)
        state.add(TrialState(spec, {r["report"]: r for r in reports}, ended))
        outcome = state.outcome(0)
        return outcome.status, outcome.reason

    assert status(report(1, 2.0), report(2, 1.0)) == ("completed", "")
    assert status(report(1, 2.0)) == ("running", "")
    over = {"reason": "", "may_go_on": False}
    assert status(report(1, 2.0), ended=over) == ("failed", "ended after report 1")
    assert status(ended={**over, "reason": "its process failed"}) == (
        "failed", "its process failed",
    )  # fmt: skip
    bad = {"valid/collapsed": 1.0, "valid/spread": 0.5}
    kind, reason = status(report(1, 2.0), report(2, 1000.0, **bad))
    assert kind == "collapsed"
    assert "0.500 times as much as real ones" in reason
    assert status(report(1, 1000.0, **bad)) == ("running", "")
    diverged = report(2, 1000.0, ended="failed", reason="lr is too high")
    assert status(report(1, 2.0), diverged) == ("failed", "lr is too high")


def test_a_stopped_trial_counts_up_to_its_rung():
    state = SearchState(Rungs([1], 2), 2)
    for number, values in enumerate(((1.0, 0.9), (3.0, 0.1))):
        spec = dataclasses.make_dataclass("Spec", ["number"])(number)
        reports = {i: report(i, v) for i, v in enumerate(values, 1)}
        state.add(TrialState(spec, reports, {"reason": "", "may_go_on": False}))
    outcome = state.outcome(1)
    assert outcome.status == "stopped"
    assert [r["objective"] for r in outcome.reports] == [3.0]
