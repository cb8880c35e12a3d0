"""Asynchronous successive halving whose decisions do not depend on timing.

Source: Li et al. 2018, arXiv 1810.05934 (ASHA), as in Ray Tune: at each rung a trial goes on only
if it is among the best 1/reduction_factor of those seen there. Ray's scheduler compares a trial
with whichever trials arrived before it, so that the same seed can stop other trials the next time.
Here a trial is compared with the trials of lower number: while one of these is still on its way to
the rung, the trial trains on, and what it reported beyond the rung does not count if it turns out
to be stopped there.
"""

from dataclasses import dataclass, field

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler


@dataclass
class Rungs:
    """Reports of all trials, and what they decide.

    Attributes:
        rungs: reports at which trials are compared, ascending.
        reduction_factor: the best 1/reduction_factor goes on.
        values: objective (lower is better) by trial number and report.
        ended: trials that will report no more.
    """

    rungs: list[int]
    reduction_factor: int
    values: dict[int, dict[int, float]] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)

    def counts_up_to(self, number: int) -> tuple[int | None, bool]:
        """Last report that surely counts (None: all), and whether the trial is stopped there."""
        for rung in self.rungs:
            if rung not in self.values.get(number, {}):
                return None, False
            rivals = []
            for other in range(number):
                last, is_stopped = self.counts_up_to(other)
                if is_stopped and last is not None and last < rung:
                    continue
                value = self.values.get(other, {}).get(rung)
                if value is None and other not in self.ended:
                    return rung, False  # not decided yet
                if value is not None:
                    rivals.append(value)
            if rivals:
                cutoff = np.percentile(rivals, 100 / self.reduction_factor)
                if self.values[number][rung] > cutoff:
                    return rung, True
        return None, False


def rung_reports(grace_reports: int, reduction_factor: int, n_reports: int) -> list[int]:
    """Reports at which trials are compared: grace, grace * factor, ... before the last report."""
    rungs = []
    report = grace_reports
    while report < n_reports:
        rungs.append(report)
        report *= reduction_factor
    return rungs


class OrderedASHA(AsyncHyperBandScheduler):
    """Ray's ASHA with the decisions of `Rungs`.

    Trials carry a ``spec`` with their ``number`` in their configuration, and ``report`` in their
    results.
    """

    def __init__(self, metric: str, rungs: Rungs, n_reports: int):
        super().__init__("report", metric, "min", max_t=n_reports)
        self.rungs = rungs

    def on_trial_result(self, tune_controller: object, trial: Trial, result: dict) -> str:
        """Record a report; stop the trial once that is decided."""
        number = trial.config["spec"]["number"]
        # A process that goes on from a checkpoint tells again what its forerunner told.
        values = self.rungs.values.setdefault(number, {})
        values.setdefault(result["report"], result[self._metric])
        _, is_stopped = self.rungs.counts_up_to(number)
        action: str = TrialScheduler.STOP if is_stopped else TrialScheduler.CONTINUE
        return action

    def on_trial_complete(self, tune_controller: object, trial: Trial, result: dict) -> None:
        """A trial that ended holds up no other."""
        self.rungs.ended.add(trial.config["spec"]["number"])

    def on_trial_error(self, tune_controller: object, trial: Trial) -> None:
        """A trial that failed holds up no other."""
        self.rungs.ended.add(trial.config["spec"]["number"])

    def on_trial_remove(self, tune_controller: object, trial: Trial) -> None:
        """A trial that was taken out holds up no other."""
        self.rungs.ended.add(trial.config["spec"]["number"])
