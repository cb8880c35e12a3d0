"""Amounts of song: whole recordings, nested, of the training side; and what is held out."""

import dataclasses

import numpy as np
import pytest

from data_io.recordings.table import Recording, Recordings
from models.hmm import HmmParams
from study.how_much.amounts import amounts, song_of

LOOSE = HmmParams(min_snippets=1, min_recordings=1)
SOUND_S = [7.0, 1.0, 3.0, 9.0, 2.0, 4.0, 6.0, 5.0, 8.0, 3.0, 2.0, 10.0]


def recordings_of(sides, sound_s=SOUND_S):
    rows = [
        Recording("b1", "60", 60, None, f"b1/60/songs/{i}.wav", seconds=2 * s, sound_s=s,
                  split=side)
        for i, (side, s) in enumerate(zip(sides, sound_s, strict=True))
    ]  # fmt: skip
    return Recordings.from_rows(rows), {row.path: int(10 * row.seconds) for row in rows}


@pytest.fixture
def song():
    sides = ["training"] * 9 + ["selection", "report", "report"]
    return song_of(("b1", "60"), *recordings_of(sides), 1.0)


def test_the_report_side_is_held_out_and_the_training_side_alone_is_fitted(song):
    assert song.held_out == ("b1/60/songs/10.wav", "b1/60/songs/11.wav")
    assert song.fitted == tuple(f"b1/60/songs/{i}.wav" for i in range(9))
    np.testing.assert_allclose(song.sound_minutes, np.array(SOUND_S[:9]) / 60)
    np.testing.assert_allclose(song.recorded_minutes, 2 * np.array(SOUND_S[:9]) / 60)
    np.testing.assert_array_equal(song.n_snippets, 20 * np.array(SOUND_S[:9]))


def test_without_a_report_side_the_selection_side_is_held_out():
    sides = ["training"] * 9 + ["selection"] * 3
    found = song_of(("b1", "60"), *recordings_of(sides), 1.0)
    assert found.held_out == tuple(f"b1/60/songs/{i}.wav" for i in (9, 10, 11))


def test_a_recording_without_snippets_is_no_part_of_the_song():
    recordings, lengths = recordings_of(["training"] * 9 + ["report"] * 3)
    del lengths["b1/60/songs/3.wav"], lengths["b1/60/songs/11.wav"]
    found = song_of(("b1", "60"), recordings, lengths, 1.0)
    assert "b1/60/songs/3.wav" not in found.fitted
    assert "b1/60/songs/11.wav" not in found.held_out
    assert len(found.fitted) == len(found.sound_minutes) == 8


def test_a_smaller_amount_is_part_of_every_larger_one_of_its_subsample(song):
    for subsample in range(20):
        found = amounts(song, LOOSE, 0, subsample)
        assert [one.halvings for one in found] == list(range(len(found)))
        assert sorted(found[0].chosen) == list(range(9))
        for larger, smaller in zip(found, found[1:], strict=False):
            assert set(smaller.chosen) < set(larger.chosen)
            assert len(set(smaller.chosen)) == len(smaller.chosen)


def test_an_amount_is_as_near_to_its_minutes_as_whole_recordings_allow(song):
    for subsample in range(20):
        for one in amounts(song, LOOSE, 0, subsample)[:2]:
            wanted = song.sound_minutes.sum() / 2**one.halvings
            found = song.sound_minutes[list(one.chosen)].sum()
            assert abs(found - wanted) <= song.sound_minutes.max() / 2


def test_subsamples_differ_and_are_the_same_again(song):
    halves = [amounts(song, LOOSE, 0, subsample)[1].chosen for subsample in range(10)]
    assert len({tuple(sorted(half)) for half in halves}) > 5
    assert halves == [amounts(song, LOOSE, 0, subsample)[1].chosen for subsample in range(10)]
    assert halves != [amounts(song, LOOSE, 1, subsample)[1].chosen for subsample in range(10)]


@pytest.mark.parametrize(
    ("params", "n_amounts"),
    [
        (HmmParams(min_snippets=225, min_recordings=1), 3),  # of 900: all, a half, a quarter
        (HmmParams(min_snippets=226, min_recordings=1), 2),
        (HmmParams(min_snippets=1, min_recordings=5), 1),
    ],
)
def test_no_amount_is_smaller_than_what_a_model_takes(song, params, n_amounts):
    assert song.n_snippets.sum() == 900
    assert len(amounts(song, params, 0, 0)) == n_amounts


def test_what_overlapping_snippets_share_counts_once(song):
    overlapping = dataclasses.replace(song, new_share=0.25)
    assert overlapping.n_observations == 225
    params = HmmParams(min_snippets=57, min_recordings=1)  # of 225: all, and a half is 112
    assert len(amounts(overlapping, params, 0, 0)) == 2
    assert len(amounts(song, params, 0, 0)) > 2
