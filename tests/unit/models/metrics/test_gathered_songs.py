"""Which songs measure a decoder: how many snippets, from whom, and in what order."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from models.metrics import songs as songs_module
from models.metrics.songs import (
    LEAST_HELD_OUT,
    MOST_SONGS,
    MOST_TRAINING,
    STRETCH,
    gather_songs,
    own_pca_l1,
    spread,
)
from tests.helpers.reference_snippets import TRAIN, VALID, songs_of


def recording(n_frames, number=0.0):
    """Frames that hold the recording's number and their own place."""
    frames = np.full((n_frames, 129), number, np.float32)
    frames[:, 1] = np.arange(n_frames)
    return frames


def gathered(held_out, n_held_out=1000, training=None, seed=0):
    return gather_songs(held_out if training is None else training, held_out, 16, n_held_out, seed)


def test_snippets_follow_one_another_within_their_recording():
    held_out = {("b1", "45"): [recording(100, 1), recording(40, 2), recording(15, 3)]}
    (songs,) = gathered(held_out)
    assert sorted(songs.held_out_lengths) == [2, 6]  # the third is shorter than a snippet
    assert songs.held_out.shape == (8, 1, 129, 16)
    ends = np.cumsum(songs.held_out_lengths)
    for n, end in zip(songs.held_out_lengths, ends, strict=True):
        mine = songs.held_out[end - n : end, 0]
        assert np.unique(mine[:, 0]).size == 1
        np.testing.assert_array_equal(mine[:, 1].ravel(), np.arange(16 * n))


def test_birds_and_ages_share_the_number_and_none_has_less_than_32():
    held_out = {(f"b{i}", "45"): [recording(16 * 100)] for i in range(4)}
    found = gathered(held_out, n_held_out=200)
    assert [len(s.held_out) for s in found] == [50] * 4
    found = gathered(held_out, n_held_out=100)
    assert [len(s.held_out) for s in found] == [LEAST_HELD_OUT] * 4
    short = {**held_out, ("b9", "45"): [recording(16 * 7)]}
    assert [len(s.held_out) for s in gathered(short, 500)] == [100, 100, 100, 100, 7]
    none = {**held_out, ("b9", "45"): [recording(12)]}
    assert [s.bird for s in gathered(none)] == ["b0", "b1", "b2", "b3"]


def test_training_song_has_a_limit_and_no_part_in_the_choice_of_held_out_songs():
    held_out = {("b1", "45"): [recording(16 * 30, i) for i in range(9)]}
    training = {("b1", "45"): [recording(16 * 500, i) for i in range(3)]}
    (songs,) = gathered(held_out, 100, training)
    assert len(songs.training) == sum(songs.training_lengths) == MOST_TRAINING
    (alone,) = gathered(held_out, 100, {})
    np.testing.assert_array_equal(alone.held_out, songs.held_out)
    assert alone.held_out_lengths == songs.held_out_lengths
    assert not alone.has_song
    assert songs.has_song


def test_where_not_all_is_taken_stretches_come_from_all_recordings():
    held_out = {("b1", "45"): [recording(16 * 60, i) for i in range(6)]}
    (all_of_it,) = gathered(held_out, 400)
    assert sorted(all_of_it.held_out_lengths) == [60] * 6
    (some,) = gathered(held_out, 250)
    assert sum(some.held_out_lengths) == len(some.held_out) == 250
    assert max(some.held_out_lengths) == STRETCH
    assert len(np.unique(some.held_out[:, 0, 0])) == 6
    ends = np.cumsum(some.held_out_lengths)
    for n, end in zip(some.held_out_lengths, ends, strict=True):
        frames = some.held_out[end - n : end, 0, 1].ravel()
        np.testing.assert_array_equal(np.diff(frames), 1)
    places = {(float(x[0, 0, 0]), float(x[0, 1, 0])) for x in some.held_out}
    assert len(places) == 250  # none twice


