"""Noises of the cage: short, of all frequencies, and nothing that a bird sings."""

import numpy as np
from numpy.random import Generator
from scipy import fft

from data_io.aviary.syllables import LOUDEST, FloatArray

CLICK, WING_FLAPS, THUMP = "click", "wing_flaps", "thump"
_SHARES = {CLICK: 0.5, WING_FLAPS: 0.3, THUMP: 0.2}


def cage_noise(rng: Generator, rate: int) -> tuple[str, FloatArray]:
    """Draw one noise.

    Args:
        rng: Source of random numbers.
        rate: Sampling rate in Hz.

    Returns:
        Its label and its samples ``(n_samples,)``; 1 is the RMS of a loud syllable.
    """
    label = str(rng.choice(list(_SHARES), p=list(_SHARES.values())))
    if label == CLICK:  # of claws and beak on wire
        samples = _burst(rng, rate, rng.uniform(0.004, 0.015), 4000.0, -1.0)
    elif label == THUMP:  # of a landing
        samples = _burst(rng, rate, rng.uniform(0.06, 0.15), 500.0, -6.0)
    else:
        samples = _wing_flaps(rng, rate)
    level = 0.3 * np.exp(0.7 * rng.standard_normal())
    samples *= level / samples.std()
    return label, samples * min(1.0, LOUDEST / np.abs(samples).max())


def _wing_flaps(rng: Generator, rate: int) -> FloatArray:
    """A row of strokes at 20 to 30 Hz; some noise lies between them."""
    stroke_s = 1.0 / rng.uniform(20.0, 30.0)
    strokes = [
        rng.uniform(0.5, 1.0) * _burst(rng, rate, stroke_s, 2500.0, -3.0)
        for _ in range(rng.integers(3, 11))
    ]
    return np.concatenate(strokes)


def _burst(
    rng: Generator, rate: int, seconds: float, knee_hz: float, db_per_octave: float
) -> FloatArray:
    """Noise with a sudden onset that dies away to a twentieth; its spectrum falls above a knee."""
    n = round(seconds * rate)
    n_fft = fft.next_fast_len(n, real=True)
    octaves = np.log2(np.maximum(fft.rfftfreq(n_fft, 1.0 / rate) / knee_hz, 1.0))
    spectrum = fft.rfft(rng.standard_normal(n_fft)) * 10.0 ** (db_per_octave * octaves / 20.0)
    return np.asarray(fft.irfft(spectrum, n_fft)[:n] * np.exp(-3.0 * np.arange(n) / n))
