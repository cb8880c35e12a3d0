"""Criteria against hand counts, enumeration of all paths, and noise of known autocorrelation."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hmmlearn import hmm
from scipy.signal import lfilter
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from models.hmm import criteria, fit_hmm, n_free_params, restored, sample_latents
from models.hmm.em import Songs, run_em
from models.hmm.held_out import fewest_within_error, held_out_nats
from models.hmm.predictive import occupancy
from models.hmm.starts import kmeans_start
from tests.helpers.hmm_songs import (
    KINDS,
    LOOSE,
    at,
    joined,
    known_model,
    matrices,
    noise,
    planted,
    songs_of,
)


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
    model = hmm.GaussianHMM(n_states, kind)
    model.n_features = latent_dim
    assert n_free_params(n_states, latent_dim, kind) == by_hand
    assert sum(model._get_n_fit_scalars_per_param().values()) == by_hand


@pytest.mark.parametrize(
    ("transitions", "by_hand"),
    [
        # start + transitions + means + variances; known_model has 8 transitions of 9
        ("full", 2 + 6 + 6 + 6),
        ("sparse", 2 + 5 + 6 + 6),
        ("left_right", 0 + 5 + 6 + 6),
    ],
)
def test_structural_zeros_are_no_parameters(transitions, by_hand):
    params = dataclasses.replace(LOOSE, transitions=transitions)
    em = at(songs_of(planted()), known_model("diag"), params)
    assert criteria.count_free_params(em, params) == by_hand


def test_a_left_right_fit_counts_its_triangle():
    params = dataclasses.replace(LOOSE, transitions="left_right")
    songs = songs_of(planted())
    em = run_em(songs, kmeans_start(songs, 4, 0, params), params, 5)
    # 10 transitions of 4 rows, one start
    assert criteria.count_free_params(em, params) == 0 + 6 + 8 + 8


def test_criteria_by_hand():
    assert criteria.bic(-100.0, 7, 50) == pytest.approx(200 + 7 * math.log(50))
    assert criteria.aic(-100.0, 7) == 214.0
    assert criteria.effective_bic(-100.0, 7, 50, 50.0) == criteria.bic(-100.0, 7, 50)
    by_hand = 200 * 10 / 50 + 7 * math.log(10)
    assert criteria.effective_bic(-100.0, 7, 50, 10.0) == pytest.approx(by_hand)


@pytest.mark.parametrize("kind", KINDS)
def test_bic_and_aic_of_a_fit_are_hmmlearns(kind):
    X, lengths = joined(planted())
    found = fit_hmm(planted(), 3, 0, 0, dataclasses.replace(LOOSE, covariance_type=kind))
    assert found.status == "ok"
    assert found.log_likelihood == pytest.approx(found.model.score(X, lengths), rel=1e-12)
    assert found.bic == pytest.approx(found.model.bic(X, lengths), rel=1e-12)
    assert found.aic == pytest.approx(found.model.aic(X, lengths), rel=1e-12)
    assert found.n_observations == 360


def enumerated_entropy(model, sequences):
    """Entropy of all paths of all songs, path by path."""
    emissions = [
        multivariate_normal(m, c) for m, c in zip(model.means_, matrices(model), strict=True)
    ]
    with np.errstate(divide="ignore"):
        log_start, log_transitions = np.log(model.startprob_), np.log(model.transmat_)
    total = 0.0
    for z in sequences:
        logs = np.array([[one.logpdf(x) for one in emissions] for x in z])
        joint = []
        for path in itertools.product(range(model.n_components), repeat=len(z)):
            steps = sum(log_transitions[i, j] for i, j in itertools.pairwise(path))
            joint.append(log_start[path[0]] + steps + logs[np.arange(len(z)), path].sum())
        p = np.exp(joint - logsumexp(joint))
        total -= (p[p > 0] * np.log(p[p > 0])).sum()
    return total


@pytest.mark.parametrize("engine", ["ours", "hmmlearn"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_path_entropy_is_that_of_all_paths(kind, engine):
    sequences = [noise(3, 2, 1), noise(2, 2, 2) + 1]
    model = known_model(kind)
    em = at(
        songs_of(sequences, kind, engine), model, dataclasses.replace(LOOSE, covariance_type=kind)
    )
    expected = enumerated_entropy(model, sequences)
    assert 0.5 < expected < 5 * math.log(3) - 0.5
    assert criteria.path_entropy(em) == pytest.approx(expected, rel=1e-9)
    icl = criteria.bic(em.log_likelihood, 20, 5) + 2 * expected
    assert criteria.icl(em, 20, 5) == pytest.approx(icl, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_path_entropy_holds_in_one_dimension(kind):
    covariances = {"spherical": [1.0, 2.0], "diag": [[1.0], [2.0]], "tied": [[1.5]],
                   "full": [[[1.0]], [[2.0]]]}[kind]  # fmt: skip
    model = restored(np.array([0.4, 0.6]), np.array([[0.7, 0.3], [0.2, 0.8]]),
                     np.array([[0.0], [1.5]]), np.array(covariances), kind)  # fmt: skip
    sequences = [noise(4, 1, 5), noise(1, 1, 6)]
    em = at(songs_of(sequences, kind), model, dataclasses.replace(LOOSE, covariance_type=kind))
    expected = enumerated_entropy(model, sequences)
    assert criteria.path_entropy(em) == pytest.approx(expected, rel=1e-9)


def test_a_sure_path_has_no_entropy():
    em = at(songs_of(planted()), known_model("diag", apart=100.0), LOOSE)
    assert criteria.path_entropy(em) == pytest.approx(0, abs=1e-6)


# Effective number of observations


def test_snippets_sampled_from_the_model_are_worth_their_number():
    model = known_model("diag", apart=4.0)
    sequences = [sample_latents(model, 600, seed)[0] for seed in range(10)]
    songs = songs_of(sequences)
    assert 0.95 * 6000 < criteria.n_effective(songs, songs.centred(model)) <= 6000


def autoregressive(n, d, rho, seed):
    """AR(1) noise of unit variance."""
    innovations = noise(n, d, seed) * math.sqrt(1 - rho**2)
    innovations[0] /= math.sqrt(1 - rho**2)
    return lfilter([1.0], [1.0, -rho], innovations, axis=0)


def one_state(d):
    return restored(np.ones(1), np.ones((1, 1)), np.zeros((1, d)), np.ones((1, d)), "diag")


@pytest.mark.parametrize("rho", [0.3, 0.6, 0.8])
def test_autoregressive_noise_is_worth_its_integrated_time(rho):
    songs = songs_of([autoregressive(2000, 3, rho, seed) for seed in range(10)])
    found = criteria.n_effective(songs, songs.centred(one_state(3)))
    assert found == pytest.approx(20_000 * (1 - rho) / (1 + rho), rel=0.12)


def test_the_effective_number_is_a_mean_over_dimensions():
    sequences = [
        np.c_[autoregressive(2000, 1, 0.8, seed), noise(2000, 1, 100 + seed)] for seed in range(10)
    ]
    songs = songs_of(sequences)
    found = criteria.n_effective(songs, songs.centred(one_state(2)))
    assert found == pytest.approx(20_000 * (0.2 / 1.8 + 1) / 2, rel=0.06)


def test_a_state_that_explains_the_autocorrelation_leaves_none():
    model = known_model("diag", apart=4.0)
    sequences = [sample_latents(model, 600, seed)[0] for seed in range(5)]
    songs = songs_of(sequences)
    alone = criteria.n_effective(songs, songs.centred(one_state(2)))
    assert alone < 0.8 * criteria.n_effective(songs, songs.centred(model))


def test_songs_do_not_run_on_into_one_another():
    # The second snippet of a song is not followed by the first of the next.
    songs = songs_of([z[None] for z in autoregressive(500, 2, 0.95, 0)])
    assert criteria.n_effective(songs, songs.centred(one_state(2))) == 500


# Held-out recordings


@pytest.mark.parametrize("n_recordings", range(1, 25))
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.2, 0.5])
def test_recordings_are_split_whole_and_neither_side_is_empty(n_recordings, fraction):
    fitted, held_out = criteria.split_recordings(n_recordings, fraction, 3)
    assert sorted(fitted + held_out) == list(range(n_recordings))
    assert len(fitted) >= min(2, n_recordings)
    if fraction == 0 or n_recordings < 3:
        assert held_out == []
    else:
        assert 1 <= len(held_out) <= max(1, math.ceil(fraction * n_recordings))
    assert criteria.split_recordings(n_recordings, fraction, 3) == (fitted, held_out)


def test_the_split_follows_the_seed():
    assert len({str(criteria.split_recordings(20, 0.3, seed)) for seed in range(5)}) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_the_held_out_log_likelihood_is_hmmlearns_score_per_snippet(kind):
    params = dataclasses.replace(LOOSE, covariance_type=kind)
    sequences = [z + 0.5 * i for i, z in enumerate(planted(5, 30))]  # the centres differ
    fitted, held_out = Songs(sequences[:3], kind), Songs(sequences[3:], kind)
    em = run_em(fitted, kmeans_start(fitted, 3, 0, params), params, 20)
    ours = fitted.uncentred(em.model)
    theirs = hmm.GaussianHMM(3, kind)
    theirs.__dict__.update(ours.__dict__)
    X, lengths = joined(sequences[3:])
    theirs.startprob_ = occupancy(ours.startprob_, ours.transmat_, 30)
    found = held_out_nats(held_out, fitted, em)
    # Two songs; a thousandth of each snippet comes from elsewhere.
    alone = [theirs.score(z) for z in sequences[3:]]
    assert sum(alone) == pytest.approx(theirs.score(X, lengths))
    np.testing.assert_allclose(found, np.array(alone) + 30 * math.log(1 - 1e-3), atol=0.5)


def test_one_outlier_or_an_impossible_start_does_not_decide_the_held_out_likelihood():
    sequences = planted(5, 60)
    fitted = Songs(sequences[:3], "diag")
    em = run_em(fitted, kmeans_start(fitted, 3, 0, LOOSE), LOOSE, 50)
    plain = held_out_nats(Songs(sequences[3:], "diag"), fitted, em).sum()
    with_outlier = [sequences[3].copy(), sequences[4]]
    with_outlier[0][7] = 1e4
    assert plain - held_out_nats(Songs(with_outlier, "diag"), fitted, em).sum() < 60
    em.model.startprob_ = np.array([1.0, 0.0, 0.0])
    nats = held_out_nats(Songs(sequences[3:], "diag"), fitted, em).sum()
    assert nats == pytest.approx(plain, abs=1)


def test_songs_from_left_to_right_are_as_likely_held_out_as_fitted():
    rng = np.random.default_rng(0)
    songs = [np.repeat(9.0 * np.arange(5), rng.integers(8, 16, 5)) for _ in range(30)]
    songs = [s[:, None] + rng.standard_normal((len(s), 2)) for s in songs]
    params = dataclasses.replace(LOOSE, transitions="left_right", held_out_fraction=0.2)
    fits = {k: fit_hmm(songs, k, 0, k, params) for k in (4, 5, 6)}
    assert fits[5].held_out_log_likelihood > fits[4].held_out_log_likelihood + 0.2
    for k in (5, 6):
        in_sample = fits[k].log_likelihood / fits[k].n_snippets
        # Where in a song it begins is not told: log 5 nats for each song of 58 snippets.
        assert fits[k].held_out_log_likelihood == pytest.approx(in_sample, abs=0.15)


def test_the_fewest_states_within_one_standard_error_are_told_by_paired_recordings():
    base = np.array([-300.0, -100.0, -200.0, -500.0])  # recordings differ more than models
    nats = {2: base - 30, 3: base - [3, -2, 2, -1], 4: base, 5: base - 1}
    assert fewest_within_error(nats) == 3  # 2 nats less, with an error of 4.8
    assert fewest_within_error({2: base - 30, 3: base - [3, 2, 2, 2], 4: base}) == 4
    assert fewest_within_error({2: base[:1]}) is None
    assert fewest_within_error({}) is None


def test_every_number_of_states_is_tested_on_the_same_recordings(monkeypatch):
    seen = []
    score = held_out_nats

    def noting(held_out, fitted, em):
        seen.append((held_out.uncentred(em.model), held_out.X + held_out.centre, fitted.n_snippets))
        return score(held_out, fitted, em)

    monkeypatch.setattr("models.hmm.grid.held_out_nats", noting)
    sequences = planted(6, 40)
    fits = [fit_hmm(sequences, k, 0, k, LOOSE) for k in (1, 3, 4)]
    assert np.isfinite([f.held_out_log_likelihood for f in fits]).all()
    assert len(seen) == 3
    kept = seen[0][1]
    assert any(np.allclose(kept, z) for z in sequences)
    for _, X, n_fitted in seen:
        np.testing.assert_allclose(X, kept)
        assert n_fitted == 5 * 40
    assert fits[1].held_out_log_likelihood > fits[0].held_out_log_likelihood + 0.5
