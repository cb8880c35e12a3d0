"""The number of states by a coarse pass, a merge path, a polish and independent restarts.

1. Coarse: k-means starts at numbers of states some way apart, few EM iterations, until BIC rises.
2. Merge path: from twice that minimum downwards, one state fewer at a time around the minimum.
3. Polish: EM to convergence of the path's models around the lowest BIC.
4. Confirm: independent restarts at the chosen number, and moves from the best run (a state more, by
   a split or where snippets are explained worst; a state fewer, by a merge), until none is better.

Of many snippets, 1 and 2 look at whole songs drawn by the seed, and let expect the BIC of all; 3
and 4 take all snippets, fewer restarts and a looser end of EM.
"""

import copy
import dataclasses
import math
import time
from collections.abc import Iterator

import numpy as np

from models.hmm import starts
from models.hmm.em import Em, Songs, run_em
from models.hmm.fit import HmmFit, Origin, estimated, record_of
from models.hmm.fitting import fit_from, most_states, restart_fit
from models.hmm.gaussian import GaussianHMM
from models.hmm.merge_path import PATH_ITERATIONS, merge_path
from models.hmm.params import HmmParams

COARSE_RATIO = 1.5  # between neighbouring numbers of states of the coarse pass
COARSE_ITERATIONS = 8
TOP_ITERATIONS = 15  # of the model that the merge path begins with
HEADROOM = 2.0  # the merge path begins this far above the coarse minimum
BELOW = 0.7  # of the minimum: the merge path goes one by one down to here
NEIGHBOURS = 2  # numbers of states to either side of the minimum that are polished
MAX_POLISHED = 11
MAX_ROUNDS = 8  # of confirmation
N_SPLITS = 3  # states of which a split is tried
# Snippets beyond which the search looks at some songs first: more do not change where to look.
FEW_SNIPPETS = 12_000
# On all of them then: EM's tolerance as a multiple of params.tol (numbers of states differ by far
# more), and one restart.
DEAR_TOL = 30


