"""The report is written again where a recording that it names has changed."""

from dataclasses import replace
from types import SimpleNamespace

from data_io.recordings.table import Recording, Recordings
from study.report.page import MAX_PROBLEMS, REPORT

GOOD = Recording("b1", "45", 45, None, "b1/45/a.wav", sha256="1", seconds=2.0, sound_s=1.0)
BAD = replace(GOOD, path="b1/45/b.wav", sha256="").skipped("the file is empty (0 bytes)")


def needs(*rows):
    study = SimpleNamespace(
        depends_on=lambda *stages, **parts: parts,
        recordings=Recordings.from_rows(rows),
        config=SimpleNamespace(sha256="0"),
    )
    return REPORT.needs(study)


def test_a_skipped_file_that_comes_goes_or_has_another_reason_is_told():
    before = needs(GOOD, BAD)
    assert before != needs(GOOD)
    assert before != needs(GOOD, BAD.skipped("silent: every sample is 0"))
    assert before != needs(GOOD, replace(BAD, path="b1/45/c.wav"))


def test_what_the_page_does_not_show_writes_it_not_again():
    before = needs(GOOD, BAD)
    assert before == needs(replace(GOOD, mtime_ns=5), replace(BAD, mtime_ns=6))


def test_of_many_skipped_files_the_page_says_how_many():
    many = [BAD] * (MAX_PROBLEMS + 1)
    assert needs(GOOD, *many) != needs(GOOD, *many, BAD)
