"""The sequence model by a fixed recipe, on songs of a model that is known."""

import numpy as np
import pytest

from models.metrics.sequence_model import (
    FLOOR,
    SequenceModel,
    fit_sequence_model,
    leaning,
    n_components,
    steady_state,
)

MOVES = np.array([[0.0, 1.0, 0.0], [0.1, 0.1, 0.8], [0.9, 0.0, 0.1]])
MEANS = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
COVARIANCES = np.array(
    [[[0.5, 0.4], [0.4, 0.5]], [[0.2, 0.0], [0.0, 1.0]], [[1.0, -0.8], [-0.8, 1.0]]]
)
TRUE = SequenceModel(steady_state(MOVES), MOVES, MEANS, np.linalg.cholesky(COVARIANCES))


def moments(z):
    """Covariances [2 d, 2 d] of two consecutive latents of songs [n_songs, length, d]."""
    pairs = np.concatenate([z[:, :-1], z[:, 1:]], axis=2)
    return np.cov(pairs.reshape(-1, pairs.shape[2]), rowvar=False)


def test_the_steady_state_stays_as_it_is():
    shares = steady_state(MOVES)
    np.testing.assert_allclose(shares @ MOVES, shares)
    assert shares.sum() == pytest.approx(1)


def test_songs_of_a_model_have_its_shares_moves_and_shapes():
    z = TRUE.sample(4000, 5, np.random.default_rng(0)).reshape(4000, 5, 2)
    states = np.argmin(np.square(z[:, :, None] - MEANS).sum(3), axis=2)
    for i in range(5):  # from the first snippet on
        shares = np.bincount(states[:, i], minlength=3) / 4000
        np.testing.assert_allclose(shares, TRUE.start, atol=0.03)
    counts = np.zeros((3, 3))
    np.add.at(counts, (states[:, :-1].ravel(), states[:, 1:].ravel()), 1)
    np.testing.assert_allclose(counts / counts.sum(1, keepdims=True), MOVES, atol=0.03)
    for i in range(3):
        np.testing.assert_allclose(np.cov(z[states == i].T), COVARIANCES[i], atol=0.08)


def test_songs_of_the_fitted_model_are_like_those_it_was_fitted_to():
    z = TRUE.sample(40, 20, np.random.default_rng(1))
    model = fit_sequence_model(z, [20] * 40, seed=0)
    assert len(model.start) == 13
    songs = model.sample(2000, 5, np.random.default_rng(2)).reshape(2000, 5, 2)
    true = TRUE.sample(2000, 5, np.random.default_rng(3)).reshape(2000, 5, 2)
    np.testing.assert_allclose(songs.mean((0, 1)), true.mean((0, 1)), atol=0.3)
    np.testing.assert_allclose(moments(songs), moments(true), atol=0.8)
    assert abs(moments(true)[:2, 2:]).max() > 2  # the order counts


def test_a_component_of_few_snippets_has_nearly_the_mean_shape():
    shrunk = leaning(COVARIANCES, np.array([2e6, 2e6, 2.0]))
    mean = (COVARIANCES[0] + COVARIANCES[1]) / 2
    np.testing.assert_allclose(shrunk[:2], COVARIANCES[:2], atol=1e-4)
    np.testing.assert_allclose(shrunk[2], mean + 2 / 22 * (COVARIANCES[2] - mean), atol=1e-4)


def test_the_end_of_a_recording_is_followed_by_nothing():
    a, b = np.zeros((10, 1)), np.full((10, 1), 5.0)
    z = np.concatenate([a, b]) + np.random.default_rng(0).normal(0, 0.1, (20, 1))
    joined = fit_sequence_model(z, [20], seed=0)
    apart = fit_sequence_model(z, [10, 10], seed=0)
    first = int(np.argmin(joined.means))
    # One move in 11, beside the one that is added by half.
    assert joined.transitions[first, 1 - first] == pytest.approx(1.5 / 11)
    assert apart.transitions[first, 1 - first] == pytest.approx(0.5 / 10)


def test_components_grow_with_the_root_of_the_snippets_and_shrink_with_the_dimensions():
    found = [n_components(n, d) for n, d in ((1, 64), (375, 16), (1500, 16), (1500, 8), (1500, 32))]
    assert found == [1, 7, 14, 16, 9]


def test_latents_that_are_all_equal_give_a_model_of_them():
    model = fit_sequence_model(np.ones((90, 2)), [90], seed=0)
    z = model.sample(100, 4, np.random.default_rng(0))
    np.testing.assert_allclose(z.mean(0), 1, atol=0.02)
    np.testing.assert_allclose(z.var(0), FLOOR, rtol=0.3)


def test_the_same_seed_gives_the_same_model_and_songs():
    z = np.random.default_rng(0).standard_normal((300, 4))
    a, b = (fit_sequence_model(z, [100, 200], seed=3) for _ in range(2))
    songs = [m.sample(3, 5, np.random.default_rng(1)) for m in (a, b)]
    np.testing.assert_array_equal(*songs)
