"""What people do to a finished study: nothing is done twice, and nothing gets a wrong name."""

import os
import shutil

import pytest

from data_io.files import file_sha256
from study.base.ledger import locked
from tests.helpers.memory_mlflow import MemoryMlflow
from tests.helpers.same_results import same_results
from tests.helpers.tiny_study import TinyStudy, hollow, notes, skipped, twice

pytestmark = pytest.mark.integration

ALL = ["recordings", "labels", "trials", "trial figures", "latents", "hmm", "checks", "songs",
       "report"]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    study = TinyStudy(tmp_path_factory.mktemp("moves") / "first")
    code, text = study.command()
    assert code == 0, text
    return study


@pytest.fixture
def moved(finished, tmp_path):
    """The finished study under another name; the first one is out of sight."""
    hidden = finished.out.with_name("hidden")
    study = finished.copied(tmp_path / "moved")
    finished.out.rename(hidden)
    yield study
    hidden.rename(finished.out)


def given(study, *overrides, code=0, **where):
    """What a command prints that ends with ``code`` and leaves MLflow sound."""
    found, text = study.command(*overrides, **where)
    assert found == code, text
    mlflow = where.get("mlflow") or study.mlflow
    assert twice(mlflow) == []
    assert hollow(mlflow) == []
    assert [run.name for run in mlflow.runs.values() if run.status == "RUNNING"] == []
    return text


def names(mlflow):
    return sorted(run.name for run in mlflow.runs.values())


def ended(study):
    found = study.out.glob("search*/trial-*/ended.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in found}


def test_a_moved_run_folder_is_the_same_study_whatever_its_name_and_that_of_the_recordings(
    finished, moved, tmp_path, monkeypatch
):
    n_runs = len(moved.mlflow.runs)
    assert skipped(given(moved)) == ALL
    monkeypatch.chdir(tmp_path)
    assert skipped(given(moved, out="moved/run")) == ALL
    shutil.copytree(moved.data, tmp_path / "recordings")
    text = given(moved, "resources.cpus_per_trial=2", data=tmp_path / "recordings")
    assert set(ALL) - set(skipped(text)) <= {"report"}
    assert len(moved.mlflow.runs) == n_runs
    (study,) = (r for r in moved.mlflow.runs.values() if r.tags["stage"] == "study")
    assert study.tags["data_dir"] == str(tmp_path / "recordings")
    assert "This run folder is a copy" not in text


def test_a_copy_has_runs_of_its_own_and_those_of_the_first_stay_as_they_are(finished, tmp_path):
    copy = finished.copied(tmp_path / "copy")
    before = {run_id: vars(run).copy() for run_id, run in copy.mlflow.runs.items()}
    text = given(copy)
    assert skipped(text) == ALL
    assert f"This run folder is a copy of {finished.out}:" in " ".join(notes(text))
    assert {run_id: vars(copy.mlflow.runs[run_id]) for run_id in before} == before
    assert names(copy.mlflow) == sorted(2 * names(finished.mlflow))
    again = given(copy)
    assert "is a copy" not in again
    assert len(copy.mlflow.runs) == 2 * len(before)


def test_another_mlflow_gets_all_and_the_first_under_another_address_nothing_twice(finished, moved):
    other, n_runs = MemoryMlflow(), len(moved.mlflow.runs)
    given(moved, uri="sqlite:////elsewhere/mlflow.db", mlflow=other)
    assert names(other) == names(moved.mlflow)
    for uri in (moved.uri, "sqlite:////nowhere/by-another-name.db"):
        assert skipped(given(moved, uri=uri)) == ALL
        assert len(moved.mlflow.runs) == n_runs


def test_more_trials_fewer_and_more_again_train_each_once_and_leave_one_best(finished, moved):
    given(moved, "search.n_trials=3")
    kept = ended(moved)
    assert len(kept) == 3
    text = given(moved, "search.n_trials=1")
    assert "2 trials beyond search.n_trials are kept, not counted" in " ".join(notes(text))
    given(moved)
    assert ended(moved) == kept
    beyond = ("search/trial-002", "trials/trial-002.png")
    assert [one for one in same_results(moved.out, finished.out.with_name("hidden"))
            if not one.startswith(beyond)] == []  # fmt: skip
    bests = [r.name for r in moved.mlflow.runs.values() if r.tags.get("is_best") == "True"]
    assert len(bests) == 1
    assert moved.mlflow.best == file_sha256(moved.out / "best" / "model.json")
    assert names(moved.mlflow) == sorted([*names(finished.mlflow), "trial-002"])


def test_settings_changed_and_changed_back_give_the_results_of_before(finished, moved):
    n_runs = len(moved.mlflow.runs)
    text = given(moved, "songs.seconds=0.7")
    assert set(ALL) - set(skipped(text)) == {"songs", "report"}
    assert len(moved.mlflow.runs) == n_runs + 3  # a study, and both ages with what they sang
    text = given(moved)
    assert set(ALL) - set(skipped(text)) == {"songs", "report"}
    assert len(moved.mlflow.runs) == n_runs + 3
    assert same_results(moved.out, finished.out.with_name("hidden")) == []


def finals(mlflow):
    """Of each study run its figures final/..."""
    return [{name: rows for name, rows in run.metrics.items() if name.startswith("final/")}
            for run in mlflow.runs.values() if run.tags["stage"] == "study"]  # fmt: skip


def test_another_mlflow_after_other_settings_shows_the_trials_and_the_figures_of_the_best(moved):
    n_runs = len(moved.mlflow.runs)
    given(moved, "hmm.n_restarts=2")
    assert len(moved.mlflow.runs) == n_runs + 3  # a study, and both ages
    first, second = finals(moved.mlflow)
    assert first == second != {}
    other = MemoryMlflow()
    for overrides in (("hmm.n_restarts=2",), (), ("hmm.n_restarts=2",)):
        given(moved, *overrides, uri="sqlite:////elsewhere/mlflow.db", mlflow=other)
    assert sum(run.tags["stage"] == "trial" for run in other.runs.values()) == 2
    assert finals(other) == [first, first]
    assert len(moved.mlflow.runs) == n_runs + 3


def test_a_database_that_was_removed_gets_all_anew(moved):
    before, moved.mlflow = moved.mlflow, MemoryMlflow()
    assert "any more, so that its database is another one" in " ".join(notes(given(moved)))
    assert names(moved.mlflow) == names(before)
    assert finals(moved.mlflow) == finals(before)


def test_without_what_was_sent_all_is_shown_anew_and_that_is_said(moved):
    n_runs = len(moved.mlflow.runs)
    shutil.rmtree(moved.out / ".tracking")
    assert "The run folder had no .tracking" in " ".join(given(moved).split())
    assert len(moved.mlflow.runs) == 2 * n_runs
    assert "had no .tracking" not in " ".join(given(moved).split())
    assert len(moved.mlflow.runs) == 2 * n_runs


def test_a_second_command_on_the_folder_is_refused_by_name(finished):
    before = ended(finished)
    with locked(finished.out):
        text = given(finished, "search.n_trials=5", code=2)
    assert f"{finished.out} is in use by process {os.getpid()} on " in text
    assert ended(finished) == before
