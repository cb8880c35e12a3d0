"""What is written is read back or refused; half of a file is never seen."""

import datetime
import errno
import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from data_io import store
from data_io.files import (
    BrokenSealError,
    atomic_dir,
    atomic_file,
    found,
    read_json,
    remove_folder,
    remove_leftovers,
    write_json,
)
from data_io.latents import read_latents, read_sound_shares, write_latents
from data_io.recordings.table import Recording, Recordings
from data_io.seal import seal
from data_io.song_models import SongModel, load_song_model, save_song_model
from data_io.store import (
    BrokenFileError,
    Stored,
    partition,
    read_anchors,
    read_recordings,
    read_spectrograms,
    read_stored,
    read_table,
    write_recordings,
    write_rows,
    write_spectrograms,
)
from tests.helpers.stored import FACTS

Named = dict[str, NDArray[np.float32]]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Parquet


def spectrograms(*lengths: int) -> Named:
    rng = np.random.default_rng(0)
    return {f"b1/43/songs/{n}.wav": rng.random((129, n), np.float32) for n in lengths}


def stored(folder: Path, only: set[str] | None = None) -> Named:
    """The magnitudes that come back."""
    return {one.recording: one.magnitude for one in read_stored(folder, "b1", "43", only)}


def with_shares(latents: Named) -> list[tuple[str, NDArray[np.float32], NDArray[np.float32]]]:
    """The latents with the share of sound of each snippet."""
    return [(name, z, np.linspace(0, 1, len(z), dtype="f4")) for name, z in latents.items()]


def latents(*lengths: int) -> Named:
    rng = np.random.default_rng(0)
    return {f"b1/43/songs/{n}.wav": rng.normal(size=(n, 4)).astype("f4") for n in lengths}


RECORDINGS = [
    Recording("b1", "43", 43, None, "b1/43/ä.wav#t=1.500,2.750",
              datetime.datetime(2018, 9, 19, 6, 28, 42, 48_000), "b1/43/ä.wav", 1.5, "ab" * 32,
              44_100, 2, 1.25, "flagged", "2 channels: the first is used", 313, 0.75, 0.125, -52.5,
              "selection", 110_250, 1_537_338_522_048_000_001),
    Recording("b1", "2018-09-19", None, "2018-09-19", "b1/2018-09-19/x.wav", n_frames=17),
    Recording("b2", "adult", None, None, "b2/adult/x.wav").skipped("silent"),
]  # fmt: skip


def same(first: Named, second: Named) -> bool:
    return list(first) == list(second) and all(
        a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for a, b in zip(first.values(), second.values(), strict=True)
    )


def test_magnitudes_come_back_from_several_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ROW_GROUP_BYTES", 40 * 129 * 4)
    written = spectrograms(16, 30, 100, 1, 7)
    write_spectrograms(tmp_path, "b1", "43", written.items(), {"hop_length": 64})
    with pq.ParquetFile(partition(tmp_path, "b1", "43")) as file:
        rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        facts = json.loads(file.metadata.metadata[b"birdsong"])
        table = file.read()
    assert rows == [2, 1, 2]
    assert facts == {"format_version": "2", "bird": "b1", "age": "43", "hop_length": 64}
    assert table["n_frames"].to_pylist() == [16, 30, 100, 1, 7]
    assert same(stored(tmp_path), written)


def test_spectrograms_that_are_no_plain_arrays_keep_their_values(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).random((40, 129)).astype("f4")
    views = {"transposed": whole.T, "strided": whole.T[:, ::2], "window": whole.T[:, 3:20]}
    write_spectrograms(tmp_path, "b1", "43", views.items(), {})
    read = stored(tmp_path)
    assert read.keys() == views.keys()
    for name, view in views.items():
        np.testing.assert_array_equal(read[name], view)


def test_only_the_wanted_spectrograms_are_given(tmp_path: Path) -> None:
    written = spectrograms(16, 30, 7)
    write_spectrograms(tmp_path, "b1", "43", written.items(), {})
    wanted = {"b1/43/songs/30.wav", "elsewhere.wav"}
    assert list(stored(tmp_path, wanted)) == ["b1/43/songs/30.wav"]
    assert stored(tmp_path, set()) == {}


