"""Types of sounds, their renditions and their samples.

A rendition lies between its type and babble, a sound drawn without regard to any type. Variability
of sound says how far towards babble pitch, noise and loudness lie, variability of timing how far
duration lies: 0 is a type to within a few percent, 1 is subsong, in which no type can be told.
Babble follows what is known of subsong: durations that fall off exponentially, low and unsteady
pitch, much noise (Aronov et al. 2011, J Neurosci 31:16353; Tchernichovski et al. 2001, Science
291:2564).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from numpy.random import Generator
from scipy import fft

FloatArray = npt.NDArray[np.float64]

INTRODUCTORY = "i"  # label of introductory notes
DISTANCE_CALL, TET = "distance", "tet"  # labels of calls
LOUDEST = 6.0  # the most that a sample of `synthesise` reaches, on either side of 0

_LOWEST_HZ, _HIGHEST_HZ = 250.0, 12_000.0  # above 8 kHz the analysis has to filter it away
_RADIATED_HZ = 1_500.0
_SHORTEST_S, _LONGEST_S = 0.02, 0.5
_TABLE_SIZE = 4096  # samples of a period; with straight lines between them, exact to -90 dB


@dataclass(frozen=True)
class SyllableType:
    """A type of sound, or one rendition of it.

    Attributes:
        duration_s: length, ramps included.
        f0_hz: fundamental frequency, on average.
        slope: change of log frequency from start to end.
        bend: log frequency at the ends minus log frequency in the middle.
        formant_hz: where the vocal tract lets most through.
        formant_width_hz: standard deviation of that passage.
        noisiness: share of noise in the sound, 0 to 1, where it begins.
        noisiness_end: where it ends; a syllable may turn from stack to noise, or back.
        level: RMS of the plateau; about 1 for loud syllables.
        ramp_s: length of the attack, and of the decay.
    """

    duration_s: float
    f0_hz: float
    slope: float
    bend: float
    formant_hz: float
    formant_width_hz: float
    noisiness: float
    noisiness_end: float
    level: float
    ramp_s: float


def draw_types(rng: Generator, labels: Sequence[str]) -> dict[str, SyllableType]:
    """Draw one syllable type for each label; types of one call can be told apart."""
    n = len(labels)
    # One value from each of n equal parts of a range, shuffled.
    durations, pitches = ((rng.permutation(n) + rng.uniform(0.2, 0.8, n)) / n for _ in range(2))
    n_noisy = int(rng.integers(1, max(n // 2, 1) + 1))
    n_high = int(rng.integers(0, 2))
    kinds = rng.permutation((["noisy"] * n_noisy + ["high"] * n_high + ["stack"] * n)[:n])
    return {
        label: _draw_type(rng, str(kinds[i]), float(durations[i]), float(pitches[i]))
        for i, label in enumerate(labels)
    }


def draw_introductory(rng: Generator) -> SyllableType:
    """Draw the introductory note of a bird: short, and softer than its syllables."""
    note = _draw_type(rng, "stack", rng.uniform(0.05, 0.3), rng.uniform())
    return replace(note, level=0.5)


def draw_calls(rng: Generator) -> dict[str, SyllableType]:
    """Draw a bird's calls: the long distance call, which sweeps down, and the short low tet."""
    distance = SyllableType(
        duration_s=rng.uniform(0.1, 0.2),
        f0_hz=rng.uniform(550.0, 850.0),
        slope=rng.uniform(-0.5, -0.3),
        bend=rng.uniform(-0.2, 0.0),
        formant_hz=rng.uniform(3000.0, 4500.0),
        formant_width_hz=rng.uniform(1000.0, 1600.0),
        noisiness=rng.uniform(0.0, 0.1),
        noisiness_end=rng.uniform(0.0, 0.1),
        level=rng.uniform(0.8, 1.1),
        ramp_s=rng.uniform(0.008, 0.015),
    )
    tet = replace(
        distance,
        duration_s=rng.uniform(0.04, 0.07),
        f0_hz=rng.uniform(350.0, 500.0),
        slope=rng.uniform(-0.25, 0.1),
        formant_hz=rng.uniform(1500.0, 3000.0),
        level=rng.uniform(0.25, 0.45),
    )
    return {DISTANCE_CALL: distance, TET: tet}


