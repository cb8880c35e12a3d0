"""Parquet tables of a study: recordings, spectrograms, latents. Every page carries a checksum.

Spectrograms and latents lie in ``bird=<bird>/age=<age>/part-0.parquet``. Bird and age are in the
path (and in the file's metadata), not in columns, because readers of such a folder make columns
from the path. The column ``recording`` joins these tables to ``recordings.parquet``.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_io.files import atomic_file
from data_io.recordings import Recording
from data_io.spectrogram import Spectrogram

FORMAT_VERSION = "1"
N_FREQ = 129
ROW_GROUP_BYTES = 64_000_000

_RECORDINGS = pa.schema(
    [
        ("bird", pa.string()),
        ("age", pa.string()),
        ("dph", pa.int32()),
        ("date", pa.string()),
        ("path", pa.string()),
        ("sha256", pa.string()),
        ("sample_rate_hz", pa.int32()),
        ("n_channels", pa.int32()),
        ("seconds", pa.float64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("n_frames", pa.int64()),
        ("split", pa.string()),
    ]
)
_SPECTROGRAMS = pa.schema(
    [
        ("recording", pa.string()),
        ("n_frames", pa.int64()),
        # [N_FREQ, n_frames], row after row
        ("spectrogram", pa.large_list(pa.float32())),
    ]
)


class BrokenFileError(RuntimeError):
    """A file of the study cannot be read; the message names it and the remedy."""


def _broken(path: Path, reason: object) -> BrokenFileError:
    return BrokenFileError(
        f"{path} cannot be read ({reason}). Delete it and run the same command again: the stage "
        "that wrote it will write it anew."
    )


# Altered bytes end in any of these: column names have no checksum and may no longer be UTF-8, and
# column types of other packages fail over a pickle in their own ways.
_ERRORS = (OSError, pa.ArrowException, ValueError, TypeError)


def write_table(path: Path, table: pa.Table) -> None:
    """Write ``table`` atomically, with page checksums."""
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def read_table(
    path: Path, columns: list[str] | None = None, schema: pa.Schema | None = None
) -> pa.Table:
    """Read one Parquet file, checking every page, and its columns against ``schema``.

    Raises:
        BrokenFileError: the file is missing, cut short or altered.
    """
    try:
        # ParquetFile, because read_table would make columns from "bird=" and "age=" in the path.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if schema is not None:
                _check_columns(path, file.schema_arrow, schema)
            return file.read(columns=columns)
    except _ERRORS as error:
        raise _broken(path, error) from error


def _check_columns(path: Path, found: pa.Schema, expected: pa.Schema) -> None:
    """Page checksums do not cover the columns' names and types."""
    if not found.equals(expected):
        raise _broken(path, "its columns are not the expected ones")


