"""Where EM begins: k-means, random, a neighbouring number of states, or the age before.

All give a model that is centred as the songs are.
"""

import copy
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning

from models.hmm.em import Songs, Statistics, m_step, new_model, set_covariances
from models.hmm.gaussian import GaussianHMM
from models.hmm.params import HmmParams

Array = NDArray[np.float64]

# k-means of more snippets gives no better start and would take longer than EM itself.
KMEANS_SNIPPETS = 20_000
# Of the snippets that a model explains worst, those among which a missing state is looked for.
WORST_SHARE = 0.02
MIN_WORST, MAX_WORST = 50, 1000


def kmeans_start(songs: Songs, n_states: int, seed: int, params: HmmParams) -> GaussianHMM:
    """States at the centres of clusters (k-means++, then Lloyd)."""
    rows = _some_rows(songs, seed)
    with warnings.catch_warnings():
        # Fewer distinct snippets than states: the fit itself will tell.
        warnings.simplefilter("ignore", ConvergenceWarning)
        kmeans = KMeans(n_states, n_init=1, max_iter=20, random_state=seed).fit(rows)
    # One spread for all: that within clusters, so that a cluster of one snippet is no spike.
    within = float(np.square(rows - kmeans.cluster_centers_[kmeans.labels_]).mean())
    return _even_start(songs, kmeans.cluster_centers_, within, params)


def random_start(songs: Songs, n_states: int, seed: int, params: HmmParams) -> GaussianHMM:
    """States at snippets drawn far from one another (k-means++ seeding, Arthur 2007)."""
    rows = _some_rows(songs, seed)
    centres, _ = kmeans_plusplus(rows, n_states, random_state=seed)
    # The states share the data: each begins as wide as the n-th part of its volume.
    spread = float(rows.var(0).mean()) / n_states ** (2 / rows.shape[1])
    return _even_start(songs, centres, spread, params)


def _some_rows(songs: Songs, seed: int) -> Array:
    if songs.n_snippets <= KMEANS_SNIPPETS:
        return songs.X
    chosen = np.random.default_rng(seed).choice(songs.n_snippets, KMEANS_SNIPPETS, replace=False)
    return songs.X[np.sort(chosen)]


def _even_start(songs: Songs, means: Array, spread: float, params: HmmParams) -> GaussianHMM:
    """States at ``means``, equal in spread, starts and transitions."""
    n_states, latent_dim = means.shape
    model = new_model(n_states, latent_dim, params)
    model.startprob_ = np.full(n_states, 1 / n_states)
    model.transmat_ = np.full((n_states, n_states), 1 / n_states)
    if params.transitions == "left_right":
        means = means[np.argsort(_when(songs, means), kind="stable")]
        model.startprob_ = np.eye(n_states)[0]
        later = np.triu(np.ones((n_states, n_states)))
        model.transmat_ = later / later.sum(1, keepdims=True)
    model.means_ = np.array(means, dtype=np.float64)
    variances = np.full((n_states, latent_dim), max(spread, params.min_variance))
    set_covariances(model, variances, params)
    return model


def _when(songs: Songs, means: Array) -> Array:
    """Mean time, as a share of the song, of the snippets nearest to each of ``means``."""
    time = np.concatenate([(np.arange(n) + 0.5) / n for n in songs.lengths])
    nearest = np.argmin(
        np.square(means).sum(1) - 2 * songs.X @ means.T, axis=1
    )  # |x - m|^2 without |x|^2
    n = np.bincount(nearest, minlength=len(means))
    return np.bincount(nearest, time, minlength=len(means)) / np.maximum(n, 1)


def chained_start(songs: Songs, before: GaussianHMM, params: HmmParams) -> GaussianHMM:
    """The model of the age before; its transitions loosened so that lost ones can come back."""
    n_states = before.n_components
    model = new_model(n_states, songs.latent_dim, params)
    allowed = before.transmat_ > 0 if params.transitions == "left_right" else True
    even = np.where(allowed, 1.0, 0.0) * np.ones((n_states, n_states))
    even /= even.sum(1, keepdims=True)
    model.transmat_ = 0.95 * before.transmat_ + 0.05 * even
    model.startprob_ = before.startprob_.copy()
    if params.transitions != "left_right":
        model.startprob_ = 0.95 * before.startprob_ + 0.05 / n_states
    model.means_ = before.means_.copy()
    model._covars_ = np.array(before._covars_)
    return songs.centred(model)


def without_rare_transitions(model: GaussianHMM, stats: Statistics) -> GaussianHMM:
    """A copy whose transitions expected less than once are zero, and stay zero in EM.

    The likeliest of each row is kept.
    """
    pruned = copy.copy(model)
    counts = stats["trans"]
    kept = (counts >= 1.0) | (model.transmat_ == model.transmat_.max(1, keepdims=True))
    transitions = np.where(kept, model.transmat_, 0.0)
    pruned.transmat_ = transitions / transitions.sum(1, keepdims=True)
    return pruned


