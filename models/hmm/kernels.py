"""Compiled forward-backward over batches of songs of unequal length.

Songs are sorted by length and packed by time: all first snippets, then all second ones, and so on.
The songs still running at a time are then a prefix of those before, and one step of the recursion
is one matrix product for all of them. Scaled as in Rabiner 1989, section V.A; emission densities
are divided by their largest per snippet first. A song in which a scale comes near underflow is
marked, for the caller to do in logarithms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

# A scale below this could hide a path that was flushed to zero (below 1e-308) and matters later.
SMALLEST_SCALE = 1e-200
# Enough songs side by side for the products to be fast; the arrays of a chunk stay in the cache.
CHUNK_SNIPPETS = 8000
# Of exp: below _LOWEST it gives 0; adding _ROUND (1.5 * 2^52) leaves no digits behind the point.
_LOWEST = -708.0
_LOG2_E = 1.4426950408889634
_LN_2_HIGH = 6.93147180369123816490e-01
_LN_2_LOW = 1.90821492927058770002e-10
_ROUND = 6755399441055744.0


@dataclass(frozen=True)
class Chunk:
    """Songs that are computed side by side.

    Attributes:
        songs: [n_songs] their numbers, by falling length.
        rows: [n_snippets] where each packed snippet stands in the data.
        offsets: [longest + 1] where each time begins among the packed snippets.
    """

    songs: Ints
    rows: Ints
    offsets: Ints


def pack(lengths: Sequence[int]) -> list[Chunk]:
    """Chunks of at most about CHUNK_SNIPPETS snippets, of songs of ``lengths`` laid end to end."""
    sizes = np.asarray(lengths, dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    by_length = np.argsort(-sizes, kind="stable")
    by_length = by_length[sizes[by_length] > 0]
    filled = np.cumsum(sizes[by_length]) // CHUNK_SNIPPETS
    groups = np.split(by_length, np.flatnonzero(np.diff(filled)) + 1) if len(by_length) else []
    return [_pack_chunk(songs, starts, sizes) for songs in groups]


def _pack_chunk(songs: Ints, starts: Ints, sizes: Ints) -> Chunk:
    longest = int(sizes[songs[0]])
    # Songs that are longer than t, for each t: sizes fall, so their negatives rise.
    n_running = np.searchsorted(-sizes[songs], -np.arange(longest), side="left")
    offsets = np.concatenate([[0], np.cumsum(n_running)]).astype(np.int64)
    time = np.repeat(np.arange(longest), n_running)
    song = np.arange(offsets[-1]) - offsets[time]
    return Chunk(songs, starts[songs[song]] + time, offsets)


def _bitcast(source: Any, target: Any) -> Any:
    """A compiled function that reads the bits of a ``source`` as a ``target``."""

    @intrinsic
    def cast(typing_context: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.bitcast(values[0], context.get_value_type(target))

        return target(source), generate

    return cast


_as_bits = _bitcast(types.float64, types.int64)
_as_float = _bitcast(types.int64, types.float64)


@numba.njit(cache=True)
def to_densities(log_densities: Array, shifts: Array) -> None:
    """In place: exp(log_densities - row's maximum) [n, n_states]; the maxima go to ``shifts``."""
    _row_maxima(log_densities, shifts)
    _exp_of_differences(log_densities, shifts)


# In both loops max() would hide from the compiler that they can be done in vectors.
@numba.njit(cache=True, fastmath={"nnan", "nsz", "reassoc"})
def _row_maxima(values: Array, maxima: Array) -> None:
    for i in range(values.shape[0]):
        top = values[i, 0]
        for k in range(1, values.shape[1]):
            top = values[i, k] if values[i, k] > top else top
        maxima[i] = top


# Not "reassoc": it would undo the rounding by _ROUND.
@numba.njit(cache=True, fastmath={"contract"})
def _exp_of_differences(values: Array, shifts: Array) -> None:
    """In place: exp(values - shifts) of differences <= 0, to the last bit or two of a float64.

    exp(x) = 2^n exp(r), n whole and |r| <= ln 2 / 2, by Taylor's polynomial for exp(r); written so
    that the compiler makes vector instructions of it, which it cannot of the library's exp. The
    polynomial is summed as a tree: in one chain, each step would wait for the one before.
    """
    for i in range(values.shape[0]):
        for k in range(values.shape[1]):
            difference = values[i, k] - shifts[i]
            x = difference if difference > _LOWEST else _LOWEST
            rounded = x * _LOG2_E + _ROUND  # the last bits now hold n
            n = rounded - _ROUND
            r = (x - n * _LN_2_HIGH) - n * _LN_2_LOW
            r2 = r * r
            r4 = r2 * r2
            low = (1 / 2 + r * (1 / 6)) + r2 * (1 / 24 + r * (1 / 120))
            middle = (1 / 720 + r * (1 / 5040)) + r2 * (1 / 40320 + r * (1 / 362880))
            high = (1 / 3628800 + r * (1 / 39916800)) + r2 * (1 / 479001600 + r * (1 / 6227020800))
            exp_r = (r + r2 * (low + r4 * (middle + r4 * high))) + 1.0
            power_of_two = _as_float((_as_bits(rounded) + 1023) << 52)
            values[i, k] = exp_r * power_of_two if difference > _LOWEST else 0.0


@numba.njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def forward(
    densities: Array,
    start_probs: Array,
    transition_matrix: Array,
    offsets: Ints,
    alpha: Array,
    shifts: Array,
    scales: Array,
    smallest_scale: float,
    is_marked: NDArray[np.bool_],
) -> None:
    """Scaled forward probabilities.

    Args:
        densities: [n, n_states] packed; comes as logarithms, and is made what `to_densities` says.
        start_probs: [n_states].
        transition_matrix: [n_states, n_states].
        offsets: of the chunk.
        alpha: [n, n_states] gets P(state | snippets so far).
        shifts: [n] gets the logarithms that were taken out of the densities.
        scales: [n] gets the factors that were taken out of alpha.
        smallest_scale: SMALLEST_SCALE.
        is_marked: [n_songs] set where a scale is smaller or no number.
    """
    n_states = len(start_probs)
    alpha[: offsets[1]] = start_probs
    for t in range(len(offsets) - 1):
        begin, end = offsets[t], offsets[t + 1]
        if t > 0:
            before = offsets[t - 1]
            np.dot(alpha[before : before + end - begin], transition_matrix, alpha[begin:end])
        # At this place, so that the densities are still in the cache for the next loop.
        to_densities(densities[begin:end], shifts[begin:end])
        for row in range(begin, end):
            total = 0.0
            for k in range(n_states):
                value = alpha[row, k] * densities[row, k]
                alpha[row, k] = value
                total += value
            if not total > smallest_scale:
                is_marked[row - begin] = True
                scales[row] = 1.0
                for k in range(n_states):
                    alpha[row, k] = 1.0 / n_states
            else:
                scales[row] = total
                inverse = 1.0 / total
                for k in range(n_states):
                    alpha[row, k] *= inverse


@numba.njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def backward(
    densities: Array,
    transposed: Array,
    offsets: Ints,
    alpha: Array,
    scales: Array,
    onward: Array,
    gamma: Array,
    is_marked: NDArray[np.bool_],
) -> None:
    """Posteriors, and what the sums over transitions are made of.

    Args:
        densities: [n, n_states] of `forward`.
        transposed: [n_states, n_states] transition matrix, transposed.
        offsets: of the chunk.
        alpha: of `forward`.
        scales: of `forward`.
        onward: [n, n_states] gets density * beta / scale of the next snippet of the same song, 0 at
            a song's end: transitions are transition_matrix * (alpha' onward).
        gamma: [n, n_states] gets P(state | all snippets).
        is_marked: [n_songs] set where gamma does not sum to 1.
    """
    n_states = transposed.shape[0]
    beta = np.ones((offsets[1], n_states))
    n_next = 0  # songs that have a next snippet
    for t in range(len(offsets) - 2, -1, -1):
        begin = offsets[t]
        n = offsets[t + 1] - begin
        if n_next > 0:
            np.dot(onward[begin : begin + n_next], transposed, beta[:n_next])
        onward[begin + n_next : begin + n] = 0.0
        before = offsets[max(t - 1, 0)]
        for i in range(n):
            row = begin + i
            total = 0.0
            for k in range(n_states):
                value = alpha[row, k] * beta[i, k]
                gamma[row, k] = value
                total += value
            if not abs(total - 1.0) < 1e-6:
                is_marked[i] = True
            # A state that has a snippet to itself gets exactly 1: in the variance of an outlier's
            # state, large numbers then cancel to the last digit.
            for k in range(n_states):
                gamma[row, k] /= total
            if t > 0:
                inverse = 1.0 / scales[row]
                for k in range(n_states):
                    onward[before + i, k] = densities[row, k] * beta[i, k] * inverse
        n_next = n


@numba.njit(cache=True)
def clear_marked(
    offsets: Ints,
    scales: Array,
    shifts: Array,
    onward: Array,
    gamma: Array,
    is_marked: NDArray[np.bool_],
) -> None:
    """Take marked songs out of all sums."""
    for t in range(len(offsets) - 1):
        begin = offsets[t]
        for i in range(offsets[t + 1] - begin):
            if is_marked[i]:
                scales[begin + i] = 1.0
                shifts[begin + i] = 0.0
                onward[begin + i] = 0.0
                gamma[begin + i] = 0.0
