"""Ray Tune without Ray: what its controller tells searcher, scheduler and callbacks, in its order.

Source: ray/tune/execution/tune_controller.py of Ray 2.60 (`step`, `_process_trial_result`,
`stop_trial`, `_process_trial_failure`, `_requeue_trial`).
"""

import copy
from collections.abc import Callable
from typing import Any

from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from tests.helpers.pretend_processes import HELD_UP, Process, wait


class PretendTrial:
    """A trial as Tune has it.

    Attributes:
        status: pending, running or done.
        worker: the process that trains; None where there is none.
        told: result of the worker that the driver has not heard of.
    """

    def __init__(self, trial_id: str, config: dict[str, Any]):
        self.trial_id = trial_id
        self.config = config
        self.status = "pending"
        self.worker: Process | None = None
        self.told: dict[str, Any] | None = None
        self.last_result: dict[str, Any] = {}
        self.n_failures = 0
        self._error: Exception | None = None

    @property
    def number(self) -> int:
        """Of the trial."""
        return int(self.config["spec"]["number"])

    def last_words(self) -> str:
        """As `study.search.tune_adapters.last_words`."""
        return str(self._error)

    def train(self) -> None:
        """Let the worker go on to its next report, or to where it is held up."""
        assert self.worker is not None and self.told is None
        found = self.worker.go_on()
        if found is not None and found is not HELD_UP:
            self.told = found

    def failed(self, error: Exception) -> None:
        """Keep an error."""
        self.n_failures += 1
        self._error = error


class PretendTune:
    """One call of `study.search.launch.launch`.

    Args:
        train: the code of a worker, given ``spec`` as Tune gives it.
        watcher, work, n_trials, scheduler: as `launch` takes them.
        max_failures: times that a trial is tried again.
        n_slots: trials that run at once.
    """

    def __init__(
        self, train: Callable[[dict[str, Any]], None], watcher: Any, work: Any, n_trials: int,
        scheduler: Any, max_failures: int, n_slots: int,
    ):  # fmt: skip
        self._train = train
        self._watcher = watcher
        self._searcher = None if isinstance(work, list) else work
        self._scheduler = scheduler
        self._max_failures = max_failures
        self._n_slots = n_slots
        self._n_left = n_trials
        self.trials: list[PretendTrial] = []
        if self._searcher is None:
            self.trials = [PretendTrial(s.name, {"spec": dict(vars(s))}) for s in work]
            self._n_left = 0

    def run(self) -> None:
        """Run until all trials are done or there is a fault; waits for one event at a time."""
        self._fill_queue()
        while self._n_left or any(trial.status != "done" for trial in self.trials):
            event = wait(self)  # the world says what happens next
            event()
            if self._watcher.fault is not None:
                raise self._watcher.fault
            self._fill_queue()

    def startable(self) -> list[PretendTrial]:
        """The trial that gets the next free slot, if there is one."""
        is_free = len(self.running()) < self._n_slots
        return [trial for trial in self.trials if trial.status == "pending"][: int(is_free)]

    def running(self) -> list[PretendTrial]:
        """Trials that train."""
        return [trial for trial in self.trials if trial.status == "running"]

    def with_process(self) -> list[PretendTrial]:
        """Those whose process is there, though the driver may have died while it gave one up."""
        return [trial for trial in self.trials if trial.worker is not None]

    def start(self, trial: PretendTrial) -> None:
        """A process is there for a trial."""
        self._watcher.on_trial_start(0, self.trials, trial)
        trial.status = "running"
        trial.worker = Process(lambda: self._train({"spec": dict(trial.config["spec"])}))

    def hear(self, trial: PretendTrial) -> None:
        """The driver hears of a result, of the end of a training, or of the end of its process."""
        assert trial.worker is not None
        if trial.told is not None:
            result, trial.told = trial.told, None
            decision = self._decide(trial, result)
            self._watcher.on_trial_result(0, self.trials, trial, result=result)
            trial.last_result = result
        elif trial.worker.error is None and not trial.worker.was_killed:
            # The function returned: Tune tells the last result once more, with done.
            decision = TrialScheduler.STOP
        else:
            self._fail(trial, trial.worker.error or RuntimeError("The actor died unexpectedly"))
            return
        if decision == TrialScheduler.STOP:
            self._stop(trial)

    def _decide(self, trial: PretendTrial, result: dict[str, Any]) -> str:
        decision = TrialScheduler.CONTINUE
        if self._scheduler is not None:
            decision = self._scheduler.on_trial_result(self, trial, result)
        if decision != TrialScheduler.STOP and self._searcher is not None:
            self._searcher.on_trial_result(trial.trial_id, result)
        return str(decision)

    def _stop(self, trial: PretendTrial) -> None:
        # Tune takes an error of these for one of the trial; here it ends the history.
        if self._scheduler is not None:
            self._scheduler.on_trial_complete(self, trial, trial.last_result)
        if self._searcher is not None:
            self._searcher.on_trial_complete(trial.trial_id, result=trial.last_result)
        self._watcher.on_trial_complete(0, self.trials, trial)
        self._done(trial)

    def _fail(self, trial: PretendTrial, error: Exception) -> None:
        trial.failed(error)
        self._end_process(trial)
        if trial.n_failures <= self._max_failures:
            if self._scheduler is not None:
                self._scheduler.on_trial_error(self, trial)
            trial.status = "pending"
            self.trials.remove(trial)
            self.trials.append(trial)
            self._watcher.on_trial_recover(0, self.trials, trial)
        else:
            if self._scheduler is not None:
                self._scheduler.on_trial_error(self, trial)
            if self._searcher is not None:
                self._searcher.on_trial_complete(trial.trial_id, error=True)
            self._done(trial)
            self._watcher.on_trial_error(0, self.trials, trial)

    def _done(self, trial: PretendTrial) -> None:
        self._end_process(trial)
        trial.status = "done"

    def _end_process(self, trial: PretendTrial) -> None:
        if trial.worker is not None:
            trial.worker.kill()
        trial.worker, trial.told = None, None

    def _fill_queue(self) -> None:
        """Ask for one trial that waits, as Tune does."""
        while self._n_left and not any(trial.status == "pending" for trial in self.trials):
            trial_id = f"id-{len(self.trials)}"
            suggested = self._searcher.suggest(trial_id)
            if suggested == Searcher.FINISHED:
                self._n_left = 0
            else:
                self._n_left -= 1
                self.trials.append(PretendTrial(trial_id, copy.deepcopy(suggested)))