def merged(
    model: GaussianHMM, stats: Statistics, pairs: Sequence[tuple[int, int]], params: HmmParams
) -> GaussianHMM:
    """A model in which each of ``pairs`` (disjoint) is one state: an M-step of summed counts."""
    n_states = model.n_components
    into = np.arange(n_states)
    for keep, gone in pairs:
        into[gone] = keep
    _, first, into = np.unique(into, return_index=True, return_inverse=True)
    n_left = n_states - len(pairs)
    together = np.zeros((n_left, n_states))
    together[into, np.arange(n_states)] = 1.0

    summed: Statistics = {"nobs": stats["nobs"]}
    for name in ("start", "post", "weight"):
        if name in stats:
            summed[name] = together @ stats[name]
    summed["trans"] = together @ stats["trans"] @ together.T
    for name in ("obs", "obs**2", "obs*obs.T"):
        if name in stats:
            summed[name] = np.tensordot(together, stats[name], axes=1)
    fewer = new_model(n_left, model.n_features, params)
    # What EM replaces, but of dead states; zeros of transitions stay, where both states had them.
    fewer.startprob_ = together @ model.startprob_
    allowed = together @ (model.transmat_ > 0) @ together.T > 0
    fewer.transmat_ = allowed / allowed.sum(1, keepdims=True)
    _take_emissions(fewer, model, first)
    m_step(fewer, summed, params)
    return fewer


def without_state(model: GaussianHMM, state: int, params: HmmParams) -> GaussianHMM:
    """A model without ``state``: whatever led to it leads on to where it led."""
    left = np.delete(np.arange(model.n_components), state)
    fewer = new_model(len(left), model.n_features, params)
    onward = model.transmat_[state, left]
    through = model.transmat_[np.ix_(left, left)] + np.outer(model.transmat_[left, state], onward)
    fewer.transmat_ = _rows_to_one(through)
    start = model.startprob_[left] + model.startprob_[state] * onward
    fewer.startprob_ = _rows_to_one(start[None])[0]
    _take_emissions(fewer, model, left)
    return fewer


def _take_emissions(model: GaussianHMM, of: GaussianHMM, states: NDArray[np.int64]) -> None:
    """Give ``model`` the means and covariances of ``states`` of another."""
    covars = np.array(of._covars_)
    model.means_ = of.means_[states]
    model._covars_ = covars if of.covariance_type == "tied" else covars[states]


def _rows_to_one(weights: Array) -> Array:
    sums = weights.sum(1, keepdims=True)
    empty = sums[:, 0] <= 0
    weights = np.where(empty[:, None], 1.0, weights)
    return np.asarray(weights / weights.sum(1, keepdims=True))


def split(model: GaussianHMM, state: int, params: HmmParams) -> GaussianHMM:
    """A model with ``state`` twice, half a standard deviation to either side of its longest axis.

    The second one comes last; with left-right transitions, next to the first.
    """
    n_states, latent_dim = model.n_components, model.n_features
    order = np.append(np.arange(n_states), state)
    if params.transitions == "left_right":
        order = np.sort(order)
    more = new_model(n_states + 1, latent_dim, params)
    share = np.where(order == state, 0.5, 1.0)
    more.transmat_ = model.transmat_[np.ix_(order, order)] * share
    more.startprob_ = model.startprob_[order] * share
    if params.transitions == "left_right":
        more.transmat_ = _rows_to_one(np.triu(more.transmat_))
        more.startprob_ = np.eye(n_states + 1)[0]
    _take_emissions(more, model, order)
    first, second = np.flatnonzero(order == state)
    step = 0.5 * _longest_axis(model, state)
    more.means_[first] -= step
    more.means_[second] += step
    return more


def _longest_axis(model: GaussianHMM, state: int) -> Array:
    """Direction in which a state varies most, one standard deviation long [latent_dim]."""
    covars = np.asarray(model.covars_)[state]  # hmmlearn gives full matrices for all types
    values, vectors = np.linalg.eigh(covars)
    return np.asarray(vectors[:, -1] * np.sqrt(max(values[-1], 0.0)))


def with_new_state(songs: Songs, model: GaussianHMM, params: HmmParams) -> GaussianHMM:
    """A model with one state more, where badly explained snippets lie closest together.

    A rare kind of snippet has no state of its own when k-means saw too few of it.
    """
    n_states = model.n_components
    explained = songs.snippet_log_likelihoods(model)
    n_worst = min(songs.n_snippets, max(MIN_WORST, int(WORST_SHARE * songs.n_snippets)), MAX_WORST)
    worst = songs.X[np.argpartition(explained, n_worst - 1)[:n_worst]]
    squares = np.square(worst).sum(1)
    distances = squares[:, None] + squares[None] - 2 * worst @ worst.T
    n_near = min(params.min_snippets_per_state, n_worst)
    near = np.argpartition(distances, n_near - 1, axis=1)[:, :n_near]
    centre = int(np.argmin(np.take_along_axis(distances, near, axis=1).sum(1)))

    more = new_model(n_states + 1, songs.latent_dim, params)
    share = 1 / (n_states + 1)
    transitions = np.full((n_states + 1, n_states + 1), share)
    transitions[:n_states, :n_states] = (1 - share) * model.transmat_
    more.transmat_ = transitions
    more.startprob_ = np.append((1 - share) * model.startprob_, share)
    more.means_ = np.vstack([model.means_, worst[near[centre]].mean(0)])
    covars = np.array(model._covars_)
    if params.covariance_type != "tied":
        covars = np.concatenate([covars, covars.mean(0, keepdims=True)])
    more._covars_ = covars
    return more
