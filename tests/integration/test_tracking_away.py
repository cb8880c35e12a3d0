"""An MLflow that is away, or says no: nobody waits, and nothing is lost."""

# ruff: noqa: F401, F811  (fixtures: imported by name, and named again by what uses them)

import json
import os
import time

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, PERMISSION_DENIED
from mlflow.tracking import MlflowClient

from study.tracking import tracker as tracking
from study.tracking.tracker import RunIdentity, Tracker, TrackingError
from tests.helpers.tracked import (
    TRIAL,
    client,
    driver,
    history,
    run_of,
    runs,
    said,
    sent,
    tracker,
    uri,
)


class Flaky:
    """MLflow's client, whose calls fail as they do without a server while ``is_away``."""

    is_away = False
    refuses = ""  # name of a metric

    def __init__(self, uri, registry_uri=None):
        self._real = MlflowClient(uri, registry_uri=registry_uri)
        self.calls = []

    def __getattr__(self, name):
        real = getattr(self._real, name)

        def call(*args, **kwargs):
            if Flaky.is_away:
                time.sleep(0.1)
                raise MlflowException("API request failed with exception Connection refused")
            metrics = args[1] if name == "log_batch" and len(args) > 1 else ()
            if any(metric.key == Flaky.refuses for metric in metrics):
                raise MlflowException("Invalid metric", INVALID_PARAMETER_VALUE)
            self.calls.append(name)
            return real(*args, **kwargs)

        return call


@pytest.fixture
def flaky(monkeypatch):
    monkeypatch.setattr(tracking, "MlflowClient", Flaky)
    yield Flaky
    Flaky.is_away, Flaky.refuses = False, ""


def test_while_mlflow_is_away_nobody_waits_and_nothing_is_lost(client, driver, flaky, said):
    tracker = driver()
    flaky.is_away = True
    longest = 0.0
    trials = [RunIdentity("trial", f"trial-{i:03}") for i in range(5)]
    for step in range(40):
        for trial in trials:
            started = time.monotonic()
            if step == 0:
                tracker.start_run(trial, trial.trial_id)
                tracker.log_params(trial, {"lr": 1})
            tracker.log_metrics(trial, {step: {"a": float(step)}})
            longest = max(longest, time.monotonic() - started)
    for trial in trials:
        tracker.end_run(trial, True)
    assert longest < 2
    assert tracker.flush(1) == 5 * 43
    assert tracker.run_id(trials[0]) is None
    assert len(said) == 1
    assert f"MLflow at {tracker.uri} cannot take what is recorded: no connection" in said[0]
    flaky.is_away = False
    sent(tracker)
    for trial in trials:
        assert history(client, tracker, "a", trial) == [(s, float(s)) for s in range(40)]
        assert client.get_run(tracker.run_id(trial)).info.status == "FINISHED"
    assert len(runs(client, tracker)) == 6
    assert len(said) == 2
    assert "takes records again" in said[1]


def test_a_run_is_not_taken_for_gone_while_mlflow_is_away(client, driver, monkeypatch, flaky):
    tracker = driver()
    tracker.start_run(TRIAL, "x")
    before = run_of(client, tracker).info.run_id
    real, lost = MlflowClient.get_run, []

    def once_lost(self, run_id):
        if not lost:
            lost.append(run_id)
            raise MlflowException("API request failed with exception Connection refused")
        return real(self, run_id)

    monkeypatch.setattr(MlflowClient, "get_run", once_lost)
    tracker.start_run(TRIAL, "x")
    sent(tracker)
    assert lost
    assert tracker.run_id(TRIAL) == before
    lost.clear()
    with pytest.raises(TrackingError, match="no connection"):
        tracker.start_study(tracker.study_run_id, "study", {})
    assert len(runs(client, tracker)) == 2


def test_mlflow_does_not_repeat_calls_of_its_own():
    # A repeated creation of a run would make a second one, and calls would take minutes.
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"


def test_the_answer_to_a_creation_that_is_lost_makes_no_second_run(
    client, driver, monkeypatch, flaky
):
    tracker = driver()
    real, lost = MlflowClient.create_run, []

    def late(self, *args, **kwargs):
        # The server creates the run only after the client has looked for it and given up.
        if len(lost) < 1:
            lost.append((args, kwargs))
            raise MlflowException("API request failed with exception Read timed out")
        real(self, *lost[0][0], **lost[0][1])
        return real(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "create_run", late)
    tracker.start_run(TRIAL, "x")
    tracker.log_metrics(TRIAL, {1: {"a": 1.0}})
    run_of(client, tracker)
    found = [r for r in runs(client, tracker) if r.data.tags["stage"] == "trial"]
    assert [run.info.run_id for run in found] == [tracker.run_id(TRIAL)]
    assert found[0].data.metrics == {"a": 1.0}


