"""The one kind of error that ends the command with a sentence instead of a traceback."""

FAILED = 1
REFUSED = 2  # nothing was started
INTERRUPTED = 130  # as shells say it of Ctrl-C


class StudyError(RuntimeError):
    """Ends the command; the message names the value, the cause and the remedy.

    Attributes:
        exit_code: of the command.
    """

    exit_code = FAILED


class StorageFullError(StudyError):
    """Nothing more can be written to the run folder; what is there is kept."""
