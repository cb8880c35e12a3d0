"""What is on disk of a trial, whole, killed in between, or damaged."""

import json
import shutil
from types import SimpleNamespace

import pytest

from models.mdgan.checkpoints import save_decoder, save_training
from models.mdgan.tensor_files import file_sha256
from study.base.console import Console
from study.search import trial_folder
from study.search.search import load_trials
from study.search.trial_folder import (
    BrokenRecordError,
    NotOwnerError,
    TrialFolder,
    TrialSpec,
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
        (lambda c: (c / "training.safetensors").write_bytes(b"cut"), "training.safetensors is not"),
        (lambda c: (c / "reports.json").write_text("[]"), "reports.json is not as it was written"),
        (lambda c: (c / "model.json").unlink(), "model.json is missing"),
        (lambda c: (c / "checkpoint.json").write_text('{"repo'), "JSONDecodeError"),
        (lambda c: (c / "checkpoint.json").write_text("{}"), "KeyError"),
        (lambda c: (c / "checkpoint.json").unlink(), "checkpoint.json is missing"),
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

    monkeypatch.setattr(trial_folder, "file_sha256", fails)
    with pytest.raises(OSError, match="Input/output"):
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


def test_a_trial_whose_command_was_ended_before_it_was_written_has_not_begun(folder):
    beside = folder.path.with_name("trial-004")
    beside.mkdir()
    (beside / ".trial.json.x.tmp").touch()
    found = []
    state = SimpleNamespace(add=lambda trial: found.append(trial.spec))
    assert load_trials(state, folder.path.parent, 10, Console()) == 0
    assert found == [SPEC]
    (beside / "owner.json").touch()  # this one had begun: its parameters are lost
    with pytest.raises(BrokenRecordError, match=r"trial-004/trial.json cannot be read"):
        load_trials(state, folder.path.parent, 10, Console())


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
