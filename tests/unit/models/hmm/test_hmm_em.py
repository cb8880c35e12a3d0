"""EM: what it maximises, where it stops, its floors, and that it is hmmlearn's."""

import dataclasses

import numpy as np
import pytest
from hmmlearn import hmm
from scipy import stats

from models.hmm import covariances
from models.hmm import em as em_module
from models.hmm.em import TRANSITION_PRIOR, log_prior, m_step, new_model, run_em, set_covariances
from models.hmm.starts import kmeans_start, random_start
from tests.helpers.hmm_songs import (
    KINDS,
    LOOSE,
    joined,
    known_model,
    matrices,
    noise,
    planted,
    songs_of,
)


def params_of(kind, **changes):
    return dataclasses.replace(LOOSE, covariance_type=kind, **changes)


def test_songs_leave_out_empty_recordings_and_give_models_back_uncentred():
    sequences = [noise(0, 2), noise(20, 2) + 100, noise(0, 2), noise(5, 2, 1) + 100]
    songs = songs_of(sequences)
    assert (songs.lengths, songs.n_snippets, songs.latent_dim) == ([20, 5], 25, 2)
    np.testing.assert_allclose(np.median(songs.X, axis=0), 0, atol=1e-12)
    model = known_model("diag")
    back = songs.uncentred(songs.centred(model))
    np.testing.assert_allclose(back.means_, model.means_, atol=1e-12)
    X, lengths = joined(sequences)
    found = songs.log_likelihood(songs.centred(model))
    assert found == pytest.approx(model.score(X, lengths), rel=1e-12)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("lengths", [(500, 900, *[6] * 12), (2000,), (40, 3000, 2500)])
def test_some_songs_are_as_many_snippets_as_asked_for_however_long_songs_are(lengths, seed):
    # A song of 500 does not fit behind small ones: without cuts 12 snippets would be drawn.
    songs = songs_of([noise(n, 2, i) for i, n in enumerate(lengths)])
    some = songs.some(400, seed)
    assert some.n_snippets == sum(some.lengths) == min(400, max(some.lengths) * len(some.lengths))
    assert max(some.lengths) <= 200
    rows = {row.tobytes() for row in songs.X}
    assert all(row.tobytes() in rows for row in some.X)
    assert np.isfinite(some.log_likelihood(kmeans_start(some, 2, 0, params_of("diag"))))


@pytest.mark.parametrize("kind", KINDS)
def test_the_objective_never_falls(kind):
    params = params_of(kind)
    songs = songs_of([noise(60, 3, s) for s in range(4)], kind)
    for start in (kmeans_start, random_start):
        em = run_em(songs, start(songs, 7, 0, params), params, 80, tol=0)
        assert em.n_iter == 80
        assert np.diff(em.objective).min() > -1e-9 * songs.n_snippets
        assert em.is_monotone
        assert em.objective[-1] > em.objective[0] + 10
        assert em.objective[-1] == em.log_likelihood + log_prior(em.model, params)


@pytest.mark.parametrize("kind", KINDS)
def test_the_log_prior_is_what_makes_it_monotone(kind, monkeypatch):
    params = params_of(kind, covars_prior=300.0)
    songs = songs_of(planted(), kind)

    def run(n_iter):
        return run_em(songs, kmeans_start(songs, 3, 0, params), params, n_iter, tol=0)

    log_likelihoods = [run(n).log_likelihood for n in range(8)]
    assert np.diff(log_likelihoods).min() < -1
    assert np.diff(run(8).objective).min() > 0
    assert run(8).is_monotone
    monkeypatch.setattr(em_module, "log_prior", lambda *_: 0.0)
    assert not run(8).is_monotone


def test_one_fall_is_remembered(monkeypatch):
    params = params_of("diag")
    songs = songs_of([noise(60, 3, s) for s in range(4)])
    priors = iter([0.0, 0.0, -1000.0] + [-1000.0] * 20)
    monkeypatch.setattr(em_module, "log_prior", lambda *_: next(priors))
    em = run_em(songs, random_start(songs, 5, 0, params), params, 10, tol=0)
    assert np.diff(em.objective)[-1] > 0
    assert not em.is_monotone


