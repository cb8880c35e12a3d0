"""What steers a search, the choice by BIC, and what a record says of a run of EM."""

import itertools
import math

import pytest

from models.hmm import HmmParams, select_by_bic, too_few
from models.hmm.choice import choices
from models.hmm.em import run_em
from models.hmm.fit import Origin, record_of
from models.hmm.starts import kmeans_start
from tests.helpers.hmm_songs import planted, rough_and_ready, songs_of

# Settings


def test_numbers_of_states_are_sorted_as_numbers():
    assert HmmParams(n_states=(100, 5, 20, 5)).n_states == (5, 20, 100)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_states": ()}, r"n_states is \[\]: give at least one"),
        ({"n_states": (0, 5)}, r"n_states is \[0, 5\]"),
        (
            {"n_states": (5, 300), "max_n_states": 200},
            r"max_n_states is 200, below the highest of n_states \(300\)",
        ),
        ({"covariance_type": "round"}, "'round': choose one of auto, spherical, diag, tied, full"),
        ({"transitions": "some"}, "'some': choose one of full, sparse, left_right"),
        ({"search": "all"}, "'all': choose one of merge, grid"),
        ({"engine": "new"}, "'new': choose one of ours, hmmlearn"),
        ({"n_restarts": 0}, "n_restarts is 0: it must be 1 or more"),
        ({"n_iter": 0}, "n_iter is 0: it must be 1 or more"),
        ({"min_snippets": 0}, "min_snippets is 0: it must be 1 or more"),
        ({"min_recordings": 0}, "min_recordings is 0: it must be 1 or more"),
        ({"tol": 0.0}, "tol is 0.0: it must be above 0"),
        ({"covars_prior": math.nan}, "covars_prior is nan: it must be above 0"),
        ({"min_variance": 0.0}, "min_variance is 0.0: it must be above 0"),
        ({"min_snippets_per_state": 0}, "min_snippets_per_state is 0: it must be above 0"),
        ({"max_repairs": -1}, "max_repairs is -1: it must be 0 or more"),
        ({"held_out_fraction": 0.6}, "held_out_fraction is 0.6: it must lie from 0 to 0.5"),
        ({"held_out_fraction": -0.1}, "held_out_fraction is -0.1"),
        ({"held_out_fraction": math.nan}, "held_out_fraction is nan"),
        ({"is_chained": True, "search": "grid"}, "is_chained is true, but only search=merge"),
    ],
)
def test_errors_name_the_value_and_the_remedy(changes, words):
    with pytest.raises(ValueError, match=words):
        HmmParams(**changes)


@pytest.mark.parametrize(
    ("lengths", "reason"),
    [
        ([100, 99], "199 snippets, 200 needed (hmm.min_snippets)"),
        ([500], "1 recording, 2 needed (hmm.min_recordings)"),
        ([1], "1 snippet, 200 needed (hmm.min_snippets)"),
        ([], "0 snippets, 200 needed (hmm.min_snippets)"),
        ([100, 100], ""),
    ],
)
def test_too_few_snippets_or_recordings_are_said(lengths, reason):
    assert too_few(lengths, HmmParams()) == reason


# The choice


made = rough_and_ready


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


def test_rough_fits_are_chosen_only_where_there_are_no_others():
    rough = [made(k, 1.0 * k, "rough") for k in (2, 3, 30)]
    selection = select_by_bic([*rough, made(5, 9.0), made(3, 8.0)])
    assert (selection.best.n_states, selection.best.status, selection.edge) == (3, "ok", "")
    assert selection.runner_up == 5
    assert select_by_bic(rough).best is rough[0]


def test_equal_fits_give_the_same_choice_in_whatever_order_they_come():
    fits = [made(2, 9.0), made(3, 5.0), made(3, 5.0, restart=1), made(4, 5.0)]
    for order in itertools.permutations(fits):
        best = select_by_bic(order).best
        assert (best.n_states, best.restart) == (3, 0)


def test_each_criterion_chooses_by_its_own_sign():
    fits = [made(2, 5.0), made(3, 4.0), made(3, 1.0, "failed"), made(4, 6.0)]
    names = ("bic", "aic", "icl", "bic_effective", "held_out_log_likelihood")
    assert choices(fits) == (dict.fromkeys(names, 3), ())
    assert choices(fits[:2]) == (dict.fromkeys(names, 3), names)
    assert choices([made(2, math.nan)]) == ({}, ())


def test_one_number_of_states_alone_is_no_limit_of_any_criterion():
    assert choices([made(3, 4.0)])[1] == ()


# Records


@pytest.mark.parametrize(
    ("n_iter", "is_rough", "status"),
    [(2, False, "not_converged"), (2, True, "rough"), (200, False, "ok"), (200, True, "ok")],
)
def test_a_record_says_how_em_ended(n_iter, is_rough, status):
    params = HmmParams(covariance_type="diag")
    songs = songs_of(planted())
    em = run_em(songs, kmeans_start(songs, 4, 0, params), params, n_iter)
    record = record_of(songs, em, Origin("grid", "k-means", 2), params, 0.5, is_rough=is_rough)
    assert record.status == status
    assert (record.reason == "") == (status == "ok")
    assert record.has_model
    assert (record.n_states, record.restart, record.start) == (4, 2, "k-means")
    assert (record.n_iter, record.converged) == (em.n_iter, em.converged)
    assert record.model.score(*(songs.X + songs.centre, songs.lengths)) == pytest.approx(
        em.log_likelihood
    )


def test_a_record_of_a_fall_and_of_a_break():
    params = HmmParams(covariance_type="diag")
    songs = songs_of(planted())
    em = run_em(songs, kmeans_start(songs, 3, 0, params), params, 50)
    em.is_monotone = False
    fell = record_of(songs, em, Origin("grid", "k-means"), params, 0.5)
    assert (fell.status, fell.has_model) == ("not_monotone", True)
    assert fell.reason.startswith("the objective of EM fell")
    em.log_likelihood = math.nan
    broke = record_of(songs, em, Origin("grid", "k-means"), params, 0.5)
    assert (broke.status, broke.has_model, broke.model) == ("failed", False, None)
    assert broke.reason == f"log-likelihood is nan after {em.n_iter} iterations"
    assert math.isnan(broke.bic)
