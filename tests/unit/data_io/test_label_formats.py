"""Label files as programs write them: read exactly, or refused with the reason."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from data_io.labels.formats import BadLabelsError, RawLabels, read_label_file
from data_io.labels.mat_check import BadMatError, check_mat

RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)"
RAVEN_ROW = "1\tSpectrogram 1\t1\t0.1\t0.25\t500.0\t8000.0"
MADE = ("0.1", "0.25", "a"), ("0.3", "0.45", "01"), ("0.5", "0.625", "NA")  # seconds, as text


def not_mat(path: Path, **changed: Any) -> Path:
    """Write what evsonganaly saves: columns of ms, one letter for each label."""
    content = {
        "Fs": 32_000.0, "fname": path.name.removesuffix(".not.mat"), "labels": "aab",
        "onsets": np.array([[100.0], [300.0], [500.5]]),
        "offsets": np.array([[250.0], [450.0], [625.25]]),
        "min_int": 5.0, "min_dur": 30.0, "threshold": 2500.0, "sm_win": 2.0, **changed,
    }  # fmt: skip
    savemat(path, {name: value for name, value in content.items() if value is not None})
    return path


def text(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path) -> RawLabels:
    found = read_label_file(path)
    assert found is not None
    return found


def rows(path: Path) -> list[tuple[float, float, str]]:
    found = read(path)
    return list(zip(found.onsets_s.tolist(), found.offsets_s.tolist(), found.labels, strict=True))


TRUTH = [(float(onset), float(offset), label) for onset, offset, label in MADE]


def lines(sep: str, header: str = "", end: str = "\n") -> str:
    return header + "".join(sep.join(each) + end for each in MADE)


def test_a_not_mat_of_evsonganaly_is_in_ms(tmp_path: Path) -> None:
    path = not_mat(tmp_path / "x.wav.not.mat")
    assert read(path).format == "notmat"
    assert rows(path) == [(0.1, 0.25, "a"), (0.3, 0.45, "a"), (0.5005, 0.62525, "b")]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"onsets": 100.0, "offsets": 250.0, "labels": "a"}, [(0.1, 0.25, "a")]),
        ({"onsets": np.zeros((0, 0)), "offsets": np.zeros((0, 0)), "labels": ""}, []),
        (
            {"labels": np.array(["a", "-", "0"])},
            [(0.1, 0.25, "a"), (0.3, 0.45, "-"), (0.5005, 0.62525, "0")],
        ),
        (
            {"labels": np.array(["aa", "b", "c"])},  # MATLAB pads to one width
            [(0.1, 0.25, "aa"), (0.3, 0.45, "b"), (0.5005, 0.62525, "c")],
        ),
        (
            {"onsets": np.array([100, 300, 500], np.int32)},
            [(0.1, 0.25, "a"), (0.3, 0.45, "a"), (0.5, 0.62525, "b")],
        ),
    ],
    ids=["one label", "none", "column of letters", "words", "whole ms"],
)
def test_other_shapes_of_a_not_mat_are_read(
    tmp_path: Path, changed: dict[str, Any], expected: list[tuple[float, float, str]]
) -> None:
    assert rows(not_mat(tmp_path / "x.not.mat", **changed)) == expected


@pytest.mark.parametrize(
    ("name", "content", "format_name"),
    [
        ("x.txt", lines("\t"), "aud-seq"),
        ("x.txt", lines("\t", end="\r\n"), "aud-seq"),
        ("x.txt", b"\xef\xbb\xbf" + lines("\t").encode(), "aud-seq"),
        ("x.txt", lines("\t").encode("utf-16"), "aud-seq"),
        ("x.txt", lines("\t").replace(".", ","), "aud-seq"),
        ("x.txt", "\n" + lines("\t", end="\n\n"), "aud-seq"),
        ("x.txt", lines("\t", end="\n\\\t500.0\t8000.0\n"), "aud-seq"),
        ("x.csv", lines(",", "onset_s,offset_s,label\n"), "simple-seq"),
        ("x.txt", lines(",", "onset_s,offset_s,label\n"), "simple-seq"),
        ("x.csv", lines(", ", "onset_s, offset_s, label\n"), "simple-seq"),
        ("x.csv", lines(",", '"Onset_s","Offset_s","Label"\n'), "simple-seq"),
        ("x.csv", lines(";", "onset_s;offset_s;label\n").replace(".", ","), "simple-seq"),
        ("x.csv", lines("\t", "onset_s\toffset_s\tlabel\n"), "simple-seq"),
        ("x_annotations.csv", lines(",", "start_seconds,stop_seconds,name\n"), "simple-seq"),
        (
            "x.csv",  # with the index that pandas writes, and columns of other programs
            ",label,onset_s,offset_s,sequence\n"
            + "".join(f"{i},{c},{a},{b},0\n" for i, (a, b, c) in enumerate(MADE)),
            "simple-seq",
        ),
        (
            "x.Table.1.selections.txt",
            f"{RAVEN}\tAnnotation\r\n"
            + "".join(f"1\tSpectrogram 1\t1\t{a}\t{b}\t1.0\t2.0\t{c}\r\n" for a, b, c in MADE),
            "raven",
        ),
        (
            "x.selections.txt",
            f"{RAVEN}\tDelta Time (s)\tSpecies\n"
            + "".join(f"1\tSpectrogram 1\t1\t{a}\t{b}\t1\t2\t3\t{c}\n" for a, b, c in MADE),
            "raven",
        ),
    ],
)
def test_labels_of_text_come_back_as_written(
    tmp_path: Path, name: str, content: str | bytes, format_name: str
) -> None:
    path = text(tmp_path / name, content)
    assert rows(path) == TRUTH
    assert read(path).format == format_name


def test_labels_keep_their_letters(tmp_path: Path) -> None:
    words = ["ä", '"a', "b's", "a,b", "None", "1.0", "", "two words", "\\"]
    track = "".join(f"{i}\t{i + 1}\t{word}\n" for i, word in enumerate(words))
    assert read(text(tmp_path / "x.txt", track)).labels == words
    quoted = 'onset_s,offset_s,label\n1, 2, "a,b"\n3,4,"say ""a"""\n'
    assert rows(text(tmp_path / "x.csv", quoted)) == [(1, 2, "a,b"), (3, 4, 'say "a"')]