@pytest.mark.parametrize("kind", KINDS)
def test_the_log_prior_is_that_of_dirichlet_and_wishart(kind):
    model = known_model(kind)
    found = log_prior(model, params_of(kind, covars_prior=0.7))
    positive = model.transmat_[model.transmat_ > 0]
    by_hand = 1e-3 * np.log(positive).sum()
    precisions = [np.trace(np.linalg.inv(c)) for c in matrices(model)]
    by_hand -= 0.35 * (precisions[0] if kind == "tied" else sum(precisions))
    assert found == pytest.approx(by_hand, rel=1e-12)


def their_loop(songs, start, kind, prior, n_iter):
    """hmmlearn's own class, E-step, M-step and loop."""
    matrix = kind in ("tied", "full")
    theirs = hmm.GaussianHMM(
        start.n_components, kind, init_params="", n_iter=n_iter, tol=-np.inf, covars_weight=1,
        covars_prior=prior * np.eye(songs.latent_dim) if matrix else prior,
        transmat_prior=1 + TRANSITION_PRIOR,
    )  # fmt: skip
    theirs.n_features = songs.latent_dim
    for name in ("startprob_", "transmat_", "means_", "_covars_"):
        setattr(theirs, name, np.array(getattr(start, name)))
    return theirs.fit(songs.X, songs.lengths)


@pytest.mark.parametrize("kind", KINDS)
def test_both_engines_are_hmmlearns_own_loop_from_the_same_start(kind):
    params = params_of(kind, covars_prior=0.3, min_variance=1e-9)
    sequences = [*planted(3, 40), noise(1, 2), noise(7, 2, 3)]
    fits = []
    for engine in ("ours", "hmmlearn"):
        songs = songs_of(sequences, kind, engine)
        fits.append(run_em(songs, random_start(songs, 4, 1, params), params, 15, tol=0))
    theirs = their_loop(songs, random_start(songs, 4, 1, params), kind, 0.3, 15)
    expected = theirs.score(songs.X, songs.lengths)
    for em in fits:
        assert em.n_iter == 15
        assert em.log_likelihood == pytest.approx(expected, rel=1e-10)
        for name in ("startprob_", "transmat_", "means_"):
            ours, others = getattr(em.model, name), getattr(theirs, name)
            np.testing.assert_allclose(ours, others, rtol=1e-7, atol=1e-8, err_msg=name)
        ours, others = covariances(em.model), covariances(theirs)
        np.testing.assert_allclose(ours, others, rtol=1e-7, atol=1e-8)
    assert fits[0].objective == pytest.approx(fits[1].objective, rel=1e-10)
    plain = songs.log_likelihood(fits[1].model)
    assert plain == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_no_variance_falls_below_the_floor(kind):
    params = params_of(kind, covars_prior=1e-9, min_variance=0.05)
    songs = songs_of([np.tile(planted()[0][:4], (15, 1))] * 2, kind)
    em = run_em(songs, random_start(songs, 4, 0, params), params, 30)
    eigenvalues = np.linalg.eigvalsh(matrices(em.model))
    assert eigenvalues.min() == pytest.approx(0.05, rel=1e-9)
    assert em.is_monotone


