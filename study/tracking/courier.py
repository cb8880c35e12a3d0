"""One thread that delivers what is in outboxes, and tries again for as long as it takes.

Operations of the same run go in order. One that fails for now holds up its own run alone; while
nothing at all can be delivered, one operation is tried at a time, at growing intervals.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from study.base.console import format_seconds
from study.tracking.outbox import Operation

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 15.0


class AwayError(Exception):
    """An operation could not be delivered now; later it may be. The message says why."""


class RefusedError(Exception):
    """An operation will never be accepted; the message says why.

    Attributes:
        tries: how often this must be the answer before it is believed.
    """

    def __init__(self, reason: str, tries: int = 1):
        super().__init__(reason)
        self.tries = tries


class Box(Protocol):
    """Where operations come from, and the way that they take."""

    def deliver(self, operation: Operation) -> Mapping[str, Any]:
        """Deliver; give what is to be noted of it.

        Raises:
            AwayError: not now.
            RefusedError: never.
        """
        ...

    def done(self, operation: Operation, result: Mapping[str, Any]) -> None:
        """Note that it was delivered."""
        ...

    def refuse(self, operation: Operation, reason: str) -> str:
        """Set it aside; give the operation and the place where it is, in words."""
        ...


@dataclass
class _Queue:
    """The waiting operations of one run.

    Attributes:
        n_failed: failures in a row of the first of them.
        not_before: time of `time.monotonic` of its next try.
    """

    box: Box
    operations: deque[Operation] = field(default_factory=deque)
    n_failed: int = 0
    not_before: float = 0.0


class Courier:
    """Delivers in a thread of its own, from now until `close`.

    Args:
        receiver: what everything is delivered to, in words, for the lines that are shown.
        say: shows one line.
        first_wait_s, longest_wait_s: between two tries.
    """

    def __init__(
        self,
        receiver: str,
        say: Callable[[str], None],
        first_wait_s: float = FIRST_WAIT_S,
        longest_wait_s: float = LONGEST_WAIT_S,
    ):
        self._receiver = receiver
        self._say = say
        self._waits_s = (first_wait_s, longest_wait_s)
        self._queues: OrderedDict[tuple[int, str], _Queue] = OrderedDict()
        # Guards all that follows, and the queues.
        self._condition = threading.Condition()
        self._n_failed = 0  # failures in a row, of whatever run
        self._not_before = 0.0
        self._is_stopping = False
        self._away_since: float | None = None
        self._said: set[str] = set()
        # A daemon: a server that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
        self._thread.start()

    def add(self, box: Box, operation: Operation) -> None:
        """Deliver an operation of ``box``, after those of the same run that were added before."""
        with self._condition:
            queue = self._queues.setdefault((id(box), operation.run), _Queue(box))
            queue.operations.append(operation)
            self._condition.notify_all()

    def flush(self, timeout_s: float) -> int:
        """Wait until all is delivered; give the number of operations still waiting.

        A try that was to come later is made at once.
        """
        deadline = time.monotonic() + timeout_s
        with self._condition:
            self._try_now()
            while self._n_waiting() and self._thread.is_alive():
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    break
                self._condition.wait(left_s)
            return self._n_waiting()

    def close(self, timeout_s: float) -> int:
        """Flush and end the thread; give the number of operations still waiting."""
        self.flush(timeout_s)
        with self._condition:
            self._is_stopping = True
            self._condition.notify_all()
        # It may be waiting for an answer, for as long as such a wait may last; that is left to it.
        self._thread.join(1.0)
        with self._condition:
            return self._n_waiting()

    def _n_waiting(self) -> int:
        return sum(len(queue.operations) for queue in self._queues.values())

    def _try_now(self) -> None:
        self._not_before = 0.0
        for queue in self._queues.values():
            queue.not_before = 0.0
        self._condition.notify_all()

    def _run(self) -> None:
        while (due := self._wait_for_work()) is not None:
            self._carry(*due)

    def _wait_for_work(self) -> tuple[_Queue, Operation] | None:
        """The next operation that is due; None at the end."""
        with self._condition:
            while not self._is_stopping:
                now = time.monotonic()
                times = []
                for key, queue in self._queues.items():
                    next_try = max(queue.not_before, self._not_before)
                    if next_try <= now:
                        self._queues.move_to_end(key)  # others have their turn before its next
                        return queue, queue.operations[0]
                    times.append(next_try)
                self._condition.wait(min(times) - now if times else None)
            return None

    def _carry(self, queue: _Queue, operation: Operation) -> None:
        try:
            result = queue.box.deliver(operation)
        except RefusedError as error:
            if queue.n_failed + 1 < error.tries:
                self._failed(queue, str(error))
            else:
                self._refuse(queue.box, operation, str(error))
                self._finished(queue, operation)
        # Whatever it is, it must not end the thread: all other operations wait for it.
        except Exception as error:
            reason = str(error) if isinstance(error, AwayError) else repr(error)
            self._failed(queue, reason)
        else:
            self._note(lambda: queue.box.done(operation, result))
            self._finished(queue, operation)

    def _failed(self, queue: _Queue, reason: str) -> None:
        with self._condition:
            queue.n_failed += 1
            self._n_failed += 1
            now = time.monotonic()
            queue.not_before = now + self._wait_s(queue.n_failed)
            self._not_before = now + self._wait_s(self._n_failed)
            if self._away_since is None:
                self._away_since = now
                self._said.clear()
        if reason not in self._said:
            self._said.add(reason)
            self._tell(
                f"{self._receiver} cannot take what is recorded: {reason}. The study goes on; "
                "records are kept on disk and sent later"
            )

    def _wait_s(self, n_failed: int) -> float:
        first, longest = self._waits_s
        return float(min(longest, first * 2 ** min(n_failed - 1, 20)))

    def _finished(self, queue: _Queue, operation: Operation) -> None:
        with self._condition:
            queue.operations.popleft()
            queue.n_failed, queue.not_before = 0, 0.0
            if not queue.operations:
                del self._queues[id(queue.box), operation.run]
            if self._n_failed > 1:  # nothing was taken for a while, so that all waits are outdated
                self._try_now()
            self._n_failed, self._not_before = 0, 0.0
            away_since = self._away_since
            is_back = away_since is not None and not any(q.n_failed for q in self._queues.values())
            if is_back:
                self._away_since = None
            n_waiting = self._n_waiting()
            self._condition.notify_all()
        if is_back and away_since is not None:
            away = format_seconds(time.monotonic() - away_since)
            self._tell(f"{self._receiver} takes records again, after {away}; {n_waiting} to send")

    def _refuse(self, box: Box, operation: Operation, reason: str) -> None:
        def set_aside() -> None:
            what = box.refuse(operation, reason)
            self._tell(f"{self._receiver} refused {what}: {reason}")

        self._note(set_aside)

    def _note(self, write: Callable[[], None]) -> None:
        """Write what became of an operation; where the disk is full, it is delivered again."""
        try:
            write()
        except OSError as error:
            text = f"what {self._receiver} was sent cannot be noted, and is sent again: {error}"
            if text not in self._said:
                self._said.add(text)
                self._tell(text)

    def _tell(self, text: str) -> None:
        # A closed terminal is no reason to stop.
        with suppress(OSError, ValueError):
            self._say(text)
