"""The held-out log-likelihood by number of states: whole recordings, the same for every number."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from models.hmm import criteria
from models.hmm.choice import select_by_bic
from models.hmm.em import Em, Songs, run_em
from models.hmm.fit import HmmFit
from models.hmm.fitting import restart_seed
from models.hmm.merge_path import merge_path
from models.hmm.merge_search import FEW_SNIPPETS, TOP_ITERATIONS
from models.hmm.params import HmmParams
from models.hmm.predictive import occupancy
from models.hmm.starts import kmeans_start

Array = NDArray[np.float64]


@dataclass(frozen=True)
class HeldOut:
    """What held-out recordings say of every number of states of one kind of covariances.

    Attributes:
        nats: log-likelihood of each recording [n_recordings], by number of states.
        n_snippets: of all these recordings.
    """

    nats: dict[int, Array]
    n_snippets: int

    def per_snippet(self, kind: str) -> dict[tuple[str, int], float]:
        """Nats per snippet by kind and number of states."""
        return {(kind, k): float(one.sum()) / self.n_snippets for k, one in self.nats.items()}


HEADROOM = 1.5  # the merge path begins this far above the number that BIC chose
NEAR_TOP = 0.9  # of where it began: a best number above asks for a path from higher up
# Any snippet may be of no known kind: so often, and then it comes from a broad t distribution. One
# outlier cannot outweigh all others.
UNKNOWN, UNKNOWN_DOF, UNKNOWN_WIDTH = 1e-3, 3.0, 3.0


def held_out_songs(sequences: Sequence[Array], params: HmmParams) -> tuple[Songs, Songs | None]:
    """Songs to fit and songs to hold out (None where there are too few to hold any out)."""
    some = [s for s in sequences if len(s)]
    first, second = criteria.split_recordings(len(some), params.held_out_fraction, seed=0)
    fitted = Songs([some[i] for i in first], params.kind, params.engine)
    if not second:
        return fitted, None
    return fitted, Songs([some[i] for i in second], params.kind, params.engine)


def held_out_nats(held_out: Songs, fitted: Songs, em: Em) -> Array:
    """Log-likelihood of each held-out recording [n_recordings], in nats.

    Songs begin anywhere in songs of their mean length (`occupancy`): the start probabilities of a
    few songs are 0 for states that none of them began in. A snippet has UNKNOWN of its probability
    from a broad t distribution.

    Args:
        held_out: recordings that had no part in the fit.
        fitted: the recordings that had.
        em: the fit.
    """
    model = held_out.centred(fitted.uncentred(em.model))
    mean_length = float(np.mean(held_out.lengths))
    model.startprob_ = occupancy(em.model.startprob_, em.model.transmat_, mean_length)
    known = held_out.snippet_log_likelihoods(model)
    known = np.where(np.isfinite(known), known, -np.inf)
    at = held_out.X + held_out.centre - fitted.centre
    mixed = np.logaddexp(
        math.log1p(-UNKNOWN) + known, math.log(UNKNOWN) + _broad_log_density(at, fitted)
    )
    return np.asarray(np.add.reduceat(mixed, np.cumsum([0, *held_out.lengths[:-1]])))


def _broad_log_density(X: Array, fitted: Songs) -> Array:
    """Of a multivariate t about the fitted songs, UNKNOWN_WIDTH times as wide [n_snippets]."""
    d, dof = fitted.latent_dim, UNKNOWN_DOF
    # 1.4826 makes a normal variable's standard deviation of it; outliers do not count.
    spread = 1.4826 * np.median(np.abs(fitted.X), axis=0)
    spread = UNKNOWN_WIDTH * np.where(spread > 0, spread, np.maximum(fitted.X.std(0), 1e-3))
    squares = np.square(X / spread).sum(1)
    constant = gammaln((dof + d) / 2) - gammaln(dof / 2) - d / 2 * math.log(dof * math.pi)
    return np.asarray(
        constant - np.log(spread).sum() - (dof + d) / 2 * np.log1p(squares / dof), np.float64
    )


def merge_held_out(
    sequences: Sequence[Array], fits: Sequence[HmmFit], top: int, params: HmmParams, seed: int
) -> HeldOut:
    """Held-out log-likelihoods for the numbers of states of a merge search.

    From a second merge path on the recordings that are not held out (FEW_SNIPPETS at most), which
    begins somewhat above the number that BIC chose; where the held-out likelihood is best near that
    beginning, once more from ``top``, where the search itself began. The best number and its
    neighbours are converged.
    """
    fitted, held_out = held_out_songs(sequences, params)
    chosen = select_by_bic(fits)
    if held_out is None or top < 1 or chosen is None:
        return HeldOut({}, 0)
    fitted = fitted.some(FEW_SNIPPETS, seed)
    top = min(top, fitted.n_snippets)
    numbers = {fit.n_states for fit in fits}
    first = min(top, math.ceil(HEADROOM * chosen.best.n_states) + 5)
    nats: dict[int, Array] = {}
    for begin in dict.fromkeys((first, top)):
        ems = _path(fitted, begin, min(numbers), params, seed)
        known = {k: held_out_nats(held_out, fitted, em) for k, em in ems.items() if k in numbers}
        if not known:
            break
        best = max(known, key=lambda k: (float(known[k].sum()), -k))
        for k in {best - 1, best, best + 1} & set(known):
            em = run_em(fitted, ems[k].model, params, params.n_iter, accelerate=True)
            known[k] = held_out_nats(held_out, fitted, em)
        nats = known
        if best <= NEAR_TOP * begin:
            break
    return HeldOut(nats, held_out.n_snippets)


def _path(songs: Songs, top: int, lowest: int, params: HmmParams, seed: int) -> dict[int, Em]:
    """A merge path from ``top`` to ``lowest``, by number of states."""
    start = kmeans_start(songs, top, restart_seed(seed, top, 0), params)
    em = run_em(songs, start, params, TOP_ITERATIONS)
    if not math.isfinite(em.log_likelihood):
        return {}
    path = merge_path(songs, em, lowest, round(top / 1.3), params, n_tried=1)
    return {step.n_states: step for step in (em, *path)}


def fewest_within_error(nats: Mapping[int, Array]) -> int | None:
    """The fewest states whose held-out likelihood is within one standard error of the best.

    The error is that of the paired differences between recordings, times their number.

    Args:
        nats: of each held-out recording [n_recordings], by number of states.

    Returns:
        None where fewer than two recordings were held out.
    """
    if not nats or len(next(iter(nats.values()))) < 2:
        return None
    best = max(nats, key=lambda k: (float(nats[k].sum()), -k))

    def is_near(k: int) -> bool:
        lost = nats[best] - nats[k]
        return float(lost.sum()) <= math.sqrt(len(lost)) * float(lost.std(ddof=1))

    return min(k for k in nats if k == best or is_near(k))


def with_held_out(
    fits: Sequence[HmmFit], per_snippet: dict[tuple[str, int], float]
) -> list[HmmFit]:
    """The fits, each with the held-out log-likelihood of its kind and number of states.

    It is a property of these: whichever restart is the best there, it has it.

    Args:
        fits: of one bird and age.
        per_snippet: nats by kind and number of states; what is not in it, the fits tell.
    """
    of_fits = {
        (fit.covariance_type, fit.n_states): fit.held_out_log_likelihood
        for fit in fits
        if math.isfinite(fit.held_out_log_likelihood)
    }
    known = of_fits | per_snippet
    return [
        dataclasses.replace(fit, held_out_log_likelihood=known[of])
        if (of := (fit.covariance_type, fit.n_states)) in known
        else fit
        for fit in fits
    ]
