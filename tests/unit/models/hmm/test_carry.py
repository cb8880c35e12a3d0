"""A carry that is planted is found, and its likelihoods are of the latents themselves."""

import dataclasses
import functools

import numpy as np
import pytest

from models.hmm import HmmParams, SongHmm, restored, search_with_carry
from models.hmm.carry import MOST, carry_of
from models.hmm.song_hmm import innovations

CARRY = np.array([[0.6, 0.2], [-0.3, 0.4]])
PARAMS = HmmParams(
    min_snippets=1, min_recordings=1, covariance_type="full", n_states=(1, 6),
    memory="autoregressive", n_restarts=1,
)  # fmt: skip


def planted():
    means = 5.0 * np.array([[0.0, 0.0], [1.0, 0.3], [-0.2, 1.0]])
    covariances = np.array([[[1.0, 0.5], [0.5, 1.0]], np.eye(2), 0.5 * np.eye(2)])
    transitions = np.full((3, 3), 0.1) + 0.7 * np.eye(3)
    model = restored(np.full(3, 1 / 3), transitions, means, covariances, "full")
    return SongHmm(model, np.arange(3), CARRY)


@functools.cache
def found():
    sequences, _ = planted().sample_songs([100] * 15, seed=0)
    return sequences, *search_with_carry(sequences, PARAMS, 0, new_share=0.5)


def test_a_planted_carry_is_found():
    _, _, remembered = found()
    np.testing.assert_allclose(remembered.song.carry, CARRY, atol=0.1)
    assert remembered.memory == "autoregressive"
    assert remembered.bic < remembered.plain_bic
    assert remembered.held_out_log_likelihood > remembered.plain_held_out_log_likelihood


def test_likelihoods_and_criteria_are_those_of_the_latents():
    sequences, search, remembered = found()
    best = search.selection.best
    song = SongHmm(best.model, np.arange(best.n_states), remembered.song.carry)
    total = 0.0  # with the start probabilities, as EM has them
    left = innovations(sequences, song.carry)
    for z in left:
        total += best.model.score(z) + np.log(np.linalg.det(np.eye(2) - song.carry))
    assert best.log_likelihood == pytest.approx(total, rel=1e-9)
    assert remembered.log_likelihood == pytest.approx(total, rel=1e-9)
    k = best.n_states
    n_free = (k - 1) + k * (k - 1) + 2 * k + 3 * k + 4  # the last: the carry
    assert best.n_free_params == n_free
    assert best.bic == pytest.approx(-2 * total + n_free * np.log(750), rel=1e-12)
    assert best.aic == pytest.approx(-2 * total + 2 * n_free, rel=1e-12)


def test_a_carry_never_grows():
    rng = np.random.default_rng(0)
    growing = np.cumsum(1.05 ** np.arange(80))[:, None] * rng.standard_normal((1, 2))
    model = restored(np.ones(1), np.ones((1, 1)), np.zeros((1, 2)), np.ones((1, 2)), "diag")
    carry = carry_of([growing], [growing], model)
    assert np.abs(np.linalg.eigvals(carry)).max() == pytest.approx(MOST)


def test_where_there_is_no_model_there_is_no_carry():
    few = dataclasses.replace(PARAMS, min_snippets=1000)
    search, remembered = search_with_carry([np.zeros((20, 2))] * 3, few, 0)
    assert (search.status, remembered) == ("too_few_snippets", None)
