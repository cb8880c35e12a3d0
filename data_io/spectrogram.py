"""Waveform to log spectrogram and back."""

from dataclasses import dataclass

import librosa
import numpy as np
import soxr
from numpy.typing import NDArray

Waveform = NDArray[np.float32]
Spectrogram = NDArray[np.float32]


@dataclass(frozen=True)
class SpectrogramParams:
    """Parameters of the step from sound to spectrogram.

    Attributes:
        sample_rate_hz: rate that every recording is resampled to.
        n_fft: samples in the Hann window; gives n_fft / 2 + 1 frequencies.
        hop_length: samples from frame to frame.
    """

    sample_rate_hz: int = 16_000
    n_fft: int = 256
    hop_length: int = 64

    def __post_init__(self) -> None:
        for name in ("sample_rate_hz", "n_fft", "hop_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be 1 or more.")
        if self.n_fft != 256:
            raise ValueError(
                f"n_fft is {self.n_fft}: the networks are planned for 129 frequencies, n_fft 256."
            )

    @property
    def frame_s(self) -> float:
        """Seconds from frame to frame."""
        return self.hop_length / self.sample_rate_hz


def resample(waveform: Waveform, sample_rate_hz: int, params: SpectrogramParams) -> Waveform:
    """The waveform [n_samples] at params.sample_rate_hz. Resamplers differ: soxr's VHQ, always."""
    if sample_rate_hz == params.sample_rate_hz:
        return waveform
    resampled: Waveform = soxr.resample(
        waveform, sample_rate_hz, params.sample_rate_hz, quality="VHQ"
    )
    return resampled


def log_spectrogram(
    waveform: Waveform, sample_rate_hz: int, params: SpectrogramParams
) -> Spectrogram:
    """log(1 + |STFT|) of a waveform, after resampling.

    Args:
        waveform: [n_samples] in [-1, 1].
        sample_rate_hz: of the waveform.
        params: resampling and STFT (Hann window, frames centred, librosa's convention).

    Returns:
        [n_fft / 2 + 1, n_frames] float32, n_frames = 1 + n_samples_resampled // hop_length.
    """
    waveform = resample(waveform, sample_rate_hz, params)
    stft = librosa.stft(waveform, n_fft=params.n_fft, hop_length=params.hop_length, window="hann")
    spectrogram: Spectrogram = np.log1p(np.abs(stft)).astype(np.float32)
    return spectrogram


def invert_spectrogram(
    spectrogram: Spectrogram, params: SpectrogramParams, n_iter: int, seed: int
) -> Waveform:
    """Waveform [n_samples] at params.sample_rate_hz whose spectrogram comes near the given one.

    Griffin and Lim 1984 with momentum (Perraudin et al. 2013), librosa's implementation; the
    phases start at random numbers from ``seed``.
    """
    waveform: Waveform = librosa.griffinlim(
        np.expm1(spectrogram),
        n_iter=n_iter,
        hop_length=params.hop_length,
        n_fft=params.n_fft,
        window="hann",
        random_state=seed,
    )
    return np.asarray(waveform, dtype=np.float32)
