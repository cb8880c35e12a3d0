"""One property of real songs beside the same of songs sampled from a model, and a verdict.

A posterior predictive check (Rubin 1984; Gelman, Meng and Stern 1996): were the model right, the
real songs would lie among the replicas, sets of sampled songs of the same lengths. With enough song
every model fails so, by however little. Therefore the difference is also held against that between
two halves of the real songs. The verdict was fixed before any was given:

- "unlike the bird": the real songs lie outside the spread of the replicas, and farther from them
  than one half of the real songs lies from the other.
- "close": only one of the two holds.
- "like the bird": neither does.
- "cannot tell": fewer than four songs, or too little in them of what is compared.

Outside: the distance of the real songs to the mean of the replicas is above what one replica in a
hundred would have to the others, over all checks of a bird and age together (Student's t prediction
bound, at 1 % divided by the number of checks).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

Array = NDArray[np.float64]
Song = NDArray[Any]  # what a statistic sees of one song
LIKE, CLOSE, UNLIKE = "like the bird", "close", "unlike the bird"
CANNOT_TELL = "cannot tell"

LEVEL = 0.01  # of a false "outside" in any check of a bird and age
N_CHECKS = 7  # dwell, order, windows, sounds, gaps, loudness, pitch
N_SPLITS = 10  # of the real songs into halves; their median counts
MIN_SONGS = 4  # two for each half


@dataclass(frozen=True)
class Statistic:
    """A property of a set of songs.

    Attributes:
        name: of the check.
        unit: of its numbers.
        of: gives its numbers, always as many, of songs; NaN where they hold too little of it. The
            distance of two sets of songs is the mean absolute difference of their numbers: of
            quantiles, the Wasserstein distance. The mean of the numbers is shown.
        words: what the numbers are, for a person.
    """

    name: str
    unit: str
    of: Callable[[Sequence[Song]], Array]
    words: str


@dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison of real and sampled songs.

    Attributes:
        check: name of the statistic.
        unit: of all numbers.
        n_songs: real songs compared.
        n_replicas: sets of sampled songs.
        real: value of the real songs.
        replicas: median value of the replicas.
        spread_low, spread_high: lowest and highest value of the replicas.
        distance: of the real songs to the replicas' mean.
        outside_above: the distance from which the real songs lie outside the replicas.
        halves: distance of two halves of the real songs; median of ten splits.
        decoder: distance of the real songs to their reconstruction: what the decoder alone does;
            NaN for checks of latents.
        beyond_decoder: distance of the reconstruction to the replicas' mean; likewise.
        verdict: "like the bird", "close", "unlike the bird" or "cannot tell"; see the module.
        reason: for the verdict, in words.
    """

    check: str
    unit: str
    n_songs: int
    n_replicas: int
    real: float = math.nan
    replicas: float = math.nan
    spread_low: float = math.nan
    spread_high: float = math.nan
    distance: float = math.nan
    outside_above: float = math.nan
    halves: float = math.nan
    decoder: float = math.nan
    beyond_decoder: float = math.nan
    verdict: str = CANNOT_TELL
    reason: str = ""


def compare(
    statistic: Statistic,
    real: Sequence[Song],
    replicas: Sequence[Sequence[Song]],
    seed: int,
    reconstruction: Sequence[Song] | None = None,
) -> Check:
    """Compare real songs with replicas of them.

    Args:
        statistic: what is compared.
        real: one item for each song, as the statistic takes them.
        replicas: the same of every set of sampled songs.
        seed: of the halves.
        reconstruction: the real songs, encoded and decoded.
    """
    check = Check(
        check=statistic.name, unit=statistic.unit, n_songs=len(real), n_replicas=len(replicas)
    )
    if len(real) < MIN_SONGS:
        return replace(check, reason=f"{len(real)} songs: halves need {MIN_SONGS} or more")
    of_real = statistic.of(real)
    between = [
        apart(*(statistic.of([real[i] for i in half]) for half in halves))
        for halves in splits(len(real), seed)
    ]
    if math.isnan(np.median(between)):
        return replace(check, reason=f"half of the real songs holds too few {statistic.words}")
    of_replicas = np.array([statistic.of(songs) for songs in replicas])
    check = replace(check, real=float(of_real.mean()), halves=float(np.median(between)))
    n_without = int(np.isnan(of_replicas).any(axis=1).sum())
    if n_without:
        reason = f"{n_without} of {len(replicas)} replicas hold too few {statistic.words}"
        is_most = n_without > len(replicas) / 2
        return replace(check, reason=reason, verdict=UNLIKE if is_most else CANNOT_TELL)
    mean, n = of_replicas.mean(0), len(of_replicas)
    values = of_replicas.mean(1)
    check = replace(
        check, distance=apart(of_real, mean), replicas=float(np.median(values)),
        spread_low=float(values.min()), spread_high=float(values.max()),
    )  # fmt: skip
    if reconstruction is not None:
        decoded = statistic.of(reconstruction)
        check = replace(check, decoder=apart(of_real, decoded), beyond_decoder=apart(decoded, mean))
    return judged(check, [apart(one, (n * mean - one) / (n - 1)) for one in of_replicas])


def judged(check: Check, among: Sequence[float]) -> Check:
    """The check with its verdict.

    Args:
        check: with its distance and that of the real halves.
        among: distances of replicas to the others.
    """
    bound = outside_above(among)
    if math.isnan(check.distance + bound + check.halves):
        return replace(check, reason="a part of the songs holds too little of it")
    is_outside, is_farther = check.distance > bound, check.distance > check.halves
    reason = (
        f"{'outside' if is_outside else 'inside'} the replicas' spread, "
        f"{'farther' if is_farther else 'nearer'} than halves of the real songs"
    )
    verdict = (LIKE, CLOSE, UNLIKE)[is_outside + is_farther]
    return replace(check, outside_above=bound, verdict=verdict, reason=reason)


def outside_above(among: Sequence[float]) -> float:
    """The bound that one replica more would pass in ``LEVEL / N_CHECKS`` of cases."""
    n = len(among)
    spread = float(np.std(among, ddof=1)) * math.sqrt(1 + 1 / n)
    return float(np.mean(among)) + float(t.ppf(1 - LEVEL / N_CHECKS, n - 1)) * spread


def apart(one: Array, other: Array) -> float:
    """Distance of two statistics of the same kind."""
    return float(np.abs(one - other).mean())


def splits(n_songs: int, seed: int) -> list[list[NDArray[np.int64]]]:
    """Ten ways to part songs into halves; indices of both."""
    rng = np.random.default_rng(seed)
    return [np.array_split(rng.permutation(n_songs), 2) for _ in range(N_SPLITS)]
