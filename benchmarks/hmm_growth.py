"""What the driver does for each bird and age of the HMM stage, at 12, 120 and 1,200 of them.

    python -m benchmarks.hmm_growth
    python -m benchmarks.hmm_growth --birds-and-ages 12 120

The stage itself runs (`study.hmms.stage.find_n_states`: latents read, journal, tables, models) on
tiny made-up latents. Its tasks come back at once: each gives what the first of its kind gave, which
was done before. Times are CPU times of this process. "again" is the same command after all tasks
were done, from the journal; "chained" has ages that start from the one before.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is loaded

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from data_io.files import write_json
from data_io.latents import write_latents
from data_io.recordings.table import Recording, Recordings
from data_io.snippets import SnippetParams
from models.hmm import HmmParams
from study.base.console import Console
from study.base.paths import RunPaths
from study.config.tree import StudyConfig
from study.hmms import ages, fan_out
from study.hmms.rows import Row
from study.hmms.stage import find_n_states
from study.hmms.tables import Searched
from tests.helpers.tasks import InTurn

N_AGES = 12  # of each bird
N_RECORDINGS, N_SNIPPETS, LATENT_DIM = 4, 40, 3
HOP = SnippetParams().n_frames  # snippets side by side: overlapping ones would be too few
PARAMS = HmmParams(n_states=(2, 8), n_restarts=1, min_snippets=60, n_iter=30, max_n_states=12)


class OnceForAll:
    """A Ray task that is done once, here: every other bird and age gets the same result.

    Args:
        task: of Ray, which gives a `Searched`.
        place: of what holds bird and age among its arguments.
    """

    def __init__(self, task: Any, place: Callable[[tuple[Any, ...]], tuple[str, str]]):
        self._function = task._function
        self._place = place
        self._known: Searched | None = None

    def remote(self, *args: Any) -> Searched:
        """The result, with the bird and age of these arguments."""
        if self._known is None:
            self._known = self._function(*args)
        bird, age = self._place(args)
        here = {"bird": bird, "age": age}

        def moved(row: Row) -> Row:
            return {name: here.get(name, value) for name, value in row.items()}

        known = self._known
        fits = [moved(row) for row in known.fits]
        return dataclasses.replace(known, fits=fits, selected=moved(known.selected))


def of_songs(args: tuple[Any, ...]) -> tuple[str, str]:
    """Bird and age of `AgeSongs`, which come first."""
    return args[0].selected["bird"], args[0].selected["age"]


TASKS = (
    (fan_out, "search_task", OnceForAll(fan_out.search_task, lambda args: args[0])),
    (ages, "matched_task", OnceForAll(ages.matched_task, of_songs)),
    (ages, "ages_task", OnceForAll(ages.ages_task, of_songs)),
)


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
    params = dataclasses.replace(PARAMS, is_chained=is_chained)
    config = StudyConfig(hmm=params, snippets=SnippetParams(hop=HOP))
    with ExitStack() as stack:
        for module, name, task in TASKS:
            stack.enter_context(mock.patch.object(module, name, task))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        paths, recordings = made_up(Path(folder), n)
        found = {}
        for name in ("first", "again"):
            started = time.process_time()
            rows = find_n_states(config, recordings, paths, Console(StringIO()), "x", InTurn())
            found[name] = 1000 * (time.process_time() - started) / n
            assert all(row["status"] == "ok" for row in rows)
        return found


def main() -> None:
    """Print milliseconds for each bird and age, and the last over the first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--birds-and-ages", type=int, nargs="+", default=[12, 120, 1200])
    numbers = parser.parse_args().birds_and_ages
    print(f"load average: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(
        "driver's CPU for each bird and age, ms"
        + "".join(f"{n:>9,}" for n in numbers)
        + "   last/first"
    )
    driver_ms(min(numbers))  # the tasks themselves, and whatever else happens once
    for text, is_chained in (("", False), (", chained", True)):
        rows = [driver_ms(n, is_chained) for n in numbers]
        for name in ("first", "again"):
            values = [row[name] for row in rows]
            cells = "".join(f"{value:9.2f}" for value in values)
            print(f"{name + text:38}{cells}{values[-1] / values[0]:13.2f}", flush=True)


if __name__ == "__main__":
    main()