class MergeSearch:
    """The search of one bird and age; `run` fills ``fits``.

    Args:
        songs: to fit.
        params: range, EM, restarts.
        seed: all random numbers follow from it.
    """

    def __init__(self, songs: Songs, params: HmmParams, seed: int):
        self.songs = songs
        self.few = songs.some(FEW_SNIPPETS, seed)
        self.params = params
        if self._is_dear:
            self.params = dataclasses.replace(params, tol=DEAR_TOL * params.tol)
        self.fits: list[HmmFit] = []
        self.coarse = 0  # number of states around which to look closely
        self.top = 0  # where the merge path began
        self._seed = seed
        self._limit = most_states(songs.n_observations, params)
        self._lowest = min(params.n_states[0], self._limit)
        self._highest = min(params.n_states[-1], self._limit)
        # The best run of EM of every number of states, and whether it is finished.
        self._runs: dict[int, tuple[HmmFit, Em]] = {}

    def look(self) -> float:
        """The coarse pass; the lowest BIC that it saw, per snippet."""
        if self._highest - self._lowest >= 2:
            self.coarse = self._coarse()
        return self.lowest_bic

    @property
    def _is_dear(self) -> bool:
        return self.few is not self.songs

    @property
    def lowest_bic(self) -> float:
        """Of all fits so far, per snippet; infinite where there is none."""
        best = self._best()
        return math.inf if best is None else self._runs[best][0].bic / self.songs.n_snippets

    def run(self, before: GaussianHMM | None = None, in_haste: bool = False) -> None:
        """Search; ``before`` is the model of the age before, where ages are chained.

        In haste, the merge path goes down in large steps, and nothing is confirmed; of many
        snippets, its numbers stay those that are expected of all.
        """
        if self._highest - self._lowest < 2:
            self.top = self._highest
            for n_states in range(self._lowest, self._highest + 1):
                self._restart(n_states, 0)
        else:
            self._path(self.coarse or self._coarse(), in_haste)
            if not (in_haste and self._is_dear):
                self._polish(0 if in_haste else NEIGHBOURS)
        if not in_haste:
            self.finish(before)

    def finish(self, before: GaussianHMM | None = None) -> None:
        """Confirm what was found."""
        if all(fit.status == "rough" for fit, _ in self._runs.values()):
            self._polish(NEIGHBOURS)
        if before is not None:
            self._chained(before)
        self._confirm()

    def _coarse(self) -> int:
        """The number of states around which to look closely."""
        best, best_bic, n_rises = self._lowest, math.inf, 0
        for n_states in geometric(self._lowest, self._limit):
            # Above the range only as long as BIC still falls there.
            if n_states > self._highest and best < self._highest:
                break
            fit = self._rough("coarse", n_states, COARSE_ITERATIONS)
            if fit is not None and fit[0].bic < best_bic:
                best, best_bic, n_rises = n_states, fit[0].bic, 0
            else:
                n_rises += 1
            if n_rises == 2:
                break
        return best

    def _path(self, coarse: int, in_haste: bool = False) -> None:
        """Merge paths, each from twice as high, until the minimum is well below the top."""
        while True:
            self.top = min(self._limit, max(math.ceil(HEADROOM * coarse), coarse + 5))
            begun = self._rough("merge path", self.top, TOP_ITERATIONS)
            if begun is not None:
                self._descend(begun[1], 1 if in_haste else math.ceil(1.3 * coarse))
            best = self._best()
            if best is None or self.top == self._limit or best <= 0.8 * self.top:
                return
            coarse = self.top

    def _descend(self, em: Em, one_by_one_from: int) -> None:
        """One merge path, downwards; well below the minimum several states at once again."""
        below = None
        for step in self._steps(em, one_by_one_from):
            below = step
            best = self._best()
            if best is not None and step.n_states <= BELOW * best:
                break
        if below is not None and below.n_states > self._lowest:
            for _ in self._steps(below, 1):
                pass

    def _steps(self, em: Em, one_by_one_from: int) -> Iterator[Em]:
        began = time.process_time()
        for step in merge_path(self.few, em, 1, one_by_one_from, self.params):
            self._note_rough(step, Origin("merge path", "merge"), began)
            yield step
            began = time.process_time()
            # Below the range only where the minimum is at its end.
            best = self._best()
            if step.n_states <= self._lowest and (
                best is None or best > step.n_states + NEIGHBOURS
            ):
                return

    def _polish(self, n_neighbours: int) -> None:
        """EM to convergence wherever it may still change which number of states is best."""
        polished: set[int] = set()
        largest_gain = 0.0
        while len(polished) < MAX_POLISHED:
            best = self._best()
            if best is None:
                return
            near = [
                k for k in range(best - n_neighbours, best + n_neighbours + 1) if k in self._runs
            ]
            lowest_bic = self._runs[best][0].bic
            near += sorted(
                (k for k, (fit, _) in self._runs.items()
                 if fit.status == "rough" and fit.bic - 2 * largest_gain < lowest_bic),
                key=lambda k: self._runs[k][0].bic,
            )  # fmt: skip
            waiting = [k for k in near if k not in polished]
            if not waiting:
                return
            n_states = min(waiting, key=lambda k: (abs(k - best), k))
            rough = self._runs[n_states][0].bic
            self._finish(n_states, self._runs[n_states][1].model, Origin("polish", "merge"))
            polished.add(n_states)
            largest_gain = max(largest_gain, rough - self._runs[n_states][0].bic)

    def _chained(self, before: GaussianHMM) -> None:
        n_states = before.n_components
        is_alike = (before.n_features, before.covariance_type) == (
            self.songs.latent_dim,
            self.params.kind,
        )
        if is_alike and n_states <= self._limit:
            start = starts.chained_start(self.songs, before, self.params)
            if self._finish(n_states, start, Origin("chained", "chained")):
                self._try_neighbours(n_states)

    def _confirm(self) -> None:
        """Independent restarts and neighbours, until nothing is better than what is known."""
        confirmed: set[int] = set()
        for _ in range(MAX_ROUNDS):
            finished = {k: run for k, run in self._runs.items() if run[0].status != "rough"}
            best = _lowest(finished or self._runs)
            if best is None:
                return
            if best not in confirmed:
                confirmed.add(best)
                for restart in range(1 if self._is_dear else self.params.n_restarts):
                    self._restart(best, restart)
            if self._is_dear or not self._try_neighbours(best):
                return

    def _try_neighbours(self, n_states: int) -> bool:
        """From the best run with ``n_states``: one state more, back again, and one fewer.

        Returns:
            Whether a better run with ``n_states`` was found, or a better number of states.
        """
        em = self._runs[n_states][1]
        if n_states < self._limit:
            more = best_with_one_more(self.songs, em, self.params)
            if more is not None:
                self._finish(n_states + 1, more[0].model, Origin("split", more[1]))
            if more is not None and n_states + 1 in self._runs:
                # A state that was missing, for one that was there twice (Ueda et al. 2000).
                self._finish_fewer(self._runs[n_states + 1][1])
        if n_states > 1:
            self._finish_fewer(self._runs[n_states][1])
        return self._best() != n_states or self._runs[n_states][1] is not em

    def _finish_fewer(self, em: Em) -> None:
        fewer = next(merge_path(self.songs, em, em.n_states - 1, 0, self.params), None)
        if fewer is not None:
            self._finish(fewer.n_states, fewer.model, Origin("merge", "merge"))

    def _restart(self, n_states: int, restart: int) -> None:
        seed = self._seed_of("restart", n_states, restart)
        fit, em = restart_fit(self.songs, n_states, restart, seed, "restart", self.params)
        self._add(fit, em)

    def _finish(self, n_states: int, start: GaussianHMM, origin: Origin) -> bool:
        fit, em = fit_from(self.songs, n_states, lambda: copy.deepcopy(start), origin, self.params)
        return self._add(fit, em)

    def _rough(self, stage: str, n_states: int, n_iter: int) -> tuple[HmmFit, Em] | None:
        began = time.process_time()
        seed = self._seed_of(stage, n_states, 0)
        start = starts.kmeans_start(self.few, n_states, seed, self.params)
        em = run_em(self.few, start, self.params, n_iter)
        fit = self._note_rough(em, Origin(stage, "k-means"), began)
        return (fit, em) if fit.has_model else None

    def _note_rough(self, em: Em, origin: Origin, began: float) -> HmmFit:
        """Note a run of few iterations."""
        seconds = time.process_time() - began
        fit = record_of(self.few, em, origin, self.params, seconds, is_rough=True)
        if self._is_dear and fit.has_model:
            fit = estimated(fit, self.songs)
        self._add(fit, em if fit.has_model else None)
        return fit

    def _add(self, fit: HmmFit, em: Em | None) -> bool:
        """Note a fit; True where it is the best of its number of states so far."""
        self.fits.append(fit)
        if em is None:
            return False
        known = self._runs.get(fit.n_states)
        # What differs by rounding is the same optimum.
        if known is not None:
            is_better = fit.bic < known[0].bic - 1e-6 * fit.n_observations
            finishes = known[0].status == "rough" and fit.status != "rough"
            if not is_better and not finishes:
                return False
        self._runs[fit.n_states] = fit, em
        return True

    def _best(self) -> int | None:
        return _lowest(self._runs)

    def _seed_of(self, stage: str, n_states: int, restart: int) -> int:
        stages = {"coarse": 0, "merge path": 1, "restart": 2}
        sequence = np.random.SeedSequence([self._seed, stages[stage], n_states, restart])
        return int(sequence.generate_state(1)[0])


