"""Errors that end a command: a sentence that names the file, and an exit code."""

import errno
import os
from pathlib import Path

import pytest

from data_io.files import BrokenSealError, read_json
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
