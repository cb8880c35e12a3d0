"""Made-up songs that the detector of sound hears as a person would."""

import numpy as np

RATE = 22_050


def song(seed, seconds=4.0, level=0.2):
    """Syllables of gliding tones between silences, over faint noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    sound = 0.0005 * rng.standard_normal(len(t))
    at = 0.1
    while at < seconds - 0.3:
        length = rng.uniform(0.05, 0.15)
        inside = (t >= at) & (t < at + length)
        glide = rng.uniform(2000, 5000) + rng.uniform(-8000, 8000) * (t[inside] - at)
        sound[inside] += (
            level
            * np.sin(np.pi * (t[inside] - at) / length)
            * np.sin(2 * np.pi * np.cumsum(glide) / RATE + rng.uniform(0, 6))
        )
        at += length + rng.uniform(0.05, 0.4)
    return sound.astype(np.float32)
