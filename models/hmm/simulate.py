"""Songs of latents from a hidden Markov model that is known: the truth of tests and benchmarks.

Everything that real latents have and that leads a fit astray is a parameter: silence, rare states,
heavy tails, noise that drifts, correlated latents, a memory of more than one state. Shares of
states are planted exactly: a random table is fitted to its margins (Sinkhorn and Knopp 1967).
"""

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from models.hmm.arrays import restored
from models.hmm.em import Songs
from models.hmm.gaussian import GaussianHMM
from models.hmm.latent_params import LatentParams

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Of the Dirichlet distribution of transitions: from a state, few others are likely.
CONCENTRATION = 0.5
# No transition is impossible: shares that are asked for can always be met.
RAREST_MOVE = 1e-6
MARGIN_ERROR = 1e-10  # relative
# Accuracy is measured on as many songs and snippets of each as this, drawn for it alone: a truth
# is the same however much song is drawn from it.
ACCURACY_SONGS, ACCURACY_SNIPPETS = 120, 108
BISECTIONS = 14


@dataclass(frozen=True)
class LatentSongs:
    """Songs and the truth about them.

    Attributes:
        songs: latents [n_snippets, latent_dim] of each.
        states: of every snippet [n_snippets] of each song.
        model: the truth where the order is 1 and the noise normal and new at every snippet;
            elsewhere the Gaussian HMM that has the same means, covariances, shares and P(next
            state | state), which is as near as a model of first order comes. A song starts
            in the steady state.
        transitions: P(next state | state) [n_states, n_states], or for order 2 P(next state | one
            before, state) [n_states, n_states, n_states].
        shares: of each state in the steady state [n_states].
        n_silent: silent states; they are the first.
        accuracy: Bayes accuracy of ``model``, measured on 120 other songs.
        distance: standard deviation of the means of states, in standard deviations of the noise.
        entropy_rate_bits: of the chain, per snippet.
        predictive_information_bits: entropy of a state less the entropy rate: what the states
            before tell of the next, per snippet.
        beyond_first_order_bits: I(next state; one before | state): what a model of first order
            cannot know.
    """

    songs: list[Array]
    states: list[IntArray]
    model: GaussianHMM
    transitions: Array
    shares: Array
    n_silent: int
    accuracy: float
    distance: float
    entropy_rate_bits: float
    predictive_information_bits: float
    beyond_first_order_bits: float


