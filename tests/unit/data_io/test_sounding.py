"""Sound and silence, noise floor and reference level, on sounds whose truth is known."""

from collections import defaultdict

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from data_io.aviary.params import AviaryParams
from data_io.aviary.write import simulate_bird_age
from data_io.sounding import (
    LOWEST_DB,
    frame_energy_db,
    gain_of,
    has_sound,
    noise_floor_db,
    reference_level,
)
from data_io.spectrogram import TARGET_LEVEL, MagnitudeStream, SpectrogramParams, levelled

PARAMS = SpectrogramParams()
RATE = 32_000
Sound = NDArray[np.float32]
Syllables = list[tuple[float, float]]


def magnitudes(sound: Sound, params: SpectrogramParams = PARAMS, rate: int = RATE) -> Sound:
    stream = MagnitudeStream(rate, params)
    return np.concatenate([stream.push(sound), stream.finish()], axis=1)


def energies(sound: Sound, params: SpectrogramParams = PARAMS) -> Sound:
    return frame_energy_db(magnitudes(sound, params), params)


def noise(seconds: float, rms: float, seed: int = 0) -> Sound:
    rng = np.random.default_rng(seed)
    return rng.normal(0, rms, round(seconds * RATE)).astype(np.float32)


def tones(sound: Sound, places: Syllables, amplitude: float, hz: float = 3000.0) -> Sound:
    """The sound with a tone at each place (onset_s, offset_s)."""
    result = sound.copy()
    for onset_s, offset_s in places:
        n = np.arange(round(onset_s * RATE), round(offset_s * RATE))
        result[n] += amplitude * np.sin(2 * np.pi * hz / RATE * n).astype(np.float32)
    return result


def is_within(n_frames: int, places: Syllables, frame_s: float = PARAMS.frame_s) -> NDArray:
    """(frames within a place, frames more than 10 ms away from every edge)."""
    times = np.arange(n_frames) * frame_s
    inside, clear = np.zeros(n_frames, bool), np.ones(n_frames, bool)
    for onset_s, offset_s in places:
        inside |= (times >= onset_s) & (times < offset_s)
        clear &= (np.abs(times - onset_s) > 0.0101) & (np.abs(times - offset_s) > 0.0101)
    return inside, clear


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], list]:
    """Recordings of simulated birds and ages: [(sound, its true syllables)]."""
    root = tmp_path_factory.mktemp("birds")
    params = AviaryParams(
        n_birds=3, ages_dph=(45, 90), minutes=0.3, recording_s=(4.0, 5.0), gain_db=(0.0, 0.0),
        # Noise that 16 bits still hold 30 dB lower; no hum, which a gate would cut into clicks.
        noise_db=-32.0, hum_db=-60.0, sample_rates_hz=(RATE,),
    )  # fmt: skip
    result: dict[tuple[str, int], list] = {}
    for bird, dph in [("sim1", 45), ("sim1", 90), ("sim3", 45), ("sim2", 455)]:
        places = defaultdict(list)
        for row in simulate_bird_age(root, params, 3, bird, dph).sounds.to_pylist():
            places[row["recording"]].append((row["onset_s"], row["offset_s"]))
        result[bird, dph] = [
            (soundfile.read(root / path, dtype="float32")[0], places[path])
            for path in sorted(places)
        ]
    return result


def found_sound(sounds: list[Sound]) -> tuple[list[NDArray], list[NDArray], float]:
    """Energies and answers for recordings of one bird and age, and their floor."""
    all_db = [energies(sound) for sound in sounds]
    floor_db = noise_floor_db(np.concatenate(all_db))
    return all_db, [has_sound(db, floor_db, PARAMS.frame_s) for db in all_db], floor_db


def test_energy_is_the_rms_in_db_of_full_scale_above_500_hz() -> None:
    white = frame_energy_db(magnitudes(noise(4, 0.1), rate=16_000), PARAMS)
    power = 10 ** (white.astype(np.float64) / 10)
    expected = 20 * np.log10(0.1) + 10 * np.log10(7500 / 8000)
    assert abs(10 * np.log10(power[5:-5].mean()) - expected) < 0.1
    tone = energies(tones(noise(1, 0), [(0, 1)], 0.5))[10:-10]
    np.testing.assert_allclose(tone, 20 * np.log10(0.5 / np.sqrt(2)), atol=0.02)
    assert energies(tones(noise(1, 0), [(0, 1)], 0.5, hz=100))[10:-10].max() < -60
    np.testing.assert_array_equal(energies(noise(1, 0)), LOWEST_DB)


