"""The one kind of error that ends the command with a sentence and without a traceback."""

import os
from pathlib import Path

from data_io.files import STORAGE_FULL, content_of

FAILED = 1
REFUSED = 2  # nothing was started
INTERRUPTED = 130  # as shells say it of Ctrl-C

MOVE_AWAY = "move it away"
AND_AGAIN = ", then give the same command again."
A_FOLDER = f"is a folder where a file should be: {MOVE_AWAY}"
A_FILE = f"is a file where a folder should be: {MOVE_AWAY}"
# Of the disk these say nothing: such a file or folder should have been looked for. But a person may
# have put one in the place of the other.
_OURS = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)


class StudyError(RuntimeError):
    """Ends the command; the message names the value, the cause and the remedy.

    Attributes:
        exit_code: the command's exit code.
    """

    exit_code = FAILED


class StorageFullError(StudyError):
    """The run folder takes no more files; the files in it are kept."""


class UnusableFileError(StudyError):
    """The disk does not give a file or folder, or does not take it; later it may."""


def disk_error(error: BaseException | None) -> StudyError | None:
    """What to say of an error of the disk; None where it is of another kind, or names no file."""
    if not isinstance(error, OSError):
        return None
    if error.errno in STORAGE_FULL:
        return StorageFullError(
            f"{error}. Make room on the disk of the run folder: what was done before is kept, and "
            "the same command goes on from there."
        )
    if isinstance(error, _OURS):
        found = _in_the_way(error)
        if found is None or isinstance(found, StudyError):
            return found
        error = found
    if error.filename is None:
        return None
    return UnusableFileError(
        f"{error.filename} cannot be used ({error.strerror or error}). Remove nothing: see to the "
        "disk, then give the same command again."
    )


def _in_the_way(error: OSError) -> OSError | StudyError | None:
    """Who or what is behind an error of `_OURS`, if not we; None where it is we."""
    for name in (error.filename2, error.filename):  # of two, the second was to be made
        if not isinstance(name, str | os.PathLike):
            continue
        path = Path(name)
        for one in (path, *path.parents):
            try:
                content_of(one)
            except OSError as away:
                return away
        if isinstance(error, IsADirectoryError) and path.is_dir():
            return UnusableFileError(f"{path} {A_FOLDER}{AND_AGAIN}")
        file = next((one for one in (path, *path.parents) if one.is_file()), None)
        if file is not None and isinstance(error, NotADirectoryError | FileExistsError):
            return UnusableFileError(f"{file} {A_FILE}{AND_AGAIN}")
    return None
