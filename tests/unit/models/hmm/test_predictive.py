"""Predictive information against enumeration, against a chain that is known, and of no order."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from models.hmm import HmmParams, restored, search_states
from models.hmm.predictive import occupancy, song_likelihoods, stationary_probs
from tests.helpers.hmm_songs import KINDS, known_model, matrices, songs_of, sung

TRANSITIONS = np.array([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.7, 0.1, 0.2]])
MEANS = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])  # never mistaken for each other


def stationary(transitions):
    """By many steps."""
    return np.linalg.matrix_power(transitions, 1000)[0]


def anywhere(model, mean_length):
    """Shares of states in songs that end after each snippet with probability 1 / mean_length."""
    alive, share, total = 1.0, model.startprob_, 0.0
    for _ in range(1000):
        total = total + alive * share
        alive, share = alive * (1 - 1 / mean_length), share @ model.transmat_
    return total / total.sum()


def enumerated(model, song, start):
    """Log-likelihoods of a short song, in order and ignoring it, over all paths of states."""
    density = np.array(
        [[multivariate_normal.pdf(x, m, c) for m, c in zip(model.means_, matrices(model),
                                                           strict=True)] for x in song]
    )  # fmt: skip
    total = 0.0
    for path in itertools.product(range(3), repeat=len(song)):
        p = start[path[0]] * density[0, path[0]]
        for t in range(1, len(song)):
            p *= model.transmat_[path[t - 1], path[t]] * density[t, path[t]]
        total += p
    return math.log(total), np.log(density @ start).sum()


@pytest.mark.parametrize("kind", KINDS)
def test_both_likelihoods_are_those_of_all_paths_of_states(kind):
    model = known_model(kind)
    rng = np.random.default_rng(1)
    songs = [rng.normal(0, 2, (4, 2)), rng.normal(0, 2, (6, 2))]
    found = song_likelihoods(songs_of(songs, kind), model)
    expected = np.array([enumerated(model, song, anywhere(model, 5)) for song in songs])
    np.testing.assert_allclose(found.in_order, expected[:, 0], rtol=1e-10)
    np.testing.assert_allclose(found.order_ignored, expected[:, 1], rtol=1e-10)
    np.testing.assert_array_equal(found.lengths, [4, 6])
    assert found.per_snippet == pytest.approx(expected[:, 0].sum() / 10)
    bits = (expected[:, 0] - expected[:, 1]).sum() / 10 / math.log(2)
    assert found.predictive_information == pytest.approx(bits)


def test_a_song_that_begins_where_no_fitted_one_did_is_not_impossible():
    transitions = np.array([[0.5, 0.5], [0.5, 0.5]])
    model = restored(np.array([1.0, 0.0]), transitions, 50 * np.eye(2), np.ones((2, 2)), "diag")
    found = song_likelihoods(songs_of([50 * np.eye(2)[[1, 0, 1]]]), model)
    # One of three snippets begins a song, in the first state; the second has half of the others.
    by_hand = -math.log(2 * math.pi) + (math.log(1 / 3) + 2 * math.log(1 / 2)) / 3
    assert found.per_snippet == pytest.approx(by_hand)


def test_where_states_are_plain_to_see_it_is_entropy_less_entropy_rate():
    rng = np.random.default_rng(2)
    songs = [sung(MEANS, TRANSITIONS, 400, rng) for _ in range(20)]
    model = restored(stationary(TRANSITIONS), TRANSITIONS, MEANS, np.ones((3, 2)), "diag")
    shares = stationary(TRANSITIONS)
    entropy = -(shares * np.log2(shares)).sum()
    rate = -(shares[:, None] * TRANSITIONS * np.log2(TRANSITIONS)).sum()
    found = song_likelihoods(songs_of(songs), model).predictive_information
    assert found == pytest.approx(entropy - rate, abs=0.03)


def test_a_model_of_shuffled_songs_finds_none():
    rng = np.random.default_rng(3)
    in_order = [sung(MEANS, TRANSITIONS, 200, rng) for _ in range(12)]
    shuffled = [rng.permutation(song) for song in in_order]
    params = HmmParams(n_states=(2, 6), min_snippets=1)

    def held_out_information(songs):
        model = search_states(songs[:8], params, 0).model
        return song_likelihoods(songs_of(songs[8:]), model).predictive_information

    assert held_out_information(in_order) > 0.5
    assert abs(held_out_information(shuffled)) < 0.02


def test_stationary_probabilities_are_those_after_many_steps():
    rng = np.random.default_rng(4)
    transitions = rng.dirichlet(np.full(7, 0.3), 7)
    np.testing.assert_allclose(stationary_probs(transitions), stationary(transitions), atol=1e-9)


def test_states_that_are_left_for_good_have_none():
    transitions = np.array([[0.5, 0.5, 0.0], [0.0, 0.2, 0.8], [0.0, 0.6, 0.4]])
    np.testing.assert_allclose(stationary_probs(transitions), [0, 3 / 7, 4 / 7], atol=1e-12)


def test_songs_that_mix_fast_are_nearly_in_the_steady_state():
    found = occupancy(np.array([1.0, 0, 0]), TRANSITIONS, 200)
    np.testing.assert_allclose(found, stationary(TRANSITIONS), atol=0.01)


def test_songs_of_one_snippet_may_be_of_a_state_that_no_song_began_in():
    assert occupancy(np.array([1.0, 0, 0]), TRANSITIONS, 1.0).min() > 0


def test_states_at_the_end_of_songs_count_as_often_as_they_are_sung():
    start = np.array([1.0, 0, 0])
    to_silence = np.array([[0.5, 0.48, 0.02], [0.48, 0.5, 0.02], [1e-6, 1e-6, 1 - 2e-6]])
    assert stationary_probs(to_silence)[2] > 0.999
    # A song reaches the end with probability 0.02 (1 - 1/100) at each snippet, or ends before.
    assert occupancy(start, to_silence, 100)[2] == pytest.approx(0.0198 / 0.0298, abs=1e-3)


def test_silence_at_the_ends_of_recordings_tells_no_more_than_the_entropy_of_states():
    rng = np.random.default_rng(5)
    silent = [9.0, 9.0] + 1e-3 * rng.standard_normal((40, 60, 2))
    songs = [np.concatenate([sung(MEANS, TRANSITIONS, 100, rng), tail]) for tail in silent]
    found = search_states(songs, HmmParams(n_states=(2, 6), min_snippets=1), 0)
    assert stationary_probs(found.model.transmat_).max() > 0.99  # the tail
    information = song_likelihoods(songs_of(songs), found.model).predictive_information
    assert 0 < information < np.log2(found.model.n_components)
