"""What is known of the stop of a command (`study.base.stopping`)."""

import signal
from dataclasses import dataclass, field
from typing import Any


@dataclass
class State:
    """One command.

    Attributes:
        asked: number of the first signal; None where none came.
        lost: what the command cannot do without and has lost; "" where a signal came from outside.
        was_raised: the main thread was told of it.
        is_lost: it was told, and code that nothing may leave by an exception swallowed it.
        is_owed: it is told at the end of a block that is not to be cut off.
        n_held: such blocks.
        is_open: inside `stoppable`.
        is_listening: the process ends with the command.
        is_said: the sentence was shown.
        is_over: the command ends by itself; the thread need not end it.
        handled: signals that were not ignored at the start.
        children: processes that were there before the command began.
        hooks: that show errors of which nobody hears, as they were before.
        then: what the same command does after a stop.
    """

    asked: int | None = None
    lost: str = ""
    was_raised: bool = False
    is_lost: bool = False
    is_owed: bool = False
    n_held: int = 0
    is_open: bool = False
    is_listening: bool = False
    is_said: bool = False
    is_over: bool = False
    handled: list[signal.Signals] = field(default_factory=list)
    children: set[int] = field(default_factory=set)
    hooks: tuple[Any, Any] = (None, None)
    then: str = "goes on from here"