def simulate_latents(params: LatentParams, seed: int) -> LatentSongs:
    """Songs from a hidden Markov model that is drawn by ``seed``; same arguments, same numbers.

    The model depends on the seed and on ``params``, but not on how much song is drawn; states do
    not depend on emissions.

    Raises:
        ValueError: the accuracy asked for is below what shares, transitions and variances alone
            give, or ``seed`` is negative.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}: it must be 0 or more.")
    chain_rng, emission_rng, accuracy_rng, song_rng = np.random.default_rng(seed).spawn(4)
    source = _Source(params, chain_rng, emission_rng)
    accuracy_at = source.accuracy(accuracy_rng)
    distance = params.separation
    if params.separated_by == "accuracy":
        distance = _distance_for(params.separation, accuracy_at)
    lengths = _lengths(params, song_rng)
    states, noise = source.draw(lengths, song_rng)
    entropy_rate = _entropy(source.sequences) - _entropy(source.starts)
    state_entropy = _entropy(source.shares)
    return LatentSongs(
        songs=_split(distance * source.directions[states] + noise, lengths),
        states=_split(states, lengths),
        model=source.model_at(distance),
        transitions=source.transitions,
        shares=source.shares,
        n_silent=params.n_silent,
        accuracy=accuracy_at(distance),
        distance=distance,
        entropy_rate_bits=entropy_rate,
        predictive_information_bits=state_entropy - entropy_rate,
        beyond_first_order_bits=_entropy(source.pairs) - state_entropy - entropy_rate,
    )


class _Source:
    """The hidden Markov model, but for how far its means lie from one another."""

    def __init__(
        self,
        params: LatentParams,
        chain_rng: np.random.Generator,
        emission_rng: np.random.Generator,
    ):
        self.params = params
        self.pairs, self.sequences = _chain(params, chain_rng)
        self.shares: Array = self.pairs.sum(1)
        self.transitions: Array = self.sequences / self.sequences.sum(-1, keepdims=True)
        self.starts: Array = self.sequences.sum(-1).ravel()  # of contexts
        self.directions, self.covariances, self.roots = _emissions(params, emission_rng)

    def model_at(self, distance: float) -> GaussianHMM:
        return restored(
            self.shares, self.pairs / self.shares[:, None], distance * self.directions,
            self.covariances, self.params.covariance_type,
        )  # fmt: skip

    def draw(self, lengths: IntArray, rng: np.random.Generator) -> tuple[IntArray, Array]:
        """States of songs end to end, and the noise about their means."""
        states = state_paths(self.transitions, self.starts, lengths, rng)
        noise = _noise(self.params, lengths, rng)
        for state, root in enumerate(self.roots):
            rows = states == state
            noise[rows] = noise[rows] @ root.T
        return states, noise

    def accuracy(self, rng: np.random.Generator) -> Callable[[float], float]:
        """Bayes accuracy by distance, all on the same states and noise."""
        lengths = np.full(ACCURACY_SONGS, ACCURACY_SNIPPETS)
        states, noise = self.draw(lengths, rng)

        def accuracy_at(distance: float) -> float:
            latents = distance * self.directions[states] + noise
            songs = Songs(_split(latents, lengths), self.params.covariance_type)
            named = songs.posteriors(songs.centred(self.model_at(distance))).argmax(1)
            return float((named == states).mean())

        return accuracy_at


def _chain(params: LatentParams, rng: np.random.Generator) -> tuple[Array, Array]:
    """Steady state of pairs [n_states, n_states], and of as many states as the order and 1."""
    k = params.n_states
    onward = rng.dirichlet(np.full(k, CONCENTRATION), k) + RAREST_MOVE
    onward /= onward.sum(1, keepdims=True)
    by_chance = np.asarray(np.linalg.solve(np.eye(k) - onward.T + 1.0, np.ones(k)), np.float64)
    shares = _shares(params, by_chance, rng)
    moves = _with_margins(by_chance[:, None] * onward, shares, shares)
    pairs = params.stickiness * np.diag(shares) + (1 - params.stickiness) * moves
    if params.order == 1:
        return pairs, pairs
    # By their middle state: [middle, one before, next], each with the pairs as its margins.
    triples = rng.gamma(CONCENTRATION, size=(k, k, k)) + RAREST_MOVE
    triples = _with_margins(triples, pairs.T, pairs)
    return pairs, triples.transpose(1, 0, 2)


def _shares(params: LatentParams, by_chance: Array, rng: np.random.Generator) -> Array:
    n, shares = params.n_silent, by_chance.copy()
    if params.rarest < 1:
        shares[n:] = rng.permutation(np.geomspace(1, params.rarest, len(shares) - n))
    shares[n:] *= (1 - params.silence_share) / shares[n:].sum()
    shares[:n] = params.silence_share / max(n, 1)
    return shares


def _with_margins(table: Array, rows: Array, columns: Array) -> Array:
    """``table`` [..., n, n], all above 0, scaled to sums ``rows`` and ``columns`` [..., n]."""
    while True:
        table = table * (columns / table.sum(-2))[..., None, :]
        factors = rows / table.sum(-1)
        table = table * factors[..., None]
        if np.abs(factors - 1).max() < MARGIN_ERROR:
            return table


def _emissions(params: LatentParams, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Means at distance 1, covariances as hmmlearn takes them, and their roots [k, d, d]."""
    k, d = params.n_states, params.latent_dim
    directions, silent_place = np.split(rng.standard_normal((k + 1, d)), [k])
    wide = math.sqrt(params.condition)
    axes = np.geomspace(1 / wide, wide, d)
    axes /= axes.mean()
    deviation = np.ones(k)
    n = params.n_silent
    deviation[:n] = math.sqrt(params.silence_variance)
    directions[:n] = silent_place + deviation[:n, None] * directions[:n]
    kind = params.covariance_type
    if kind == "spherical":
        return directions, deviation**2, deviation[:, None, None] * np.eye(d)
    if kind == "diag":
        variances = deviation[:, None] ** 2 * np.stack([rng.permutation(axes) for _ in range(k)])
        return directions, variances, np.sqrt(variances)[:, None] * np.eye(d)
    n_shapes = 1 if kind == "tied" else k
    rotations = np.linalg.qr(rng.standard_normal((n_shapes, d, d)))[0]
    roots = deviation[:, None, None] * (rotations * np.sqrt(axes))
    covariances = roots @ roots.transpose(0, 2, 1)
    return directions, covariances[0] if kind == "tied" else covariances, roots


