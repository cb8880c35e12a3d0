"""The frame of a command: errors as sentences with an exit code, and a clean end on Ctrl-C."""

import os
import sys
from collections.abc import Callable

from data_io.files import STORAGE_FULL
from data_io.names.birds_table import BirdsTableError
from data_io.names.listing import NoRecordingsError
from data_io.store import BrokenFileError
from study.base.console import Console
from study.base.errors import FAILED, INTERRUPTED, REFUSED, StudyError


def run_command(work: Callable[[Console], int]) -> int:
    """Run a command.

    Args:
        work: does it, and gives the exit code.

    Returns:
        The exit code.
    """
    console = Console()
    try:
        return work(console)
    except (StudyError, NoRecordingsError, BirdsTableError, BrokenFileError) as error:
        console.end_progress()
        code = getattr(error, "exit_code", REFUSED if isinstance(error, ValueError) else FAILED)
        return _end(str(error) if code == INTERRUPTED else f"error: {error}", code)
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        if error.errno not in STORAGE_FULL:
            raise
        return _end(
            f"error: {error}. Make room on the disk of the run folder: what was done before is "
            "kept, and the same command goes on from there.",
            FAILED,
        )
    except KeyboardInterrupt:
        console.end_progress()
        return _end("Interrupted. The same command goes on from here.", INTERRUPTED)


def _end(text: str, code: int) -> int:
    Console(sys.stderr).line(text)
    return code
