"""Parquet tables of a study: recordings and spectrograms. Each is sealed against changes.

Spectrograms and latents lie in ``bird=<bird>/age=<age>/part-0.parquet``. Bird and age are in the
path (and in the file's metadata), not in columns, because readers of such a folder make columns
from the path. The column ``recording`` joins these tables to ``recordings.parquet``.
"""

import errno
import itertools
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_io.files import atomic_file, naming
from data_io.recordings.table import ROWS_AT_ONCE, SCHEMA, Recordings
from data_io.seal import check_seal, seal
from data_io.sounding import frame_energy_db, has_sound
from data_io.spectrogram import Spectrogram, SpectrogramParams, levelled

FORMAT_VERSION = "2"
N_FREQ = 129
ROW_GROUP_BYTES = 16_000_000
ROW_FRAMES = 15_000  # a minute

# Without null there is no mark of each value: reading takes a quarter of the time.
_NUMBER = pa.field("element", pa.float32(), nullable=False)
_SPECTROGRAMS = pa.schema(
    [
        ("recording", pa.string()),
        ("n_frames", pa.int64()),
        # [N_FREQ, n_frames], row after row
        ("magnitude", pa.large_list(_NUMBER)),
        # Of same_sound.py: they find the same sound in files that are added later.
        ("anchors", pa.list_(pa.uint64())),
        ("anchors_at", pa.list_(pa.int64())),
    ]
)


class BrokenFileError(RuntimeError):
    """A file of the study cannot be read; the message names it and the remedy."""


def _broken(path: Path, reason: object) -> BrokenFileError:
    return BrokenFileError(
        f"{path} cannot be read ({reason}). Delete it and run the same command again: the stage "
        "that wrote it will write it anew."
    )


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Say of errors over altered bytes that the file is broken.

    Raises:
        BrokenFileError: the file is missing, cut short or altered.
        OSError: the disk does not give it; the error names it. Nothing is known of its bytes.
    """
    try:
        with naming(path):
            yield
    # Altered bytes end in any of these: column names have no checksum and may no longer be UTF-8,
    # and column types of other packages fail over a pickle in their own ways.
    except (OSError, pa.ArrowException, ValueError, TypeError, KeyError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
            raise
        if isinstance(error, FileNotFoundError):
            raise BrokenFileError(
                f"{path} is missing. Run the same command again: the stage that wrote it will "
                "write it anew."
            ) from error
        raise _broken(path, error) from error


def write_table(path: Path, table: pa.Table) -> None:
    """Write ``table`` atomically, with page checksums and a seal."""
    with atomic_file(path) as temporary:
        pq.write_table(
            table, temporary, compression="zstd", write_page_checksum=True,
            row_group_size=10 * ROWS_AT_ONCE,
        )  # fmt: skip
        seal(temporary)


def read_table(
    path: Path, columns: list[str] | None = None, schema: pa.Schema | None = None
) -> pa.Table:
    """Read one Parquet file, checking its seal, and its columns against ``schema``.

    Raises:
        BrokenFileError: the file is missing, cut short or altered.
    """
    with _whole(path):
        check_seal(path)
        # ParquetFile, because read_table would make columns from "bird=" and "age=" in the path.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if schema is not None:
                check_columns(path, file.schema_arrow, schema)
            return file.read(columns=columns)


def check_columns(path: Path, found: pa.Schema, expected: pa.Schema) -> None:
    """Page checksums do not cover the columns' names and types."""
    if not found.equals(expected):
        raise _broken(path, "its columns are not the expected ones")


