"""A driver that is killed or started again finds its runs, and sends what is left, once."""

# ruff: noqa: F401, F811  (fixtures: imported by name, and named again by what uses them)

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from data_io.files import read_json, write_json
from study.base.paths import ROOT
from study.tracking import sent as sent_module
from study.tracking.errors import TrackingError
from study.tracking.picture import Measured
from study.tracking.sent import FOLDER, Sent
from study.tracking.tracker import RunIdentity
from tests.helpers.tracked import (
    AT,
    LINEAGE,
    SAME,
    STUDY,
    TRIAL,
    client,
    driver,
    history,
    hold,
    note,
    picture,
    run_of,
    runs,
    said,
    sent,
    show,
    tracker,
    uri,
)

OTHER = {"study_hash": "other", "data_hash": "d"}


def test_a_run_is_found_again_by_what_was_sent_or_by_its_tags(client, driver):
    tracker = driver()
    repeat = RunIdentity("trial", "trial-000", seed="1")
    for identity in (repeat, TRIAL):
        show(tracker, identity, {1: {"a": 1.0}}, status="FINISHED")
    sent(tracker)
    ids = [tracker.run_id(TRIAL), tracker.run_id(repeat)]
    assert ids[0] != ids[1]
    for is_lost in (False, True):
        tracker.close()
        if is_lost:
            write_json(note(tracker), {**read_json(note(tracker)), "study_runs": {}})
        tracker = driver()
        for identity in (TRIAL, repeat):
            show(tracker, identity, {1: {"a": 1.0}, 2: {"a": 2.0}}, status="RUNNING")
        assert run_of(client, tracker).info.status == "RUNNING"
        assert [tracker.run_id(TRIAL), tracker.run_id(repeat)] == ids
        show(tracker, status="FINISHED")
        assert history(client, tracker, "a") == [(1, 1.0), (2, 2.0)]
    assert len(runs(client, tracker)) == 3


def test_an_open_run_that_was_deleted_by_hand_is_begun_anew_by_the_next_driver(client, driver):
    tracker = driver()
    show(tracker, status="RUNNING")
    first = run_of(client, tracker).info.run_id
    client.delete_run(first)
    show(tracker, rows={1: {"a": 1.0}})
    sent(tracker)
    again = driver()
    show(again, rows={1: {"a": 1.0}})
    assert run_of(client, again).info.run_id != first
    assert history(client, again, "a") == [(1, 1.0)]


def test_the_study_goes_on_with_its_run_only_while_that_is_there(client, driver):
    tracker = driver()
    run_id = tracker.study_run_id
    tracker.end_study("KILLED", "interrupted")
    again = driver(lineage={**LINEAGE, "git_commit": "def"})
    assert again.study_run_id == run_id
    run = run_of(client, again, STUDY)
    assert run.info.status == "RUNNING"
    assert run.data.tags["git_commit"] == "def"
    assert run.data.tags["reason"] == "interrupted"
    again.end_study("FINISHED")
    assert run_of(client, again, STUDY).data.tags["reason"] == ""
    others = [
        driver(same=OTHER), driver("other folder"), driver(experiment="another")
    ]  # fmt: skip
    assert run_id not in {other.study_run_id for other in others}
    client.delete_run(run_id)
    assert driver().study_run_id != run_id


@pytest.mark.parametrize("at", ["begin_run", "set_tags", "log_params"])
def test_a_driver_killed_while_it_began_the_study_leaves_no_second_run(
    client, driver, monkeypatch, at
):
    class KilledError(BaseException):
        pass

    tracker = driver(same=None)
    owner = type(tracker._mlflow)
    done = getattr(owner, at)

    def killed(*args):
        done(*args)
        raise KilledError

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(owner, at, killed)
        tracker.start_study(SAME, "study", {"lr": 0.1})
    again = driver()
    (run,) = runs(client, again)
    assert run.info.run_id == again.study_run_id
    assert run.data.params == {"lr": "0.1"}
    assert run.data.tags["study_run_id"] == run.info.run_id


