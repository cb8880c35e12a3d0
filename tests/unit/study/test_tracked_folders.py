"""Whose runs in MLflow are those of a run folder."""

import shutil

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from study.tracking import client
from study.tracking.picture import Measured, RunIdentity, RunPicture
from study.tracking.sent import FOLDER, Sent
from study.tracking.tracker import Tracker
from tests.helpers.memory_mlflow import MemoryMlflow
from tests.helpers.pretend_mlflow import PretendMlflow

TRIAL = RunIdentity("trial", "trial-000")


class Folder:
    """A run folder with one trial, whose command is given with settings to one MLflow or another.

    Attributes:
        said: lines of the last start.
    """

    def __init__(self, path, monkeypatch):
        self.path, self.said = path, []
        self.servers = {at: PretendMlflow(at) for at in ("http://one", "http://two")}
        self._begun = None
        monkeypatch.setattr(client, "MlflowClient", lambda uri, registry_uri: self.servers[uri])

    def start(self, settings, at="http://one"):
        """Give the id of the study run; the trial is shown as it began, at the first start."""
        self.said = []
        tracker = Tracker(at, "finches", {"study": "finches"}, self.path, ("lr",), self.said.append)
        run_id = tracker.start_study({"study_hash": settings}, settings, {})
        self._begun = self._begun or run_id
        curve = {1: Measured(1.7e9, {"a": 1.0})}
        tracker.show(RunPicture(TRIAL, self._begun, "trial-000", curve=curve, status="FINISHED"))
        tracker.end_study("FINISHED")
        assert tracker.close(20) == 0
        return run_id

    def trials(self, at="http://one"):
        """Of each run of the trial in that MLflow, its study run and its number of metrics."""
        return [(run.tags["study_run_id"], len(run.rows)) for run in self.servers[at].active()
                if run.tags.get("trial_id")]  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return Folder(tmp_path / ".tracking", monkeypatch)


def test_another_mlflow_shows_trials_of_other_settings_once_and_they_stay_there(folder):
    first = folder.start("old")
    now = folder.start("new", "http://two")
    assert folder.trials("http://two") == [(now, 1)]
    # Also when the settings come back under which they began.
    assert folder.start("old", "http://two") != now
    assert folder.start("new", "http://two") == now
    assert folder.trials("http://two") == [(now, 1)]
    assert folder.trials() == [(first, 1)]
    assert folder.said == []


def test_study_runs_of_one_mlflow_keep_their_trials_though_the_list_is_lost(folder):
    first = folder.start("old")
    for is_lost in (False, True):
        if is_lost:
            for path in folder.path.glob("*.json"):
                path.name == FOLDER or path.unlink()
        assert folder.start("new") != first
        assert folder.trials() == [(first, 1)]
    assert [run.status for run in folder.servers["http://one"].active()] == 3 * ["FINISHED"]


class ServerWithUsers(PretendMlflow):
    """It does not say which runs there are not."""

    def _known(self, run_id):
        if run_id not in self.runs:
            raise MlflowException("Permission denied", PERMISSION_DENIED)
        return super()._known(run_id)


@pytest.mark.parametrize("server", [PretendMlflow, ServerWithUsers])
def test_a_database_that_was_removed_is_said_and_gets_all_anew(folder, server):
    first = folder.start("old")
    folder.servers["http://one"] = server("new")
    again = folder.start("old")
    assert folder.trials() == [(again, 1)]
    assert f"MLflow does not have the study run {first} any more" in folder.said[0]
    assert folder.start("old") == again
    assert folder.said == []


def test_a_study_run_that_a_person_deleted_is_not_sent_anew(folder):
    first = folder.start("old")
    for run in folder.servers["http://one"].active():
        run.is_active = False
    for path in (None, next(one for one in folder.path.glob("*.json") if one.name != FOLDER)):
        if path is not None:
            path.unlink()
        folder.start("old")
        assert first not in {run.run_id for run in folder.servers["http://one"].active()}
        assert folder.trials() == []


def test_a_folder_without_what_was_sent_gets_new_runs_and_says_so(folder):
    first = folder.start("old")
    shutil.rmtree(folder.path)
    again = folder.start("old")
    assert folder.trials() == [(first, 1), (again, 1)]
    (line,) = folder.said
    assert "The run folder had no .tracking" in line
    assert folder.start("old") == again
    assert folder.said == []


def test_files_of_others_among_the_lists_are_left_alone(folder):
    folder.start("old")
    names = [f"._{path.name}" for path in folder.path.glob("*.json")]
    for name in (*names, "mine.json"):
        (folder.path / name).write_text("{")
    folder.start("old")
    assert folder.said == []
    assert {*names, "mine.json"} < {path.name for path in folder.path.iterdir()}


def test_the_id_of_a_folder_is_in_every_list_of_what_was_sent(tmp_path):
    first = Sent(tmp_path, "http://one", "finches")
    first.begin_study("run-1", "same")
    first.write()
    (tmp_path / FOLDER).unlink()
    assert Sent(tmp_path, "http://two", "finches").folder_id == first.folder_id
    assert Sent(tmp_path, "http://one", "finches").studies.keys() == {"run-1"}


def test_of_two_runs_the_one_that_is_known_stays():
    mlflow, tags = MemoryMlflow(), {"stage": "study"}
    older, ours = (mlflow.create_run(tags, "study", at) for at in (1, 2))
    assert mlflow.begin_run(tags, tags, "study", 3, {ours}) == ours
    assert older not in {run.info.run_id for run in mlflow.search(tags)}
    assert mlflow.begin_run(tags, tags, "study", 3) == ours
