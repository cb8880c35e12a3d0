"""Operations on their way to somewhere, on disk: what was appended is there after any kill.

A folder holds up to three files, one JSON object a line, that only ever grow:

- operations.jsonl: what is to be delivered, in order, each with its number;
- done.jsonl: numbers of the operations that are done with, and what came of them;
- refused.jsonl: the operations among these that can never be delivered, with the reason.
"""

import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Operation:
    """One thing to deliver.

    Attributes:
        number: its place in the order, from 1.
        run: of what it is; operations of the same run are delivered in order.
        kind: what is to be done.
        content: plain values that go into JSON.
    """

    number: int
    run: str
    kind: str
    content: dict[str, Any]


class Outbox:
    """The operations of one folder. One process at a time may have it; any thread may append.

    Args:
        folder: made where it is missing. A line that was cut short by a kill is cut off.

    Attributes:
        n_broken: lines that cannot be read, though whole ones come after them; they are left out.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._operations = _Lines(folder / "operations.jsonl")
        self._done_lines = _Lines(folder / "done.jsonl")
        self._refused = _Lines(self.refused_path)
        self.n_broken = 0
        self._done: dict[int, dict[str, Any]] = {}
        for line in self._done_lines.read():
            if line is None or not isinstance(line.get("number"), int):
                self.n_broken += 1  # its operation is delivered again
            else:
                self._done[line["number"]] = line
        # What is done may be known of more operations than there are, after a loss of power: no
        # new one may get the number of one that was lost.
        self._last = max(self._done, default=0)
        for operation in map(_operation, self._operations.read()):
            if operation is None:
                self.n_broken += 1
            else:
                self._last = max(self._last, operation.number)

    @property
    def refused_path(self) -> Path:
        """Where operations are set aside."""
        return self.folder / "refused.jsonl"

    def replay(self) -> Iterator[tuple[Operation, Mapping[str, Any] | None]]:
        """All operations that were appended, in order, and what came of those done with."""
        for operation in map(_operation, self._operations.read()):
            if operation is not None:
                yield operation, self._done.get(operation.number)

    def append(self, run: str, kind: str, content: dict[str, Any]) -> Operation:
        """Write an operation to disk; it counts once this has come back.

        Raises:
            OSError: the disk is full or broken; what was appended before is as it was.
            ValueError: the content holds NaN or an infinity.
        """
        with self._lock:
            # Counted first: an interrupt after the write must not let a number be given twice.
            self._last += 1
            operation = Operation(self._last, run, kind, content)
            self._operations.append(asdict(operation))
            return operation

    def done(self, operation: Operation, result: Mapping[str, Any]) -> None:
        """Note that an operation was delivered; without the note it is delivered again.

        Raises:
            OSError: the note could not be written.
        """
        self._done_lines.append({"number": operation.number, **result})

    def refuse(self, operation: Operation, reason: str) -> None:
        """Set an operation aside for good.

        Raises:
            OSError: that could not be written.
        """
        self._refused.append({**asdict(operation), "reason": reason})
        self._done_lines.append({"number": operation.number, "refused": reason})


def _operation(line: dict[str, Any] | None) -> Operation | None:
    """The operation of a line; None where it is broken."""
    try:
        operation = Operation(**(line or {}))
    except TypeError:
        return None
    return operation if isinstance(operation.number, int) else None


class _Lines:
    """A file of JSON objects, one a line, that is whole up to its last line at any time."""

    def __init__(self, path: Path):
        self._path = path
        content = path.read_bytes() if path.exists() else b""
        self._end = content.rfind(b"\n") + 1
        if self._end < len(content):
            os.truncate(path, self._end)

    def read(self) -> Iterator[dict[str, Any] | None]:
        """The lines; None for one that is no JSON object."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            for text in file:
                try:
                    line = json.loads(text)
                except ValueError:
                    line = None
                yield line if isinstance(line, dict) else None

    def append(self, line: Mapping[str, Any]) -> None:
        """Write a line through to the disk, or leave the file as it was and raise OSError."""
        rest = json.dumps(line, allow_nan=False).encode() + b"\n"
        size = len(rest)
        # Not kept open: a file that was deleted meanwhile would take lines that nobody ever reads.
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            while rest:
                rest = rest[os.write(file, rest) :]
            # Network file systems say only now that the disk is full.
            os.fdatasync(file)
            self._end += size
        except BaseException:
            os.ftruncate(file, self._end)
            raise
        finally:
            os.close(file)
