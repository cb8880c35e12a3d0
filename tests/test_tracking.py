"""Our side of MLflow, on a database of its own."""

import time

import pytest

from study.tracking import RunIdentity, Tracker, TrackingError


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow")
    tracker = Tracker(f"sqlite:///{folder / 'mlflow.db'}", "study", {"git_commit": "abc"})
    tracker.start_study(None, "study", {"a.b": 1})
    return tracker


def data(tracker, run_id):
    return tracker._client.get_run(run_id).data


def test_a_run_is_found_again_by_its_identity(tracker):
    first = tracker.start_run(RunIdentity("trial", "trial-000"), "trial-000")
    assert tracker.start_run(RunIdentity("trial", "trial-000"), "trial-000") == first
    assert tracker.start_run(RunIdentity("trial", "trial-001"), "trial-001") != first
    bird = RunIdentity("hmm", "trial-000", "it's", "45")
    assert tracker.start_run(bird, "hmm") == tracker.start_run(bird, "hmm") != first
    assert data(tracker, first).tags["git_commit"] == "abc"


def test_the_study_goes_on_with_its_run_only_while_that_is_there(tracker):
    run_id = tracker.study_run_id
    assert tracker.start_study(run_id, "study", {}) == run_id
    assert tracker.start_study("0" * 32, "study", {}) != run_id
    tracker.start_study(run_id, "study", {})


def test_what_is_no_finite_number_becomes_a_tag(tracker):
    run_id = tracker.start_run(RunIdentity("trial", "trial-nan"), "x")
    tracker.log_metrics(run_id, {5: {"a": 1.5, "b": float("nan"), "c": float("inf")}})
    known = data(tracker, run_id)
    assert known.metrics == {"a": 1.5}
    assert known.tags["not_finite.b"] == "nan at step 5"
    assert known.tags["not_finite.c"] == "inf at step 5"


def test_parameters_are_logged_once_and_cut_visibly(tracker):
    run_id = tracker.start_run(RunIdentity("trial", "trial-params"), "x")
    tracker.log_params(run_id, {"lr": 0.001, "long": "x" * 600})
    tracker.log_params(run_id, {"lr": 0.002, "new": 1})
    known = data(tracker, run_id).params
    assert known["lr"] == "0.001"
    assert known["new"] == "1"
    assert known["long"].endswith("…")
    assert len(known["long"]) == 500


def test_more_metrics_than_one_call_takes(tracker):
    run_id = tracker.start_run(RunIdentity("trial", "trial-many"), "x")
    tracker.log_metrics(run_id, {step: {"a": float(step), "b": 0.0} for step in range(700)})
    assert len(tracker._client.get_metric_history(run_id, "a")) == 700


def test_runs_end_as_finished_or_failed_with_a_reason(tracker):
    run_id = tracker.start_run(RunIdentity("trial", "trial-end"), "x")
    tracker.end_run(run_id, False, {"reason": "collapsed"}, ended_at=time.time() - 60)
    run = tracker._client.get_run(run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["reason"] == "collapsed"
    assert run.info.end_time < 1000 * (time.time() - 50)


def test_artefacts_lie_beside_the_database(tracker, tmp_path):
    (tmp_path / "song.txt").write_text("la")
    run_id = tracker.start_run(RunIdentity("hmm", "t", "b", "1"), "x")
    tracker.log_artifacts(run_id, tmp_path, "songs")
    assert [f.path for f in tracker._client.list_artifacts(run_id, "songs")] == ["songs/song.txt"]
    database = tracker.uri.removeprefix("sqlite:///")
    where = tracker._client.get_run(run_id).info.artifact_uri
    assert where.startswith("file://" + database.removesuffix("mlflow.db") + "artifacts/study")


def test_a_server_that_is_away_is_said_soon():
    with pytest.raises(TrackingError, match="127.0.0.1:9 cannot be used"):
        Tracker("http://127.0.0.1:9", "study", {})
