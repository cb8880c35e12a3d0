"""Seeds of birds and ages, which follow from the study's seed."""

import zlib

import numpy as np

from data_io.recordings.table import BirdAge


def bird_age_seed(seed: int, bird_age: BirdAge) -> int:
    """Seed of a bird and age; it does not depend on tasks or their order."""
    name = zlib.crc32("\0".join(bird_age).encode())
    return int(np.random.SeedSequence([seed, name]).generate_state(1)[0])