def test_the_choice_of_recordings_follows_from_the_seed():
    held_out = {("b1", "45"): [recording(16 * 30, i) for i in range(9)]}
    first, again, other = (gathered(held_out, 100, seed=seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.held_out, again.held_out)
    assert not np.array_equal(first.held_out, other.held_out)


def test_at_most_24_birds_and_ages_have_song_metrics_one_of_each_bird_first():
    days = [(f"b{bird}", str(age)) for bird in range(6) for age in range(20)]
    chosen = spread(days, MOST_SONGS, np.random.default_rng(0))
    assert len(chosen) == 24
    assert {sum(bird == f"b{i}" for bird, _ in chosen) for i in range(6)} == {4}
    assert chosen != spread(days, MOST_SONGS, np.random.default_rng(1))
    uneven = [("b0", str(age)) for age in range(20)] + [("b1", "9"), ("b2", "9")]
    assert {("b1", "9"), ("b2", "9")} < spread(uneven, 4, np.random.default_rng(0))


def test_birds_and_ages_without_song_metrics_hold_no_training_song(monkeypatch):
    monkeypatch.setattr(songs_module, "MOST_SONGS", 2)
    held_out = {(f"b{i}", "45"): [np.random.default_rng(i).random((640, 129), "f4")]
                for i in range(3)}  # fmt: skip
    found = gathered(held_out)
    assert sorted(len(s.training) for s in found) == [0, 40, 40]
    assert all(s.own_pca_l1 > 0 for s in found)


def test_song_metrics_go_to_birds_that_have_song_and_are_the_same_on_both_held_out_sides():
    def side(n):
        long = {(f"b{i}", "45"): [recording(16 * n)] for i in range(30)}
        short = {(f"s{i}", "45"): [recording(16 * 10)] for i in range(30)}
        return {**short, **long}

    chosen = [
        {s.bird for s in gathered(side(n), 32 * 60, training=side(40)) if s.has_song}
        for n in (30, 50)
    ]
    assert len(chosen[0]) == MOST_SONGS
    assert all(bird.startswith("b") for bird in chosen[0])
    assert chosen[0] == chosen[1]


def test_many_birds_with_short_recordings_have_song_too():
    days = {(f"b{i}", "45"): [recording(16 * 6) for _ in range(20)] for i in range(70)}
    found = gathered(days, n_held_out=2000)
    assert sum(s.has_song for s in found) == MOST_SONGS


def test_too_little_training_song_is_no_song():
    day = ("b1", "45")
    songs = gathered({day: [recording(16 * 40)]}, training={day: [recording(16 * 3)] * 60})
    assert not songs[0].has_song


def test_few_held_out_windows_are_no_song():
    def has_song(*n_snippets):
        return gathered({("b1", "45"): [recording(16 * n) for n in n_snippets]})[0].has_song

    assert [has_song(23), has_song(22), has_song(*[3] * 20), has_song(13, 13)] == [
        True, False, False, True,
    ]  # fmt: skip


def test_the_own_pca_is_that_of_scikit_learn_with_16_dimensions_clipped_at_0():
    train, valid = (x.flatten(1).double().numpy() for x in (TRAIN, VALID))
    pca = PCA(16, svd_solver="full").fit(train)
    x_hat = pca.inverse_transform(pca.transform(valid)).clip(min=0)
    songs = songs_of(VALID)
    assert songs[0].own_pca_l1 == pytest.approx(np.abs(x_hat - valid).mean(), rel=0.01)


def test_too_little_or_equal_training_song_has_no_pca():
    x = VALID.numpy()
    assert np.isnan(own_pca_l1(x[:1], x, 0))
    assert np.isnan(own_pca_l1(x[:1].repeat(9, 0), x, 0))
    assert own_pca_l1(x[:2], x, 0) > own_pca_l1(x[:100], x, 0) > 0


def test_no_held_out_recording_as_long_as_a_snippet_is_an_error():
    with pytest.raises(ValueError, match="held-out recordings of 2 birds and ages has 16 frames.*"
                                         "Give longer"):  # fmt: skip
        gathered({("b1", "45"): [recording(15)], ("b1", "46"): []})
