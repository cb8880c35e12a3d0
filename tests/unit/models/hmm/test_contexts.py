"""States remember what the songs remember, and nothing where there is nothing to remember."""

import dataclasses
import math

import numpy as np
import pytest

from models.checks.statistics import order_information
from models.hmm import HmmParams, add_memory, restored, search_states
from models.hmm.contexts import _HeldOut
from models.hmm.em import Songs
from models.hmm.grouping import grouped
from models.hmm.latent_params import LatentParams
from models.hmm.simulate import simulate_latents, state_paths
from tests.helpers.hmm_songs import KINDS, joined, known_model

PARAMS = HmmParams(min_snippets=1, min_recordings=1, covariance_type="diag")
MEANS = 9.0 * np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def songs_of(transitions, n_songs=40, length=60, seed=0):
    """Songs of states 9 standard deviations apart, of a chain of any order, and their states."""
    rng = np.random.default_rng(seed)
    k = transitions.shape[-1]
    starts = np.ones(transitions.size // k)
    paths = state_paths(transitions, starts, np.full(n_songs, length), rng).reshape(n_songs, length)
    return [MEANS[:k][p] + rng.standard_normal((length, 2)) for p in paths], paths


def model_of(paths, k=3):
    """The model of first order of these states."""
    counts = np.full((k, k), 1e-3)
    for path in paths:
        np.add.at(counts, (path[:-1], path[1:]), 1)
    transitions = counts / counts.sum(1, keepdims=True)
    return restored(np.full(k, 1 / k), transitions, MEANS[:k], np.ones((k, 2)), "diag")


def alternating():
    """After 0 comes 1 where 2 was before it, and 2 where 1 was; nine times of ten."""
    transitions = np.zeros((3, 3, 3))
    transitions[:, 1:] = [1.0, 0.0, 0.0]
    transitions[0, 0] = [0.0, 0.5, 0.5]
    transitions[1, 0] = [0.0, 0.1, 0.9]
    transitions[2, 0] = [0.0, 0.9, 0.1]
    return transitions


def remembered(memory="auto"):
    sequences, paths = songs_of(alternating())
    model, params = model_of(paths), dataclasses.replace(PARAMS, memory=memory)
    return sequences, model, add_memory(sequences, model, params, 0)


def test_a_state_is_doubled_whose_past_tells_what_follows():
    sequences, model, found = remembered()
    song = found.song
    assert found.memory == "context"
    np.testing.assert_array_equal(song.state_of, [0, 0, 1, 2])
    one, two = song.hmm.transmat_[:2, 2]
    assert sorted([one, two]) == pytest.approx([0.1, 0.9], abs=0.03)
    # ln 2 less the entropy of 0.1 and 0.9, at every second snippet; by counting on the states.
    gain = 0.5 * (math.log(2) + 0.1 * math.log(0.1) + 0.9 * math.log(0.9))
    assert found.held_out_log_likelihood - found.plain_held_out_log_likelihood == pytest.approx(
        gain, abs=0.03
    )
    assert found.plain_bic - found.bic == pytest.approx(2 * gain * 2400, rel=0.1)
    np.testing.assert_array_equal(song.hmm.means_, model.means_[song.state_of])


def test_sampled_songs_remember_as_the_real_ones_do():
    _, _, found = remembered()
    _, (states,) = found.song.sample_songs([20_000], seed=0)
    before, middle, after = states[:-2], states[1:-1], states[2:]
    assert (after[(middle == 0) & (before == 1)] == 2).mean() == pytest.approx(0.9, abs=0.03)


def test_bic_counts_the_transitions_of_contexts_and_emissions_once():
    sequences, _, found = remembered()
    # Starts 2, means and variances 12; of four rows, those of the copies of 0 have two transitions;
    # one context more than states.
    assert found.n_free_params == 2 + 12 + 2 + 1
    expected = -2 * found.log_likelihood + found.n_free_params * math.log(2400)
    assert found.bic == pytest.approx(expected, rel=1e-12)
    own = found.song.hmm.score(*joined(sequences))
    assert found.log_likelihood == pytest.approx(own, rel=1e-9)


def test_what_snippets_share_does_not_count_twice():
    sequences, paths = songs_of(alternating())
    found = add_memory(sequences, model_of(paths), PARAMS, 0, new_share=0.25)
    expected = -2 * found.log_likelihood + found.n_free_params * math.log(600)
    assert found.bic == pytest.approx(expected, rel=1e-12)


def test_contexts_reach_three_snippets_back():
    """0 0 0 0 1 over and over: only who knows three before knows when 1 comes."""
    rng = np.random.default_rng(0)
    paths = [np.roll(np.tile([0, 0, 0, 0, 1], 12), shift) for shift in rng.integers(0, 5, 40)]
    sequences = [MEANS[p] + rng.standard_normal((60, 2)) for p in paths]
    found = add_memory(sequences, model_of(paths, 2), PARAMS, 0)
    assert found.memory == "context"
    _, (states,) = found.song.sample_songs([4000], seed=0)
    gaps = np.diff(np.flatnonzero(states == 1))
    assert (gaps == 5).mean() > 0.95


def second_order(memory="auto"):
    """Songs of second order, 50 snippets for each row of their transitions, and their memory."""
    made = simulate_latents(LatentParams(n_states=10, order=2, separation=0.97), 0)
    params = dataclasses.replace(PARAMS, covariance_type="spherical", memory=memory)
    return made.songs, add_memory(made.songs, made.model, params, 0)


def test_sampled_songs_of_second_order_hold_what_the_real_ones_do():
    songs, found = second_order()
    assert found.bic < found.plain_bic
    real = order_information(found.song.states(songs))
    _, sampled = found.song.sample_songs([len(song) for song in songs] * 4, seed=0)
    assert order_information(sampled) == pytest.approx(real, rel=0.1)


def test_how_many_contexts_there_are_is_for_held_out_songs_to_say(monkeypatch):
    n_contexts = []
    for sign in (-1, 1):
        monkeypatch.setattr(_HeldOut, "nats", lambda self, chain, s=sign: s * len(chain.state_of))
        n_contexts.append(second_order("context")[1].song.n_contexts)
    assert 10 < n_contexts[0] < n_contexts[1] / 2


def test_the_model_stays_as_it_is_where_contexts_vanish_with_the_held_out_songs(monkeypatch):
    chain = np.array([[0.1, 0.5, 0.4], [0.6, 0.2, 0.2], [0.3, 0.3, 0.4]])
    sequences, paths = songs_of(chain)
    model = model_of(paths[:2])  # EM would move it
    monkeypatch.setattr(_HeldOut, "worths", lambda self: {(1.0, 1): math.inf})
    found = add_memory(sequences, model, PARAMS, 0)
    assert found.memory == "none"
    np.testing.assert_array_equal(found.song.hmm.transmat_, model.transmat_)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("accuracy", [0.99, 0.86])
def test_songs_of_first_order_get_no_memory(seed, accuracy):
    made = simulate_latents(
        LatentParams(n_states=6, n_snippets=4_000, separation=accuracy, latent_dim=4), seed
    )
    params = dataclasses.replace(PARAMS, n_states=(3, 12), covariance_type="spherical")
    model = search_states(made.songs, params, seed).model
    found = add_memory(made.songs, model, params, seed)
    assert (found.memory, found.song.n_contexts) == ("none", model.n_components)
    np.testing.assert_allclose(found.song.hmm.transmat_, model.transmat_)


def test_without_memory_the_model_stays_as_it_is():
    _, model, found = remembered("none")
    assert found.memory == "none" and math.isnan(found.held_out_log_likelihood)
    np.testing.assert_array_equal(found.song.hmm.transmat_, model.transmat_)
    assert found.bic == found.plain_bic


def test_without_recordings_to_hold_out_bic_decides_alone():
    sequences, paths = songs_of(alternating(), n_songs=2, length=600)
    params = dataclasses.replace(PARAMS, held_out_fraction=0.0)
    found = add_memory([*sequences, np.empty((0, 2))], model_of(paths), params, 0)
    assert found.memory == "context" and math.isnan(found.held_out_log_likelihood)


def test_contexts_that_held_out_songs_speak_against_are_not_taken_unless_asked_for(monkeypatch):
    monkeypatch.setattr(_HeldOut, "nats", lambda self, chain: -len(chain.state_of))
    assert remembered("auto")[2].memory == "none"
    assert remembered("context")[2].memory == "context"


def test_an_autoregressive_model_is_not_made_of_a_finished_one():
    with pytest.raises(ValueError, match="search_with_carry"):
        remembered("autoregressive")


# Groups


def test_pasts_that_the_same_states_follow_are_one_group():
    counts = np.array([[90.0, 10], [20, 80], [88, 12], [0, 0], [1, 0], [25, 75], [1000, 100]])
    np.testing.assert_array_equal(grouped(counts, 400), [0, 1, 0, 0, 0, 1, 0])


def test_a_difference_that_chance_makes_is_no_group():
    rng = np.random.default_rng(0)
    for _ in range(30):
        assert grouped(rng.multinomial(100, [0.5, 0.3, 0.2], 8).astype(float), 800).max() == 0


# Paths


@pytest.mark.parametrize("kind", KINDS)
def test_most_probable_paths_are_those_of_hmmlearn(kind):
    model = known_model(kind, apart=0.5)
    lengths = [40, 1, 300, 40]
    rng = np.random.default_rng(0)
    sequences = [model.sample(n, random_state=rng.integers(1000))[0] for n in lengths]
    sequences[1] += 500  # far from all others
    songs = Songs(sequences, kind)
    found = songs.most_probable_paths(songs.centred(model))
    np.testing.assert_array_equal(
        np.concatenate(found), model.predict(np.concatenate(sequences), lengths)
    )