@pytest.mark.parametrize("of", ["study", "trial"])
def test_a_run_begun_twice_is_removed_though_the_first_removal_was_lost(
    client, driver, monkeypatch, of
):
    tracker = driver(same=SAME if of == "trial" else None)
    owner = type(tracker._mlflow)
    create, away = owner.create_run, owner.put_away

    def twice(*args):
        create(*args)  # by an earlier try that got no answer
        return create(*args)

    def lost(*args):
        monkeypatch.setattr(owner, "put_away", away)
        raise MlflowException("Connection refused")

    with monkeypatch.context() as patch:
        patch.setattr(owner, "create_run", twice)
        monkeypatch.setattr(owner, "put_away", lost)
        if of == "trial":
            show(tracker, status="RUNNING")
            sent(tracker)
        else:
            with pytest.raises(TrackingError):
                tracker.start_study(SAME, "study", {"lr": 0.1})
    if of == "study":
        tracker = driver()
    stages = sorted(run.data.tags["stage"] for run in runs(client, tracker))
    assert stages == ["study", "trial"][: 1 + (of == "trial")]


@pytest.mark.parametrize("other", [{"params": {"lr": 0.2}}, {"last_step": 1}])
def test_a_run_that_holds_what_is_no_longer_of_its_trial_is_deleted_and_begun_anew(
    client, tracker, said, other
):
    show(tracker, rows={1: {"a": 1.0}, 2: {"a": 2.0}}, params={"lr": 0.1})
    first = run_of(client, tracker).info.run_id
    show(tracker, rows={1: {"a": 1.0}}, **{"params": {"lr": 0.1}, **other})
    second = run_of(client, tracker)
    assert second.info.run_id != first
    assert first not in {run.info.run_id for run in runs(client, tracker)}
    assert second.data.params == {"lr": str(other.get("params", {"lr": 0.1})["lr"])}
    assert history(client, tracker, "a") == [(1, 1.0)]
    assert "is deleted there, and one is begun anew" in said[0]


def test_another_study_run_in_the_folder_is_ended_and_does_not_mix(client, driver):
    tracker = driver()
    show(tracker, rows={1: {"a": 1.0}}, status="RUNNING")
    sent(tracker)
    first, trial = tracker.study_run_id, tracker.run_id(TRIAL)
    tracker = driver(same=OTHER)
    assert tracker.run_id(TRIAL) is None
    show(tracker, rows={1: {"a": 2.0}})
    sent(tracker)
    assert history(client, tracker, "a") == [(1, 2.0)]
    assert client.get_run(trial).data.metrics == {"a": 1.0}
    assert [client.get_run(r).info.status for r in (first, trial)] == ["KILLED", "KILLED"]
    # Going back to it opens it again.
    back = driver()
    assert back.study_run_id == first
    show(back, status="RUNNING")
    assert run_of(client, back).info.status == "RUNNING"
    assert back.run_id(TRIAL) == trial
    assert run_of(client, back, STUDY).info.status == "RUNNING"


def test_what_another_study_run_left_unsent_still_comes_to_it(client, driver):
    tracker = driver()
    sent(tracker)
    hold(tracker)
    first = tracker.study_run_id
    late = picture(tracker, rows={1: {"a": 1.0}}, status="FINISHED")
    tracker.show(late)
    tracker.end_study("FINISHED")
    tracker.close(0)
    again = driver(same=OTHER)
    again.show(late)  # read from the run folder once more
    sent(again)
    (run,) = [r for r in runs(client, again) if r.data.tags.get("trial_id")]
    assert run.data.tags["study_run_id"] == first
    assert run.data.metrics == {"a": 1.0}
    # It was at its end, though nobody could be told then.
    assert client.get_run(first).info.status == "FINISHED"


