"""The spectrogram against its definition, and the way back to sound."""

import tracemalloc

import librosa
import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_io.spectrogram import (
    MagnitudeStream,
    SpectrogramParams,
    invert_spectrogram,
    levelled,
    log_spectrogram,
    magnitude_of,
    resample,
)

PARAMS = SpectrogramParams()
WHOLE_BAND = SpectrogramParams(highpass_hz=0)
HZ_PER_BIN = 62.5


def noise(n_samples: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 0.1, n_samples).astype(np.float32)


def sine(hz: float, rate: int, seconds: float = 1.0, amplitude: float = 0.5) -> NDArray[np.float32]:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)).astype(
        "f4"
    )


def warble(seconds: float = 0.5) -> NDArray[np.float32]:
    """A whistle with a harmonic, going up and down between pauses, as song does."""
    t = np.arange(round(16_000 * seconds)) / 16_000
    phase = 2 * np.pi * (1500 * t + 60 * np.sin(2 * np.pi * 4 * t))
    loudness = np.clip(np.sin(2 * np.pi * 6 * t), 0, 1)
    return (0.4 * loudness * (np.sin(phase) + 0.5 * np.sin(2 * phase))).astype("f4")


def test_equals_the_definition_written_out() -> None:
    waveform = noise(1000)
    padded = np.pad(waveform.astype(np.float64), 128)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)
    frames = [padded[i * 64 : i * 64 + 256] * window for i in range(1 + 1000 // 64)]
    expected = np.log1p(np.abs(np.fft.rfft(frames).T))
    result = log_spectrogram(waveform, 16_000, WHOLE_BAND)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("n_samples", [1024, 1087, 1088, 16_000, 12_345])
def test_shape_follows_from_the_length(n_samples: int) -> None:
    spectrogram = log_spectrogram(noise(n_samples), 16_000, PARAMS)
    assert spectrogram.shape == (129, 1 + n_samples // 64)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 32_000, 44_100, 48_000])
def test_tone_is_at_its_frequency_at_its_time_whatever_the_rate(rate: int) -> None:
    silence = np.zeros(rate // 2, np.float32)
    tone = sine(1000, rate)
    spectrogram = log_spectrogram(np.r_[silence, tone], rate, PARAMS)
    assert spectrogram.shape == (129, 1 + 24_000 // 64)
    assert (spectrogram[:, 130:-5].argmax(axis=0) == 1000 / HZ_PER_BIN).all()
    # A sine of amplitude 0.5 through a Hann window: half of half of the window's sum.
    np.testing.assert_allclose(spectrogram[16, 130:-5], np.log1p(0.25 * 128), rtol=2e-3)
    assert spectrogram[:, :110].max() < 0.01


def test_what_lies_above_8_khz_is_filtered_away_and_not_folded_back() -> None:
    above = log_spectrogram(sine(9000, 32_000), 32_000, PARAMS)
    below = log_spectrogram(sine(7000, 32_000), 32_000, PARAMS)
    assert below[112, 10:-10].min() > 3
    assert above[:, 10:-10].max() < 1e-3


def test_resampling_leaves_the_own_rate_alone() -> None:
    waveform = noise(2000)
    np.testing.assert_array_equal(resample(waveform, 16_000, PARAMS), waveform)
    assert resample(waveform, 32_000, PARAMS).shape == (1000,)
    assert resample(waveform, 32_000, PARAMS).dtype == np.float32


def test_inversion_comes_close() -> None:
    spectrogram = log_spectrogram(warble(), 16_000, PARAMS)
    waveform = invert_spectrogram(spectrogram, PARAMS, n_iter=60, seed=0)
    again = log_spectrogram(waveform, 16_000, PARAMS)
    assert again.shape == spectrogram.shape
    error = np.abs(again - spectrogram).mean() / spectrogram.mean()
    assert error < 0.06  # measured: 0.03 to 0.04; random phases alone 0.48


def test_inversion_of_one_snippet_and_of_silence_is_finite() -> None:
    snippet = log_spectrogram(noise(1024), 16_000, PARAMS)[:, :16]
    for picture in (snippet, np.zeros_like(snippet)):
        waveform = invert_spectrogram(picture, PARAMS, n_iter=4, seed=0)
        assert waveform.dtype == np.float32
        assert waveform.shape == (15 * 64,)
        assert np.isfinite(waveform).all()


def test_seed_fixes_the_bytes_of_an_inversion() -> None:
    spectrogram = log_spectrogram(warble(0.2), 16_000, PARAMS)
    first, again, other = (invert_spectrogram(spectrogram, PARAMS, 4, seed) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_frame_takes_4_ms() -> None:
    assert PARAMS.frame_s == 0.004


def streamed(
    waveform: NDArray[np.float32], rate: int, lengths: list[int], params: SpectrogramParams
) -> NDArray[np.float32]:
    """The magnitudes of a sound pushed in blocks of ``lengths``, in turn."""
    stream, parts, start = MagnitudeStream(rate, params), [], 0
    while start < len(waveform):
        n = lengths[len(parts) % len(lengths)]
        parts.append(stream.push(waveform[start : start + n]))
        start += n
    return np.concatenate([*parts, stream.finish()], axis=1)


@settings(max_examples=150, deadline=None)
@given(
    rate=st.sampled_from([8_000, 16_000, 22_050, 44_100, 96_000]) | st.integers(8_000, 96_000),
    n_samples=st.integers(0, 1200) | st.integers(0, 40_000),
    lengths=st.lists(st.integers(1, 600) | st.integers(500, 50_000), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_blocks_have_no_seams_whatever_their_lengths_and_the_rate(
    rate: int, n_samples: int, lengths: list[int], seed: int
) -> None:
    waveform = noise(n_samples, seed)
    whole = waveform
    if rate != 16_000:
        whole = soxr.resample(waveform, rate, 16_000, quality="VHQ")
    padded = np.pad(whole, 128)  # librosa's own padding warns of short sounds
    expected = np.abs(librosa.stft(padded, n_fft=256, hop_length=64, center=False))
    result = streamed(waveform, rate, lengths, WHOLE_BAND)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5 * max(expected.max(), 1e-6))
    np.testing.assert_array_equal(log_spectrogram(waveform, rate, WHOLE_BAND).shape, expected.shape)


def test_a_long_sound_pushed_in_parts_by_log_spectrogram_has_no_seams() -> None:
    waveform = noise(44_100 * 21)  # more than two of its blocks
    whole = streamed(waveform, 44_100, [len(waveform)], PARAMS)
    np.testing.assert_allclose(
        log_spectrogram(waveform, 44_100, PARAMS), np.log1p(whole), rtol=0, atol=1e-5
    )


def test_memory_beside_sound_and_spectrogram_does_not_grow_with_the_length() -> None:
    used = []
    for seconds in (60, 240):
        waveform = np.zeros(44_100 * seconds, np.float32)
        tracemalloc.start()
        spectrogram = log_spectrogram(waveform, 44_100, PARAMS)
        used.append(tracemalloc.get_traced_memory()[1] - spectrogram.nbytes)
        tracemalloc.stop()
    assert used[1] < 1.1 * used[0] < 20e6


def test_a_stream_holds_no_more_than_it_was_pushed_last() -> None:
    stream, block = MagnitudeStream(44_100, PARAMS), noise(44_100)
    stream.push(block)
    tracemalloc.start()
    for _ in range(100):
        stream.push(block)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 100_000


@pytest.mark.parametrize("highpass_hz", [250.0, 300.0, 400.0, 500.0, 2000.0])
def test_highpass_damps_as_a_butterworth_filter_of_order_4(highpass_hz: float) -> None:
    from scipy.signal import butter, freqs

    waveform = noise(20_000)
    whole = streamed(waveform, 16_000, [20_000], WHOLE_BAND)
    damped = streamed(waveform, 16_000, [777], SpectrogramParams(highpass_hz=highpass_hz))
    _, response = freqs(*butter(4, highpass_hz, "high", analog=True), np.arange(129) * HZ_PER_BIN)
    np.testing.assert_allclose(damped, np.abs(response)[:, None] * whole, rtol=1e-4, atol=1e-6)


def test_highpass_leaves_frames_where_they_are() -> None:
    click = np.zeros(16_000, np.float32)
    click[8000] = 1.0
    for params in (WHOLE_BAND, PARAMS):
        frames = log_spectrogram(click, 16_000, params).sum(axis=0)
        assert frames.argmax() == 8000 / 64
        np.testing.assert_allclose(frames[122:125], frames[126:129][::-1], rtol=1e-4)


def test_level_and_its_undoing() -> None:
    magnitude = streamed(warble(), 16_000, [4000], PARAMS)
    np.testing.assert_allclose(
        levelled(magnitude, 7.5), np.log1p(7.5 * magnitude.astype(np.float64)), rtol=1e-5
    )
    assert levelled(magnitude, 7.5).dtype == np.float32
    np.testing.assert_array_equal(
        log_spectrogram(warble(), 16_000, PARAMS, gain=7.5), levelled(magnitude, 7.5)
    )
    np.testing.assert_allclose(magnitude_of(levelled(magnitude, 7.5), 7.5), magnitude, atol=1e-5)
    # What was made louder for the networks is as loud as before when it is heard.
    plain = invert_spectrogram(levelled(magnitude, 1.0), PARAMS, 8, 0)
    again = invert_spectrogram(levelled(magnitude, 7.5), PARAMS, 8, 0, gain=7.5)
    np.testing.assert_allclose(again, plain, rtol=0, atol=1e-3 * np.abs(plain).max())


@pytest.mark.parametrize("n_samples", [0, 1, 63, 64, 127, 128, 200, 255, 256])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_very_short_sounds_have_frames_too(n_samples: int, rate: int) -> None:
    waveform = noise(n_samples)
    spectrogram = log_spectrogram(waveform, rate, PARAMS)
    assert spectrogram.shape == (129, 1 + len(resample(waveform, rate, PARAMS)) // 64)
    assert np.isfinite(spectrogram).all()


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.zeros((16_000, 2), "f4"), r"shape \[16000, 2\].*one channel: waveform\[:, 0\]"),
        (np.zeros((16_000, 1), "f4"), r"shape \[16000, 1\].*waveform\[:, 0\]"),
        (np.zeros((2, 16_000), "f4"), r"shape \[2, 16000\].*waveform\[0\]"),
        (np.zeros((3, 4, 5), "f4"), r"shape \[3, 4, 5\]"),
        (np.float32(0.5), r"shape \[\]"),
        (np.zeros(100, "i2"), "holds int16 numbers.*floating-point"),
        (np.zeros(100, "c8"), "holds complex64 numbers.*floating-point"),
        (np.array([0, np.nan, np.inf], "f4"), "2 numbers that are not finite"),
        ([0.0] * 100, "is a list; wanted is a numpy array"),
        (None, "is a NoneType; wanted is a numpy array"),
    ],
)
def test_what_is_not_one_channel_of_finite_floats_is_refused(waveform, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        log_spectrogram(waveform, 16_000, PARAMS)
    with pytest.raises(ValueError, match=message):
        MagnitudeStream(44_100, PARAMS).push(waveform)


@pytest.mark.parametrize("rate", [0, -1, 0.5, 22_050.5, float("nan"), float("inf"), None, "44100"])
def test_impossible_rates_of_a_sound_are_refused(rate) -> None:
    with pytest.raises(ValueError, match=f"sample_rate_hz is {rate!r}: it must be a whole number"):
        log_spectrogram(noise(100), rate, PARAMS)


def test_a_rate_may_be_a_whole_number_of_any_type() -> None:
    wanted = log_spectrogram(noise(4410), 44_100, PARAMS)
    for rate in (44_100.0, np.int64(44_100), np.float64(44_100)):
        assert np.array_equal(log_spectrogram(noise(4410), rate, PARAMS), wanted)


@pytest.mark.parametrize("gain", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_gains_are_refused(gain: float) -> None:
    with pytest.raises(ValueError, match="gain is .*above 0 and finite"):
        log_spectrogram(noise(100), 16_000, PARAMS, gain)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sample_rate_hz", 0, "must be 1 or more"),
        ("hop_length", -1, "must be 1 or more"),
        ("n_fft", 0, "must be 1 or more"),
        ("n_fft", 512, "129 frequencies"),
        ("hop_length", 257, "above n_fft"),
        ("highpass_hz", -1.0, "0 .none. or more"),
        ("highpass_hz", 8000.0, "below 8000 Hz"),
        ("highpass_hz", float("nan"), "0 .none. or more"),
        ("level", "bird", "'bird_and_age' or 'none'"),
        ("level", True, "'bird_and_age' or 'none'"),
    ],
)
def test_impossible_settings_are_refused_by_name(name: str, value: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} is {value!r}: .*{message}"):
        SpectrogramParams(**{name: value})