def test_later_stages_see_the_level_and_the_frames_that_hold_sound(tmp_path: Path) -> None:
    sound = np.full((129, 60), 1e-4, np.float32)
    sound[20:40, 20:45] = 2.0
    facts = FACTS | {"gain": 0.5, "noise_floor_db": -90.0}
    write_spectrograms(tmp_path, "b1", "43", [("a.wav", sound), ("b.wav", sound[:, :20])], facts)
    first, second = read_spectrograms(tmp_path, "b1", "43")
    assert (first.recording, second.recording) == ("a.wav", "b.wav")
    np.testing.assert_allclose(first.spectrogram, np.log1p(sound / 2), rtol=1e-6)
    # An energy is a mean over a frame on each side.
    np.testing.assert_array_equal(np.flatnonzero(first.has_sound), np.arange(19, 46))
    assert not second.has_sound.any()


def test_facts_may_be_known_after_the_last_spectrogram_alone(tmp_path: Path) -> None:
    facts: dict[str, Any] = {}

    def source() -> Any:
        yield from spectrograms(16).items()
        facts["gain"] = 2.5

    write_spectrograms(tmp_path, "b1", "43", source(), facts)
    assert store.spectrogram_facts(tmp_path, "b1", "43")["gain"] == 2.5


def test_anchors_come_back_beside_the_magnitudes(tmp_path: Path) -> None:
    anchors = np.array([3, 2**64 - 1], np.uint64), np.array([0, 2**40])
    magnitude = np.ones((129, 4), np.float32)
    rows = [Stored("a.wav", magnitude, *anchors), Stored("b.wav", magnitude)]
    write_spectrograms(tmp_path, "b1", "43", rows, {})
    found = read_anchors(tmp_path, "b1", "43")
    assert list(found) == ["a.wav", "b.wav"]
    for one, expected in zip(found["a.wav"], anchors, strict=True):
        np.testing.assert_array_equal(one, expected)
    assert [len(one) for one in found["b.wav"]] == [0, 0]


def test_spectrograms_are_taken_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ROW_GROUP_BYTES", 40 * 129 * 4)
    given, batches = [], []
    real = store._spectrogram_table

    def watched(batch: list[Stored]) -> pa.Table:
        batches.append((len(given), len(batch)))
        return real(batch)

    def source() -> Any:
        for i in range(6):
            given.append(i)
            yield str(i), np.ones((129, 25), np.float32)

    monkeypatch.setattr(store, "_spectrogram_table", watched)
    write_spectrograms(tmp_path, "b1", "43", source(), {})
    assert batches == [(2, 2), (4, 2), (6, 2)]


def test_no_spectrogram_is_a_readable_file(tmp_path: Path) -> None:
    write_spectrograms(tmp_path, "b1", "43", [], {})
    assert stored(tmp_path) == {}


def test_failure_between_spectrograms_leaves_no_file(tmp_path: Path) -> None:
    def source() -> Any:
        yield from spectrograms(16).items()
        raise RuntimeError("the third recording broke")

    with pytest.raises(RuntimeError, match="third"):
        write_spectrograms(tmp_path, "b1", "43", source(), {})
    assert names_in(tmp_path / "bird=b1" / "age=43") == []


def test_latents_of_any_length_come_back(tmp_path: Path) -> None:
    written = latents(1, 15, 17, 16)
    assert write_latents(tmp_path, "b1", "43", with_shares(written), 0.064, 4, {}) == 49
    assert same(read_latents(tmp_path, "b1", "43"), written)


def test_no_latent_is_a_readable_file(tmp_path: Path) -> None:
    assert write_latents(tmp_path, "b1", "43", [], 0.064, 4, {}) == 0
    assert read_latents(tmp_path, "b1", "43") == {}
    assert read_sound_shares(tmp_path, "b1", "43") == {}


def test_shares_of_sound_come_back_by_recording(tmp_path: Path) -> None:
    written = with_shares(latents(1, 15, 17))
    write_latents(tmp_path, "b1", "43", written, 0.064, 4, {})
    found = read_sound_shares(tmp_path, "b1", "43")
    assert same(found, {name: shares.astype(np.float32) for name, _, shares in written})


