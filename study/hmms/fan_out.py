"""The driver's side of the HMM stage: one task for each bird and age, kept when it comes back."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import ray
from numpy.typing import NDArray

from data_io.names.ages import age_order
from data_io.recordings.table import BirdAge
from data_io.song_models import SongModel
from models.hmm import HmmParams
from study.base.console import Console, Progress
from study.base.seeds import bird_age_seed
from study.cluster.tasks import TaskRunner
from study.hmms.journal import Journal
from study.hmms.tables import Searched
from study.hmms.task import Made, search_task

Array = NDArray[np.float64]

# However few snippets a bird and age has, its search takes as long as so many snippets more would.
SNIPPETS_OF_A_START = 2000
# In the place of an age, where a task is of all ages of a bird.
ALL_AGES = "all ages"


@dataclass(frozen=True)
class Latents:
    """Where the latents of a study come from.

    Attributes:
        read: gives the whitened latents [n_snippets, latent_dim] of a bird and age, one array per
            recording.
        holds_sound: gives whether any frame of each of these snippets holds sound [n_snippets], one
            array per recording.
        sizes: snippets of every bird and age.
        made: how those of every bird and age were made.
    """

    read: Callable[[BirdAge], list[Array]]
    holds_sound: Callable[[BirdAge], list[NDArray[np.bool_]]]
    sizes: dict[BirdAge, int]
    made: dict[BirdAge, Made]


def run_left(
    left: Iterable[BirdAge],
    journal: Journal,
    submit: Callable[[BirdAge], ray.ObjectRef],
    tasks: TaskRunner,
    console: Console,
    what: str,
) -> None:
    """Run a task for each that the journal does not hold, and keep what comes back.

    Args:
        left: birds and ages, or birds, each with ALL_AGES.
        journal: of this kind of task.
        submit: starts the task of one.
        tasks: runs them.
        console: shows progress.
        what: is done, for progress and errors.
    """
    left = [one for one in left if journal.load(one) is None]
    progress = Progress(console, len(left), what)

    def keep(one: BirdAge, searched: Searched) -> None:
        journal.save(one, searched)
        progress.advance()

    tasks.run(submit, left, keep, lambda one: f"{what} of {one[0]} at {one[1]}".capitalize())


class FanOut:
    """The searches of all birds and ages; after `run` the journal holds each.

    Those that take longest go first. Few are under way at a time, so that the latents of few are
    in memory. Where ages are chained, the next age of a bird goes when the one before is back.

    Args:
        latents: of all birds and ages.
        seed: of the study.
        params: of the searches.
        journal: keeps every search that came back.
        console: shows progress.
        tasks: runs the tasks.
    """

    def __init__(
        self,
        latents: Latents,
        seed: int,
        params: HmmParams,
        journal: Journal,
        console: Console,
        tasks: TaskRunner,
    ):
        self._latents = latents
        self._seed = seed
        self._params = params
        self._journal = journal
        self._console = console
        self._tasks = tasks
        self._has_model: dict[BirdAge, bool] = {}  # of every bird and age that is done
        self._ages_of: dict[str, list[BirdAge]] = {}  # of every bird, in order
        self._waiting: dict[str, deque[BirdAge]] = {}  # ages of a bird that wait for an earlier one
        self._total_weight = 0  # of the searches that were left at the start
        self._progress = Progress(console, 0, "")

    def run(self) -> None:
        """Search every bird and age that the journal does not hold."""
        sizes = self._latents.sizes
        for bird_age in sizes:
            searched = self._journal.load(bird_age)
            if searched is not None:
                self._has_model[bird_age] = searched.model is not None
        if self._has_model:
            text = f"{len(self._has_model):,} of {len(sizes):,} birds and ages"
            self._console.note(f"{text} were done before")
        left = [bird_age for bird_age in sizes if bird_age not in self._has_model]
        self._total_weight = sum(map(self._weight, left))
        self._progress = Progress(self._console, len(left), "birds and ages")
        first = self._first_ages(left) if self._params.is_chained else self._longest_first(left)
        self._tasks.run(self._submit, first, self._keep, self._describe)

    def _weight(self, bird_age: BirdAge) -> int:
        return SNIPPETS_OF_A_START + self._latents.sizes[bird_age]

    def _longest_first(self, left: list[BirdAge]) -> list[BirdAge]:
        return sorted(left, key=lambda bird_age: (-self._weight(bird_age), bird_age))

    def _first_ages(self, left: list[BirdAge]) -> list[BirdAge]:
        """The first age of every bird that is not done; those after it wait for its model."""
        for bird_age in sorted(self._latents.sizes, key=lambda one: age_order(one[1])):
            self._ages_of.setdefault(bird_age[0], []).append(bird_age)
        for bird_age in sorted(left, key=lambda one: age_order(one[1])):
            self._waiting.setdefault(bird_age[0], deque()).append(bird_age)
        weights = {bird: sum(map(self._weight, ages)) for bird, ages in self._waiting.items()}
        in_order = sorted(weights, key=lambda bird: (-weights[bird], bird))
        return [self._waiting[bird].popleft() for bird in in_order]

    def _submit(self, bird_age: BirdAge) -> ray.ObjectRef:
        return search_task.remote(
            bird_age,
            self._latents.read(bird_age),
            self._latents.holds_sound(bird_age),
            self._latents.made[bird_age],
            bird_age_seed(self._seed, bird_age),
            self._params,
            self._before(bird_age) if self._params.is_chained else None,
        )

    def _before(self, bird_age: BirdAge) -> SongModel | None:
        """The model of the nearest earlier age of the bird that has one."""
        ages = self._ages_of[bird_age[0]]
        for earlier in reversed(ages[: ages.index(bird_age)]):
            if self._has_model[earlier]:
                return self._journal.read(earlier).model
        return None

    def _keep(self, bird_age: BirdAge, searched: Searched) -> Iterable[BirdAge]:
        self._journal.save(bird_age, searched)
        self._has_model[bird_age] = searched.model is not None
        self._progress.advance(1, self._weight(bird_age) / self._total_weight)
        waiting = self._waiting.get(bird_age[0])
        return [waiting.popleft()] if waiting else []

    def _describe(self, bird_age: BirdAge) -> str:
        bird, age = bird_age
        lowest, highest = self._params.n_states[0], self._params.n_states[-1]
        return f"HMMs of {bird} at {age}, search from {lowest} to {highest} states,"
