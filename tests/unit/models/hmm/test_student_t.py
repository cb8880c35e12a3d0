"""Student t emissions: densities as scipy's, EM that climbs, outliers that count little."""

import dataclasses

import numpy as np
import pytest
from hmmlearn import _hmmc
from scipy.special import logsumexp
from scipy.stats import multivariate_t

from models.hmm import HmmParams, criteria, restored, search_states
from models.hmm.em import Songs, run_em
from models.hmm.fitting import restart_fit
from models.hmm.latent_params import LatentParams
from models.hmm.predictive import occupancy, song_likelihoods
from models.hmm.simulate import simulate_latents
from models.hmm.starts import kmeans_start
from tests.helpers.hmm_songs import KINDS, LOOSE, joined, known_model, matrices

DOF = 3.5


def t_model(kind, apart=1.0):
    model = known_model(kind, apart)
    model.dof_ = DOF
    return model


def t_params(kind):
    return dataclasses.replace(LOOSE, covariance_type=kind, emissions="student_t", dof=DOF)


def songs_of(kind, lengths=(200, 90, 1, 300), seed=0):
    random_state = np.random.RandomState(seed)
    return [t_model(kind).sample(n, random_state=random_state)[0] for n in lengths]


def densities(model, X):
    """Log-densities by scipy [n_snippets, n_states]."""
    pairs = zip(model.means_, matrices(model), strict=True)
    return np.stack([np.atleast_1d(multivariate_t(m, c, df=DOF).logpdf(X)) for m, c in pairs], 1)


def posteriors_of(model, song):
    """P(state | song), and the log-likelihood, by logarithms and scipy."""
    log_densities = densities(model, song)
    total, forward = _hmmc.forward_log(model.startprob_, model.transmat_, log_densities)
    backward = _hmmc.backward_log(model.startprob_, model.transmat_, log_densities)
    joint = forward + backward
    return np.exp(joint - logsumexp(joint, axis=1, keepdims=True)), total


