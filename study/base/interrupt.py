"""Ctrl-C that is not lost.

Python raises KeyboardInterrupt wherever the main thread is. In a callback from C, or under a bare
``except`` of a library, it can be dropped, and the study would go on. So each interrupt is noted
as well, and raised again at the next place that asks.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_came = False


@contextmanager
def interrupts_noted() -> Iterator[None]:
    """Note interrupts in the block; where they are ignored (``nohup``, ``&``), they stay so."""
    global _came
    _came = False
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _note(number: int, frame: FrameType | None) -> None:
    global _came
    _came = True
    raise KeyboardInterrupt


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt if an interrupt came, whoever dropped it."""
    if _came:
        raise KeyboardInterrupt
