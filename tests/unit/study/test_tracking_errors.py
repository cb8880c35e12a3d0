"""What an error of MLflow's client means: try again, or never."""

import json

import pytest
import requests
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import ErrorCode
from mlflow.utils.request_utils import augmented_raise_for_status
from mlflow.utils.rest_utils import verify_rest_response

from study.base.paths import without_password
from study.tracking.errors import AwayError, RefusedError, verdict


def answer(status, body):
    response = requests.Response()
    response.status_code = status
    response._content = (body if isinstance(body, str) else json.dumps(body)).encode()
    return response


def of_api(status, body):
    """The error that MLflow's client makes of an answer of the API."""
    with pytest.raises(MlflowException) as caught:
        verify_rest_response(answer(status, body), "/api/2.0/mlflow/runs/log-batch")
    return caught.value


def of_artefacts(status, body):
    """The error that it makes of an answer to an upload."""
    with pytest.raises(requests.HTTPError) as caught:
        augmented_raise_for_status(answer(status, body))
    return caught.value


def of_mlflow(code, message="it says why"):
    return {"error_code": code, "message": message}


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (of_api(400, of_mlflow("INVALID_PARAMETER_VALUE")), 1),
        (of_api(404, of_mlflow("RESOURCE_DOES_NOT_EXIST")), 1),
        (of_api(400, of_mlflow("BAD_REQUEST")), 4),
        (MlflowException("it says why", ErrorCode.Value("INVALID_PARAMETER_VALUE")), 1),
        (of_artefacts(400, of_mlflow("INVALID_PARAMETER_VALUE", "it says why")), 1),
        (of_api(413, "<html>Request Entity Too Large it says why</html>"), 1),
        (of_artefacts(413, "too large"), 1),
        (KeyError("it says why"), 4),
    ],
)
def test_refused(error, tries):
    found = verdict(error)
    assert isinstance(found, RefusedError)
    assert found.tries == tries
    assert "why" in str(found) or "413" in str(found)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (of_api(500, of_mlflow("INTERNAL_ERROR")), "it says why"),
        (of_api(503, of_mlflow("TEMPORARILY_UNAVAILABLE")), "it says why"),
        (of_api(429, of_mlflow("REQUEST_LIMIT_EXCEEDED")), "it says why"),
        (of_api(502, "<html>Bad Gateway</html>"), "502"),
        # A proxy that does not find the server behind it, or is another program altogether.
        (of_api(400, "<html>plain HTTP sent to HTTPS port</html>"), "400"),
        (of_api(404, "<html>not here</html>"), "404"),
        (of_api(405, "<html>not so</html>"), "405"),
        (of_api(200, "<html>Welcome!</html>"), "not in a valid JSON"),
        (of_api(401, "You are not authenticated."), "MLFLOW_TRACKING_PASSWORD"),
        (of_api(403, "Invalid Host header"), "Invalid Host header"),
        (of_api(403, of_mlflow("PERMISSION_DENIED")), "MLFLOW_TRACKING_USERNAME"),
        (of_artefacts(500, "oh"), "500"),
        (of_artefacts(401, "who?"), "MLFLOW_TRACKING_PASSWORD"),
        (requests.ConnectionError("Connection refused"), "no connection"),
        (OSError(28, "No space left on device"), "No space left"),
    ],
)
def test_tried_again(error, words):
    found = verdict(error)
    assert isinstance(found, AwayError)
    assert words in str(found)


def through_mlflow(cause):
    """As MLflow's client hands on what its HTTP library raised."""
    try:
        try:
            raise cause
        except Exception as e:
            raise MlflowException(f"API request to http://x failed with exception {e}")  # noqa: B904
    except MlflowException as error:
        return error


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(Caused by NewConnectionError('<x at 0x7f31>: [Errno 111] Connection refused'))",
         "no connection"),
        ("(Caused by ReadTimeoutError('Read timed out. (read timeout=30)'))", "no answer in time"),
        ("(Caused by ResponseError('too many 503 error responses'))", "HTTP 503"),
        ("(Caused by NameResolutionError('Failed to resolve x'))", "its name cannot be resolved"),
        ("('Connection aborted.', RemoteDisconnected('...'))", "it broke the connection"),
    ],
)  # fmt: skip
def test_the_same_reason_has_the_same_words_at_each_try(text, words):
    for port in ("1", "2"):
        error = through_mlflow(requests.ConnectionError(f"HTTPConnectionPool(port={port}) {text}"))
        found = verdict(error)
        assert isinstance(found, AwayError)
        assert str(found) == words


def test_a_long_reason_is_cut():
    error = RestException(of_mlflow("INVALID_PARAMETER_VALUE", "x" * 5000 + "\nmore"))
    assert len(str(verdict(error))) == 300


def test_passwords_are_not_shown():
    assert without_password("https://me:secret@there:1/x?y") == "https://there:1/x?y"
    assert without_password("sqlite:////a@b/c.db") == "sqlite:////a@b/c.db"
