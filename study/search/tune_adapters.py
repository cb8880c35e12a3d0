"""Our decisions in the classes that Ray Tune wants."""

from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from study.search.rungs import Rungs


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
        if not result.get("reason"):  # a failure is no measurement
            self.rungs.add(number, result["report"], result[self._metric])
        _, is_stopped = self.rungs.counts_up_to(number)
        action: str = TrialScheduler.STOP if is_stopped else TrialScheduler.CONTINUE
        return action

    def on_trial_complete(self, tune_controller: object, trial: Trial, result: dict) -> None:
        """A trial that ended holds up no other."""
        self.rungs.end(trial.config["spec"]["number"])

    def on_trial_error(self, tune_controller: object, trial: Trial) -> None:
        """A trial that failed holds up no other."""
        self.rungs.end(trial.config["spec"]["number"])

    def on_trial_remove(self, tune_controller: object, trial: Trial) -> None:
        """A trial that was taken out holds up no other."""
        self.rungs.end(trial.config["spec"]["number"])


class Unpickled:
    """Tune pickles what it is given, to restore it; a study never restores from there."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return (Unpickled, ())
