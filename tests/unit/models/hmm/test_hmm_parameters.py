"""Parameters as plain arrays and back, and samples of songs."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from models.hmm import covariances, fit_hmm, restored, sample_latents
from tests.helpers.hmm_songs import COVARIANCES, KINDS, LOOSE, joined, planted

PLANTED = planted()


def fit(sequences, n_states, seed=0, **changes):
    return fit_hmm(sequences, n_states, 0, seed, dataclasses.replace(LOOSE, **changes))


@pytest.mark.parametrize("n_states", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_model_scores_as_the_fitted_one(kind, n_states):
    X, lengths = joined(PLANTED)
    model = fit(PLANTED, n_states, covariance_type=kind).model
    covars = covariances(model)
    k, d = n_states, 2
    shapes = {"spherical": (k,), "diag": (k, d), "tied": (d, d), "full": (k, d, d)}
    assert covars.shape == shapes[kind]
    again = restored(model.startprob_, model.transmat_, model.means_, covars, kind)
    assert again.score(X, lengths) == pytest.approx(model.score(X, lengths), rel=1e-12)
    np.testing.assert_array_equal(again.covars_, model.covars_)
    assert again.covars_.shape == (k, d, d)


MEANS = np.array([[0.0, 0.0], [8.0, 1.0], [-3.0, 9.0]])
START = np.array([0.2, 0.3, 0.5])
TRANSITIONS = np.array([[0.6, 0.4, 0.0], [0.1, 0.7, 0.2], [0.5, 0.1, 0.4]])


def as_matrices(kind, covars):
    if kind == "spherical":
        return covars[:, None, None] * np.eye(2)
    if kind == "diag":
        return np.array([np.diag(c) for c in covars])
    return np.tile(covars, (3, 1, 1)) if kind == "tied" else covars


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_of_long_samples_are_the_models(kind):
    model = restored(START, TRANSITIONS, MEANS, COVARIANCES[kind], kind)
    z, states = sample_latents(model, 4000, seed=1)
    assert z.shape == (4000, 2)
    assert states.shape == (4000,)
    for k, matrix in enumerate(as_matrices(kind, COVARIANCES[kind])):
        own = z[states == k]
        np.testing.assert_allclose(own.mean(0), MEANS[k], atol=0.15)
        np.testing.assert_allclose(np.cov(own.T), matrix, atol=0.2)
    counts = np.zeros((3, 3))
    np.add.at(counts, (states[:-1], states[1:]), 1)
    np.testing.assert_allclose(counts / counts.sum(1, keepdims=True), TRANSITIONS, atol=0.05)
    assert counts[0, 2] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_fitted_model_is_sampled_with_the_covariances_it_was_fitted_with(kind):
    z = np.concatenate([PLANTED[0] * 0.1, 20 + 3 * PLANTED[1]])
    model = fit([z], 2, covariance_type=kind).model
    latents, states = sample_latents(model, 1500, seed=0)
    for k in range(2):
        own = latents[states == k]
        variances = np.diag(model.covars_[k])
        assert len(own) > 100
        np.testing.assert_allclose(own.var(0), variances, rtol=0.3)


def test_the_first_state_follows_the_start_probabilities():
    model = restored(START, TRANSITIONS, MEANS, COVARIANCES["diag"], "diag")
    first = [sample_latents(model, 1, seed)[1][0] for seed in range(600)]
    counts = np.bincount(first, minlength=3)
    assert stats.chisquare(counts, 600 * START).pvalue > 0.01


def test_the_same_seed_gives_the_same_sample():
    model = restored(START, TRANSITIONS, MEANS, COVARIANCES["full"], "full")
    one, two, other = (sample_latents(model, 50, seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)
