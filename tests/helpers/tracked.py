"""Trackers of a test, each on an experiment of its own in one database."""

import pytest
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from study.tracking.picture import Measured
from study.tracking.tracker import RunIdentity, RunPicture, Tracker

STUDY = RunIdentity("study")
TRIAL = RunIdentity("trial", "trial-000")
LINEAGE = {"study": "finches", "git_commit": "abc", "config_hash": "1"}
ALLOWED = ("lr", "width", "long")
SAME = {"study_hash": "s", "data_hash": "d"}
AT = 1_700_000_000.0  # seconds of time.time, of the first report


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """A database whose tables are there: making them takes seconds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    MlflowClient(uri).search_experiments()
    return uri


@pytest.fixture
def client(uri):
    return MlflowClient(uri, registry_uri=uri)


@pytest.fixture
def said():
    return []


@pytest.fixture
def driver(uri, tmp_path, request, said):
    """Starts a tracker, as each start of a driver does; those before are closed."""
    trackers = []

    def start(folder="sent", *, same=SAME, lineage=LINEAGE, experiment=None, at=uri):
        for tracker in trackers:
            tracker.close()
        experiment = experiment or request.node.name
        tracker = Tracker(at, experiment, lineage, tmp_path / folder, ALLOWED, said.append)
        trackers.append(tracker)
        if same is not None:
            tracker.start_study(same, "study", {"lr": 0.1})
        return tracker

    yield start
    for tracker in trackers:
        tracker.close()


@pytest.fixture
def tracker(driver):
    return driver()


def picture(tracker, identity=TRIAL, rows=None, **parts):
    """A picture of a run of this study run; ``rows`` are metrics by step."""
    curve = {step: Measured(AT + step, metrics) for step, metrics in (rows or {}).items()}
    lineage = tracker.lineage
    known = {"study_run_id": tracker.study_run_id, "name": identity.in_words(), "lineage": lineage}
    return RunPicture(identity, **{**known, "curve": curve, **parts})


def show(tracker, identity=TRIAL, rows=None, **parts):
    tracker.show(picture(tracker, identity, rows, **parts))


def sent(tracker, limit_s=60):
    assert tracker.flush(limit_s) == 0


def run_of(client, tracker, identity=TRIAL):
    sent(tracker)
    return client.get_run(tracker.run_id(identity))


def runs(client, tracker):
    return client.search_runs([tracker.experiment_id], "", ViewType.ACTIVE_ONLY)


def history(client, tracker, name, identity=TRIAL):
    found = client.get_metric_history(tracker.run_id(identity), name)
    return sorted((metric.step, metric.value) for metric in found)


def hold(tracker):
    """From now on nothing is sent, as if MLflow were away for long."""
    tracker._sender._waits_s = (1e6, 1e6)

    def away(picture, is_put_off=None):
        raise OSError("Connection refused")

    tracker._sender._receiver.send = away


def note(tracker):
    """The file that says what was sent."""
    return tracker._sent.path
