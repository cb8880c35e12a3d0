"""What a run of MLflow holds, and the models that are registered."""

# ruff: noqa: F401, F811  (fixtures: imported by name, and named again by what uses them)

import time
from pathlib import Path

import pytest

from study.tracking.model_registry import BEST, model_of
from study.tracking.picture import MAX_PARAM_CHARS
from study.tracking.tracker import RunIdentity
from tests.helpers.tracked import (
    AT,
    LINEAGE,
    STUDY,
    TRIAL,
    client,
    driver,
    history,
    run_of,
    runs,
    said,
    sent,
    show,
    tracker,
    uri,
)


def test_a_run_has_its_identity_and_its_lineage_as_tags(client, tracker):
    tracker.lineage["best_trial_id"] = "trial-007"
    hmm = RunIdentity("hmm", "trial-007", "blk12", "45", seed="3")
    show(tracker, hmm, name="hmm-blk12-45")
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


def test_the_lineage_of_a_run_is_that_of_its_beginning(client, tracker):
    show(tracker, lineage={"git_commit": "first"})
    assert run_of(client, tracker).data.tags["git_commit"] == "first"
    show(tracker, lineage={"git_commit": "second"}, tags={"note": "n"})
    tags = run_of(client, tracker).data.tags
    assert (tags["git_commit"], tags["note"]) == ("first", "n")


def test_a_step_is_sent_once_and_more_than_one_call_takes(client, tracker):
    show(tracker, rows={step: {"a": float(step), "b": 0.0} for step in range(700)})
    sent(tracker)
    show(tracker, rows={step: {"a": -1.0, "c": 1.0} for step in range(698, 702)})
    sent(tracker)
    wanted = [(step, float(step)) for step in range(700)] + [(700, -1.0), (701, -1.0)]
    assert history(client, tracker, "a") == wanted
    assert len(history(client, tracker, "b")) == 700
    assert len(history(client, tracker, "c")) == 2


def test_pictures_shown_while_one_is_sent_are_joined(client, tracker):
    for step in range(100):
        show(tracker, rows={step: {"a": float(step)}}, tags={f"tag{step % 3}": step})
    sent(tracker)
    assert history(client, tracker, "a") == [(step, float(step)) for step in range(100)]
    tags = run_of(client, tracker).data.tags
    assert [tags[f"tag{i}"] for i in range(3)] == ["99", "97", "98"]


def test_the_time_of_a_metric_is_that_of_its_report(client, tracker):
    show(tracker, rows={1: {"a": 1.0}})
    sent(tracker)
    (metric,) = client.get_metric_history(tracker.run_id(TRIAL), "a")
    assert metric.timestamp == 1000 * (AT + 1)


def test_what_is_no_finite_number_becomes_a_tag(client, tracker):
    show(tracker, rows={5: {"a": 1.5, "b": float("nan"), "c": float("inf")}})
    sent(tracker)
    show(tracker, rows={6: {"b": float("-inf")}})
    known = run_of(client, tracker).data
    assert known.metrics == {"a": 1.5}
    assert known.tags["not_finite.b"] == "-inf at step 6"
    assert known.tags["not_finite.c"] == "inf at step 5"


def test_parameters_are_logged_once_and_cut_visibly(client, tracker):
    show(tracker, params={"lr": 0.001, "long": "x" * 600})
    sent(tracker)
    show(tracker, params={"lr": 0.001, "width": 1})
    known = run_of(client, tracker).data.params
    assert known == {"lr": "0.001", "width": "1", "long": "x" * (MAX_PARAM_CHARS - 1) + "…"}


def test_a_parameter_that_is_not_on_the_list_is_a_mistake(driver, tmp_path):
    tracker = driver()
    with pytest.raises(ValueError, match="'password' is not on the list"):
        show(tracker, params={"lr": 1, "password": "secret"})
    with pytest.raises(ValueError, match="'password' is not on the list"):
        tracker.start_study({}, "study", {"password": "secret"})
    sent(tracker)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert "secret" not in "".join(path.read_text() for path in files)


def test_runs_end_as_finished_or_failed_with_a_reason(client, tracker):
    ended_at = time.time() - 60
    show(tracker, status="FAILED", tags={"reason": "collapsed"}, ended_at=ended_at)
    run = run_of(client, tracker)
    assert run.info.status == "FAILED"
    assert run.data.tags["reason"] == "collapsed"
    assert run.info.end_time == round(1000 * ended_at)
    tracker.end_study("FINISHED")
    assert run_of(client, tracker, STUDY).info.status == "FINISHED"


def test_no_run_is_left_open_at_the_end_of_the_study(client, tracker):
    show(tracker, status="FINISHED")
    show(tracker, RunIdentity("trial", "trial-001"), status="RUNNING")
    tracker.end_study("FINISHED")
    sent(tracker)
    found = {run.data.tags.get("trial_id"): run.info.status for run in runs(client, tracker)}
    assert found == {None: "FINISHED", "trial-000": "FINISHED", "trial-001": "KILLED"}


