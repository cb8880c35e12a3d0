"""What the driver does for each bird and age of the HMM stage, at 12, 120 and 1,200 of them.

python -m benchmarks.hmm_growth

The stage itself runs (`study.hmms.stage.find_n_states`: latents read, journal, tables, models) on
tiny made-up latents. Searches come back at once: each is the search of the first bird, done
before. Times are CPU times of this process. "again" is the same command after all searches were
done, from the journal; "chained" has ages that start from the one before.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is loaded

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from data_io.files import write_json
from data_io.latents import write_latents
from data_io.recordings.table import Recording, Recordings
from models.hmm import HmmParams
from study.base.console import Console
from study.base.paths import RunPaths
from study.cluster.tasks import TaskRunner
from study.config.tree import StudyConfig
from study.hmms import fan_out
from study.hmms.stage import find_n_states
from study.hmms.task import search_task

N_AGES = 12  # of each bird
N_RECORDINGS, N_SNIPPETS, LATENT_DIM = 4, 40, 3
PARAMS = HmmParams(n_states=(2, 8), n_restarts=1, min_snippets=60, n_iter=30, max_n_states=12)


class AtOnce(TaskRunner):
    """Takes what is submitted for the result."""

    def run(
        self,
        submit: Callable[[Any], Any],
        work: Sequence[Any],
        on_result: Callable[[Any, Any], Iterable[Any] | None],
        describe: Callable[[Any], str],
    ) -> None:
        """As `TaskRunner.run`, one task after the other."""
        waiting = list(reversed(work))
        while waiting:
            one = waiting.pop()
            waiting += on_result(one, submit(one)) or ()


def made_up(root: Path, n: int) -> tuple[RunPaths, Recordings]:
    """Latents of so many birds and ages."""
    paths, recordings = RunPaths(root), []
    for i in range(n):
        bird, age = f"bird{i // N_AGES}", str(40 + i % N_AGES)
        rng = np.random.default_rng(i)
        kinds = rng.normal(0, 2.5, (3, LATENT_DIM))
        latents = []
        for j in range(N_RECORDINGS):
            z = kinds[rng.integers(3, size=N_SNIPPETS)] + rng.normal(size=(N_SNIPPETS, LATENT_DIM))
            latents.append(
                (f"{bird}/{age}/songs/{j}.wav", z.astype(np.float32), np.ones(len(z), "f4"))
            )
            recordings.append(Recording(bird, age, int(age), None, latents[-1][0]))
        write_latents(paths.latents, bird, age, latents, 0.064, LATENT_DIM, {})
    still = {"mean": [0.0] * LATENT_DIM, "std": [1.0] * LATENT_DIM}
    write_json(paths.whitening, still)
    return paths, Recordings.from_rows(recordings)


def driver_ms(n: int, is_chained: bool = False) -> dict[str, float]:
    """Milliseconds of the driver's CPU for each of ``n`` birds and ages.

    Returns:
        "first": of a run that does all searches; "again": of one that finds all done.
    """
    known: list[Any] = []

    def remote(bird_age: tuple[str, str], *rest: Any) -> Any:
        if not known:
            search = search_task._function
            known.append(search(bird_age, *rest))
        row = {**known[0].selected, "bird": bird_age[0], "age": bird_age[1]}
        return dataclasses.replace(known[0], selected=row)

    config = StudyConfig(hmm=dataclasses.replace(PARAMS, is_chained=is_chained))
    original, fan_out.search_task = fan_out.search_task, SimpleNamespace(remote=remote)
    try:
        with tempfile.TemporaryDirectory() as folder:
            paths, recordings = made_up(Path(folder), n)
            rng = np.random.default_rng(0)
            whitening = np.zeros(LATENT_DIM), np.ones(LATENT_DIM)
            some = [rng.normal(size=(N_SNIPPETS, LATENT_DIM)) for _ in range(N_RECORDINGS)]
            remote(("bird0", "40"), some, whitening, 0, config.hmm, None)
            found = {}
            for name in ("first", "again"):
                started = time.process_time()
                find_n_states(config, recordings, paths, Console(StringIO()), "x", AtOnce())
                found[name] = 1000 * (time.process_time() - started) / n
            return found
    finally:
        fan_out.search_task = original


def main() -> None:
    """Print milliseconds for each bird and age, and the last over the first."""
    numbers = (12, 120, 1200)
    print(f"load average: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(
        "driver's CPU for each bird and age, ms"
        + "".join(f"{n:>9,}" for n in numbers)
        + "   last/first"
    )
    driver_ms(12)  # whatever happens once
    for text, is_chained in (("", False), (", chained", True)):
        rows = [driver_ms(n, is_chained) for n in numbers]
        for name in ("first", "again"):
            values = [row[name] for row in rows]
            cells = "".join(f"{value:9.2f}" for value in values)
            print(f"{name + text:38}{cells}{values[-1] / values[0]:13.2f}", flush=True)


if __name__ == "__main__":
    main()
