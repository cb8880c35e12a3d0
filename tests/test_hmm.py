"""HMM fits against hmmlearn, planted truths and data that must not break them."""

import dataclasses
import math
from typing import get_args

import numpy as np
import pytest
from hmmlearn.hmm import GaussianHMM
from scipy import stats

from models import hmm
from models.hmm import (
    CovarianceType,
    HmmFit,
    HmmParams,
    covariances,
    fit_hmm,
    n_free_params,
    restored,
    sample_latents,
    select_by_bic,
    too_few,
)

KINDS = get_args(CovarianceType)
LOOSE = HmmParams(min_snippets_per_state=1)


@pytest.fixture(autouse=True)
def quiet(caplog):
    """hmmlearn warns by logging; what it says is checked through status and reason."""
    caplog.set_level("CRITICAL", logger="hmmlearn")


def planted(n_sequences=6, length=60, seed=0, spread=1.0):
    """Sequences of a 3-state model, states 6 standard deviations apart."""
    rng = np.random.default_rng(seed)
    transitions = np.array([[0.7, 0.25, 0.05], [0.05, 0.7, 0.25], [0.25, 0.05, 0.7]])
    means = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    sequences = []
    for _ in range(n_sequences):
        states = [rng.integers(3)]
        while len(states) < length:
            states.append(rng.choice(3, p=transitions[states[-1]]))
        sequences.append(means[states] + spread * rng.standard_normal((length, 2)))
    return sequences


PLANTED = planted()


def fit(sequences, n_states, seed=0, **changes):
    return fit_hmm(sequences, n_states, 0, seed, dataclasses.replace(LOOSE, **changes))


def joined(sequences):
    return np.concatenate(sequences), [len(s) for s in sequences]


# Counts and criteria


@pytest.mark.parametrize(
    ("n_states", "latent_dim", "kind", "by_hand"),
    [
        # start + transitions + means + covariances
        (1, 1, "diag", 0 + 0 + 1 + 1),
        (3, 2, "spherical", 2 + 6 + 6 + 3),
        (3, 2, "diag", 2 + 6 + 6 + 6),
        (3, 2, "tied", 2 + 6 + 6 + 3),
        (3, 2, "full", 2 + 6 + 6 + 9),
        (10, 16, "spherical", 9 + 90 + 160 + 10),
        (10, 16, "diag", 9 + 90 + 160 + 160),
        (10, 16, "tied", 9 + 90 + 160 + 136),
        (10, 16, "full", 9 + 90 + 160 + 1360),
    ],
)
def test_free_parameters_are_those_of_a_hand_made_table_and_of_hmmlearn(
    n_states, latent_dim, kind, by_hand
):
    model = GaussianHMM(n_states, kind)
    model.n_features = latent_dim
    assert n_free_params(n_states, latent_dim, kind) == by_hand
    assert sum(model._get_n_fit_scalars_per_param().values()) == by_hand


@pytest.mark.parametrize("kind", KINDS)
def test_bic_and_aic_are_hmmlearns(kind):
    X, lengths = joined(PLANTED)
    found = fit(PLANTED, 3, covariance_type=kind)
    assert found.status == "ok"
    assert found.log_likelihood == pytest.approx(found.model.score(X, lengths), rel=1e-12)
    assert found.bic == pytest.approx(found.model.bic(X, lengths), rel=1e-12)
    assert found.aic == pytest.approx(found.model.aic(X, lengths), rel=1e-12)
    assert found.n_observations == 360


def test_the_log_likelihood_is_that_of_the_model_by_hand():
    found = fit([PLANTED[0][:4]], 1, covariance_type="diag")
    mean, variance = found.model.means_[0], covariances(found.model)[0]
    expected = stats.norm.logpdf(PLANTED[0][:4], mean, np.sqrt(variance)).sum()
    assert found.log_likelihood == pytest.approx(expected, rel=1e-12)


# Grid


def test_numbers_of_states_are_sorted_as_numbers():
    assert HmmParams(n_states=(100, 5, 20, 5)).n_states == (5, 20, 100)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_states": ()}, r"n_states is \[\]: give at least one"),
        ({"n_states": (0, 5)}, r"n_states is \[0, 5\]"),
        ({"covariance_type": "round"}, "'round': choose one of spherical, diag, tied, full"),
        ({"n_restarts": 0}, "n_restarts is 0: it must be 1 or more"),
        ({"tol": 0.0}, "tol is 0.0: it must be above 0"),
        ({"covars_prior": math.nan}, "covars_prior is nan: it must be above 0"),
    ],
)
def test_errors_name_the_value_and_the_remedy(changes, words):
    with pytest.raises(ValueError, match=words):
        HmmParams(**changes)


