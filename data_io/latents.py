"""Latents in Parquet: one row per snippet, one file per bird and age, as spectrograms."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_io.store import check_columns, metadata, partition, read_table, write_table


def _latents_schema(latent_dim: int) -> pa.Schema:
    return pa.schema(
        [
            ("recording", pa.string()),
            ("index", pa.int32()),
            ("start_s", pa.float64()),
            ("sound_share", pa.float32()),
            ("z", pa.list_(pa.float32(), latent_dim)),
        ]
    )


def write_latents(
    folder: Path,
    bird: str,
    age: str,
    latents: Iterable[tuple[str, NDArray[np.float32], NDArray[np.float32]]],
    hop_s: float,
    latent_dim: int,
    facts: dict[str, Any],
) -> int:
    """Write one row per snippet of one bird and age; give the number of rows.

    Args:
        folder: of all latents.
        bird: name.
        age: name of the age's folder.
        latents: (recording's path, [n_snippets, latent_dim] in order, [n_snippets] share of the
            frames of each snippet that hold sound).
        hop_s: seconds from the start of a snippet to that of the next.
        latent_dim: numbers in a latent.
        facts: on how they were made; the file keeps them.
    """
    names: list[str] = []
    indices: list[NDArray[np.int32]] = []
    values: list[NDArray[np.float32]] = []
    shares: list[NDArray[np.float32]] = []
    for name, z, share in latents:
        names += [name] * len(z)
        indices.append(np.arange(len(z), dtype=np.int32))
        values.append(z)
        shares.append(share)
    index = np.concatenate(indices) if indices else np.zeros(0, np.int32)
    flat = np.concatenate(values).ravel() if values else np.zeros(0, np.float32)
    schema = _latents_schema(latent_dim).with_metadata(metadata(bird, age, facts))
    columns = [
        pa.array(names, pa.string()),
        pa.array(index),
        pa.array(index * hop_s),
        pa.array(np.concatenate(shares) if shares else np.zeros(0), pa.float32()),
        pa.FixedSizeListArray.from_arrays(pa.array(flat), latent_dim),
    ]
    write_table(partition(folder, bird, age), pa.table(columns, schema=schema))
    return len(names)


def read_latents(folder: Path, bird: str, age: str) -> dict[str, NDArray[np.float32]]:
    """Latents [n_snippets, latent_dim] of every recording of a bird and age, in stored order."""
    table = _read(folder, bird, age)
    z = pc.list_flatten(table["z"]).to_numpy()
    return _by_recording(table, z.reshape(-1, table.schema.field("z").type.list_size))


def read_sound_shares(folder: Path, bird: str, age: str) -> dict[str, NDArray[np.float32]]:
    """Share of the frames of each snippet that hold sound [n_snippets], as `read_latents`."""
    table = _read(folder, bird, age)
    return _by_recording(table, table["sound_share"].to_numpy())


def _read(folder: Path, bird: str, age: str) -> pa.Table:
    path = partition(folder, bird, age)
    table = read_table(path)
    z_type = table.schema.types[-1]
    latent_dim = z_type.list_size if pa.types.is_fixed_size_list(z_type) else 0
    check_columns(path, table.schema, _latents_schema(latent_dim))
    return table


def _by_recording(table: pa.Table, values: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    names = np.array(table["recording"].to_pylist(), dtype=object)
    starts = np.flatnonzero(np.r_[len(names) > 0, names[1:] != names[:-1]])
    ends = np.r_[starts[1:], len(names)][: len(starts)]
    return {names[s]: values[s:e] for s, e in zip(starts, ends, strict=True)}
