"""What is heard in one recording: bouts of song, calls between them, noises of the cage."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator

from data_io.aviary.birds import Bird
from data_io.aviary.cage import cage_noise
from data_io.aviary.development import Variability
from data_io.aviary.params import AviaryParams
from data_io.aviary.syllables import (
    DISTANCE_CALL,
    INTRODUCTORY,
    TET,
    FloatArray,
    SyllableType,
    synthesise,
    vary,
)
from data_io.aviary.syntax import Chain

Kind = Literal["syllable", "introductory", "call", "cage_noise"]

_TETS = 0.7  # of all calls
_CALLS_VARY = 0.3  # as much as syllables of the same age: calls need not be learned
_SECONDS_PER_BOUT = 7.0
_SHORTEST_SYLLABLE_S = 0.02
_BEYOND_S = 0.06  # of the last sound lies beyond what was wanted, on average
_LEFT_S = 0.6  # of a short recording: the longest sound, and some silence
_PAUSES_SHARE = 0.3  # of all silence, that lies at least between bouts and around them
_CAGE_SHARE = 0.5  # of all sound, that noises of the cage may take up at most


@dataclass(frozen=True)
class Sound:
    """One sound of a recording.

    Attributes:
        kind: syllable, introductory, call or cage_noise.
        label: its type.
        bout: number of its bout in the recording, from 0; -1 for calls and noises of the cage.
        onset: its first sample.
        samples: [n_samples], 1 is the RMS of a loud syllable.
    """

    kind: Kind
    label: str
    bout: int
    onset: int
    samples: FloatArray


@dataclass(frozen=True)
class _Unplaced:
    kind: Kind
    label: str
    samples: FloatArray
    gap: int = 0  # samples of silence before the next sound of the bout


def sing(
    rng: Generator,
    params: AviaryParams,
    bird: Bird,
    chain: Chain,
    variability: Variability,
    n_samples: int,
) -> list[Sound]:
    """Draw the sounds of one recording, in order, apart from each other.

    Sounds are drawn until the rest is as long as the bird's ``silence_share`` says, to half a
    sound. Where the gaps within bouts alone would be longer than that, all of them are shortened
    by one factor.

    Args:
        rng: Source of random numbers.
        params: Shares of calls, introductory notes, noises of the cage.
        bird: Who sings.
        chain: Of its syllables at this age.
        variability: At this age and hour.
        n_samples: Length of the recording.
    """
    rate = bird.sample_rate_hz
    budget = round((1.0 - bird.silence_share) * n_samples)
    noises = _cage_noises(rng, params, n_samples, rate, round(_CAGE_SHARE * budget))
    budget -= sum(len(noise.samples) for noise in noises)
    # The last sound ends beyond. It is kept, whatever it is: were long ones left out, chains
    # counted from the recordings would be off.
    left = n_samples - sum(len(noise.samples) for noise in noises)
    enough = min(budget - round(_BEYOND_S * rate), left - round(_LEFT_S * rate))
    n_bouts = 1 + int(rng.poisson(max(n_samples / rate / _SECONDS_PER_BOUT - 1.0, 0.0)))
    bouts: list[list[_Unplaced]] = []
    calls: list[_Unplaced] = []
    sung = 0
    for share in np.cumsum(rng.dirichlet(np.full(n_bouts, 4.0))):
        bouts.append([])
        notes = _bout(rng, params, bird, chain, variability, n_samples)
        while sung < share * enough:
            is_call = rng.uniform() < params.calls_share
            sound = _call(rng, bird, variability) if is_call else next(notes)
            sung += len(sound.samples)
            (calls if is_call else bouts[-1]).append(sound)
    return _placed(rng, [bout for bout in bouts if bout], [*calls, *noises], n_samples)


def _bout(
    rng: Generator,
    params: AviaryParams,
    bird: Bird,
    chain: Chain,
    variability: Variability,
    n_samples: int,
) -> Iterator[_Unplaced]:
    """Give introductory notes, then syllables of the chain, at least ``n_samples`` of them all."""
    for _ in range(1 + int(rng.poisson(params.introductory_notes - 1.0))):
        yield _note(rng, bird, "introductory", INTRODUCTORY, variability)
    shortest = int(_SHORTEST_SYLLABLE_S * bird.sample_rate_hz)
    for label in chain.sing(rng, n_samples // shortest + 1):
        yield _note(rng, bird, "syllable", chain.labels[label], variability)


def _note(
    rng: Generator, bird: Bird, kind: Kind, label: str, variability: Variability
) -> _Unplaced:
    sound, timing = variability.sound, variability.timing
    samples = _sung(rng, bird.types[label], sound, timing, bird.sample_rate_hz)
    # Gaps go from a grown bird's to babble as durations do, see `vary`.
    log_typical, log_babble = np.log([bird.gaps_s[label], 0.02 + rng.exponential(0.06)])
    log_gap = (1.0 - timing) * log_typical + timing * log_babble + 0.03 * rng.standard_normal()
    gap_s = min(float(np.exp(log_gap)), 0.25)
    return _Unplaced(kind, label, samples, round(gap_s * bird.sample_rate_hz))


def _call(rng: Generator, bird: Bird, variability: Variability) -> _Unplaced:
    label = TET if rng.uniform() < _TETS else DISTANCE_CALL
    sound, timing = _CALLS_VARY * variability.sound, _CALLS_VARY * variability.timing
    samples = _sung(rng, bird.types[label], sound, timing, bird.sample_rate_hz)
    return _Unplaced("call", label, samples)


def _sung(rng: Generator, of: SyllableType, sound: float, timing: float, rate: int) -> FloatArray:
    return synthesise(rng, vary(rng, of, sound, timing), sound, rate)


def _cage_noises(
    rng: Generator, params: AviaryParams, n_samples: int, rate: int, at_most: int
) -> list[_Unplaced]:
    """Draw noises of the cage; those that would pass ``at_most`` samples together are left out."""
    found: list[_Unplaced] = []
    for _ in range(int(rng.poisson(params.cage_noises_per_minute * n_samples / rate / 60.0))):
        label, samples = cage_noise(rng, rate)
        at_most -= len(samples)
        if at_most < 0:
            break
        found.append(_Unplaced("cage_noise", label, samples))
    return found


def _placed(
    rng: Generator, bouts: list[list[_Unplaced]], singles: list[_Unplaced], n_samples: int
) -> list[Sound]:
    """Give every sound its onset: singles lie in pauses, of which one more begins and ends it."""
    groups: list[tuple[int, list[_Unplaced]]] = list(enumerate(bouts))
    for single in singles:
        groups.insert(int(rng.integers(len(groups) + 1)), (-1, [single]))
    silence = n_samples - sum(len(sound.samples) for _, group in groups for sound in group)
    gaps = sum(sound.gap for _, group in groups for sound in group[:-1])
    factor = min(1.0, (1.0 - _PAUSES_SHARE) * silence / max(gaps, 1))
    gap_of = {id(sound): max(int(factor * sound.gap), 1) for _, group in groups for sound in group}
    free = silence - sum(gap_of[id(sound)] for _, group in groups for sound in group[:-1])
    # A pause has at least a third of its even share, so that no two sounds run together.
    shares = (1.0 + 2.0 * rng.dirichlet(np.ones(len(groups) + 1)) * (len(groups) + 1)) / 3.0
    pauses = (shares / shares.sum() * free).astype(int)
    sounds, at = [], 0
    for (bout, group), pause in zip(groups, pauses, strict=False):
        at += pause
        for i, sound in enumerate(group):
            sounds.append(Sound(sound.kind, sound.label, bout, at, sound.samples))
            at += len(sound.samples) + (gap_of[id(sound)] if i < len(group) - 1 else 0)
    return sounds
