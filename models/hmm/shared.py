"""One set of states for all ages of a bird: emissions once, transitions and starts for each age.

States of fits of their own differ from age to age, so that nothing said of them can be compared.
Shared ones can: their shares, and what their order tells (`models.hmm.ages`).

Source of EM with tied emissions: Rabiner 1989, section V.B on multiple observation sequences; the
sums of the emissions run over all ages, those of the transitions over one.
"""

import copy
import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from models.hmm import criteria
from models.hmm.draws import drawn, even_sizes
from models.hmm.em import TRANSITION_PRIOR, Em, Songs, Statistics, m_step, run_em
from models.hmm.fitting import most_states
from models.hmm.gaussian import GaussianHMM, Packed
from models.hmm.merge_path import merge_path
from models.hmm.merge_search import best_with_one_more
from models.hmm.params import CovarianceType, HmmParams
from models.hmm.search import search_states

Array = NDArray[np.float64]

MOST_ROWS = 40_000  # snippets of all ages together that the states are found from
ROUGH_ITERATIONS = 8  # of EM, to see where BIC is low
N_RISES = 3  # of BIC, one after the other, after which no more numbers of states are tried
N_POLISHED = 3  # numbers of states with the lowest rough BIC that are fitted to convergence


@dataclass(frozen=True)
class SharedFit:
    """A number of states that the ages of a bird share.

    Attributes:
        n_states: number of states.
        log_likelihood: nats, of all ages together, as all snippets of each let expect it.
        n_free_params: emissions once, transitions and starts for each age.
        bic: see `shared_bic`.
        status: "ok", "rough" (few iterations on purpose), "not_converged" or "failed".
    """

    n_states: int
    log_likelihood: float
    n_free_params: int
    bic: float
    status: str


@dataclass(frozen=True)
class SharedFound:
    """The states that the ages of a bird share.

    Attributes:
        status: ok, too_few_snippets or failed, as of a search of one age.
        reason: why, where not ok.
        covariance_type: of the emissions.
        fits: every number of states that was looked at, in order.
        model: the emissions; its transitions and starts are those of all ages together. None
            where there are none.
        n_snippets: that the states were found from, of all ages.
    """

    status: str
    reason: str
    covariance_type: str = ""
    fits: list[SharedFit] = field(default_factory=list)
    model: GaussianHMM | None = None
    n_snippets: int = 0


def search_shared(
    ages: Sequence[Sequence[Array]], params: HmmParams, seed: int, new_share: float = 1.0,
    n_snippets: Sequence[int] | None = None,
) -> SharedFound:  # fmt: skip
    """Find the states that the ages of a bird share, and how many there are.

    The songs of all ages are searched together as if they were of one; from there the number of
    states goes down, and up, to the lowest `shared_bic`. At most MOST_ROWS snippets take part,
    evenly over the ages: an age with much song must not decide alone.

    Args:
        ages: of each age, the whitened latents [n_snippets, latent_dim] of its recordings; of one
            latent space.
        params: of the search.
        seed: the same one gives the same result.
        new_share: share of a snippet that the one before did not hold; 1 without overlap.
        n_snippets: of all recordings of each age, where ``ages`` holds only some of them.
    """
    if n_snippets is None:
        n_snippets = [sum(map(len, songs)) for songs in ages]
    sizes = even_sizes([sum(map(len, songs)) for songs in ages], MOST_ROWS)
    some = [drawn(songs, n, seed) for songs, n in zip(ages, sizes, strict=True)]
    together = [song for songs in some for song in songs]
    # The held-out side would say of the songs together what nobody asks.
    alone = dataclasses.replace(params, held_out_fraction=0.0, shared_states=False)
    found = search_states(together, alone, seed, new_share=new_share)
    if found.model is None or found.selection is None:
        return SharedFound(found.status, found.reason)
    kind = cast(CovarianceType, found.selection.best.covariance_type)
    params = dataclasses.replace(alone, covariance_type=kind)
    songs = Songs(together, kind, params.engine, new_share)
    shared = _SharedEm(some, songs.centre, params, new_share, n_snippets)
    em = run_em(songs, songs.centred(found.model), params, 1)
    fits, models = _along(shared, songs, em, params)
    finished: list[SharedFit] = []
    for rough in sorted(fits, key=lambda fit: fit.bic)[:N_POLISHED]:
        fit, models[rough.n_states] = shared.fit(models[rough.n_states], params.n_iter)
        finished.append(fit)
    fits += finished
    best = min(finished, key=lambda fit: (fit.bic, fit.n_states))
    if best.status == "failed":
        return SharedFound("failed", "no number of states could be fitted to all ages", kind, fits)
    model = songs.uncentred(models[best.n_states])
    return SharedFound("ok", "", kind, fits, model, songs.n_snippets)


