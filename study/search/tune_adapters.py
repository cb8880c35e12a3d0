"""Our decisions in the classes that Ray Tune wants, and what it keeps of errors."""

import ast
import re
from pathlib import Path

from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from study.search.state import SearchState
from study.search.trial import RANKED_BY


class OrderedASHA(AsyncHyperBandScheduler):
    """Ray's ASHA with the decisions of `Rungs`.

    Trials carry a ``spec`` with their ``number`` in their configuration, and ``report`` in their
    results.
    """

    def __init__(self, state: SearchState):
        super().__init__("report", RANKED_BY, "min", max_t=state.n_reports)
        self._state = state

    def on_trial_result(self, tune_controller: object, trial: Trial, result: dict) -> str:
        """Record a report; stop the trial once that is decided."""
        number = trial.config["spec"]["number"]
        # A process that goes on from a checkpoint tells again what its forerunner told.
        self._state.compare(number, result)
        _, is_stopped = self._state.rungs.counts_up_to(number)
        action: str = TrialScheduler.STOP if is_stopped else TrialScheduler.CONTINUE
        return action

    def on_trial_complete(self, tune_controller: object, trial: Trial, result: dict) -> None:
        """A trial that ended holds up no other."""
        self._state.rungs.end(trial.config["spec"]["number"])

    def on_trial_error(self, tune_controller: object, trial: Trial) -> None:
        """Nothing: it may go on from its checkpoint, and the watcher ends one that cannot."""

    def on_trial_remove(self, tune_controller: object, trial: Trial) -> None:
        """A trial that was taken out holds up no other."""
        self._state.rungs.end(trial.config["spec"]["number"])


class Unpickled:
    """Tune pickles what it is given, to restore it; a study never restores from there."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return (Unpickled, ())


def last_words(trial: Trial) -> str:
    """The words of the error for which Tune gave a trial's process up.

    `Trial.get_pickled_error` looks where Tune will have copied its file to, some time later, and
    errors that are neither of a task nor of an actor (OutOfMemoryError) are kept as words alone
    (ray/tune/experiment/trial.py of Ray 2.60, `handle_error`).
    """
    path = Path(trial.error_file)
    text = path.read_text("utf-8", errors="replace") if path.is_file() else ""
    # The words of each failure are added below those of the one before.
    return re.split(r"^Failure # \d+ \(occurred at .*\)\n", text, flags=re.MULTILINE)[-1].strip()


def os_error(words: str) -> OSError | None:
    """The system's error behind the words of an error; None where there is none with a file."""
    last = words.rpartition("\n")[2]
    found = re.match(r"\w+: \[Errno (\d+)\] (.+?): ('.*'|\".*\")$", last)
    if found is None:
        return None
    name = found[3].partition(" -> ")[0]  # of two, as in a renaming
    return OSError(int(found[1]), found[2], ast.literal_eval(name))
