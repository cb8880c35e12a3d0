"""Stopping: Ctrl-C, SIGTERM, SIGQUIT and a closed terminal all end the command in the same way.

The first signal raises `Stopped` in the main thread, so that everything on the way out is closed.
Later ones change nothing: what is being closed must not be cut off. A thread counts from the first
signal, and ends the command by itself if the main thread has not within `BOUND_S`.

An error after a stop was asked for is the stop, whatever it says: the processes that the command
started may have got the signal too, and some code takes an exception at any place badly.

Where something is lost that the command cannot do without, `give_up` stops it, too.
"""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from study.base.errors import FAILED
from study.base.processes import end_processes
from study.base.stop_state import State

if TYPE_CHECKING:
    import psutil

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
BOUND_S = 12.0
# A signal to many processes reaches one after another: others may die of it before we have it.
SETTLE_S = 1.0
_TICK_S = 0.1


class Stopped(KeyboardInterrupt):
    """The command was told to stop.

    Attributes:
        signal_number: of the signal.
    """

    def __init__(self, signal_number: int):
        super().__init__(sentence(signal_number))
        self.signal_number = signal_number

    @property
    def exit_code(self) -> int:
        """The command's exit code, as shells give it."""
        return exit_code(self.signal_number)

    @property
    def reason(self) -> str:
        """A few words for a record."""
        return reason(self.signal_number)


def exit_code(signal_number: int) -> int:
    """Exit code of a command that was stopped."""
    return FAILED if _state.lost else 128 + signal_number


def reason(signal_number: int) -> str:
    """Say in a few words what stopped the command."""
    if _state.lost:
        return _state.lost
    if signal_number == signal.SIGINT:
        return "interrupted"
    return f"ended by {signal.Signals(signal_number).name}"


def sentence(signal_number: int) -> str:
    """Say what stopped the command, and what to do."""
    words = reason(signal_number)
    return f"{words[0].upper()}{words[1:]}. The same command {_state.then}."


_state = State()


def listen() -> None:
    """Take the signals of this process; scripts call it first of all.

    Outside `stoppable` there is nothing to close: a signal ends the process at once, with the
    sentence. Signals that are ignored at the start, as with ``nohup`` or ``&``, stay ignored.
    """
    _state.is_listening = True
    _take(_not_ignored())


