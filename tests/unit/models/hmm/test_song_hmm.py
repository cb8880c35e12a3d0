"""A song model samples what it is a model of, and knows its states."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from models.hmm import SongHmm, restored
from models.hmm.em import Songs
from models.hmm.song_hmm import innovations
from tests.helpers.hmm_songs import KINDS, known_model, matrices

# Two copies of the first state; the second copy is followed by the second state.
TRANSITIONS = np.array([[0.5, 0.0, 0.5], [0.1, 0.0, 0.9], [0.0, 0.7, 0.3]])
CARRY = np.array([[0.5, 0.2], [-0.3, 0.4]])


def two_contexts():
    means = np.array([[0.0, 0.0], [0.0, 0.0], [8.0, 0.0]])
    covariances = np.ones((3, 2))
    model = restored(np.array([0.5, 0.0, 0.5]), TRANSITIONS, means, covariances, "diag")
    return SongHmm(model, np.array([0, 0, 1]))


@pytest.mark.parametrize("kind", KINDS)
def test_sampled_songs_have_the_emissions_of_the_model(kind):
    model = known_model(kind)
    song = SongHmm.plain(model)
    (z,), (states,) = song.sample_songs([200_000], seed=1)
    for state in range(3):
        rows = z[states == state]
        np.testing.assert_allclose(rows.mean(0), model.means_[state], atol=0.03)
        np.testing.assert_allclose(np.cov(rows.T), matrices(model)[state], atol=0.05)


def test_tails_of_sampled_songs_are_those_of_student_t():
    model = restored(
        np.ones(1), np.ones((1, 1)), np.zeros((1, 2)), np.ones((1, 2)), "diag", dof=5.0
    )
    (z,), _ = SongHmm.plain(model).sample_songs([200_000], seed=1)
    # Variance dof / (dof - 2); one weight for a snippet, so that squares go together.
    np.testing.assert_allclose(z.var(0), 5 / 3, rtol=0.03)
    assert np.corrcoef(np.minimum(z**2, 50).T)[0, 1] > 0.1


def test_states_follow_one_another_as_contexts_say():
    song = two_contexts()
    _, (states,) = song.sample_songs([200_000], seed=2)
    first, second, third = states[:-2], states[1:-1], states[2:]
    # After 1 -> 0 comes 1 in nine of ten; after 0 -> 0 in one of two.
    assert third[(first == 1) & (second == 0)].mean() == pytest.approx(0.9, abs=0.01)
    assert third[(first == 0) & (second == 0)].mean() == pytest.approx(0.5, abs=0.01)


def test_songs_begin_near_the_steady_state_and_have_the_lengths_asked_for():
    song = SongHmm.plain(known_model("diag"))
    lengths = [30, 90] * 1000
    songs, states = song.sample_songs(lengths, seed=3)
    assert [len(z) for z in songs] == [len(s) for s in states] == lengths
    first = np.bincount([s[0] for s in states]) / len(states)
    third = np.bincount([s[2] for s in states]) / len(states)
    np.testing.assert_allclose(first, third, atol=0.05)


def test_a_song_that_ends_in_one_state_begins_with_the_start_probabilities():
    to_the_right = np.array([[0.9, 0.1], [0.0, 1.0]])
    model = restored(np.array([1.0, 0.0]), to_the_right, np.zeros((2, 1)), np.ones((2, 1)), "diag")
    _, states = SongHmm.plain(model).sample_songs([5] * 100, seed=0)
    assert all(s[0] == 0 for s in states)


def test_a_song_without_snippets_cannot_be_sampled():
    with pytest.raises(ValueError, match="lengths holds 0"):
        two_contexts().sample_songs([4, 0], seed=0)


def test_posteriors_of_states_are_those_of_their_contexts_together():
    song = two_contexts()
    songs, states = song.sample_songs([50, 20, 1], seed=4)
    found = song.posteriors([*songs, np.empty((0, 2))])
    assert [p.shape for p in found] == [(50, 2), (20, 2), (1, 2), (0, 2)]
    np.testing.assert_allclose(found[0].sum(1), 1)
    for s, named in zip(states, song.states(songs), strict=True):
        np.testing.assert_array_equal(named, s)  # 8 standard deviations apart
    X, lengths = np.concatenate(songs), [50, 20, 1]
    by_context = song.hmm.predict_proba(X, lengths)
    np.testing.assert_allclose(found[1][:, 0], by_context[50:70, :2].sum(1), atol=1e-9)


def test_posteriors_of_contexts_are_held_for_some_songs_at_a_time(monkeypatch):
    song = two_contexts()
    lengths = [30, 7, 90, 1, 12, 40]
    songs, _ = song.sample_songs(lengths, seed=9)
    songs.insert(2, np.empty((0, 2)))
    together = song.posteriors(songs)
    sizes, whole = [], Songs.posteriors

    def noting(self, model):
        sizes.append(self.n_snippets)
        return whole(self, model)

    monkeypatch.setattr(Songs, "posteriors", noting)
    monkeypatch.setattr("models.hmm.song_hmm.GROUP_SNIPPETS", 50, raising=False)
    apart = song.posteriors(songs)
    assert sizes == [37, 103, 40]  # by the 50 in which their last snippets are
    assert [p.shape for p in apart] == [(len(z), 2) for z in songs]
    for one, other in zip(apart, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)


def test_log_likelihoods_are_those_of_each_song():
    song = two_contexts()
    songs, _ = song.sample_songs([30, 7], seed=5)
    expected = [song.hmm.score(z) for z in songs]
    np.testing.assert_allclose(song.log_likelihoods(songs), expected, rtol=1e-10)


def test_a_carried_song_has_the_density_of_a_carried_song():
    rng = np.random.default_rng(0)
    covariance = np.array([[[1.0, 0.3], [0.3, 0.5]]])
    model = restored(np.ones(1), np.ones((1, 1)), np.array([[0.5, -1.0]]), covariance, "full")
    song = SongHmm(model, np.array([0]), CARRY)
    z = rng.standard_normal((4, 2))
    # x = C e with e normal: the density of x by the covariance of all of the song.
    root = np.eye(8) - np.kron(np.eye(4, k=-1), CARRY)
    root[:2, :2] -= CARRY
    inverse = np.linalg.inv(root)
    mean = inverse @ np.tile(model.means_[0], 4)
    whole = inverse @ np.kron(np.eye(4), covariance[0]) @ inverse.T
    expected = multivariate_normal(mean, whole).logpdf(z.ravel())
    assert song.log_likelihoods([z])[0] == pytest.approx(expected, rel=1e-10)


def test_sampled_songs_are_carried_over_from_snippet_to_snippet():
    song = SongHmm(known_model("full"), np.arange(3), CARRY)
    (z,), (states,) = song.sample_songs([100_000], seed=6)
    left = innovations([z], CARRY)[0][1:]
    for state in range(3):
        rows = left[states[1:] == state]
        np.testing.assert_allclose(rows.mean(0), song.hmm.means_[state], atol=0.03)
        np.testing.assert_allclose(np.cov(rows.T), matrices(song.hmm)[state], atol=0.05)


def test_without_memory_states_follow_one_another_as_often():
    song = two_contexts()
    _, (states,) = song.sample_songs([200_000], seed=7)
    counts = np.zeros((2, 2))
    np.add.at(counts, (states[:-1], states[1:]), 1)
    plain = song.without_memory()
    np.testing.assert_allclose(plain.transmat_, counts / counts.sum(1, keepdims=True), atol=0.01)
    np.testing.assert_array_equal(plain.means_, song.hmm.means_[[0, 2]])
    np.testing.assert_array_equal(plain.startprob_, [0.5, 0.5])


@pytest.mark.parametrize("start", [[0.9, 0.1, 0, 0, 0], [0, 0, 0, 1, 0]])
def test_without_memory_states_that_are_left_for_good_keep_their_rows(start):
    # Two copies of the first state, which no song comes back to; all songs end in the last state.
    transitions = np.array(
        [
            [0.5, 0.5, 0.0, 0.0, 0.0],
            [0.0, 0.2, 0.8, 0.0, 0.0],
            [0.0, 0.0, 0.6, 0.4, 0.0],
            [0.0, 0.0, 0.0, 0.7, 0.3],
            [0.0, 0.0, 0.0, 0.0, 1.0],
        ]
    )
    model = restored(np.array(start), transitions, np.zeros((5, 2)), np.ones((5, 2)), "diag")
    plain = SongHmm(model, np.array([0, 0, 1, 2, 3])).without_memory()
    np.testing.assert_allclose(plain.transmat_.sum(1), 1)
    np.testing.assert_allclose(plain.transmat_[1:], transitions[2:, 1:] @ np.eye(4)[[0, 1, 2, 3]])
    assert 0.2 < plain.transmat_[0, 0] < 1 and plain.transmat_[0, 1] > 0


def test_sampled_songs_are_not_all_silence_where_songs_end_in_silence():
    transitions = np.array([[0.5, 0.49, 0.01], [0.49, 0.5, 0.01], [1e-6, 1e-6, 1 - 2e-6]])
    start, means = np.array([0.5, 0.5, 0]), np.zeros((3, 1))
    model = restored(start, transitions, means, np.ones((3, 1)), "diag")
    _, states = SongHmm.plain(model).sample_songs([160] * 500, seed=8)
    # Silence follows after 100 snippets in the mean: so long a song, cut at 160, is half silence.
    expected = 1 - (1 - 0.99**160) / (0.01 * 160)
    assert np.mean(np.concatenate(states) == 2) == pytest.approx(expected, abs=0.05)
    assert not any(s[0] == 2 for s in states)
