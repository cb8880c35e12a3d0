"""A driver that is killed or started again finds its runs, and sends what is left, once."""

# ruff: noqa: F401, F811  (fixtures: imported by name, and named again by what uses them)

import os
import signal
import subprocess
import sys
import time

import pytest
from mlflow.entities import Metric

from study.base.paths import ROOT
from study.tracking.tracker import RunIdentity, Tracker
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


def test_a_run_is_found_again_by_the_outbox_or_by_its_tags(client, driver, tmp_path):
    tracker = driver()
    repeat = RunIdentity("trial", "trial-000", seed="1")
    for identity in (repeat, TRIAL):
        tracker.start_run(identity, "x")
    tracker.log_metrics(TRIAL, {1: {"a": 1.0}})
    tracker.end_run(TRIAL, True)
    sent(tracker)
    study, ids = tracker.study_run_id, [tracker.run_id(TRIAL), tracker.run_id(repeat)]
    assert ids[0] != ids[1]
    for folder in ("outbox", "lost"):
        again = driver(folder, study=study)
        assert again.knows(TRIAL) == (folder == "outbox")
        again.start_run(TRIAL, "x")
        again.start_run(repeat, "x")
        again.log_metrics(TRIAL, {1: {"a": 7.0}} if folder == "outbox" else {2: {"a": 2.0}})
        assert run_of(client, again).info.status == "RUNNING"
        assert [again.run_id(TRIAL), again.run_id(repeat)] == ids
        again.end_run(TRIAL, True)
    assert history(client, again, "a") == [(1, 1.0), (2, 2.0)]
    assert len(runs(client, again)) == 3


def test_a_run_that_was_deleted_by_hand_is_begun_anew(client, tracker):
    tracker.start_run(TRIAL, "x")
    first = run_of(client, tracker).info.run_id
    client.delete_run(first)
    tracker.start_run(TRIAL, "x")
    assert run_of(client, tracker).info.run_id != first


def test_the_study_goes_on_with_its_run_only_while_that_is_there(client, driver):
    tracker = driver()
    run_id = tracker.study_run_id
    tracker.end_run(STUDY, False)
    again = driver(study=run_id, lineage={**LINEAGE, "git_commit": "def"})
    assert again.study_run_id == run_id
    run = run_of(client, again, STUDY)
    assert run.info.status == "RUNNING"
    assert run.data.tags["git_commit"] == "def"
    assert driver(study="0" * 32).study_run_id != run_id
    assert driver(study=run_id, experiment="another").study_run_id != run_id


@pytest.mark.parametrize("at", ["create_run", "set_tags", "log_params", "record_under"])
def test_a_driver_killed_while_it_began_the_study_leaves_no_second_run(
    client, driver, monkeypatch, at
):
    class KilledError(BaseException):
        pass

    tracker = driver(study=None)
    owner = Tracker if at == "record_under" else type(tracker._mlflow)
    done = getattr(owner, at)

    def killed(*args):
        done(*args)
        raise KilledError

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(owner, at, killed)
        tracker.start_study(None, "study", {"lr": 0.1})
    again = driver()
    (run,) = runs(client, again)
    assert run.info.run_id == again.study_run_id
    assert run.data.params == {"lr": "0.1"}
    assert run.data.tags["study_run_id"] == run.info.run_id


def test_a_study_that_was_used_is_not_taken_for_one_that_was_only_begun(driver):
    first = driver()
    first.set_tags(STUDY, {"a": "b"})
    second = driver()
    assert second.study_run_id != first.study_run_id
    # Nor is one of other settings.
    third = driver(lineage={**LINEAGE, "config_hash": "2"})
    assert len({t.study_run_id for t in (first, second, third)}) == 3


def test_another_study_run_in_the_folder_is_ended_and_does_not_mix(client, driver):
    tracker = driver()
    tracker.start_run(TRIAL, "x")
    tracker.log_metrics(TRIAL, {1: {"a": 1.0}})
    sent(tracker)
    first, trial = tracker.study_run_id, tracker.run_id(TRIAL)
    tracker = driver(lineage={**LINEAGE, "config_hash": "2"})
    assert not tracker.knows(TRIAL)
    tracker.start_run(TRIAL, "x")
    tracker.log_metrics(TRIAL, {1: {"a": 2.0}})
    sent(tracker)
    assert history(client, tracker, "a") == [(1, 2.0)]
    assert client.get_run(trial).data.metrics == {"a": 1.0}
    assert [client.get_run(r).info.status for r in (first, trial)] == ["KILLED", "KILLED"]
    # Going back to it opens it again.
    back = driver(study=first)
    back.start_run(TRIAL, "x")
    assert back.run_id(TRIAL) == trial
    assert run_of(client, back).info.status == "RUNNING"
    assert run_of(client, back, STUDY).info.status == "RUNNING"


def test_what_is_for_another_mlflow_is_kept_for_it(client, driver, tmp_path, said, uri):
    other = f"sqlite:///{tmp_path / 'other.db'}"
    away = driver(at=other)
    hold(away)
    away.start_run(TRIAL, "x")
    away.close(0)
    tracker = driver()
    assert any("1 records in" in line and other in line for line in said)
    tracker.start_run(RunIdentity("trial", "trial-001"), "x")
    sent(tracker)
    assert len(runs(client, tracker)) == 2
    back = driver(at=other, study=away.study_run_id)
    sent(back)
    assert back.run_id(TRIAL) is not None