def test_energy_of_a_hum_counts_without_highpass_neither() -> None:
    hum = tones(noise(2, 1e-3), [(0, 2)], 0.3, hz=120)
    whole = energies(hum, SpectrogramParams(highpass_hz=0))
    np.testing.assert_allclose(whole[5:-5], energies(noise(2, 1e-3))[5:-5], atol=1.5)


def test_sounds_of_simulated_birds_are_found_where_they_are(birds) -> None:
    for recordings in birds.values():
        _, answers, _ = found_sound([sound for sound, _ in recordings])
        hits = misses = false = 0
        for found, (_, places) in zip(answers, recordings, strict=True):
            inside, clear = is_within(len(found), places)
            hits += (found & inside & clear).sum()
            misses += (~found & inside & clear).sum()
            false += (found & ~inside & clear).sum()
        assert hits / (hits + misses) > 0.98
        assert hits / (hits + false) > 0.98


@pytest.mark.parametrize("gain_db", [-30, -20, -10, 10])
def test_gain_moves_floor_and_level_and_no_answer(birds, gain_db: int) -> None:
    gain = 10 ** (gain_db / 20)
    for recordings in birds.values():
        # Rounded to 16 bits, as a rig with another gain would have written it.
        sounds = [0.3 * sound for sound, _ in recordings]
        as_int16 = [np.round(gain * sound * 32768).astype(np.int16) for sound in sounds]
        db, found, floor_db = found_sound(sounds)
        rig_db, rig_found, rig_floor_db = found_sound([x.astype("f4") / 32768 for x in as_int16])
        assert abs(rig_floor_db - floor_db - gain_db) < 1.5
        agree = np.concatenate(found) == np.concatenate(rig_found)
        assert agree.mean() > 0.99
        level = reference_level(np.concatenate(db), np.concatenate(found))
        rig_level = reference_level(np.concatenate(rig_db), np.concatenate(rig_found))
        assert rig_level == pytest.approx(gain * level, rel=0.01)


def test_gain_of_floats_is_exact(birds) -> None:
    sounds = [sound for sound, _ in birds["sim1", 90]]
    db, found, floor_db = found_sound(sounds)
    loud_db, loud_found, loud_floor_db = found_sound([np.float32(4) * x for x in sounds])
    assert loud_floor_db - floor_db == pytest.approx(20 * np.log10(4), abs=1e-3)
    np.testing.assert_array_equal(np.concatenate(loud_found), np.concatenate(found))


def test_ten_rigs_from_minus_30_to_10_db_give_equal_spectrograms(birds) -> None:
    sounds = [sound for sound, _ in birds["sim2", 455]]
    top = 0.95 / 10 ** (10 / 20) / max(np.abs(sound).max() for sound in sounds)
    spectrograms = []
    for gain_db in np.linspace(-30, 10, 10):
        rig = [np.round(top * 10 ** (gain_db / 20) * x * 32767).astype(np.int16) for x in sounds]
        rig = [x.astype(np.float32) / 32768 for x in rig]
        db, found, _ = found_sound(rig)
        gain = gain_of(reference_level(np.concatenate(db), np.concatenate(found)), PARAMS)
        spectrograms.append(np.concatenate([levelled(magnitudes(x), gain) for x in rig], axis=1))
    for one in spectrograms:
        for other in spectrograms:
            assert np.abs(one - other).sum() < 0.05 * other.sum()


@pytest.mark.parametrize("share", [0.0, 0.02, 0.05, 0.3, 0.5, 0.8, 0.9])
def test_floor_does_not_depend_on_how_much_song_there_is(birds, share: float) -> None:
    rng = np.random.default_rng(0)
    for recordings in birds.values():
        db, found, floor_db = found_sound([sound for sound, _ in recordings])
        pool, sounding = np.concatenate(db), np.concatenate(found)
        day = np.r_[
            rng.choice(pool[sounding], round(20_000 * share)),
            rng.choice(pool[~sounding], round(20_000 * (1 - share))),
        ]
        assert abs(noise_floor_db(day) - floor_db) < 1.5


def test_floor_of_noise_is_its_level() -> None:
    for rms in (1e-4, 1e-3, 0.03):
        db = energies(noise(3, rms))
        assert abs(noise_floor_db(db) - np.median(db)) < 0.5
        assert not has_sound(db, noise_floor_db(db), PARAMS.frame_s).any()


def test_floor_is_not_that_of_one_recording_whose_microphone_was_off() -> None:
    day = [energies(noise(2, 1e-3, seed)) for seed in range(40)]
    off = energies(noise(2, 1e-5))
    assert abs(noise_floor_db(np.concatenate([*day, off])) - np.median(day[0])) < 0.5


