"""Which frames hold sound, how loud a bird and age is, and how loud its silence.

All of it goes by the energy of a frame above 500 Hz, in dB. A gain of the whole recording moves
every energy, the floor and the level alike, and changes no frame's answer. Background noise of one
rig keeps within a few dB, and song stands 30 dB or more above it: its lowest peak in the histogram
of a day's frames is the noise floor.
"""

import numpy as np
from numpy.typing import NDArray

from data_io.spectrogram import TARGET_LEVEL, Magnitude, SpectrogramParams

Energies = NDArray[np.float32]
Frames = NDArray[np.bool_]

LOWEST_DB = -200.0  # a frame of exact zeros; no file of 24 bits holds anything near it

# Cages, fans and mains hum below; every song and call of a finch has much above. The field's own
# segmentation begins there too (evfuncs and vak: 500 to 10,000 Hz).
_LOWEST_HZ = 500.0

# A sound begins so far above the floor: noise alone reaches 5 dB, soft noises of a cage 10. Higher
# thresholds lose song where the rig is noisy.
_OPENS_DB = 12.0
_STAYS_DB = 8.0  # and it lasts while it stays this far above: soft onsets and decays
_SMOOTHED_S = 0.004  # energies are means over so much on each side: within a window of the STFT
_SHORTEST_GAP_S = 0.012  # a shorter gap lies within one window and cannot be seen
_SHORTEST_SOUND_S = 0.020  # the shortest notes; clicks of a cage are shorter

_BIN_DB = 0.25
_HISTOGRAM_SMOOTHING_DB = 1.0  # the spread of noise itself
# A peak of a tenth of the highest is a state of the rig, not an accident: it finds the silence of
# a day of 90 % song.
_PEAK_SHARE = 0.1

_STEADY_DB = 3.0  # noise stays this near to its own floor
_STEADY_S = 2.0  # song never does so for half of this
_STEADY_RANGE_DB = 20.0  # rain and fans above the floor of the day; song stands higher

_DIGITAL_DB = 100.0  # below the loudest hundredth: no microphone, a gate or a recorder's zeros
_GATED_SHARE = 0.1  # of frames that are digital silence, from which a recorder's gate is at work
_SONG_RANGE_DB = 40.0  # of a bird's loudest hundredth above its noise, where nothing gates it

_LEVEL_PERCENTILE = 75.0


def frame_energy_db(magnitude: Magnitude, params: SpectrogramParams) -> Energies:
    """Energy of every frame above 500 Hz.

    Args:
        magnitude: |STFT| [n_fft / 2 + 1, n_frames], before any level.
        params: how it was made.

    Returns:
        [n_frames] float32, dB of full scale (RMS): white noise of RMS 0.1 has -20 dB, less what
        lies below 500 Hz. Exact zeros have `LOWEST_DB`.
    """
    band = magnitude[np.searchsorted(params.frequencies_hz, _LOWEST_HZ) :]
    energy = np.einsum("ij,ij->j", band, band)
    # Parseval: half of the spectrum holds n_fft / 2 times the sum of the squared Hann window.
    energy /= params.n_fft / 2 * (3 / 8 * params.n_fft)
    energy_db: Energies = 10 * np.log10(np.maximum(energy, np.float32(10 ** (LOWEST_DB / 10))))
    return energy_db


def noise_floor_db(energy_db: Energies) -> float:
    """Noise floor of a bird and age, in dB of full scale.

    The lowest peak of the histogram of all frames, whether most of the day is song or silence.
    Frames of digital silence (zeros of a gate) are left out; where a gate has cut the noise
    away, the floor is taken to lie 40 dB below the loudest frames, as it does for birds that no
    gate cuts. A day that holds no silence at all, zeros neither, cannot be told from one that
    holds nothing else: its floor is its quietest sound.

    Args:
        energy_db: [n_frames] of all recordings of the bird and age, see `frame_energy_db`.

    Returns:
        The floor; `LOWEST_DB` if all frames are zeros, or if there are none.
    """
    sounds = energy_db[energy_db > LOWEST_DB]
    if not len(sounds):
        return LOWEST_DB
    loudest = float(np.percentile(sounds, 99))
    sounds = sounds[sounds > loudest - _DIGITAL_DB]
    floor = _lowest_peak(sounds)
    if len(energy_db) - len(sounds) >= _GATED_SHARE * len(energy_db):
        floor = min(floor, loudest - _SONG_RANGE_DB)
    return floor