def test_folder_of_latents_reads_as_one_table_in_plain_pyarrow(tmp_path: Path) -> None:
    written = latents(1, 15, 17)
    for bird, age in (("b1", "43"), ("b1", "adult"), ("b2", "2018-09-19")):
        write_latents(tmp_path, bird, age, with_shares(written), 0.064, 4, {"latent_dim": 4})
    table = pq.read_table(tmp_path)
    assert table.column_names == [
        "recording", "index", "start_s", "sound_share", "z", "bird", "age",
    ]  # fmt: skip
    assert [table.schema.field(i).type for i in range(5)] == [
        pa.string(),
        pa.int32(),
        pa.float64(),
        pa.float32(),
        pa.list_(pa.float32(), 4),
    ]
    assert table.num_rows == 3 * 33
    groups = {(str(row["bird"]), str(row["age"])) for row in table.to_pylist()}
    assert groups == {("b1", "43"), ("b1", "adult"), ("b2", "2018-09-19")}
    one = pq.read_table(tmp_path, filters=[("bird", "=", "b2")])
    song = [row for row in one.to_pylist() if row["recording"] == "b1/43/songs/17.wav"]
    assert [row["index"] for row in song] == list(range(17))
    np.testing.assert_allclose([row["start_s"] for row in song], 0.064 * np.arange(17))
    np.testing.assert_allclose([row["sound_share"] for row in song], np.linspace(0, 1, 17), 1e-6)
    np.testing.assert_array_equal([row["z"] for row in song], written["b1/43/songs/17.wav"])


def test_recordings_come_back(tmp_path: Path) -> None:
    write_recordings(tmp_path / "recordings.parquet", Recordings.from_rows(RECORDINGS))
    assert list(read_recordings(tmp_path / "recordings.parquet")) == RECORDINGS
    write_recordings(tmp_path / "none.parquet", Recordings.from_rows([]))
    assert list(read_recordings(tmp_path / "none.parquet")) == []


def test_rows_and_chosen_columns_come_back(tmp_path: Path) -> None:
    schema = pa.schema([("k", pa.int32()), ("bic", pa.float64())])
    write_rows(tmp_path / "bird=b1" / "t.parquet", [{"k": 5, "bic": None}], schema)
    table = read_table(tmp_path / "bird=b1" / "t.parquet")
    assert table.column_names == ["k", "bic"]
    assert table.to_pylist() == [{"k": 5, "bic": None}]
    chosen = read_table(tmp_path / "bird=b1" / "t.parquet", ["k"])
    assert chosen.to_pylist() == [{"k": 5}]


def write_kind(kind: str, folder: Path) -> tuple[Path, Callable[[], Any]]:
    """Write a file of a kind; give its path and a reader, which checks what it reads."""
    path = partition(folder, "b1", "43")
    if kind == "spectrograms":
        written = spectrograms(17, 30, 5)
        write_spectrograms(folder, "b1", "43", written.items(), FACTS)
        return path, lambda: list(read_spectrograms(folder, "b1", "43"))
    if kind == "anchors":
        write_spectrograms(folder, "b1", "43", spectrograms(17).items(), {})
        return path, lambda: read_anchors(folder, "b1", "43")
    if kind == "latents":
        written = latents(1, 15, 17)
        write_latents(folder, "b1", "43", with_shares(written), 0.064, 4, {})
        return path, lambda: read_latents(folder, "b1", "43")
    path = folder / "recordings.parquet"
    write_recordings(path, Recordings.from_rows(RECORDINGS))
    return path, lambda: list(read_recordings(path))


KINDS = ["spectrograms", "anchors", "latents", "recordings"]


@pytest.mark.parametrize("kind", KINDS)
def test_each_of_1000_bit_flips_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    path, read = write_kind(kind, tmp_path)
    read()
    good = path.read_bytes()
    footer = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
    rng = np.random.default_rng(0)
    # Half of them in the footer, which holds what no checksum of Parquet covers.
    for at in np.r_[rng.integers(footer, size=500), rng.integers(footer, len(good), 500)]:
        altered = bytearray(good)
        altered[at] ^= 1 << rng.integers(8)
        path.write_bytes(altered)
        with pytest.raises(BrokenFileError) as caught:
            read()
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_renamed_column_is_refused(kind: str, tmp_path: Path) -> None:
    path, read = write_kind(kind, tmp_path)
    with pq.ParquetFile(path) as file:
        table = file.read()
    pq.write_table(table.rename_columns([*table.column_names[:-1], "other"]), path)
    seal(path)
    with pytest.raises(BrokenFileError, match="columns are not the expected ones"):
        read()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.999])
