"""What is compared: lengths, order, loudness, as a fixed number of numbers of any set of songs."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

MIN_VALUES = 20  # fewer have no distribution
# Of a distribution, at the middles of so many equal parts: the mean difference of two is their
# Wasserstein distance, to a thousandth of their range.
N_QUANTILES = 1000
N_SHUFFLES = 5


def quantiles(songs: Sequence[Array]) -> Array:
    """Quantiles [N_QUANTILES] of the values of all songs; NaN of fewer than 20 values."""
    values = np.sort(np.concatenate([np.zeros(0), *songs]))
    if len(values) < MIN_VALUES:
        return np.full(N_QUANTILES, math.nan)
    middles = (np.arange(N_QUANTILES) + 0.5) / N_QUANTILES
    return values[(middles * len(values)).astype(np.int64)]


def run_lengths(states: IntArray) -> Array:
    """Snippets that each state lasts [n_runs], of the states of a song [n_snippets]."""
    if not len(states):
        return np.zeros(0)
    ends = np.flatnonzero(np.append(states[1:] != states[:-1], True))
    return np.diff(ends, prepend=-1).astype(np.float64)


def order_information(songs: Sequence[IntArray], seed: int = 0) -> float:
    """I(next state; one before | state) in bits: what a model of first order cannot know.

    The plug-in estimate, less its mean where the next states of each state are shuffled: counts of
    few snippets alone give information, by thousands of triples that were seen once.

    Args:
        songs: states [n_snippets] of each.
        seed: of the shuffling.

    Returns:
        0 on average for a chain of first order; NaN of fewer than 20 triples.
    """
    triples = [np.stack([s[:-2], s[1:-1], s[2:]]) for s in songs if len(s) > 2]
    before, now, after = np.concatenate([np.zeros((3, 0), np.int64), *triples], axis=1)
    if len(now) < MIN_VALUES:
        return math.nan
    rng = np.random.default_rng(seed)
    by_state = np.argsort(now, kind="stable")
    before, now, after = before[by_state], now[by_state], after[by_state]
    by_chance = 0.0
    for _ in range(N_SHUFFLES):
        shuffled = np.lexsort((rng.random(len(now)), now))
        by_chance += _joint_entropy(before, now, after[shuffled]) / N_SHUFFLES
    # Entropies of pairs and of the state are the same in both, and fall away.
    return by_chance - _joint_entropy(before, now, after)


def _joint_entropy(*of: IntArray) -> float:
    """Bits, of what several sequences [n] show together."""
    size = 1 + max(int(one.max()) for one in of)
    code = np.zeros(len(of[0]), np.int64)
    for one in of:
        code = code * size + one
    shares = np.unique(code, return_counts=True)[1] / len(code)
    return float(-(shares * np.log2(shares)).sum())


def autocorrelation(songs: Sequence[Array], lags: Sequence[int]) -> Array:
    """Autocorrelation at ``lags``, about the mean of all songs; NaN where no song is so long."""
    found = np.full(len(lags), math.nan)
    if not sum(map(len, songs)):
        return found
    mean = np.concatenate(list(songs)).mean()
    centred = [song - mean for song in songs]
    variance = float(np.concatenate(centred).var())
    for i, lag in enumerate(lags):
        n = sum(max(len(song) - lag, 0) for song in centred)
        if n >= MIN_VALUES and variance > 0:
            found[i] = sum(float(song[lag:] @ song[:-lag]) for song in centred if len(song) > lag)
            found[i] /= n * variance
    return found
