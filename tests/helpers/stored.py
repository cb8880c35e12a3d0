"""Made-up log spectrograms, stored as those of recordings are."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from data_io.spectrogram import Spectrogram, SpectrogramParams
from data_io.store import write_spectrograms

FACTS = {
    "read": {"spectrogram": asdict(SpectrogramParams())},
    "gain": 1.0,
    "noise_floor_db": -60.0,
}


def write_levelled(
    folder: Path, bird: str, age: str, spectrograms: Iterable[tuple[str, Spectrogram]]
) -> None:
    """Store magnitudes whose log spectrograms are ``spectrograms``, but for the last digit.

    Values above 40 would be beyond the energies that float32 can hold.
    """
    magnitudes = (
        (name, np.expm1(one, dtype=np.float64).astype(np.float32)) for name, one in spectrograms
    )
    write_spectrograms(folder, bird, age, magnitudes, FACTS)
