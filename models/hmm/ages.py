"""What can be compared between ages of a bird: order and use of states, each with an interval.

At equal numbers of snippets: the number of states that BIC chooses rises with the minutes of song,
and so does held-out predictive information, since transitions are learned better.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.hmm.em import Songs
from models.hmm.gaussian import GaussianHMM
from models.hmm.params import HmmParams
from models.hmm.predictive import song_likelihoods
from models.hmm.shared import with_own_transitions

Array = NDArray[np.float64]

N_RESAMPLES = 1000
N_FOLDS = 5
LEVEL = 0.95


class Interval(NamedTuple):
    """A figure and its 95 % interval over songs; NaN where there are too few."""

    value: float
    low: float
    high: float


def predictive_information(
    sequences: Sequence[Array], model: GaussianHMM, params: HmmParams, seed: int
) -> Interval:
    """What the order of snippets tells of the next, in bits per snippet, of songs held out.

    Songs are dealt into N_FOLDS parts; the transitions that judge a part are learned from the other
    parts, with the emissions of ``model``. The interval is a bootstrap over songs.

    Args:
        sequences: whitened latents [n_snippets, latent_dim] of the recordings of one age.
        model: whose emissions are used, for latents as they were given.
        params: of EM.
        seed: deals and resamples.
    """
    some = [s for s in sequences if len(s)]
    if len(some) < 2:
        return Interval(math.nan, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    fold = rng.permutation(len(some)) % min(N_FOLDS, len(some))
    gained, lengths = np.zeros(len(some)), np.array([len(s) for s in some], dtype=np.float64)
    for number in range(int(fold.max()) + 1):
        here, others = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        fitted = Songs([some[i] for i in others], model.covariance_type, params.engine)
        learned = fitted.uncentred(with_own_transitions(model, fitted, params).model)
        judged = Songs([some[i] for i in here], model.covariance_type, params.engine)
        found = song_likelihoods(judged, learned)
        gained[here] = (found.in_order - found.order_ignored) / math.log(2)
    return _interval(gained[:, None], lengths, lambda sums, n: float(sums[0] / n), rng)


def silent_states(posteriors: Array, holds_sound: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether most snippets of each state hold no sound [n_states].

    Args:
        posteriors: P(state | song) of every snippet [n_snippets, n_states].
        holds_sound: whether any frame of the snippet holds sound [n_snippets].
    """
    return mostly_silent(holds_sound @ posteriors, posteriors.sum(0))


def mostly_silent(n_sound: Array, n_in: Array) -> NDArray[np.bool_]:
    """Whether fewer than half of the snippets of each state hold sound [n_states].

    Args:
        n_sound: expected snippets of each state that hold sound [n_states].
        n_in: expected snippets of each state [n_states].
    """
    return np.asarray(n_sound < 0.5 * n_in)


def states_in_use(counts: Array, seed: int) -> Interval:
    """Effective number of states: exp of the entropy of their shares (Hill number of order 1).

    It is no count of syllables: it also rises where the same syllables grow more distinct.

    Args:
        counts: [n_songs, n_states] expected snippets of each song in each state.
        seed: resamples.
    """
    rng = np.random.default_rng(seed)
    return _interval(counts, counts.sum(1), lambda sums, _: effective_number(sums), rng)


def effective_number(counts: Array) -> float:
    """Exp of the entropy of shares that are proportional to ``counts``; NaN without any."""
    if not counts.sum() > 0:
        return math.nan
    shares = counts[counts > 0] / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _interval(
    per_song: Array,
    lengths: Array,
    figure: Callable[[Array, float], float],
    rng: np.random.Generator,
) -> Interval:
    """A figure of sums over songs [n_columns] and snippets, and its spread by the bootstrap."""
    value = figure(per_song.sum(0), float(lengths.sum()))
    n = len(per_song)
    if n < 2:
        return Interval(value, math.nan, math.nan)
    counts = rng.multinomial(n, np.full(n, 1 / n), N_RESAMPLES).astype(np.float64)
    again = [figure(sums, size) for sums, size in zip(counts @ per_song, counts @ lengths,
                                                      strict=True)]  # fmt: skip
    low, high = np.quantile(again, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))


def change(first: Interval, last: Interval) -> str:
    """What two intervals say of a change: "rises", "falls", or "shows no change"; "" of none.

    Intervals that do not overlap are a stricter test than 5 %: about 0.6 % for equal spreads.
    """
    if not all(map(math.isfinite, (*first, *last))):
        return ""
    if last.low > first.high:
        return "rises"
    return "falls" if last.high < first.low else "shows no change"