@pytest.mark.parametrize(
    ("lengths", "reason"),
    [
        ([100, 99], "199 snippets, 200 needed (hmm.min_snippets)"),
        ([500], "1 recordings, 2 needed (hmm.min_recordings)"),
        ([], "0 snippets, 200 needed (hmm.min_snippets)"),
        ([100, 100], ""),
    ],
)
def test_too_few_snippets_or_recordings_are_said(lengths, reason):
    assert too_few(lengths, HmmParams()) == reason


def test_a_number_of_states_that_the_data_cannot_carry_is_skipped():
    params = HmmParams(min_snippets_per_state=100)
    skipped = fit_hmm(PLANTED, 4, 2, 0, params)
    assert (skipped.status, skipped.restart, skipped.model) == ("skipped", 2, None)
    assert skipped.reason == "360 snippets leave fewer than 100 a state"
    assert fit_hmm(PLANTED, 3, 0, 0, params).status == "ok"


# Restarts


def test_restarts_with_different_seeds_differ():
    rng = np.random.default_rng(0)
    sequences = [rng.standard_normal((100, 3)) for _ in range(3)]
    found = {fit(sequences, 6, seed).log_likelihood for seed in range(4)}
    assert len(found) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_bytes(kind):
    np.random.seed(1)  # noqa: NPY002
    one = fit(PLANTED, 4, 7, covariance_type=kind)
    np.random.seed(2)  # noqa: NPY002
    two = fit(PLANTED, 4, 7, covariance_type=kind)
    assert one.log_likelihood == two.log_likelihood
    for name in ("startprob_", "transmat_", "means_", "covars_"):
        assert getattr(one.model, name).tobytes() == getattr(two.model, name).tobytes(), name


# EM


