"""Which file holds the labels of which recording, and what is said of labels that are odd."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.io import savemat

from data_io.labels.files import Part, label_files
from data_io.labels.table import (
    Labels,
    find_labels,
    read_label_problems,
    read_labels,
    write_label_problems,
    write_labels,
)
from data_io.store import BrokenFileError

FOLDER = "b1/45/songs"
TRACK = "0.5\t0.6\ta\n1.0\t1.25\tb\n"
TABLE = "onset_s,offset_s,label\n0.5,0.6,a\n1.0,1.25,b\n"
RAVEN = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\t"
    "Annotation\n"
)


def whole(name: str, seconds: float = 10.0, folder: str = FOLDER) -> Part:
    return Part(f"{folder}/{name}", "", 0.0, seconds)


def put(root: Path, files: dict[str, str], folder: str = FOLDER) -> Path:
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = root / folder / name
        if name.lower().endswith(".not.mat"):
            times = {"onsets": [500.0, 1000.0], "offsets": [600.0, 1250.0]}
            savemat(path, {**times, "labels": content}, appendmat=False)
        else:
            path.write_text(content)
    return root


def rows(found: Labels) -> list[tuple[str, float, float, str]]:
    names = ("recording", "onset_s", "offset_s", "label")
    return [tuple(row[name] for name in names) for row in found.rows.to_pylist()]


def sources(found: Labels) -> set[tuple[str, str]]:
    """(recording, label file) of all rows, without folders."""
    return {(Path(row["recording"]).name, Path(row["source"]).name)
            for row in found.rows.to_pylist()}  # fmt: skip


def problems(found: Labels) -> dict[str, str]:
    return {Path(path).name: reason for path, reason in found.problems}


@pytest.mark.parametrize(
    ("sound", "label_file", "content"),
    [
        ("x.wav", "x.wav.not.mat", "ab"),
        ("x.wav", "x.not.mat", "ab"),
        ("x.wav", "x.cbin.not.mat", "ab"),  # the recording was converted
        ("x.cbin", "x.cbin.not.mat", "ab"),
        ("x.wav", "x.WAV.not.mat", "ab"),
        ("x.WAV", "x.txt", TRACK),
        ("x.wav", "x.wav.txt", TRACK),
        ("x.wav", "x.csv", TABLE),
        ("x.wav", "x.wav.csv", TABLE),
        ("x.wav", "x.CSV", TABLE),
        ("X.WAV", "X.TXT", TRACK),
        ("X.WAV", "X.WAV.NOT.MAT", "ab"),
        ("x.wav", "x_annotations.csv", TABLE),
        ("x.flac", "x.Table.1.selections.txt", RAVEN + "1\tS\t1\t0.5\t0.6\t1\t2\ta\n"
                                                       "2\tS\t1\t1\t1.25\t1\t2\tb\n"),
        ("x.wav", "x.wav.selections.txt", TABLE),
        ("b_190412_0725.20155.wav", "b_190412_0725.20155.wav.not.mat", "ab"),
        ("b_190412_0725.20155.wav", "b_190412_0725.20155.txt", TRACK),
        ("a b ä.wav", "a b ä.txt", TRACK),
        ("x.txt.wav", "x.txt.txt", TRACK),
    ],
)  # fmt: skip
def test_a_label_file_has_the_name_of_its_recording(
    tmp_path: Path, sound: str, label_file: str, content: str
) -> None:
    other = whole("other.wav")
    found = find_labels(put(tmp_path, {label_file: content}), [other, whole(sound)])
    name = f"{FOLDER}/{sound}"
    assert rows(found) == [(name, 0.5, 0.6, "a"), (name, 1.0, 1.25, "b")]
    assert sources(found) == {(sound, label_file)}
    assert found.problems == []


def test_each_folder_and_recording_has_its_own_labels(tmp_path: Path) -> None:
    put(tmp_path, {"x.txt": "1\t2\tone\n", "y.txt": "3\t4\ttwo\n", "z.wav": ""})
    put(tmp_path, {"x.txt": "5\t6\tthree\n"}, "b2/60")
    put(tmp_path, {"x.txt": "7\t8\tfour\n"}, ".")
    recordings = [whole("x.wav"), whole("y.wav"), whole("z.wav"), whole("x.wav", folder="b2/60"),
                  Part("x.wav", "", 0.0, 10.0)]  # fmt: skip
    assert [(row[0], row[3]) for row in rows(find_labels(tmp_path, recordings))] == [
        (f"{FOLDER}/x.wav", "one"), (f"{FOLDER}/y.wav", "two"), ("b2/60/x.wav", "three"),
        ("x.wav", "four"),
    ]  # fmt: skip


NOT_LABELS = {"README.txt": "Start here.\n", "notes.csv": "date,weight\n2018-09-19,12\n",
              "x.txt": "He sang twice.\n", "x.wav.csv": "frame,pitch\n0,440\n", "._x.txt": TRACK,
              "empty.txt": "", "x.rec": "ADFREQ = 32000\n", "x.json": "{}", "x.mat": "",
              ".txt": TRACK, "x.txt~": TRACK}  # fmt: skip


def test_notes_and_other_files_are_left_alone(tmp_path: Path) -> None:
    put(tmp_path, NOT_LABELS)
    (tmp_path / FOLDER / "x.wav.txt").mkdir()
    found = find_labels(tmp_path, [whole("x.wav")])
    assert (rows(found), found.problems) == ([], [])


def test_a_second_label_file_of_a_recording_is_named_not_added(tmp_path: Path) -> None:
    files = {"x.wav.not.mat": "ab", "x.txt": TRACK, "x.csv": TABLE, "x.wav.txt": "A note.\n"}
    found = find_labels(put(tmp_path, files), [whole("x.wav")])
    assert sources(found) == {("x.wav", "x.wav.not.mat")}
    reason = f"is not used: {FOLDER}/x.wav.not.mat holds labels of its recording"
    assert problems(found) == {"x.txt": reason, "x.csv": reason}


def test_where_the_first_cannot_be_read_the_second_is_and_both_are_named(tmp_path: Path) -> None:
    put(tmp_path, {"x.txt": TRACK})
    (tmp_path / FOLDER / "x.not.mat").write_bytes(b"cut")
    found = find_labels(tmp_path, [whole("x.wav")])
    assert sources(found) == {("x.wav", "x.txt")}
    assert list(problems(found)) == ["x.not.mat"]


def test_label_files_of_no_recording_or_of_two_are_named(tmp_path: Path) -> None:
    files = {"gone.not.mat": "ab", "lost.txt": TRACK, "labels.csv": TABLE, "y.txt": TRACK,
             "y.flac.not.mat": "ab", "silent.wav.txt": TRACK, "silent.wav": "",
             "z.wav.txt": TRACK, "z.wav": ""}  # fmt: skip
    put(tmp_path, files)
    found = find_labels(tmp_path, [whole("y.wav"), whole("y.flac"), whole("z.flac")])
    assert sources(found) == {("y.flac", "y.flac.not.mat")}
    named = problems(found)
    assert set(named) == {
        "gone.not.mat",
        "lost.txt",
        "labels.csv",
        "y.txt",
        "silent.wav.txt",
        "z.wav.txt",
    }
    assert named["y.txt"] == "may belong to y.flac or y.wav: rename it, for instance to y.wav.txt"
    assert "no recording that is used has its name" in named["gone.not.mat"]
    for name, sound in (("silent.wav.txt", "silent.wav"), ("z.wav.txt", "z.wav")):
        assert named[name] == (
            f"holds labels of {sound}, which is not used: recordings.parquet says why"
        )


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    put(tmp_path, {"e.txt": "", "e.wav.csv": ""})
    folder = tmp_path / FOLDER
    os.mkfifo(folder / "pipe.txt")
    (folder / "far.not.mat").symlink_to("annex/missing")
    (folder / "loop.csv").symlink_to("loop.csv")
    (folder / "README.txt").symlink_to("missing")
    with (tmp_path / FOLDER / "l\udcff.not.mat").open("wb"):
        pass
    found = find_labels(tmp_path, [whole(f"{stem}.wav") for stem in ("e", "pipe", "far", "loop")])
    assert problems(found) == {
        "e.txt": "is empty",
        "e.wav.csv": "is empty",
        "pipe.txt": "cannot be read: not a regular file",
        "far.not.mat": "cannot be read: No such file or directory",
        "loop.csv": "cannot be read: Too many levels of symbolic links",
        "l\\udcff.not.mat": "cannot be read: the name is not valid UTF-8: rename the file",
    }
    gone = find_labels(tmp_path, [whole("x.wav", folder="b9/45")])
    assert gone.problems == [("b9/45", "the folder cannot be listed: No such file or directory")]


def test_a_link_to_a_label_file_is_read(tmp_path: Path) -> None:
    put(tmp_path, {"store.dat": TRACK})
    (tmp_path / FOLDER / "x.txt").symlink_to("store.dat")
    assert len(rows(find_labels(tmp_path, [whole("x.wav")]))) == 2


ODD = {
    "after the end": ("10.5\t10.7\tb", "ends after the recording (10.000 s)"),
    "over the end": ("9.5\t10.5\tb", "ends after the recording (10.000 s)"),
    "before the start": ("-0.5\t0.1\tb", "begins before the recording"),
    "backwards": ("0.7\t0.6\tb", "'b' from 0.700 to 0.600 s ends before it begins"),
    "a point": ("0.7\t0.7\tb", "is shorter than 1 ms"),
    "a sample": ("0.7\t0.70005\tb", "is shorter than 1 ms"),
    "hours": ("3600.1\t3600.2\tb", "1 of 2 labels left out: 'b' from 3600.100 to 3600.200 s"),
}


@pytest.mark.parametrize("kind", ODD)
def test_a_label_that_cannot_be_true_is_left_out_and_named(tmp_path: Path, kind: str) -> None:
    line, reason = ODD[kind]
    found = find_labels(put(tmp_path, {"x.txt": f"1\t2\ta\n{line}\n"}), [whole("x.wav")])
    assert rows(found) == [(f"{FOLDER}/x.wav", 1.0, 2.0, "a")]
    assert reason in problems(found)["x.txt"]
    assert "no label fits" not in problems(found)["x.txt"]


def test_times_in_another_unit_are_suspected(tmp_path: Path) -> None:
    put(tmp_path, {"x.csv": "onset_s,offset_s,label\n500,600,a\n1000,1250,b\n"})
    times = {"onsets": [0.5, 1.0], "offsets": [0.6, 1.25]}  # seconds in a file of ms
    savemat(tmp_path / FOLDER / "y.not.mat", {**times, "labels": "ab"}, appendmat=False)
    found = find_labels(tmp_path, [whole("x.wav"), whole("y.wav")])
    assert rows(found) == []
    assert "2 of 2 labels left out" in problems(found)["x.csv"]
    assert all("in another unit of time?" in reason for reason in problems(found).values())


def test_rounding_at_the_ends_is_cut_off_in_silence(tmp_path: Path) -> None:
    put(tmp_path, {"x.txt": "-0.004\t0.1\ta\n9.5\t10.006\tb\n"})
    found = find_labels(tmp_path, [whole("x.wav")])
    assert [row[1:] for row in rows(found)] == [(0.0, 0.1, "a"), (9.5, 10.0, "b")]
    assert found.problems == []


def test_labels_are_in_order_and_overlapping_ones_are_kept_and_named(tmp_path: Path) -> None:
    put(tmp_path, {"x.txt": "5\t6\td\n1\t4\ta\n2\t3\tb\n3.5\t4.5\tc\n6\t7\te\n"})
    found = find_labels(tmp_path, [whole("x.wav")])
    assert [row[3] for row in rows(found)] == ["a", "b", "c", "d", "e"]
    assert problems(found)["x.txt"].startswith("2 labels begin before an earlier one ends")


def test_a_file_without_labels_is_named(tmp_path: Path) -> None:
    found = find_labels(put(tmp_path, {"x.csv": "onset_s,offset_s,label\n"}), [whole("x.wav")])
    assert problems(found) == {"x.csv": "holds no label"}


def test_raven_writes_a_selection_once_for_each_view(tmp_path: Path) -> None:
    views = "".join(
        f"{i}\t{view}\t1\t{i}.0\t{i}.5\t500\t8000\ta\n"
        for i in (1, 2) for view in ("Waveform 1", "Spectrogram 1")
    )  # fmt: skip
    found = find_labels(
        put(tmp_path, {"x.Table.1.selections.txt": RAVEN + views}), [whole("x.wav")]
    )
    assert [row[1:3] for row in rows(found)] == [(1.0, 1.5), (2.0, 2.5)]
    assert found.problems == []


def test_pieces_of_a_long_file_get_their_part_in_their_own_time(tmp_path: Path) -> None:
    file = f"{FOLDER}/long.wav"
    pieces = [Part(f"{file}#t=0.000,40.000", file, 0.0, 40.0),
              Part(f"{file}#t=40.000,75.500", file, 40.0, 35.5),
              Part(f"{file}#t=90.000,100.000", file, 90.0, 10.0)]  # fmt: skip
    track = "1\t2\tfirst\n39.9\t40.2\tboth\n50.25\t51\tsecond\n80\t81\tunused\n99\t99.5\tthird\n"
    found = find_labels(put(tmp_path, {"long.txt": track + "101\t102\tbeyond\n"}), pieces)
    expected = [(0, 1, 2, "first"), (0, 39.9, 40, "both"), (1, 0, 0.2, "both"),
                (1, 10.25, 11, "second"), (2, 9, 9.5, "third")]  # fmt: skip
    assert [row[0] for row in rows(found)] == [pieces[each[0]].path for each in expected]
    assert [row[3] for row in rows(found)] == [each[3] for each in expected]
    times = np.array([row[1:3] for row in rows(found)])
    np.testing.assert_allclose(times, [each[1:3] for each in expected], atol=1e-9)
    reason = problems(found)["long.txt"]
    assert "'unused' from 80.000 to 81.000 s lies in a part of the recording that is" in reason
    assert "'beyond' from 101.000 to 102.000 s ends after the recording (100.000 s)" in reason


def test_a_listing_changes_with_its_label_files_alone(tmp_path: Path) -> None:
    put(tmp_path, {"x.txt": TRACK, "x.wav": ""})
    before = label_files(tmp_path, [whole("x.wav")])
    (tmp_path / FOLDER / "x.wav").write_text("other")
    put(tmp_path, {"song.doc": ""})
    assert label_files(tmp_path, [whole("x.wav")]) == before
    (tmp_path / FOLDER / "x.txt").write_text(TRACK + "2\t3\tc\n")
    assert label_files(tmp_path, [whole("x.wav")]) != before


def test_labels_are_written_and_come_back_or_are_refused(tmp_path: Path) -> None:
    found = find_labels(put(tmp_path, {"x.txt": TRACK, "y.csv": "onset_s\n"}), [whole("x.wav")])
    path = tmp_path / "labels.parquet"
    write_labels(path, found.rows)
    assert read_labels(path).equals(found.rows)
    assert found.rows.to_pylist()[1] == {
        "recording": f"{FOLDER}/x.wav", "onset_s": 1.0, "offset_s": 1.25, "label": "b",
        "source": f"{FOLDER}/x.txt", "format": "aud-seq",
    }  # fmt: skip
    assert found.problems
    write_label_problems(tmp_path / "problems.parquet", found.problems)
    assert read_label_problems(tmp_path / "problems.parquet") == found.problems
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BrokenFileError, match=r"labels\.parquet cannot be read"):
        read_labels(path)


def test_no_labels_are_an_empty_table(tmp_path: Path) -> None:
    found = Labels.joined([])
    write_labels(tmp_path / "labels.parquet", found.rows)
    assert read_labels(tmp_path / "labels.parquet").num_rows == 0
    assert isinstance(found.rows, pa.Table)
    assert found.problems == []
