"""The same sound is found whatever its gain, coding and cut; other song, noise and tones not."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from data_io.aviary.params import AviaryParams
from data_io.aviary.write import simulate_bird_age
from data_io.sound.same_sound import Anchors, SoundAnchors, contained
from tests.helpers.faulty_files import FAULTY, RATE, song


def anchors(path, sound, rate=RATE, block=65_536) -> SoundAnchors:
    found = Anchors(rate)
    for at in range(0, len(sound), block):
        found.push(np.asarray(sound[at : at + block], "f4"))
    return SoundAnchors(path, len(sound) / rate, rate, *found.finish())


def in_16_bits(sound):
    return np.round(sound * 32_768).clip(-32_768, 32_767) / 32_768


LONG = in_16_bits(song("long", 60.0))


@pytest.mark.parametrize("start_s", [0.0, 7.00003, 21.12345, 57.0])
@pytest.mark.parametrize(
    "change",
    [
        lambda s: s,
        lambda s: in_16_bits(0.5 * s),
        lambda s: in_16_bits(0.25 * s),
        lambda s: 0.37 * s,
        lambda s: 2.5 * s,
        lambda s: -s,
        lambda s: s + 0.01,
        lambda s: np.round(s * 2**11) / 2**11,
        lambda s: np.where(np.arange(len(s)) % 20_000 == 777, 0.4, s),
        lambda s: s + np.random.default_rng(1).normal(0, 1e-5, len(s)),
    ],
    ids=["same", "half", "quarter", "float", "louder", "turned", "offset", "12 bits", "clicks",
         "noise"],
)  # fmt: skip
def test_a_song_cut_out_of_a_long_file_is_found_at_its_place(start_s, change):
    start = round(start_s * RATE)
    cut = change(LONG[start : start + 3 * RATE])
    found = contained([anchors("cut", cut), anchors("long", LONG)])
    assert found == {"cut": ("long", pytest.approx(start / RATE, abs=1e-9))}


def test_the_anchors_do_not_depend_on_the_blocks():
    whole = anchors("a", LONG[: 3 * RATE], block=len(LONG))
    assert len(whole.hashes) > 60
    for block in (1, 5, 64, 999):
        parts = anchors("a", LONG[: 3 * RATE], block=block)
        assert np.array_equal(parts.hashes, whole.hashes)
        assert np.array_equal(parts.positions, whole.positions)


def test_the_longer_recording_is_kept_and_of_equal_ones_the_first():
    sound, half = song("s"), in_16_bits(0.5 * song("s"))
    assert contained([anchors("b", sound), anchors("a", half)]) == {"a": ("b", 0.0)}
    inner = anchors("inner", sound[RATE // 2 : 3 * RATE // 2])
    middle = anchors("middle", half[RATE // 4 :])
    found = contained([inner, middle, anchors("outer", sound)])
    assert found == {"inner": ("outer", 0.5), "middle": ("outer", 0.25)}


def test_a_cut_of_a_poor_copy_lies_in_the_recording_that_is_kept():
    poor = in_16_bits(0.1 * LONG[RATE : 11 * RATE])  # more like its own cut than like the original
    cut = poor[RATE // 2 : 4 * RATE]
    found = contained([anchors("cut", cut), anchors("poor", poor), anchors("long", LONG)])
    assert found == {"poor": ("long", 1.0), "cut": ("long", 1.5)}


def test_a_short_sound_that_two_recordings_share_makes_neither_a_copy():
    first, second = song("first", 10.0), song("second", 10.0)
    second[3 * RATE : 3 * RATE + RATE // 2] = first[3 * RATE : 3 * RATE + RATE // 2]
    assert contained([anchors("first", first), anchors("second", second)]) == {}


def test_the_place_is_in_the_recording_that_is_kept_and_not_in_one_that_is_skipped():
    # Nine copies: an anchor is compared with those of the eight longest alone.
    sound = song("s")
    copies = [anchors(f"copy {k}", sound[k * 1_600 :]) for k in range(20)]
    found = contained(copies)
    assert found == {f"copy {k}": ("copy 0", pytest.approx(k * 0.05)) for k in range(1, 20)}


def test_recordings_that_overlap_and_do_not_contain_each_other_are_both_kept():
    first, second = LONG[: 20 * RATE], LONG[12 * RATE : 32 * RATE]
    assert contained([anchors("a", first), anchors("b", second)]) == {}


def test_different_songs_of_one_bird_are_kept_and_their_copies_found(tmp_path):
    params = AviaryParams(n_birds=1, ages_dph=(90,), recording_s=(3.0, 6.0))
    n = len(simulate_bird_age(tmp_path, params, 0, "sim1", 90).recordings)
    sounds = [sf.read(path) for path in sorted(tmp_path.rglob("*.wav"))]
    songs = [anchors(f"song {i}", sound, rate) for i, (sound, rate) in enumerate(sounds)]
    assert len(songs) == n > 9
    assert contained(songs) == {}
    copies = [
        anchors(f"copy {i}", in_16_bits(0.3 * s[5_000:]), rate)
        for i, (s, rate) in enumerate(sounds)
    ]
    found = contained([*copies, *songs])
    assert found == {f"copy {i}": (f"song {i}", 5_000 / rate) for i, (_, rate) in enumerate(sounds)}


def _noise(seed):
    return in_16_bits(np.random.default_rng(seed).normal(0, 0.1, 4 * RATE))


def _hum(seed, noise=0.0):
    rng, t = np.random.default_rng(seed), np.arange(4 * RATE) / RATE
    waves = [np.sin(2 * np.pi * 50 * k * t + rng.uniform(0, 6)) / k for k in range(1, 9)]
    return in_16_bits(0.02 * np.sum(waves, 0) + rng.normal(0, noise, 4 * RATE))


def _repeated(seed, noise):
    """The same syllables in the same order, to the sample; only the noise differs."""
    rng, one = np.random.default_rng(seed), song("motif", 0.7)
    return np.tile(one, 6 + seed) + rng.normal(0, noise, (6 + seed) * len(one))


@pytest.mark.parametrize(
    "make",
    [
        lambda k: np.zeros((2 + k) * RATE),
        lambda k: np.full((2 + k) * RATE, 0.1),
        _noise,
        lambda k: np.round(np.random.default_rng(k).normal(0, 0.7, 4 * RATE)) / 32_768,
        _hum,
        lambda k: _hum(k, 3e-5),
        lambda k: _hum(k, 1e-3),
        lambda k: np.tile(_hum(0)[:RATE], 2 + k),
        lambda k: _repeated(k, 0.0),
        lambda k: _repeated(k, 0.01),
    ],
    ids=["silence", "constant", "noise", "noise of one bit", "hum", "hum in a bit of noise",
         "hum in noise", "one hum", "one motif", "one motif in noise"],
)  # fmt: skip
def test_sound_without_anything_of_its_own_is_the_same_as_nothing(make):
    assert contained([anchors(str(k), make(k)) for k in range(5)]) == {}


@pytest.mark.parametrize("frequency", [50, 100, 440, 1000, 3000, 3000.7, 2718.28, 7000.1])
@pytest.mark.parametrize("code", [in_16_bits, np.asarray], ids=["16 bits", "float"])
def test_pure_tones_are_not_the_same_as_each_other(frequency, code):
    tones = [
        code(0.3 * np.sin(2 * np.pi * frequency * np.arange(n * RATE) / RATE + phase))
        for n, phase in ((2, 0.0), (3, 0.0), (3, 1.0), (4, 0.3))
    ]
    assert contained([anchors(str(k), tone) for k, tone in enumerate(tones)]) == {}


def test_nothing_is_the_same_as_an_empty_list_an_empty_recording_or_another_rate():
    assert contained([]) == {}
    assert contained([anchors("a", np.empty(0)), anchors("b", np.ones(5))]) == {}
    assert contained([anchors("a", song("s")), anchors("b", song("s"), rate=44_100)]) == {}


def test_many_copies_of_one_recording_are_found_without_comparing_all_pairs():
    one = anchors("x", song("s"))
    copies = [one._replace(path=str(k), seconds=2 - 1e-6 * k) for k in range(1_000)]
    found = contained(copies)
    assert len(found) == 999
    assert set(found.values()) == {("0", 0.0)}


@pytest.mark.parametrize(
    "fault",
    [fault for fault in FAULTY if fault.decided_by == "same_sound"],
    ids=lambda fault: Path(fault.path).name,
)
def test_every_copy_among_the_faulty_files_lies_in_its_original(fault, tmp_path):
    path = tmp_path / fault.path
    fault.make(path)
    original = path.with_name(f"a song of {path.stem}.wav")
    files = [(str(each), *sf.read(os.fsencode(each))) for each in (original, path)]
    found = contained([anchors(name, sound, rate) for name, sound, rate in files])
    assert list(found) == [str(path)]