def resembling(rng: Generator, of: SyllableType) -> SyllableType:
    """Draw a copy of a tutor's type: duration, pitch, formant and level are 2 to 5 % off."""
    off = (1.0 + rng.choice([-1.0, 1.0], 4) * rng.uniform(0.02, 0.05, 4)).tolist()
    return replace(
        of,
        duration_s=of.duration_s * off[0],
        f0_hz=of.f0_hz * off[1],
        formant_hz=of.formant_hz * off[2],
        level=of.level * off[3],
    )


def vary(rng: Generator, of: SyllableType, sound: float, timing: float) -> SyllableType:
    """Draw one rendition of a type.

    Args:
        rng: Source of random numbers.
        of: The type.
        sound: Variability of pitch, noise and loudness, 0 to 1.
        timing: Variability of duration, 0 to 1.
    """
    babble = _draw_babble(rng)
    pitch, slope, bend, formant, level, duration = rng.standard_normal(6).tolist()

    def between(typical: float, other: float) -> float:
        return (1.0 - sound) * typical + sound * other

    def log_between(typical: float, other: float, share: float, sd: float, z: float) -> float:
        return math.exp((1.0 - share) * math.log(typical) + share * math.log(other) + sd * z)

    duration_s = log_between(of.duration_s, babble.duration_s, timing, 0.02, duration)
    return SyllableType(
        duration_s=min(max(duration_s, _SHORTEST_S), _LONGEST_S),
        f0_hz=log_between(of.f0_hz, babble.f0_hz, sound, 0.01, pitch),
        slope=between(of.slope, babble.slope) + 0.02 * slope,
        bend=between(of.bend, babble.bend) + 0.01 * bend,
        formant_hz=log_between(of.formant_hz, babble.formant_hz, sound, 0.02, formant),
        formant_width_hz=between(of.formant_width_hz, babble.formant_width_hz),
        noisiness=between(of.noisiness, babble.noisiness),
        noisiness_end=between(of.noisiness_end, babble.noisiness_end),
        level=log_between(of.level, babble.level, sound, 0.05, level),
        ramp_s=between(of.ramp_s, babble.ramp_s),
    )


def synthesise(rng: Generator, rendition: SyllableType, sound: float, rate: int) -> FloatArray:
    """Return the samples of one rendition: source, then vocal tract.

    Args:
        rng: Source of random numbers.
        rendition: See `vary`.
        sound: Variability within the sound, 0 to 1: pitch and loudness waver.
        rate: Sampling rate in Hz.

    Returns:
        ``(n_samples,)``, RMS of about ``rendition.level``, at most `LOUDEST` on either side.
    """
    n_samples = round(rendition.duration_s * rate)
    tone = _harmonics(rendition, _wobble(rng, n_samples, rate, 0.015, 0.005 + 0.1 * sound), rate)
    share = np.linspace(rendition.noisiness, rendition.noisiness_end, n_samples)
    source = (1.0 - share) * tone / tone.std() + share * rng.standard_normal(n_samples)
    n_fft = fft.next_fast_len(n_samples, real=True)
    hz = np.fft.rfftfreq(n_fft, 1.0 / rate)
    formant = np.exp(-0.5 * ((hz - rendition.formant_hz) / rendition.formant_width_hz) ** 2)
    # The floor keeps some of all harmonics, but a beak radiates little of the lowest.
    passed = (0.06 + formant) * np.minimum(hz / _RADIATED_HZ, 1.0)
    filtered = fft.irfft(fft.rfft(source, n_fft) * passed, n_fft)[:n_samples]
    loudness = np.exp(_wobble(rng, n_samples, rate, 0.03, 0.05 + 0.4 * sound))
    shape = loudness * _envelope(n_samples, rendition.ramp_s, rate)
    samples = rendition.level / filtered.std() * filtered * shape
    return np.asarray(samples * min(1.0, LOUDEST / np.abs(samples).max()))