def test_labels_that_look_like_numbers_stay_text(tmp_path: Path) -> None:
    numbers = ["01", "2", "1e3"]
    table = "\ufeffonset_s, offset_s, label\n" + "".join(f"{i}, {i + 1}, {n}\n" for i, n in
                                                       enumerate(numbers))  # fmt: skip
    assert read(text(tmp_path / "x.csv", table)).labels == numbers


def test_segments_without_labels_are_read(tmp_path: Path) -> None:
    assert rows(text(tmp_path / "x.txt", "0.5\t1\n2\t3\n")) == [(0.5, 1, ""), (2, 3, "")]
    assert rows(text(tmp_path / "x.csv", "onset_s,offset_s\n0.5,1\n")) == [(0.5, 1, "-")]
    assert rows(text(tmp_path / "x.selections.txt", f"{RAVEN}\n{RAVEN_ROW}\n")) == [
        (0.1, 0.25, "-")
    ]
    assert rows(text(tmp_path / "y.csv", "onset_s,offset_s,label\n")) == []


def test_a_label_track_longer_than_its_head_is_read_whole(tmp_path: Path) -> None:
    n = 5000
    track = "".join(f"{i / 10:.6f}\t{i / 10 + 0.05:.6f}\tsyllable\n" for i in range(n))
    assert len(track) > 100_000
    assert read(text(tmp_path / "x.txt", track)).onsets_s[-1] == (n - 1) / 10


NOTES = {
    "prose": "Start of recording was late, end too.\nThe bird sang.\n",
    "blank": " \n\n",
    "nothing": "",
    "latin-1": "Das Männchen sang.\n".encode("latin-1"),
    "binary": bytes(range(256)) * 300,
    "two columns": "weight\t12.5\nbox\t7\n",
    "other table": "date,weight,food\n2018-09-19,12.5,seeds\n",
    "features": "frame,pitch,entropy\n0,440.0,-3.1\n",
    "log": "2018-09-19 06:28:42 trigger\n2018-09-19 06:29:11 trigger\n",
}


@pytest.mark.parametrize("kind", NOTES)
def test_a_note_is_no_label_file(tmp_path: Path, kind: str) -> None:
    for name in ("x.txt", "x.csv"):
        assert read_label_file(text(tmp_path / name, NOTES[kind])) is None


