"""Every file is accounted for: read, flagged or skipped with a reason; none is ever changed."""

import datetime
import hashlib
import os
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import data_io.recordings
from data_io.files import sound_sha256
from data_io.names.listing import scan, survey
from data_io.recordings.bird_age import read_bird_age
from data_io.recordings.reading import ReadParams, read
from data_io.recordings.table import (
    SCHEMA,
    Recording,
    Recordings,
    data_hash,
    skip_duplicates,
)
from study.base.paths import ROOT
from tests.helpers.faulty_files import FAULTY, GOOD, write_all
from tests.helpers.finch_songs import RATE, song

MIN_SECONDS = 0.064


def put(root: Path, name: str, content: bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def wav(path: Path, seed: int = 0, seconds: float = 1.0) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, song(seed)[: round(seconds * RATE)], RATE, subtype="PCM_16")
    return path.read_bytes()


# Of one folder with every fault


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Recording]]:
    """A folder of every faulty and good file, and what reading makes of each."""
    folder = tmp_path_factory.mktemp("faulty")
    root = folder / "data"
    write_all(root)
    found = survey(root).recordings
    parts = [found.where(~found.is_used)]
    for group in found.used.by_bird_age().values():
        parts.append(read_bird_age(root, group, ReadParams(), folder / "spectrograms"))
    return root, {row.path: row for row in Recordings.joined(parts)}


@pytest.mark.slow
def test_every_faulty_file_is_reported_by_name_with_its_reason(
    faulty: tuple[Path, dict[str, Recording]],
) -> None:
    _, rows = faulty
    wrong = []
    for fault in FAULTY:
        # A name that is not UTF-8 is shown by its bytes.
        row = rows[os.fsencode(fault.path).decode("utf-8", "backslashreplace")]
        if row.status != fault.status or not all(words in row.reason for words in fault.words):
            wrong.append((fault.path, row.status, row.reason))
    assert wrong == []


@pytest.mark.slow
def test_every_good_file_beside_faulty_ones_is_used(
    faulty: tuple[Path, dict[str, Recording]],
) -> None:
    root, rows = faulty
    good = {name: rows[f"bird/45/songs/{name}"] for name in GOOD}
    assert {name: row.reason for name, row in good.items() if row.status != "ok"} == {}
    for name, row in good.items():
        assert row.n_frames == pytest.approx(row.seconds * 250, abs=2)
        path = root / "bird/45/songs" / name
        of_bytes = hashlib.sha256(path.read_bytes()).hexdigest()
        assert (row.sha256 == of_bytes) == (path.suffix != ".cbin")
        assert row.sha256 == sound_sha256(path)


# Of one file


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda good: b"", "empty (0 bytes)"),
        (lambda good: random.Random(0).randbytes(9000), "not a"),
        (lambda good: good[:44], "holds no samples"),
        (lambda good: good[:600], "shorter than one snippet"),
    ],
)
def test_unusable_file_is_skipped_by_reason_and_its_neighbours_are_read(
    tmp_path: Path, content: Callable[[bytes], bytes], reason: str
) -> None:
    good = wav(tmp_path / "b1/43/songs/a.wav")
    wav(tmp_path / "b1/43/songs/c.wav", seed=1)
    bad = put(tmp_path, "b1/43/songs/bad.wav", content(good))
    os.utime(bad, ns=(10**18, 10**18 + 1))
    before = bad.read_bytes()
    result = [read(tmp_path, listed, MIN_SECONDS) for listed in scan(tmp_path)]
    assert [Path(row.path).stem for row, _ in result] == ["a", "bad", "c"]
    assert [row.status for row, _ in result] == ["ok", "skipped", "ok"]
    assert [waveform is None for _, waveform in result] == [False, True, False]
    assert reason in result[1][0].reason
    assert bad.read_bytes() == before
    assert bad.stat().st_mtime_ns == 10**18 + 1


def test_facts_and_samples_are_those_of_the_file(tmp_path: Path) -> None:
    content = wav(tmp_path / "b1/43/songs/20180919_062842.wav")
    (listed,) = scan(tmp_path)
    recording, waveform = read(tmp_path, listed, MIN_SECONDS)
    assert (recording.status, recording.reason) == ("ok", "")
    assert (recording.sample_rate_hz, recording.n_channels, recording.seconds) == (RATE, 1, 1.0)
    assert recording.sha256 == hashlib.sha256(content).hexdigest()
    assert recording.recorded_at == datetime.datetime(2018, 9, 19, 6, 28, 42)
    expected, _ = sf.read(tmp_path / recording.path, dtype="float32")
    np.testing.assert_array_equal(waveform, expected)


