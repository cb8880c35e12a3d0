"""Phases of sound whose phases are known, and sounds that are awkward."""

import librosa
import numpy as np
import pytest
from numpy.typing import NDArray

from data_io.phases import griffin_lim, heap_integrated_phases, spectral_convergence
from data_io.spectrogram import SpectrogramParams, invert_spectrogram, log_spectrogram

HOP = 64


def song(seconds: float = 1.0) -> NDArray[np.float32]:
    """Harmonics that go up and down between pauses, as in song, over faint noise."""
    t = np.arange(round(16_000 * seconds)) / 16_000
    phase = 2 * np.pi * (1000 * t + 15 * np.sin(2 * np.pi * 4 * t))
    loudness = np.clip(np.sin(2 * np.pi * 6 * t), 0, 1)
    sound = sum(np.cos(k * phase + k * k) / k for k in range(1, 5))
    noise = np.random.default_rng(0).normal(0, 1e-4, len(t))
    return (0.2 * loudness * sound + noise).astype("f4")


def stft(waveform: NDArray[np.float32], hop_length: int = HOP) -> NDArray[np.complex64]:
    """librosa's, of frames that are centred."""
    padded = np.pad(waveform, 128)  # librosa's own padding warns of short sounds
    found: NDArray[np.complex64] = librosa.stft(
        padded, n_fft=256, hop_length=hop_length, center=False
    )
    return found


def convergence(waveform: NDArray[np.float32], magnitude: NDArray[np.float32]) -> float:
    difference = np.abs(stft(waveform)).astype("f8") - magnitude
    return float(np.linalg.norm(difference) / np.linalg.norm(magnitude.astype("f8")))


def wrapped(radians: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.abs((radians + np.pi) % (2 * np.pi) - np.pi)


def test_phases_of_a_tone_go_on_from_frame_to_frame_as_the_tone_does() -> None:
    t = np.arange(16_000) / 16_000
    spectrum = stft((0.5 * np.sin(2 * np.pi * 2030 * t)).astype("f4"))  # between two bins
    phases = heap_integrated_phases(np.abs(spectrum), HOP, 0)
    steps = np.diff(phases[31:35, 10:-10], axis=1)
    assert wrapped(steps - 2 * np.pi * 2030 * HOP / 16_000).max() < 0.05


def test_phases_of_a_click_go_on_from_frequency_to_frequency_as_the_click_does() -> None:
    click = np.zeros(16_000, np.float32)
    click[8010] = 1.0  # 10 samples behind the centre of frame 125
    spectrum = stft(click)
    phases = heap_integrated_phases(np.abs(spectrum), HOP, 0)
    for frame in (124, 125, 126):
        true = np.diff(np.angle(spectrum[:, frame]))
        assert wrapped(np.diff(phases[:, frame]) - true)[4:-4].max() < 0.1


def test_phases_of_song_are_near_before_any_iteration() -> None:
    magnitude = np.abs(stft(song()))
    from_heap = convergence(griffin_lim(magnitude, HOP, 0, 0), magnitude)
    rng = np.random.default_rng(0)
    angles = np.exp(2j * np.pi * rng.random(magnitude.shape)).astype("c8")
    at_random = librosa.istft(magnitude * angles, n_fft=256, hop_length=HOP)
    assert from_heap < 0.05  # measured: 0.014
    assert convergence(at_random, magnitude) > 0.5


def test_32_iterations_come_nearer_than_those_of_librosa_from_random_phases() -> None:
    magnitude = np.abs(stft(song()))
    ours = convergence(griffin_lim(magnitude, HOP, 32, 0), magnitude)
    theirs = librosa.griffinlim(
        magnitude, n_iter=32, n_fft=256, hop_length=HOP, momentum=0.99, random_state=0
    )
    assert ours < 0.2 * convergence(theirs, magnitude)  # measured: 0.001 and 0.057


def test_iterations_are_those_of_griffin_and_lim_with_momentum() -> None:
    magnitude = np.abs(stft(song(0.3)))
    spectrum = magnitude * np.exp(1j * heap_integrated_phases(magnitude, HOP, 3))
    before = np.zeros_like(spectrum)
    for _ in range(3):
        found = stft(librosa.istft(spectrum, n_fft=256, hop_length=HOP, dtype=np.float64))
        ahead = found - 0.99 / 1.99 * before
        spectrum, before = magnitude * ahead / np.abs(ahead), found
    wanted = librosa.istft(spectrum, n_fft=256, hop_length=HOP, dtype=np.float64)
    np.testing.assert_allclose(griffin_lim(magnitude, HOP, 3, 3), wanted, rtol=0, atol=1e-4)


def test_convergence_is_its_definition() -> None:
    waveform = song()
    magnitude = np.abs(stft(waveform))
    assert spectral_convergence(waveform, magnitude, HOP) < 1e-5
    assert spectral_convergence(0.75 * waveform, magnitude, HOP) == pytest.approx(0.25, rel=1e-4)
    other = song()[::-1].copy()
    wanted = convergence(other, magnitude)
    assert spectral_convergence(other, magnitude, HOP) == pytest.approx(wanted, rel=1e-4)
    assert np.isnan(spectral_convergence(waveform, np.zeros_like(magnitude), HOP))


def test_zeros_give_silence() -> None:
    np.testing.assert_array_equal(griffin_lim(np.zeros((129, 50), "f4"), HOP, 5, 0), np.zeros(3136))


def test_a_single_frame_has_phases_but_no_sound() -> None:
    magnitude = np.abs(stft(song()))[:, 40:41]
    assert np.isfinite(heap_integrated_phases(magnitude, HOP, 0)).all()
    assert griffin_lim(magnitude, HOP, 5, 0).shape == (0,)


def test_loud_clipped_sound_is_inverted_too() -> None:
    magnitude = np.abs(stft(np.clip(20 * song(), -1, 1)))
    waveform = griffin_lim(magnitude, HOP, 50, 0)
    assert waveform.dtype == np.float32
    assert convergence(waveform, magnitude) < 0.1  # measured: 0.05


@pytest.mark.parametrize("hop_length", [1, 17, 100, 128, 255, 256])
@pytest.mark.parametrize("n_frames", [1, 2, 5])
def test_any_hop_and_few_frames_give_finite_sound(hop_length: int, n_frames: int) -> None:
    magnitude = np.abs(stft(song(0.2), hop_length))[:, :n_frames]
    waveform = griffin_lim(magnitude, hop_length, 4, 0)
    assert waveform.shape == (hop_length * (n_frames - 1),)
    assert np.isfinite(waveform).all()


def test_a_levelled_log_spectrogram_comes_back_as_loud_as_the_recording() -> None:
    params = SpectrogramParams(highpass_hz=0)
    for gain in (0.1, 1.0, 30.0):
        spectrogram = log_spectrogram(song(), 16_000, params, gain)
        waveform = invert_spectrogram(spectrogram, params, 50, 0, gain)
        assert convergence(waveform, np.abs(stft(song()))) < 0.05
        assert waveform.std() == pytest.approx(song().std(), rel=0.02)


@pytest.mark.parametrize(
    ("magnitude", "message"),
    [
        (np.zeros((129, 0), "f4"), r"shape \[129, 0\].*1 frame or more"),
        (np.zeros(129, "f4"), r"shape \[129\].*wanted is \[n_freq, n_frames\]"),
        (np.array([[1, -1, np.nan, np.inf]] * 3, "f4"), "^9 magnitudes are below 0 or not finite"),
    ],
)
def test_what_is_no_magnitude_is_refused(magnitude, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        griffin_lim(magnitude, HOP, 1, 0)
