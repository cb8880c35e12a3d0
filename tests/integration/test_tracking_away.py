"""An MLflow that is away, or says no: nobody waits, and nothing is lost."""

# ruff: noqa: F401, F811  (fixtures: imported by name, and named again by what uses them)

import json
import os
import threading
import time

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, PERMISSION_DENIED
from mlflow.tracking import MlflowClient

from study.tracking import client as mlflow_client
from study.tracking import sent as sent_file
from study.tracking.errors import TrackingError
from study.tracking.tracker import RunIdentity, Tracker
from tests.helpers.tracked import (
    SAME,
    STUDY,
    TRIAL,
    client,
    driver,
    history,
    note,
    run_of,
    runs,
    said,
    sent,
    show,
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
    monkeypatch.setattr(mlflow_client, "MlflowClient", Flaky)
    yield Flaky
    Flaky.is_away, Flaky.refuses = False, ""


def test_while_mlflow_is_away_nothing_is_lost(client, driver, flaky, said):
    tracker = driver()
    flaky.is_away = True
    trials = [RunIdentity("trial", f"trial-{i:03}") for i in range(5)]
    for step in range(40):
        for trial in trials:
            show(tracker, trial, {step: {"a": float(step)}}, params={"lr": 1})
    for trial in trials:
        show(tracker, trial, status="FINISHED")
    assert tracker.flush(1) >= 5  # the study's own run may wait, too
    assert tracker.run_id(trials[0]) is None
    assert len(said) == 1
    assert f"MLflow at {tracker.uri} cannot be told: no connection" in said[0]
    flaky.is_away = False
    sent(tracker)
    for trial in trials:
        assert history(client, tracker, "a", trial) == [(s, float(s)) for s in range(40)]
        assert client.get_run(tracker.run_id(trial)).info.status == "FINISHED"
    assert len(runs(client, tracker)) == 6
    assert len(said) == 2
    assert "can be told again" in said[1]


def test_nobody_waits_for_an_mlflow_that_hangs(driver, monkeypatch):
    tracker = driver()
    sent(tracker)
    go_on = threading.Event()
    monkeypatch.setattr(type(tracker._mlflow), "begin_run", lambda *args: go_on.wait(60))
    show(tracker)
    while not tracker._sender.pending():
        time.sleep(0.01)
    shown = threading.Thread(target=lambda: show(tracker, rows={1: {"a": 1.0}}))
    shown.start()
    shown.join(20)
    is_waiting = shown.is_alive()
    go_on.set()
    shown.join()
    assert not is_waiting


def test_a_run_is_not_taken_for_gone_while_mlflow_is_away(client, driver, monkeypatch, flaky):
    tracker = driver()
    before = run_of(client, tracker, STUDY).info.run_id
    real, lost = MlflowClient.search_runs, []

    def once_lost(self, *args, **kwargs):
        if not lost:
            lost.append(args)
            raise MlflowException("API request failed with exception Connection refused")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "search_runs", once_lost)
    with pytest.raises(TrackingError, match="no connection"):
        driver()
    again = driver()
    assert again.study_run_id == before
    assert len(runs(client, again)) == 1


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
    show(tracker, rows={1: {"a": 1.0}})
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
    show(tracker, rows={1: {"a": 1.0}}, status="FINISHED")
    run_of(client, tracker)
    found = {r.info.run_id: r for r in runs(client, tracker)}
    ours = found[tracker.run_id(TRIAL)]
    assert ours.data.tags["stage"] == "trial"
    assert ours.data.metrics == {"a": 1.0}
    others = [r for r in found.values() if r not in (ours, found[tracker.study_run_id])]
    assert [r.data.tags["stage"] for r in others] == ([] if may_delete else ["begun twice"] * 2)
    assert {r.info.status for r in others} <= {"KILLED"}