def test_zeros_of_a_gate_are_silence_and_not_the_floor() -> None:
    places = [(0.5, 0.7), (1.1, 1.2), (2.0, 2.4)]
    loud = tones(noise(3, 1e-3), places, 0.2)
    times = np.arange(len(loud)) / RATE
    gate = np.zeros(len(loud), bool)
    for onset_s, offset_s in places:
        gate |= (times > onset_s - 0.03) & (times < offset_s + 0.1)
    gated = np.where(gate, loud, 0).astype(np.float32)
    db, ungated_db = energies(gated), energies(loud)
    assert abs(noise_floor_db(db) - noise_floor_db(ungated_db)) < 1.5
    inside, clear = is_within(len(db), places)
    found = has_sound(db, noise_floor_db(db), PARAMS.frame_s)
    np.testing.assert_array_equal(found[clear], inside[clear])


@pytest.mark.parametrize("zero_db", [LOWEST_DB, -170.0, -140.0])
def test_what_a_resampler_leaves_of_zeros_is_not_the_floor(zero_db: float) -> None:
    noisy = energies(tones(noise(2, 1e-3), [(0.5, 0.7)], 0.2))
    day = np.r_[noisy, np.full(4 * len(noisy), zero_db, np.float32)]
    assert abs(noise_floor_db(day) - noise_floor_db(noisy)) < 3


def test_a_gate_that_leaves_no_noise_leaves_the_floor_below_the_sounds(birds) -> None:
    for recordings in birds.values():
        sounds = []
        for sound, places in recordings:
            times = np.arange(len(sound)) / RATE
            sounds.append(np.where(is_open(times, places), sound, 0).astype(np.float32))
        _, answers, _ = found_sound(sounds)
        found = np.concatenate(answers)
        truth = [
            is_within(len(a), without_short_gaps(p))
            for a, (_, p) in zip(answers, recordings, strict=True)
        ]
        inside, clear = np.concatenate(truth, axis=1)
        assert (found & inside & clear).sum() > 0.95 * (inside & clear).sum()
        assert not (found & ~inside & clear).any()


def without_short_gaps(places: Syllables) -> Syllables:
    """Places, one for two with a gap that windows of 16 ms on both sides all but fill."""
    joined = [places[0]]
    for onset_s, offset_s in places[1:]:
        if onset_s - joined[-1][1] < 0.025:
            joined[-1] = (joined[-1][0], offset_s)
        else:
            joined.append((onset_s, offset_s))
    return joined


def is_open(times: NDArray[np.float64], places: Syllables) -> NDArray[np.bool_]:
    """Samples that a gate lets through which cuts at every syllable's edge."""
    result = np.zeros(len(times), bool)
    for onset_s, offset_s in places:
        result |= (times >= onset_s) & (times < offset_s)
    return result


@pytest.mark.parametrize("hz", [50, 100, 120, 300])
def test_hum_is_no_sound_and_hides_none(hz: float) -> None:
    places = [(0.5, 0.7), (1.1, 1.2)]
    hum = tones(tones(noise(2, 1e-3), [(0, 2)], 0.2, hz=hz), places, 0.1)
    db = energies(hum)
    inside, clear = is_within(len(db), places)
    clear[:5] = clear[-5:] = False  # the hum is cut off at the ends, which is a click
    found = has_sound(db, noise_floor_db(db), PARAMS.frame_s)
    np.testing.assert_array_equal(found[clear], inside[clear])


def test_a_recording_with_rain_is_measured_from_its_own_noise() -> None:
    places = [(0.5, 0.7), (1.1, 1.2), (2.0, 2.4)]
    quiet = [energies(tones(noise(3, 1e-4, seed), places, 0.1)) for seed in range(4)]
    rain = energies(tones(noise(3, 7e-4), places, 0.1))
    floor_db = noise_floor_db(np.concatenate([*quiet, rain]))
    inside, clear = is_within(len(rain), places)
    for db in (*quiet, rain):
        found = has_sound(db, floor_db, PARAMS.frame_s)
        np.testing.assert_array_equal(found[clear], inside[clear])


@pytest.mark.parametrize(("above_db", "is_noise"), [(0, True), (15, True), (25, False)])
def test_steady_noise_far_above_the_floor_of_the_day_counts_as_sound(above_db, is_noise) -> None:
    db = energies(noise(3, 1e-4 * 10 ** (above_db / 20)))
    found = has_sound(db, noise_floor_db(energies(noise(3, 1e-4, seed=1))), PARAMS.frame_s)
    assert (~found if is_noise else found).all()


def test_a_recording_full_of_song_is_sound_from_end_to_end(birds) -> None:
    sound, places = birds["sim1", 45][0]
    _, _, floor_db = found_sound([sound])
    onset_s, offset_s = max(places, key=lambda place: place[1] - place[0])
    syllable = sound[round((onset_s + 0.01) * RATE) : round((offset_s - 0.01) * RATE)]
    db = energies(np.tile(syllable, 30))
    assert len(db) * PARAMS.frame_s > 2
    assert has_sound(db, floor_db, PARAMS.frame_s).all()