@contextmanager
def stoppable() -> Iterator[None]:
    """Let the signals raise `Stopped` in the block.

    Python gives signals to the main thread alone; in another thread the block is as without.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    global _state
    _state = State(is_listening=_state.is_listening)
    old = {number: signal.getsignal(number) for number in _not_ignored()}
    _state.hooks = hooks = (sys.unraisablehook, threading.excepthook)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    old_wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(_state, reading), name="stop", daemon=True)
    watch.start()
    sys.unraisablehook = _on_unraisable
    threading.excepthook = _on_thread_error
    _state.children = {process.pid for process in started()}
    _state.is_open = True
    _take(list(old))
    try:
        yield
        check()
    finally:
        _state.is_open = False
        for number, handler in old.items():
            # The command is over: while Python ends, a signal would end it with another code.
            after = signal.SIG_IGN if _state.is_listening else handler
            signal.signal(number, signal.SIG_DFL if after is None else after)
        signal.set_wakeup_fd(old_wakeup)
        sys.unraisablehook, threading.excepthook = hooks
        if not _state.is_listening or _state.asked is None:
            _state.is_over = True
            os.write(writing, b"\0")
            watch.join()
            os.close(writing)
            os.close(reading)


def keeps_nothing() -> None:
    """From here on the sentence says no more that the command goes on: it leaves nothing behind."""
    _state.then = "begins anew"


def reclaim() -> None:
    """Take the signals again: Ray puts a handler of its own in when it starts."""
    if _state.is_open:
        _take(_state.handled)
        for number in SIGNALS:
            if number not in _state.handled:
                signal.signal(number, signal.SIG_IGN)
        check()


def is_stopping() -> bool:
    """Whether a stop was asked for."""
    return _state.asked is not None


def ends_process() -> bool:
    """Whether `end` comes next, which ends this process and all that it started."""
    return _state.is_listening and is_stopping()


def check(wait_s: float = 0.0) -> None:
    """Raise the stop again where somebody swallowed it: before anything is concluded.

    Args:
        wait_s: for a signal that is on its way, where a process of ours may have died of it.

    Raises:
        Stopped: a stop was asked for.
    """
    deadline = time.monotonic() + wait_s
    while _state.asked is None and _state.is_open and time.monotonic() < deadline:
        time.sleep(0.02)
    if _state.asked is not None:
        _state.was_raised = True
        raise Stopped(_state.asked)


def cause(error: BaseException, wait_s: float = SETTLE_S) -> Stopped | None:
    """Find the stop behind an error; None where there is none.

    Args:
        error: that came out of the work.
        wait_s: as of `check`; 0 where no process of ours can have failed.
    """
    if isinstance(error, Stopped):
        return error
    try:
        check(0.0 if isinstance(error, KeyboardInterrupt) else wait_s)
    except Stopped as stop:
        return stop
    return Stopped(signal.SIGINT) if isinstance(error, KeyboardInterrupt) else None


@contextmanager
def held() -> Iterator[None]:
    """Put a stop off until the block is over: for a few calls that must not be cut in half."""
    _state.n_held += 1
    try:
        yield
    finally:
        _state.n_held -= 1
        if _state.is_owed and not _state.n_held:
            _state.is_owed = False
            check()


def hang_up() -> None:
    """Stop as SIGHUP does, unless it is ignored: a write may tell first that a terminal is gone.

    Raises:
        Stopped: in the main thread.
    """
    if _state.is_open and _state.asked is None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGHUP)


def give_up(lost: str) -> None:
    """Stop because something is lost that the command cannot do without; from any thread.

    Args:
        lost: a few words, such as "Ray's raylet has died".
    """
    if _state.is_open and _state.asked is None and signal.SIGTERM in _state.handled:
        _state.lost = lost
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def end(stop: Stopped) -> int:
    """Show the sentence, end what is left of the command's processes, give the exit code.

    A script does not come back from it: what Python does at its end would wait for others.
    """
    global _state
    code = stop.exit_code
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        _say(stop.signal_number)
        end_processes(started())  # such as a half-started Ray
        if not _state.is_listening:
            _state = State()  # another command may follow in this process
    finally:
        if _state.is_listening:  # whatever failed: the signal may have come amid imports
            os._exit(code)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    return code


def _not_ignored() -> list[signal.Signals]:
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def _take(numbers: list[signal.Signals]) -> None:
    _state.handled = numbers
    for number in numbers:
        signal.signal(number, _on_signal)


def _on_signal(number: int, frame: Any) -> None:
    _state.asked = _state.asked or number
    if not _state.is_open:
        end(Stopped(_state.asked))
    if _state.was_raised:
        return
    if _state.n_held:
        _state.is_owed = True
    else:
        check()


def _watch(state: State, reading: int) -> None:
    """Count from the first signal; a thread of its own, since the main one may be in C code."""
    while state.asked is None and not state.is_over:
        select.select([reading], [], [])
        # While Ray starts, its own handler is in the place of ours; the number comes here as well.
        numbers = [number for number in os.read(reading, 64) if number in state.handled]
        if numbers:
            state.asked = state.asked or numbers[0]
    deadline = time.monotonic() + BOUND_S
    while not state.is_over and time.monotonic() < deadline:
        time.sleep(_TICK_S)
        if state.is_lost:
            state.is_lost = state.was_raised = False
            signal.pthread_kill(threading.main_thread().ident or 0, state.asked or 0)
    if not state.is_over and state.asked is not None:
        try:
            with suppress(OSError, ValueError):  # nobody may have the terminal any more
                # It may be held up, too.
                if not state.is_said and select.select([], [2], [], 1.0)[1]:
                    os.write(2, f"{sentence(state.asked)}\n".encode())
            end_processes(started())
        finally:
            os._exit(exit_code(state.asked))  # whatever failed: nobody else ends this process


def _say(number: int) -> None:
    if not _state.is_said:
        _state.is_said = True
        with suppress(OSError, ValueError):  # a closed terminal
            sys.stderr.write(f"{sentence(number)}\n")
            sys.stderr.flush()


def started() -> "list[psutil.Process]":
    """Processes that the command started, and theirs; none that was there before it began."""
    import psutil  # not before the signals are ours

    found = psutil.Process().children(recursive=True)
    return [process for process in found if process.pid not in _state.children]


def _on_unraisable(unraisable: Any) -> None:
    """Take a stop back that was raised where nothing can be: it is raised again, elsewhere."""
    if isinstance(unraisable.exc_value, Stopped):
        _state.is_lost = True
    elif not is_stopping():
        _state.hooks[0](unraisable)


def _on_thread_error(args: Any) -> None:
    if not is_stopping():  # Ray's threads fail when its processes have got the signal
        _state.hooks[1](args)