def _lowest(runs: dict[int, tuple[HmmFit, Em]]) -> int | None:
    """The number of states with the lowest BIC."""
    return min(runs, key=lambda k: (runs[k][0].bic, k), default=None)


def geometric(lowest: int, highest: int) -> list[int]:
    """Whole numbers from ``lowest`` to ``highest``, COARSE_RATIO apart."""
    numbers = [max(1, lowest)]
    while numbers[-1] < highest:
        following = max(numbers[-1] + 1, round(numbers[-1] * COARSE_RATIO))
        numbers.append(min(following, highest))
    return numbers


def best_with_one_more(songs: Songs, em: Em, params: HmmParams) -> tuple[Em, str] | None:
    """The best of models with one state more, after a few EM iterations, and how it was made.

    Candidates: one of the widest states split, and a new state where snippets are explained worst.
    """
    variances = np.diagonal(np.asarray(em.model.covars_), axis1=1, axis2=2)
    weights = em.stats["post"] * np.log(variances / np.median(variances, axis=0)).sum(1)
    candidates = [
        (starts.split(em.model, int(state), params), "split")
        for state in np.argsort(-weights, kind="stable")[:N_SPLITS]
    ]
    if params.transitions != "left_right":
        candidates.append((starts.with_new_state(songs, em.model, params), "new state"))
    tried = [(run_em(songs, start, params, PATH_ITERATIONS), how) for start, how in candidates]
    known = [one for one in tried if math.isfinite(one[0].log_likelihood)]
    return max(known, key=lambda one: one[0].log_likelihood, default=None)