def test_another_mlflow_is_shown_what_was_begun_elsewhere_once(client, driver, tmp_path):
    other = f"sqlite:///{tmp_path / 'other.db'}"
    away = driver(at=other)
    sent(away)
    late = picture(away, rows={1: {"a": 1.0}})
    away.show(late)
    sent(away)
    for _ in range(2):  # what was shown once is known the next time
        tracker = driver()
        tracker.show(late)
        sent(tracker)
        (run,) = [r for r in runs(client, tracker) if r.data.tags.get("trial_id")]
        assert run.data.tags["study_run_id"] == tracker.study_run_id != away.study_run_id
        assert run.data.metrics == {"a": 1.0}
    unlike = driver(same=OTHER)  # it stays with the study that is the same
    unlike.show(late)
    sent(unlike)
    assert len(runs(client, unlike)) == 3
    begun_here = picture(tracker, RunIdentity("trial", trial_id="trial-009"), name="trial-009")
    back = driver(at=other)
    assert back.study_run_id == away.study_run_id
    back.show(begun_here)
    sent(back)
    assert back.run_id(begun_here.identity) is not None


def test_the_same_mlflow_under_another_address_gets_no_second_run(client, driver, tmp_path):
    link = tmp_path / "link.db"
    tracker = driver()
    show(tracker)
    sent(tracker)
    n_runs = len(runs(client, tracker))
    link.symlink_to(tracker.uri.removeprefix("sqlite:///"))
    again = driver(at=f"sqlite:///{link}")
    assert again.study_run_id == tracker.study_run_id
    show(again)
    sent(again)
    assert len(runs(client, again)) == n_runs


def test_a_copy_of_a_run_folder_has_runs_of_its_own_and_a_moved_one_has_not(
    client, driver, tmp_path, said
):
    tracker = driver("first/.tracking")
    begun = picture(tracker, rows={1: {"a": 1.0}})
    tracker.show(begun)
    sent(tracker)
    for place in ("copy", "moved"):
        shutil.copytree(tmp_path / "first", tmp_path / place)
    for n_said in (1, 1):  # the second time it is no copy any more
        copy = driver("copy/.tracking")
        copy.show(begun)
        sent(copy)
        assert copy.study_run_id != tracker.study_run_id
        assert len(said) == n_said
    assert f"This run folder is a copy of {tmp_path / 'first'}: " in said[0]
    assert copy.run_id(TRIAL) != tracker.run_id(TRIAL)
    assert history(client, copy, "a") == history(client, tracker, "a") == [(1, 1.0)]
    shutil.rmtree(tmp_path / "first")
    moved = driver("moved/.tracking")
    assert moved.study_run_id == tracker.study_run_id
    assert len(runs(client, moved)) == 4
    assert len(said) == 1


def test_a_copy_killed_between_its_two_notes_leaves_the_runs_of_the_first_alone(
    client, driver, uri, tmp_path, monkeypatch, request
):
    class KilledError(BaseException):
        pass

    def killed(path, content):
        write_json(path, content)
        raise KilledError

    first = driver("first/.tracking")
    begun = picture(first, rows={1: {"a": 1.0}}, status="RUNNING")
    first.show(begun)
    sent(first)
    first._sent.write()
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(sent_module, "write_json", killed)
        Sent(tmp_path / "copy/.tracking", uri, request.node.name).write()
    ids = first.study_run_id, first.run_id(TRIAL)
    ours = {one: client.get_run(one).info.status for one in ids}
    copy = driver("copy/.tracking")
    copy.show(begun)
    sent(copy)
    assert copy.study_run_id != first.study_run_id
    assert copy.run_id(TRIAL) not in {None, first.run_id(TRIAL)}
    assert {one: client.get_run(one).info.status for one in ours} == ours


