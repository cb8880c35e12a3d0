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
from pathlib import Path

from tests.helpers.search_simulator import World, run_history

MEMORY = Path("/dev/shm")  # a file system in memory, where there is one


def play(seed: int) -> World:
    """Play one history in a folder of its own."""
    root = Path(tempfile.mkdtemp(prefix="history-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        return run_history(seed, root)
    finally:
        shutil.rmtree(root)


def count(seed: int) -> tuple[int, Counter[str], str]:
    """Steps, faults and the error of a history; the error is empty where all held."""
    try:
        world = play(seed)
    except Exception as error:
        return 0, Counter(), f"{type(error).__name__}: {error}"
    return world.n_steps, world.faults, ""


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
    # A process lives for some histories only: torch, Optuna and pyarrow keep memory.
    with multiprocessing.get_context("fork").Pool(options.processes, maxtasksperchild=500) as pool:
        for seed, (steps, found, error) in zip(seeds, pool.imap(count, seeds), strict=True):
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
