"""Sound from magnitudes |STFT|: phases that fit them, and how well they fit.

Phases begin where the magnitudes' own slopes put them, by phase-gradient heap integration (Prusa,
Balazs and Sondergaard 2017, "A noniterative method for reconstruction of phase from STFT
magnitude"), and are improved by Griffin and Lim 1984 with momentum (Perraudin, Balazs and
Sondergaard 2013). The loop is ours, since librosa's own begins at random phases alone; STFT and its
inverse are librosa's: Hann window of n_fft samples, frames centred, zeros before and after.
"""

import heapq
import warnings

import librosa
import numba
import numpy as np
from numpy.typing import NDArray

Waveform = NDArray[np.float32]
Magnitude = NDArray[np.float32]
Floats = NDArray[np.float64]
Spectrum = NDArray[np.complex64]

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
    n_fft = 2 * (magnitude.shape[0] - 1)
    if magnitude.shape[1] == 1:
        return np.zeros(0, np.float32)
    # librosa's arrays hold one frame in one piece.
    wanted = np.asfortranarray(magnitude, np.float32)
    phases = heap_integrated_phases(magnitude, hop_length, seed)
    spectrum = np.asfortranarray(wanted * np.exp(1j * phases), np.complex64)
    before = np.zeros_like(spectrum)
    for _ in range(n_iter):
        found = _spectrum(_sound(spectrum, hop_length), n_fft, hop_length)
        _improve(found.T, before.T, wanted.T, np.float32(_MOMENTUM / (1 + _MOMENTUM)), spectrum.T)
        before = found
    return _sound(spectrum, hop_length)


def spectral_convergence(waveform: Waveform, magnitude: Magnitude, hop_length: int) -> float:
    """Root of the sum of (|STFT of the waveform| - magnitude)^2 over that of magnitude^2.

    Args:
        waveform: [hop_length * (n_frames - 1)].
        magnitude: [n_freq, n_frames].
        hop_length: samples from frame to frame.

    Returns:
        0 for a sound that has these very magnitudes; NaN if all magnitudes are 0.
    """
    found = np.abs(_spectrum(waveform, 2 * (magnitude.shape[0] - 1), hop_length))
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


def _sound(spectrum: Spectrum, hop_length: int) -> Waveform:
    """Sound [hop_length * (n_frames - 1)] of a spectrum: the nearest that there is."""
    sound: Waveform = librosa.istft(spectrum, hop_length=hop_length, window="hann")
    return sound


def _spectrum(sound: Waveform, n_fft: int, hop_length: int) -> Spectrum:
    """Spectrum [n_freq, n_frames] of a sound."""
    with warnings.catch_warnings():
        # A sound may be shorter than a window: zeros lie around it.
        warnings.filterwarnings("ignore", message="n_fft=.* is too large")
        spectrum: Spectrum = librosa.stft(sound, n_fft=n_fft, hop_length=hop_length, window="hann")
    return spectrum


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
