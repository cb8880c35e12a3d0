"""Noise, hum and gain as a person would measure them in the file."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.random import default_rng
from scipy.signal import welch

from data_io.aviary.birds import Bird, hatch
from data_io.aviary.params import AviaryParams
from data_io.aviary.room import PEAK, Room, record, room_on
from data_io.aviary.singing import Sound
from data_io.aviary.syllables import LOUDEST

PARAMS = AviaryParams(n_birds=5, ages_dph=(45, 60, 75, 90))
RATE = 44_100


def room_of(bird: Bird, dph: int, params: AviaryParams = PARAMS) -> Room:
    return room_on(default_rng([1, dph]), params, 1, bird, dph)


def heard(room: Room, seconds: float = 10.0, sounds: tuple[Sound, ...] = ()) -> np.ndarray:
    return record(default_rng(0), room, sounds, round(seconds * RATE), RATE) / 32767.0


def db_between(samples: np.ndarray, low_hz: float, high_hz: float) -> float:
    """RMS between two frequencies in dB of full scale."""
    hz, density = welch(samples, RATE, nperseg=1 << 14)
    band = (hz >= low_hz) & (hz < high_hz)
    return float(10.0 * np.log10(density[band].sum() * (hz[1] - hz[0])))


def test_noise_and_hum_have_the_level_that_the_truth_says() -> None:
    for name, dph in (("sim1", 45), ("sim2", 425), ("sim3", 90), ("sim4", 45)):
        room = room_of(hatch(PARAMS, 1, name), dph)
        silence = heard(room)
        assert db_between(silence, 500.0, RATE / 2) == pytest.approx(room.noise_db, abs=0.2)
        # Below 400 Hz the noise of the room adds to the hum.
        assert db_between(silence, 0.0, 400.0) > room.hum_db - 0.3
        loud_hum = replace(room, hum_db=room.noise_db + 30.0)
        low = db_between(heard(loud_hum), 0.0, 400.0)
        assert low == pytest.approx(room.noise_db + 30.0, abs=0.3)


def test_hum_adds_its_power_to_that_of_the_noise() -> None:
    room = room_of(hatch(PARAMS, 1, "sim1"), 45)
    without = replace(room, hum_db=room.noise_db - 60.0)
    noise, both = (10.0 ** (db_between(heard(r), 0.0, 400.0) / 10.0) for r in (without, room))
    assert 10.0 * np.log10(both - noise) == pytest.approx(room.hum_db, abs=0.3)


def test_noise_and_hum_stand_as_far_below_song_as_asked_for() -> None:
    params = replace(PARAMS, noise_db=-30.0, hum_db=7.0)
    bird = hatch(params, 1, "sim1")
    room = room_of(bird, 45, params)
    tone = np.sqrt(2.0) * np.sin(2 * np.pi * 2000.0 * np.arange(5 * RATE) / RATE)
    sounds = (Sound("syllable", "a", 0, 0, tone),)  # RMS 1: a loud syllable
    song = db_between(heard(room, 5.0, sounds), 1950.0, 2050.0)
    assert room.noise_db - song == pytest.approx(-30.0, abs=0.1)
    assert room.hum_db - room.noise_db == pytest.approx(7.0)


def test_most_of_the_power_of_silence_lies_below_250_hz() -> None:
    for number in (1, 3, 4):
        room = room_of(hatch(PARAMS, 1, f"sim{number}"), 45)
        silence = heard(room)
        whole = db_between(silence, 0.0, RATE / 2)
        low = db_between(silence, 0.0, 250.0)
        assert 0.6 < 10.0 ** ((low - whole) / 10.0) < 0.95


def test_hum_stands_out_at_harmonics_of_the_mains() -> None:
    for hum_hz in (50.0, 60.0):
        params = replace(PARAMS, hum_hz=hum_hz)
        silence = heard(room_of(hatch(params, 1, "sim1"), 45, params))
        for k in range(1, 4):
            line = db_between(silence, k * hum_hz - 6.0, k * hum_hz + 6.0)
            beside = db_between(silence, (k + 0.5) * hum_hz - 6.0, (k + 0.5) * hum_hz + 6.0)
            assert line > beside + 3.0


def test_each_room_has_a_slope_of_its_own_and_keeps_it() -> None:
    def slope(room: Room) -> float:
        silence = heard(room)
        octaves = np.arange(5)
        levels = [db_between(silence, 500.0 * 2.0**o, 1000.0 * 2.0**o) for o in octaves]
        return float(np.polyfit(octaves, levels, 1)[0])

    rooms = [room_of(hatch(PARAMS, 1, f"sim{number}"), 45) for number in (1, 3, 5)]
    for room in rooms:
        # An octave holds twice the frequencies of the one below: 3 dB.
        assert slope(room) == pytest.approx(room.slope_db + 3.01, abs=0.3)
    assert len({room.slope_db for room in rooms}) == 3
    later = room_of(hatch(PARAMS, 1, "sim1"), 90)
    assert (later.slope_db, later.harmonics) == (rooms[0].slope_db, rooms[0].harmonics)


def test_the_gain_moves_a_little_from_day_to_day_and_noise_goes_with_it() -> None:
    bird = hatch(PARAMS, 1, "sim1")
    rooms = [room_of(bird, dph) for dph in range(30, 130)]
    off_db = np.array([room.gain_db - bird.gain_db for room in rooms])
    assert off_db.std() == pytest.approx(1.0, abs=0.25)
    assert np.abs(off_db).max() <= 2.0
    assert np.ptp([room.noise_db - room.gain_db for room in rooms]) < 1e-9


def test_the_gain_steps_on_the_stated_day_and_the_noise_with_it() -> None:
    steady = replace(PARAMS, gain_day_sd_db=0.0)
    bird = hatch(steady, 1, "sim4")
    assert bird.gain_step_dph == 75
    before, after = room_of(bird, 60, steady), room_of(bird, 75, steady)
    assert after.gain_db - before.gain_db == pytest.approx(12.0)
    assert after.noise_db - before.noise_db == pytest.approx(12.0)


def test_the_noise_steps_on_the_stated_day_and_gain_and_hum_do_not() -> None:
    steady = replace(PARAMS, gain_day_sd_db=0.0)
    bird = hatch(steady, 1, "sim2")
    assert bird.noise_step_dph == 75 + 365
    before, after = room_of(bird, 60 + 365, steady), room_of(bird, 75 + 365, steady)
    assert after.noise_db - before.noise_db == pytest.approx(9.0)
    assert (after.gain_db, after.hum_db) == (before.gain_db, before.hum_db)


@pytest.mark.parametrize("step", [0.0, 12.0, 30.0])
def test_the_loudest_sound_on_the_loudest_day_is_not_clipped(step: float) -> None:
    params = replace(PARAMS, gain_db=(0.0, 0.0), gain_step_db=step, gain_day_sd_db=2.0)
    bird = hatch(params, 1, "sim4")
    square = LOUDEST * np.sign(np.sin(2 * np.pi * 1000.0 * np.arange(5 * RATE) / RATE))
    sounds = (Sound("call", "distance", -1, 0, square),)
    peaks = [np.abs(heard(room_of(bird, dph, params), 5.0, sounds)).max() for dph in range(75, 105)]
    assert max(peaks) <= PEAK
    assert max(peaks) > 0.5 * PEAK, "the gain is lower than it need be"


def test_a_gain_that_is_low_enough_is_not_changed() -> None:
    params = replace(PARAMS, gain_db=(-20.0, -20.0), gain_day_sd_db=0.0)
    assert room_of(hatch(params, 1, "sim4"), 60, params).gain_db == pytest.approx(-20.0)


def test_a_sample_beyond_full_scale_is_an_error_and_never_wraps() -> None:
    room = replace(room_of(hatch(PARAMS, 1, "sim1"), 45), gain_db=60.0)
    sounds = (Sound("call", "distance", -1, 0, np.ones(100)),)
    with pytest.raises(RuntimeError, match=r"a sample reaches .* of full scale, above 0\.98"):
        heard(room, 1.0, sounds)
