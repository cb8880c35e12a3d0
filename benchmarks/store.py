"""From WAV to a store of spectrograms: ours, a librosa loop and the earlier way, in one run.

    python -m benchmarks.store
    python -m benchmarks.store --recordings 120 --rounds 5
    python -m benchmarks.store --hours 0           without the long file

Simulated songs of a grown bird, 44.1 kHz, 16 bits, are read by all three, one after the other in
this process, on one thread; the least CPU time of the rounds counts. Before, a process of its own
reads one long file our way, and its memory is printed. It writes 0.3 GB for each hour into TMPDIR.

- ours: every file hashed, checked, compared with the others for near-duplicates, resampled (soxr
  VHQ), transformed in blocks, its level measured, written to sealed Parquet with checksums
- verified: the same, and all of it read again, its seal checked, levelled
- librosa: load at 16 kHz, stft, log1p of the magnitude, np.save for each file
- earlier: scipy.signal.resample over the whole file, complex spectrograms in HDF5 with gzip
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is loaded

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import librosa
import numpy as np
import scipy.signal
import soundfile

from data_io.aviary.params import AviaryParams
from data_io.aviary.write import simulate_aviary
from data_io.names.listing import survey
from data_io.recordings.bird_age import read_bird_age
from data_io.recordings.reading import ReadParams
from data_io.spectrogram import SpectrogramParams
from data_io.store import read_spectrograms

RATE = 44_100
SONG_S = 4.0
PARAMS = SpectrogramParams()
READING = ReadParams(spectrogram=PARAMS)


def ours(folder: Path, out: Path) -> None:
    """The stage of recordings for one bird and age, without Ray."""
    for listed in survey(folder).recordings.used.by_bird_age().values():
        read_bird_age(folder, listed, READING, out)


def verified(folder: Path, out: Path) -> None:
    """The same, and every spectrogram read again and levelled, as a training reads it."""
    ours(folder, out)
    for bird, age in survey(folder).recordings.used.birds_and_ages():
        for _ in read_spectrograms(out, bird, age):
            pass


def librosa_loop(folder: Path, out: Path) -> None:
    """What a notebook does: each file loaded, transformed and saved."""
    out.mkdir()
    for path in sorted(folder.rglob("*.wav")):
        waveform, _ = librosa.load(path, sr=PARAMS.sample_rate_hz)
        stft = librosa.stft(waveform, n_fft=PARAMS.n_fft, hop_length=PARAMS.hop_length)
        np.save(out / f"{path.stem}.npy", np.log1p(np.abs(stft)))


def earlier(folder: Path, out: Path) -> None:
    """Resampling by one FFT over the whole file, complex spectrograms in gzip HDF5."""
    out.mkdir()
    with h5py.File(out / "spectrograms.hdf5", "w") as store:
        for path in sorted(folder.rglob("*.wav")):
            waveform, rate = soundfile.read(path, dtype="float32")
            n_samples = round(len(waveform) * PARAMS.sample_rate_hz / rate)
            waveform = scipy.signal.resample(waveform, n_samples)
            stft = librosa.stft(waveform, n_fft=PARAMS.n_fft, hop_length=PARAMS.hop_length)
            store.create_dataset(path.stem, data=stft, compression="gzip")


SIDES: dict[str, Callable[[Path, Path], None]] = {
    "ours": ours,
    "verified": verified,
    "librosa": librosa_loop,
    "earlier": earlier,
}


def measured(side: str, songs: Path, work: Path) -> tuple[float, int]:
    """CPU seconds of one side, and bytes that it wrote."""
    out = work / side
    started = time.process_time()
    SIDES[side](songs, out)
    cpu_s = time.process_time() - started
    n_bytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    shutil.rmtree(out)
    return cpu_s, n_bytes


def compare(n_recordings: int, n_rounds: int, work: Path) -> None:
    """Print a row for each side."""
    songs = work / "songs"
    minutes, recording_s = n_recordings * SONG_S / 60, (SONG_S, SONG_S)
    bird = AviaryParams(1, (90,), minutes, recording_s, sample_rates_hz=(RATE,))
    simulate_aviary(songs, bird, 0)
    seconds = sum(soundfile.info(path).duration for path in songs.rglob("*.wav"))
    warm = work / "warm"
    warm.mkdir()
    (warm / "bird" / "90").mkdir(parents=True)
    shutil.copy(next(songs.rglob("*.wav")), warm / "bird" / "90")
    for side in SIDES:
        measured(side, warm, work)
    cpu_s = dict.fromkeys(SIDES, np.inf)
    n_bytes = dict.fromkeys(SIDES, 0)
    for _ in range(n_rounds):
        for side in SIDES:
            spent_s, n_bytes[side] = measured(side, songs, work)
            cpu_s[side] = min(cpu_s[side], spent_s)
    print(f"{seconds:.0f} s of sound in {n_recordings} recordings, {n_rounds} rounds, one thread,")
    print(f"OPENBLAS_CORETYPE {os.environ.get('OPENBLAS_CORETYPE', 'not set')}")
    print(f"{'':8} seconds of sound a CPU second  bytes a second of sound  CPU, ours is 1")
    for side in SIDES:
        print(
            f"{side:8} {seconds / cpu_s[side]:30,.0f} {n_bytes[side] / seconds:24,.0f} "
            f"{cpu_s[side] / cpu_s['ours']:15.2f}"
        )


def long_file(hours: float, work: Path) -> None:
    """Write one long file and read it our way; print the memory of this process."""
    folder = work / "long" / "bird" / "90"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 10 * RATE).astype(np.float32).clip(-0.9, 0.9)
    with soundfile.SoundFile(folder / "long.wav", "w", RATE, 1, "PCM_16") as sound:
        for _ in range(round(hours * 360)):
            sound.write(noise)
    before = _peak_mb()
    started = time.process_time()
    ours(work / "long", work / "long-store")
    cpu_s = time.process_time() - started
    print(
        f"one file of {hours:g} hours: {_peak_mb():,.0f} MB at most, {before:,.0f} MB of them "
        f"before; {hours * 3600 / cpu_s:,.0f} seconds of sound a CPU second (white noise)"
    )


def _peak_mb() -> float:
    in_kb = sys.platform != "darwin"
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e3 if in_kb else 1e6)


def main() -> None:
    """Print the comparison, then the memory of a long file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=int, default=60, help="of 4 s")
    parser.add_argument("--rounds", type=int, default=3, help="of which the fastest counts")
    parser.add_argument("--hours", type=float, default=2.0, help="length of the long file; 0: none")
    parser.add_argument("--only-long", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hours and not options.only_long:
        # First: what this process has used at most would count as used by its child.
        command = [sys.executable, "-m", "benchmarks.store", "--only-long"]
        subprocess.run([*command, "--hours", str(options.hours)], check=True)
    with tempfile.TemporaryDirectory() as folder:
        if options.only_long:
            long_file(options.hours, Path(folder))
        else:
            compare(options.recordings, options.rounds, Path(folder))


if __name__ == "__main__":
    main()
