"""One bit of a record is flipped: it is named with its remedy, or nothing changes."""

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from data_io.files import BrokenSealError, digest, read_json, write_json
from models.mdgan.checkpoints import load_decoder, save_decoder, save_training
from study.base.console import Console
from study.base.paths import RunPaths
from study.config.reader import load_config
from study.search.pictures import BEGUN, read_begun
from study.search.search_folder import prepare_folder, search_parts
from study.search.tables import keep_best
from study.search.trial_check import check_search
from study.search.trial_folder import (
    BY_BIRD_AGE,
    SEARCH,
    BrokenRecordError,
    TrialFolder,
    TrialSpec,
    UnreadableRecordError,
    read_reports,
)
from study.tracking.picture import RunIdentity
from study.tracking.sent import Sent, SentRun
from tests.helpers.tiny_mdgan import build

PARTS = {"seed": 1}  # of the search
SPEC = TrialSpec("trial-000", 0, 7, {"lr": 0.001, "latent_dim": 8}, {"n": 1}, digest(PARTS))
STAMP = {"git_commit": "abc", "study_run_id": "run", "began_at": 5.0}
REPORTS = [{"report": 1, "objective": 0.125, "reason": "", "valid/recon_l1": 1e-3}]
ENDED = {
    "reports": REPORTS, "reason": "", "may_go_on": False, "ended_at": 1.0, "node": "a",
    "n_retries": 0, "mlflow_run_id": None, "begun": STAMP,
}  # fmt: skip
ROWS = [{"bird": "b1", "age": "45", "recon_l1": 0.25, "frechet_song": None}]


def flipped(path, every=1):
    """Leave the file with one bit flipped, once for each byte, or every n-th; put it back."""
    whole = path.read_bytes()
    for i in range(0, len(whole), every):
        content = bytearray(whole)
        content[i] ^= 1 << (i % 8)
        path.write_bytes(bytes(content))
        yield
    path.write_bytes(whole)


def fill(folder):
    write_json(folder / BY_BIRD_AGE, {"report": 1, "rows": ROWS})
    return save_training(build(), folder) | save_decoder(build(), folder, {})


@pytest.fixture
def trial(tmp_path):
    folder = TrialFolder(tmp_path / "search" / "trial-000")
    folder.begin(SPEC)
    folder.own()
    write_json(folder.path / BEGUN, STAMP)
    folder.save(1, REPORTS, fill)
    return folder


@pytest.fixture
def ended(trial):
    trial.end(ENDED)
    return trial


@pytest.mark.parametrize(
    ("name", "read", "value"),
    [
        ("trial.json", TrialFolder.spec, SPEC),
        ("ended.json", TrialFolder.ended, ENDED),
        (f"decoder/{BY_BIRD_AGE}", TrialFolder.by_bird_age, [{"report": 1, **ROWS[0]}]),
    ],
)
def test_a_record_of_a_trial_is_named_with_the_folder_to_remove(ended, name, read, value):
    path = ended.path / name
    n_named = 0
    for _ in flipped(path):
        try:
            assert read(ended) == value
        except BrokenRecordError as error:
            assert str(path) in str(error)
            assert f"Remove the folder {ended.path}: the same command" in str(error)
            n_named += 1
    assert n_named > 0.9 * path.stat().st_size
    assert read(ended) == value


def test_the_decoder_of_a_trial_is_named_whatever_file_of_it_is_altered(ended):
    for name in ("model.json", "encoder.safetensors", "generator.safetensors"):
        path = ended.decoder / name
        n_named = 0
        for _ in flipped(path, every=101):
            try:
                load_decoder(ended.decoder)
            except ValueError as error:
                assert str(path) in str(error)
                assert "delete the folder and train again" in str(error)
                n_named += 1
        assert n_named > 0.9 * path.stat().st_size / 101
    load_decoder(ended.decoder)