def test_cut_file_is_flagged_and_used(tmp_path: Path) -> None:
    content = wav(tmp_path / "b1/43/songs/x.wav")
    put(tmp_path, "b1/43/songs/x.wav", content[: 44 + RATE])
    (listed,) = scan(tmp_path)
    recording, waveform = read(tmp_path, listed, MIN_SECONDS)
    assert recording.status == "flagged"
    assert f"promises {RATE} samples" in recording.reason
    assert waveform is not None
    assert waveform.shape == (RATE // 2,)
    assert recording.seconds == 0.5


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")]
)
def test_file_that_cannot_be_opened_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    wav(tmp_path / "b1/43/songs/x.wav")
    (listed,) = scan(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("data_io.recordings.reading.open_sound", refuse)
    recording, waveform = read(tmp_path, listed, MIN_SECONDS)
    assert (recording.status, recording.sha256, waveform) == ("skipped", "", None)
    assert recording.reason == f"cannot be read for now: {error.strerror}"


# Many recordings in columns


def used(name: str, bird: str = "b1", age: str = "43", **others: object) -> Recording:
    path = f"{bird}/{age}/songs/{name}.wav"
    sha256 = hashlib.sha256(path.encode()).hexdigest()
    return replace(
        Recording(bird, age, None, None, path, sha256=sha256, seconds=1.0, n_frames=251),
        **others,  # type: ignore[arg-type]
    )


PIECE = Recording(
    "Zoë", "2018-09-19", None, "2018-09-19", "Zoë/2018-09-19/ä.wav#t=1.500,2.750",
    datetime.datetime(2018, 9, 19, 6, 28, 42, 48_000), "Zoë/2018-09-19/ä.wav", 1.5, "ab" * 32,
    44_100, 2, 1.25, "flagged", "2 channels: channel 1 is used", 313, 0.75, 0.125, -52.5,
    "selection", 2**40, 1_537_338_522_048_000_001,
)  # fmt: skip
MANY = [used(f"{i:02d}", bird, age) for bird in ("b2", "b1") for age in "95" for i in range(4)]


def test_recordings_come_back_from_columns_as_they_were() -> None:
    rows = [PIECE, *MANY, used("bad").skipped("silent")]
    columns = Recordings.from_rows(rows)
    assert len(columns) == len(rows)
    assert list(columns) == rows
    assert columns.table.schema == SCHEMA
    assert SCHEMA.names == [field.name for field in fields(Recording)]
    assert list(Recordings.from_rows([])) == []
    assert list(Recordings.joined([])) == []
    halves = [Recordings.from_rows(rows[:5]), Recordings.from_rows(rows[5:])]
    assert list(Recordings.joined(halves)) == rows


def test_a_column_may_be_asked_for_and_replaced() -> None:
    columns = Recordings.from_rows(MANY)
    assert columns.column("bird").tolist() == [row.bird for row in MANY]
    changed = columns.with_column("split", ["training"] * len(MANY))
    assert [replace(row, split="") for row in changed] == MANY
    assert set(changed.column("split")) == {"training"}
    longer = columns.with_column("seconds", np.arange(len(MANY)) / 4)
    assert [row.seconds for row in longer] == [i / 4 for i in range(len(MANY))]


def test_rows_are_chosen_taken_and_replaced_by_their_place() -> None:
    columns = Recordings.from_rows(MANY)
    assert list(columns.where(columns.column("bird") == "b1")) == MANY[8:]
    assert list(columns.taken(np.array([3, 0]))) == [MANY[3], MANY[0]]
    bad = MANY[2].skipped("silent")
    assert list(columns.replaced({2: bad})) == [*MANY[:2], bad, *MANY[3:]]
    assert list(columns.replaced({})) == MANY
    assert columns.replaced({2: bad}).is_used.tolist() == [True] * 2 + [False] + [True] * 13
    assert list(columns.replaced({2: bad}).used) == [*MANY[:2], *MANY[3:]]
    held_out = replace(MANY[5], split="report")
    assert list(columns.replaced({5: held_out}).on("report")) == [held_out]


def test_birds_and_ages_are_in_the_order_of_the_table() -> None:
    columns = Recordings.from_rows(MANY)
    in_order = [("b2", "9"), ("b2", "5"), ("b1", "9"), ("b1", "5")]
    assert columns.birds_and_ages() == in_order
    groups = columns.by_bird_age()
    assert list(groups) == in_order
    assert [row for group in groups.values() for row in group] == MANY
    shuffled = random.Random(1).sample(MANY, len(MANY))
    found = Recordings.from_rows(shuffled).by_bird_age()
    for (bird, age), group in found.items():
        assert list(group) == [r for r in shuffled if (r.bird, r.age) == (bird, age)]
    assert Recordings.from_rows([]).by_bird_age() == {}
    assert Recordings.from_rows([]).birds_and_ages() == []


def test_a_recording_takes_at_most_300_bytes() -> None:
    rows = 4000
    tracemalloc.start()
    columns = Recordings.from_rows(
        used(f"G402_43362.{i:08d}_9_19_6_28_42", str(i % 20), str(40 + i % 60), n_bytes=i)
        for i in range(rows)
    )
    traced = tracemalloc.get_traced_memory()[0]  # Arrow's own memory is not traced
    tracemalloc.stop()
    assert (columns.table.nbytes + traced) / rows < 300


def test_the_hash_of_the_data_depends_on_what_a_study_takes_from_it_alone() -> None:
    rows = [used(str(i), split="training", reference_level=0.1) for i in range(4)]
    known = data_hash(Recordings.from_rows(rows))
    for same in (
        rows[::-1],
        [*rows, used("bad").skipped("silent")],
        [replace(rows[0], status="flagged", reason="clipped"), *rows[1:]],
        [replace(rows[0], n_bytes=7, mtime_ns=7), *rows[1:]],
    ):
        assert data_hash(Recordings.from_rows(same)) == known
    for change in (
        {"bird": "b2"}, {"age": "44"}, {"path": "b1/43/y.wav"}, {"sha256": "0" * 64},
        {"split": "report"}, {"n_frames": 252}, {"reference_level": 0.2}, {"noise_floor_db": -50.0},
        {"status": "skipped"},
    ):  # fmt: skip
        changed = [replace(rows[0], **change), *rows[1:]]  # type: ignore[arg-type]
        assert data_hash(Recordings.from_rows(changed)) != known, change


def test_duplicates_are_skipped_so_that_no_sound_is_on_both_sides() -> None:
    names = ("a", "b1"), ("copy of a", "b1"), ("a", "b2")
    rows = [used(f"{name}{i}", bird, sha256=f"{i:064d}") for i in range(6) for name, bird in names]
    found = list(skip_duplicates(Recordings.from_rows(rows)))
    kept = [row for row in found if row.is_used]
    assert [row.path for row in found] == [row.path for row in rows]
    assert [row.path for row in kept] == [f"b1/43/songs/a{i}.wav" for i in range(6)]
    originals = {row.path: row.sha256 for row in kept}
    for copy in found:
        if not copy.is_used:
            assert (copy.split, copy.n_frames) == ("", 0)
            assert originals[copy.reason.removeprefix("same content as ")] == copy.sha256


def test_pieces_of_a_file_are_no_duplicates_of_each_other_but_of_another_file() -> None:
    pieces = [
        used(f"{name}.wav#t={i}", sha256="0" * 64, of_file=f"b1/43/songs/{name}.wav", start_s=i)
        for name in ("long", "copy") for i in range(3)
    ]  # fmt: skip
    found = list(skip_duplicates(Recordings.from_rows(pieces)))
    assert [row.is_used for row in found] == [True] * 3 + [False] * 3
    assert {row.reason for row in found[3:]} == {"same content as b1/43/songs/long.wav"}


def test_unreadable_files_are_no_duplicates_of_each_other() -> None:
    unread = [used(name, sha256="").skipped("cannot be read: no") for name in "ab"]
    assert list(skip_duplicates(Recordings.from_rows(unread))) == unread


def test_the_door_gives_every_name_and_names_alone_load_nothing_slow() -> None:
    for name in data_io.recordings.__all__:
        assert getattr(data_io.recordings, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'load'"):
        data_io.recordings.load  # noqa: B018
    code = (
        "import sys; from data_io.recordings import Recording, scan, parse_age; "
        "sys.exit('librosa' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.fixture
def three_birds(tmp_path: Path) -> Path:
    """One bird is excluded, one file is of another format, one is fine; all hold sound."""
    sound = np.random.default_rng(0).normal(0, 0.1, (16_000, 2)).astype(np.float32)
    for bird in ("b1", "b2"):
        (tmp_path / bird / "45").mkdir(parents=True)
        sf.write(tmp_path / bird / "45" / "x.wav", sound, 16_000)
    (tmp_path / "b1" / "45" / "y.mp3").write_bytes((tmp_path / "b1/45/x.wav").read_bytes())
    (tmp_path / "birds.csv").write_text("bird,exclude\nb1,\nb2,yes\n")
    return tmp_path


def test_what_the_listing_skips_the_library_does_not_read(three_birds: Path) -> None:
    found = {one.path: read(three_birds, one, 0.1) for one in scan(three_birds)}
    assert {path for path, (_, waveform) in found.items() if waveform is not None} == {
        "b1/45/x.wav"
    }
    assert found["b2/45/x.wav"][0].reason == "excluded in birds.csv"
    assert {found[path][0].status for path in ("b2/45/x.wav", "b1/45/y.mp3")} == {"skipped"}


def test_a_folder_may_be_given_as_text(three_birds: Path) -> None:
    listed = scan(str(three_birds))
    assert listed == scan(three_birds)
    assert survey(str(three_birds)).root == three_birds
    recording, waveform = read(str(three_birds), listed[0], 0.1)
    assert recording.path == "b1/45/x.wav"
    assert waveform is not None


@pytest.mark.parametrize("channel", [0, -1, -2])
def test_channels_are_counted_from_one(three_birds: Path, channel: int) -> None:
    with pytest.raises(ValueError, match=f"channel is {channel}: channels are counted from 1"):
        read(three_birds, scan(three_birds)[0], 0.1, channel)
