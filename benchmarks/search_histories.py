"""Seeded histories of a search: kills, lost replies, two commands, other settings; what must hold.

    python -m benchmarks.search_histories                    10,000 histories, about half an hour
    python -m benchmarks.search_histories --n 200 --first 0
    python -m benchmarks.search_histories --seed 17          one history, and its story

`tests/helpers/search_simulator.py` says what is real in it and what is pretended. A history is its
seed. It prints the histories, their steps and faults, and of each failure the command that plays it
again.
"""

import argparse
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

from tests.helpers.search_simulator import World, run_history

MEMORY = Path("/dev/shm")  # a file system in memory, where there is one
N_OF_A_PROCESS = 500  # histories: torch, Optuna and pyarrow keep memory
Counted = tuple[int, Counter[str], str]  # steps, faults, and the error; "" where all held


def play(seed: int) -> World:
    """Play one history in a folder of its own."""
    root = Path(tempfile.mkdtemp(prefix="history-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        return run_history(seed, root)
    finally:
        shutil.rmtree(root)


def count(under_way: Path, seed: int) -> Counted:
    """Play a history, whose seed is the name of a file in ``under_way`` meanwhile."""
    note = under_way / str(seed)
    note.touch()
    try:
        world = play(seed)
    except Exception as error:
        return 0, Counter(), f"{type(error).__name__}: {error}"
    finally:
        note.unlink()
    return world.n_steps, world.faults, ""


def play_all(seeds: Sequence[int], n_processes: int) -> Iterator[tuple[int, Counted]]:
    """Play histories in processes of their own; each seed with what came of it, in order.

    Raises:
        SystemExit: a process died; its seed is among those that are named.
    """
    n_at_once = N_OF_A_PROCESS * n_processes
    for first in range(0, len(seeds), n_at_once):
        some = seeds[first : first + n_at_once]
        with tempfile.TemporaryDirectory() as under_way:
            pool = ProcessPoolExecutor(n_processes, multiprocessing.get_context("fork"))
            try:
                with pool:
                    found = pool.map(partial(count, Path(under_way)), some)
                    yield from zip(some, found, strict=True)
            except BrokenProcessPool as error:
                left = " or ".join(sorted(path.name for path in Path(under_way).iterdir()))
                raise SystemExit(
                    f"A process died in history {left}. Play it alone: python -m "
                    "benchmarks.search_histories --seed N"
                ) from error


def main() -> None:
    """Play histories, and print what they were and which failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=10_000, help="histories")
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, help="this history alone")
    options = parser.parse_args()
    if options.seed is not None:
        print("\n".join(play(options.seed).story))
        return
    started = time.monotonic()
    n_steps, faults, failures = 0, Counter[str](), {}
    seeds = range(options.first, options.first + options.n)
    for seed, (steps, found, error) in play_all(seeds, options.processes):
        n_steps += steps
        faults += found
        if error:
            failures[seed] = error
            print(f"{error[:300]}\n  python -m benchmarks.search_histories --seed {seed}",
                  flush=True)  # fmt: skip
    print(f"{options.n:,} histories, {n_steps:,} steps, {faults.total():,} faults, "
          f"{len(failures)} failures")  # fmt: skip
    for kind, n in faults.most_common():
        print(f"  {n:7,}  {kind}")
    seconds = time.monotonic() - started
    print(f"{seconds:.0f} s, {1000 * seconds / options.n:.0f} ms a history")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
