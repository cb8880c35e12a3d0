"""What a run of MLflow holds, and the models that are registered."""

# ruff: noqa: F401, F811  (fixtures: imported by name, and named again by what uses them)

import time
from pathlib import Path

import pytest

from study.tracking.run_records import MAX_PARAM_CHARS
from study.tracking.tracker import RunIdentity
from tests.helpers.tracked import (
    LINEAGE,
    STUDY,
    TRIAL,
    client,
    driver,
    history,
    hold,
    run_of,
    runs,
    said,
    sent,
    tracker,
    uri,
)


def test_a_run_has_its_identity_and_its_lineage_as_tags(client, tracker):
    tracker.lineage["best_trial_id"] = "trial-007"
    hmm = RunIdentity("hmm", "trial-007", "blk12", "45", seed="3")
    assert not tracker.knows(hmm)
    tracker.start_run(hmm, "hmm-blk12-45")
    assert tracker.knows(hmm)
    run = run_of(client, tracker, hmm)
    assert run.info.run_name == "hmm-blk12-45"
    assert run.info.status == "RUNNING"
    wanted = {**LINEAGE, "best_trial_id": "trial-007", "stage": "hmm", "trial_id": "trial-007",
              "bird": "blk12", "age": "45", "seed": "3",
              "study_run_id": tracker.study_run_id}  # fmt: skip
    assert wanted.items() <= run.data.tags.items()
    study = run_of(client, tracker, STUDY)
    assert study.info.run_id == tracker.study_run_id == study.data.tags["study_run_id"]
    assert study.data.params == {"lr": "0.1"}
    assert study.data.tags["stage"] == "study"


def test_metrics_of_a_step_are_logged_once_and_more_than_one_call_takes(client, tracker):
    tracker.start_run(TRIAL, "x")
    tracker.log_metrics(TRIAL, {step: {"a": float(step), "b": 0.0} for step in range(700)})
    tracker.log_metrics(TRIAL, {step: {"a": -1.0, "c": 1.0} for step in range(698, 702)})
    sent(tracker)
    wanted = [(step, float(step)) for step in range(700)] + [(700, -1.0), (701, -1.0)]
    assert history(client, tracker, "a") == wanted
    assert len(history(client, tracker, "b")) == 700
    assert len(history(client, tracker, "c")) == 4


def test_the_time_of_a_metric_is_that_of_its_report(client, tracker):
    before = 1000 * time.time()
    tracker.start_run(TRIAL, "x")
    tracker.log_metrics(TRIAL, {1: {"a": 1.0}})
    after = 1000 * time.time()
    sent(tracker)
    (metric,) = client.get_metric_history(tracker.run_id(TRIAL), "a")
    assert before - 1 <= metric.timestamp <= after + 1


def test_what_is_no_finite_number_becomes_a_tag(client, tracker):
    tracker.start_run(TRIAL, "x")
    tracker.log_metrics(TRIAL, {5: {"a": 1.5, "b": float("nan"), "c": float("inf")}})
    tracker.log_metrics(TRIAL, {6: {"b": float("-inf")}})
    tracker.log_metrics(TRIAL, {5: {"b": 3.0}})
    known = run_of(client, tracker).data
    assert known.metrics == {"a": 1.5}
    assert known.tags["not_finite.b"] == "-inf at step 6"
    assert known.tags["not_finite.c"] == "inf at step 5"


def test_parameters_are_logged_once_and_cut_visibly(client, tracker):
    tracker.start_run(TRIAL, "x")
    tracker.log_params(TRIAL, {"lr": 0.001, "long": "x" * 600})
    tracker.log_params(TRIAL, {"lr": 0.002, "width": 1})
    known = run_of(client, tracker).data.params
    assert known == {"lr": "0.001", "width": "1", "long": "x" * (MAX_PARAM_CHARS - 1) + "…"}


def test_a_parameter_that_is_not_on_the_list_is_a_mistake(driver):
    tracker = driver()
    tracker.start_run(TRIAL, "x")
    with pytest.raises(ValueError, match="'password' is not on the list"):
        tracker.log_params(TRIAL, {"lr": 1, "password": "secret"})
    with pytest.raises(ValueError, match="'password' is not on the list"):
        tracker.start_study(None, "study", {"password": "secret"})
    sent(tracker)
    assert "secret" not in "".join(
        path.read_text() for path in tracker.folder.rglob("*") if path.is_file()
    )


def test_a_run_that_was_not_begun_is_a_mistake(driver):
    tracker = driver(study=None)
    with pytest.raises(RuntimeError, match="start_study first"):
        tracker.start_run(TRIAL, "x")
    assert not tracker.knows(STUDY)
    tracker.start_study(None, "study", {})
    for use in (
        lambda: tracker.log_metrics(TRIAL, {1: {"a": 1.0}}),
        lambda: tracker.set_tags(TRIAL, {}),
        lambda: tracker.end_run(TRIAL, True),
    ):
        with pytest.raises(ValueError, match="'trial trial-000', which was not begun"):
            use()


def test_runs_end_as_finished_or_failed_with_a_reason(client, tracker):
    tracker.start_run(TRIAL, "x")
    ended_at = time.time() - 60
    tracker.end_run(TRIAL, False, {"reason": "collapsed"}, ended_at)
    run = run_of(client, tracker)
    assert run.info.status == "FAILED"
    assert run.data.tags["reason"] == "collapsed"
    assert run.info.end_time == round(1000 * ended_at)
    tracker.end_run(STUDY, True)
    assert run_of(client, tracker, STUDY).info.status == "FINISHED"