def _lengths(params: LatentParams, rng: np.random.Generator) -> IntArray:
    weights = np.ones(params.n_songs)
    if params.length_variation > 0:
        weights = rng.gamma(params.length_variation**-2, size=params.n_songs)
    ends = np.rint((params.n_snippets - params.n_songs) * weights.cumsum() / weights.sum())
    return np.asarray(np.diff(ends, prepend=0.0).astype(np.int64) + 1)


def state_paths(
    transitions: Array, starts: Array, lengths: IntArray, rng: np.random.Generator
) -> IntArray:
    """States of all songs, end to end, of chains of any order.

    Args:
        transitions: P(next state | context) [..., n_states]; a context is the last state, or the
            last two.
        starts: probability of each context at the beginning of a song [n_contexts].
        lengths: snippets of each song.
        rng: draws them.
    """
    k, n_contexts = transitions.shape[-1], len(starts)
    cumulative = transitions.reshape(n_contexts, k).cumsum(1)
    cumulative[:, -1] = 1.0  # rounding must leave no gap
    rows = cumulative.tolist()  # an array would take ten times as long, entry by entry
    contexts = rng.choice(n_contexts, len(lengths), p=starts / starts.sum()).tolist()
    uniform = iter(rng.random(int(lengths.sum())).tolist())
    path: list[int] = []
    for first, length in zip(contexts, lengths.tolist(), strict=True):
        context, state = first, first % k
        path.append(state)
        for _ in range(length - 1):
            state = bisect_right(rows[context], next(uniform))
            context = (context * k + state) % n_contexts
            path.append(state)
    return np.array(path, dtype=np.int64)


def _noise(params: LatentParams, lengths: IntArray, rng: np.random.Generator) -> Array:
    """Noise of variance 1 in every dimension [n_snippets, latent_dim], songs end to end."""
    n_shared = params.overlap - 1
    size = (int(lengths.sum()) + n_shared * len(lengths), params.latent_dim)
    if params.t_df is None:
        noise = rng.standard_normal(size)
    else:
        noise = rng.standard_t(params.t_df, size) * math.sqrt(1 - 2 / params.t_df)
    if params.ar:
        for song in _split(noise, lengths):  # views
            song[1:] *= math.sqrt(1 - params.ar**2)
            song[:] = lfilter([1.0], [1.0, -params.ar], song, axis=0)
    if n_shared:
        mean = np.full(params.overlap, 1 / math.sqrt(params.overlap))
        songs = _split(noise, lengths + n_shared)
        noise = np.concatenate([lfilter(mean, [1.0], song, axis=0)[n_shared:] for song in songs])
    return noise


def _distance_for(accuracy: float, accuracy_at: Callable[[float], float]) -> float:
    """The distance at which the model names so many states rightly."""
    least = accuracy_at(0.0)
    if accuracy <= least:
        raise ValueError(
            f"separation is an accuracy of {accuracy:g}, but shares, transitions and variances of "
            f"the states alone give {least:.3f}, wherever their means lie: raise it, or lower "
            "stickiness, silence_share or condition."
        )
    low, high = 0.0, 1.0
    while accuracy_at(high) < accuracy:
        low, high = high, 2 * high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if accuracy_at(middle) < accuracy else (low, middle)
    return high


def _split(values: NDArray[Any], lengths: IntArray) -> list[NDArray[Any]]:
    return np.split(values, lengths.cumsum()[:-1])


def _entropy(probs: Array) -> float:
    """Bits, of a table of probabilities that sums to 1 and has no zeros."""
    return float((probs * np.log2(1 / probs)).sum())