def test_the_next_driver_sends_what_was_left(client, driver):
    tracker = driver()
    show(tracker)
    sent(tracker)
    hold(tracker)
    rows = {step: {"a": float(step)} for step in range(5)}
    show(tracker, rows=rows, status="FINISHED", tags={"reason": ""})
    tracker.end_study("FAILED")
    assert tracker.close(0.1) == 2
    again = driver()
    show(again, rows={**rows, 5: {"a": 5.0}}, status="FINISHED")
    sent(again)
    assert history(client, again, "a") == [(step, float(step)) for step in range(6)]
    assert client.get_run(again.run_id(TRIAL)).info.status == "FINISHED"
    assert client.get_run(again.study_run_id).info.status == "RUNNING"


def test_what_was_sent_but_not_noted_is_sent_again_and_changes_nothing(client, driver):
    """The driver was killed, or the disk was full, between the sending and the note of it."""
    tracker = driver()
    rows = {step: {"a": 0.1 * step, "b": 1e300} for step in range(30)}
    rows[30] = {"a": float("nan")}
    whole = picture(tracker, rows=rows, params={"lr": 1}, status="FINISHED",
                    tags={"reason": "done"}, ended_at=1.7e9)  # fmt: skip
    tracker.show(whole)
    sent(tracker)
    tracker.close()
    old_rows = client.get_metric_history(tracker.run_id(TRIAL), "a")
    before = client.get_run(tracker.run_id(TRIAL))
    content = read_json(note(tracker))
    known = content["study_runs"][tracker.study_run_id]["runs"]
    fresh = {"run_id": before.info.run_id}
    for kept in ({}, fresh, {**fresh, "step": 12}, {**fresh, "params": ["lr"], "step": 29}):
        known.pop(TRIAL.key(), None)
        if kept:
            known[TRIAL.key()] = kept
        write_json(note(tracker), content)
        again = driver()
        again.show(whole)
        sent(again)
        assert len(runs(client, again)) == 2
        after = client.get_run(again.run_id(TRIAL))
        assert after.data.to_dictionary() == before.data.to_dictionary()
        assert after.info.status == "FINISHED"
        assert after.info.end_time == before.info.end_time
        again_rows = client.get_metric_history(again.run_id(TRIAL), "a")
        assert [vars(m) for m in again_rows] == [vars(m) for m in old_rows]
        again.close()


def test_a_report_that_is_made_again_with_another_time_is_there_once(client, driver):
    tracker = driver()
    show(tracker, rows={1: {"a": 1.0}, 2: {"a": 2.0}})
    sent(tracker)
    tracker.close()
    content = read_json(note(tracker))
    content["study_runs"][tracker.study_run_id]["runs"][TRIAL.key()]["step"] = 1  # lags behind
    write_json(note(tracker), content)
    again = driver()
    later = {step: Measured(AT + 99 + step, {"a": float(step)}) for step in (1, 2, 3)}
    show(again, curve=later)
    sent(again)
    assert history(client, again, "a") == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_an_altered_list_of_what_was_sent_is_made_again_and_nothing_is_there_twice(
    client, driver, tmp_path, said
):
    """The list, or the file with the id of the folder: one of them is altered, cut or missing."""
    figure = tmp_path / "figure.txt"
    figure.write_text("a picture")

    def show_whole(tracker):
        show(tracker, rows={1: {"a": 1.0}, 2: {"a": 2.0}}, params={"lr": 1}, files={figure: ""},
             tags={"reason": "done"}, status="FINISHED", ended_at=1.7e9)  # fmt: skip
        sent(tracker)
        tracker.close()

    tracker = driver()
    show_whole(tracker)
    before = client.get_run(tracker.run_id(TRIAL))
    id_file = note(tracker).with_name(FOLDER)
    for path in (note(tracker), id_file):
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        for content in (b"", bytes(len(whole)), whole[:-20], bytes(flipped), b"[]", None):
            said.clear()
            path.unlink() if content is None else path.write_bytes(content)
            again = driver()
            show_whole(again)
            assert len(runs(client, again)) == 2
            after = client.get_run(again.run_id(TRIAL))
            assert after.data.to_dictionary() == before.data.to_dictionary()
            assert (after.info.status, after.info.end_time) == ("FINISHED", before.info.end_time)
            assert history(client, again, "a") == [(1, 1.0), (2, 2.0)]
            noticed = [one for one in said if one.startswith(f"{path} ") and "made anew" in one]
            assert len(noticed) == (content is not None)
            assert read_json(path) is not None