def test_truncated_file_is_named_with_the_remedy(kind: str, kept: float, tmp_path: Path) -> None:
    path, read = write_kind(kind, tmp_path)
    good = path.read_bytes()
    path.write_bytes(good[: int(kept * len(good))])
    with pytest.raises(BrokenFileError, match="Delete it and run the same command again") as caught:
        read()
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_missing_file_is_named(kind: str, tmp_path: Path) -> None:
    path, read = write_kind(kind, tmp_path)
    path.unlink()
    with pytest.raises(BrokenFileError) as caught:
        read()
    assert str(caught.value).startswith(f"{path} is missing. Run the same command again")
    assert "Delete" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_file_that_the_disk_does_not_give_is_named_and_not_called_broken(
    kind: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read = write_kind(kind, tmp_path)

    def fails(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("data_io.seal._hashed", fails)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        read()
    assert caught.value.filename == str(path)


def test_refusal_survives_the_way_between_processes(tmp_path: Path) -> None:
    with pytest.raises(BrokenFileError) as caught:
        read_table(tmp_path / "x.parquet")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(copy, BrokenFileError)
    assert str(copy) == str(caught.value)


# Atomic files and folders


def test_atomic_file_appears_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.txt"
    for content in ("first", "second"):
        with atomic_file(path) as temporary:
            assert (temporary.parent, temporary.suffix) == (path.parent, ".txt")
            assert temporary.name.startswith(".")
            temporary.write_text(content)
            assert path.exists() == (content == "second")
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == content
        assert names_in(path.parent) == ["x.txt"]


def test_atomic_file_leaves_the_old_content_after_an_exception(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["x.txt"]


def test_atomic_file_leaves_the_old_content_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "x.txt"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught, atomic_file(path) as temporary:
        temporary.write_text("new")
    assert ".x." in caught.value.filename
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["x.txt"]


def test_an_error_of_the_disk_while_a_file_is_written_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    with pytest.raises(OSError, match="Input/output") as caught, atomic_file(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    assert caught.value.filename == str(path)
    with pytest.raises(OSError, match="of a library") as caught, atomic_file(path):
        raise OSError("of a library")  # it has no number: a name would hide its words
    assert str(caught.value) == "of a library"
    other = tmp_path / "y.txt"
    with pytest.raises(FileNotFoundError, match=r"y\.txt"), atomic_file(path):
        other.read_text()


def test_atomic_file_that_nobody_wrote_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_file(path):
        pass
    assert path.read_text() == "old"


def test_two_writers_of_a_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    with atomic_file(path) as first, atomic_file(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"
    assert names_in(tmp_path) == ["x.txt"]


def test_atomic_dir_appears_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "d"
    for name in ("first", "second"):
        with atomic_dir(path) as temporary:
            (temporary / name).write_text(name)
            assert path.exists() == (name == "second")
            assert not path.exists() or names_in(path) == ["first"]
        assert names_in(path) == [name]
        assert names_in(path.parent) == ["d"]


@pytest.mark.parametrize("has_old", [True, False])
def test_atomic_dir_is_as_it_was_after_an_exception(tmp_path: Path, has_old: bool) -> None:
    path = tmp_path / "d"
    if has_old:
        path.mkdir()
        (path / "old").write_text("old")
    with pytest.raises(RuntimeError, match="broke"), atomic_dir(path) as temporary:
        (temporary / "new").write_text("half of the n")
        raise RuntimeError("broke")
    assert names_in(tmp_path) == (["d"] if has_old else [])
    assert not has_old or names_in(path) == ["old"]


def linked(tmp_path: Path) -> tuple[Path, Path]:
    """A link, and the folder that it leads to."""
    link, content = tmp_path / "run" / "d", tmp_path / "big" / "other"
    link.parent.mkdir()
    content.mkdir(parents=True)
    (content / "old").write_text("old")
    link.symlink_to(content)
    return link, content


def test_atomic_dir_replaces_the_content_that_a_link_leads_to_and_the_link_stays(
    tmp_path: Path,
) -> None:
    link, content = linked(tmp_path)
    with atomic_dir(link) as temporary:
        assert temporary.parent == content.parent  # one rename away
        (temporary / "new").write_text("new")
    assert link.is_symlink()
    assert names_in(content) == ["new"]
    assert names_in(link.parent) == ["d"]
    assert names_in(content.parent) == ["other"]


def test_a_link_to_what_is_away_is_named_and_nothing_is_made(tmp_path: Path) -> None:
    link, content = linked(tmp_path)
    content.rename(tmp_path / "unmounted")
    with pytest.raises(OSError, match="a link to .*/other, which is not there"), atomic_dir(link):
        pass
    for of in (remove_folder, found):
        with pytest.raises(OSError, match="a link to .*/other, which is not there"):
            of(link)
    remove_leftovers(link.parent)
    assert link.is_symlink()
    assert names_in(content.parent) == []


def test_leftovers_beside_what_a_link_leads_to_are_removed_if_they_have_its_name(
    tmp_path: Path,
) -> None:
    link, content = linked(tmp_path)
    for name in (".other.0123abcd.tmp", ".other.0123abcd.old", ".d.0123abcd.tmp", ".other.mine"):
        (content.parent / name).mkdir()
    remove_leftovers(link.parent)
    assert names_in(content.parent) == [".d.0123abcd.tmp", ".other.mine", "other"]
    content.rename(content.parent / ".other.0123abcd.old")  # killed between the two renames
    remove_leftovers(link.parent)
    assert names_in(link) == ["old"]


def test_a_link_that_was_retired_is_removed_or_gets_its_name_back(tmp_path: Path) -> None:
    link, content = linked(tmp_path)
    retired = link.with_name(".d.0123abcd.old")
    link.rename(retired)
    remove_leftovers(link.parent)
    assert names_in(link) == ["old"]
    link.rename(retired)
    link.mkdir()
    remove_leftovers(link.parent)
    assert names_in(link.parent) == ["d"]
    assert names_in(content) == ["old"]
    (link.parent / ".best.tmp").symlink_to(content)
    remove_leftovers(link.parent)
    assert names_in(link.parent) == ["d"]


def test_a_folder_behind_a_link_is_removed_with_the_link(tmp_path: Path) -> None:
    link, content = linked(tmp_path)
    remove_folder(link)
    assert names_in(link.parent) == names_in(content.parent) == []


def test_atomic_dir_leaves_a_file_of_its_name_alone(tmp_path: Path) -> None:
    (tmp_path / "d").write_text("mine")
    with pytest.raises(NotADirectoryError), atomic_dir(tmp_path / "d"):
        pass
    assert names_in(tmp_path) == ["d"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"deep": [float("-inf")]}])
def test_json_without_a_number_is_refused_and_the_old_file_stays(
    tmp_path: Path, value: object
) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"loss": 1.5, "bird": "Fink ♂"})
    assert read_json(path) == {"loss": 1.5, "bird": "Fink ♂"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"loss": value})
    assert json.loads(path.read_text("utf-8"))["loss"] == 1.5
    assert names_in(tmp_path) == ["x.json"]