def test_no_run_is_left_open_at_the_end_of_the_study(client, tracker):
    tracker.start_run(TRIAL, "x")
    tracker.end_run(TRIAL, True)
    other = RunIdentity("trial", "trial-001")
    tracker.start_run(other, "x")
    tracker.end_run(STUDY, True)
    sent(tracker)
    found = {run.data.tags.get("trial_id"): run.info.status for run in runs(client, tracker)}
    assert found == {None: "FINISHED", "trial-000": "FINISHED", "trial-001": "KILLED"}


def test_artefacts_lie_beside_the_database(client, tracker, tmp_path):
    song = tmp_path / "songs" / "song.txt"
    song.parent.mkdir()
    song.write_text("la")
    tracker.start_run(TRIAL, "x")
    tracker.log_artifacts(TRIAL, song.parent, "songs")
    tracker.log_artifact(TRIAL, song)
    where = run_of(client, tracker).info.artifact_uri
    run_id = tracker.run_id(TRIAL)
    assert [f.path for f in client.list_artifacts(run_id, "songs")] == ["songs/song.txt"]
    assert "song.txt" in [f.path for f in client.list_artifacts(run_id)]
    database = tracker.uri.removeprefix("sqlite:///")
    assert where.startswith("file://" + database.removesuffix("mlflow.db") + "artifacts/")


def test_a_file_that_is_gone_is_named_and_the_rest_goes_on(client, tracker, tmp_path, said):
    tracker.start_run(TRIAL, "x")
    tracker.log_artifact(TRIAL, tmp_path / "gone.png")
    tracker.log_artifacts(TRIAL, tmp_path / "gone")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "link").symlink_to(tmp_path / "nowhere")
    tracker.log_artifacts(TRIAL, tmp_path / "broken")
    tracker.log_metrics(TRIAL, {1: {"a": 1.0}})
    assert run_of(client, tracker).data.metrics == {"a": 1.0}
    assert [line.split()[0] for line in said] == [
        str(tmp_path / name) for name in ("gone.png", "gone", "broken/link")
    ]


def test_names_of_birds_are_safe_in_files_and_queries(client, driver, tmp_path):
    tracker = driver()
    names = ["it's", 'say "so"', "both ' and \"", "../../up", "a/b", "ü %", "nul", "x" * 300, "a;b"]
    birds = [RunIdentity("hmm", "trial-000", name, "45") for name in names]
    for bird in birds:
        tracker.start_run(bird, "hmm")
    sent(tracker)
    ids = [tracker.run_id(bird) for bird in birds]
    assert len(set(ids)) == len(names)
    assert len(list(tmp_path.iterdir())) == 1
    # Found by their tags alone, where the outbox is lost.
    again = driver("other outbox", study=tracker.study_run_id)
    for bird in birds:
        again.start_run(bird, "hmm")
    sent(again)
    assert [again.run_id(bird) for bird in birds] == ids
    assert client.get_run(ids[0]).data.tags["bird"] == "it's"


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "best"
    folder.mkdir()
    for name, text in {"model.json": "{}", "encoder.safetensors": "e", "plot.png": "p"}.items():
        (folder / name).write_text(text)
    return folder


def versions(client, run_id):
    found = client.search_model_versions(f"run_id = '{run_id}'")
    return sorted((v.name, int(v.version), v.source.split("/")[-1]) for v in found)


def test_a_model_is_registered_once(client, driver, model):
    tracker = driver()
    for _ in range(2):
        tracker.register_model(STUDY, model, "decoder", {"trial_id": "trial-000"})
    sent(tracker)
    run_id = tracker.study_run_id
    assert versions(client, run_id) == [("decoder", 1, "model")]
    files = [f.path for f in client.list_artifacts(run_id, "model")]
    assert files == ["model/encoder.safetensors", "model/model.json"]
    version = client.get_model_version("decoder", "1")
    assert version.tags["trial_id"] == "trial-000"
    assert len(version.tags["model_json_sha256"]) == 64
    # Another one of the same run has its own files, and another run its own version.
    (model / "model.json").write_text('{"a": 1}')
    tracker.register_model(STUDY, model, "decoder", {"sha256": "1"})
    sent(tracker)
    assert [(name, n) for name, n, _ in versions(client, run_id)] == [
        ("decoder", 1), ("decoder", 2)
    ]  # fmt: skip
    assert client.download_artifacts(run_id, "model/model.json")
    assert Path(client.download_artifacts(run_id, "model/model.json")).read_text() == "{}"
    # The caller's own hash makes it the same model, too.
    (model / "model.json").write_text('{"a": 2}')
    tracker.register_model(STUDY, model, "decoder", {"sha256": "1"})
    sent(tracker)
    assert len(versions(client, run_id)) == 2


def test_a_model_that_was_replaced_before_it_was_sent_is_not_registered(
    client, driver, model, said
):
    tracker = driver()
    sent(tracker)
    hold(tracker)
    tracker.register_model(STUDY, model, "replaced", {})
    tracker.close(0)
    (model / "model.json").write_text('{"a": 1}')
    again = driver(study=tracker.study_run_id)
    sent(again)
    assert versions(client, again.study_run_id) == []
    assert any("no longer holds the model" in line for line in said)