def test_artefacts_lie_beside_the_database_and_are_sent_again_when_they_change(
    client, tracker, tmp_path
):
    song = tmp_path / "song.txt"
    song.write_text("la")
    show(tracker, files={song: "songs"})
    sent(tracker)
    where = run_of(client, tracker).info.artifact_uri
    run_id = tracker.run_id(TRIAL)
    assert [f.path for f in client.list_artifacts(run_id, "songs")] == ["songs/song.txt"]
    database = tracker.uri.removeprefix("sqlite:///")
    assert where.startswith("file://" + database.removesuffix("mlflow.db") + "artifacts/")
    copy = Path(where.removeprefix("file://")) / "songs" / "song.txt"
    copy.unlink()
    show(tracker, files={song: "songs"})
    sent(tracker)
    assert not copy.exists()  # the same file is not sent twice
    song.write_text("la la")
    show(tracker, files={song: "songs"})
    sent(tracker)
    assert copy.read_text() == "la la"


def test_a_file_that_is_gone_is_named_and_the_rest_goes_on(client, tracker, tmp_path, said):
    show(tracker, files={tmp_path / "gone.png": ""}, tags={"status": "ok"}, rows={1: {"a": 1.0}})
    run = run_of(client, tracker)
    assert run.data.metrics == {"a": 1.0}
    assert run.data.tags["status"] == "ok"
    (line,) = said
    assert line.startswith(f"{tmp_path / 'gone.png'} cannot be sent")


def test_names_of_birds_are_safe_in_files_and_queries(client, driver, tmp_path):
    tracker = driver()
    names = ["it's", 'say "so"', "both ' and \"", "../../up", "a/b", "ü %", "nul", "x" * 300, "a;b"]
    birds = [RunIdentity("hmm", "trial-000", name, "45") for name in names]
    for bird in birds:
        show(tracker, bird)
    sent(tracker)
    ids = [tracker.run_id(bird) for bird in birds]
    assert len(set(ids)) == len(names)
    assert len(list(tmp_path.iterdir())) == 1
    # Found by their tags alone, where what was sent is not known.
    with tracker._sent.lock:
        tracker._sent.studies[tracker.study_run_id].runs.clear()
    for bird in birds:
        show(tracker, bird)
    sent(tracker)
    assert [tracker.run_id(bird) for bird in birds] == ids
    assert client.get_run(ids[0]).data.tags["bird"] == "it's"


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "best"
    folder.mkdir()
    for name, text in {"model.json": "{}", "encoder.safetensors": "e", "plot.png": "p"}.items():
        (folder / name).write_text(text)
    return folder


def show_model(tracker, folder, name, tags):
    show(tracker, STUDY, model=model_of(folder, name, tags))
    sent(tracker)


def versions(client, run_id):
    found = client.search_model_versions(f"run_id = '{run_id}'")
    return sorted((v.name, int(v.version), v.source.split("/")[-1]) for v in found)


def test_a_model_is_registered_once(client, driver, model):
    tracker = driver()
    for _ in range(2):
        show_model(tracker, model, "decoder", {"trial_id": "trial-000"})
    run_id = tracker.study_run_id
    assert versions(client, run_id) == [("decoder", 1, "model")]
    files = [f.path for f in client.list_artifacts(run_id, "model")]
    assert files == ["model/encoder.safetensors", "model/model.json"]
    version = client.get_model_version("decoder", "1")
    assert version.tags["trial_id"] == "trial-000"
    assert len(version.tags["model_json_sha256"]) == 64
    # Another one of the same run has its own files, and another run its own version.
    (model / "model.json").write_text('{"a": 1}')
    show_model(tracker, model, "decoder", {"sha256": "1"})
    assert [(name, n) for name, n, _ in versions(client, run_id)] == [
        ("decoder", 1), ("decoder", 2)
    ]  # fmt: skip
    assert client.download_artifacts(run_id, "model/model.json")
    assert Path(client.download_artifacts(run_id, "model/model.json")).read_text() == "{}"
    # The caller's own hash makes it the same model, too.
    (model / "model.json").write_text('{"a": 2}')
    show_model(tracker, model, "decoder", {"sha256": "1"})
    assert len(versions(client, run_id)) == 2


def test_the_registry_says_which_version_is_the_best_now_and_is_told_once(
    client, driver, model, monkeypatch
):
    def best():
        return int(client.get_model_version_by_alias("again", BEST).version)

    def show_best(tracker, text):
        (model / "model.json").write_text(text)
        show_model(tracker, model, "again", {"sha256": text})

    tracker = driver()
    for text, number in (("3", 1), ("4", 2), ("3", 1)):
        show_best(tracker, text)
        assert best() == number
    # Another study run of the same folder has another decoder.
    show_best(driver(same={"study_hash": "other"}), "5")
    assert best() == 3
    show_best(driver(), "3")
    assert best() == 1
    monkeypatch.setattr(type(driver()._mlflow), "register", lambda *args: pytest.fail("again"))
    show_best(driver(), "3")
    assert best() == 1
    assert len(client.search_model_versions("name = 'again'")) == 3


def test_a_model_that_was_replaced_before_it_was_sent_is_not_registered(
    client, tracker, model, said
):
    shown = model_of(model, "replaced", {})
    (model / "model.json").write_text('{"a": 1}')
    show(tracker, STUDY, model=shown)
    sent(tracker)
    assert versions(client, tracker.study_run_id) == []
    assert any("no longer holds the model" in line for line in said)