@pytest.mark.parametrize("kind", KINDS)
def test_bic_recovers_the_planted_number_of_states(kind):
    fits = [fit(PLANTED, k, covariance_type=kind) for k in (5, 1, 4, 2, 3)]
    assert {f.status for f in fits} == {"ok"}
    selection = select_by_bic(fits)
    assert (selection.best.n_states, selection.edge) == (3, "")
    assert selection.best.bic == min(f.bic for f in fits)
    assert selection.runner_up in (2, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_finds_the_planted_parameters(kind):
    model = fit(planted(n_sequences=20), 3, covariance_type=kind).model
    order = np.argsort(model.means_ @ [1, 2])
    np.testing.assert_allclose(model.means_[order], [[0, 0], [6, 0], [0, 6]], atol=0.25)
    transitions = [[0.7, 0.25, 0.05], [0.05, 0.7, 0.25], [0.25, 0.05, 0.7]]
    np.testing.assert_allclose(model.transmat_[np.ix_(order, order)], transitions, atol=0.07)
    np.testing.assert_allclose(model.covars_, np.tile(np.eye(2), (3, 1, 1)), atol=0.25)


@pytest.mark.parametrize("kind", KINDS)
def test_em_starts_from_k_means_with_the_spread_within_clusters(kind):
    X = np.concatenate(PLANTED)
    params = dataclasses.replace(LOOSE, covariance_type=kind)
    model = hmm._started_hmm(X, 3, 0, params)
    order = np.argsort(model.means_ @ [1, 2])
    np.testing.assert_allclose(model.means_[order], [[0, 0], [6, 0], [0, 6]], atol=0.4)
    np.testing.assert_allclose(model.covars_, np.tile(np.eye(2), (3, 1, 1)), atol=0.2)
    assert (X.var(0) > 5).all()


def test_iterations_that_are_used_up_are_no_convergence():
    rng = np.random.default_rng(0)
    sequences = [rng.standard_normal((100, 3)) for _ in range(3)]
    for n_iter in (1, 2, 5):
        short = fit(sequences, 6, n_iter=n_iter)
        assert (short.status, short.converged, short.n_iter) == ("not_converged", False, n_iter)
        assert short.reason == f"{n_iter} iterations used up"
        assert math.isfinite(short.bic)
    long = fit(sequences, 6)
    assert (long.status, long.converged, long.reason) == ("ok", True, "")
    assert 5 < long.n_iter < 200
    gain = np.diff(list(long.model.monitor_.history))[-1]
    assert 0 <= gain < 1e-4 * 300


def test_a_convergence_in_the_last_iteration_counts():
    n_iter = fit(PLANTED, 3).n_iter
    assert fit(PLANTED, 3, n_iter=n_iter).status == "ok"
    assert fit(PLANTED, 3, n_iter=n_iter - 1).status == "not_converged"


def test_the_tolerance_is_per_snippet():
    history = [-100.0, -99.0]
    assert hmm._has_converged(history, tol=1.1)
    assert not hmm._has_converged(history, tol=0.9)
    assert not hmm._has_converged([-99.0, -100.0], tol=0.9)
    assert not hmm._has_converged([-99.0], tol=1.1)
    assert fit(PLANTED, 3).model.tol == pytest.approx(1e-4 * 360)


def test_a_likelihood_that_falls_is_no_convergence_and_is_said():
    found = fit(PLANTED, 3, covars_prior=1e4)
    assert (found.status, found.converged) == ("not_converged", False)
    assert found.n_iter < 200
    expected = f"log-likelihood fell in iteration {found.n_iter}: lower hmm.covars_prior"
    assert found.reason == expected


def test_the_prior_holds_variances_above_0():
    copies = [np.tile(PLANTED[0][:3], (30, 1))] * 2
    for kind in KINDS:
        found = fit(copies, 3, covariance_type=kind)
        variances = np.diagonal(found.model.covars_, axis1=1, axis2=2)
        assert found.status == "ok"
        # covars_prior / snippets of the state; tied: of all.
        assert variances.min() == pytest.approx(1e-2 / (180 if kind == "tied" else 60), rel=0.05)


def test_a_prior_on_full_covariances_adds_no_correlation():
    copies = [np.tile(PLANTED[0][:3], (30, 1))] * 2
    for kind in ("tied", "full"):
        covars = fit(copies, 3, covariance_type=kind).model.covars_
        assert np.abs(covars[:, 0, 1]).max() < 1e-3 * covars[:, 0, 0].min()


# Data that must not break a fit


def noise(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def with_outlier(size):
    z = noise(300, 32)
    z[17] = size
    return z


BROKEN = {
    "NaN": ([np.where(np.arange(300)[:, None] == 5, np.nan, noise(300, 2))], "not finite"),
    "infinity": ([np.where(np.arange(300)[:, None] == 5, np.inf, noise(300, 2))], "not finite"),
    "beyond float64 when squared": ([with_outlier(1e200)], "nan|positive-definite|infinity"),
    "fewer snippets than states": ([noise(3, 2)], "3 snippets leave fewer than 1 a state"),
    "no snippet": ([noise(0, 2)], "0 snippets leave fewer"),
}
ODD = {
    "constant": [np.ones((100, 2))] * 3,
    "two values": [np.repeat(noise(2, 2), 150, axis=0)],
    "length 1": [noise(1, 2, seed) for seed in range(30)],
    "one of length 1": [noise(300, 2), noise(1, 2, 1)],
    "one without snippets": [noise(300, 2), noise(0, 2)],
    "an outlier": [with_outlier(1e3)],
    "a huge outlier": [with_outlier(1e6)],
    "float32": [noise(300, 2).astype(np.float32)],
    "far from 0": [noise(300, 2) + 1e3],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_fitted_gets_a_status_and_a_reason(case, kind):
    sequences, words = BROKEN[case]
    found = fit(sequences, 5, covariance_type=kind)
    assert found.status in ("failed", "skipped")
    assert any(word in found.reason for word in words.split("|")), found.reason
    assert found.model is None
    assert not found.converged
    assert np.isnan([found.log_likelihood, found.bic, found.aic]).all()
    assert select_by_bic([found]) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ODD)
def test_odd_data_are_fitted_without_a_nan(case, kind):
    found = fit(ODD[case], 5, covariance_type=kind)
    assert (found.status, found.reason) == ("ok", "")
    assert found.n_observations == sum(map(len, ODD[case]))
    model = found.model
    parts = [model.startprob_, model.transmat_, model.means_, model.covars_]
    assert all(np.isfinite(part).all() for part in parts)
    assert np.isfinite([found.log_likelihood, found.bic, found.aic]).all()
    np.testing.assert_allclose(model.transmat_.sum(1), 1)
    assert np.isfinite(sample_latents(model, 20, 0)[0]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_outlier_that_underflows_is_fitted(kind):
    found = fit([with_outlier(1e3)], 1, covariance_type=kind)
    assert found.status == "ok"
    assert math.isfinite(found.bic)


def test_an_outlier_that_underflows_after_the_last_iteration_is_scored():
    z = np.random.default_rng(0).standard_normal((5000, 2)) * [30, 1]
    z[0] = [0, 100]  # near enough for the round start, far from the fitted ellipse
    found = fit([z], 1, n_iter=1)
    assert found.status == "not_converged"
    assert math.isfinite(found.bic)


def test_a_state_that_dies_is_a_failed_fit(monkeypatch):
    start = hmm._started_hmm

    def with_a_dead_state(*arguments):
        model = start(*arguments)
        model.means_[0] = 1e8
        return model

    monkeypatch.setattr(hmm, "_started_hmm", with_a_dead_state)
    for kind in KINDS:
        found = fit(PLANTED, 3, covariance_type=kind)
        assert (found.status, found.model) == ("failed", None), kind
        assert found.reason


def test_a_log_likelihood_that_is_no_number_is_a_failed_fit(monkeypatch):
    monkeypatch.setattr(GaussianHMM, "score", lambda *_: math.nan)
    found = fit(PLANTED, 3)
    assert (found.status, found.reason, found.model) == ("failed", "log-likelihood is nan", None)
    assert found.n_iter > 1


@pytest.mark.parametrize("error", [ValueError, np.linalg.LinAlgError])
def test_an_error_of_hmmlearn_is_a_failed_fit(monkeypatch, error):
    def fail(*_):
        raise error("eigenvalues did not converge")

    monkeypatch.setattr(GaussianHMM, "fit", fail)
    found = fit(PLANTED, 3)
    assert (found.status, found.reason) == ("failed", "eigenvalues did not converge")


# Selection


def made(n_states, bic, status="ok"):
    return HmmFit(n_states, 0, "diag", -1.0, 1, 100, bic, bic, 5, True, status, "", 0.1)


@pytest.mark.parametrize(
    ("bics", "best", "edge"),
    [
        ({5: 3.0, 20: 1.0, 100: 2.0}, 20, ""),
        ({5: 3.0, 20: 2.0, 100: 1.0}, 100, "highest"),
        ({5: 1.0, 20: 2.0, 100: 3.0}, 5, "lowest"),
        ({1: 1.0, 20: 2.0}, 1, ""),  # fewer than 1 there are not
        ({20: 2.0}, 20, "highest"),
    ],
)
def test_a_minimum_at_the_end_of_the_grid_is_flagged(bics, best, edge):
    selection = select_by_bic([made(k, bic) for k, bic in sorted(bics.items(), reverse=True)])
    assert (selection.best.n_states, selection.edge) == (best, edge)


def test_the_best_restart_of_each_number_of_states_counts():
    fits = [made(5, 9.0), made(5, 4.0), made(10, 3.5), made(10, 2.0), made(20, 7.0)]
    selection = select_by_bic(fits)
    assert selection.best is fits[3]
    assert (selection.runner_up, selection.runner_up_distance) == (5, 2.0)
    alone = select_by_bic(fits[:2])
    assert (alone.best, alone.runner_up, alone.runner_up_distance) == (fits[1], None, None)


def test_fits_without_a_model_are_not_selected_and_are_no_edge():
    lost = [made(k, math.nan, s) for k, s in ((2, "failed"), (50, "skipped"))]
    fits = [*lost, made(5, 3.0), made(10, 1.0, "not_converged"), made(20, 2.0)]
    assert (select_by_bic(fits).best, select_by_bic(fits).edge) == (fits[3], "")
    assert select_by_bic([*lost, made(5, 3.0), made(20, 1.0)]).edge == "highest"
    assert select_by_bic(lost) is None
    assert select_by_bic([]) is None


# Restored models and samples


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
COVARIANCES = {
    "spherical": np.array([0.5, 1.0, 2.0]),
    "diag": np.array([[0.5, 1.0], [2.0, 0.3], [1.0, 1.5]]),
    "tied": np.array([[1.0, 0.6], [0.6, 2.0]]),
    "full": np.array([[[1.0, 0.6], [0.6, 2.0]], [[1.0, -0.5], [-0.5, 1.0]], np.eye(2)]),
}


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