def _lowest_peak(energy_db: Energies) -> float:
    """The lowest considerable peak of the smoothed histogram of energies [n]."""
    # Edges hang on the lowest energy and not on round numbers, so that a gain moves them along.
    lowest, margin = float(energy_db.min()), 4 * _HISTOGRAM_SMOOTHING_DB
    n_bins = round((float(energy_db.max()) - lowest + 2 * margin) / _BIN_DB) + 1
    bins = ((energy_db - (lowest - margin)) / _BIN_DB).astype(np.int64)
    counts = np.bincount(bins, minlength=n_bins).astype(np.float64)
    offsets = np.arange(-margin, margin + _BIN_DB, _BIN_DB)
    density = np.convolve(counts, np.exp(-0.5 * (offsets / _HISTOGRAM_SMOOTHING_DB) ** 2), "same")
    middle = density[1:-1]
    is_peak = (middle > density[:-2]) & (middle >= density[2:])
    is_peak &= middle >= _PEAK_SHARE * density.max()
    return lowest - margin + (int(np.flatnonzero(is_peak)[0]) + 1.5) * _BIN_DB


def has_sound(energy_db: Energies, floor_db: float, frame_s: float) -> Frames:
    """Tell for every frame of one recording whether it holds sound: song, a call or a noise.

    A sound begins where energy rises 12 dB above the floor and reaches as far as it stays 8 dB
    above (hysteresis). A recording with steady noise of its own (rain, a fan that runs for a
    while), up to 20 dB above that floor, is measured from there.

    Args:
        energy_db: [n_frames] of the recording, see `frame_energy_db`.
        floor_db: of its bird and age, see `noise_floor_db`.
        frame_s: seconds from frame to frame.

    Returns:
        [n_frames], True where the frame holds sound.
    """
    own_db = _steady_noise_db(energy_db, frame_s)
    if floor_db < own_db < floor_db + _STEADY_RANGE_DB:
        floor_db = own_db
    smooth_db = _smoothed(energy_db, round(_SMOOTHED_S / frame_s))
    starts, ends = _runs(smooth_db > floor_db + _STAYS_DB)
    n_open = np.concatenate([[0], np.cumsum(smooth_db > floor_db + _OPENS_DB)])
    opened = n_open[ends] > n_open[starts]
    starts, ends = starts[opened], ends[opened]
    apart = starts[1:] - ends[:-1] >= _SHORTEST_GAP_S / frame_s - 1e-9
    begins, is_last = np.concatenate([[True], apart]), np.concatenate([apart, [True]])
    starts, ends = starts[begins[: len(starts)]], ends[is_last[: len(ends)]]
    long = ends - starts >= _SHORTEST_SOUND_S / frame_s - 1e-9
    steps = np.zeros(len(energy_db) + 1, np.int8)
    steps[starts[long]] = 1
    steps[ends[long]] = -1
    return np.cumsum(steps[:-1], dtype=np.int8).astype(bool)


def _steady_noise_db(energy_db: Energies, frame_s: float) -> float:
    """Floor of a recording that is mostly steady noise; `LOWEST_DB` of any other.

    Sound has gaps and syllables: it does not keep within 3 dB for half of 2 s or more.
    """
    if len(energy_db) * frame_s < _STEADY_S:
        return LOWEST_DB
    own = noise_floor_db(energy_db)
    return own if np.mean(np.abs(energy_db - own) < _STEADY_DB) > 0.5 else LOWEST_DB


def _smoothed(energy_db: Energies, half: int) -> NDArray[np.float64]:
    """Energies [n_frames] as means of power over each frame and ``half`` on both sides."""
    if not len(energy_db):
        return np.zeros(0)
    padded = np.pad(10 ** (np.asarray(energy_db, np.float64) / 10), half, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    return np.asarray(10 * np.log10(windows.mean(axis=1)), np.float64)


def _runs(mask: Frames) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts and ends (exclusive) of the runs of True."""
    steps = np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8))
    return np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)


def reference_level(energy_db: Energies, sounding: Frames) -> float | None:
    """Reference level of a bird and age: the RMS that a quarter of its sounding frames passes.

    Of the 75th percentile halves of a bird's recordings tell most nearly the same; a few loud
    noises do not move it, nor soft frames that a better microphone adds, nor how much song there
    is. A gain of the recordings is a gain of the level.

    Args:
        energy_db: [n_frames] of all recordings of the bird and age, see `frame_energy_db`.
        sounding: [n_frames], see `has_sound`.

    Returns:
        RMS, 1.0 for full scale; None if no frame holds sound.
    """
    if len(energy_db) != len(sounding):
        raise ValueError(
            f"{len(energy_db)} energies and {len(sounding)} answers of has_sound: give one of "
            "each for every frame."
        )
    if not sounding.any():
        return None
    return float(10 ** (np.percentile(energy_db[sounding], _LEVEL_PERCENTILE) / 20))


def gain_of(level: float | None, params: SpectrogramParams) -> float:
    """The gain that brings magnitudes of a bird and age to the common level.

    Args:
        level: of the bird and age, see `reference_level`; None if it holds no sound.
        params: ``level`` says whether to do so.

    Returns:
        TARGET_LEVEL / level; 1 with ``spectrogram.level: none``, or where there is no sound.
    """
    return 1.0 if level is None or params.level == "none" else TARGET_LEVEL / level