# Song models


COVARIANCES = {"spherical": (3,), "diag": (3, 4), "tied": (4, 4), "full": (3, 4, 4)}


def song_model(kind: str = "diag", seed: int = 0) -> SongModel:
    rng = np.random.default_rng(seed)
    return SongModel(
        rng.dirichlet(np.ones(3)),
        rng.dirichlet(np.ones(3), 3),
        rng.normal(size=(3, 4)),
        rng.random(COVARIANCES[kind]),
        kind,
        rng.normal(size=4),
        rng.random(4) + 0.1,
        np.arange(3),
        rng.random((4, 4)) if seed else None,
        4.0 if seed else None,
        4,
    )


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", COVARIANCES)
def test_song_model_comes_back_bit_by_bit(tmp_path: Path, kind: str, seed: int) -> None:
    model = song_model(kind, seed)
    save_song_model(tmp_path, "b1", "43.5", model, {"n_states": 3})
    assert names_in(tmp_path / "b1") == ["43.5.json", "43.5.npz"]
    loaded, facts = load_song_model(tmp_path, "b1", "43.5")
    for name, value in vars(model).items():
        np.testing.assert_array_equal(getattr(loaded, name), value, err_msg=name)
    assert (facts["bird"], facts["age"], facts["n_states"]) == ("b1", "43.5", 3)


