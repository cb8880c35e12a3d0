"""The driver's side of the HMM stage: which task comes next, and what is kept of its outcome.

Birds and ages go one after the other, those that take longest first, so that the latents of few
are in memory at a time. What comes back goes to the journal at once.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import ray
from numpy.typing import NDArray

from data_io.recordings import BirdAge, age_order
from data_io.song_models import SongModel
from models.hmm import HmmFit, HmmParams, select_by_bic
from models.hmm.grid import first_numbers, missing_fits
from study.base.console import Console, Progress
from study.base.seeds import piece_seed
from study.cluster.tasks import TaskRunner, n_cores
from study.hmms.journal import Entry, Journal
from study.hmms.tables import fit_of
from study.hmms.tasks import Outcome, conclusion_task, fits_task, search_task
from study.hmms.work import (
    SEARCH,
    Work,
    batch_seconds,
    describe,
    fit_seconds,
    plan_batches,
    search_seconds,
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Latents:
    """Where the latents of a study come from.

    Attributes:
        of: gives the whitened latents [n_snippets, latent_dim] of a bird and age, one array per
            recording.
        sizes: snippets of every bird and age.
        whitening: mean and standard deviation [latent_dim] of every bird and age, those of its
            decoder.
    """

    of: Callable[[BirdAge], list[Array]]
    sizes: dict[BirdAge, int]
    whitening: dict[BirdAge, tuple[Array, Array]]

    @property
    def latent_dim(self) -> int:
        """Numbers in a latent, the same for all decoders of a study."""
        mean, _ = next(iter(self.whitening.values()))
        return len(mean)


class FanOut:
    """The searches of all birds and ages; after `run` each has a concluded entry in the journal.

    Args:
        latents: of all birds and ages.
        seed: of the study.
        params: of the searches. Ages are chained in a merge search alone: the fits of a grid begin
            with starts of their own.
        journal: what is done, and where the rest goes.
        console: shows progress.
        max_tasks: that run at once (``resources.max_tasks``).
    """

    def __init__(
        self,
        latents: Latents,
        seed: int,
        params: HmmParams,
        journal: Journal,
        console: Console,
        max_tasks: int | None = None,
    ):
        self._latents = latents
        self._sizes = latents.sizes
        self._seed = seed
        self._params = params
        self._journal = journal
        self._console = console
        self._max_tasks = max_tasks
        self._is_grid = params.search == "grid"
        self._is_chained = params.is_chained and not self._is_grid
        self._concluded: set[BirdAge] = set()
        self._fits: dict[BirdAge, list[HmmFit]] = {}  # of a grid, without models
        # Name in the journal of what holds a fit, by bird and age, then (n_states, restart).
        self._entry_of: dict[BirdAge, dict[tuple[int, int], str]] = {}
        self._n_left: dict[BirdAge, int] = {}  # tasks handed out that have not come back
        self._stored: dict[BirdAge, ray.ObjectRef] = {}
        self._total_seconds = self._batch_seconds = 1.0
        self._progress = Progress(console, 0, "")
        self.cpu_seconds = 0.0  # of all tasks that came back

    def run(self, noun: str = "birds and ages") -> None:
        """Do all that the journal does not hold."""
        n_fits_done = self._take_up()
        left = [piece for piece in self._sizes if piece not in self._concluded]
        seconds = {piece: self._predicted(piece) for piece in left}
        self._total_seconds = sum(seconds.values()) or 1.0
        self._batch_seconds = batch_seconds(self._total_seconds, n_cores())
        self._tell(n_fits_done, len(left))
        self._progress = Progress(self._console, len(left), noun)
        if self._is_chained:
            birds = {bird: [p for p in left if p[0] == bird] for bird, _ in left}
            order = sorted(birds, key=lambda b: (-sum(seconds[p] for p in birds[b]), b))
            work = [one for bird in order for one in self._next_age(bird)]
        else:
            in_order = sorted(left, key=lambda piece: (-seconds[piece], piece))
            work = [one for piece in in_order for one in self._next(piece)]
        TaskRunner(self._max_tasks).run(
            self._submit, work, self._keep, lambda one: describe(one, self._params)
        )

    def _take_up(self) -> int:
        """Find what the journal holds; give the number of its fits."""
        n_fits = 0
        for piece in self._sizes:
            self._fits[piece], self._entry_of[piece] = [], {}
            for name in sorted(self._journal.names(piece), key=lambda name: name != SEARCH):
                if piece in self._concluded:
                    self._journal.remove(piece, name)  # its fits stand in the search
                    continue
                entry = self._journal.load(piece, name)
                if entry is None:
                    continue
                n_fits += len(entry.fits)
                if entry.found is not None:
                    self._concluded.add(piece)
                else:
                    self._add_fits(piece, name, [fit_of(row) for row in entry.fits])
        return n_fits

    def _tell(self, n_fits_done: int, n_left: int) -> None:
        if self._is_grid:
            n_all = n_fits_done + sum(
                len(missing_fits(self._fits[piece], n, self._params))
                for piece, n in self._sizes.items()
                if piece not in self._concluded
            )
            n_done, text = n_fits_done, f"{n_fits_done:,} of {n_all:,} fits"
        else:
            n_done = len(self._sizes) - n_left
            text = f"{n_done:,} of {len(self._sizes):,} birds and ages"
        if n_done:
            self._console.note(f"{text} were done before")

    def _predicted(self, piece: BirdAge) -> float:
        """Seconds of what is left of a bird and age, without numbers of states that may follow."""
        n_snippets = self._sizes[piece]
        if not self._is_grid:
            return search_seconds(n_snippets)
        latent_dim = self._latents.latent_dim
        wanted = missing_fits(self._fits[piece], n_snippets, self._params)
        return sum(fit_seconds(n_snippets, k, latent_dim) for k, _ in wanted)

    def _next(self, piece: BirdAge) -> Sequence[Work]:
        """All that can be done now for a bird and age that has no task handed out."""
        n_snippets = self._sizes[piece]
        if not self._is_grid:
            work = [Work(piece, "search", search_seconds(n_snippets))]
        else:
            wanted = missing_fits(self._fits[piece], n_snippets, self._params)
            latent_dim = self._latents.latent_dim
            work = plan_batches(piece, wanted, n_snippets, latent_dim, self._batch_seconds)
            work = work or [Work(piece, "conclusion", 0.0)]
        self._n_left[piece] = len(work)
        return work

    def _next_age(self, bird: str) -> Sequence[Work]:
        """The first age of a bird that is not done: those after it wait for its model."""
        ages = sorted((p for p in self._sizes if p[0] == bird), key=lambda p: age_order(p[1]))
        left = [piece for piece in ages if piece not in self._concluded]
        return self._next(left[0]) if left else []

    def _submit(self, work: Work) -> ray.ObjectRef:
        piece, params = work.piece, self._params
        seed = piece_seed(self._seed, piece)
        if piece not in self._stored:
            self._stored[piece] = ray.put(self._latents.of(piece))
        latents = self._stored[piece]
        if work.kind == "search":
            before = self._before(piece) if self._is_chained else None
            return search_task.remote(latents, seed, params, before)
        if work.kind == "fits":
            return fits_task.remote(latents, work.fits, seed, params)
        fits = self._fits[piece]
        return conclusion_task.remote(latents, fits, self._best_model(piece, fits), params)

    def _before(self, piece: BirdAge) -> SongModel | None:
        """The model of the nearest earlier age of the bird that has one."""
        earlier = [p for p in self._concluded
                   if p[0] == piece[0] and age_order(p[1]) < age_order(piece[1])]  # fmt: skip
        for one in sorted(earlier, key=lambda p: age_order(p[1]), reverse=True):
            model = self._journal.read(one, SEARCH).model
            if model is not None:
                return model
        return None

    def _best_model(self, piece: BirdAge, fits: list[HmmFit]) -> SongModel | None:
        """The model of the fit with the lowest BIC: the best of all is the best of its batch."""
        selection = select_by_bic(fits)
        if selection is None:
            return None
        best = selection.best
        return self._journal.read(piece, self._entry_of[piece][best.n_states, best.restart]).model

    def _keep(self, work: Work, outcome: Outcome) -> Iterable[Work]:
        piece = work.piece
        self.cpu_seconds += outcome.cpu_seconds
        self._n_left[piece] -= 1
        self._write(work, outcome)
        if piece in self._concluded:
            del self._stored[piece]  # nobody needs these latents any more
            return self._next_age(piece[0]) if self._is_chained else []
        return self._next(piece) if not self._n_left[piece] else []

    def _write(self, work: Work, outcome: Outcome) -> None:
        piece = work.piece
        model = None
        if outcome.parameters is not None:
            model = SongModel(
                *outcome.parameters, self._params.covariance_type, *self._latents.whitening[piece]
            )
        if outcome.found is None:
            self._journal.save(piece, work.name, Entry(outcome.fits, None, model))
            self._add_fits(piece, work.name, [fit_of(row) for row in outcome.fits])
            share = work.seconds / self._total_seconds if self._is_of_the_plan(work) else 0.0
            self._progress.advance(0, share)
            return
        self._journal.save(piece, SEARCH, Entry(outcome.fits, outcome.found, model))
        for name in self._journal.names(piece):
            if name != SEARCH:
                self._journal.remove(piece, name)
        self._concluded.add(piece)
        del self._fits[piece], self._entry_of[piece]
        self._progress.advance(1, work.seconds / self._total_seconds)

    def _is_of_the_plan(self, work: Work) -> bool:
        """Whether the fits were foreseen; those beyond the grid were not."""
        return work.fits[0][0] in first_numbers(self._sizes[work.piece], self._params)

    def _add_fits(self, piece: BirdAge, name: str, fits: list[HmmFit]) -> None:
        self._fits[piece] += fits
        self._entry_of[piece] |= {(fit.n_states, fit.restart): name for fit in fits}
