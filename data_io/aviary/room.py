"""What a recording adds to the sounds in it: noise of the room, hum, the gain, 16 bits.

Noise falls with frequency, each room's at a rate of its own. Below 400 Hz lies hum: the mains with
their harmonics, and the rumble of fans, which is most of what a microphone hears in silence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.random import Generator, default_rng
from scipy import fft

from data_io.aviary.birds import Bird
from data_io.aviary.params import AviaryParams
from data_io.aviary.singing import Sound
from data_io.aviary.syllables import LOUDEST

PEAK = 0.98  # the most that a sample may reach, 1.0 for full scale
NOISE_FROM_HZ = 500.0  # noise is measured above
HUM_TO_HZ = 400.0  # hum lies below
_LEVEL_DB = -22.0  # RMS of a loud syllable at gain 0, dB of full scale
_RUMBLE_HZ = 130.0  # above it the rumble of fans falls steeply
_RUMBLE_SHARE = 0.6  # of the power of all hum
_CREST = 6.0  # no sample of Gaussian noise in a day passes so many times its RMS
_MOST_SD = 2.0  # the gain of no day lies further from the bird's own

Spectrum = npt.NDArray[np.complex64]


@dataclass(frozen=True)
class Room:
    """Room and microphone of one bird on one day.

    Attributes:
        gain_db: of the recordings; at 0 a loud syllable has -22 dB of full scale (RMS).
        noise_db: RMS above 500 Hz in the file, dB of full scale.
        hum_db: RMS of hum in the file, dB of full scale.
        slope_db: of the noise, dB per octave.
        hum_hz: frequency of the mains.
        harmonics: [n] amplitudes of hum at its multiples; their squares sum to 1.
    """

    gain_db: float
    noise_db: float
    hum_db: float
    slope_db: float
    hum_hz: float
    harmonics: tuple[float, ...]


def room_on(rng: Generator, params: AviaryParams, seed: int, bird: Bird, dph: int) -> Room:
    """Return the room of a bird on one day.

    The spectrum of its noise and hum is the same on all days.

    Args:
        rng: of the day: the gain moves a little from day to day.
        params: Noise, hum, gain and their steps.
        seed: The birds'.
        bird: Whose room.
        dph: Its age.
    """
    own = default_rng([seed, bird.number, 0, 1])
    slope_db = own.uniform(-4.5, -1.5)
    n_harmonics = int(HUM_TO_HZ / params.hum_hz)
    amplitudes = own.uniform(0.2, 1.0, n_harmonics) / np.arange(1, n_harmonics + 1)
    amplitudes /= np.sqrt((amplitudes**2).sum())

    off_db = params.gain_day_sd_db * float(np.clip(rng.standard_normal(), -_MOST_SD, _MOST_SD))
    gain_db = own_gain_db(params, bird) + off_db
    if bird.gain_step_dph is not None and dph >= bird.gain_step_dph:
        gain_db += params.gain_step_db
    noise_db = _LEVEL_DB + gain_db + params.noise_db
    hum_db = noise_db + params.hum_db
    if bird.noise_step_dph is not None and dph >= bird.noise_step_dph:
        noise_db += params.noise_step_db
    return Room(gain_db, noise_db, hum_db, slope_db, params.hum_hz, tuple(amplitudes.tolist()))


def own_gain_db(params: AviaryParams, bird: Bird) -> float:
    """Return the gain about which that of the days lies, before the step.

    It is the bird's ``gain_db``, or as much lower as it takes to record the loudest day without
    clipping.
    """
    loudest_db = bird.gain_db + _MOST_SD * params.gain_day_sd_db
    if bird.gain_step_dph is not None:
        loudest_db += max(params.gain_step_db, 0.0)
    noise_db = params.noise_db
    if bird.noise_step_dph is not None:
        noise_db += max(params.noise_step_db, 0.0)
    return bird.gain_db - max(loudest_db - _highest_gain_db(params, noise_db), 0.0)


def record(
    rng: Generator, room: Room, sounds: Sequence[Sound], n_samples: int, rate: int
) -> npt.NDArray[np.int16]:
    """Return what stands in the file, ``(n_samples,)``: sounds, noise and hum in 16 bits."""
    heard = _background(rng, room, n_samples, rate)
    level = np.float32(_amplitude(_LEVEL_DB + room.gain_db))
    for sound in sounds:
        heard[sound.onset : sound.onset + len(sound.samples)] += level * sound.samples
    peak = float(np.abs(heard).max())
    if peak > PEAK:
        raise RuntimeError(
            f"a sample reaches {peak:.3f} of full scale, above {PEAK}: the headroom for noise is "
            "too small; this is a fault of the simulation"
        )
    heard *= np.float32(32767.0)
    return np.rint(heard, out=heard).astype(np.int16)


def _background(rng: Generator, room: Room, n_samples: int, rate: int) -> npt.NDArray[np.float32]:
    """Noise and hum, ``(n_samples,)``, of exactly the RMS that the room says."""
    n_fft = fft.next_fast_len(n_samples, real=True)
    hz = fft.rfftfreq(n_fft, 1.0 / rate).astype(np.float32)
    noise = rng.standard_normal(2 * len(hz), dtype=np.float32).view(np.complex64)
    noise[0] = noise[-1] = 0.0
    low = int(np.searchsorted(hz, HUM_TO_HZ))
    # A quarter turn off the noise that it is made of, so that their powers add, and nothing else.
    rumble = 1j * noise[:low] / (1.0 + (hz[:low] / _RUMBLE_HZ) ** 8)
    # Below 250 Hz a power of frequency would outgrow all else.
    noise *= np.maximum(hz, np.float32(250.0)) ** np.float32(room.slope_db / 6.02)
    _scale(noise, noise[np.searchsorted(hz, NOISE_FROM_HZ) :], room.noise_db, n_fft)
    _scale(rumble, rumble, room.hum_db + 10.0 * np.log10(_RUMBLE_SHARE), n_fft)
    lines = np.zeros(low, np.complex64)
    at = np.rint(np.arange(1, len(room.harmonics) + 1) * room.hum_hz * n_fft / rate).astype(int)
    phases = np.exp(2j * np.pi * rng.uniform(size=len(at)))
    is_below = at < low
    np.add.at(lines, at[is_below], (phases * room.harmonics)[is_below])
    _scale(lines, lines, room.hum_db + 10.0 * np.log10(1.0 - _RUMBLE_SHARE), n_fft)
    noise[:low] += rumble + lines
    return np.asarray(fft.irfft(noise, n_fft)[:n_samples], np.float32)


def _scale(spectrum: Spectrum, measured: Spectrum, wanted_db: float, n_fft: int) -> None:
    """Scale ``spectrum`` until its part ``measured`` has the RMS that is wanted (Parseval)."""
    rms = np.sqrt(2.0 * float((np.abs(measured) ** 2).sum(dtype=np.float64))) / n_fft
    spectrum *= np.float32(_amplitude(wanted_db) / rms)


def _highest_gain_db(params: AviaryParams, noise_db: float) -> float:
    """The gain at which the loudest sound and the background together reach `PEAK`."""
    # Below 500 Hz noise has as much power again as above, or twice as much where it falls steeply.
    noise = _CREST * 2.0 * _amplitude(noise_db) + _CREST * _amplitude(
        params.noise_db + params.hum_db
    )
    return float(20.0 * np.log10(PEAK / (_amplitude(_LEVEL_DB) * (LOUDEST + noise))))


def _amplitude(db: float) -> float:
    return float(10.0 ** (db / 20.0))
