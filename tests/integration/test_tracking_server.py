"""A real MLflow server that is killed, or hangs, while a study records."""

import time

import pytest
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from models.mdgan.tensor_files import file_sha256
from study.fetch_model import ModelRefusedError, fetch
from study.tracking.model_registry import model_of
from study.tracking.tracker import RunIdentity, Tracker
from tests.helpers.mlflow_server import MlflowServer
from tests.helpers.tracked import show

STUDY = RunIdentity("study")
TRIALS = [RunIdentity("trial", f"trial-{i:03}") for i in range(3)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = MlflowServer(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def said():
    return []


@pytest.fixture
def tracker(server, tmp_path, request, said):
    tracker = Tracker(server.uri, request.node.name, {}, tmp_path / "sent", ["lr"], said.append)
    tracker.start_study({}, "study", {"lr": 1})
    yield tracker
    server.go_on()
    tracker.close()


@pytest.fixture
def client(server):
    return MlflowClient(server.uri)


def statuses(client, tracker):
    found = client.search_runs([tracker.experiment_id], "", ViewType.ACTIVE_ONLY)
    return [run.info.status for run in found]


def log(tracker, steps, trials=TRIALS):
    for step in steps:
        for trial in trials:
            show(tracker, trial, {step: {"a": float(step), "b": 1.0}})
        time.sleep(0.01)


def check(client, tracker, n_steps):
    for trial in TRIALS:
        for name in "ab":
            rows = client.get_metric_history(tracker.run_id(trial), name)
            assert sorted(row.step for row in rows) == list(range(n_steps))


def test_a_server_killed_in_mid_stream_gets_everything_once(
    server, tracker, client, tmp_path, said
):
    song = tmp_path / "song.txt"
    song.write_text("la")
    log(tracker, range(30))  # the server cannot have taken all of it yet
    server.kill()
    log(tracker, range(30, 60))
    show(tracker, TRIALS[0], files={song: "songs"})
    assert tracker.flush(0.5) > 0
    server.start()
    log(tracker, range(60, 70))
    for trial in TRIALS:
        show(tracker, trial, status="FINISHED")
    tracker.end_study("FINISHED")
    assert tracker.flush(120) == 0
    check(client, tracker, 70)
    assert statuses(client, tracker) == ["FINISHED"] * 4
    files = client.list_artifacts(tracker.run_id(TRIALS[0]), "songs")
    assert [info.path for info in files] == ["songs/song.txt"]
    assert len(said) <= 4  # one line for each reason, one when it is back
    assert "can be told again" in said[-1]


def test_a_server_that_hangs_gets_everything_once(server, tracker, client, monkeypatch, said):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    show(tracker, TRIALS[0])
    assert tracker.flush(60) == 0
    # The first of the creations is asked for while the server hangs, and done when it goes on.
    server.hang()
    log(tracker, range(10))
    assert tracker.flush(5) > 0
    assert tracker._sender._thread.is_alive()
    server.go_on()
    assert tracker.flush(120) == 0
    check(client, tracker, 10)
    assert len(statuses(client, tracker)) == 4
    assert "no answer in time" in said[0]


def test_a_registered_model_is_fetched_through_the_server(server, tracker, tmp_path):
    folder = tmp_path / "best"
    folder.mkdir()
    (folder / "encoder.safetensors").write_bytes(b"no tensors")
    hashed = file_sha256(folder / "encoder.safetensors")
    (folder / "model.json").write_text(f'{{"sha256": {{"encoder.safetensors": "{hashed}"}}}}')
    show(tracker, STUDY, model=model_of(folder, "by-server", {}))
    assert tracker.flush(60) == 0
    # Found, downloaded and equal to what was registered; only that it is no decoder is wrong.
    with pytest.raises(ModelRefusedError, match=r"version 1 of 'by-server' is not a decoder"):
        fetch(server.uri, "by-server", None, tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()
