"""One thread that sends pictures of runs to MLflow, and tries again for as long as it takes.

Of each run the newest picture waits. One that fails for now holds up no other; while nothing at
all can be sent, one run is tried at a time, at growing intervals.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from study.base.console import format_seconds
from study.tracking.difference import Differences
from study.tracking.errors import AwayError, RefusedError
from study.tracking.picture import STUDY, RunPicture

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 15.0


@dataclass
class _Waiting:
    """A picture that waits.

    Attributes:
        picture: the newest one of its run.
        n_failed: failures in a row.
        not_before: time of `time.monotonic` of its next try.
        owes_end: its end is sent before all the rest.
    """

    picture: RunPicture
    n_failed: int = 0
    not_before: float = 0.0
    owes_end: bool = False


class Sender:
    """Sends in a thread of its own, from now until `close`.

    Args:
        name: of the receiver, for the lines that are shown.
        receiver: takes the pictures.
        say: shows one line.
        first_wait_s, longest_wait_s: between two tries.
    """

    def __init__(
        self,
        name: str,
        receiver: Differences,
        say: Callable[[str], None],
        first_wait_s: float = FIRST_WAIT_S,
        longest_wait_s: float = LONGEST_WAIT_S,
    ):
        self._name = name
        self._receiver = receiver
        self._say = say
        self._waits_s = (first_wait_s, longest_wait_s)
        # Guards all that follows.
        self._condition = threading.Condition()
        self._waiting: OrderedDict[tuple[str, str], _Waiting] = OrderedDict()
        self._n_failed = 0  # failures in a row, of whatever run
        self._not_before = 0.0
        self._is_stopping = False
        self._away_since: float | None = None
        self._said: set[str] = set()
        # A daemon: a server that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)
        self._thread.start()

    def add(self, picture: RunPicture) -> None:
        """Send a picture, together with what still waits of the same run."""
        with self._condition:
            known = self._waiting.get(picture.key)
            if known is None:
                self._waiting[picture.key] = _Waiting(picture)
            else:
                known.picture = known.picture.with_newer(picture)
            self._condition.notify_all()

    def pending(self) -> list[RunPicture]:
        """All pictures that wait."""
        with self._condition:
            return [one.picture for one in self._waiting.values()]

    def flush(self, timeout_s: float) -> int:
        """Wait until all is sent; give the number of runs that still wait.

        A try that was to come later is made at once.
        """
        deadline = time.monotonic() + timeout_s
        with self._condition:
            self._try_now()
            while self._waiting and self._thread.is_alive():
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    break
                self._condition.wait(left_s)
            return len(self._waiting)

    def close(self, timeout_s: float) -> int:
        """Flush and end the thread; give the number of runs that still wait.

        How the study ended goes first, then the ends of other runs: the time may not be enough for
        all, and no run is to say for ever that it runs.
        """
        with self._condition:
            ended = {key: one for key, one in self._waiting.items() if one.picture.is_end}
            for key, one in sorted(ended.items(), key=lambda of: of[1].picture.identity == STUDY):
                one.owes_end = True
                self._waiting.move_to_end(key, last=False)
        self.flush(timeout_s)
        with self._condition:
            self._is_stopping = True
            self._condition.notify_all()
        # It may be waiting for an answer, for as long as such a wait may last; that is left to it.
        self._thread.join(1.0)
        with self._condition:
            return len(self._waiting)

    def _try_now(self) -> None:
        self._not_before = 0.0
        for one in self._waiting.values():
            one.not_before = 0.0
        self._condition.notify_all()

    def _run(self) -> None:
        while (due := self._wait_for_work()) is not None:
            self._send(*due)

    def _wait_for_work(self) -> tuple[_Waiting, RunPicture] | None:
        """A run that is due, with its picture of now; None at the end."""
        with self._condition:
            while not self._is_stopping:
                now = time.monotonic()
                times = []
                for key, one in self._waiting.items():
                    next_try = max(one.not_before, self._not_before)
                    if next_try <= now:
                        self._waiting.move_to_end(key)  # others have their turn before its next
                        return one, one.picture.end() if one.owes_end else one.picture
                    times.append(next_try)
                self._condition.wait(min(times) - now if times else None)
            return None

    def _send(self, one: _Waiting, picture: RunPicture) -> None:
        is_end = one.owes_end
        try:
            is_whole = self._receiver.send(picture, lambda: not is_end and self._is_end_owed())
        except RefusedError as error:
            if one.n_failed + 1 < error.tries:
                self._failed(one, str(error))
            else:
                what = self._receiver.refuse(picture, error)
                self._tell(f"{self._name} refused {what}: {error}")
                self._succeeded(one, None)
        # Whatever it is, it must not end the thread: all other runs wait for it.
        except Exception as error:
            self._failed(one, str(error) if isinstance(error, AwayError) else repr(error))
        else:
            one.owes_end = one.owes_end and not is_end
            self._succeeded(one, picture if is_whole else None)

    def _is_end_owed(self) -> bool:
        with self._condition:
            now = time.monotonic()
            return any(one.owes_end and one.not_before <= now for one in self._waiting.values())

    def _failed(self, one: _Waiting, reason: str) -> None:
        with self._condition:
            one.n_failed += 1
            self._n_failed += 1
            now = time.monotonic()
            one.not_before = now + self._wait_s(one.n_failed)
            self._not_before = now + self._wait_s(self._n_failed)
            if self._away_since is None:
                self._away_since = now
                self._said.clear()
        self._tell_once(
            f"{self._name} cannot be told: {reason}. The study goes on; all is in the run folder "
            "and sent later"
        )

    def _wait_s(self, n_failed: int) -> float:
        first, longest = self._waits_s
        return float(min(longest, first * 2 ** min(n_failed - 1, 20)))

    def _succeeded(self, one: _Waiting, sent: RunPicture | None) -> None:
        """Go on after an answer: all of ``sent`` is there; with None it was refused or put off."""
        self._note()
        with self._condition:
            one.n_failed, one.not_before = 0, 0.0
            if one.picture is sent:
                del self._waiting[one.picture.key]
            if self._n_failed > 1:  # nothing was taken for a while, so that all waits are outdated
                self._try_now()
            self._n_failed, self._not_before = 0, 0.0
            away_since = self._away_since
            is_back = away_since is not None and not any(w.n_failed for w in self._waiting.values())
            if is_back:
                self._away_since = None
            n_waiting = len(self._waiting)
            self._condition.notify_all()
        if is_back and away_since is not None:
            away = format_seconds(time.monotonic() - away_since)
            self._tell(f"{self._name} can be told again, after {away}; {n_waiting} runs to send")

    def _note(self) -> None:
        try:
            self._receiver.note()
        except OSError as error:  # where the disk is full, what was sent is sent again
            self._tell_once(f"what {self._name} was sent cannot be noted: {error.strerror}")

    def _tell_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._tell(text)

    def _tell(self, text: str) -> None:
        # A closed terminal is no reason to stop.
        with suppress(OSError, ValueError):
            self._say(text)
