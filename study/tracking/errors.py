"""The meaning of an error of MLflow's client for the call that met it: later, or never."""

import re
from collections.abc import Callable
from typing import Any

from study.base.errors import REFUSED, StudyError
from study.base.paths import without_password

# The answers of MLflow itself that no repetition will change, and how often each must be given.
_REFUSALS = {
    "INVALID_PARAMETER_VALUE": 1,
    "RESOURCE_DOES_NOT_EXIST": 1,
    "RESOURCE_ALREADY_EXISTS": 1,
    # MLflow also says so where its database is in trouble, as when it has no connection left.
    "BAD_REQUEST": 4,
}
# Other answers of a server, or of a proxy before it, that depend on the request alone.
_REFUSED_STATUS = {413: 1, 422: 4}
_STATUS = re.compile(r"failed with error code (\d{3})")
_MAX_REASON_CHARS = 300

# What the client's HTTP library says, in fewer words; addresses and objects in its text change
# from one try to the next.
_NO_ANSWER = (
    (r"too many (\d{3}) error responses", "HTTP {}"),
    (r"NameResolutionError|Name or service not known|getaddrinfo", "its name cannot be resolved"),
    (r"ConnectTimeout|connect timeout|ReadTimeout|[Rr]ead timed out", "no answer in time"),
    (r"CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted"),
    (r"Connection refused|NewConnectionError", "no connection"),
    (r"Connection aborted|RemoteDisconnected|Connection reset|Broken pipe|IncompleteRead",
     "it broke the connection"),
)  # fmt: skip


class TrackingError(StudyError):
    """MLflow cannot be used; the message says why and what to do."""

    exit_code = REFUSED


class AwayError(Exception):
    """Something could not be sent now; later it may be. The message says why."""


class RefusedError(Exception):
    """Something will never be accepted; the message says why.

    Attributes:
        tries: how often this must be the answer before it is believed.
        pass_over: leaves out what was refused from now on, and gives it in words.
    """

    def __init__(self, reason: str, tries: int = 1):
        super().__init__(reason)
        self.tries = tries
        self.pass_over: Callable[[], str] | None = None


def deleted_experiment(name: str, experiment_id: str) -> TrackingError:
    """The error for an experiment in MLflow's bin."""
    return TrackingError(
        f"The MLflow experiment {name!r} was deleted. Restore it with `mlflow experiments restore "
        f"--experiment-id {experiment_id}`, or give another name=."
    )


def verdict(error: Exception) -> AwayError | RefusedError:
    """Whether to try again after an error of MLflow's client, and why it came, in a few words."""
    code, status = _code(error), _status(error)
    if code in _REFUSALS:
        return RefusedError(_short(error), _REFUSALS[code])
    if status in _REFUSED_STATUS:
        return RefusedError(f"HTTP {status}: {_short(error)}", _REFUSED_STATUS[status])
    if status == 401 or code in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED") or is_forbidden(error):
        return AwayError(
            f"it does not let us in ({_short(error)}); check MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD"
        )
    if isinstance(error, OSError) or hasattr(error, "error_code"):
        return AwayError(_why(error))
    # A mistake of ours in one operation must not hold up the others for ever.
    return RefusedError(f"{type(error).__name__}: {_short(error)}", 4)


def is_forbidden(error: Exception) -> bool:
    """Whether the server knows us and does not let us do that."""
    return _status(error) == 403 or _code(error) == "PERMISSION_DENIED"


def is_missing(error: Exception) -> bool:
    """Whether MLflow itself says that it does not have what was asked for."""
    return _code(error) == "RESOURCE_DOES_NOT_EXIST"


def is_there_already(error: Exception) -> bool:
    """Whether what was to be made had been made before, by whomever."""
    return _code(error) == "RESOURCE_ALREADY_EXISTS"


def _code(error: Exception) -> str | None:
    """MLflow's own name of an error; None where the error is not MLflow's."""
    if _STATUS.search(str(error)):
        return None  # made up by the client, for the answer of a proxy
    code = getattr(error, "error_code", None)
    response: Any = getattr(error, "response", None)
    if code is None and response is not None:  # an HTTPError of requests, from artefacts
        try:
            code = response.json()["error_code"]
        except (ValueError, KeyError, TypeError):
            return None
    return code if isinstance(code, str) else None


def _status(error: Exception) -> int | None:
    """HTTP status of an answer, where the error tells it."""
    response: Any = getattr(error, "response", None)
    if response is not None:
        return int(response.status_code)
    found = _STATUS.search(str(error))
    return int(found[1]) if found else None


def _why(error: Exception) -> str:
    text = f"{error} {error.__cause__!r} {error.__context__!r}"
    for pattern, words in _NO_ANSWER:
        if found := re.search(pattern, text):
            return words.format(*found.groups())
    return _short(error)


def _short(error: Exception) -> str:
    line = without_password((str(error).strip().splitlines() or [type(error).__name__])[0])
    return line if len(line) <= _MAX_REASON_CHARS else line[: _MAX_REASON_CHARS - 1] + "…"
