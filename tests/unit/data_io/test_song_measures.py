"""What is heard in sounds that are made to measure."""

import numpy as np
import pytest

from data_io.song_measures import measure_song
from data_io.spectrogram import SpectrogramParams, log_spectrogram

PARAMS = SpectrogramParams(highpass_hz=0.0)
RATE = PARAMS.sample_rate_hz
LEVEL = 0.05


def tone(ms, hz=1000.0, rms=LEVEL, harmonics=1):
    t = np.arange(round(RATE * ms / 1000)) / RATE
    stack = sum(np.sin(2 * np.pi * k * hz * t) for k in range(1, harmonics + 1))
    return rms * stack / np.sqrt(np.mean(stack**2))


def silence(ms):
    return np.zeros(round(RATE * ms / 1000))


def measured(*parts):
    return measure_song(
        log_spectrogram(np.concatenate(parts).astype(np.float32), RATE, PARAMS), PARAMS, LEVEL
    )


def test_sounds_and_gaps_last_as_long_as_they_were_made():
    found = measured(
        silence(100), tone(80), silence(60), tone(160), silence(400), tone(40), silence(100)
    )
    # A window of 16 ms smears onsets and ends.
    np.testing.assert_allclose(found.sounds_ms, [80, 160, 40], atol=14)
    np.testing.assert_allclose(found.gaps_ms, [60], atol=14)  # 400 ms are a pause


def test_what_the_ends_of_a_song_cut_is_not_counted():
    found = measured(tone(80), silence(60), tone(100), silence(60), tone(80))
    assert len(found.sounds_ms) == 1
    assert len(found.gaps_ms) == 2


def test_clicks_and_sounds_far_below_the_level_are_no_sounds():
    found = measured(silence(100), tone(5), silence(100), tone(100, rms=LEVEL / 20), silence(100))
    assert len(found.sounds_ms) == 0
    assert len(found.pitch_hz) == 0


def test_loudness_is_in_db_above_the_threshold_and_0_in_silence():
    found = measured(silence(200), tone(200), silence(200))
    assert found.loudness_db[75] == pytest.approx(20, abs=0.5)  # the level is 20 dB above
    assert found.loudness_db[10] == 0


@pytest.mark.parametrize("hz", [320.0, 400.0, 633.0, 1800.0])
def test_the_pitch_of_a_harmonic_sound_is_its_fundamental(hz):
    found = measured(silence(50), tone(300, hz, harmonics=2), silence(50))
    assert len(found.pitch_hz) > 60
    assert np.median(found.pitch_hz) == pytest.approx(hz, rel=0.002)


def test_noise_has_next_to_no_pitch():
    noise = LEVEL * np.random.default_rng(0).standard_normal(RATE)
    found = measured(noise)
    assert len(found.pitch_hz) < 0.1 * len(found.loudness_db)


def test_a_bird_without_a_level_is_refused_with_what_to_know():
    with pytest.raises(ValueError, match="level is 0: it must be above 0"):
        measure_song(np.zeros((129, 10), np.float32), PARAMS, 0)
