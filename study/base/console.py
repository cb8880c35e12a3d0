"""Output in the terminal: lines, progress, tables of at most 100 columns."""

import errno
import os
import sys
import textwrap
import time
from collections.abc import Sequence
from typing import Any, TextIO

from study.base import stopping

WIDTH = 100
# Until this share of the work is done, most of the time goes to starting worker processes.
MIN_SHARE_FOR_ESTIMATE = 0.15


def format_seconds(seconds: float) -> str:
    """Seconds as text: 8 s, 3:05 or 2:03:05."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, s = divmod(whole, 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def count(n: int, word: str, verbs: str = "") -> str:
    """A number with its word, such as "1 file" or "2 files".

    Args:
        n: the number.
        word: for one.
        verbs: what follows, for one and for several with a stroke between: "is/are".
    """
    one, several = (f" {verb}" for verb in verbs.split("/")) if verbs else ("", "")
    return f"{n:,} {word}{one}" if n == 1 else f"{n:,} {word}s{several}"


class Console:
    """The terminal; nothing else prints."""

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream or sys.stdout
        self._progress_open = False

    def line(self, text: str = "") -> None:
        """Print one line."""
        self.end_progress()
        self._write(text + "\n")

    def note(self, text: str) -> None:
        """Print a sentence below a stage's title, in as many lines as it needs."""
        indent = " " * 6
        self.line(
            textwrap.fill(
                text, WIDTH, initial_indent=indent, subsequent_indent=indent,
                break_long_words=False, break_on_hyphens=False,
            )
        )  # fmt: skip

    def stage(self, index: int, n_stages: int, name: str) -> None:
        """Print the title of a stage."""
        self.line(f"[{index}/{n_stages}] {name}")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Print a table, numbers to the right; cut each line at 100 columns."""
        cells = [[_cell(value) for value in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
        numeric = [all(isinstance(row[i], int | float) or row[i] is None for row in rows)
                   for i in range(len(header))]  # fmt: skip
        for row in [list(header), ["-" * w for w in widths], *cells]:
            padded = [
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(row, widths, numeric, strict=True)
            ]
            text = "  ".join(padded).rstrip()
            self.line(text if len(text) <= WIDTH else text[: WIDTH - 1] + "…")

    def end_progress(self) -> None:
        """Finish the line of progress, so that the next text begins on a new line."""
        if self._progress_open:
            self._progress_open = False
            self._write("\n")

    def progress(self, text: str) -> None:
        """Show progress: in place in a terminal, otherwise as a line."""
        if self._stream.isatty():
            self._write("\r\033[K      " + text[: WIDTH - 7])
            self._progress_open = True
        else:
            self.note(text)

    def _write(self, text: str) -> None:
        """Write text; a reader that is gone must not break what is being closed.

        Raises:
            Stopped: the terminal is gone.
            BrokenPipeError: the reader is gone, as with ``| head``.
        """
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError as error:
            is_terminal = error.errno == errno.EIO
            if not is_terminal and not (stopping.is_stopping() and error.errno == errno.EPIPE):
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            if is_terminal:
                stopping.hang_up()


class Progress:
    """Counts work that is done, and tells how long the rest will take."""

    def __init__(self, console: Console, total: int, noun: str, every_s: float = 5.0):
        self._console = console
        self._total = total
        self._noun = noun
        self._every_s = every_s
        self._started = self._shown = time.monotonic()
        self._done = 0
        self._work_done = 0.0

    def advance(self, n: int = 1, work_share: float | None = None) -> None:
        """Count ``n`` more as done; ``work_share`` is their share of all work, if sizes differ."""
        self._done += n
        self._work_done += n / max(self._total, 1) if work_share is None else work_share
        now = time.monotonic()
        if self._done < self._total and now - self._shown < self._every_s:
            return
        self._shown = now
        elapsed = now - self._started
        if self._done >= self._total:
            text = f"{self._total} {self._noun} in {format_seconds(elapsed)}"
        else:
            text = f"{self._done} of {self._total} {self._noun}, {format_seconds(elapsed)} so far"
            if self._work_done >= MIN_SHARE_FOR_ESTIMATE:
                left = elapsed * (1 / self._work_done - 1)
                text += f", about {format_seconds(left)} left"
        self._console.progress(text)
        if self._done >= self._total:
            self._console.end_progress()


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)