def write_rows(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    """Write dictionaries as one table of ``schema``."""
    write_table(path, pa.Table.from_pylist(rows, schema=schema))


def partition(folder: Path, bird: str, age: str) -> Path:
    """Path of the file of one bird and age below ``folder``."""
    return folder / f"bird={bird}" / f"age={age}" / "part-0.parquet"


def metadata(bird: str, age: str, facts: dict[str, Any]) -> dict[bytes, bytes]:
    """Facts for the footer of the file of a bird and age."""
    content = {"format_version": FORMAT_VERSION, "bird": bird, "age": age, **facts}
    return {b"birdsong": json.dumps(content).encode()}


def write_recordings(path: Path, recordings: Recordings) -> None:
    """Write one row per recording."""
    write_table(path, recordings.table)


def read_recordings(path: Path) -> Recordings:
    """Read what `write_recordings` wrote."""
    return Recordings(read_table(path, schema=SCHEMA))


class Stored(NamedTuple):
    """The stored sound of one recording.

    Attributes:
        recording: its path.
        magnitude: [N_FREQ, n_frames] |STFT| after the high-pass, at the level of the file.
        anchors: [n] hashes of same_sound.py.
        anchors_at: [n] sample of the file at which each lies.
    """

    recording: str
    magnitude: NDArray[np.float32]
    anchors: NDArray[np.uint64] = np.zeros(0, np.uint64)
    anchors_at: NDArray[np.int64] = np.zeros(0, np.int64)


def write_spectrograms(
    folder: Path,
    bird: str,
    age: str,
    spectrograms: Iterable[Stored | tuple[str, Spectrogram]],
    facts: dict[str, Any],
) -> None:
    """Write the magnitudes of one bird and age, with bounded memory.

    Args:
        folder: of all spectrograms.
        bird: name.
        age: name of the age's folder.
        spectrograms: one at a time.
        facts: on how they were made; the file keeps them. They are taken after the last
            spectrogram, so that those that need all of them can be added meanwhile.
    """
    # The values are noise to a dictionary: ten times as slow, and twice the size.
    with (
        atomic_file(partition(folder, bird, age)) as temporary,
        pq.ParquetWriter(
            temporary, _SPECTROGRAMS, compression="zstd", compression_level=-3,
            write_page_checksum=True, use_dictionary=["recording"],
            use_byte_stream_split=["magnitude.list.element"],
        ) as writer,
    ):  # fmt: skip
        batch: list[Stored] = []
        for item in spectrograms:
            for row in _rows(Stored(*item)):
                batch.append(row)
                if sum(row.magnitude.nbytes for row in batch) > ROW_GROUP_BYTES:
                    writer.write_table(_spectrogram_table(batch))
                    batch = []
        if batch:
            writer.write_table(_spectrogram_table(batch))
        writer.add_key_value_metadata(metadata(bird, age, facts))
        writer.close()
        seal(temporary)


def _rows(stored: Stored) -> Iterator[Stored]:
    """Rows of at most `ROW_FRAMES`: the writer's memory is many times that of a row."""
    anchors = stored.anchors, stored.anchors_at
    for start in range(0, max(stored.magnitude.shape[1], 1), ROW_FRAMES):
        yield Stored(stored.recording, stored.magnitude[:, start : start + ROW_FRAMES], *anchors)
        anchors = anchors[0][:0], anchors[1][:0]


def _spectrogram_table(batch: list[Stored]) -> pa.Table:
    columns = [
        pa.array([stored.recording for stored in batch], pa.string()),
        pa.array([stored.magnitude.shape[1] for stored in batch], pa.int64()),
        _lists(pa.LargeListArray, [stored.magnitude for stored in batch], np.float32),
        _lists(pa.ListArray, [stored.anchors for stored in batch], np.uint64),
        _lists(pa.ListArray, [stored.anchors_at for stored in batch], np.int64),
    ]
    return pa.table(columns, schema=_SPECTROGRAMS)


def _lists(kind: Any, arrays: list[NDArray[Any]], dtype: Any) -> pa.Array:
    """One list per array; a single array, which may be long, is not copied."""
    flat = [np.asarray(array, dtype).ravel() for array in arrays]
    ends = np.cumsum([0, *(array.size for array in flat)])
    offsets = pa.array(ends, pa.int64() if kind is pa.LargeListArray else pa.int32())
    return kind.from_arrays(offsets, pa.array(flat[0] if len(flat) == 1 else np.concatenate(flat)))


def read_stored(
    folder: Path, bird: str, age: str, only: set[str] | None = None
) -> Iterator[Stored]:
    """Give what is stored of the recordings of one bird and age, a row group in memory at a time.

    Args:
        folder: of all spectrograms.
        bird: name.
        age: name of the age's folder.
        only: paths of the recordings wanted; None for all.

    Raises:
        BrokenFileError: the file is missing, cut short or altered.
    """
    path = partition(folder, bird, age)
    with _whole(path):
        check_seal(path)
        with pq.ParquetFile(path) as file:
            check_columns(path, file.schema_arrow, _SPECTROGRAMS)
            for _, rows in itertools.groupby(_stored_rows(file, only), lambda row: row.recording):
                first, *others = rows
                magnitudes = [first.magnitude, *(row.magnitude for row in others)]
                yield (
                    first._replace(magnitude=np.concatenate(magnitudes, axis=1))
                    if others
                    else first
                )


def _stored_rows(file: pq.ParquetFile, only: set[str] | None) -> Iterator[Stored]:
    for i in range(file.num_row_groups):
        table = file.read_row_group(i)
        for row, name in enumerate(table["recording"].to_pylist()):
            if only is None or name in only:
                magnitude, anchors, at = (
                    table[column][row].values.to_numpy()
                    for column in ("magnitude", "anchors", "anchors_at")
                )
                yield Stored(name, magnitude.reshape(N_FREQ, -1), anchors, at)


def read_anchors(
    folder: Path, bird: str, age: str
) -> dict[str, tuple[NDArray[np.uint64], NDArray[np.int64]]]:
    """Anchors of every stored recording of a bird and age, and where they lie.

    Raises:
        BrokenFileError: the file is missing, cut short or altered.
    """
    columns = ["recording", "anchors", "anchors_at"]
    table = read_table(partition(folder, bird, age), columns, _SPECTROGRAMS)
    found: dict[str, tuple[NDArray[np.uint64], NDArray[np.int64]]] = {}
    for name, *lists in zip(*(table[column] for column in columns), strict=True):
        anchors, at = (one.values.to_numpy() for one in lists)
        found.setdefault(name.as_py(), (anchors, at))  # the first row of a recording has them
    return found


def spectrogram_facts(folder: Path, bird: str, age: str) -> dict[str, Any]:
    """Facts that `write_spectrograms` stored on how the spectrograms were made.

    It does not check the seal, as this would read the whole file; readers of spectrograms do.

    Raises:
        BrokenFileError: the file is missing or cut short.
    """
    path = partition(folder, bird, age)
    with _whole(path):
        facts: dict[str, Any] = json.loads(pq.read_metadata(path).metadata[b"birdsong"])
    return facts


class Sounding(NamedTuple):
    """A recording as later stages see it.

    Attributes:
        recording: its path.
        spectrogram: [N_FREQ, n_frames] log(1 + magnitude) at the reference level.
        has_sound: [n_frames] whether each frame holds sound.
    """

    recording: str
    spectrogram: Spectrogram
    has_sound: NDArray[np.bool_]


def read_spectrograms(
    folder: Path, bird: str, age: str, only: set[str] | None = None
) -> Iterator[Sounding]:
    """Give the recordings of one bird and age, levelled, with the frames that hold sound.

    Args:
        folder: of all spectrograms.
        bird: name.
        age: name of the age's folder.
        only: paths of the recordings wanted; None for all.

    Raises:
        BrokenFileError: the file is missing, cut short or altered.
    """
    facts: dict[str, Any] = {}
    for stored in read_stored(folder, bird, age, only):
        if not facts:  # only now: read_stored has compared the file with its seal
            facts = spectrogram_facts(folder, bird, age)
            params = SpectrogramParams(**facts["read"]["spectrogram"])
        energy = frame_energy_db(stored.magnitude, params)
        sound = has_sound(energy, facts["noise_floor_db"], params.frame_s)
        yield Sounding(stored.recording, levelled(stored.magnitude, facts["gain"]), sound)
