"""The driver's side of running trials: records on disk, MLflow and the terminal."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial

from data_io.files import STORAGE_FULL
from models.mdgan.params import MdganParams
from study.base import stopping
from study.base.console import Console
from study.base.errors import StorageFullError, StudyError, disk_error
from study.search.pictures import begin_trial, curve, read_begun, run_status, trial_picture
from study.search.state import SearchState, TrialState, counted
from study.search.trial import RANKED_BY
from study.search.trial_folder import Report, TrialFolder, TrialSpec, UnreadableRecordError
from study.search.tune_adapters import Unpickled, last_words, os_error
from study.tracking.tracker import RunIdentity, Tracker

# As Ray 2.60 says it where a process is gone, and where its memory monitor ended it.
ACTOR_DIED = "The actor died"
OUT_OF_MEMORY = "killed due to the node running low on memory"


class TrialWatcher(Unpickled, Callback):
    """Takes in what trials report: each report once, however often it is told.

    Args:
        state: all trials; those of earlier runs of the study among them.
        folder: holds the folders of the trials.
        base: parameters that are not searched.
        tracker: of the study.
        identity_of: the MLflow run of a trial.
        console: shows progress.
        n_trials: how many there will be.
    """

    def __init__(
        self,
        state: SearchState,
        folder: Path,
        base: MdganParams,
        tracker: Tracker,
        identity_of: Callable[[TrialSpec], RunIdentity],
        console: Console,
        n_trials: int,
    ):
        self.fault: StudyError | None = None
        self._state = state
        self._folder = folder
        self._base = base
        self._tracker = tracker
        self._identity_of = identity_of
        self._console = console
        self._n_trials = n_trials
        self._n_shown: dict[int, int] = {}
        found = {n: read_begun(TrialFolder(folder / t.spec.name)) for n, t in state.trials.items()}
        self._begun = {number: stamp for number, stamp in found.items() if stamp is not None}

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Begin the trial's MLflow run, or go on with it."""
        self._state.begin(_number(trial))
        self._guarded(lambda: self.open_run(_number(trial)))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Keep a report; log what surely counts."""
        if "storage" in result:
            self.stop_for(result["storage"])
            return
        self._guarded(lambda: self._take_in(trial, result))

    def on_trial_recover(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Say why a trial's process ended; another goes on from its checkpoint."""
        stopping.check(stopping.SETTLE_S)  # its process may have been told to stop, as we are
        state = self._state.trials[_number(trial)]
        state.n_retries += 1
        words = last_words(trial)
        why = "its process died" if words.startswith(ACTOR_DIED) else _why(words)
        self._console.line(f"      {state.spec.name}: {why}; it goes on elsewhere")

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Write down how the trial ended, unless the study ends before it."""
        if self.fault is None:
            self._guarded(lambda: self.end(_number(trial)))

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Name the trial that could not be finished; where the disk failed, the search ends."""
        stopping.check(stopping.SETTLE_S)
        state = self._state.trials[_number(trial)]
        words = last_words(trial)
        reason = _why(words)
        self._console.line(f"      {state.spec.name}: {reason}")
        # A disk that fails a trial at each retry says nothing of its decoder.
        self.fault = self.fault or disk_error(os_error(words))
        if self.fault is None:
            self._guarded(lambda: self.end(_number(trial), reason))

    def open_run(self, number: int) -> None:
        """Begin or go on with a trial's MLflow run."""
        state = self._state.trials[number]
        known = self._begun.get(number)
        self._begun[number] = begin_trial(
            TrialFolder(self._folder / state.spec.name), self._tracker
        )
        if self._begun[number] != known:
            self._n_shown[number] = 0
        self._show(state, status="RUNNING")

    def _show(self, state: TrialState, **parts: Any) -> None:
        """Show parts of a trial's run, where it has one."""
        stamp = self._begun.get(state.spec.number)
        if stamp is not None:
            whole = trial_picture(self._identity_of(state.spec), state.spec, self._base, stamp)
            self._tracker.show(dataclasses.replace(whole, **parts))

    def end(self, number: int, error: str = "") -> None:
        """Write ended.json of a trial whose process is done."""
        state = self._state.trials[number]
        last_report = state.reports.get(max(state.reports, default=0), {})
        if error and last_report.get("report") == self._state.n_reports and self._is_kept(number):
            error = ""  # its process died when all was done: its decoder is kept
        ended = {
            "reports": [state.reports[report] for report in sorted(state.reports)],
            "reason": error,
            "may_go_on": bool(error) or bool(last_report.get("may_go_on")),
            "ended_at": time.time(),
            "node": state.node,
            "n_retries": state.n_retries,
            "mlflow_run_id": self._tracker.run_id(self._identity_of(state.spec)),
            "begun": self._begun.get(number),
        }
        self._state.end(number, ended)
        TrialFolder(self._folder / state.spec.name).end(ended)

    def _is_kept(self, number: int) -> bool:
        """Whether the last report's checkpoint is there and sound."""
        trial = TrialFolder(self._folder / self._state.trials[number].spec.name)
        try:
            sound = trial.sound_reports(self._console.line)
        except UnreadableRecordError:
            return False
        return bool(sound) and sound[-1]["report"] == self._state.n_reports

    def close_runs(self) -> None:
        """Show every report that counts, and end every run: all is decided now."""
        for number, state in sorted(self._state.trials.items()):
            outcome = self._state.outcome(number)
            steps = curve(outcome.reports)
            tags = {"status": outcome.status, "reason": outcome.reason, "node": state.node}
            ended_at = state.ended["ended_at"] if state.ended else None
            # Where a trial that wanted memory was tried again, others may be stopped earlier now.
            self._show(state, curve=steps, last_step=max(steps, default=0), tags=tags,
                       status=run_status(outcome.status), ended_at=ended_at)  # fmt: skip

    def _take_in(self, trial: Trial, result: dict[str, Any]) -> None:
        number = _number(trial)
        state = self._state.trials[number]
        state.node = str(result.get("hostname", ""))
        if result.get("note"):
            self._console.line(f"      {result['note']}")
            self._show(state, tags={"note": result["note"]})
        self._state.add_report(number, _own_entries(result))
        # What a report decides may make reports of other trials count.
        for decided in {number, *self._state.rungs.take_settled()}:
            self._show_what_counts(self._state.trials[decided])
        self._console.progress(
            f"{self._state.n_ended} of {self._n_trials} done; {state.spec.name} report "
            f"{result['report']}/{self._state.n_reports}, objective {result[RANKED_BY]:.3f}"
        )

    def _show_what_counts(self, state: TrialState) -> None:
        """Show the reports that no early stop can take back."""
        number = state.spec.number
        last, _ = self._state.rungs.counts_up_to(number)
        n_shown = self._n_shown.get(number, 0)
        new = [
            state.reports[report] for report in sorted(state.reports)
            if report > n_shown and (last is None or report <= last)
            and not state.reports[report].get("reason")  # the next process may report in its place
        ]  # fmt: skip
        if new:
            self._n_shown[number] = new[-1]["report"]
            self._show(state, curve=curve(new))

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do ``work``; a full disk ends the search, and is named."""
        try:
            work()
        except OSError as error:
            if error.errno not in STORAGE_FULL:
                raise
            self.stop_for(str(error))

    def stop_for(self, why: str) -> None:
        """End the search: nothing can be written."""
        self.fault = self.fault or StorageFullError(
            f"Nothing more can be written: {why}. Make room on that disk; the same command goes on "
            "from the checkpoints."
        )


class StopOnFault(Unpickled, Stopper):
    """Ends a search whose watcher has met a fault that no trial can mend."""

    def __init__(self, watcher: TrialWatcher):
        self._watcher = watcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No single trial is ended by it."""
        return False

    def stop_all(self) -> bool:
        """Whether there is a fault."""
        return self._watcher.fault is not None


def _number(trial: Trial) -> int:
    return int(trial.config["spec"]["number"])


def _own_entries(result: dict[str, Any]) -> Report:
    """A report as the trial made it, without what Tune adds."""
    names = (
        RANKED_BY, "report", "snippets_seen", "reported_at", "reason", "ended", "may_go_on"
    )  # fmt: skip
    return {**{n: result[n] for n in names if n in result}, **counted(result)}


def _why(words: str) -> str:
    """Why Tune gave a trial up, in a line; ``words`` are those of the error."""
    if OUT_OF_MEMORY in words:
        return "out of memory: its process was killed; let fewer trials run at once"
    lines = [line for line in words.splitlines() if line.strip()] or ["Ray Tune kept no words"]
    return f"its process failed: {lines[-1].strip()[:300]}"