def _along(
    shared: "_SharedEm", songs: Songs, em: Em, params: HmmParams
) -> tuple[list[SharedFit], dict[int, GaussianHMM]]:
    """Rough fits from the number of states of ``em`` down and up, until BIC rises."""
    fits: list[SharedFit] = []
    models: dict[int, GaussianHMM] = {}

    def try_each(path: Iterator[Em]) -> None:
        n_rises = 0
        for step in path:
            fit, models[step.n_states] = shared.fit(step.model, ROUGH_ITERATIONS, is_rough=True)
            n_rises = n_rises + 1 if fits and fit.bic > min(one.bic for one in fits) else 0
            fits.append(fit)
            if n_rises == N_RISES:
                return

    down = merge_path(songs, em, 1, em.n_states, params)
    try_each(itertools.chain([em], down))
    if min(fits, key=lambda fit: fit.bic) is fits[0]:
        try_each(_up(songs, em, params))
    return fits, models


def _up(songs: Songs, em: Em, params: HmmParams) -> Iterator[Em]:
    limit = most_states(songs.n_observations, params)
    while em.n_states < limit:
        more = best_with_one_more(songs, em, params)
        if more is None:
            return
        em = more[0]
        yield em


class _SharedEm:
    """EM on the songs of all ages, centred as one.

    Args:
        ages: whitened latents of each age's recordings.
        centre: that the models are centred by.
        params: priors and floors.
        new_share: see `search_shared`.
        n_snippets: of each age, snippets that BIC is of; those of ``ages`` where None.
    """

    def __init__(
        self, ages: Sequence[Sequence[Array]], centre: Array, params: HmmParams, new_share: float,
        n_snippets: Sequence[int] | None = None,
    ):  # fmt: skip
        self._params = params
        self._new_share = new_share
        self._packed = [
            Packed(
                np.concatenate(list(songs)) - centre, [len(s) for s in songs if len(s)], params.kind
            )
            for songs in ages
        ]
        self._sizes = [len(packed.X) for packed in self._packed]
        self._n_snippets = self._sizes if n_snippets is None else list(n_snippets)

    def fit(
        self, start: GaussianHMM, n_iter: int, is_rough: bool = False
    ) -> tuple[SharedFit, GaussianHMM]:
        """Improve a copy of ``start`` by at most ``n_iter`` iterations.

        Returns:
            The record, and the model with the transitions of all ages together.
        """
        model = copy.deepcopy(start)
        chains = [(start.startprob_, start.transmat_)] * len(self._packed)
        allowed = np.asarray(start.transmat_) > 0
        before = -math.inf
        for i in range(n_iter + 1):
            each, of_ages = self._e_step(model, chains)
            log_likelihood = sum(of_ages)
            converged = abs(log_likelihood - before) < self._params.tol * sum(self._sizes)
            if converged or i == n_iter or not math.isfinite(log_likelihood):
                break
            before = log_likelihood
            chains = [chain_of(stats, allowed) for stats in each]
            m_step(model, _summed(each), self._params)
        n_states, kind = model.n_components, self._params.kind
        free = shared_free_params(n_states, model.n_features, kind, len(of_ages))
        if not math.isfinite(log_likelihood):
            return SharedFit(n_states, math.nan, free, math.inf, "failed"), start
        model.startprob_, model.transmat_ = chain_of(_summed(each), allowed)
        log_likelihood = self._expected(of_ages, n_states, model.n_features)
        n_observations = [n * self._new_share for n in self._n_snippets]
        bic = shared_bic(log_likelihood, n_states, model.n_features, kind, n_observations)
        status = "ok" if converged else "rough" if is_rough else "not_converged"
        return SharedFit(n_states, log_likelihood, free, bic, status), model

    def _expected(self, of_ages: list[float], n_states: int, latent_dim: int) -> float:
        """Log-likelihood that is to be expected of all snippets of every age, nats.

        BIC would charge an age in full for transitions, though the few snippets that are left for
        it among many ages show little of what these are good for: the number of states would fall
        with that of ages. As in `models.hmm.fit.estimated`, each parameter fits half a nat of the
        noise of what it was fitted to.
        """
        ratios = [n / size for n, size in zip(self._n_snippets, self._sizes, strict=True)]
        chains = _chain_params(n_states)
        emissions = shared_free_params(n_states, latent_dim, self._params.kind, 1) - chains
        of_all = sum(self._n_snippets) / sum(self._sizes)
        noise = emissions * (of_all - 1) + chains * sum(ratio - 1 for ratio in ratios)
        found = sum(ratio * one for ratio, one in zip(ratios, of_ages, strict=True))
        return found - noise / 2 / self._new_share

    def _e_step(
        self, model: GaussianHMM, chains: list[tuple[Array, Array]]
    ) -> tuple[list[Statistics], list[float]]:
        """Statistics and log-likelihood of each age; NaN where there can be none."""
        each: list[Statistics] = []
        log_likelihoods: list[float] = []
        for packed, chain in zip(self._packed, chains, strict=True):
            model.startprob_, model.transmat_ = chain
            try:
                with np.errstate(all="ignore"):  # the log-likelihood tells
                    stats, of_age = model.e_step(packed)
            except (ValueError, np.linalg.LinAlgError):
                return each, [math.nan] * len(self._packed)
            each.append(stats)
            log_likelihoods.append(float(of_age))
        return each, log_likelihoods