@pytest.mark.parametrize("kind", KINDS)
def test_log_likelihoods_are_those_of_scipys_densities(kind):
    model, sequences = t_model(kind), songs_of(kind)
    sequences[1][5] = [400.0, -300.0]  # far from all others
    expected = sum(posteriors_of(model, song)[1] for song in sequences)
    assert model.score(*joined(sequences)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("underflows", [False, True])
def test_statistics_weight_each_snippet_by_its_distance(kind, underflows, monkeypatch):
    if underflows:  # all songs are then done one by one, in logarithms
        monkeypatch.setattr("models.hmm.kernels.SMALLEST_SCALE", 1e300)
    model, sequences = t_model(kind), songs_of(kind)
    songs = Songs(sequences, kind)
    stats, log_likelihood = songs.e_step(songs.centred(model))
    post, weight, obs, expected_density, total = (
        np.zeros(3),
        np.zeros(3),
        np.zeros((3, 2)),
        0.0,
        0.0,
    )
    start = np.zeros(3)
    for song in sequences:
        gamma, one = posteriors_of(model, song)
        total += one
        apart = song[:, None] - model.means_
        squared = np.einsum("nki,kij,nkj->nk", apart, np.linalg.inv(matrices(model)), apart)
        weighted = gamma * (DOF + 2) / (DOF + squared)
        post, weight = post + gamma.sum(0), weight + weighted.sum(0)
        start = start + gamma[0]
        obs += weighted.T @ (song - songs.centre)
        expected_density += (gamma * densities(model, song)).sum()
    assert log_likelihood == pytest.approx(total, rel=1e-10)
    for name, value in (("post", post), ("weight", weight), ("obs", obs), ("start", start)):
        np.testing.assert_allclose(stats[name], value, rtol=1e-7, atol=1e-7, err_msg=name)
    assert stats["log_density"] == pytest.approx(expected_density, rel=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_em_climbs_to_the_planted_model(kind):
    params, truth = t_params(kind), t_model(kind, apart=4.0)
    random_state = np.random.RandomState(1)
    sequences = [truth.sample(2000, random_state=random_state)[0] for _ in range(5)]
    songs = Songs(sequences, kind)
    em = run_em(songs, kmeans_start(songs, 3, 0, params), params, 200)
    assert em.converged and em.is_monotone
    found = songs.uncentred(em.model)
    order = [int(np.argmin(np.square(found.means_ - m).sum(1))) for m in truth.means_]
    assert sorted(order) == [0, 1, 2]
    np.testing.assert_allclose(found.means_[order], truth.means_, atol=0.15)
    np.testing.assert_allclose(matrices(found)[order], matrices(truth), atol=0.2)


def test_hmmlearns_fit_fits_student_t_too():
    sequences = songs_of("diag", (3000,))
    model = t_model("diag")
    model.init_params, model.n_iter = "", 20
    before = model.score(*joined(sequences))
    model.fit(*joined(sequences))
    assert model.score(*joined(sequences)) > before
    assert all(np.diff(model.monitor_.history) > -1e-2)


def test_path_entropy_is_that_of_the_posteriors():
    """Of songs of one snippet the entropy of the path is that of one posterior."""
    model = t_model("full")
    sequences = [song[:1] for song in songs_of("full", (1,) * 60)]
    songs = Songs(sequences, "full")
    em = run_em(songs, songs.centred(model), t_params("full"), 0)
    gammas = np.concatenate([posteriors_of(model, song)[0] for song in sequences])
    expected = -(gammas * np.log(gammas)).sum()
    assert criteria.path_entropy(em) == pytest.approx(expected, rel=1e-6)


def test_most_probable_paths_follow_the_heavy_tails():
    sequences, model = songs_of("full"), t_model("full")
    songs = Songs(sequences, "full")
    for song, path in zip(sequences, songs.most_probable_paths(songs.centred(model)), strict=True):
        _, expected = _hmmc.viterbi(model.startprob_, model.transmat_, densities(model, song))
        np.testing.assert_array_equal(path, expected)


def test_likelihoods_of_songs_keep_the_tails():
    sequences = songs_of("diag", (300,))
    model = t_model("diag")
    found = song_likelihoods(Songs(sequences, "diag"), model)
    model.startprob_ = occupancy(model.startprob_, model.transmat_, 300)
    assert found.in_order[0] == pytest.approx(model.score(sequences[0]), rel=1e-9)


def test_heavy_tails_do_not_make_states():
    data = LatentParams(n_states=5, n_snippets=5_000, latent_dim=8, separation=0.99, t_df=4.0)
    made = simulate_latents(data, seed=0)
    gaussian = HmmParams(covariance_type="spherical", n_states=(3, 20))
    robust = dataclasses.replace(gaussian, emissions="student_t")
    assert abs(search_states(made.songs, robust, 0).n_states - 5) <= 1
    assert search_states(made.songs, gaussian, 0).n_states > 7


def test_merging_and_splitting_keep_the_tails():
    made = simulate_latents(LatentParams(n_states=4, n_snippets=1500, n_songs=10, t_df=4.0), seed=1)
    params = dataclasses.replace(t_params("diag"), n_states=(2, 8))
    found = search_states(made.songs, params, 0)
    assert {"merge path", "polish"} <= {fit.reached_by for fit in found.fits}
    assert found.model.dof_ == DOF
    assert all(fit.status in ("ok", "rough", "not_converged") for fit in found.fits)


def test_a_singular_matrix_is_reported_and_not_raised():
    songs = Songs([np.zeros((30, 2)), np.ones((30, 2))], "full")
    fit, _ = restart_fit(songs, 3, 0, 0, "grid", t_params("full"))
    assert fit.status in ("ok", "not_converged", "failed", "not_monotone")


def test_hmmlearn_cannot_do_student_t():
    with pytest.raises(ValueError, match="emissions is student_t, which hmmlearn does not know"):
        HmmParams(emissions="student_t", engine="hmmlearn")


def test_plain_arrays_bring_the_tails_back():
    model = t_model("tied")
    again = restored(
        model.startprob_, model.transmat_, model.means_, model._covars_, "tied", model.dof_
    )
    X = songs_of("tied", (50,))[0]
    assert again.score(X) == model.score(X)
