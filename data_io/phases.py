"""Sound from magnitudes |STFT|: phases that fit them, and how well they fit.

Phases begin where the magnitudes' own slopes put them, by phase-gradient heap integration (Prusa,
Balazs and Sondergaard 2017, "A noniterative method for reconstruction of phase from STFT
magnitude"), and are improved by Griffin and Lim 1984 with momentum (Perraudin, Balazs and
Sondergaard 2013). Everywhere: Hann window of n_fft samples, frames centred, zeros before and after
the sound, the convention of librosa.
"""

import heapq

import numba
import numpy as np
import scipy.fft
from numpy.typing import NDArray

Waveform = NDArray[np.float32]
Magnitude = NDArray[np.float32]
Floats = NDArray[np.float64]
Spectrum = NDArray[np.complex64]  # [n_frames, n_freq]: a frame lies in one piece, for the FFT

# A Hann window of M samples is nearest to the Gaussian exp(-pi t^2 / (0.25645 M^2)); Prusa et al.
_GAMMA = 0.25645
# Below this share of the loudest magnitude (-80 dB) slopes are those of rounding: phases are drawn.
_TOLERANCE = 1e-4
_MOMENTUM = 0.99  # of Perraudin et al.; above 1 it got worse, on song
_TINY = np.float32(1e-30)


def griffin_lim(magnitude: Magnitude, hop_length: int, n_iter: int, seed: int) -> Waveform:
    """Sound whose magnitudes come near the given ones.

    Args:
        magnitude: [n_freq, n_frames] of a Hann window of 2 * (n_freq - 1) samples.
        hop_length: samples from frame to frame.
        n_iter: 0 leaves the phases of the heap integration.
        seed: of the phases where there is next to no sound.

    Returns:
        [hop_length * (n_frames - 1)]: none of a single frame.

    Raises:
        ValueError: the magnitude has no frame, or numbers that are below 0 or not finite.
    """
    _check(magnitude)
    stft = _Stft(magnitude, hop_length)
    wanted = np.ascontiguousarray(magnitude.T, np.float32)
    phases = heap_integrated_phases(magnitude, hop_length, seed).T
    spectrum = (wanted * np.exp(1j * phases)).astype(np.complex64)
    before = np.zeros_like(spectrum)
    for _ in range(n_iter):
        found = stft.spectrum(stft.sound(spectrum))
        _improve(found, before, wanted, np.float32(_MOMENTUM / (1 + _MOMENTUM)), spectrum)
        before = found
    return stft.sound(spectrum)


def spectral_convergence(waveform: Waveform, magnitude: Magnitude, hop_length: int) -> float:
    """Root of the sum of (|STFT of the waveform| - magnitude)^2 over that of magnitude^2.

    Args:
        waveform: [hop_length * (n_frames - 1)].
        magnitude: [n_freq, n_frames].
        hop_length: samples from frame to frame.

    Returns:
        0 for a sound that has these very magnitudes; NaN if all magnitudes are 0.
    """
    found = np.abs(_Stft(magnitude, hop_length).spectrum(waveform)).T
    size = np.linalg.norm(magnitude.astype(np.float64))
    return float(np.linalg.norm(found.astype(np.float64) - magnitude) / size) if size else np.nan


def heap_integrated_phases(magnitude: Magnitude, hop_length: int, seed: int) -> Floats:
    """Phases by phase-gradient heap integration, without an iteration.

    The slopes of the logarithm of the magnitude along frequency give those of the phase along
    time, and the other way round: exactly for a Gaussian window, nearly for a Hann window. They
    are added up from the loudest bins to quieter ones, so that no path leads through noise.

    Args:
        magnitude: [n_freq, n_frames] of a Hann window of 2 * (n_freq - 1) samples.
        hop_length: samples from frame to frame.
        seed: phases of bins that are 80 dB or more below the loudest one are random.

    Returns:
        Radians [n_freq, n_frames], of frames that begin at their first sample (as librosa's).
    """
    n_freq, n_frames = magnitude.shape
    n_fft = 2 * (n_freq - 1)
    loudest = np.float32(magnitude.max())
    quietest = max(loudest * np.float32(1e-10), np.finfo(np.float32).tiny)
    log_magnitude = np.log(np.maximum(magnitude.T, quietest), dtype=np.float32, order="C")
    stretch = _GAMMA * n_fft / hop_length
    per_frame = np.gradient(log_magnitude, axis=1).astype(np.float64) / stretch
    per_frame += 2 * np.pi * hop_length / n_fft * np.arange(n_freq)
    # pi: a window's centre lies half a window behind its first sample.
    per_bin = np.full((n_frames, n_freq), np.pi)
    if n_frames > 1:
        per_bin -= stretch * np.gradient(log_magnitude, axis=0)
    phases = 2 * np.pi * np.random.default_rng(seed).random((n_frames, n_freq))
    is_known = np.less_equal(magnitude.T, _TOLERANCE * loudest, order="C")
    _integrate(log_magnitude, per_frame, per_bin, is_known, phases)
    return phases.T


