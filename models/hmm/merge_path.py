"""From too many states to few: merge the two whose loss costs least, a few EM iterations, again.

A start of k-means leaves some states of the truth together and others twice; EM cannot undo that,
merging from well above can.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from models.hmm.em import Em, Songs, Statistics, run_em
from models.hmm.gaussian import GaussianHMM
from models.hmm.params import HmmParams
from models.hmm.starts import merged, without_rare_transitions, without_state

Array = NDArray[np.float64]

N_TRIED = 4  # candidates of which the loss is computed exactly
PATH_ITERATIONS = 4  # of EM after each step
FAST_SHARE = 0.1  # of states that are merged at once where no number of states is of interest


def merge_path(
    songs: Songs,
    em: Em,
    lowest: int,
    one_by_one_from: int,
    params: HmmParams,
    n_tried: int = N_TRIED,
) -> Iterator[Em]:
    """Fits with fewer and fewer states, down to ``lowest``; ``em`` itself is not among them.

    Args:
        songs: that ``em`` was fitted to.
        em: the fit with the most states.
        lowest: number of states to end with.
        one_by_one_from: above this number of states several are merged at once.
        params: priors, floors, transition structure.
        n_tried: merges of which the loss is computed exactly at each step.
    """
    while em.n_states > lowest:
        above = em.n_states - max(lowest, one_by_one_from)
        if above > 0:
            n_merged = min(max(1, int(FAST_SHARE * em.n_states)), above)
            start = merged(em.model, em.stats, _cheapest_pairs(em, n_merged, params), params)
        else:
            start = _cheapest_step(songs, em, n_tried, params)
        em = run_em(songs, start, params, PATH_ITERATIONS)
        if params.transitions == "sparse" and np.isfinite(em.log_likelihood):
            pruned = without_rare_transitions(em.model, em.stats)
            em = run_em(songs, pruned, params, 1)
        if not np.isfinite(em.log_likelihood):
            return
        yield em


def _cheapest_pairs(em: Em, n_pairs: int, params: HmmParams) -> list[tuple[int, int]]:
    """Disjoint pairs of states, those that would cost least first."""
    costs = merge_costs(em.model, em.stats, params)
    pairs: list[tuple[int, int]] = []
    taken: set[int] = set()
    for flat in np.argsort(costs, axis=None, kind="stable"):
        i, j = divmod(int(flat), len(costs))
        if not np.isfinite(costs[i, j]) or len(pairs) == n_pairs:
            break
        if i not in taken and j not in taken:
            pairs.append((i, j))
            taken |= {i, j}
    return pairs


def _cheapest_step(songs: Songs, em: Em, n_tried: int, params: HmmParams) -> GaussianHMM:
    """The model with one state fewer that keeps most of the log-likelihood."""
    costs = merge_costs(em.model, em.stats, params)
    order = np.argsort(costs, axis=None, kind="stable")[:n_tried]
    pairs = [divmod(int(flat), len(costs)) for flat in order if np.isfinite(costs.flat[flat])]
    candidates = [merged(em.model, em.stats, [pair], params) for pair in pairs]
    if params.transitions != "left_right" and n_tried > 1:
        rarest = int(np.argmin(em.stats["post"]))
        candidates.append(without_state(em.model, rarest, params))
    if len(candidates) == 1:
        return candidates[0]
    losses = [songs.log_likelihood(candidate) for candidate in candidates]
    return candidates[int(np.argmax(np.nan_to_num(losses, nan=-np.inf)))]


def merge_costs(model: GaussianHMM, stats: Statistics, params: HmmParams) -> Array:
    """About what merging costs in log-likelihood [n_states, n_states], nats; the upper triangle.

    Two terms: one Gaussian in the place of two (moments matched), and one row of transitions in the
    place of two. It is too high, and only ranks: that there are fewer states to go to is left out,
    and where states overlap, so is that nobody need tell them apart any more. Infinite where a pair
    cannot be merged: with left-right transitions only neighbours can.
    """
    n = np.maximum(stats["post"], 1e-10)
    n_states = len(n)
    costs = _emission_costs(model, n) + _row_costs(stats["trans"])
    later = np.triu(np.ones((n_states, n_states), dtype=bool), 1)
    if params.transitions == "left_right":
        later &= ~np.triu(np.ones((n_states, n_states), dtype=bool), 2)
    return np.where(later, costs, np.inf)


def _emission_costs(model: GaussianHMM, n: Array) -> Array:
    """n/2 log of merged variances, less those of the two [n_states, n_states]."""
    means = model.means_
    both = n[:, None] + n[None, :]
    between = n[:, None] * n[None, :] / both**2
    if model.covariance_type == "tied":
        inverse = np.linalg.pinv(model._covars_, hermitian=True)  # far outliers: singular
        apart = means @ inverse * means
        squares = apart.sum(1)[:, None] + apart.sum(1)[None, :] - 2 * means @ inverse @ means.T
        return np.asarray(0.5 * both * between * squares)
    # Full covariances by their diagonals: this only ranks.
    variances = np.diagonal(np.asarray(model.covars_), axis1=1, axis2=2)
    if model.covariance_type == "spherical":
        squares = np.square(means[:, None] - means[None]).mean(2)
        variance = variances[:, 0]
        pooled = (n * variance)[:, None] + (n * variance)[None]
        logs = np.log(pooled / both + between * squares) * means.shape[1]
        own = n * np.log(variance) * means.shape[1]
    else:
        pooled = (n[:, None] * variances)[:, None] + (n[:, None] * variances)[None]
        pooled = pooled / both[:, :, None]
        pooled += between[:, :, None] * np.square(means[:, None] - means[None])
        logs = np.log(pooled).sum(2)
        own = n * np.log(variances).sum(1)
    return np.asarray(0.5 * (both * logs - own[:, None] - own[None, :]))


def _row_costs(counts: Array) -> Array:
    """Nats that one row of transitions in place of two costs, for expected counts."""

    def x_log_x(x: Array) -> Array:
        return x * np.log(np.maximum(x, 1e-300))

    own = x_log_x(counts).sum(1) - x_log_x(counts.sum(1))
    costs = np.empty((len(counts), len(counts)))
    for i, row in enumerate(counts):
        both = row + counts
        costs[i] = own[i] + own - (x_log_x(both).sum(1) - x_log_x(both.sum(1)))
    return costs
