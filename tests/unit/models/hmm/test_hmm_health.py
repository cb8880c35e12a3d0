"""Dead and singleton states: found, counted, and seeded anew only where that pays."""

import dataclasses
import math

import numpy as np
import pytest

from models.hmm import health
from models.hmm.em import new_model, run_em, set_covariances
from models.hmm.fit import Origin
from models.hmm.fitting import fit_from
from models.hmm.health import Health, examine, repaired
from models.hmm.starts import kmeans_start
from tests.helpers.hmm_songs import KINDS, LOOSE, matrices, noise, planted, songs_of


def params_of(kind, **changes):
    return dataclasses.replace(LOOSE, covariance_type=kind, **changes)


def placed(songs, means, params):
    """Unit variances, even transitions, states where they are wanted (in latents as given)."""
    n_states = len(means)
    model = new_model(n_states, 2, params)
    model.startprob_ = np.full(n_states, 1 / n_states)
    model.transmat_ = np.full((n_states, n_states), 1 / n_states)
    model.means_ = np.array(means, dtype=float) - songs.centre
    set_covariances(model, np.ones((n_states, 2)), params)
    return model


TRUTH = [[0, 0], [6, 0], [0, 6]]
FAR = [1e4, 1e4]
OUTLIER = np.array([[50.0, -50.0]])


def with_outlier():
    return [*planted(5), np.concatenate([planted(6)[5], OUTLIER])]


@pytest.mark.parametrize("kind", KINDS)
def test_planted_dead_and_singleton_states_are_counted(kind):
    params = params_of(kind)
    songs = songs_of(with_outlier(), kind)
    em = run_em(songs, placed(songs, [*TRUTH, FAR, OUTLIER[0], FAR], params), params, 0)
    found = examine(em, params)
    assert (found.n_dead, found.n_singleton) == (2, 1)
    assert found.needs_repair
    assert str(found).startswith("2 states dead, 1 states of one snippet")
    # What is counted once is not counted as floored too.
    em = run_em(songs, placed(songs, [*TRUTH, FAR, OUTLIER[0], FAR], params), params, 3)
    assert examine(em, params) == Health(2, 1, 0)
    sound = run_em(songs, placed(songs, TRUTH, params), params, 5)
    assert examine(sound, params) == Health(0, 0, 0)
    assert (str(examine(sound, params)), examine(sound, params).needs_repair) == ("", False)


@pytest.mark.parametrize("kind", KINDS)
def test_variances_at_the_floor_are_counted(kind):
    # Silence: 40 equal snippets; a tied matrix takes its variance from the others.
    params = params_of(kind)
    songs = songs_of([*planted(), np.full((40, 2), 30.0)], kind)
    em = run_em(songs, placed(songs, [*TRUTH, [30, 30]], params), params, 10)
    assert examine(em, params).n_floored == (0 if kind == "tied" else 1)
    copies = songs_of([np.tile([[0.0, 0.0], [9.0, 9.0]], (50, 1))], kind)
    em = run_em(copies, placed(copies, [[0, 0], [9, 9]], params), params, 10)
    assert matrices(em.model)[0, 0, 0] == pytest.approx(params.min_variance)
    assert examine(em, params).n_floored == 2


def test_a_variance_that_the_prior_makes_is_counted():
    params = params_of("diag", covars_prior=40.0, min_variance=1e-9)
    songs = songs_of([*planted(), np.full((40, 2), 30.0)])
    em = run_em(songs, placed(songs, [*TRUTH, [30, 30]], params), params, 10)
    assert em.model._covars_[3] == pytest.approx([1.0, 1.0], rel=1e-3)
    assert examine(em, params) == Health(0, 0, 1)


