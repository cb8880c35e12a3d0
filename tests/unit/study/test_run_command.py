"""Errors that end a command: a sentence that names the file, and an exit code."""

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