def _draw_type(rng: Generator, kind: str, duration: float, pitch: float) -> SyllableType:
    """Draw a syllable type; ``duration`` and ``pitch`` in [0, 1] span their ranges."""
    lowest_hz, octaves = (2000.0, 1.0) if kind == "high" else (400.0, 1.58)
    noisiness = rng.uniform(0.5, 0.9) if kind == "noisy" else rng.uniform(0.0, 0.2)
    # One in three is made of two notes, of which one is noisier.
    other = rng.uniform(0.0, 0.9) if rng.uniform() < 1.0 / 3.0 else noisiness
    return SyllableType(
        duration_s=0.04 * 5.0**duration,
        f0_hz=lowest_hz * 2.0 ** (octaves * pitch),
        slope=rng.uniform(-0.5, 0.3),
        bend=rng.uniform(-0.3, 0.1),
        formant_hz=rng.uniform(2500.0, 5500.0),
        formant_width_hz=rng.uniform(900.0, 1800.0),
        noisiness=noisiness,
        noisiness_end=other,
        level=rng.uniform(0.6, 1.0),
        ramp_s=rng.uniform(0.005, 0.015),
    )


def _draw_babble(rng: Generator) -> SyllableType:
    """Draw a sound of subsong, which is of no type."""
    return SyllableType(
        duration_s=_SHORTEST_S + min(rng.exponential(0.09), _LONGEST_S),
        f0_hz=500.0 * math.exp(0.35 * rng.standard_normal()),
        slope=0.6 * rng.standard_normal(),
        bend=0.4 * rng.standard_normal(),
        formant_hz=3500.0 * math.exp(0.35 * rng.standard_normal()),
        formant_width_hz=rng.uniform(1000.0, 2500.0),
        noisiness=rng.uniform(0.0, 0.6),
        noisiness_end=rng.uniform(0.0, 0.6),
        level=0.5 * math.exp(0.5 * rng.standard_normal()),
        ramp_s=rng.uniform(0.01, 0.04),
    )


def _harmonics(rendition: SyllableType, wobble: FloatArray, rate: int) -> FloatArray:
    """Return a modulated harmonic stack as long as ``wobble``, deviations of log frequency."""
    u = np.linspace(-1.0, 1.0, len(wobble))
    log_ratio = rendition.slope * u / 2.0 + rendition.bend * (u**2 - 1.0 / 3.0) + wobble
    highest_hz = min(_HIGHEST_HZ, 0.45 * rate)
    f0_hz = np.clip(rendition.f0_hz * np.exp(log_ratio), _LOWEST_HZ, highest_hz)
    # As many harmonics as never pass the highest frequency: none is cut short, none aliases.
    period = _period(int(highest_hz / f0_hz.max()))
    turns = np.cumsum(f0_hz) / rate
    place = (turns - np.floor(turns)) * _TABLE_SIZE
    left = place.astype(np.intp)
    return np.asarray(period[left] + (place - left) * (period[left + 1] - period[left]))


@lru_cache(maxsize=64)
def _period(n_harmonics: int) -> FloatArray:
    """Return one period of a stack of harmonics, ``(_TABLE_SIZE + 1,)``; amplitudes k ** -0.5."""
    phase = 2.0 * np.pi * np.arange(_TABLE_SIZE + 1) / _TABLE_SIZE
    k = np.arange(1, n_harmonics + 1)[:, np.newaxis]
    return np.asarray((np.sin(k * phase) / np.sqrt(k)).sum(axis=0))


def _wobble(rng: Generator, n_samples: int, rate: int, every_s: float, sd: float) -> FloatArray:
    """Return slow random deviations ``(n_samples,)``: one each ``every_s``, curves between."""
    n_nodes = 2 + int(n_samples / rate / every_s)
    whole, part = np.divmod(np.linspace(0.0, n_nodes - 1.0, n_samples), 1.0)
    eased = whole + part**2 * (3.0 - 2.0 * part)  # straight lines would give kinks
    return np.interp(eased, np.arange(n_nodes), rng.normal(0.0, sd, n_nodes))


def _envelope(n_samples: int, ramp_s: float, rate: int) -> FloatArray:
    """Return raised-cosine attack and decay about a plateau of 1, ``(n_samples,)``."""
    from_start = (np.arange(n_samples) + 0.5) / rate
    rise = np.minimum(np.minimum(from_start, from_start[::-1]) / ramp_s, 1.0)
    return 0.5 - 0.5 * np.cos(np.pi * rise)
