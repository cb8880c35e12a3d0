"""The numbers of one channel on which the checks of a recording rest, taken in one pass."""

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Levels are counted in bins of a float's sign, exponent and first 10 bits: 0.05 to 0.1 % wide.
_SHIFT = 13
PART = 64  # samples that are looked at together
# What is known of a channel, as numba reads and writes it.
_STATE = np.dtype(
    [
        (name, np.int64)
        for name in (
            "n", "n_bad", "first_bad", "bits", "is_finer", "is_whole", "run_start", "n_first",
            "n_gaps", "gap_samples", "first_gap", "n_held", "held_samples", "first_held",
        )
    ]
    + [(name, np.float64) for name in ("total", "squares", "high", "low")]
    + [(name, np.float32) for name in ("last", "before", "first_value", "held_value")]
)  # fmt: skip


class Channel:
    """What one channel holds, so far.

    Attributes:
        n: samples.
        n_bad: samples that are not finite numbers; the numbers below leave them out.
        first_bad: place of the first of them.
        high, low: the highest and the lowest sample.
        n_first, n_last: samples of the run of one value at the start and at the end.
        first_value, last: those values.
        is_whole: True if every sample is a whole number, as far as samples above 1 tell.
        n_gaps, gap_samples, first_gap: runs of zeros between other samples: how many, samples in
            all, place of the first.
        n_held, held_samples, first_held, held_value: the same of one value other than zero.
    """

    def __init__(self, shortest_gap: int) -> None:
        self._shortest_gap = max(shortest_gap, PART)
        self._state = np.zeros(1, _STATE)
        self._state["high"], self._state["low"] = -np.inf, np.inf
        self._state["last"] = self._state["before"] = np.nan
        self._state["is_whole"] = True
        self._levels = np.zeros((2**32 >> _SHIFT, 2), np.uint32)  # only what is touched takes room

    def add(self, samples: Floats) -> None:
        """Take the next samples [n], contiguous."""
        _measure(samples, samples.view(np.uint32), self._shortest_gap, self._state, self._levels)

    def __getattr__(self, name: str) -> Any:
        return self._state[name][0].item()

    @property
    def is_constant(self) -> bool:
        """True if every sample is the same number."""
        return bool(self.high == self.low)

    @property
    def is_silent(self) -> bool:
        """True if every sample is 0."""
        return bool(self.high == self.low == 0.0)

    @property
    def n_last(self) -> int:
        """Samples of the run of one value at the end."""
        return int(self.n - self.run_start)

    @property
    def mean(self) -> float:
        """The offset (DC)."""
        return float(self.total / max(self.n - self.n_bad, 1))

    @property
    def rms(self) -> float:
        """Of the samples less their mean."""
        return math.sqrt(max(self.squares / max(self.n - self.n_bad, 1) - self.mean**2, 0.0))

    @property
    def extreme(self) -> float:
        """The largest size of a sample."""
        return float(max(self.high, -self.low))

    @property
    def peak(self) -> float:
        """The largest distance of a sample from the mean."""
        return float(max(self.high - self.mean, self.mean - self.low))

    @property
    def step(self) -> float:
        """The largest power of two, 2^-31 to 1, that divides every sample; 0 if none does."""
        bits = int(self.bits)
        if self.is_finer or not self.is_whole:
            return 0.0
        return math.ldexp(bits & -bits, -31) if bits else 1.0

    def at_ceiling(self, sign: int, grain: float) -> tuple[int, int, int]:
        """Samples near the highest (sign 1) or lowest (-1): a ceiling cuts off what was higher.

        Args:
            sign: 1 or -1.
            grain: one step of the samples, 0 if they have none.

        Returns:
            How many lie at the ceiling (within 0.1 %, or one step), how many of these in a row of
            three or more, and how many lie in a band of the same width below.
        """
        ceiling = sign * (self.high if sign > 0 else self.low)
        if ceiling <= 0:
            return 0, 0, 0
        top = _bin(sign * ceiling)
        bottom = min(top - 1, _bin(sign * (ceiling - 1.5 * grain)))
        width = ceiling - sign * _edge(bottom)
        next_band = _bin(sign * (ceiling - 2 * width))
        counts, flat = self._levels[bottom : top + 1].sum(0, dtype=np.int64)
        return int(counts), int(flat), int(self._levels[next_band:bottom, 0].sum(dtype=np.int64))


def _bin(value: float) -> int:
    return int(np.float32(value).view(np.uint32)) >> _SHIFT