def test_song_model_is_plain_arrays_for_any_reader(tmp_path: Path) -> None:
    save_song_model(tmp_path, "b1", "43", song_model(), {})
    with np.load(tmp_path / "b1" / "43.npz", allow_pickle=False) as arrays:
        dtypes = {name: arrays[name].dtype for name in arrays.files}
    names = ("start_probs", "transition_matrix", "means", "covariances")
    assert dtypes == dict.fromkeys(names, np.dtype(np.float64)) | {"state_of": np.dtype(np.int64)}


@pytest.mark.parametrize("version", [2, 4, None])
def test_song_model_of_another_version_is_refused(tmp_path: Path, version: int | None) -> None:
    save_song_model(tmp_path, "b1", "43", song_model(), {})
    path = tmp_path / "b1" / "43.json"
    write_json(path, {**(read_json(path) or {}), "format_version": version})
    match = r"43\.json has the format version (2|4|None), and this code reads 3.*new folder"
    with pytest.raises(ValueError, match=match):
        load_song_model(tmp_path, "b1", "43")


def test_song_model_without_a_seal_is_refused(tmp_path: Path) -> None:
    save_song_model(tmp_path, "b1", "43", song_model(), {})
    path = tmp_path / "b1" / "43.json"
    path.write_text(json.dumps(read_json(path)))
    with pytest.raises(BrokenSealError, match=r"43\.json has no seal .an earlier version wrote it"):
        load_song_model(tmp_path, "b1", "43")


def test_song_model_under_the_name_of_another_is_refused(tmp_path: Path) -> None:
    save_song_model(tmp_path, "b1", "43", song_model(), {})
    for suffix in (".json", ".npz"):
        path = tmp_path / "b1" / f"43{suffix}"
        path.with_stem("90").write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=r"90\.json is of b1 at 43: somebody copied or renamed it"):
        load_song_model(tmp_path, "b1", "90")


def test_altered_song_model_is_refused(tmp_path: Path) -> None:
    save_song_model(tmp_path, "b1", "43", song_model(), {})
    save_song_model(tmp_path, "b1", "90", song_model(seed=1), {})
    path = tmp_path / "b1" / "43.npz"
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    for altered in (
        bytes(flipped),
        good[:-1],
        good + b"\0",
        b"",
        path.with_stem("90").read_bytes(),
    ):
        path.write_bytes(altered)
        with pytest.raises(ValueError, match=r"43\.npz does not have the hash that 43\.json gives"):
            load_song_model(tmp_path, "b1", "43")
    path.write_bytes(good)
    load_song_model(tmp_path, "b1", "43")


class Hostile:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_pickle_in_a_song_model_is_refused_and_not_run(tmp_path: Path) -> None:
    save_song_model(tmp_path, "b1", "43", song_model(), {})
    path, marker = tmp_path / "b1" / "43.npz", tmp_path / "code has run"
    content = np.array([Hostile(marker)], dtype=object)
    np.savez(path, start_probs=content, transition_matrix=1, means=1, covariances=1, state_of=1)
    facts = read_json(path.with_suffix(".json")) or {}
    facts["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    write_json(path.with_suffix(".json"), facts)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load_song_model(tmp_path, "b1", "43")
    assert not marker.exists()


def test_song_model_that_cannot_be_written_as_plain_arrays_is_refused(tmp_path: Path) -> None:
    model = song_model()
    ragged: Any = np.array([object()])
    bad = SongModel(ragged, *list(vars(model).values())[1:])
    with pytest.raises(ValueError, match="pickle"):
        save_song_model(tmp_path, "b1", "43", bad, {})
    assert names_in(tmp_path / "b1") == []
