"""What the stage that reads recordings tells a person of the split."""

import datetime
from io import StringIO

import soundfile

from data_io.names.listing import survey
from data_io.recordings.split import assign_split
from data_io.recordings.table import Recording, Recordings
from study import ingest
from study.base.console import Console
from study.base.paths import RunPaths
from study.config.tree import DataConfig, StudyConfig
from study.ingest import remarks_on_split
from study.read_before import ReadBefore
from tests.helpers.finch_songs import RATE, song
from tests.helpers.tasks import InTurn

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


class CutOff:
    """The task that reads a bird and age, in this process; cut off behind so many."""

    def __init__(self, n_before):
        self.n_before = n_before
        self.read = []

    def remote(self, root, listed, params, folder, before):
        if len(self.read) == self.n_before:
            raise KeyboardInterrupt
        recordings = ingest.read_bird_age(root, listed, params, folder, before)
        self.read += listed.birds_and_ages()
        return recordings


def content(paths):
    files = [paths.recordings, *sorted(paths.spectrograms.rglob("*.parquet"))]
    return {path.relative_to(paths.root): path.read_bytes() for path in files}


def test_a_reading_that_was_cut_off_goes_on_behind_what_was_read(tmp_path, monkeypatch):
    data = tmp_path / "data"
    for age, numbers in (("45", (0, 1, 2)), ("60", (3, 4, 5)), ("75", (6, 7, 8))):
        (data / "b1" / age).mkdir(parents=True)
        for i in numbers:
            soundfile.write(data / "b1" / age / f"{i}.wav", song(i, 1.5), RATE)

    def read(out, n_before=9):
        task = CutOff(n_before)
        monkeypatch.setattr(ingest, "_ingest_bird_age", task)
        paths = RunPaths(tmp_path / out)
        config = StudyConfig(data=DataConfig(dir=str(data)))
        try:
            ingest.ingest(config, survey(data), paths, InTurn(), Console(StringIO()))
        except KeyboardInterrupt:
            assert not paths.recordings.exists()
        return task.read, paths

    assert read("out", 1)[0] == [("b1", "45")]
    soundfile.write(data / "b1" / "60" / "3.wav", song(9, 1.5), RATE)
    assert read("out", 1)[0] == [("b1", "60")]
    soundfile.write(data / "b1" / "45" / "0.wav", song(10, 1.6), RATE)  # it was read, and is other
    again, paths = read("out")
    assert again == [("b1", "45"), ("b1", "75")]
    assert not list(paths.root.glob(".reading/*"))
    whole, others = read("whole")
    assert len(whole) == 3
    assert content(paths) == content(others)


def test_what_was_cut_off_and_altered_is_read_anew(tmp_path, monkeypatch):
    paths = RunPaths(tmp_path)
    rows = paths.reading / "0123" / "recordings" / "bird=b1" / "age=45" / "part-0.parquet"
    rows.parent.mkdir(parents=True)
    rows.write_bytes(b"PAR1")
    before = ReadBefore(paths, tmp_path / "out", StudyConfig().reading)
    assert not rows.exists()  # of other settings
    rows = before._rows / "bird=b1" / "age=45" / "part-0.parquet"
    rows.parent.mkdir(parents=True)
    rows.write_bytes(b"PAR1")
    before = ReadBefore(paths, tmp_path / "out", StudyConfig().reading)
    assert before.take_over(("b1", "45"), Recordings.from_rows([])) is None
