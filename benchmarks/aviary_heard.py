"""What is measured in the WAV files of a simulated bird and age: levels, silence, pitch.

By methods of its own, apart from those of data_io: by the energy of the samples above 500 Hz, and
by autocorrelation. The project's detector of sound is asked as well.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
from numpy.typing import NDArray
from scipy import fft

from data_io.sounding import frame_energy_db, has_sound, noise_floor_db
from data_io.spectrogram import MagnitudeStream, SpectrogramParams

THRESHOLD_DB = 5.0  # above the noise, of which three frames in a row never rise so far
# Noise below 400 Hz against that from 410 to 490, where no hum lies, if it falls by 3 dB an octave.
NOISE_BELOW = 8.3
Floats = NDArray[np.float64]
Row = dict[str, Any]


class Heard:
    """What is measured in the WAV files of one bird and age, with the truth beside."""

    def __init__(self, root: Path, recordings: list[Row], sounds: list[Row]) -> None:
        self.recordings, self.sounds = recordings, sounds
        sounds_of = defaultdict(list)
        for sound in sounds:
            sounds_of[sound["recording"]].append(sound)
        frames, low, energies_db = [], [], []
        self.pitch: dict[tuple[str, int], float] = {}
        self.centre: dict[tuple[str, int], float] = {}
        for recording in recordings:
            samples, rate = sf.read(root / recording["recording"], dtype="float32")
            above, between, below = split(samples, rate)
            frames.append(powers(above, rate))
            low.append(powers(below, rate) - NOISE_BELOW * powers(between, rate))
            energies_db.append(detector_energies(samples, rate))
            for sound in sounds_of[recording["recording"]]:
                if sound["kind"] == "syllable":
                    on, off = (round(sound[key] * rate) for key in ("onset_s", "offset_s"))
                    key = (sound["recording"], sound["index"])
                    self.pitch[key] = pitch_hz(above[on:off], rate)
                    self.centre[key] = centre_hz(above[on:off], rate)
        threshold = np.percentile(np.concatenate(frames), 25) * 10.0 ** (THRESHOLD_DB / 10.0)
        sounding = [long_runs(part > threshold) for part in frames]
        # Noise and hum are measured where the table says that nothing sounds: a thump of the cage
        # may lie below 500 Hz.
        silent = [
            far_from(sounds_of[recording["recording"]], len(part), frame_samples(rate) / rate)
            for recording, part in zip(recordings, frames, strict=True)
        ]
        power, is_sound, is_silent = (np.concatenate(x) for x in (frames, sounding, silent))
        self.silence_share = 1.0 - float(is_sound.mean())
        self.noise_db = decibels(power[is_silent].mean())
        self.hum_db = decibels(np.concatenate(low)[is_silent].mean())
        self.level_db = decibels(np.median(power[is_sound]))
        floor_db = noise_floor_db(np.concatenate(energies_db))
        frame_s = SpectrogramParams().frame_s
        self.silence_by_detector = 1.0 - float(
            np.concatenate([has_sound(part, floor_db, frame_s) for part in energies_db]).mean()
        )


def split(samples: Floats, rate: int) -> list[Floats]:
    """A recording above 500 Hz, between 410 and 490 Hz, and below 400 Hz, where hum lies."""
    n_fft = fft.next_fast_len(len(samples), real=True)
    spectrum = fft.rfft(samples, n_fft)
    hz = fft.rfftfreq(n_fft, 1.0 / rate)
    bands = (hz >= 500.0, (hz >= 410.0) & (hz <= 490.0), hz <= 400.0)
    return [fft.irfft(spectrum * band, n_fft)[: len(samples)] for band in bands]


def frame_samples(rate: int) -> int:
    """Samples of a frame of about 5 ms."""
    return round(0.005 * rate)


def far_from(sounds: list[Row], n_frames: int, frame_s: float) -> NDArray[np.bool_]:
    """Frames that lie 20 ms or more from every sound."""
    at = (np.arange(n_frames) + 0.5) * frame_s
    far = np.ones(n_frames, bool)
    for sound in sounds:
        far &= (at < sound["onset_s"] - 0.02) | (at > sound["offset_s"] + 0.02)
    return far


def powers(samples: Floats, rate: int) -> Floats:
    """Power of every frame."""
    step = frame_samples(rate)
    whole = samples[: len(samples) // step * step].reshape(-1, step)
    return np.square(whole, dtype=np.float64).mean(axis=1) + 1e-20


def detector_energies(samples: Floats, rate: int) -> NDArray[np.float32]:
    """Energies of the project's frames, dB."""
    params = SpectrogramParams()
    stream = MagnitudeStream(rate, params)
    parts = [stream.push(samples.astype(np.float32)), stream.finish()]
    return frame_energy_db(np.concatenate(parts, axis=1), params)


def long_runs(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Runs of at least three frames."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    kept = np.zeros(len(mask), bool)
    for start, end in edges.reshape(-1, 2):
        kept[start:end] = end - start >= 3
    return kept


def pitch_hz(samples: Floats, rate: int) -> float:
    """Pitch of the middle of a sound, 300 to 2000 Hz; NaN where it has none.

    By autocorrelation over that of the window (Boersma 1993): the shortest lag among those that
    are nearly the best.
    """
    part = samples[len(samples) // 4 : len(samples) - len(samples) // 4]
    window = np.hanning(len(part))
    n_fft = fft.next_fast_len(2 * len(part), real=True)
    lags, of_window = (
        fft.irfft(np.abs(fft.rfft(x, n_fft)) ** 2, n_fft) for x in (part * window, window)
    )
    lags /= np.maximum(of_window, 1e-3 * of_window[0])
    shortest, longest = int(rate / 2000.0), min(int(rate / 300.0), len(part) * 2 // 3)
    tried = lags[shortest:longest]
    if len(tried) < 3:
        return np.nan
    middle = tried[1:-1]
    is_peak = (middle >= tried[:-2]) & (middle > tried[2:]) & (middle > 0.85 * tried.max())
    peaks = shortest + 1 + np.flatnonzero(is_peak)
    return rate / peaks[0] if len(peaks) and lags[peaks[0]] > 0.3 * lags[0] else np.nan


def centre_hz(samples: Floats, rate: int) -> float:
    """Mean frequency of a sound, weighted by magnitude, below 8 kHz."""
    magnitude = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    hz = np.fft.rfftfreq(len(samples), 1.0 / rate)
    magnitude[hz > 8000.0] = 0.0
    return float((hz * magnitude).sum() / magnitude.sum())


def decibels(power: float) -> float:
    """A power in dB."""
    return float(10.0 * np.log10(power))


def duration_s(sound: Row) -> float:
    """Length of a sound."""
    return float(sound["offset_s"] - sound["onset_s"])


def voices(heard: Heard) -> dict[str, Floats]:
    """Medians of log duration, mean frequency and pitch of every label; NaN where it has none."""
    found = defaultdict(list)
    for sound in heard.sounds:
        if sound["kind"] == "syllable":
            key = (sound["recording"], sound["index"])
            values = [duration_s(sound), heard.centre[key], heard.pitch[key]]
            found[sound["label"]].append(np.log(values))
    return {label: np.median(values, axis=0) for label, values in found.items()}
