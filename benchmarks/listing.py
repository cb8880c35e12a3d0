"""A million recordings on the driver: listed, held, split and written.

    python -m benchmarks.listing
    python -m benchmarks.listing --recordings 100000 --folder /mnt/nfs

The files are empty and their names made up, in the flat layout of Sound Analysis Pro: 20 birds, 50
days. They lie on tmpfs (/dev/shm), where calls cost the least: what is measured is our own work,
not a disk. A process of its own lists them, with the code of a study, and then takes them for
read: it fills in what a task finds out about each, splits them, and writes and reads the table.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is loaded

import argparse
import datetime
import hashlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data_io.names.file_names import SAP_DAY_0
from data_io.names.listing import survey
from data_io.recordings.split import assign_split
from data_io.recordings.table import Recordings, data_hash, skip_duplicates
from data_io.store import read_recordings, write_recordings

N_BIRDS, N_DAYS = 20, 50
FIRST_DAY = datetime.date(2018, 8, 15)
APART_MS = 20_000  # from song to song


def make_files(root: Path, n: int) -> None:
    """Make empty files of ``N_BIRDS`` birds on ``N_DAYS`` days."""
    n_each = max(n // (N_BIRDS * N_DAYS), 1)
    for bird in range(N_BIRDS):
        folder = root / f"bird{bird}"
        folder.mkdir()
        for i in range(N_DAYS):
            day = FIRST_DAY + datetime.timedelta(days=i)
            head = f"{folder}/bird{bird}_{(day - SAP_DAY_0).days}"
            for j in range(n_each):
                ms = 25_000_000 + j * APART_MS
                s = ms // 1000
                clock = f"{day.month}_{day.day}_{s // 3600}_{s // 60 % 60}_{s % 60}"
                os.close(os.open(f"{head}.{ms}_{clock}.wav", os.O_CREAT, 0o644))


def as_read(listed: Recordings) -> Recordings:
    """The recordings with what a task finds out, bird and age by bird and age, as they come."""
    parts = []
    for group in listed.by_bird_age().values():
        hashes = [hashlib.sha256(path.encode()).hexdigest() for path in group.column("path")]
        filled = group.with_column("sha256", hashes)
        n = len(group)
        for column, value in (("seconds", 3.0), ("n_frames", 751), ("sound_s", 1.5)):
            kind = listed.table.schema.field(column).type.to_pandas_dtype()
            filled = filled.with_column(column, np.full(n, value, kind))
        parts.append(filled)
    return Recordings.joined(parts)


def split(recordings: Recordings) -> Recordings:
    """The recordings without copies, each on its side."""
    return assign_split(skip_duplicates(recordings), 0.15, 0.15, seed=0)


def measured(what: str, n: int, work: Callable[..., Any], *inputs: Any) -> Any:
    """Do the work; print its seconds and the process's memory."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work(*inputs)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{what:28}{wall:8.1f} s{1e6 * cpu / n:8.1f} us{peak_mb():8.0f} MB", flush=True)
    return result


def held(recordings: Recordings) -> str:
    """Bytes of the columns for each recording."""
    return f"{recordings.table.nbytes / len(recordings):.0f} bytes a recording"


def peak_mb() -> float:
    """The most memory that this process has had."""
    in_kb = sys.platform != "darwin"
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e3 if in_kb else 1e6)


def look(root: Path, table: Path) -> None:
    """What the driver of a study does with its recordings, step by step."""
    n = sum(len(files) for _, _, files in os.walk(root))
    print(f"{n:,} files; {peak_mb():.0f} MB before")
    print(f"{'':28}{'time':>10}{'CPU for one':>11}{'most memory':>11}")
    found = measured("listed", n, survey, root)
    listed = found.recordings
    print(f"  held: {held(listed)}; notes: {found.notes}")
    del found
    read = measured("taken for read", n, as_read, listed)
    del listed
    print(f"  held: {held(read)}")
    whole = measured("copies, split", n, split, read)
    del read
    measured("written", n, write_recordings, table, whole)
    del whole
    again = measured("read again", n, read_recordings, table)
    measured("hashed", n, data_hash, again)
    print(f"  on disk: {table.stat().st_size / n:.0f} bytes a recording")


def main() -> None:
    """Make the files, and let a process of its own list them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where files lie")
    parser.add_argument("--look", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.look:
        with tempfile.TemporaryDirectory() as folder:
            look(options.look, Path(folder) / "recordings.parquet")
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        make_files(Path(folder), options.recordings)
        # What this process has used at most would count as used by its child.
        command = [sys.executable, "-m", "benchmarks.listing", "--look", folder]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
