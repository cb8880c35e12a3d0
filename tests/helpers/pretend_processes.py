"""Processes inside of one: each goes on until it waits, and can be killed wherever it is.

What a process writes goes through `data_io.files.sync`; `at_sync` takes its place, costs nothing,
and is where a process is killed or held up between two writes of a record.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from greenlet import getcurrent, greenlet

HELD_UP = "held up"


class Killed(BaseException):
    """SIGKILL: nothing more of the process reaches the disk."""


class Process:
    """One process.

    Args:
        work: all that it does.

    Attributes:
        is_alive: False once it has ended or was killed.
        was_killed: nothing of it reaches the disk any more.
        error: that ended it; None otherwise.
        killed_at: it is killed at so many syncs from now; None for not.
        held_up_at: it waits there, as a slow disk makes it wait; None for not.
    """

    now: "Process | None" = None  # whose code runs

    def __init__(self, work: Callable[[], None]):
        self.is_alive = True
        self.error: Exception | None = None
        self.killed_at: int | None = None
        self.held_up_at: int | None = None
        self.was_killed = False
        self._work = work
        self._greenlet = greenlet(self._run)

    def go_on(self, message: Any = None) -> Any:
        """Let it run until it waits, and give what for; None where it has ended."""
        return self.act(lambda: self._switch(self._greenlet.switch, message))

    def act(self, work: Callable[[], Any]) -> Any:
        """Do ``work`` as another thread of this process does it."""
        before, Process.now = Process.now, self
        try:
            return work()
        finally:
            Process.now = before

    def kill(self) -> None:
        """End it where it is."""
        self.was_killed = True
        if self.is_alive and self._greenlet:
            self.act(lambda: self._switch(self._greenlet.throw, Killed))
        self.is_alive = False

    def _switch(self, enter: Callable[[Any], Any], message: Any) -> Any:
        self._greenlet.parent = getcurrent()
        return enter(message)

    def _run(self, _: Any) -> None:
        try:
            self._work()
        except Killed:
            self.was_killed = True
        except Exception as error:
            self.error = error
        self.is_alive = False

    def at_sync(self, path: Path) -> None:
        """Go on, or die, or wait before what is on the disk gets its name (or just after)."""
        if self.was_killed:
            raise Killed
        if self.killed_at is not None:
            self.killed_at -= 1
            if self.killed_at < 0:
                self.was_killed = True
                _leave(path)
                raise Killed
        if self.held_up_at is not None:
            self.held_up_at -= 1
            if self.held_up_at < 0:
                self.held_up_at = None
                wait(HELD_UP)
                if self.was_killed:
                    raise Killed


def wait(what_for: Any) -> Any:
    """Wait, as code of a process, until it may go on; give what it is told."""
    return getcurrent().parent.switch(what_for)


def at_sync(path: Path) -> None:
    """In place of `data_io.files.sync`; it too fails where another process removed the file."""
    if Process.now is not None:
        Process.now.at_sync(path)
    path.stat()


def _leave(path: Path) -> None:
    """Let lie what a killed process leaves: code that unwinds would remove it."""
    if ".tmp" not in path.name:
        return
    left = path.with_name(f".left{path.name}")
    if path.is_dir():
        shutil.copytree(path, left)
    else:
        shutil.copyfile(path, left)
