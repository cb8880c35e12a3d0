"""Waveform to log spectrogram and back."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.fft
import soxr
from numpy.typing import NDArray

from data_io.phases import Magnitude, Waveform, griffin_lim

Spectrogram = NDArray[np.float32]

# The reference level, RMS of full scale, that the sound of every bird and age is brought to. Frames
# at this level have magnitudes of 1 to 2 where their sound is, and there log(1 + x) turns from a
# line into a logarithm; noise 30 dB below stays in the line, near 0. It is about the level of a
# simulated bird and of a zebra finch recorded well, which the recipes of the networks were made
# for; eight public birds had 0.01 to 0.15, median 0.03.
TARGET_LEVEL = 0.05

_HIGHPASS_ORDER = 4
_BLOCK_FRAMES = 256  # their spectra stay in a core's cache
_STEP = 32_768  # samples: larger arrays go back to the system each time, and new pages cost more
_PUSH_S = 10.0


@dataclass(frozen=True)
class SpectrogramParams:
    """Parameters of the step from sound to spectrogram.

    Attributes:
        sample_rate_hz: rate that every recording is resampled to.
        n_fft: samples in the Hann window; gives n_fft / 2 + 1 frequencies.
        hop_length: samples from frame to frame.
        highpass_hz: below it sound is damped, as by a Butterworth filter of order 4; 0 for none.
            400 Hz, as AVA has it for zebra finches: hum and fans lie below, song above.
        level: "bird_and_age" brings the sound of each bird and age to one reference level before
            the logarithm, so that a quiet rig counts as much as a loud one; "none" leaves it.
    """

    sample_rate_hz: int = 16_000
    n_fft: int = 256
    hop_length: int = 64
    highpass_hz: float = 400.0
    level: Literal["bird_and_age", "none"] = "bird_and_age"

    def __post_init__(self) -> None:
        for name in ("sample_rate_hz", "n_fft", "hop_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be 1 or more.")
        if self.n_fft != 256:
            raise ValueError(
                f"n_fft is {self.n_fft}: the networks are planned for 129 frequencies, n_fft 256."
            )
        if self.hop_length > self.n_fft:
            raise ValueError(
                f"hop_length is {self.hop_length}: above n_fft, {self.n_fft}, sound between the "
                "frames would be left out."
            )
        if not 0 <= self.highpass_hz < self.sample_rate_hz / 2:
            raise ValueError(
                f"highpass_hz is {self.highpass_hz}: it must be 0 (none) or more, and below "
                f"{self.sample_rate_hz / 2:g} Hz, half of sample_rate_hz."
            )
        if self.level not in ("bird_and_age", "none"):
            raise ValueError(f"level is {self.level!r}: it must be 'bird_and_age' or 'none'.")

    @property
    def frame_s(self) -> float:
        """Seconds from frame to frame."""
        return self.hop_length / self.sample_rate_hz

    @property
    def frequencies_hz(self) -> NDArray[np.float64]:
        """Frequencies [n_fft / 2 + 1] of a spectrogram's rows."""
        return np.asarray(np.fft.rfftfreq(self.n_fft, 1 / self.sample_rate_hz), np.float64)


def resample(waveform: Waveform, sample_rate_hz: int, params: SpectrogramParams) -> Waveform:
    """The waveform [n_samples] at params.sample_rate_hz. Resamplers differ: soxr's VHQ, always."""
    if sample_rate_hz == params.sample_rate_hz:
        return waveform
    resampled: Waveform = soxr.resample(
        waveform, sample_rate_hz, params.sample_rate_hz, quality="VHQ"
    )
    return resampled