@numba.njit(cache=True)
def _integrate(
    log_magnitude: NDArray[np.float32],
    per_frame: Floats,
    per_bin: Floats,
    is_known: NDArray[np.bool_],
    phases: Floats,
) -> None:
    """Fill ``phases`` [n_frames, n_freq] where they are not known, from loud to quiet."""
    n_frames, n_freq = log_magnitude.shape
    for start in np.argsort(-log_magnitude.ravel()):
        t, f = start // n_freq, start % n_freq
        if is_known[t, f]:
            continue
        phases[t, f] = 0.0
        is_known[t, f] = True
        heap = [(-log_magnitude[t, f], start)]
        while len(heap):
            _, at = heapq.heappop(heap)
            t, f = at // n_freq, at % n_freq
            for dt, df in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                u, g = t + dt, f + df
                if u < 0 or u >= n_frames or g < 0 or g >= n_freq or is_known[u, g]:
                    continue
                step = dt * (per_frame[t, f] + per_frame[u, g])
                step += df * (per_bin[t, f] + per_bin[u, g])
                phases[u, g] = phases[t, f] + 0.5 * step
                is_known[u, g] = True
                heapq.heappush(heap, (-log_magnitude[u, g], u * n_freq + g))


class _Stft:
    """STFT of the shape of a magnitude [n_freq, n_frames], and its inverse, the nearest sound."""

    def __init__(self, magnitude: Magnitude, hop_length: int) -> None:
        n_freq, self._n_frames = magnitude.shape
        self._n_fft, self._hop_length = 2 * (n_freq - 1), hop_length
        at = np.arange(self._n_fft)
        self._window = (0.5 - 0.5 * np.cos(2 * np.pi * at / self._n_fft)).astype(np.float32)
        squares = np.zeros(self._n_fft + hop_length * (self._n_frames - 1), np.float32)
        _overlap_add(np.tile(self._window, (self._n_frames, 1)), self._window, hop_length, squares)
        # Where no window reaches, nothing is known of the sound.
        self._weights = np.zeros_like(squares)
        np.divide(1, squares, out=self._weights, where=squares > 1e-8)
        self._inside = slice(self._n_fft // 2, len(squares) - self._n_fft // 2)

    def sound(self, spectrum: Spectrum) -> Waveform:
        """Sound [hop_length * (n_frames - 1)] of a spectrum [n_frames, n_freq]."""
        frames = scipy.fft.irfft(spectrum, axis=1)
        sound = np.zeros_like(self._weights)
        _overlap_add(frames, self._window, self._hop_length, sound)
        sound *= self._weights
        return sound[self._inside]

    def spectrum(self, sound: Waveform) -> Spectrum:
        """Spectrum [n_frames, n_freq] of a sound [hop_length * (n_frames - 1)]."""
        padded = np.zeros_like(self._weights)
        padded[self._inside] = sound
        frames = np.empty((self._n_frames, self._n_fft), np.float32)
        _cut(padded, self._window, self._hop_length, frames)
        spectrum: Spectrum = scipy.fft.rfft(frames, axis=1, overwrite_x=True)
        return spectrum


@numba.njit(cache=True, fastmath={"contract", "nsz"})
def _overlap_add(
    frames: NDArray[np.float32], window: Waveform, hop_length: int, sound: Waveform
) -> None:
    for t in range(frames.shape[0]):
        for i in range(frames.shape[1]):
            sound[t * hop_length + i] += window[i] * frames[t, i]


@numba.njit(cache=True)
def _cut(sound: Waveform, window: Waveform, hop_length: int, frames: NDArray[np.float32]) -> None:
    for t in range(frames.shape[0]):
        for i in range(frames.shape[1]):
            frames[t, i] = window[i] * sound[t * hop_length + i]


@numba.njit(cache=True, error_model="numpy", fastmath={"contract", "nsz", "reassoc", "arcp"})
def _improve(
    found: Spectrum, before: Spectrum, wanted: Magnitude, momentum: np.float32, spectrum: Spectrum
) -> None:
    """Write the wanted magnitudes with the phases of found - momentum * before."""
    for t in range(found.shape[0]):
        for f in range(found.shape[1]):
            ahead = found[t, f] - momentum * before[t, f]
            power = ahead.real * ahead.real + ahead.imag * ahead.imag
            spectrum[t, f] = ahead * (wanted[t, f] / np.sqrt(power + _TINY))


def _check(magnitude: Magnitude) -> None:
    if magnitude.ndim != 2 or magnitude.shape[0] < 2 or magnitude.shape[1] < 1:
        raise ValueError(
            f"The magnitude has the shape {list(magnitude.shape)}; wanted is [n_freq, n_frames], "
            "with 2 frequencies and 1 frame or more."
        )
    n_bad = int((~(np.isfinite(magnitude) & (magnitude >= 0))).sum())
    if n_bad:
        raise ValueError(
            f"{n_bad} magnitudes are below 0 or not finite: they are no |STFT|. Look at what made "
            "the spectrogram; a decoder whose training failed gives such numbers."
        )