@pytest.mark.parametrize("may_delete", [True, False])
def test_of_a_run_that_was_begun_twice_one_counts(client, driver, monkeypatch, flaky, may_delete):
    tracker = driver()
    real, lost = MlflowClient.create_run, []

    def twice(self, *args, **kwargs):
        # The server creates the run and its answer is lost; then the search finds nothing yet.
        if not lost:
            lost.append(real(self, *args, **kwargs).info.run_id)
            real(self, *args, **kwargs)
        return real(self, *args, **kwargs)

    def forbidden(self, run_id):
        raise MlflowException("Permission denied", error_code=PERMISSION_DENIED)

    monkeypatch.setattr(MlflowClient, "create_run", twice)
    if not may_delete:
        monkeypatch.setattr(MlflowClient, "delete_run", forbidden)
    tracker.start_run(TRIAL, "x")
    tracker.log_metrics(TRIAL, {1: {"a": 1.0}})
    tracker.end_run(TRIAL, True)
    run_of(client, tracker)
    found = {r.info.run_id: r for r in runs(client, tracker)}
    ours = found[tracker.run_id(TRIAL)]
    assert ours.data.tags["stage"] == "trial"
    assert ours.data.metrics == {"a": 1.0}
    others = [r for r in found.values() if r not in (ours, found[tracker.study_run_id])]
    assert [r.data.tags["stage"] for r in others] == ([] if may_delete else ["begun twice"] * 2)
    assert {r.info.status for r in others} <= {"KILLED"}


def test_an_operation_that_is_refused_is_set_aside(client, driver, flaky, said):
    tracker = driver()
    flaky.refuses = "bad"
    tracker.start_run(TRIAL, "x")
    tracker.log_metrics(TRIAL, {1: {"a": 1.0}})
    tracker.log_metrics(TRIAL, {1: {"bad": 1.0}})
    tracker.log_metrics(TRIAL, {2: {"a": 2.0}})
    assert run_of(client, tracker).data.metrics == {"a": 2.0}
    (line,) = said
    assert "refused metrics of trial trial-000" in line
    assert "Invalid metric" in line
    (path,) = tracker.folder.rglob("refused.jsonl")
    assert str(path) in line
    (kept,) = [json.loads(text) for text in path.read_text().splitlines()]
    assert [name for name, _, _ in kept["content"]["metrics"]] == ["bad"]
    assert "Invalid metric" in kept["reason"]
    # The next driver does not try again.
    flaky.refuses = ""
    again = driver(study=tracker.study_run_id)
    assert run_of(client, again).data.metrics == {"a": 2.0}


def test_a_name_that_mlflow_itself_refuses(client, tracker, said):
    tracker.start_run(TRIAL, "x")
    tracker.log_metrics(TRIAL, {1: {"a[b": 1.0}})
    tracker.log_metrics(TRIAL, {1: {"a": 1.0}})
    assert run_of(client, tracker).data.metrics == {"a": 1.0}
    assert "a[b" in said[0]


def test_the_operations_of_a_deleted_run_do_not_hold_up_others(client, tracker, said):
    other = RunIdentity("trial", "trial-001")
    for identity in (TRIAL, other):
        tracker.start_run(identity, "x")
    client.delete_run(run_of(client, tracker).info.run_id)
    for identity in (TRIAL, other):
        tracker.log_metrics(identity, {1: {"a": 1.0}})
    assert run_of(client, tracker, other).data.metrics == {"a": 1.0}
    assert "deleted" in said[0]


def test_a_full_disk_comes_out_and_what_was_recorded_stays(client, tracker, monkeypatch):
    tracker.start_run(TRIAL, "x")

    def full(file):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(os, "fdatasync", full)
        tracker.log_metrics(TRIAL, {1: {"a": 1.0}})
    tracker.log_metrics(TRIAL, {1: {"a": 2.0}})
    sent(tracker)
    assert history(client, tracker, "a") == [(1, 2.0)]


def test_a_server_that_is_away_is_said_soon(tmp_path):
    with pytest.raises(TrackingError, match=r"127\.0\.0\.1:9 cannot be used: no connection"):
        Tracker("http://me:secret@127.0.0.1:9", "study", {}, tmp_path, [])


def test_a_server_that_goes_away_before_the_study_begins_is_said(driver, flaky):
    tracker = driver(study=None)
    flaky.is_away = True
    for known in (None, "0" * 32):
        with pytest.raises(TrackingError, match="cannot be used: no connection"):
            tracker.start_study(known, "study", {})


def test_a_deleted_experiment_is_said(client, driver):
    tracker = driver()
    sent(tracker)
    client.delete_experiment(tracker.experiment_id)
    with pytest.raises(TrackingError, match="was deleted. Restore it with"):
        driver()