@pytest.mark.parametrize(
    ("above_db", "is_sound"), [(6, False), (11, False), (13, True), (40, True)]
)
def test_sound_begins_12_db_above_the_floor(above_db: float, is_sound: bool) -> None:
    db = np.full(500, -60, np.float32)
    db[200:300] = -60 + above_db
    assert has_sound(db, -60.0, 0.004)[210:290].all() == is_sound
    assert not has_sound(db, -60.0, 0.004)[:190].any()


def test_soft_onsets_and_decays_belong_to_their_sound() -> None:
    db = np.full(500, -60, np.float32)
    db[200:300] = -50
    db[240:260] = -30
    found = has_sound(db, -60.0, 0.004)
    np.testing.assert_array_equal(np.flatnonzero(found), np.arange(200, 300))


@pytest.mark.parametrize(("n_gap", "is_joined"), [(2, True), (4, True), (6, False), (8, False)])
def test_only_gaps_that_can_be_seen_are_gaps(n_gap: int, is_joined: bool) -> None:
    db = np.full(500, -30, np.float32)
    db[:100] = db[250 : 250 + n_gap] = db[400:] = -60
    assert has_sound(db, -60.0, 0.004)[110:390].all() == is_joined


@pytest.mark.parametrize(("n_frames", "is_sound"), [(1, False), (2, False), (6, True)])
def test_clicks_are_too_short_for_a_sound(n_frames: int, is_sound: bool) -> None:
    db = np.full(500, -60, np.float32)
    db[250 : 250 + n_frames] = -35
    assert has_sound(db, -60.0, 0.004).any() == is_sound


def test_times_and_not_frames_count_at_other_hops() -> None:
    places = [(0.5, 0.7), (1.1, 1.2), (1.215, 1.25)]
    sound = tones(noise(2, 1e-3), places, 0.1)
    for hop_length in (16, 32, 64, 128, 256):
        params = SpectrogramParams(hop_length=hop_length)
        db = energies(sound, params)
        found = has_sound(db, noise_floor_db(db), params.frame_s)
        inside, clear = is_within(len(db), [(0.5, 0.7), (1.1, 1.25)], params.frame_s)
        times = np.arange(len(db)) * params.frame_s
        clear &= (times < 1.19) | (times > 1.23)
        np.testing.assert_array_equal(found[clear], inside[clear])


def test_level_is_that_of_the_song_and_not_of_a_few_noises_or_much_silence(birds) -> None:
    db, found, _ = found_sound([sound for sound, _ in birds["sim1", 90]])
    pool, sounding = np.concatenate(db), np.concatenate(found)
    level = reference_level(pool, sounding)
    n_loud = round(0.05 * sounding.sum())
    noisy = np.r_[pool, np.full(n_loud, -3, np.float32), np.full(50_000, -70, np.float32)]
    also = np.r_[sounding, np.full(n_loud, True), np.full(50_000, False)]
    assert 0.8 < reference_level(noisy, also) / level < 1.25
    half = np.arange(len(pool)) < len(pool) / 2
    ratio = reference_level(pool[half], sounding[half]) / level
    assert 0.8 < ratio < 1.25


def test_level_and_gain_of_a_tone_are_known() -> None:
    db = energies(tones(noise(2, 1e-4), [(0.5, 1.5)], 0.2))
    level = reference_level(db, has_sound(db, noise_floor_db(db), PARAMS.frame_s))
    assert level == pytest.approx(0.2 / np.sqrt(2), rel=0.01)
    assert gain_of(level, PARAMS) == pytest.approx(TARGET_LEVEL / level)
    assert gain_of(level, SpectrogramParams(level="none")) == 1.0


def test_where_there_is_no_sound_there_is_no_level() -> None:
    db = energies(noise(3, 1e-3))
    assert reference_level(db, np.zeros(len(db), bool)) is None
    assert gain_of(None, PARAMS) == 1.0


@pytest.mark.parametrize("n_frames", [0, 1, 2, 5])
def test_nothing_and_almost_nothing_can_be_asked(n_frames: int) -> None:
    zeros = np.full(n_frames, LOWEST_DB, np.float32)
    assert noise_floor_db(zeros) == LOWEST_DB
    assert not has_sound(zeros, LOWEST_DB, 0.004).any()
    assert has_sound(np.full(n_frames, -20, np.float32), -60.0, 0.004).shape == (n_frames,)


def test_energies_and_answers_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"3 energies and 2 answers of has_sound"):
        reference_level(np.zeros(3, np.float32), np.zeros(2, bool))
