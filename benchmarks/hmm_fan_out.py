"""The fan-out of HMM fits by Ray: what the driver takes, and what one task per bird and age costs.

    python -m benchmarks.hmm_fan_out             all cases
    python -m benchmarks.hmm_fan_out few         one of them: small, large, few

The stage itself runs (`study.hmms.stage.find_n_states`: journal, tables and models included) on
simple made-up latents, with diagonal covariances and snippets side by side, in a child process for
each number of cores, with a small grid before so that worker processes are there and kernels
compiled. CPU seconds of the fits are those that hmm_grid.parquet holds; the fits to recordings that
are not held out, one for each number of states, are not among them.

A task is the whole search of one bird and age. Where cores outnumber birds and ages, a grid could
be split into its fits: the last table schedules the measured seconds of the fits, longest first, on
more cores than this machine has, both ways. A merge search cannot be split.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is loaded

import argparse
import hashlib
import heapq
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import ray

from data_io.files import write_json
from data_io.latents import write_latents
from data_io.recordings.table import Recording, Recordings
from data_io.snippets import SnippetParams
from data_io.store import read_table
from models.hmm import HmmParams
from study.base.console import Console
from study.base.paths import ROOT, RunPaths
from study.cluster.tasks import TaskRunner
from study.config.tree import StudyConfig
from study.hmms.stage import find_n_states

SNIPPETS_PER_STATE = 4  # that follow one another
HOP = SnippetParams().n_frames  # snippets side by side: overlapping ones would be too few


@dataclass(frozen=True)
class Case:
    """A grid of made-up birds.

    Attributes:
        what: in words.
        n_birds: birds, each at one age.
        n_snippets: of each.
        latent_dim: numbers in a latent.
        n_states: numbers of states.
        n_restarts: of each.
    """

    what: str
    n_birds: int
    n_snippets: int
    latent_dim: int
    n_states: tuple[int, ...]
    n_restarts: int


CASES = {
    "small": Case("small models", 60, 300, 4, (2, 3, 4, 5, 6), 5),
    "few": Case("few birds", 12, 1000, 8, (5, 10, 15, 20, 30), 3),
    "large": Case("larger models", 8, 2500, 16, (5, 10, 20, 30, 40), 3),
}
WARM = Case("to warm up", 4, 300, 4, (2, 3), 2)


def made_up(case: Case, root: Path) -> tuple[RunPaths, Recordings]:
    """Write latents of ``case``; birds of eight kinds of snippet, ten recordings each."""
    paths, recordings = RunPaths(root), []
    for i in range(case.n_birds):
        rng = np.random.default_rng(i)
        kinds = rng.normal(0, 1.5, (8, case.latent_dim))
        latents = []
        for j in range(10):
            states = rng.integers(8, size=case.n_snippets // 10 // SNIPPETS_PER_STATE + 1)
            states = states.repeat(SNIPPETS_PER_STATE)[: case.n_snippets // 10]
            z = kinds[states] + rng.normal(size=(len(states), case.latent_dim))
            name = f"bird{i}/60/songs/{j}.wav"
            latents.append((name, z.astype(np.float32), np.ones(len(z), "f4")))
            recordings.append(Recording(f"bird{i}", "60", 60, None, name))
        write_latents(paths.latents, f"bird{i}", "60", latents, 0.064, case.latent_dim, {})
    still = {"mean": [0.0] * case.latent_dim, "std": [1.0] * case.latent_dim}
    write_json(paths.whitening, still)
    return paths, Recordings.from_rows(recordings)


def run(case: Case, root: Path) -> dict[str, Any]:
    """The stage on ``case``: seconds, CPU of driver and fits, number of fits, hash of the table."""
    paths, recordings = made_up(case, root)
    params = HmmParams(
        n_states=case.n_states, n_restarts=case.n_restarts, search="grid", covariance_type="diag"
    )
    config = StudyConfig(hmm=params, snippets=SnippetParams(hop=HOP))
    wall, cpu = time.perf_counter(), time.process_time()
    rows = find_n_states(config, recordings, paths, Console(StringIO()), "latents", TaskRunner())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert all(row["status"] == "ok" for row in rows), rows[0]["reason"]
    grid = read_table(paths.hmm_grid)
    numbers = grid.drop_columns(["seconds"]).to_pylist()
    seconds_of: dict[str, list[float]] = {}
    for row in grid.select(["bird", "seconds"]).to_pylist():
        seconds_of.setdefault(row["bird"], []).append(row["seconds"])
    return {
        "n_fits": grid.num_rows,
        "wall_s": wall,
        "driver_cpu_s": cpu,
        "fits_cpu_s": sum(grid["seconds"].to_pylist()),
        "seconds_of": seconds_of,
        "sha256": hashlib.sha256(json.dumps(numbers).encode()).hexdigest(),
    }


def child(case: str, n_cores: int) -> None:
    """Run a case with Ray on so many cores; print the result as JSON."""
    env = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    ray.init(num_cpus=n_cores, include_dashboard=False, log_to_driver=False,
             logging_level="ERROR", runtime_env={"env_vars": env})  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run(WARM, Path(folder) / "warm")
        print(json.dumps(run(CASES[case], Path(folder) / case)))


def makespan(seconds: list[float], n_cores: int) -> float:
    """Seconds until all tasks are done, the longest first, each on the first core that is free."""
    ends = [0.0] * n_cores
    for one in sorted(seconds, reverse=True):
        heapq.heappush(ends, heapq.heappop(ends) + one)
    return max(ends)


def show_splitting(seconds_of: dict[str, list[float]]) -> None:
    """Print what splitting each grid into its fits would gain on more cores."""
    whole = [sum(seconds) for seconds in seconds_of.values()]
    fits = [one for seconds in seconds_of.values() for one in seconds]
    print(f"{'':15} scheduled on cores:  one task per bird and age   one task per fit   ratio")
    for n_cores in (2, 12, 50, 350):
        one, other = makespan(whole, n_cores), makespan(fits, n_cores)
        print(f"{'':15} {n_cores:18} {one:26.2f}s {other:17.2f}s {one / other:7.2f}")


def main() -> None:
    """Print one row per case and number of cores, then the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all without")
    parser.add_argument("--child", type=int, metavar="CORES", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.cases) - CASES.keys():
        parser.error(f"there is no case {', '.join(unknown)}")
    if options.child:
        child(options.cases[0], options.child)
        return
    print(f"load average at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print("case            cores   fits  seconds  fits/min  fits' CPU  driver's CPU  driver/all")
    for name in options.cases or list(CASES):
        case = CASES[name]
        found = {}
        for n_cores in (1, 2):
            command = [sys.executable, "-m", "benchmarks.hmm_fan_out", name, f"--child={n_cores}"]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[n_cores] = one = json.loads(done.stdout.splitlines()[-1])
            share = one["driver_cpu_s"] / (one["driver_cpu_s"] + one["fits_cpu_s"])
            print(
                f"{case.what:15} {n_cores:5} {one['n_fits']:6} {one['wall_s']:8.1f} "
                f"{60 * one['n_fits'] / one['wall_s']:9,.0f} {one['fits_cpu_s']:9.1f}s "
                f"{one['driver_cpu_s']:12.2f}s {share:11.1%}",
                flush=True,
            )
        speedup = found[1]["wall_s"] / found[2]["wall_s"]
        per_search = 1000 * found[2]["driver_cpu_s"] / case.n_birds
        equal = "the same" if found[1]["sha256"] == found[2]["sha256"] else "DIFFERENT"
        print(f"{'':15} 2 cores are {speedup:.2f} times as fast as 1; {equal} numbers; the driver")
        print(f"{'':15} takes {per_search:.1f} ms of CPU for each bird and age")
        show_splitting(found[1]["seconds_of"])
    print(f"load average at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
