"""How much song is enough: the rule, and the sentence.

A doubling of song makes held-out song likelier, by less each time. Song is enough where a doubling
begins to gain less than `LEAST_GAIN`. The rule looks at the gain and not at the level, because the
level depends on the decoder. It does not look at the number of states, because that grows as long
as there is more song: a larger model is always a little nearer to real song.

The rule sees only amounts that there are. With so little song that BIC pays for few states, gains
can be small for a while before they are large: then a short curve ends too early, and the answer is
too low. benchmarks/how_much.py has birds for which that happens below some 2,000 snippets.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_io.recordings.table import BirdAge

Array = NDArray[np.float64]

# Nats per snippet that a doubling must gain to be worth its recordings: held-out song then becomes
# likelier by a tenth in every snippet. What a model of the right number of states lacks falls as 1
# by the amount of song, so that its gains halve, and all further song together gains twice this.
LEAST_GAIN = 0.1
N_RESAMPLES = 2000
MIN_HELD_OUT = 3  # recordings: with fewer, nobody can tell how much of a gain is their accident
NOTE = (
    "Fitted is the training side, about 70 % of what was recorded. Compare numbers of states, "
    "entropies and information per snippet only at matched minutes."
)


@dataclass(frozen=True)
class Curve:
    """Held-out log-likelihoods of one bird and age, over amounts from the smallest to all.

    Attributes:
        bird_age: bird and age.
        minutes: [n_subsamples, n_amounts] of sound.
        nats: [n_subsamples, n_amounts, n_held_out] log-likelihood of each held-out recording.
        lengths: [n_held_out] snippets of each.
        n_states: [n_subsamples, n_amounts] that BIC chooses.
        recorded_share: recorded minutes, silence included, per minute of sound.
    """

    bird_age: BirdAge
    minutes: Array
    nats: Array
    lengths: NDArray[np.int64]
    n_states: Array
    recorded_share: float


@dataclass(frozen=True, kw_only=True)
class Advice:
    """How much song of one bird and age is enough, by the rule.

    Attributes:
        bird_age: bird and age.
        minutes: of sound that are enough; None where the last doubling, to all the song there is,
            still gains too much: then more is needed than it began with.
        low, high: one standard error to either side; ``high`` is infinite where so many
            resamples do not reach the end of the gains.
        smallest: the smallest amount in minutes: as ``minutes`` it means so many or fewer.
        largest: minutes of all the song there is.
        gains: [n_doublings] nats per snippet, by doubling.
        gain_errors: [n_doublings] standard errors of ``gains``.
        from_minutes: [n_doublings] minutes that each doubling begins with.
        n_states: means before and after the last doubling.
        n_states_error: standard error of their difference.
        n_held_out: recordings that the gains were measured on.
        recorded_share: recorded minutes per minute of sound.
    """

    bird_age: BirdAge
    minutes: float | None
    low: float
    high: float
    smallest: float
    largest: float
    gains: Array
    gain_errors: Array
    from_minutes: Array
    n_states: tuple[float, float]
    n_states_error: float
    n_held_out: int
    recorded_share: float

    @property
    def states_grow(self) -> bool:
        """Whether the last doubling adds states, by more than a standard error."""
        before, after = self.n_states
        return after - before > self.n_states_error


def advise(curve: Curve) -> Advice:
    """Apply the rule to one bird and age.

    The gain of a doubling is a difference within a subsample, in nats per snippet, divided by the
    doublings that its whole recordings really make. Standard errors are of a bootstrap over
    subsamples and over held-out recordings, both at once. They say how far the answer could be off
    for this song; another day of the bird may differ by more.

    Args:
        curve: two amounts or more, two subsamples or more.
    """
    n_subsamples, n_amounts, n_held_out = curve.nats.shape
    if n_subsamples < 2 or n_amounts < 2:
        raise ValueError(
            f"{n_subsamples} subsamples of {n_amounts} amounts: a gain with its standard error "
            "needs two of both."
        )
    rng = np.random.default_rng(0)
    by_subsample = _weights(rng, n_subsamples)
    by_recording = _weights(rng, n_held_out)
    log_minutes = np.log2(curve.minutes)
    doublings = np.diff(log_minutes, axis=1)
    gained = np.diff(curve.nats, axis=1) / doublings[:, :, None]
    sums = np.einsum("bs,sjr,br->bj", by_subsample, gained, by_recording)
    gains = sums / n_subsamples / (by_recording @ curve.lengths)[:, None]
    begins = by_subsample @ log_minutes[:, :-1] / n_subsamples
    enough = np.array([enough_at(x, g) for x, g in zip(begins, gains, strict=True)])
    low, high = (float(2**x) for x in np.quantile(enough[1:], (0.159, 0.841), method="nearest"))
    added = np.diff(curve.n_states[:, -2:], axis=1)[:, 0]
    before, after = curve.n_states[:, -2:].mean(0)
    return Advice(
        bird_age=curve.bird_age,
        minutes=float(2 ** enough[0]) if math.isfinite(enough[0]) else None,
        low=low,
        high=high,
        smallest=float(2 ** begins[0, 0]),
        largest=float(curve.minutes[:, -1].mean()),
        gains=gains[0],
        gain_errors=gains[1:].std(0),
        from_minutes=2 ** begins[0],
        n_states=(float(before), float(after)),
        n_held_out=n_held_out,
        n_states_error=float(added.std(ddof=1) / math.sqrt(n_subsamples)),
        recorded_share=curve.recorded_share,
    )


def _weights(rng: np.random.Generator, n: int) -> Array:
    """How much each of ``n`` counts [1 + N_RESAMPLES, n], n together; in the first row 1.

    One fewer is drawn than there are: with few, standard errors would be too small (Rao and Wu
    1988).
    """
    n_drawn = max(n - 1, 1)
    drawn = rng.multinomial(n_drawn, np.full(n, 1 / n), size=N_RESAMPLES) * (n / n_drawn)
    return np.asarray(np.vstack([np.ones(n), drawn]), dtype=np.float64)


def enough_at(log_minutes: Array, gains: Array) -> float:
    """The log2 minutes from which on every doubling gains less than `LEAST_GAIN`.

    Between two doublings the gain is a straight line over log minutes. Infinite where the last
    doubling gains more; the first amount where none does.

    Args:
        log_minutes: [n_doublings] that each doubling begins with.
        gains: [n_doublings] nats per snippet.
    """
    above = np.flatnonzero(gains >= LEAST_GAIN)
    if not len(above):
        return float(log_minutes[0])
    i = int(above[-1])
    if i == len(gains) - 1:
        return math.inf
    share = (gains[i] - LEAST_GAIN) / (gains[i] - gains[i + 1])
    return float(log_minutes[i] + share * (log_minutes[i + 1] - log_minutes[i]))


def sentence(advice: Advice) -> str:
    """The advice for one bird and age in words."""
    bird, age = advice.bird_age
    if advice.n_held_out < MIN_HELD_OUT:
        few = "1 recording is" if advice.n_held_out == 1 else f"{advice.n_held_out} recordings are"
        reason = f"only {few} held out, {MIN_HELD_OUT} are needed to tell a gain from chance"
        return too_little(advice.bird_age, [reason])
    if advice.minutes is None:
        # All there is may be enough: nobody knows what its doubling would gain.
        found = (
            f"the {_minutes(advice.largest)} of sound that were fitted, "
            f"{_minutes(advice.largest * advice.recorded_share)} recorded, may not be enough: the "
            f"last doubling, from {_minutes(float(advice.from_minutes[-1]))}, still gained "
            f"{advice.gains[-1]:.2f} +- {advice.gain_errors[-1]:.2f} nats per snippet"
        )
    else:
        if advice.minutes <= advice.smallest:
            amount = f"{_minutes(advice.smallest)} of sound or fewer"
        else:
            high = f"{advice.high:.2g}" if math.isfinite(advice.high) else "more than there are"
            amount = (
                f"{_minutes(advice.minutes)} of sound (one standard error: {advice.low:.2g} to "
                f"{high})"
            )
        found = (
            f"{amount}, {_minutes(advice.minutes * advice.recorded_share)} recorded, are enough: "
            f"from there a doubling gains less than {LEAST_GAIN:g} nats per snippet (the last one "
            f"{advice.gains[-1]:.2f} +- {advice.gain_errors[-1]:.2f})"
        )
    before, after = advice.n_states
    states = f"the number of states, {after:.3g}, no longer grows"
    if advice.states_grow:
        states = (
            f"the number of states still grows, from {before:.3g} to {after:.3g} in the last "
            "doubling"
        )
    return f"{bird} at {age}: {found}; {states}."


def _minutes(minutes: float) -> str:
    text = f"{minutes:.2g}" if minutes < 10 else f"{minutes:,.0f}"
    return f"{text} minute{'' if text == '1' else 's'}"


def too_little(bird_age: BirdAge, reasons: Sequence[str]) -> str:
    """The sentence for a bird and age without a curve."""
    why = "; ".join(dict.fromkeys(reason for reason in reasons if reason))
    return f"{bird_age[0]} at {bird_age[1]}: no advice: {why}."