HEADER = "onset_s,offset_s,label\n"
BAD_TEXT = {
    "word for a time": ("x.txt", "0.1\t0.2\ta\nlate\t0.4\tb\n", "'late' is no time in seconds"),
    "only line": ("x.txt", "early\t0.2\ta\n", "'early' is no time"),
    "not a number": ("x.txt", "0.1\tnan\ta\n0.3\t0.4\tb\n", "'nan' is no time"),
    "infinite": ("x.csv", HEADER + "0.1,inf,a\n", "'inf' is no time"),
    "too large": ("x.csv", HEADER + "0.1,1e999,a\n", "'1e999' is no time"),
    "no time": ("x.csv", HEADER + ",0.2,a\n", "'' is no time"),
    "clock": ("x.csv", HEADER + "00:01.5,00:01.6,a\n", "'00:01.5' is no time"),
    "thousands": ("x.txt", "0.1\t0.2\ta\n1,000.5\t1,000.6\ta\n", "'1,000.5' is no time"),
    "underscore": ("x.txt", "0.1\t0.2\ta\n1_0\t1_1\ta\n", "'1_0' is no time"),
    "half a row": ("x.csv", HEADER + "0.1,0.2,a\n0.3\n", "'' is no time"),
    "a tab in a label": ("x.txt", "0.1\t0.2\ta\n0.3\t0.4\tb\tc\n", "Expected 3 fields in line 2"),
    "four columns": ("x.txt", "0.1\t0.2\ta\tb\n0.3\t0.4\tc\td\n", "more fields"),
    "a comma in a label": ("x.csv", HEADER + "0.1,0.2,a,b\n", "more fields"),
    "open quote": ("x.csv", HEADER + '0.1,0.2,"a\n0.3,0.4,b\n', "EOF inside string"),
    "no header": ("x.csv", "0.1,0.2,a\n0.3,0.4,b\n", "write onset_s,offset_s,label"),
    "no header, long": ("x.csv", "0.1,0.2,a\n" * 9999, "write onset_s,offset_s,label"),
    "spaces": ("x.txt", "0.1 0.2 a\n0.3 0.4 b\n", "write onset_s,offset_s,label"),
    "no unit": ("x.csv", "onset,offset,label\n1,2,a\n", "its columns are onset, offset, label"),
    "ms": ("x.csv", "label,start_ms,end_ms\na,1,2\n", "its columns are label, start_ms, end_ms"),
    "samples": ("x.csv", "start sample,stop sample,name\n1,2,a\n", "its columns are start sample"),
    "no offsets": ("x.csv", "onset_s,label\n0.1,a\n", "0 columns are offset_s"),
    "two onsets": ("x.csv", "onset_s,start_seconds,offset_s\n1,1,2\n", "2 columns are onset_s"),
    "other label": ("x.csv", "onset_s,offset_s,type\n1,2,a\n", "is called label"),
    "raven, other label": ("x.selections.txt", f"{RAVEN}\tTyp\n{RAVEN_ROW}\ta\n", "called label"),
    "raven, no end": ("x.txt", "Selection\tBegin Time (s)\n1\t0.1\n", "0 columns are offset_s"),
    "latin-1": ("x.txt", "0.1\t0.2\tä\n".encode("latin-1"), "not UTF-8"),
    "half of UTF-16": ("x.txt", "0.1\t0.2\ta\n".encode("utf-16")[:-1], "not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_TEXT)
def test_text_that_cannot_be_read_is_refused_with_the_reason(tmp_path: Path, kind: str) -> None:
    name, content, reason = BAD_TEXT[kind]
    with pytest.raises(BadLabelsError) as error:
        read_label_file(text(tmp_path / name, content))
    assert reason in str(error.value)


BAD_NOT_MAT: dict[str, tuple[dict[str, Any], str]] = {
    "no onsets": ({"onsets": None}, "no variable 'onsets'"),
    "no labels": ({"labels": None}, "no variable 'labels'"),
    "a label too few": ({"labels": "ab"}, "3 onsets, 3 offsets and 2 labels"),
    "an offset too few": ({"offsets": np.array([250.0, 450.0])}, "3 onsets, 2 offsets"),
    "NaN": ({"onsets": np.array([100.0, np.nan, 500.0])}, "1 of its times are no numbers"),
    "infinite": ({"offsets": np.array([np.inf, 400.0, np.inf])}, "2 of its times are no numbers"),
    "complex": ({"onsets": np.array([1j, 300, 500])}, "real numbers"),
    "square": ({"onsets": np.ones((3, 3))}, "not a list"),
    "letters for times": ({"onsets": "abc"}, "'divide' not supported"),
    "a number for labels": ({"labels": 5.0}, "not iterable"),
}


@pytest.mark.parametrize("kind", BAD_NOT_MAT)
def test_a_not_mat_that_cannot_be_read_is_refused_with_the_reason(
    tmp_path: Path, kind: str
) -> None:
    changed, reason = BAD_NOT_MAT[kind]
    with pytest.raises(BadLabelsError) as error:
        read_label_file(not_mat(tmp_path / "x.not.mat", **changed))
    assert reason in str(error.value)


def test_a_not_mat_of_another_kind_cut_or_empty_is_refused(tmp_path: Path) -> None:
    path = not_mat(tmp_path / "x.not.mat")
    whole = path.read_bytes()
    hdf = b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + b"\x89HDF\r\n\x1a\n"
    for content, reason in (
        (b"", "no MATLAB file"), (b"no mat", "no MATLAB file"), (whole[:300], "cut short"),
        (hdf, "'-v7'"),
    ):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(BadLabelsError, match=reason):
            read_label_file(path)
    with pytest.raises(BadLabelsError, match="No such file"):
        read_label_file(tmp_path / "gone.txt")


def test_altered_bytes_end_no_process(tmp_path: Path) -> None:
    """scipy alone ends the process at about 1 of 75 altered bytes."""
    path = not_mat(tmp_path / "x.not.mat")
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    n_refused = 0
    for _ in range(1000):
        altered = whole.copy()
        altered[rng.integers(124, len(whole), size=2)] = rng.integers(256, size=2)
        path.write_bytes(altered.tobytes())
        try:
            read_label_file(path)
        except BadLabelsError as error:
            assert str(error)
            n_refused += 1
    assert n_refused > 300  # the others differ in a time, a letter or a name


@pytest.mark.parametrize("compressed", [False, True])
def test_other_variables_of_a_not_mat_do_no_harm(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "x.not.mat"
    cell = np.array(["one", "three"], object)
    savemat(
        path,
        {"note": {"by": "me", "n": [1, 2]}, "cell": cell, "complex": np.array([1 + 2j, 3]),
         "none": np.zeros((0, 3)), "labels": "ä", "onsets": 100.0, "offsets": 250.0},
        do_compression=compressed,
    )  # fmt: skip
    assert rows(path) == [(0.1, 0.25, "ä")]
    content = path.read_bytes()
    for n in range(len(content) - 1, 128, -7):
        path.write_bytes(content[:n])
        with pytest.raises(BadLabelsError):
            read_label_file(path)


def test_deep_and_large_variables_are_refused() -> None:
    def element(kind: int, data: bytes) -> bytes:
        return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)

    def variable(kind: int, n: int, values: bytes, name: bytes = b"x") -> bytes:
        flags = struct.pack("<II", kind, 0)
        size = struct.pack("<ii", 1, n)
        return element(14, element(6, flags) + element(5, size) + element(1, name) + values)

    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"
    deep = b""
    for _ in range(30):
        deep = variable(1, 1, deep or variable(6, 0, element(9, b"")))
    cases = {
        header + deep: "more than 20 deep",
        header + variable(6, 2**31 - 1, element(9, b"12345678")): "8 bytes for 2147483647 values",
        header + variable(6, -1, element(9, b"")): "size",
        header + variable(1, 2**31 - 1, b""): "cut short",
        header + variable(17, 1, b""): "class 17",
        header + variable(6, 1, element(200, b"12345678")): "values of type 200",
        header + element(15, zlib.compress(bytes(101_000_000))): "over 100,000,000 bytes",
        header + element(15, b"no zlib"): "altered",
        header + element(3, b"12"): "type 3 where a variable should be",
    }
    for content, reason in cases.items():
        with pytest.raises(BadMatError, match=reason):
            check_mat(content)
