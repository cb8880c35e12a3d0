"""What is skipped, what is done again, and that two studies never share a folder."""

import io

import pytest

from study.base.console import Console
from study.base.ledger import FolderInUseError, Ledger, StageResult, locked


def ledger(folder):
    return Ledger(folder, folder / ".stages", Console(io.StringIO()), 1)


def run(folder, depends_on, calls, content="abc"):
    def work():
        calls.append(1)
        path = folder / "out" / "part.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        return StageResult([folder / "out"], "digest", {"fact": 1})

    return ledger(folder).run("stage", {"input": depends_on}, work)


def test_a_stage_is_skipped_while_nothing_has_changed(tmp_path):
    calls = []
    assert not run(tmp_path, 1, calls).was_skipped
    again = run(tmp_path, 1, calls)
    assert again.was_skipped
    assert (again.digest, again.facts) == ("digest", {"fact": 1})
    assert len(calls) == 1


def test_a_changed_input_or_a_missing_or_shortened_file_runs_it_again(tmp_path):
    calls = []
    run(tmp_path, 1, calls)
    assert not run(tmp_path, 2, calls).was_skipped
    (tmp_path / "out" / "part.txt").unlink()
    assert not run(tmp_path, 2, calls).was_skipped
    (tmp_path / "out" / "part.txt").write_text("ab")
    assert not run(tmp_path, 2, calls).was_skipped
    (tmp_path / ".stages" / "stage.json").write_text('{"key":')  # cut short
    assert not run(tmp_path, 2, calls).was_skipped


def test_a_stage_that_failed_is_not_done(tmp_path):
    calls = []
    run(tmp_path, 1, calls)

    def fails():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        ledger(tmp_path).run("stage", {"input": 2}, fails)
    assert not run(tmp_path, 2, calls).was_skipped


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    (tmp_path / ".latents.12345678.tmp").mkdir()
    (tmp_path / ".trials.12345678.tmp.parquet").write_text("x")
    run(tmp_path, 1, [])
    assert {p.name for p in tmp_path.iterdir()} == {"out", ".stages"}


def test_a_folder_in_use_is_refused_and_named(tmp_path):
    refused = pytest.raises(FolderInUseError, match=r"in use by process \d+ on")
    with locked(tmp_path), refused, locked(tmp_path):
        pass
    with locked(tmp_path):  # free again
        pass
