"""How near sound comes to a spectrogram, and how fast: our phases beside those of librosa.

    python -m benchmarks.phases --data DIR      real recordings
    python -m benchmarks.phases                 simulated birds

The first three recordings of each bird, of each the loudest 5 s, high-passed as in a study. Ours
starts from phase-gradient heap integration, librosa's Griffin-Lim from random phases; both have
momentum 0.99. Convergence: norm of |STFT of the sound| - magnitude, over that of the magnitude.
Times are CPU of one thread, compiling apart.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import librosa
import numpy as np

from data_io.aviary.params import AviaryParams
from data_io.aviary.write import simulate_aviary
from data_io.names.listing import survey
from data_io.phases import Magnitude, Waveform, griffin_lim, spectral_convergence
from data_io.recordings.reading import read_sound
from data_io.spectrogram import SpectrogramParams, log_spectrogram

PARAMS = SpectrogramParams()
HOP = PARAMS.hop_length
N_RECORDINGS, SECONDS = 3, 5.0
OURS, LIBROSA = (0, 10, 32, 50, 100), (32, 50, 100)


def loudest(magnitude: Magnitude) -> Magnitude:
    """The loudest SECONDS of a recording, or all of a shorter one."""
    n_frames = round(SECONDS / PARAMS.frame_s)
    if magnitude.shape[1] <= n_frames:
        return magnitude
    sums = np.cumsum(np.r_[0, np.log1p(magnitude).sum(axis=0, dtype=np.float64)])
    start = int(np.argmax(sums[n_frames:] - sums[:-n_frames]))
    return np.ascontiguousarray(magnitude[:, start : start + n_frames])


def magnitudes(root: Path) -> Iterator[Magnitude]:
    """Magnitudes [n_freq, n_frames] of a few recordings of each bird."""
    n_of: dict[str, int] = {}
    for recording in survey(root).recordings.used:
        n_of[recording.bird] = n_of.get(recording.bird, 0) + 1
        if n_of[recording.bird] <= N_RECORDINGS:
            spectrogram = log_spectrogram(*read_sound(root, recording), PARAMS)
            yield loudest(np.expm1(spectrogram))


def by_librosa(magnitude: Magnitude, hop_length: int, n_iter: int, seed: int) -> Waveform:
    """Griffin-Lim of librosa, from random phases."""
    found: Waveform = librosa.griffinlim(
        magnitude, n_iter=n_iter, n_fft=PARAMS.n_fft, hop_length=hop_length, momentum=0.99,
        random_state=seed,
    )  # fmt: skip
    return found


def compare(wanted: list[Magnitude]) -> None:
    """Print a row for each way to find phases."""
    seconds = sum(one.shape[1] for one in wanted) * PARAMS.frame_s
    print(f"{len(wanted)} recordings, {seconds:.0f} s; one thread; ", end="")
    print(f"OPENBLAS_CORETYPE {os.environ.get('OPENBLAS_CORETYPE', 'not set')}")
    print(f"{'phases':8} {'iterations':>10}  convergence: median {'largest':>8}  times real time")
    sides: tuple[tuple[str, Callable[..., Waveform], tuple[int, ...]], ...]
    sides = (("librosa", by_librosa, LIBROSA), ("ours", griffin_lim, OURS))
    for name, side, numbers in sides:
        side(wanted[0], HOP, 2, 0)  # compiles
        for n_iter in numbers:
            invert = partial(side, hop_length=HOP, n_iter=n_iter, seed=0)
            started = time.process_time()
            sounds = list(map(invert, wanted))
            spent_s = time.process_time() - started
            errors = [spectral_convergence(*pair, HOP) for pair in zip(sounds, wanted, strict=True)]
            print(
                f"{name:8} {n_iter:10}  {np.median(errors):19.4f} {max(errors):8.3f} "
                f"{seconds / spent_s:16.1f}"
            )


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of recordings; default: simulated ones")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = options.data or Path(folder) / "aviary"
        if options.data is None:
            simulate_aviary(root, AviaryParams(), 0)
        compare(list(magnitudes(root)))


if __name__ == "__main__":
    main()