def test_the_next_driver_sends_what_was_left(client, driver):
    tracker = driver()
    tracker.start_run(TRIAL, "x")
    sent(tracker)
    hold(tracker)
    tracker.log_metrics(TRIAL, {step: {"a": float(step)} for step in range(5)})
    tracker.end_run(TRIAL, True, {"reason": ""})
    tracker.end_run(STUDY, False)
    assert tracker.close(0.1) == 3
    again = driver(study=tracker.study_run_id)
    again.log_metrics(TRIAL, {4: {"a": -1.0}, 5: {"a": 5.0}})
    sent(again)
    assert history(client, again, "a") == [(step, float(step)) for step in range(6)]
    assert client.get_run(again.run_id(TRIAL)).info.status == "FINISHED"
    # In order: the end of last time, then the start of this time.
    assert client.get_run(again.study_run_id).info.status == "RUNNING"


def test_what_was_sent_but_not_noted_is_sent_again_and_changes_nothing(client, driver):
    """The driver was killed, or the disk was full, between the delivery and the note of it."""
    tracker = driver()
    tracker.start_run(TRIAL, "x")
    tracker.log_params(TRIAL, {"lr": 1})
    tracker.log_metrics(TRIAL, {step: {"a": 0.1 * step, "b": 1e300} for step in range(30)})
    tracker.log_metrics(TRIAL, {30: {"a": float("nan")}})
    tracker.end_run(TRIAL, True, {"reason": "done"})
    sent(tracker)
    rows = tracker._mlflow._client.get_metric_history(tracker.run_id(TRIAL), "a")
    before = client.get_run(tracker.run_id(TRIAL))
    (notes,) = tracker.folder.rglob("done.jsonl")
    for keep in (0, 1, 3, 5):
        notes.write_bytes(b"".join(notes.read_bytes().splitlines(keepends=True)[:keep]))
        again = driver(study=tracker.study_run_id)
        assert len([r for r in runs(client, again)]) == 2
        sent(again)
        after = client.get_run(again.run_id(TRIAL))
        assert after.data.to_dictionary() == before.data.to_dictionary()
        assert after.info.status == "FINISHED"
        assert after.info.end_time == before.info.end_time
        again_rows = client.get_metric_history(again.run_id(TRIAL), "a")
        assert [vars(m) for m in again_rows] == [vars(m) for m in rows]


def test_a_lost_note_of_a_start_does_not_open_a_run_that_ended(client, driver):
    tracker = driver()
    tracker.start_run(TRIAL, "x")
    tracker.end_run(TRIAL, True)
    sent(tracker)
    (notes,) = tracker.folder.rglob("done.jsonl")
    notes.write_bytes(notes.read_bytes().splitlines(keepends=True)[1])
    again = driver(study=tracker.study_run_id)
    assert run_of(client, again).info.status == "FINISHED"


def test_mlflow_keeps_one_row_of_a_batch_that_came_twice(client, tracker):
    batch = [Metric("a", 0.1, 1234567, 1), Metric("a", 0.1, 1234567, 2), Metric("b", 0, 1, 1)]
    for part in (batch, batch, batch[1:]):
        client.log_batch(tracker.study_run_id, part)
    assert len(client.get_metric_history(tracker.study_run_id, "a")) == 2
    assert len(client.get_metric_history(tracker.study_run_id, "b")) == 1


CHILD = """
import sys, time
from pathlib import Path
from study.tracking.tracker import RunIdentity, Tracker
uri, folder, study, first = sys.argv[1:]
tracker = Tracker(uri, "killed", {}, Path(folder), [])
print(tracker.start_study(study or None, "study", {}), flush=True)
trial = RunIdentity("trial", "trial-000")
tracker.start_run(trial, "x")
for step in range(int(first), 100000):
    tracker.log_metrics(trial, {step: {"a": float(step), "b": 1.0}})
    print(step, flush=True)
    time.sleep(0.004)
"""


def test_a_driver_that_is_killed_loses_nothing(client, driver, uri, tmp_path):
    study, last = "", 0  # the next driver repeats the last step, as trials do
    for n in (30, 60):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, uri, str(tmp_path / "outbox"), study, str(last)],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        )  # fmt: skip
        study = child.stdout.readline().decode().strip()
        for _ in range(n):
            last = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        child.communicate()
    tracker = driver(study=study, experiment="killed")
    sent(tracker)
    steps = [step for step, _ in history(client, tracker, "a")]
    assert steps == list(range(len(steps)))
    assert len(steps) > last
    assert len(history(client, tracker, "b")) in (len(steps), len(steps) - 1)
    tracker.end_run(TRIAL, True)
    tracker.end_run(STUDY, True)
    sent(tracker)
    found = runs(client, tracker)
    assert [run.info.status for run in found] == ["FINISHED", "FINISHED"]


OPENS = """
import sys, time
from pathlib import Path
from study.tracking.tracker import Tracker
folder, me = Path(sys.argv[1]), sys.argv[2]
(folder / f"ready{me}").touch()
while not (folder / "go").exists():
    time.sleep(0.001)
uri = f"sqlite:///{folder / 'new' / 'mlflow.db'}"
tracker = Tracker(uri, "finches", {}, folder / f"outbox{me}", set())
print(tracker.experiment_id)
tracker.close(1.0)
"""


def test_studies_that_begin_together_make_one_database_and_one_experiment(tmp_path):
    words = [sys.executable, "-c", OPENS, str(tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    studies = [subprocess.Popen([*words, str(i)], cwd=ROOT, **pipes) for i in range(3)]
    while len(list(tmp_path.glob("ready*"))) < len(studies):
        assert all(study.poll() is None for study in studies)
        time.sleep(0.05)
    (tmp_path / "go").touch()
    said = [study.communicate(timeout=120) for study in studies]
    assert [study.returncode for study in studies] == [0, 0, 0], said
    assert {out.strip() for out, _ in said} == {"1"}
