"""Whose runs in MLflow are those of a run folder."""

from study.tracking.sent import FOLDER, Sent
from tests.helpers.memory_mlflow import MemoryMlflow


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