def test_an_altered_decoder_does_not_become_the_best(ended, tmp_path):
    paths, selection = RunPaths(tmp_path), SimpleNamespace(sentence="It is the only one.")
    row = {"trial_id": "trial-000", "seed": 7, "valid/recon_l1": 0.5}
    path = ended.decoder / "generator.safetensors"
    for _ in flipped(path, every=1 + path.stat().st_size // 5):
        with pytest.raises(BrokenRecordError) as caught:
            keep_best(row, selection, paths)
        assert str(path) in str(caught.value)
        assert f"Remove the folder {ended.path}: the same command" in str(caught.value)
        assert ".)." not in str(caught.value)
        assert not paths.best.exists()
    keep_best(row, selection, paths)
    facts = load_decoder(paths.best)[2]
    assert (facts["trial_id"], facts["metrics"]) == ("trial-000", {"valid/recon_l1": 0.5})


def test_a_trial_that_ended_knows_its_beginning_though_begun_json_is_altered_or_missing(ended):
    for _ in flipped(ended.path / BEGUN):
        assert read_begun(ended) == STAMP
    (ended.path / BEGUN).write_text("{", "utf-8")
    (altered,) = [one for one in check_search(ended.path.parent) if one.fault]
    assert altered.path == ended.path / BEGUN
    assert altered.remedy.startswith("Delete it: ended.json beside it says the same")
    altered.path.unlink()
    assert read_begun(ended) == STAMP


def test_a_trial_that_goes_on_begins_again_where_begun_json_is_altered(trial):
    for _ in flipped(trial.path / BEGUN):
        assert read_begun(trial) in (STAMP, None)


def test_a_process_writes_no_checkpoint_where_owner_json_is_altered(trial):
    path = trial.path / "owner.json"
    for _ in flipped(path):
        try:
            trial.save(2, REPORTS, lambda folder: {})
        except BrokenSealError as error:
            assert str(path) in str(error)
            assert not (trial.path / "checkpoint-0002").exists()
        else:
            shutil.rmtree(trial.path / "checkpoint-0002")


@pytest.mark.parametrize("name", ["checkpoint.json", "reports.json", "training.json", BY_BIRD_AGE])
def test_a_checkpoint_is_set_aside_by_name(trial, name):
    checkpoint = trial.path / "checkpoint-0001"
    n_named = 0
    every = 1 + (checkpoint / name).stat().st_size // 500
    for _ in flipped(checkpoint / name, every):
        found, lines = trial.newest_checkpoint()
        if found is not None:
            assert read_reports(found) == REPORTS
        else:
            assert f"checkpoint-0001 is broken ({name} " in lines[0]
            checkpoint.with_name("checkpoint-0001.broken").rename(checkpoint)
            n_named += 1
    assert n_named > 0.9 * (checkpoint / name).stat().st_size / every


def test_search_json_that_is_altered_or_missing_sets_no_search_aside(tmp_path, capsys):
    config, paths = load_config("smoke", None, []), RunPaths(tmp_path)
    key = prepare_folder(config, "data", paths, Console())
    TrialFolder(paths.search / "trial-000").begin(TrialSpec("trial-000", 0, 7, {}, {}, key))
    path = paths.search / SEARCH
    whole = path.read_bytes()
    for _ in flipped(path, every=7):
        altered = path.read_bytes()
        assert prepare_folder(config, "data", paths, Console()) == key
        said = capsys.readouterr().out
        assert ": the trials are of" in said or not said
        assert path.read_bytes() == (whole if said else altered)
    path.unlink()
    assert prepare_folder(config, "data", paths, Console()) == key
    assert "search.json was missing" in capsys.readouterr().out
    assert path.read_bytes() == whole
    assert not list(tmp_path.glob("search-before-*"))


def unreadable(monkeypatch, place):
    """Let one file fail as on a disk that is away; reading it names no file."""
    opened = Path.open

    def fails(path, *words, **named):
        if path == place:
            raise OSError(5, "Input/output error")
        return opened(path, *words, **named)

    monkeypatch.setattr(Path, "open", fails)


def test_no_search_is_set_aside_while_a_trial_cannot_be_read(tmp_path, monkeypatch):
    paths = RunPaths(tmp_path)
    key = prepare_folder(other(1), "data", paths, Console())
    trial = TrialFolder(paths.search / "trial-000")
    trial.begin(TrialSpec("trial-000", 0, 7, {}, {}, key))
    trial.own()
    (paths.search / SEARCH).unlink()
    with monkeypatch.context() as patch:
        unreadable(patch, trial.path / "trial.json")
        with pytest.raises(UnreadableRecordError, match="trial.json cannot .* Remove nothing"):
            prepare_folder(other(1), "data", paths, Console())
    assert not (paths.search / SEARCH).exists() and not paths.searches_before
    assert prepare_folder(other(1), "data", paths, Console()) == key
    assert trial.spec().search == key


@pytest.mark.parametrize("copied", ["trial-000", "trial-001"])
def test_where_search_json_is_lost_trials_of_two_searches_are_refused(tmp_path, copied):
    paths = RunPaths(tmp_path)
    key = prepare_folder(other(1), "data", paths, Console())
    for i in range(3):
        name = f"trial-{i:03d}"
        search = key if name == copied else "another"
        TrialFolder(paths.search / name).begin(TrialSpec(name, i, 7, {}, {}, search))
    (paths.search / SEARCH).write_text("{")
    with pytest.raises(BrokenRecordError, match="2 of 3 trials .*Move those to another") as error:
        prepare_folder(other(1), "data", paths, Console())
    for path in sorted(paths.search.glob("trial-*")):
        assert (str(path) in str(error.value)) == (path.name != copied)
        if path.name != copied:
            path.replace(tmp_path / path.name)
    assert prepare_folder(other(1), "data", paths, Console()) == key
    assert (paths.search / copied).is_dir() and not paths.searches_before


def test_searches_set_aside_are_looked_at_only_where_one_is_needed(tmp_path, monkeypatch):
    paths = RunPaths(tmp_path)
    key = prepare_folder(other(1), "data", paths, Console())
    TrialFolder(paths.search / "trial-000").begin(TrialSpec("trial-000", 0, 7, {}, {}, key))
    (paths.search / SEARCH).unlink()
    write_json(tmp_path / "search-before-1" / SEARCH, {"seed": 1})
    unreadable(monkeypatch, tmp_path / "search-before-1" / SEARCH)
    assert prepare_folder(other(1), "data", paths, Console()) == key
    with pytest.raises(OSError, match="Input/output") as error:
        prepare_folder(other(2), "data", paths, Console())
    assert error.value.filename == str(tmp_path / "search-before-1" / SEARCH)
    assert (paths.search / "trial-000").is_dir()


def test_a_file_with_the_name_of_a_search_set_aside_is_none(tmp_path):
    paths = RunPaths(tmp_path)
    (tmp_path / "search-before-1").write_text("notes")
    key = prepare_folder(other(1), "data", paths, Console())
    TrialFolder(paths.search / "trial-000").begin(TrialSpec("trial-000", 0, 7, {}, {}, key))
    prepare_folder(other(2), "data", paths, Console())
    assert (tmp_path / "search-before-2" / "trial-000").is_dir()
    assert (tmp_path / "search-before-1").read_text() == "notes"


@pytest.mark.parametrize("name", ["begun.json", "ended.json"])
def test_a_trial_does_not_begin_again_while_its_beginning_cannot_be_read(ended, monkeypatch, name):
    (ended.path / BEGUN).write_text("{") if name != BEGUN else None
    unreadable(monkeypatch, ended.path / name)
    with pytest.raises((OSError, UnreadableRecordError), match=f"{name}.*"):
        read_begun(ended)


def test_a_decoder_that_cannot_be_read_for_now_is_not_to_be_removed(ended, tmp_path, monkeypatch):
    row = {"trial_id": "trial-000", "seed": 7}
    unreadable(monkeypatch, ended.decoder / "model.json")
    with pytest.raises(UnreadableRecordError, match="cannot be read .* Remove nothing"):
        keep_best(row, SimpleNamespace(sentence="It is the only one."), RunPaths(tmp_path))


def test_a_checkpoint_without_hashes_is_set_aside(trial):
    write_json(trial.path / "checkpoint-0001" / "checkpoint.json", {"report": 1})
    found, lines = trial.newest_checkpoint()
    assert found is None
    assert "checkpoint-0001 is broken (checkpoint.json was altered)" in lines[0]


@pytest.mark.parametrize("of", ["other", None])
def test_where_search_json_is_lost_trials_that_are_not_of_this_search_are_set_aside(
    tmp_path, capsys, of
):
    config, paths = load_config("smoke", None, []), RunPaths(tmp_path)
    path = paths.search / "trial-000" / "trial.json"
    TrialFolder(path.parent).begin(TrialSpec("trial-000", 0, 7, {}, {}, of or ""))
    if of is None:
        path.write_text('{"name": "trial-000"}')  # as an earlier version wrote it
    key = prepare_folder(config, "data", paths, Console())
    said = capsys.readouterr().out
    assert "another one (search.json was missing); the old one is now search-before-1/" in said
    assert (tmp_path / "search-before-1" / "trial-000" / "trial.json").exists()
    assert read_json(paths.search / SEARCH) == search_parts(config, "data")
    assert key == digest(search_parts(config, "data"))


def other(seed):
    return load_config("smoke", None, [f"seed={seed}"])


@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_a_search_set_aside_is_taken_back_though_its_search_json_is_lost(tmp_path, damage, capsys):
    paths = RunPaths(tmp_path)
    key = prepare_folder(other(1), "data", paths, Console())
    TrialFolder(paths.search / "trial-000").begin(TrialSpec("trial-000", 0, 7, {}, {}, key))
    prepare_folder(other(2), "data", paths, Console())
    lost = tmp_path / "search-before-1" / SEARCH
    lost.write_text("{") if damage == "altered" else lost.unlink()
    assert prepare_folder(other(1), "data", paths, Console()) == key
    assert "search-before-1/ is of this search: it is search/ again" in capsys.readouterr().out
    assert (paths.search / "trial-000" / "trial.json").is_file()
    assert read_json(paths.search / SEARCH) == search_parts(other(1), "data")


def test_searches_set_aside_are_looked_through_by_their_numbers(tmp_path):
    paths = RunPaths(tmp_path)
    names = [f"search-before-{n}" for n in (1, 2, 10, 11)]
    for name in [*reversed(names), "search-before-my-own"]:
        write_json(tmp_path / name / SEARCH, search_parts(other(1), "data"))
    assert [path.name for path in paths.searches_before] == names
    for name in names:
        prepare_folder(other(1), "data", paths, Console())
        assert not (tmp_path / name).exists(), name
        shutil.rmtree(paths.search)


def test_the_folder_of_a_study_is_known_to_mlflow_though_one_file_is_altered(tmp_path):
    folder, key = tmp_path / "sent", RunIdentity("trial", "trial-000").key()
    sent = Sent(folder, "uri", "study")
    sent.begin_study("run", "same")
    sent.studies["run"].runs[key] = SentRun("id", "RUNNING", 3)
    sent.write()
    before = sent.studies
    for path in folder.iterdir():
        n_noticed = 0
        for _ in flipped(path):
            again = Sent(folder, "uri", "study")
            assert again.folder_id == sent.folder_id
            assert list(again.altered) in ([], [path])
            is_empty = list(again.altered) == [sent.path]
            assert again.studies == ({} if is_empty else before)
            n_noticed += bool(again.altered)
        assert n_noticed > 0.9 * path.stat().st_size


REMEDIES = {
    "trial.json": "Remove the folder {trial}", "ended.json": "Remove the folder {trial}",
    "begun.json": "Delete it", "owner.json": "Delete it", SEARCH: "Delete it",
    "decoder": "Remove the folder {trial}", "checkpoint-0001": "sets this checkpoint aside",
}  # fmt: skip


def test_every_file_of_a_search_is_checked_and_an_altered_or_missing_one_named(ended, tmp_path):
    paths = RunPaths(tmp_path)
    write_json(paths.search / SEARCH, PARTS)
    repeat = TrialFolder(paths.repeats_folder / "trial-000-seed8")
    repeat.begin(SPEC)
    repeat.own()
    repeat.save(1, REPORTS, fill)
    (paths.search / "trial-001").mkdir()  # has not begun
    files = {path for path in paths.search.rglob("*") if path.is_file()}
    assert {one.path for one in check_search(paths.search)} == files
    assert not any(one.fault for one in check_search(paths.search))
    may_be_missing = {"ended.json", "begun.json", "owner.json", "search.json"}
    for path in files:
        whole = path.read_bytes()
        altered = bytearray(whole)
        altered[len(whole) // 2] ^= 1
        for content in (bytes(altered), b"", None):
            path.unlink() if content is None else path.write_bytes(content)
            named = [one for one in check_search(paths.search) if one.fault]
            path.write_bytes(whole)
            if content is None and path.name in may_be_missing:
                assert not named
                continue
            assert [one.path for one in named] == [path]
            key = path.name if path.name in REMEDIES else path.parent.name
            trial = path.parent if path.name in REMEDIES else path.parent.parent
            assert REMEDIES[key].format(trial=trial) in named[0].remedy


def test_a_trial_of_another_search_is_named_and_is_to_be_moved_away(ended, tmp_path):
    search = RunPaths(tmp_path).search
    write_json(search / SEARCH, PARTS)
    other = TrialFolder(search / "trial-001")
    other.begin(dataclasses.replace(SPEC, name="trial-001", search="another"))
    other.own()

    def named(key):
        found = [one for one in check_search(search, key) if one.fault]
        assert all(one.fault == "is of another search than the study's" for one in found)
        assert all(
            f"Move the folder {one.path.parent} " in one.remedy
            for one in found if one.path.name != SEARCH
        )  # fmt: skip
        return [one.path for one in found]

    assert named("") == named(digest(PARTS)) == [other.path / "trial.json"]
    # All of search/ is of another study: the record of the stage knows.
    assert named("another") == [search / SEARCH, ended.path / "trial.json"]
    (search / SEARCH).unlink()
    assert named("") == []


def test_a_search_behind_a_link_gives_way_to_the_one_that_was_set_aside(tmp_path):
    config, paths = load_config("smoke", None, []), RunPaths(tmp_path / "run")
    aside = paths.root / "search-before-1"
    write_json(aside / SEARCH, search_parts(config, "data"))
    (tmp_path / "big").mkdir()
    paths.search.symlink_to(tmp_path / "big")
    prepare_folder(config, "data", paths, Console())
    assert paths.search.is_dir() and not paths.search.is_symlink() and not aside.exists()


def test_a_search_that_cannot_be_listed_or_is_away_is_not_an_empty_one(tmp_path, monkeypatch):
    config, paths = load_config("smoke", None, []), RunPaths(tmp_path)
    paths.search.symlink_to("away")
    with pytest.raises(OSError, match="a link to .*away, which is not there"):
        prepare_folder(config, "data", paths, Console())
    paths.search.unlink()
    paths.search.mkdir()

    def fails(path):
        raise OSError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", fails)
    with pytest.raises(OSError, match="Permission denied"):
        prepare_folder(config, "data", paths, Console())
