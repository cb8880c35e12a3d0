"""Successive halving: who is stopped, and that the order of arrival plays no part."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.base.console import Console
from study.base.paths import Where
from study.config.reader import load_config
from study.config.stopping import first_rung
from study.plan import show_plan
from study.search.rungs import Rungs, quantile, rung_reports
from study.search.state import SearchState, TrialState
from study.search.trial_folder import TrialSpec


def counts_up_to(rungs, factor, groups, values, ended, number):
    """What `Rungs` says, by its definition, worked out anew each time."""
    for rung in rungs:
        if rung not in values.get(number, {}):
            return None, False
        rivals, of_group = [], {group: [] for group in groups.get(number, ())}
        for other in range(number):
            last, is_stopped = counts_up_to(rungs, factor, groups, values, ended, other)
            if is_stopped and last < rung:
                continue
            value = values.get(other, {}).get(rung)
            if value is None and other not in ended:
                return rung, False
            if value is not None:
                rivals.append(value)
                for group in of_group.keys() & set(groups.get(other, ())):
                    of_group[group].append(value)
        value = values[number][rung]
        is_kept = any(value < min(before, default=math.inf) for before in of_group.values())
        if rivals and not is_kept and value > np.percentile(rivals, 100 / factor):
            return rung, True
    return None, False


def finished(values, rungs, reduction_factor=2):
    """Rungs after all trials reported all values: values[trial][report - 1]."""
    found = Rungs(rungs, reduction_factor)
    for number, row in enumerate(values):
        for report, value in enumerate(row, 1):
            found.add(number, report, value)
        found.end(number)
    return found


@pytest.mark.parametrize(
    ("grace", "factor", "n_reports", "expected"),
    [(1, 3, 10, [1, 3, 9]), (2, 2, 8, [2, 4]), (3, 3, 3, []), (1, 2, 1, [])],
)
def test_rungs_grow_by_the_factor_and_end_before_the_last_report(
    grace, factor, n_reports, expected
):
    assert rung_reports(grace, factor, n_reports) == expected


def test_the_first_trial_is_never_stopped():
    assert finished([[9, 9, 9], [1, 1, 1]], [1, 2]).counts_up_to(0) == (None, False)


def test_a_worse_trial_is_stopped_at_the_first_rung_where_it_is_worse():
    rungs = finished([[2, 2, 2], [1, 3, 3]], [1, 2])
    assert rungs.counts_up_to(1) == (2, True)


def test_a_trial_stopped_at_a_rung_is_no_rival_at_the_next():
    # Trial 1 is stopped at 1; that it went on to 0.5 at report 2 plays no part for trial 2.
    rungs = finished([[2, 2, 2], [3, 0.5, 0.5], [1, 1.5, 1]], [1, 2])
    assert rungs.counts_up_to(1) == (1, True)
    assert rungs.counts_up_to(2) == (None, False)


def test_a_decision_waits_for_trials_of_lower_number():
    rungs = Rungs([1, 2], 2)
    rungs.add(1, 1, 5.0)
    rungs.add(1, 2, 5.0)
    assert rungs.counts_up_to(1) == (1, False)  # trial 0 has not reached report 1
    rungs.add(0, 1, 1.0)
    assert rungs.counts_up_to(1) == (1, True)


def test_each_decision_is_told_once():
    rungs = Rungs([1, 2], 2)
    rungs.add(1, 1, 5.0)
    rungs.add(2, 1, 0.5)
    assert rungs.take_settled() == []  # trial 0 has not reported
    rungs.add(0, 1, 1.0)
    assert rungs.take_settled() == [0, 1, 2]
    rungs.add(0, 2, 1.0)
    assert rungs.take_settled() == [0, 1]  # 1 is stopped, 2 is on its way
    assert rungs.take_settled() == []


def test_a_failed_trial_holds_up_no_other():
    rungs = Rungs([1], 2)
    rungs.add(1, 1, 5.0)
    rungs.end(0)
    assert rungs.counts_up_to(1) == (None, False)


def test_the_outcome_does_not_depend_on_the_order_of_arrival():
    values = [[4, 3, 2], [3, 4, 1], [5, 1, 1], [2, 2, 2]]
    expected = [finished(values, [1, 2]).counts_up_to(i) for i in range(4)]
    assert any(stopped for _, stopped in expected)
    for order in itertools.permutations(range(4)):
        rungs = Rungs([1, 2], 2)
        for report in (1, 2, 3):
            for trial in order:
                _, is_stopped = rungs.counts_up_to(trial)
                if not is_stopped:
                    rungs.add(trial, report, values[trial][report - 1])
        for trial in range(4):
            rungs.end(trial)
        assert [rungs.counts_up_to(i) for i in range(4)] == expected


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_decisions_are_those_of_the_definition_whatever_comes_when(data):
    factor = data.draw(st.integers(2, 4))
    rungs = rung_reports(data.draw(st.integers(1, 3)), factor, 9)
    n = data.draw(st.integers(1, 7))
    found, values, ended = Rungs(rungs, factor), {}, set()
    labels = st.sets(st.sampled_from(["size 8", "size 16", "order joint"]))
    groups = {number: data.draw(labels) for number in range(n)}
    for number in groups:
        found.enter(number, groups[number])
    for _ in range(data.draw(st.integers(1, 60))):
        number = data.draw(st.integers(0, n - 1))
        report = len(values.get(number, {})) + 1
        if number in ended or report > 9:
            continue
        if data.draw(st.integers(0, 9)) == 0:
            ended.add(number)
            found.end(number)
        else:
            value = float(data.draw(st.integers(0, 6)))  # few, so that some are equal
            values.setdefault(number, {})[report] = value
            found.add(number, report, value)
        expected = [counts_up_to(rungs, factor, groups, values, ended, i) for i in range(n)]
        assert [found.counts_up_to(i) for i in range(n)] == expected


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.integers(2, 5))
def test_a_cutoff_is_a_percentile(values, factor):
    expected = np.percentile(values, 100 / factor)
    assert quantile(sorted(values), 1 / factor) == pytest.approx(expected, rel=1e-12, abs=1e-9)


def test_a_thousand_trials_are_decided_while_they_come():
    # By the definition alone, the last of 40 trials would take longer than the universe has.
    rng = np.random.default_rng(0)
    rungs = Rungs([2, 6], 3)
    for report in range(1, 11):
        for number in range(1000):
            if not rungs.counts_up_to(number)[1]:
                rungs.add(number, report, float(rng.random()))
    n_stopped = sum(rungs.counts_up_to(number)[1] for number in range(1000))
    assert 600 < n_stopped < 999


def whole_searches(n_searches=200, n_trials=20):
    """Searches on random curves, trials in any order: rungs, latent size of each trial."""
    rng = np.random.default_rng(0)
    for _ in range(n_searches):
        rungs = Rungs([1, 3], 3)
        # Large sizes are better by far: without a rule of their own the small ones are stopped.
        sizes = rng.choice([8, 16, 32], n_trials)
        for number, size in enumerate(sizes):
            rungs.enter(number, [("latent_dim", int(size))])
        values = rng.random((n_trials, 4)) + 10 / sizes[:, None]
        n_reports = np.zeros(n_trials, int)
        while (n_reports < 4).any():
            number = int(rng.choice(np.flatnonzero(n_reports < 4)))
            if rungs.counts_up_to(number)[1]:
                n_reports[number] = 4
                continue
            n_reports[number] += 1
            rungs.add(number, int(n_reports[number]), values[number, n_reports[number] - 1])
        yield rungs, sizes


def test_every_value_of_a_choice_has_a_trial_that_is_not_stopped():
    n_stopped = 0
    for rungs, sizes in whole_searches():
        is_stopped = np.array([rungs.counts_up_to(n)[1] for n in range(len(sizes))])
        n_stopped += is_stopped.sum()
        assert set(sizes[~is_stopped]) == set(sizes)
    assert n_stopped > 200 * 20 / 2  # and yet most are


def test_the_best_of_a_value_so_far_goes_on_and_an_equal_one_does_not():
    rungs = Rungs([1], 3)
    for number, value in enumerate([1.0, 1.0, 5.0, 4.0, 4.0, 3.0]):
        rungs.enter(number, ["large" if number < 2 else "small"])
        rungs.add(number, 1, value)
    assert [n for n in range(6) if rungs.counts_up_to(n)[1]] == [4]


def test_where_the_first_of_a_value_fails_before_a_rung_the_next_one_is_kept():
    rungs = Rungs([1], 2)
    for number in range(3):
        rungs.enter(number, ["large" if number == 0 else "small"])
    rungs.add(0, 1, 1.0)
    rungs.end(1)
    rungs.add(2, 1, 5.0)
    assert rungs.counts_up_to(2) == (None, False)


def test_a_value_that_is_no_number_is_the_worst():
    rungs = finished([[1.0], [math.nan], [2.0], [1.0]], [1], 2)
    assert [rungs.counts_up_to(i)[1] for i in range(4)] == [False, True, False, False]


FEW = [
    "search.grace_reports=1",
    "mdgan.adversarial_from=0.9",
    "search.space.lambda_latent={log_uniform: [0.1, 10]}",
    "mdgan.n_reports=30",
    "mdgan.n_snippets=60000",
]


@pytest.mark.parametrize(
    ("preset", "overrides", "expected"),
    [
        ("full", [], 15),
        ("paper", [], 15),
        ("smoke", FEW, 28),
        # Nothing is searched that acts late, or the adversary is there from the first step, or
        # never.
        ("demo", [*FEW, "mdgan.lambda_latent=1"], 1),
        ("demo", [*FEW, "mdgan.adversarial_from=0"], 1),
        ("demo", [*FEW, "mdgan.adversarial_from=1"], 1),
        ("demo", [*FEW, "mdgan.adversarial_from=0.55"], 18),
        ("demo", [*FEW, "search.grace_reports=29"], 29),
        ("demo", [*FEW, "search.space.adversarial_from={choice: [1.0, 0.2, 0.5]}"], 16),
        ("demo", [*FEW, "search.space.adversarial_from={uniform: [0.2, 0.5]}"], 16),
    ],
)
def test_trials_are_compared_once_all_that_is_searched_has_acted(preset, overrides, expected):
    assert first_rung(load_config(preset, None, overrides)) == expected


@pytest.mark.parametrize("preset", ["smoke", "demo", "full", "paper"])
def test_the_rungs_of_a_preset_are_those_that_it_names(preset):
    config = load_config(preset, None, [])
    grace, n_reports = config.search.grace_reports, config.mdgan.n_reports
    assert grace >= n_reports or first_rung(config) == grace


def test_the_plan_says_when_trials_are_stopped_and_why_not_before(capsys):
    def plan(*overrides):
        config = load_config("demo", None, list(overrides))
        show_plan(config, Where(Path("runs"), None, "mlflow"), None, Console())
        return " ".join(capsys.readouterr().out.split())

    early = "search.grace_reports=2"
    assert (
        "from report 28 of 30 on (not from 2 on: lambda_latent acts only with the adversary)"
        in plan(*FEW, early)
    )
    assert "from report 2 of 30 on Best" in plan(*FEW, early, "mdgan.lambda_latent=1")
    assert (
        "no trial is stopped early: lambda_latent acts only after mdgan.adversarial_from of the "
        "training, and no report is left to compare at; raise mdgan.n_reports (4)"
    ) in plan(*FEW, early, "mdgan.n_reports=4")


def test_a_cutoff_beside_an_infinite_value_is_a_number():
    assert quantile([1.0, 2.0, math.inf], 1 / 2) == 2.0
    # The third of four: without care, 0 times infinity would stop nobody.
    rungs = finished([[1.0], [2.0], [math.nan], [3.0]], [1], 2)
    assert rungs.counts_up_to(3) == (1, True)


def test_a_failure_is_no_rival():
    state = SearchState(Rungs([2], 2), 4)
    for number in range(2):
        state.add(TrialState(TrialSpec(f"trial-00{number}", number, 0, {})))
    state.add_report(0, {"report": 1, "objective": 1.0, "snippets_seen": 100})
    # Told as the next report, with a value that no sound trial comes near.
    state.add_report(0, {"report": 2, "objective": 1000.0, "reason": "NaN", "ended": "failed"})
    state.end(0, {"reason": ""})
    for report in (1, 2):
        state.add_report(1, {"report": report, "objective": 2000.0})
    assert state.rungs.counts_up_to(1) == (None, False)
