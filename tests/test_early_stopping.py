"""Successive halving: who is stopped, and that the order of arrival plays no part."""

import itertools

import pytest

from study.early_stopping import Rungs, rung_reports


def finished(values, rungs, reduction_factor=2):
    """Rungs after all trials reported all values: values[trial][report - 1]."""
    reports = {i: {r: v for r, v in enumerate(row, 1)} for i, row in enumerate(values)}
    return Rungs(rungs, reduction_factor, reports, set(reports))


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
    rungs = Rungs([1, 2], 2, {1: {1: 5.0, 2: 5.0}})
    assert rungs.counts_up_to(1) == (1, False)  # trial 0 has not reached report 1
    rungs.values[0] = {1: 1.0}
    assert rungs.counts_up_to(1) == (1, True)


def test_a_failed_trial_holds_up_no_other():
    rungs = Rungs([1], 2, {1: {1: 5.0}}, ended={0})
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
                    rungs.values.setdefault(trial, {})[report] = values[trial][report - 1]
        rungs.ended = set(range(4))
        assert [rungs.counts_up_to(i) for i in range(4)] == expected