def test_of_steps_sent_together_only_what_mlflow_refuses_is_left_out(client, driver, flaky, said):
    tracker = driver()
    sent(tracker)
    flaky.refuses = "bad"
    rows = {1: {"a": 1.0}, 2: {"a": 2.0, "bad": 1.0}, 3: {"a": 3.0}}
    show(tracker, rows=rows, status="FINISHED")
    run = run_of(client, tracker)
    assert history(client, tracker, "a") == [(1, 1.0), (3, 3.0)]
    assert run.info.status == "FINISHED"
    (line,) = said
    assert "refused metrics of step 2 of trial trial-000" in line
    assert "Invalid metric" in line
    assert str(note(tracker)) in line
    tracker.close()
    kept = json.loads(note(tracker).read_text())["study_runs"][tracker.study_run_id]["runs"]
    assert kept[TRIAL.key()]["refused"] == ["metrics of step 2: Invalid metric"]
    # The next driver does not try again.
    flaky.refuses = ""
    again = driver()
    show(again, rows=rows)
    assert history(client, again, "a") == [(1, 1.0), (3, 3.0)]
    # Where the list is altered, a tag that was refused is tried again, once, and noted again.
    bad = {"reason": "x", "o[d": "d"}
    show(again, tags=bad)
    sent(again)
    assert said.pop().startswith("MLflow")
    again.close()
    note(again).write_text("{")
    for n_said in (1, 0):
        last = driver()
        said.clear()
        show(last, rows=rows, tags=bad)
        sent(last)
        assert history(client, last, "a") == [(1, 1.0), (3, 3.0)]
        assert len(said) == n_said
        last.close()


def test_a_name_that_mlflow_itself_refuses(client, tracker, said):
    show(tracker, rows={1: {"a[b": 1.0}, 2: {"a": 1.0}})
    assert run_of(client, tracker).data.metrics == {"a": 1.0}
    assert "a[b" in said[0]


def test_a_run_that_cannot_be_begun_holds_up_no_other(client, driver, monkeypatch, flaky, said):
    tracker = driver()
    real = MlflowClient.create_run

    def refused(self, experiment_id, time, tags, name):
        if name == "bad":
            raise MlflowException("no such name", INVALID_PARAMETER_VALUE)
        return real(self, experiment_id, time, tags, name)

    monkeypatch.setattr(MlflowClient, "create_run", refused)
    other = RunIdentity("trial", "trial-001")
    show(tracker, other, {1: {"a": 1.0}}, name="bad")
    show(tracker, rows={1: {"a": 1.0}})
    show(tracker, other, {2: {"a": 1.0}}, name="bad")
    assert run_of(client, tracker).data.metrics == {"a": 1.0}
    assert tracker.run_id(other) is None
    (line,) = said
    assert "refused the run of trial trial-001" in line


def test_a_deleted_run_is_left_alone_and_does_not_hold_up_others(client, tracker, said):
    other = RunIdentity("trial", "trial-001")
    for identity in (TRIAL, other):
        show(tracker, identity)
    client.delete_run(run_of(client, tracker).info.run_id)
    for identity in (TRIAL, other):
        show(tracker, identity, {1: {"a": 1.0}}, tags={"x": "y"}, status="FINISHED")
    assert run_of(client, tracker, other).data.metrics == {"a": 1.0}
    (line,) = said
    assert "deleted" in line


def test_a_disk_too_full_to_note_what_was_sent_stops_nothing(client, driver, monkeypatch, said):
    tracker = driver()
    sent(tracker)

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sent_file, "write_json", full)
        patch.setattr(tracker._sent, "_not_before", 0.0)
        show(tracker, rows={1: {"a": 1.0}}, status="FINISHED")
        assert run_of(client, tracker).data.metrics == {"a": 1.0}
    assert "cannot be noted: No space left" in said[0]
    again = driver()
    show(again, rows={1: {"a": 1.0}, 2: {"a": 2.0}})
    sent(again)
    assert history(client, again, "a") == [(1, 1.0), (2, 2.0)]
    assert len(runs(client, again)) == 2


def test_a_server_that_is_away_is_said_soon(tmp_path):
    with pytest.raises(TrackingError, match=r"127\.0\.0\.1:9 cannot be used: no connection"):
        Tracker("http://me:secret@127.0.0.1:9", "study", {}, tmp_path, [])


def test_a_server_that_goes_away_before_the_study_begins_is_said(driver, flaky):
    tracker = driver(same=None)
    flaky.is_away = True
    with pytest.raises(TrackingError, match="cannot be used: no connection"):
        tracker.start_study(SAME, "study", {})


def test_a_deleted_experiment_is_said(client, driver):
    tracker = driver()
    sent(tracker)
    client.delete_experiment(tracker.experiment_id)
    with pytest.raises(TrackingError, match="was deleted. Restore it with"):
        driver()