def write_rows(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    """Write dictionaries as one table of ``schema``."""
    write_table(path, pa.Table.from_pylist(rows, schema=schema))


def partition(folder: Path, bird: str, age: str) -> Path:
    """Path of the file of one bird and age below ``folder``."""
    return folder / f"bird={bird}" / f"age={age}" / "part-0.parquet"


def _metadata(bird: str, age: str, facts: dict[str, Any]) -> dict[bytes, bytes]:
    content = {"format_version": FORMAT_VERSION, "bird": bird, "age": age, **facts}
    return {b"birdsong": json.dumps(content).encode()}


def write_recordings(path: Path, recordings: Iterable[Recording]) -> None:
    """Write one row per recording."""
    write_rows(path, [asdict(recording) for recording in recordings], _RECORDINGS)


def read_recordings(path: Path) -> list[Recording]:
    """Read what `write_recordings` wrote."""
    names = [field.name for field in fields(Recording)]
    return [Recording(**row) for row in read_table(path, names, _RECORDINGS).to_pylist()]


def write_spectrograms(
    folder: Path,
    bird: str,
    age: str,
    spectrograms: Iterable[tuple[str, Spectrogram]],
    facts: dict[str, Any],
) -> None:
    """Write the spectrograms of one bird and age, with bounded memory.

    Args:
        folder: of all spectrograms.
        bird: name.
        age: name of the age's folder.
        spectrograms: (recording's path, [N_FREQ, n_frames]) one at a time.
        facts: on how they were made; the file keeps them.
    """
    schema = _SPECTROGRAMS.with_metadata(_metadata(bird, age, facts))
    with (
        atomic_file(partition(folder, bird, age)) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        batch: list[tuple[str, Spectrogram]] = []
        for item in spectrograms:
            batch.append(item)
            if sum(s.nbytes for _, s in batch) > ROW_GROUP_BYTES:
                writer.write_table(_spectrogram_table(batch, schema))
                batch = []
        if batch:
            writer.write_table(_spectrogram_table(batch, schema))


def _spectrogram_table(batch: list[tuple[str, Spectrogram]], schema: pa.Schema) -> pa.Table:
    sizes = [s.size for _, s in batch]
    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int64())
    values = pa.array(np.concatenate([s.ravel() for _, s in batch]), pa.float32())
    columns = [
        pa.array([name for name, _ in batch], pa.string()),
        pa.array([s.shape[1] for _, s in batch], pa.int64()),
        pa.LargeListArray.from_arrays(offsets, values),
    ]
    return pa.table(columns, schema=schema)


def read_spectrograms(
    folder: Path, bird: str, age: str, only: set[str] | None = None
) -> Iterator[tuple[str, Spectrogram]]:
    """Give (recording's path, [N_FREQ, n_frames]) of one bird and age, a row group at a time.

    Args:
        folder: of all spectrograms.
        bird: name.
        age: name of the age's folder.
        only: paths of the recordings wanted; None for all.
    """
    path = partition(folder, bird, age)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_columns(path, file.schema_arrow, _SPECTROGRAMS)
            for i in range(file.num_row_groups):
                table = file.read_row_group(i)
                names = table["recording"].to_pylist()
                for row, name in enumerate(names):
                    if only is None or name in only:
                        flat = table["spectrogram"][row].values.to_numpy()
                        yield name, flat.reshape(N_FREQ, -1)
    except _ERRORS as error:
        raise _broken(path, error) from error


def _latents_schema(latent_dim: int) -> pa.Schema:
    return pa.schema(
        [
            ("recording", pa.string()),
            ("index", pa.int32()),
            ("time_s", pa.float64()),
            ("z", pa.list_(pa.float32(), latent_dim)),
        ]
    )


def write_latents(
    folder: Path,
    bird: str,
    age: str,
    latents: Iterable[tuple[str, NDArray[np.float32]]],
    snippet_s: float,
    latent_dim: int,
    facts: dict[str, Any],
) -> int:
    """Write one row per snippet of one bird and age; give the number of rows.

    Args:
        folder: of all latents.
        bird: name.
        age: name of the age's folder.
        latents: (recording's path, [n_snippets, latent_dim] in order).
        snippet_s: seconds from snippet to snippet.
        latent_dim: numbers in a latent.
        facts: on how they were made; the file keeps them.
    """
    names: list[str] = []
    indices: list[NDArray[np.int32]] = []
    values: list[NDArray[np.float32]] = []
    for name, z in latents:
        names += [name] * len(z)
        indices.append(np.arange(len(z), dtype=np.int32))
        values.append(z)
    index = np.concatenate(indices) if indices else np.zeros(0, np.int32)
    flat = np.concatenate(values).ravel() if values else np.zeros(0, np.float32)
    schema = _latents_schema(latent_dim).with_metadata(_metadata(bird, age, facts))
    columns = [
        pa.array(names, pa.string()),
        pa.array(index),
        pa.array(index * snippet_s),
        pa.FixedSizeListArray.from_arrays(pa.array(flat), latent_dim),
    ]
    write_table(partition(folder, bird, age), pa.table(columns, schema=schema))
    return len(names)


def read_latents(folder: Path, bird: str, age: str) -> dict[str, NDArray[np.float32]]:
    """Latents [n_snippets, latent_dim] of every recording of a bird and age, in stored order."""
    path = partition(folder, bird, age)
    table = read_table(path).combine_chunks()
    z_type = table.schema.types[-1]
    latent_dim = z_type.list_size if pa.types.is_fixed_size_list(z_type) else 0
    _check_columns(path, table.schema, _latents_schema(latent_dim))
    if table.num_rows == 0:
        return {}
    z = table["z"].chunk(0).values.to_numpy().reshape(-1, latent_dim)
    names = np.array(table["recording"].to_pylist(), dtype=object)
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
    ends = np.r_[starts[1:], len(names)]
    return {names[s]: z[s:e] for s, e in zip(starts, ends, strict=True)}
