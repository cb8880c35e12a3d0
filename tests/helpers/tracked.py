"""Trackers of a test, each on an experiment of its own in one database."""

import pytest
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from study.tracking import tracker as tracking
from study.tracking.tracker import RunIdentity, Tracker

STUDY = RunIdentity("study")
TRIAL = RunIdentity("trial", "trial-000")
LINEAGE = {"study": "finches", "git_commit": "abc", "config_hash": "1"}
ALLOWED = ("lr", "width", "long")


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

    def start(folder="outbox", *, study="new", lineage=LINEAGE, experiment=None, at=uri):
        for tracker in trackers:
            tracker.close()
        experiment = experiment or request.node.name
        tracker = Tracker(at, experiment, lineage, tmp_path / folder, ALLOWED, said.append)
        trackers.append(tracker)
        if study is not None:
            tracker.start_study(None if study == "new" else study, "study", {"lr": 0.1})
        return tracker

    yield start
    for tracker in trackers:
        tracker.close()


@pytest.fixture
def tracker(driver):
    return driver()


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
    """From now on nothing is delivered, as if MLflow were away for long."""
    tracker._courier._waits_s = (1e6, 1e6)

    def away(study_run, operation):
        raise tracking.verdict(OSError("Connection refused"))

    for study_run in tracker._study_runs.values():
        object.__setattr__(study_run, "carry", away)
