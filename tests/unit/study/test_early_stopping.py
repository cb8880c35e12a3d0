"""Successive halving: who is stopped, and that the order of arrival plays no part."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.search.rungs import Rungs, quantile, rung_reports


def counts_up_to(rungs, factor, values, ended, number):
    """What `Rungs` says, by its definition, worked out anew each time."""
    for rung in rungs:
        if rung not in values.get(number, {}):
            return None, False
        rivals = []
        for other in range(number):
            last, is_stopped = counts_up_to(rungs, factor, values, ended, other)
            if is_stopped and last < rung:
                continue
            value = values.get(other, {}).get(rung)
            if value is None and other not in ended:
                return rung, False
            if value is not None:
                rivals.append(value)
        if rivals and values[number][rung] > np.percentile(rivals, 100 / factor):
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
        expected = [counts_up_to(rungs, factor, values, ended, i) for i in range(n)]
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


def test_a_value_that_is_no_number_is_the_worst():
    rungs = finished([[1.0], [math.nan], [2.0], [1.0]], [1], 2)
    assert [rungs.counts_up_to(i)[1] for i in range(4)] == [False, True, False, False]
