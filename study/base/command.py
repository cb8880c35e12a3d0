"""The frame of a command: errors as sentences with an exit code, and one end for every stop."""

import os
import sys
from collections.abc import Callable

from data_io.files import BrokenSealError
from data_io.names.birds_table import BirdsTableError
from data_io.names.listing import NoRecordingsError
from data_io.store import BrokenFileError
from study.base import stopping
from study.base.console import Console
from study.base.errors import FAILED, INTERRUPTED, REFUSED, StudyError, disk_error


def run_command(work: Callable[[Console], int]) -> int:
    """Run a command.

    Args:
        work: does it, and gives the exit code.

    Returns:
        The exit code.
    """
    console = Console()
    try:
        with stopping.stoppable():
            try:
                return work(console)
            except Exception as error:
                return _failed(error, console)
    except BaseException as error:
        stop = stopping.cause(error, wait_s=0.0)
        if stop is None:
            raise
        console.end_progress()
        return stopping.end(stop)


def _failed(error: Exception, console: Console) -> int:
    """Say what failed; give the exit code.

    Raises:
        Stopped: a signal was behind it.
        Exception: it is a fault of ours.
    """
    refused = NoRecordingsError | BirdsTableError
    if isinstance(error, StudyError | refused | BrokenFileError | BrokenSealError):
        stop = stopping.cause(error, wait_s=0.0)
        code = getattr(error, "exit_code", REFUSED if isinstance(error, refused) else FAILED)
        text = str(error) if code == INTERRUPTED else f"error: {error}"
    else:
        stop = stopping.cause(error)
        told, code = disk_error(error), FAILED
        text = f"error: {told}" if told else ""
    if stop is not None:
        raise stop from error
    if isinstance(error, BrokenPipeError):  # the reader of our output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code
    if not text:
        raise error
    console.end_progress()
    Console(sys.stderr).line(text)
    return code
