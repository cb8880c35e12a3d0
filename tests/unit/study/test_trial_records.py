"""What is on disk of a trial, whole, killed in between, or damaged."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from data_io import files
from models.mdgan.checkpoints import save_decoder, save_training
from models.mdgan.tensor_files import file_sha256
from study.base import hashes
from study.base.console import Console
from study.search import trial_folder
from study.search.search import load_trials
from study.search.trial_folder import (
    BrokenRecordError,
    NotOwnerError,
    TrialFolder,
    TrialSpec,
    UnreadableRecordError,
    has_begun,
    read_reports,
    trial_name,
)
from tests.helpers.tiny_mdgan import build

SPEC = TrialSpec("trial-003", 3, 7, {"lr": 0.001, "latent_dim": 8}, {"fixed_params": {"lr": 1}})
ENDED = {
    "reports": [{"report": 1, "objective": 2.0}], "reason": "", "may_go_on": False,
    "ended_at": 1.0, "node": "a", "n_retries": 0, "mlflow_run_id": None,
}  # fmt: skip


def fill(folder):
    for name in ("training.safetensors", "encoder.safetensors", "training.json", "model.json"):
        (folder / name).write_bytes(name.encode() * 100)
    return {name: file_sha256(folder / name) for name in ("training.safetensors", "model.json")}


def zero(path):
    """As some file systems leave a file whose name came to the disk before its content."""
    path.write_bytes(bytes(path.stat().st_size))


def reports(n):
    return [{"report": i, "objective": 1.0 / i} for i in range(1, n + 1)]


@pytest.fixture
def folder(tmp_path):
    folder = TrialFolder(tmp_path / "trial-003")
    folder.begin(SPEC)
    folder.own()
    return folder


def saved(folder, n):
    for i in range(1, n + 1):
        folder.save(i, reports(i), fill)
    return folder.path / f"checkpoint-{n:04d}"


def names(folder):
    return sorted(p.name for p in folder.path.iterdir())


def test_a_spec_comes_back_as_it_was(folder):
    assert folder.spec() == SPEC
    assert trial_name(3) == "trial-003"


def test_the_newest_two_checkpoints_are_kept_with_all_reports(folder):
    newest = saved(folder, 4)
    assert names(folder) == ["checkpoint-0003", "checkpoint-0004", "owner.json", "trial.json"]
    assert folder.newest_checkpoint() == (newest, [])
    assert read_reports(newest) == reports(4)
    assert read_reports(None) == []


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (
            lambda c: (c / "training.safetensors").write_bytes(b"cut"),
            "training.safetensors was altered",
        ),
        (lambda c: (c / "reports.json").write_text("[]"), "reports.json was altered"),
        (lambda c: (c / "model.json").unlink(), "model.json is missing"),
        (lambda c: (c / "reports.json").write_bytes(b""), "reports.json was altered"),
        (lambda c: zero(c / "training.json"), "training.json was altered"),
        (lambda c: (c / "checkpoint.json").write_text('{"repo'), "checkpoint.json was altered"),
        (lambda c: (c / "checkpoint.json").write_bytes(b""), "checkpoint.json was altered"),
        (lambda c: zero(c / "checkpoint.json"), "checkpoint.json was altered"),
        (
            lambda c: (c / "checkpoint.json").write_text("{}"),
            "checkpoint.json has no seal",
        ),
        (lambda c: (c / "checkpoint.json").unlink(), "checkpoint.json is missing"),
        (lambda c: [path.unlink() for path in c.iterdir()], "checkpoint.json is missing"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(folder, damage, why):
    newest = saved(folder, 3)
    damage(newest)
    said = []
    assert folder.sound_reports(said.append) == reports(2)
    assert len(said) == 1
    assert "trial-003: checkpoint-0003 is broken" in said[0]
    assert why in said[0]
    assert said[0].endswith("checkpoint-0002 is used")
    assert folder.newest_checkpoint() == (folder.path / "checkpoint-0002", [])
    assert (folder.path / "checkpoint-0003.broken").is_dir()


def test_where_no_checkpoint_is_sound_all_are_named(folder):
    for name in (saved(folder, 2), folder.path / "checkpoint-0001"):
        (name / "training.json").unlink()
    said = []
    assert folder.sound_reports(said.append) == []
    assert len(said) == 2
    assert all(line.endswith("the beginning is used") for line in said)


def test_a_file_that_cannot_be_read_for_now_is_not_taken_for_damage(folder, monkeypatch):
    saved(folder, 2)

    def fails(path):
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(hashes, "file_sha256", fails)
    named = (
        "checkpoint-0002/.* cannot be read .Input/output error.. Remove nothing: see to the disk"
    )
    with pytest.raises(UnreadableRecordError, match=named):
        folder.newest_checkpoint()
    assert not list(folder.path.glob("*.broken"))


def test_a_process_cut_off_from_its_trial_writes_no_more(folder):
    saved(folder, 1)
    successor = TrialFolder(folder.path)
    successor.own()
    with pytest.raises(NotOwnerError, match="taken over"):
        folder.save(2, reports(2), fill)
    successor.save(2, reports(2), fill)
    assert len(read_reports(successor.newest_checkpoint()[0])) == 2


def test_only_a_process_of_the_same_trial_works_in_its_folder(folder):
    spec = folder.spec()
    folder.check_is(dataclasses.replace(spec, number=spec.number + 1))  # a repeat's place
    for other in ({"seed": 9}, {"search": "another"}, {"params": {"lr": 0.5}}):
        with pytest.raises(NotOwnerError, match="another search"):
            folder.check_is(dataclasses.replace(spec, **other))


def test_of_an_ended_trial_the_decoder_is_kept(folder):
    saved(folder, 2)
    folder.end(ENDED)
    assert names(folder) == ["decoder", "ended.json", "owner.json", "trial.json"]
    assert sorted(p.name for p in folder.decoder.iterdir()) == ["encoder.safetensors", "model.json"]
    assert folder.ended() == ENDED


def test_a_kill_between_ended_json_and_tidying_loses_nothing(folder, monkeypatch):
    saved(folder, 2)
    monkeypatch.setattr(TrialFolder, "tidy", lambda self: None)
    folder.end(ENDED)
    monkeypatch.undo()
    (folder.path / ".checkpoint-0003.abc.tmp").mkdir()
    (folder.path / ".trial.abc.tmp.json").touch()
    folder.tidy()
    assert names(folder) == ["decoder", "ended.json", "owner.json", "trial.json"]


def test_a_trial_that_may_go_on_keeps_its_checkpoints(folder):
    saved(folder, 2)
    folder.end({**ENDED, "may_go_on": True, "reason": "its process failed"})
    folder.reopen()
    assert folder.ended() is None
    assert folder.newest_checkpoint()[0] == folder.path / "checkpoint-0002"


@pytest.mark.parametrize("name", ["trial.json", "ended.json"])
@pytest.mark.parametrize("content", ['{"number": 3', "{}", "[]", '{"x": 1}'])
def test_a_broken_record_is_named_with_the_remedy(folder, name, content):
    folder.end(ENDED)
    (folder.path / name).write_text(content)
    read = folder.spec if name == "trial.json" else folder.ended
    with pytest.raises(BrokenRecordError) as caught:
        read()
    assert str(folder.path / name) in str(caught.value)
    assert f"Remove the folder {folder.path}" in str(caught.value)


def found_in(folder, search="", n_trials=10):
    """What `load_trials` takes in, and how many are beyond."""
    found = []
    state = SimpleNamespace(search=search, add=lambda trial: found.append(trial.spec))
    return found, load_trials(state, folder, n_trials, Console())


def test_a_record_that_cannot_be_read_for_now_is_not_to_be_removed(folder, monkeypatch):
    def fails(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(trial_folder, "read_json", fails)
    with pytest.raises(UnreadableRecordError, match="cannot be read .*Remove nothing") as error:
        folder.spec()
    assert "Remove the folder" not in str(error.value)


def test_a_folder_whose_only_file_cannot_be_read_is_named(folder, monkeypatch):
    (folder.path / "owner.json").unlink()

    def fails(path):
        raise OSError(5, "Input/output error")  # reading a file that is open names none

    monkeypatch.setattr(Path, "read_bytes", fails)
    with pytest.raises(OSError, match="Input/output") as error:
        has_begun(folder.path)
    assert error.value.filename == str(folder.path / "trial.json")


@pytest.mark.parametrize(
    "leave",
    [
        lambda beside: None,
        lambda beside: (beside / ".trial.abc.tmp.json").write_text("{"),
        lambda beside: (beside / "trial.json").touch(),
        lambda beside: (beside / "trial.json").write_bytes(bytes(300)),
    ],
)
def test_a_trial_that_a_power_cut_left_unwritten_has_not_begun(folder, leave):
    beside = folder.path.with_name("trial-004")
    beside.mkdir()
    leave(beside)
    assert found_in(folder.path.parent) == ([SPEC], 0)


def test_a_trial_that_had_begun_and_has_lost_its_parameters_is_named(folder):
    beside = folder.path.with_name("trial-004")
    beside.mkdir()
    (beside / "owner.json").touch()
    for fault, write in (("missing", None), ("was cut short", b""), ("was cut short", bytes(300))):
        if write is not None:
            (beside / "trial.json").write_bytes(write)
        with pytest.raises(
            BrokenRecordError, match=rf"trial-004/trial\.json .*{fault}.*Remove the"
        ):
            found_in(folder.path.parent)


def test_trials_beyond_the_number_are_counted_and_files_beside_them_are_nothing(folder):
    folder.path.with_name("trial-000.zip").touch()
    assert found_in(folder.path.parent, n_trials=3) == ([], 1)


@pytest.mark.parametrize("name", ["trial-001", "trial-003 (copy)"])
def test_a_folder_that_was_renamed_or_copied_is_refused_by_name(folder, name):
    shutil.copytree(folder.path, folder.path.with_name(name))
    with pytest.raises(BrokenRecordError, match=f"{re.escape(name)} holds trial-003.*its name"):
        found_in(folder.path.parent)


def test_a_trial_of_another_search_is_refused_by_name(folder):
    with pytest.raises(BrokenRecordError, match="trial-003 is of another search.*Move it"):
        found_in(folder.path.parent, search="this one")
    folder.begin(dataclasses.replace(SPEC, search="this one"))
    assert len(found_in(folder.path.parent, search="this one")[0]) == 1


def test_checkpoints_that_were_halfway_removed_do_not_matter_once_there_is_a_decoder(folder):
    saved(folder, 2)
    copy = shutil.copytree(folder.path / "checkpoint-0002", folder.path.parent / "copy")
    folder.end(ENDED)
    copy.rename(folder.path / "checkpoint-0002")
    (folder.path / "checkpoint-0002" / "model.json").unlink()
    (folder.path / "checkpoint-0001.broken").mkdir()
    folder.tidy()
    assert names(folder) == ["decoder", "ended.json", "owner.json", "trial.json"]


def test_checkpoints_are_removed_when_the_decoder_is_on_the_disk(folder, monkeypatch):
    """A power cut takes what is not synced; the checkpoints hold the decoder until then."""
    saved(folder, 2)
    steps = []
    rmtree, sync = shutil.rmtree, files.sync
    monkeypatch.setattr(files, "sync", lambda path: steps.append(path) or sync(path))
    monkeypatch.setattr(
        trial_folder.shutil, "rmtree", lambda path, **how: steps.append(path) or rmtree(path, **how)
    )
    folder.end(ENDED)
    removed = steps.index(folder.path / "checkpoint-0001")
    assert folder.path in steps[:removed]
    written = {path.name for path in steps[:removed] if ".decoder." in str(path.parent)}
    assert written == {"encoder.safetensors", "model.json"}


def test_files_whose_hash_is_known_are_not_read_again(folder, monkeypatch):
    read = []
    monkeypatch.setattr(
        trial_folder, "file_sha256", lambda path: read.append(path.name) or file_sha256(path)
    )
    newest = saved(folder, 1)
    assert sorted(read) == ["encoder.safetensors", "reports.json", "training.json"]
    found = json.loads((newest / "checkpoint.json").read_text())["sha256"]
    assert found == {
        p.name: file_sha256(p) for p in newest.iterdir() if p.name != "checkpoint.json"
    }


def test_the_hashes_that_a_training_gives_are_those_of_its_files(tmp_path):
    hashes = save_training(build("dense"), tmp_path) | save_decoder(build("dense"), tmp_path, {})
    assert sorted(hashes) == sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert all(file_sha256(tmp_path / name) == sha256 for name, sha256 in hashes.items())


def test_a_checkpoint_that_was_cut_off_while_written_is_not_seen(folder, monkeypatch):
    saved(folder, 1)

    def full(target):
        fill(target)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        folder.save(2, reports(2), full)
    assert folder.newest_checkpoint() == (folder.path / "checkpoint-0001", [])
    shutil.copytree(folder.path / "checkpoint-0001", folder.path / ".checkpoint-0002.x.tmp")
    assert folder.newest_checkpoint() == (folder.path / "checkpoint-0001", [])
    assert json.loads((folder.path / "trial.json").read_text())["number"] == 3