class MagnitudeStream:
    """Magnitudes |STFT| of a sound that comes in blocks, resampled and with its low end damped.

    The blocks' results, end to end, are those of the whole sound: no seam, whatever the blocks.
    Hann window, frames centred, zeros before and after the sound: librosa's convention. The
    high-pass is a weight for each frequency, the magnitude response of a Butterworth filter
    (Butterworth 1930): frames stay where they are, and no filter rings.

    Args:
        sample_rate_hz: of the sound.
        params: resampling, STFT and high-pass.
    """

    def __init__(self, sample_rate_hz: int, params: SpectrogramParams) -> None:
        sample_rate_hz = _whole_rate(sample_rate_hz)
        self._params = params
        self._resampler = (
            None
            if sample_rate_hz == params.sample_rate_hz
            else soxr.ResampleStream(
                sample_rate_hz, params.sample_rate_hz, 1, dtype="float32", quality="VHQ"
            )
        )
        n = np.arange(params.n_fft)
        self._window = (0.5 - 0.5 * np.cos(2 * np.pi * n / params.n_fft)).astype(np.float32)
        self._weights = highpass_weights(params)[:, None]
        # Samples that frames to come begin with: half a window of zeros lies before the sound.
        self._rest = np.zeros(params.n_fft // 2, np.float32)

    def push(self, samples: Waveform) -> Magnitude:
        """Take samples [n] and give the frames [n_fft / 2 + 1, k] that are now whole.

        Raises:
            ValueError: not one channel of finite floating-point numbers.
        """
        _check_shape(samples)
        _check_numbers(samples)
        parts = []
        for step in np.array_split(samples, max(len(samples) // _STEP, 1)):
            resampled = np.ascontiguousarray(step, np.float32)
            if self._resampler is not None:
                resampled = self._resampler.resample_chunk(resampled)
            parts.append(self._frames(resampled))
        return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]

    def finish(self) -> Magnitude:
        """Give the last frames [n_fft / 2 + 1, k]. Nothing can be pushed afterwards."""
        tail = np.zeros(0, np.float32)
        if self._resampler is not None:
            tail = self._resampler.resample_chunk(tail, last=True)
        return self._frames(np.concatenate([tail, np.zeros(self._params.n_fft // 2, np.float32)]))

    def _frames(self, samples: Waveform) -> Magnitude:
        n_fft, hop = self._params.n_fft, self._params.hop_length
        self._rest = np.concatenate([self._rest, samples])
        if len(self._rest) < n_fft:
            return np.zeros((n_fft // 2 + 1, 0), np.float32)
        n = 1 + (len(self._rest) - n_fft) // hop
        # A view: frames overlap in it.
        frames = np.ndarray((n, n_fft), np.float32, self._rest, strides=(4 * hop, 4))
        magnitude = np.empty((n_fft // 2 + 1, n), np.float32)
        for start in range(0, len(frames), _BLOCK_FRAMES):
            block = frames[start : start + _BLOCK_FRAMES] * self._window
            spectrum = scipy.fft.rfft(block, axis=1, overwrite_x=True)
            part = magnitude[:, start : start + len(block)]
            np.multiply(np.abs(spectrum).T, self._weights, out=part)
        self._rest = self._rest[n * hop :]
        return magnitude


def highpass_weights(params: SpectrogramParams) -> NDArray[np.float32]:
    """Weight [n_fft / 2 + 1] of each frequency: 1 where nothing is damped.

    |H| = (f / c)^4 / sqrt(1 + (f / c)^8) of a Butterworth filter, which is finite at 0 Hz.
    """
    power = (params.frequencies_hz / (params.highpass_hz or np.inf)) ** _HIGHPASS_ORDER
    weights = power / np.sqrt(1 + power**2) if params.highpass_hz else np.ones_like(power)
    return weights.astype(np.float32)


def _whole_rate(sample_rate_hz: float) -> int:
    """The rate as a whole number; some readers give 44100.0."""
    is_number = isinstance(sample_rate_hz, (int, float, np.integer, np.floating))
    # NaN is not above 0, and soxr would never come back from it.
    if not is_number or not 1 <= sample_rate_hz < np.inf or sample_rate_hz % 1:
        raise ValueError(
            f"sample_rate_hz is {sample_rate_hz!r}: it must be a whole number, 1 or more."
        )
    return int(sample_rate_hz)


def _check_shape(waveform: Waveform) -> None:
    if not isinstance(waveform, (np.ndarray, np.generic)):
        raise ValueError(
            f"The waveform is a {type(waveform).__name__}; wanted is a numpy array [n_samples]: "
            "give np.asarray(waveform, dtype=np.float32)."
        )
    if waveform.ndim != 1:
        raise ValueError(
            f"The waveform has the shape {list(waveform.shape)}; wanted is [n_samples], one "
            "channel. Choose one channel: waveform[:, 0] if the shape is [n_samples, n_channels], "
            "waveform[0] if it is [n_channels, n_samples]."
        )


def _check_numbers(waveform: Waveform) -> None:
    if not np.issubdtype(waveform.dtype, np.floating):
        raise ValueError(
            f"The waveform holds {waveform.dtype} numbers; wanted are floating-point numbers in "
            "[-1, 1], as soundfile.read gives."
        )
    if not np.isfinite(waveform).all():
        n_bad = int((~np.isfinite(waveform)).sum())
        raise ValueError(
            f"The waveform holds {n_bad} numbers that are not finite (NaN or infinite): repair or "
            "leave out the recording."
        )


def levelled(magnitude: Magnitude, gain: float) -> Spectrogram:
    """The log spectrogram log(1 + gain * magnitude), of the magnitude's shape, float32."""
    spectrogram = np.multiply(magnitude, np.float32(gain), dtype=np.float32)
    return np.log1p(spectrogram, out=spectrogram)


def magnitude_of(spectrogram: Spectrogram, gain: float) -> Magnitude:
    """The magnitude that `levelled` made the spectrogram of, of its shape, float32."""
    magnitude = np.expm1(spectrogram, dtype=np.float32)
    return np.divide(magnitude, np.float32(gain), out=magnitude)


def log_spectrogram(
    waveform: Waveform, sample_rate_hz: int, params: SpectrogramParams, gain: float = 1.0
) -> Spectrogram:
    """log(1 + gain * |STFT|) of a waveform, after resampling and high-pass.

    Beside waveform and result it takes little memory, however long the waveform.

    Args:
        waveform: [n_samples] in [-1, 1].
        sample_rate_hz: of the waveform.
        params: resampling, STFT (Hann window, frames centred, librosa's convention), high-pass.
        gain: brings the sound to the reference level, see `data_io.sounding.gain_of`; 1 leaves it.

    Returns:
        [n_fft / 2 + 1, n_frames] float32, n_frames = 1 + n_samples_resampled // hop_length.

    Raises:
        ValueError: not one channel of finite floating-point numbers.
    """
    _check_shape(waveform)
    if not 0 < gain < np.inf:
        raise ValueError(f"gain is {gain}: it must be above 0 and finite; 1 leaves the level.")
    sample_rate_hz = _whole_rate(sample_rate_hz)
    stream = MagnitudeStream(sample_rate_hz, params)
    n_push = max(round(_PUSH_S * sample_rate_hz), 1)
    n_resampled = -(-len(waveform) * params.sample_rate_hz // sample_rate_hz)
    result = np.empty((params.n_fft // 2 + 1, 1 + n_resampled // params.hop_length), np.float32)
    end = 0
    for start in range(0, len(waveform) + 1, n_push):
        block = waveform[start : start + n_push]
        parts = [stream.push(block)]
        if start + n_push > len(waveform):
            parts.append(stream.finish())
        for part in parts:
            result[:, end : end + part.shape[1]] = levelled(part, gain)
            end += part.shape[1]
    # The resampler rounds the length down or up: one column may be too many.
    return result if end == result.shape[1] else np.ascontiguousarray(result[:, :end])


def invert_spectrogram(
    spectrogram: Spectrogram, params: SpectrogramParams, n_iter: int, seed: int, gain: float = 1.0
) -> Waveform:
    """Waveform [n_samples] at params.sample_rate_hz whose spectrogram comes near the given one.

    Phases as `data_io.phases.griffin_lim` finds them. ``gain`` is that of the spectrogram and is
    undone: the sound is as loud as the recordings. What the high-pass damped is not brought back.

    Raises:
        ValueError: the spectrogram has no frame, or numbers that are below 0 or not finite.
    """
    return griffin_lim(magnitude_of(spectrogram, gain), params.hop_length, n_iter, seed)