@pytest.mark.parametrize("is_over", [False, True])
def test_runs_of_other_settings_are_ended_though_the_list_of_what_was_sent_is_altered(
    client, driver, is_over
):
    tracker = driver()
    show(tracker, rows={1: {"a": 1.0}}, status="RUNNING")
    sent(tracker)
    first, trial = tracker.study_run_id, tracker.run_id(TRIAL)
    tracker.close()
    if is_over:  # and the end of the trial did not come through
        client.set_terminated(first, "FINISHED")
    note(tracker).write_text("{")
    sent(driver(same=OTHER))
    ends = [client.get_run(run_id).info.status for run_id in (first, trial)]
    assert ends == ["FINISHED" if is_over else "KILLED", "KILLED"]
    assert driver().study_run_id == first  # with its settings again, it goes on


def test_mlflow_keeps_one_row_of_a_batch_that_came_twice(client, tracker):
    batch = [Metric("a", 0.1, 1234567, 1), Metric("a", 0.1, 1234567, 2), Metric("b", 0, 1, 1)]
    for part in (batch, batch, batch[1:]):
        client.log_batch(tracker.study_run_id, part)
    assert len(client.get_metric_history(tracker.study_run_id, "a")) == 2
    assert len(client.get_metric_history(tracker.study_run_id, "b")) == 1


CHILD = """
import sys, time
from pathlib import Path
from study.tracking.picture import Measured
from study.tracking.sent import FOLDER
from study.tracking.tracker import RunIdentity, RunPicture, Tracker
uri, folder, reports = sys.argv[1:]
tracker = Tracker(uri, "killed", {}, Path(folder), [])
study = tracker.start_study({}, "study", {})
print(study, flush=True)
path = Path(reports)  # what is in the run folder: a line is there before MLflow is told of it
times = [float(line) for line in path.read_text().split()] if path.exists() else []
curve = {i: Measured(at, {"a": float(i), "b": 1.0}) for i, at in enumerate(times)}
trial = RunIdentity("trial", "trial-000")
tracker.show(RunPicture(trial, study, "x", curve=curve))
for step in range(len(times), 100000):
    now = time.time()
    with path.open("a") as file:
        print(now, file=file)
    row = Measured(now, {"a": float(step), "b": 1.0})
    tracker.show(RunPicture(trial, study, curve={step: row}))
    print(step, flush=True)
    time.sleep(0.004)
"""


def test_a_driver_that_is_killed_loses_nothing(client, driver, uri, tmp_path):
    reports = tmp_path / "reports"
    for n in (30, 60):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, uri, str(tmp_path / "sent"), str(reports)],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        )  # fmt: skip
        for _ in range(n):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        child.communicate()
    tracker = driver(same={}, experiment="killed", lineage={})
    times = [float(line) for line in reports.read_text().split()]
    curve = {i: Measured(at, {"a": float(i), "b": 1.0}) for i, at in enumerate(times)}
    show(tracker, name="x", curve=curve, status="FINISHED")
    sent(tracker)
    for name in "ab":
        steps = [step for step, _ in history(client, tracker, name)]
        assert steps == list(range(len(times)))
    tracker.end_study("FINISHED")
    sent(tracker)
    assert [run.info.status for run in runs(client, tracker)] == ["FINISHED", "FINISHED"]


OPENS = """
import sys, time
from pathlib import Path
from study.tracking.tracker import Tracker
folder, me = Path(sys.argv[1]), sys.argv[2]
(folder / f"ready{me}").touch()
while not (folder / "go").exists():
    time.sleep(0.001)
uri = f"sqlite:///{folder / 'new' / 'mlflow.db'}"
tracker = Tracker(uri, "finches", {}, folder / f"sent{me}", set())
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
