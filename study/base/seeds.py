"""Seeds of parts of a study, which follow from its own."""

import zlib

import numpy as np

from data_io.recordings import BirdAge


def bird_age_seed(seed: int, bird_age: BirdAge) -> int:
    """Seed of a bird and age, whatever task works on it and in whatever order."""
    name = zlib.crc32("\0".join(bird_age).encode())
    return int(np.random.SeedSequence([seed, name]).generate_state(1)[0])
