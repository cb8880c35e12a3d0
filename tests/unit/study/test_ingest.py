"""What the stage that reads recordings tells a person of the split."""

import datetime

from data_io.recordings.split import assign_split
from data_io.recordings.table import Recording, Recordings
from study.ingest import remarks_on_split

MORNING = datetime.datetime(2018, 9, 19, 6, 30)


def songs(age, n_bouts, n_files=4):
    """Files of 4 s, 8 s apart, in bouts half an hour apart."""
    return [
        Recording(
            "G17", age, int(age), None, f"G17/{age}/{bout}_{i}.wav",
            MORNING + datetime.timedelta(seconds=1800 * bout + 8 * i),
            sha256=f"{age} {bout} {i}", seconds=4.0,
        )
        for bout in range(n_bouts) for i in range(n_files)
    ]  # fmt: skip


def remarks(*rows):
    return remarks_on_split(assign_split(Recordings.from_rows(sum(rows, [])), 0.2, 0.2, 0))


def test_nothing_is_said_where_bouts_are_whole():
    assert remarks(songs("45", 20), songs("60", 30)) == []


def test_a_missing_side_is_said_with_the_number_of_birds_and_ages():
    said = remarks(songs("45", 20), songs("60", 1, 1), songs("75", 2, 1))
    assert [one.split(":")[0] for one in said] == [
        "1 of 3 birds and ages have nothing on the selection side",
        "2 of 3 birds and ages have nothing on the report side",
    ]
    assert all("the first: G17 at 60" in one for one in said)


def test_bouts_that_are_cut_are_said():
    (said,) = remarks(songs("45", 20), songs("60", 3))
    assert said.startswith("1 of 2 birds and ages have neighbouring recordings on two sides")
    assert "the first: G17 at 60" in said
