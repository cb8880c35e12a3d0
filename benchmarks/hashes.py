"""The time that hashes of all files of a stage take: of many small files, and of large ones.

    python -m benchmarks.hashes
    python -m benchmarks.hashes --folder /mnt/nfs --bird-ages 300

By default 1,200 birds and ages with 15 files of 20 kB each (as songs/ has), and 8 Parquet files of
250 MB (as spectrograms/ has). They lie on tmpfs (/dev/shm), so what is measured is hashing, not a
disk. Beside the hashes: sizes alone, as in versions up to 0.10.0.
"""

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_io.files import write_json
from data_io.store import write_table
from study.base.console import Console
from study.base.ledger import Ledger, StageResult
from study.base.paths import RunPaths
from study.verify import verify

N_SMALL, SMALL_BYTES = 15, 20_000
N_LARGE = 8


def write_small(paths: RunPaths, n_bird_ages: int) -> StageResult:
    """Write the small files of every bird and age."""
    for i in range(n_bird_ages):
        folder = paths.songs / f"bird{i // 4}" / str(40 + i % 4)
        folder.mkdir(parents=True)
        for j in range(N_SMALL):
            (folder / f"{j}.wav").write_bytes(os.urandom(SMALL_BYTES))
    return StageResult([paths.songs], "songs")


def write_large(paths: RunPaths, megabytes: int) -> StageResult:
    """Write a few large tables."""
    values = np.random.default_rng(0).random(megabytes * 1_000_000 // 4, np.float32)
    for i in range(N_LARGE):
        write_table(paths.spectrograms / f"{i}.parquet", pa.table({"magnitude": values}))
    return StageResult([paths.spectrograms], "spectrograms")


def compare_sizes(folder: Path) -> None:
    """What versions up to 0.10.0 did at each start."""
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    assert all(path.is_file() and path.stat().st_size == size for path, size in sizes.items())


def seconds(work: Callable[[], Any]) -> float:
    """Least time of three."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def measure(name: str, folder: Path, paths: RunPaths, work: Callable[[], StageResult]) -> list[Any]:
    """A row of the table for one stage."""

    def run() -> float:
        ledger = Ledger(paths.root, paths.stages, Console(io.StringIO()), 1)
        started = time.perf_counter()
        record = ledger.run(name, {}, work)
        wanted[name] = record.key
        return time.perf_counter() - started - record.seconds * (not record.was_skipped)

    def whole() -> None:
        assert verify(paths.root, Console(io.StringIO())), f"{name}: verify finds a fault"

    wanted: dict[str, str] = {}
    recorded = run()
    skipped, sizes = seconds(run), seconds(lambda: compare_sizes(folder))
    files = [path for path in folder.rglob("*") if path.is_file()]
    giga = sum(path.stat().st_size for path in files) / 1e9
    write_json(paths.study, {"wanted": wanted})
    return [name, len(files), giga, recorded, sizes, skipped, seconds(whole)]


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="/dev/shm")
    parser.add_argument("--bird-ages", type=int, default=1200)
    parser.add_argument("--megabytes", type=int, default=250, help="of each large file")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as root:
        small, large = RunPaths(Path(root, "small")), RunPaths(Path(root, "large"))
        rows.append(
            measure("songs", small.songs, small, lambda: write_small(small, options.bird_ages))
        )
        rows.append(
            measure(
                "spectrograms", large.spectrograms, large,
                lambda: write_large(large, options.megabytes),
            )
        )  # fmt: skip
    header = ["stage", "files", "GB", "record s", "sizes s", "skip s", "verify s"]
    Console().table(header, rows)


if __name__ == "__main__":
    main()
