"""What is heard in a spectrogram: how loud, how long sounds and gaps last, and at what pitch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_io.sounding import frame_energy_db
from data_io.spectrogram import Spectrogram, SpectrogramParams, magnitude_of

Array = NDArray[np.float64]

# A frame sounds where it is at most so far below the bird's reference level. The same for real and
# sampled song: a decoder smooths the noise between sounds, and a threshold above the noise (as in
# `data_io.sounding`) would hear other onsets in it. Lower ones hear the noise; at this one sounds
# of a reconstruction last as those of the recording, to 3 ms.
_BELOW_LEVEL_DB = 20.0
_SHORTEST_SOUND_MS = 20.0  # clicks of a cage are shorter
_LONGEST_GAP_MS = 250.0  # a longer one lies between bouts or calls

_LOWEST_HZ, _HIGHEST_HZ = 300.0, 2000.0  # fundamentals of songbirds that have harmonics
_VOICED = 0.45  # of the autocorrelation at the period (Boersma 1993)
_OCTAVE_COST = 0.01  # of the lower of two equal periods, per octave (ibid.)


@dataclass(frozen=True)
class SongMeasures:
    """What is heard in one song.

    Attributes:
        sounds_ms: length of each whole sound.
        gaps_ms: length of each gap between two sounds, up to 250 ms.
        loudness_db: [n_frames] above the threshold of sound, 0 where there is none.
        pitch_hz: of every voiced frame of sound, 300 to 2,000 Hz. A tone above has no period
            there, but multiples of one: its pitch is an octave or more too low.
    """

    sounds_ms: Array
    gaps_ms: Array
    loudness_db: Array
    pitch_hz: Array


def measure_song(spectrogram: Spectrogram, params: SpectrogramParams, level: float) -> SongMeasures:
    """Measure one song.

    Args:
        spectrogram: log(1 + gain * magnitude) [n_freq, n_frames].
        params: how it was made.
        level: reference level of the bird and age times that gain (RMS).

    Raises:
        ValueError: the level is not above 0.
    """
    if not level > 0:
        raise ValueError(
            f"level is {level}: it must be above 0. A bird and age without sound has no song to "
            "measure."
        )
    magnitude = magnitude_of(spectrogram, 1.0)
    threshold_db = 20 * np.log10(level) - _BELOW_LEVEL_DB
    above_db = frame_energy_db(magnitude, params).astype(np.float64) - threshold_db
    frame_ms = 1000 * params.frame_s
    is_sound = _without_short(above_db > 0, round(_SHORTEST_SOUND_MS / frame_ms))
    sounds, gaps = _durations(is_sound)
    return SongMeasures(
        sounds_ms=frame_ms * sounds,
        gaps_ms=frame_ms * gaps[frame_ms * gaps <= _LONGEST_GAP_MS],
        loudness_db=np.maximum(above_db, 0.0),
        pitch_hz=_pitch(magnitude[:, is_sound], params),
    )


def _without_short(mask: NDArray[np.bool_], n_frames: int) -> NDArray[np.bool_]:
    """The mask without runs of True that are shorter."""
    steps = np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8))
    kept = np.zeros(len(mask), bool)
    for start, end in zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True):
        kept[start:end] = end - start >= n_frames
    return kept


def _durations(is_sound: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Frames of sounds and gaps; those that a song's ends cut are left out."""
    changes = np.flatnonzero(np.diff(is_sound.astype(np.int8))) + 1
    lengths = np.diff(changes).astype(np.float64)
    begins_sound = is_sound[changes[:-1]] if len(changes) else np.zeros(0, bool)
    return lengths[begins_sound], lengths[~begins_sound]


def _pitch(magnitude: NDArray[np.float32], params: SpectrogramParams) -> Array:
    """Pitch of voiced frames, by the highest peak of the autocorrelation (Boersma 1993).

    The autocorrelation is the inverse Fourier transform of the power spectrum, divided by that of
    the window. It is circular, as no zeros were added: up to the longest period, 53 of 256 samples,
    what comes round the end lies under the feet of the window.
    """
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(params.n_fft) / params.n_fft)
    shortest = int(np.ceil(params.sample_rate_hz / _HIGHEST_HZ))
    longest = int(params.sample_rate_hz / _LOWEST_HZ)
    power = np.square(magnitude.T, dtype=np.float64)
    of_frames = np.fft.irfft(power, params.n_fft, axis=1)[:, : longest + 2]
    of_window = np.fft.irfft(np.abs(np.fft.rfft(window)) ** 2, params.n_fft)[: longest + 2]
    strength = of_frames / np.maximum(of_frames[:, :1], 1e-300) / (of_window / of_window[0])
    lags = np.arange(shortest, longest + 1)
    left, middle, right = (strength[:, lags + k] for k in (-1, 0, 1))
    is_peak = (middle >= left) & (middle > right)
    cost = _OCTAVE_COST * np.log2(lags / shortest)
    best = np.argmax(np.where(is_peak, middle - cost, -np.inf), axis=1)
    rows = np.arange(len(best))
    a, b, c = left[rows, best], middle[rows, best], right[rows, best]
    with np.errstate(invalid="ignore", divide="ignore"):
        period = lags[best] + 0.5 * (a - c) / (a - 2 * b + c)  # top of the parabola
    is_voiced = is_peak[rows, best] & (b > _VOICED)
    return np.asarray(params.sample_rate_hz / period[is_voiced], np.float64)