def _summed(each: list[Statistics]) -> Statistics:
    return {name: sum(stats[name] for stats in each) for name in each[0]}


def chain_of(stats: Statistics, allowed: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Start probabilities and transitions of the M-step, with the prior of every fit.

    Args:
        stats: of an E-step.
        allowed: [n_states, n_states] transitions that are none of the zeros of the structure
            (sparse, left to right); at least one in each row.
    """
    start, transitions = np.asarray(stats["start"]), np.asarray(stats["trans"])
    transitions = np.where(allowed, transitions + TRANSITION_PRIOR, 0.0)
    return start / start.sum(), transitions / transitions.sum(1, keepdims=True)


def with_own_transitions(model: GaussianHMM, songs: Songs, params: HmmParams) -> Em:
    """The transitions and starts of one age by EM, with the emissions kept as they are.

    Args:
        model: whose emissions are kept, for latents as they were given.
        songs: of one age.
        params: number of iterations and tolerance.

    Returns:
        Where EM ended; its model is centred as the songs, `Songs.uncentred` brings it back.
    """
    model = copy.deepcopy(songs.centred(model))
    # A start of exactly 0 would stay one, and what never happens at one age may at another.
    # Transitions of exactly 0 are those that the structure leaves out: fits have a prior on others.
    model.startprob_ = (model.startprob_ + 1 / model.n_components) / 2
    allowed = np.asarray(model.transmat_) > 0
    objective: list[float] = []
    converged = False
    while True:
        stats, log_likelihood = songs.e_step(model)
        objective.append(log_likelihood)
        if len(objective) > 1:
            gain = objective[-1] - objective[-2]
            converged = abs(gain) < params.tol * songs.n_snippets
        if converged or len(objective) > params.n_iter or not math.isfinite(log_likelihood):
            return Em(model, stats, log_likelihood, objective, converged)
        model.startprob_, model.transmat_ = chain_of(stats, allowed)


def shared_free_params(
    n_states: int, latent_dim: int, covariance_type: CovarianceType, n_ages: int
) -> int:
    """Free parameters: means and covariances once, transitions and starts for each age."""
    of_one = criteria.n_free_params(n_states, latent_dim, covariance_type)
    return of_one + (n_ages - 1) * _chain_params(n_states)


def _chain_params(n_states: int) -> int:
    return n_states * n_states - 1  # (K - 1) of the start and K (K - 1) of the transitions


def shared_bic(
    log_likelihood: float,
    n_states: int,
    latent_dim: int,
    covariance_type: CovarianceType,
    n_observations: Sequence[float],
) -> float:
    """BIC of states that ages share; comparable to the sum of the BICs of the ages' own fits.

    -2 log L, and for every parameter log of the number of snippets that it is learned from: those
    of all ages for emissions, those of its age for transitions and starts.

    Args:
        log_likelihood: nats, of all ages together.
        n_states: number of states.
        latent_dim: numbers in a latent.
        covariance_type: of the emissions.
        n_observations: of each age, the N of its BIC.
    """
    chains = _chain_params(n_states)
    emissions = shared_free_params(n_states, latent_dim, covariance_type, 1) - chains
    penalty = emissions * math.log(sum(n_observations))
    penalty += chains * sum(math.log(n) for n in n_observations)
    return -2 * float(log_likelihood) + penalty
