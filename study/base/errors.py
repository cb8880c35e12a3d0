"""The one kind of error that ends the command with a sentence and without a traceback."""

from data_io.files import STORAGE_FULL

FAILED = 1
REFUSED = 2  # nothing was started
INTERRUPTED = 130  # as shells say it of Ctrl-C

# Of the disk these say nothing: such a file or folder should have been looked for.
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
    if error.filename is None or isinstance(error, _OURS):
        return None
    return UnusableFileError(
        f"{error.filename} cannot be used ({error.strerror or error}). Remove nothing: see to the "
        "disk, then give the same command again."
    )
