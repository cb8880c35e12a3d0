"""Asynchronous successive halving whose decisions do not depend on timing.

Source: Li et al. 2018, arXiv 1810.05934 (ASHA), as in Ray Tune: at each rung a trial goes on only
if it is among the best 1/reduction_factor of those seen there. Ray's scheduler compares a trial
with whichever trials arrived before it, so that the same seed can stop other trials the next time.
Here a trial is compared with the trials of lower number: while one of these is still on its way to
the rung, the trial trains on, and what it reported beyond the rung does not count if it turns out
to be stopped there.

Each value of a choice (each latent size, say) keeps a trial to the end, so that values can be
compared at full length: a trial goes on if, for one of its values, it is the best so far at the
rung. The first trial of a value that comes to a rung is the best so far there, so the first one
passes every rung; later ones pass whenever they are better. A trial that fails before a rung is not
counted there: the next of its value takes its place. One that fails or collapses after its rivals
were stopped leaves its value without a completed trial: stopped trials are not taken up again.
"""

import bisect
import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field


@dataclass
class _Rung:
    """One comparison of trials.

    Attributes:
        report: at which trials are compared.
        n_settled: trials of lower number than this need not be waited for.
        rivals: what those of them that came here reported, ascending.
        best: lowest of these for each value of a choice.
    """

    report: int
    n_settled: int = 0
    rivals: list[float] = field(default_factory=list)
    best: dict[Hashable, float] = field(default_factory=dict)


class Rungs:
    """Reports of trials, and the decision who is stopped.

    A decision, once it can be made, stays: it rests on trials of lower number alone, and what these
    reported is kept. So each is made once, in order of the trials' numbers, and remembered; a
    report costs time in the logarithm of the number of trials.

    Args:
        rungs: reports at which trials are compared, ascending.
        reduction_factor: the best 1/reduction_factor goes on.
    """

    def __init__(self, rungs: list[int], reduction_factor: int):
        self._rungs = [_Rung(report) for report in rungs]
        self._share = 1 / reduction_factor
        self._values: dict[int, dict[int, float]] = {}
        self._groups: dict[int, tuple[Hashable, ...]] = {}
        self._ended: set[int] = set()
        self._stopped: dict[int, int] = {}
        self._settled: list[int] = []

    def enter(self, number: int, groups: Iterable[Hashable]) -> None:
        """Trial ``number`` belongs to these groups, each of which keeps a trial to the end.

        Tell it before the trial's first report; a trial that is not entered belongs to none.
        """
        self._groups[number] = tuple(groups)

    def add(self, number: int, report: int, value: float) -> None:
        """Take in the objective (lower is better) of a report; the first one told of it counts."""
        # What is no number is the worst of all.
        value = math.inf if math.isnan(value) else value
        self._values.setdefault(number, {}).setdefault(report, value)
        self._decide()

    def end(self, number: int) -> None:
        """Trial ``number`` will report no more: it holds up no other."""
        self._ended.add(number)
        self._decide()

    def counts_up_to(self, number: int) -> tuple[int | None, bool]:
        """Last report that surely counts (None: all), and whether the trial is stopped there."""
        if number in self._stopped:
            return self._stopped[number], True
        reported = self._values.get(number, {})
        for rung in self._rungs:
            if rung.report not in reported:
                return None, False
            if rung.n_settled <= number:
                return rung.report, False  # not decided yet
        return None, False

    def are_before(self, report: int) -> bool:
        """Whether a trial may have been stopped that came to this report."""
        return any(rung.report <= report for rung in self._rungs)

    def take_settled(self) -> list[int]:
        """Trials that were decided on at a rung since this was asked last."""
        settled, self._settled = self._settled, []
        return settled

    def _decide(self) -> None:
        """Make every decision that can be made now."""
        n_before: float = math.inf  # trials that are settled at the rung before
        for rung in self._rungs:
            while rung.n_settled < n_before and self._settle(rung, rung.n_settled):
                self._settled.append(rung.n_settled)
                rung.n_settled += 1
            n_before = rung.n_settled

    def _settle(self, rung: _Rung, number: int) -> bool:
        """Decide on the trial that comes next at a rung; False where it has yet to come there."""
        if number in self._stopped:
            return True
        value = self._values.get(number, {}).get(rung.report)
        if value is None:
            return number in self._ended
        is_weak = bool(rung.rivals) and value > quantile(rung.rivals, self._share)
        if is_weak and not self._is_best_of_a_group(rung, number, value):
            self._stopped[number] = rung.report
        self._remember(rung, number, value)
        return True

    def _is_best_of_a_group(self, rung: _Rung, number: int, value: float) -> bool:
        groups = self._groups.get(number, ())
        return any(group not in rung.best or value < rung.best[group] for group in groups)

    def _remember(self, rung: _Rung, number: int, value: float) -> None:
        bisect.insort(rung.rivals, value)
        for group in self._groups.get(number, ()):
            rung.best[group] = min(value, rung.best.get(group, math.inf))


def quantile(ascending: list[float], share: float) -> float:
    """The value below which ``share`` of the numbers lie, by linear interpolation."""
    place = share * (len(ascending) - 1)
    i = min(int(place), len(ascending) - 1)
    low, high = ascending[i], ascending[min(i + 1, len(ascending) - 1)]
    return low if low == high or place == i else low + (high - low) * (place - i)


def rung_reports(first: int, reduction_factor: int, n_reports: int) -> list[int]:
    """Reports at which trials are compared: first, first * factor, ... before the last report."""
    rungs = []
    report = first
    while report < n_reports:
        rungs.append(report)
        report *= reduction_factor
    return rungs