def test_one_dimension_at_the_floor_is_enough():
    params = params_of("diag")
    songs = songs_of([np.c_[noise(100, 1), np.zeros(100)]])
    em = run_em(songs, kmeans_start(songs, 1, 0, params), params, 5)
    assert examine(em, params) == Health(0, 0, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_dead_state_is_seeded_where_one_is_missing(kind):
    params = params_of(kind, min_snippets_per_state=10)
    songs = songs_of(planted(), kind)
    # The third kind has no state: the repair must find it.
    em = run_em(songs, placed(songs, [*TRUTH[:2], FAR], params), params, 50)
    assert examine(em, params).n_dead == 1
    before = em.objective[-1]
    better, n_kept, n_iter = repaired(songs, em, params)
    assert n_kept == 1
    assert n_iter >= better.n_iter > 0
    assert better.objective[-1] > before + params.tol * songs.n_snippets
    assert examine(better, params).n_dead == 0
    if kind == "tied":  # the matrix of all states is too wide by then
        return
    means = songs.uncentred(better.model).means_
    np.testing.assert_allclose(means[np.argsort(means @ [1, 2])], TRUTH, atol=0.4)
    np.testing.assert_allclose(better.model.transmat_.sum(1), 1)


def test_a_fit_records_its_repairs_and_their_iterations():
    params = params_of("diag", min_snippets_per_state=10)
    songs = songs_of(planted())

    def start():
        return placed(songs, [*TRUTH[:2], FAR], params)

    fit, _ = fit_from(songs, 3, start, Origin("grid", "made"), params)
    assert (fit.status, fit.n_repairs, fit.n_dead) == ("ok", 1, 0)
    first = run_em(songs, start(), params, params.n_iter)
    _, _, n_more = repaired(songs, first, params)
    assert fit.n_iter == first.n_iter + n_more
    none = dataclasses.replace(params, max_repairs=0)
    left, _ = fit_from(songs, 3, start, Origin("grid", "made"), none)
    assert (left.n_repairs, left.n_dead, left.n_iter) == (0, 1, first.n_iter)
    assert fit.bic < left.bic


@pytest.mark.parametrize("kind", KINDS)
def test_a_repair_that_does_not_pay_is_taken_back(kind):
    params = params_of(kind, min_snippets_per_state=10)
    songs = songs_of(with_outlier(), kind)
    em = run_em(songs, placed(songs, [*TRUTH, OUTLIER[0]], params), params, 50)
    assert examine(em, params).n_singleton == 1
    parts = [np.array(p) for p in (em.model.means_, em.model.transmat_, em.model._covars_)]
    kept, n_kept, n_iter = repaired(songs, em, params)
    assert kept is em
    assert n_kept == 0
    assert n_iter > 0
    for part, now in zip(parts, (em.model.means_, em.model.transmat_, em.model._covars_),
                         strict=True):  # fmt: skip
        np.testing.assert_array_equal(part, now)


@pytest.mark.parametrize("max_repairs", [0, 1, 4])
def test_no_more_repairs_than_allowed(max_repairs, monkeypatch):
    params = params_of("diag", max_repairs=max_repairs)
    songs = songs_of(planted())
    em = run_em(songs, placed(songs, [*TRUTH, FAR], params), params, 5)
    runs = []

    def slightly_better(*_):
        runs.append(1)
        return dataclasses.replace(em, objective=[em.objective[-1] + len(runs)])

    monkeypatch.setattr(health, "run_em", slightly_better)
    _, n_kept, _ = repaired(songs, em, params)
    assert (n_kept, len(runs)) == (max_repairs, max_repairs)


def test_only_weak_states_are_seeded_anew():
    params = params_of("full", min_snippets_per_state=5)
    songs = songs_of(with_outlier(), "full")
    em = run_em(songs, placed(songs, [*TRUTH, FAR, OUTLIER[0]], params), params, 20)
    start = health._reseeded(songs, em, params)
    np.testing.assert_array_equal(start.means_[:3], em.model.means_[:3])
    np.testing.assert_array_equal(start._covars_[:3], em.model._covars_[:3])
    np.testing.assert_allclose(start._covars_[3:], [em.model._covars_[:3].mean(0)] * 2)
    np.testing.assert_allclose(start.transmat_.sum(1), 1)
    assert (start.transmat_[:, 3:] > 0.1).all()
    assert np.abs(start.means_[3:]).max() < 60
    assert len(np.unique(start.means_, axis=0)) == 5


def test_reseeded_left_right_states_keep_their_order():
    params = params_of("diag", transitions="left_right")
    songs = songs_of(planted())
    first = kmeans_start(songs, 4, 0, params)
    first.means_[2] = 1e4
    em = run_em(songs, first, params, 5)
    start = health._reseeded(songs, em, params)
    np.testing.assert_array_equal(start.transmat_, np.triu(start.transmat_))


def test_where_every_state_is_weak_nothing_is_seeded():
    params = params_of("diag")
    songs = songs_of([noise(2, 2)])
    em = run_em(songs, placed(songs, noise(2, 2) * 1.0, params), params, 5)
    em.stats["post"] = np.array([1.0, 1.0])
    assert repaired(songs, em, params) == (em, 0, 0)


def test_a_broken_fit_is_not_repaired():
    params = params_of("diag")
    songs = songs_of(planted())
    em = run_em(songs, placed(songs, [[math.nan, 0]], params), params, 5)
    assert repaired(songs, em, params)[1:] == (0, 0)