def _edge(bin_: int) -> float:
    return float(np.uint32(bin_ << _SHIFT).view(np.float32))


@numba.njit(cache=True, fastmath={"reassoc", "nsz", "contract"})
def _sums(part: Floats) -> Any:
    """Sum, sum of squares, bits of the samples below 1 as multiples of 2^-31, and what is finer."""
    total, squares, bits, rest = np.float32(0), np.float32(0), np.int32(0), np.float32(0)
    for x in part:
        total += x
        squares += x * x
        multiple = (x if abs(x) < 1 else np.float32(0)) * np.float32(2.0**31)
        bits |= np.int32(multiple)
        rest += multiple - np.floor(multiple)
    return total, squares, bits, rest


@numba.njit(cache=True, fastmath={"nnan", "ninf", "nsz", "reassoc"})
def _ends(part: Floats) -> Any:
    """The highest and the lowest sample of finite ones; max() would not be done in vectors."""
    high, low = part[0], part[0]
    for x in part:
        high = x if x > high else high
        low = x if x < low else low
    return high, low


@numba.njit(cache=True)
def _slow_sums(part: Floats, s: Any) -> tuple[float, float, float, float]:
    """Sum, sum of squares, highest and lowest of samples that are huge or not finite."""
    total, squares, high, low = 0.0, 0.0, -np.inf, np.inf
    for j in range(len(part)):
        x = part[j]
        if not abs(x) < np.inf:
            s.first_bad = s.n + j if s.n_bad == 0 else s.first_bad
            s.n_bad += 1
            continue
        total += x
        squares += np.float64(x) * np.float64(x)
        high = max(high, x)
        low = min(low, x)
    return total, squares, high, low


@numba.njit(cache=True)
def _end_run(s: Any, end: int, shortest_gap: int) -> None:
    """The run of one value that began at s.run_start is over."""
    length = end - s.run_start
    if s.run_start == 0:
        s.n_first, s.first_value = length, s.last
    elif length >= shortest_gap:
        if s.last == 0:
            s.first_gap = s.run_start if s.n_gaps == 0 else s.first_gap
            s.n_gaps += 1
            s.gap_samples += length
        else:
            s.first_held = s.run_start if s.n_held == 0 else s.first_held
            s.held_value = s.last if s.n_held == 0 else s.held_value
            s.n_held += 1
            s.held_samples += length


@numba.njit(cache=True)
def _count_levels(
    part: Floats, as_bits: NDArray[np.uint32], s: Any, levels: NDArray[np.uint32]
) -> None:
    """Count the samples above half of the highest, and below half of the lowest."""
    last, before = s.last, s.before
    for j in range(len(part)):
        x = part[j]
        if x > 0.5 * s.high or x < 0.5 * s.low:
            near = abs(x) * np.float32(2.0**-10)
            levels[as_bits[j] >> _SHIFT, 0] += 1
            levels[as_bits[j] >> _SHIFT, 1] += abs(x - last) <= near and abs(x - before) <= near
        before, last = last, x


@numba.njit(cache=True)
def _measure(
    samples: Floats,
    as_bits: NDArray[np.uint32],
    shortest_gap: int,
    state: NDArray[Any],
    levels: NDArray[np.uint32],
) -> None:
    """Add samples to the state, in parts that are shorter than the shortest gap."""
    s = state[0]
    for start in range(0, len(samples), PART):
        part = samples[start : start + PART]
        total, squares, bits, rest = _sums(part)
        if squares < np.inf:
            high, low = _ends(part)
        else:
            total, squares, high, low = _slow_sums(part, s)
        s.bits |= bits
        s.is_finer |= rest > 0
        if high > 1 or low < -1:  # the multiples are of samples below 1
            for x in part:
                s.is_whole &= x == np.floor(x)
        s.total += total
        s.squares += squares
        s.high, s.low = max(s.high, high), min(s.low, low)
        if high > 0.5 * s.high or low < 0.5 * s.low:
            _count_levels(part, as_bits[start : start + PART], s, levels)
        first = 0
        while first < len(part) and part[first] == s.last:
            first += 1
        if first < len(part):
            _end_run(s, s.n + first, shortest_gap)
            change = len(part) - 1
            while change > 0 and part[change] == part[change - 1]:
                change -= 1
            s.run_start = s.n + max(change, first)
        s.before = part[-2] if len(part) > 1 else s.last
        s.last = part[-1]
        s.n += len(part)
