"""Errors that end a command: a sentence that names the file, and an exit code."""

import errno
import os
from pathlib import Path

import pytest

from data_io.files import BrokenSealError, found, make_folder, read_json, write_json
from data_io.names.listing import NoRecordingsError
from data_io.store import BrokenFileError
from study.base.command import run_command
from study.base.errors import FAILED, REFUSED


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BrokenSealError("a.json was altered."), FAILED),
        (BrokenFileError("a.parquet cannot be read."), FAILED),
        (NoRecordingsError("There is no recording."), REFUSED),
    ],
)
def test_a_file_that_cannot_be_used_fails_and_what_cannot_begin_is_refused(capsys, error, code):
    def work(console):
        raise error

    assert run_command(work) == code
    assert capsys.readouterr().err == f"error: {error}\n"


def test_an_altered_record_ends_the_command_by_its_name_and_its_remedy(tmp_path, capsys):
    path = tmp_path / "selection.json"
    path.write_text('{"chosen": "trial-001", "seal": "0"}')
    assert run_command(lambda console: read_json(path)) == FAILED
    said = capsys.readouterr().err
    assert f"error: {path} was altered" in said
    assert "Delete it and run the study's command again" in said


def fails_by(number, *named):
    def work(console):
        raise OSError(number, os.strerror(number), *named)

    return work


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EROFS])
def test_a_file_that_the_disk_does_not_give_is_named_and_nothing_is_to_be_removed(capsys, number):
    assert run_command(fails_by(number, "runs/a.json")) == FAILED
    assert capsys.readouterr().err == (
        f"error: runs/a.json cannot be used ({os.strerror(number)}). Remove nothing: see to the "
        "disk, then give the same command again.\n"
    )


def test_a_record_that_cannot_be_read_once_it_is_open_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: fails_by(errno.EIO)(None))
    assert run_command(lambda console: read_json(tmp_path / "a.json")) == FAILED
    assert f"error: {tmp_path / 'a.json'} cannot be used (Input" in capsys.readouterr().err


def test_a_full_disk_keeps_its_own_remedy(capsys):
    assert run_command(fails_by(errno.ENOSPC, "runs/a.json")) == FAILED
    said = capsys.readouterr().err
    assert "runs/a.json" in said and "Make room on the disk" in said


@pytest.mark.parametrize(("number", "named"), [(errno.ENOENT, ["a.json"]), (errno.EIO, [])])
def test_a_file_that_we_should_have_looked_for_and_one_without_a_name_keep_their_trace(
    number, named
):
    with pytest.raises(OSError, match="No such file|Input/output"):
        run_command(fails_by(number, *named))


def made_folder(path):
    make_folder(path / "b1")


def made_file(path):
    write_json(path, {})


@pytest.mark.parametrize(
    ("there", "work", "what"),
    [
        ("run/report.html/", made_file, "folder where a file should be"),
        ("run/.lock/", lambda path: path.open("a+"), "folder where a file should be"),
        ("run/.lock/", read_json, "folder where a file should be"),
        ("run/latents", made_folder, "file where a folder should be"),
        ("run/.stages", lambda path: read_json(path / "hmm.json"), "file where a folder should be"),
        ("run/.stages", lambda path: made_file(path / "hmm.json"), "file where a folder should be"),
        ("run/search", found, "file where a folder should be"),
    ],
)
def test_a_folder_where_a_file_should_be_and_the_reverse_are_to_be_moved_away(
    tmp_path, capsys, there, work, what
):
    path = tmp_path / there
    make_folder(path if there.endswith("/") else path.parent)
    if not path.is_dir():
        path.write_text("mine")
    assert run_command(lambda console: work(path)) == FAILED
    assert capsys.readouterr().err == (
        f"error: {path} is a {what}: move it away, then give the same command again.\n"
    )


@pytest.mark.parametrize("work", [found, made_folder, lambda path: made_file(path / "a.json")])
def test_a_link_to_what_is_away_is_no_fault_of_ours(tmp_path, capsys, work):
    path = tmp_path / "search"
    path.symlink_to("away")
    assert run_command(lambda console: work(path)) == FAILED
    assert capsys.readouterr().err == (
        f"error: {path} cannot be used (a link to {tmp_path / 'away'}, which is not there). "
        "Remove nothing: see to the disk, then give the same command again.\n"
    )