@pytest.mark.parametrize("kind", ["tied", "full"])
def test_only_directions_below_the_floor_are_lifted(kind):
    line = noise(200, 1) @ np.array([[3.0, 3.0]])
    params = params_of(kind, covars_prior=1e-9, min_variance=0.01)
    songs = songs_of([line], kind)
    em = run_em(songs, kmeans_start(songs, 1, 0, params), params, 5)
    values, vectors = np.linalg.eigh(matrices(em.model)[0])
    np.testing.assert_allclose(values, [0.01, 2 * line[:, 0].var()], rtol=1e-6)
    np.testing.assert_allclose(np.abs(vectors), np.sqrt(0.5), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_dead_state_keeps_its_parameters(kind):
    params = params_of(kind)
    songs = songs_of(planted(), kind)
    start = kmeans_start(songs, 3, 0, params)
    start.means_[1] = [1e4, -1e4]
    variances = np.array([[1.0, 1.0], [0.37, 0.37], [1.0, 1.0]])
    set_covariances(start, variances, params)
    em = run_em(songs, start, params, 10, tol=0)
    assert np.isfinite(em.objective).all()
    assert em.is_monotone
    assert em.stats["post"][1] == 0
    np.testing.assert_array_equal(em.model.means_[1], [1e4, -1e4])
    if kind != "tied":
        np.testing.assert_allclose(matrices(em.model)[1], 0.37 * np.eye(2))
    for name in ("startprob_", "transmat_", "means_", "_covars_"):
        assert np.isfinite(getattr(em.model, name)).all(), name
    np.testing.assert_allclose(em.model.transmat_.sum(1), 1)
    # The others learn as they would alone.
    assert np.abs(em.model.means_[[0, 2]]).max() < 10


def test_an_m_step_does_not_change_the_statistics():
    params = params_of("diag")
    songs = songs_of(planted())
    start = kmeans_start(songs, 3, 0, params)
    start.means_[1] = 1e4
    counts, _ = songs.e_step(start)
    before = {name: np.array(value) for name, value in counts.items()}
    m_step(start, counts, params)
    for name, value in before.items():
        np.testing.assert_array_equal(counts[name], value)


def test_iterations_that_are_used_up_are_no_convergence():
    params = params_of("diag")
    songs = songs_of([noise(100, 3, s) for s in range(3)])
    for n_iter in (1, 2, 5):
        em = run_em(songs, kmeans_start(songs, 6, 0, params), params, n_iter)
        assert (em.n_iter, em.converged) == (n_iter, False)
    theirs = hmm.GaussianHMM(6, n_iter=5, tol=1e-9, random_state=0).fit(songs.X)
    assert theirs.monitor_.converged


def test_convergence_is_a_small_last_gain_per_snippet():
    params = params_of("diag", tol=1e-4)
    songs = songs_of([noise(100, 3, s) for s in range(3)])
    em = run_em(songs, kmeans_start(songs, 6, 0, params), params, 500)
    gains = np.diff(em.objective)
    assert em.converged
    assert em.n_iter > 5
    assert gains[-1] < 1e-4 * 300
    assert gains[:-1].min() >= 1e-4 * 300
    again = run_em(songs, kmeans_start(songs, 6, 0, params), params, em.n_iter)
    assert again.converged
    short = run_em(songs, kmeans_start(songs, 6, 0, params), params, em.n_iter - 1)
    assert not short.converged


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", ["ours", "hmmlearn"])
def test_a_broken_model_has_no_log_likelihood_and_raises_nothing(kind, engine):
    songs = songs_of(planted(), kind, engine)
    model = known_model(kind)
    model.means_ = model.means_ * np.nan
    em = run_em(songs, model, params_of(kind), 5)
    assert np.isnan(em.log_likelihood)
    assert (em.objective, em.n_iter, em.converged) == ([], 0, False)
    assert np.isnan(songs.log_likelihood(model))


@pytest.mark.parametrize("kind", ["tied", "full"])
def test_a_matrix_that_is_no_covariance_has_no_log_likelihood(kind):
    songs = songs_of(planted(), kind)
    model = known_model(kind)
    model._covars_ = model._covars_ * -1.0
    assert np.isnan(run_em(songs, model, params_of(kind), 5).log_likelihood)
    assert np.isnan(songs.log_likelihood(model))


def test_posteriors_and_snippet_log_likelihoods_are_hmmlearns():
    songs = songs_of(planted(3, 30))
    model = songs.centred(known_model("diag"))
    plain = em_module._plain(model)
    expected = plain.predict_proba(songs.X, songs.lengths)
    np.testing.assert_allclose(songs.posteriors(model), expected, atol=1e-10)
    each = songs.snippet_log_likelihoods(model)
    assert each.sum() == pytest.approx(plain.score(songs.X, songs.lengths), rel=1e-12)
    first = np.log(np.sum([
        p * stats.multivariate_normal.pdf(songs.X[30], m, np.diag(v))
        for p, m, v in zip(model.startprob_, model.means_, model._covars_, strict=True)
    ]))  # fmt: skip
    assert each[30] == pytest.approx(first)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_model_adds_its_prior_to_variances_alone(kind):
    prior = new_model(3, 2, params_of(kind, covars_prior=0.5)).covars_prior
    expected = 0.5 * np.eye(2) if kind in ("tied", "full") else 0.5
    np.testing.assert_array_equal(prior, expected)
