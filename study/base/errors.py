"""The one kind of error that ends the command with a sentence and without a traceback."""

FAILED = 1
REFUSED = 2  # nothing was started
INTERRUPTED = 130  # as shells say it of Ctrl-C


class StudyError(RuntimeError):
    """Ends the command; the message names the value, the cause and the remedy.

    Attributes:
        exit_code: the command's exit code.
    """

    exit_code = FAILED


class StorageFullError(StudyError):
    """The run folder takes no more files; the files in it are kept."""
