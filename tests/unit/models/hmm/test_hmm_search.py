"""The search over numbers of states, on songs whose number is known."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from models.hmm import (
    HmmParams,
    StatesFound,
    fit_hmm,
    search_states,
    select_by_bic,
    select_n_states,
)
from models.hmm.em import run_em
from models.hmm.fit import Origin
from models.hmm.grid import first_numbers, more_numbers
from models.hmm.merge_search import MergeSearch, geometric
from models.hmm.search import conclude
from models.hmm.select import _rescaled
from tests.helpers.hmm_songs import (
    KINDS,
    LOOSE,
    joined,
    known_model,
    noise,
    planted,
    rough_and_ready,
    simulated,
    songs_of,
    sung,
)

QUICK = HmmParams(covariance_type="diag", min_snippets=1, min_recordings=1, n_restarts=1)


def quick(sequences, kind="diag", n_states=(2, 12), seed=0, search="merge", **changes):
    params = dataclasses.replace(QUICK, **changes)
    return select_n_states(sequences, kind, n_states, seed, search, params)


# The truth


@pytest.mark.parametrize("n_states", [3, 5, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_the_true_number_of_states_is_found(kind, n_states):
    sequences = simulated(n_states, seed=1)
    found = quick(sequences, kind)
    assert (found.status, found.reason, found.edge) == ("ok", "", "")
    assert found.n_states == n_states
    best = found.selection.best
    X, lengths = joined(sequences)
    assert found.model.score(X, lengths) == pytest.approx(best.log_likelihood, rel=1e-9)
    assert found.model.bic(X, lengths) == pytest.approx(best.bic, rel=1e-9)
    assert best.bic == min(f.bic for f in found.fits if f.status == "ok")
    assert 0.8 * 1500 < found.n_effective <= 1500


@pytest.mark.parametrize("kind", KINDS)
def test_grid_and_merge_agree_where_it_is_easy(kind):
    sequences = simulated(4, n_snippets=1000, seed=2)
    merge = quick(sequences, kind, (2, 7))
    grid = quick(sequences, kind, (2, 7), search="grid", n_restarts=2)
    assert merge.n_states == grid.n_states == 4
    assert merge.selection.best.bic < grid.selection.best.bic + 1e-4 * 1000
    rows = [(row["n_states"], row["restart"]) for row in grid.table]
    assert rows == list(itertools.product(range(2, 8), range(2)))
    assert {row["reached_by"] for row in grid.table} == {"grid"}


def test_a_left_right_model_is_found():
    means = np.repeat(np.array([[9.0, 0], [0, 9], [0, 0], [9, 9]]), 10, axis=0)
    rng = np.random.default_rng(0)
    sequences = [means + rng.standard_normal(means.shape) for _ in range(12)]
    found = quick(sequences, n_states=(2, 8), transitions="left_right")
    assert found.n_states == 4
    np.testing.assert_array_equal(found.model.transmat_, np.triu(found.model.transmat_))
    np.testing.assert_allclose(found.model.means_, [[9, 0], [0, 9], [0, 0], [9, 9]], atol=0.5)


def test_sparse_transitions_are_found_and_not_counted():
    means = 5 * np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    round_ = 0.7 * np.eye(4) + 0.3 * np.roll(np.eye(4), 1, axis=1)  # only to the next
    rng = np.random.default_rng(0)
    sequences = [sung(means, round_, 60, rng) for _ in range(15)]
    found = quick(sequences, n_states=(2, 8), transitions="sparse")
    assert found.n_states == 4
    assert np.count_nonzero(found.model.transmat_) == 8
    assert found.selection.best.n_free_params == 3 + 4 + 8 + 8
    full = quick(sequences, n_states=(2, 8))
    assert found.selection.best.bic < full.selection.best.bic - 30


def test_a_sparse_fit_of_a_grid_has_no_rare_transition():
    sequences = planted(4, 50)  # transitions of 0.05 are seen, those to a needless state hardly
    params = dataclasses.replace(LOOSE, transitions="sparse")
    found = fit_hmm(sequences, 6, 1, 0, params)
    n_transitions = np.count_nonzero(found.model.transmat_)
    assert 6 <= n_transitions < 36
    assert found.n_free_params == 5 + n_transitions - 6 + 12 + 12
    full = fit_hmm(sequences, 6, 1, 0, LOOSE)
    assert np.count_nonzero(full.model.transmat_) == 36
    assert found.n_iter > full.n_iter


def test_a_merge_path_that_began_too_low_begins_again_higher():
    songs = songs_of(simulated(8, seed=1))
    search = MergeSearch(songs, dataclasses.replace(QUICK, n_states=(2, 20)), 0)
    search._path(3)
    assert search._best() == 8
    assert search.top >= 10


# The same again


def comparable(found):
    """The table but for the time that fits took."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in found.table]


@pytest.mark.parametrize("search", ["merge", "grid"])
def test_the_same_seed_gives_the_same_result(search):
    sequences = simulated(4, n_snippets=600, apart=1.5, seed=3)
    np.random.seed(1)  # noqa: NPY002
    one = quick(sequences, n_states=(2, 6), search=search, seed=4)
    np.random.seed(2)  # noqa: NPY002
    two = quick(sequences, n_states=(2, 6), search=search, seed=4)
    np.testing.assert_equal(comparable(one), comparable(two))  # NaN equals NaN
    assert one.model.means_.tobytes() == two.model.means_.tobytes()
    other = quick(sequences, n_states=(2, 6), search=search, seed=5)
    assert {f.log_likelihood for f in other.fits} != {f.log_likelihood for f in one.fits}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1e3, 1e-3])
def test_the_scale_of_latents_does_not_matter(kind, scale):
    sequences = simulated(3, n_snippets=600, apart=2.0, seed=5)
    one = quick(sequences, kind, (2, 6))
    two = quick([scale * z for z in sequences], kind, (2, 6))
    assert one.n_states == two.n_states
    shift = 4 * math.log(scale)
    shifts = {
        "log_likelihood": -600,
        "held_out_log_likelihood": -1,
        "bic": 2 * 600,
        "aic": 2 * 600,
        "icl": 2 * 600,
        "bic_effective": 2 * one.n_effective,
    }
    for name, n in shifts.items():
        before, after = (getattr(f.selection.best, name) for f in (one, two))
        assert after == pytest.approx(before + n * shift, rel=1e-6), name
    assert two.n_effective == pytest.approx(one.n_effective, rel=1e-6)
    np.testing.assert_allclose(two.model.means_, scale * one.model.means_, rtol=1e-4)
    np.testing.assert_allclose(two.model._covars_, scale**2 * one.model._covars_, rtol=1e-4)
    X, lengths = joined(sequences)
    score = two.model.score(scale * X, lengths)
    assert score == pytest.approx(two.selection.best.log_likelihood, rel=1e-9)
    assert two.selection.edge == one.selection.edge
    assert two.selection.runner_up == one.selection.runner_up


def test_units_do_not_unseat_the_chosen_fit():
    """BICs that differ in the last digit may be equal in other units."""
    other = rough_and_ready(3, math.nextafter(100.0, 101.0), restart=0)
    chosen = dataclasses.replace(rough_and_ready(3, 100.0, restart=1), model=known_model("diag"))
    before = StatesFound("ok", "", [other, chosen], select_by_bic([other, chosen]), n_effective=9.0)
    after = _rescaled(before, np.full(2, 1e3))
    assert after.fits[0].bic == after.fits[1].bic
    assert after.selection.best is after.fits[1]
    assert after.model is not None


# Beyond the range


def test_a_range_below_the_truth_is_extended():
    found = quick(simulated(8, seed=1), n_states=(2, 5))
    assert (found.n_states, found.edge, found.reason) == (8, "", "")
    assert max(row["n_states"] for row in found.table) > 8


def test_a_range_above_the_truth_is_extended_downwards():
    found = quick(simulated(3, seed=1), n_states=(6, 12))
    assert (found.n_states, found.edge) == (3, "")
    assert min(row["n_states"] for row in found.table) < 3


def test_a_grid_is_extended_in_steps_of_a_half_and_then_filled_up():
    found = quick(simulated(6, n_snippets=1000, seed=1), n_states=(3, 4), search="grid",
                  n_restarts=4)  # fmt: skip
    assert {row["n_states"] for row in found.table} == {3, 4, 5, 6, 7, 8}
    assert (found.n_states, found.edge, found.selection.edge) == (6, "", "")
    found = quick(simulated(2, n_snippets=1000, seed=1), n_states=(5, 6), search="grid")
    assert {row["n_states"] for row in found.table} == {1, 2, 3, 5, 6}
    assert (found.n_states, found.edge, found.selection.edge) == (2, "", "")


@pytest.mark.parametrize("search", ["merge", "grid"])
def test_the_limit_is_said(search):
    found = quick(simulated(8, seed=1), n_states=(2, 3), search=search)
    assert (found.status, found.n_states, found.edge) == ("ok", 6, "highest")
    assert found.reason.startswith("BIC is lowest at the highest number of states that may be")
    assert "6: raise hmm.max_n_states" in found.reason
    assert max(row["n_states"] for row in found.table) == 6


@pytest.mark.parametrize("search", ["merge", "grid"])
def test_few_snippets_limit_the_states(search):
    sequences = simulated(8, n_snippets=400, seed=1)
    found = quick(sequences, n_states=(2, 8), search=search, min_snippets_per_state=100)
    assert (found.n_states, found.edge) == (4, "highest")


def test_one_number_of_states_is_fitted_and_its_neighbours():
    found = quick(simulated(3, seed=1), n_states=(3, 3))
    assert found.n_states == 3
    assert {row["n_states"] for row in found.table} >= {2, 3, 4}


def test_a_grid_goes_on_from_its_ends_and_stops_where_all_was_tried():
    def grid(*pairs):
        return [rough_and_ready(k, bic, status) for k, bic, status in pairs]

    params = dataclasses.replace(LOOSE, n_states=(4, 8), max_n_states=14)
    middle = grid((4, 3.0, "ok"), (6, 1.0, "ok"), (8, 2.0, "ok"))
    assert more_numbers(middle, params) == []
    top = grid((4, 3.0, "ok"), (6, 2.0, "ok"), (8, 1.0, "ok"))
    assert more_numbers(top, params) == [12]
    assert more_numbers([*top, *grid((12, 0.0, "ok"))], params) == [14]
    assert more_numbers([*top, *grid((12, 0.0, "ok"), (14, 1.5, "ok"))], params) == [10, 13]
    end = [*top, *grid((12, 0.0, "ok"), (14, -1.0, "ok"))]
    assert more_numbers(end, params) == [13]
    assert more_numbers([*end, *grid((13, 0.5, "ok"))], params) == []
    assert more_numbers([*top, *grid((12, math.nan, "failed"))], params) == []
    low = grid((4, 1.0, "ok"), (6, 2.0, "ok"))
    assert more_numbers(low, params) == [2]
    assert more_numbers([*low, *grid((2, 0.0, "ok"))], params) == [1]
    # A fit that failed does not come back for ever.
    assert more_numbers([*low, *grid((2, math.nan, "failed"))], params) == []
    assert more_numbers(grid((4, math.nan, "failed")), params) == []


@pytest.mark.parametrize("truth", [2, 11, 17, 29, 60, 80])
def test_a_grid_that_was_extended_is_filled_up_around_its_lowest_bic(truth):
    params = HmmParams(n_states=(5, 10), search="grid", max_n_states=60, min_snippets_per_state=10)
    fits, wanted = [], [5, 10]
    while wanted:
        fits += [rough_and_ready(k, abs(k - truth)) for k in wanted]
        wanted = more_numbers(fits, params)
    tried, best = {fit.n_states for fit in fits}, min(truth, 60)
    assert {best - 1, best} <= tried
    assert len(tried) < 14


def test_first_numbers_leave_enough_snippets_to_each():
    params = HmmParams(n_states=(5, 10, 20), min_snippets_per_state=10)
    assert first_numbers(1000, params) == [5, 10, 20]
    assert first_numbers(100, params) == [5, 10]
    assert first_numbers(30, params) == [3]
    assert first_numbers(9, params) == []


def test_coarse_numbers_are_some_way_apart():
    assert geometric(5, 40) == [5, 8, 12, 18, 27, 40]
    assert geometric(1, 5) == [1, 2, 3, 4, 5]
    assert geometric(4, 4) == [4]


# Chained ages


@pytest.mark.parametrize("transitions", ["full", "left_right"])
def test_a_chained_search_tries_the_model_before(transitions):
    params = dataclasses.replace(
        QUICK, n_states=(2, 6), max_n_states=12, transitions=transitions, is_chained=True
    )
    before = search_states(planted(seed=1), params, 0).model
    means = before.means_.copy()
    after = search_states(planted(seed=2), params, 0, before)
    chained = [f for f in after.fits if f.reached_by == "chained"]
    assert [(f.n_states, f.start) for f in chained] == [(before.n_components, "chained")]
    assert chained[0].status == "ok"
    assert all(f.reached_by != "chained" for f in search_states(planted(), params, 0).fits)
    np.testing.assert_array_equal(before.means_, means)
    if transitions == "full":
        assert after.n_states == 3
        same = [f for f in after.fits if f.n_states == 3 and f.reached_by == "restart"]
        assert chained[0].log_likelihood == pytest.approx(same[0].log_likelihood, abs=0.1)


def test_a_model_before_that_does_not_fit_is_left_out():
    params = dataclasses.replace(QUICK, n_states=(2, 3), max_n_states=4)
    other = dataclasses.replace(params, n_states=(6, 6), max_n_states=6)
    before = fit_hmm(planted(), 6, 0, 0, other).model
    found = search_states(planted(), params, 0, before)
    assert found.status == "ok"
    assert all(f.reached_by != "chained" for f in found.fits)


# What every search says


@pytest.mark.parametrize("search", ["merge", "grid"])
def test_every_fit_is_in_the_table_with_how_it_was_reached(search, monkeypatch):
    n_runs = 0

    def counting(*arguments, **named):
        nonlocal n_runs
        n_runs += 1
        return run_em(*arguments, **named)

    for module in ("fitting", "merge_search", "merge_path"):
        monkeypatch.setattr(f"models.hmm.{module}.run_em", counting)
    found = quick(simulated(4, n_snippets=600), n_states=(2, 7), search=search, max_repairs=0,
                  held_out_fraction=0.0)  # fmt: skip
    assert len(found.table) == len(found.fits) <= n_runs
    ways = {"coarse": "k-means", "merge path": ("k-means", "merge"), "polish": "merge",
            "restart": ("k-means", "random"), "merge": "merge", "split": ("split", "new state"),
            "grid": ("k-means", "random"), "chained": "chained"}  # fmt: skip
    for row in found.table:
        assert row["start"] in ways[row["reached_by"]]
        assert row["seconds"] >= 0
        assert row["covariance_type"] == "diag"
        assert row["n_observations"] == 600
        by_hand = -2 * row["log_likelihood"] + row["n_free_params"] * math.log(600)
        assert row["bic"] == pytest.approx(by_hand)
        assert row["aic"] == pytest.approx(-2 * row["log_likelihood"] + 2 * row["n_free_params"])
        assert row["icl"] >= row["bic"]
    reached = {row["reached_by"] for row in found.table}
    expected = {"grid"} if search == "grid" else {"coarse", "merge path", "polish", "restart"}
    assert reached >= expected
    numbers = [row["n_states"] for row in found.table]
    assert numbers == sorted(numbers)
    # Only the chosen one keeps its model.
    assert [f for f in found.fits if f.model is not None] == [found.selection.best]


@pytest.mark.parametrize("search", ["merge", "grid"])
def test_restarts_say_how_far_they_agree(search):
    found = quick(simulated(5, seed=1), n_states=(2, 9), search=search, n_restarts=4)
    same = [f for f in found.fits if f.n_states == 5 and f.reached_by in ("restart", "grid")]
    assert found.n_restarts == len(same) == 4
    best = found.selection.best.log_likelihood
    assert found.n_agreeing == sum(f.log_likelihood >= best - 1.5 for f in same)
    assert found.restart_spread == pytest.approx(best - min(f.log_likelihood for f in same))


def test_criteria_are_compared_by_what_each_would_choose():
    found = quick(simulated(4, seed=1), n_states=(2, 8))
    names = {"bic", "aic", "icl", "bic_effective", "held_out_log_likelihood"}
    assert set(found.chosen_by) == names
    assert found.chosen_by["bic"] == found.n_states == 4
    held_out = {f.n_states: f.held_out_log_likelihood for f in found.fits
                if math.isfinite(f.held_out_log_likelihood)}  # fmt: skip
    assert len(held_out) > 4
    assert held_out[4] > held_out[2] + 0.1
    assert abs(held_out[4] - found.selection.best.log_likelihood / 1500) < 0.3


def test_in_a_grid_too_every_restart_has_the_held_out_likelihood_of_its_number_of_states():
    found = quick(simulated(4, seed=1), n_states=(3, 5), search="grid", n_restarts=4)
    per_states = {}
    for fit in found.fits:
        per_states.setdefault(fit.n_states, set()).add(fit.held_out_log_likelihood)
    assert all(len(values) == 1 and math.isfinite(*values) for values in per_states.values())
    # The best restart of a number of states is not always the first.
    bests = [max((f for f in found.fits if f.n_states == k), key=lambda f: f.log_likelihood)
             for k in per_states]  # fmt: skip
    assert any(fit.restart > 0 for fit in bests)
    assert "held_out_log_likelihood" in found.chosen_by


@pytest.mark.parametrize(
    ("sequences", "changes", "status", "reason"),
    [
        ([noise(0, 2)], {}, "too_few_snippets", "0 snippets, 1 needed (hmm.min_snippets)"),
        ([noise(90, 2)], {"min_snippets": 91}, "too_few_snippets", "90 snippets, 91 needed"),
        ([noise(90, 2), noise(0, 2)], {"min_recordings": 2}, "too_few_snippets", "1 recording, 2"),
        ([noise(9, 2)], {}, "too_few_snippets", "9 snippets leave fewer than 10 to a state"),
        ([np.ones((50, 2))] * 2, {}, "failed", "all 100 snippets are equal"),
        ([1e200 * noise(60, 2)], {}, "failed", "float64 does not hold"),
        ([1e-200 * noise(60, 2)], {}, "failed", "float64 does not hold"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("search", ["merge", "grid"])
def test_what_cannot_be_fitted_gets_a_status_and_a_reason(
    sequences, changes, status, reason, search
):
    found = quick(sequences, search=search, **changes)
    assert found.status == status
    assert reason in found.reason
    assert (found.fits, found.model, found.n_states, found.table) == ([], None, None, [])


def test_whitened_latents_beyond_float64_are_refused():
    found = search_states([np.array([[1e200], [0.0], [1.0]])] * 10, QUICK, 0)
    assert (found.status, found.reason) == (
        "failed", "latents up to 1e+200: float64 cannot hold their squares")  # fmt: skip


def test_fits_that_all_failed_are_a_failed_search():
    fits = [rough_and_ready(k, math.nan, "failed") for k in (2, 3)]
    found = conclude(songs_of(planted()), fits, LOOSE)
    assert (found.status, found.reason) == ("failed", "every fit failed: made so")
    assert found.fits == fits


def broken(value, n=1):
    return np.where(np.arange(60)[:, None] < n, value, noise(60, 2))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_latents_that_are_not_finite_are_refused_and_get_a_status_in_a_study(value):
    with pytest.raises(ValueError, match=r"sequences\[1\] holds 3 of 60 snippets that are not fin"):
        select_n_states([noise(60, 2), broken(value, 3)])
    found = search_states([noise(60, 2), broken(value)], QUICK, 0)
    assert (found.status, found.reason) == ("failed", "1 of 120 snippets are not finite numbers")


@pytest.mark.parametrize(
    ("n_states", "words"),
    [
        (8, "n_states is 8: give the lowest and the highest number of states, here (8, 8)"),
        ([5, 10, 20], "here (5, 20); search='grid' then tries every number"),
        ((), "here (5, 20)"),
        (np.arange(3, 6), "here (3, 5)"),
        ("5,20", "give two whole numbers, such as (5, 20)"),
        ((2.0, 5), "give two whole numbers"),
        ((True, 5), "give two whole numbers"),
        (None, "give two whole numbers"),
        ({2, 5}, "give two whole numbers"),
        ((5, 2), "the lowest and the highest, from 1 on"),
        ((0, 2), "from 1 on"),
        ((2, 10**9), "100,000 or less"),
    ],
)
def test_numbers_of_states_that_are_no_range_are_refused_with_advice(n_states, words):
    with pytest.raises(ValueError) as error:
        select_n_states(planted(), n_states=n_states)
    assert words in str(error.value)


@pytest.mark.parametrize("seed", [-1, 2**32, 20180919123456, 1.0, True, "3", None, np.int64(-1)])
def test_seeds_that_some_library_would_refuse_later_are_refused(seed):
    with pytest.raises(ValueError, match="give a whole number from 0 to 4294967295"):
        select_n_states(planted(), seed=seed)


def test_the_first_and_the_last_seed_and_those_of_numpy_are_taken():
    for seed in (0, 2**32 - 1, np.int64(7), np.uint32(7)):
        assert quick(planted(), n_states=(2, 4), seed=seed).status == "ok"


@pytest.mark.parametrize(
    ("sequences", "words"),
    [
        (noise(90, 2), "for a single one [latents]"),
        (noise(90, 1), "for a single one [latents]"),
        ([np.zeros(5), np.ones(7)], "Where a latent is one number, give array[:, None]"),
        (np.zeros(5), "their shapes are [(), (), (), (), ()]"),
        ([np.zeros((5, 2, 2))], "[(5, 2, 2)]"),
        ([["a", "b"]], "sequences are not arrays of numbers"),
        ([np.array([["1", "2"]])], "one of them holds <U1"),
        ([np.ones((9, 2), bool)], "one of them holds bool"),
        ([np.array([[1.0, True]] * 9, object)], "one of them holds True"),
        ([np.array([[1.0, "2"]] * 9, object)], "one of them holds '2'"),
        ([np.ones((9, 2), complex)], "one of them holds complex128"),
        ([[[1.0, 2.0], [3.0]]], "sequences are not arrays of numbers"),
        (3, "sequences are not arrays of numbers"),
        (None, "sequences are not arrays of numbers"),
    ],
)
def test_what_is_no_list_of_arrays_is_refused_with_advice(sequences, words):
    with pytest.raises(ValueError) as error:
        select_n_states(sequences)
    assert words in str(error.value)


@pytest.mark.parametrize("sequences", [[], [noise(5, 2), noise(5, 3)], [np.zeros(5)],
                                       [np.zeros((5, 0))]])  # fmt: skip
def test_arrays_of_other_shapes_are_refused(sequences):
    with pytest.raises(ValueError, match="one latent_dim; their shapes"):
        select_n_states(sequences)


def test_the_defaults_are_those_of_a_study_but_for_the_least_numbers():
    found = select_n_states([z[:20] for z in planted(1)], n_states=(1, 2))
    assert found.status == "ok"


# One fit of a grid


def fit(sequences, n_states, seed=0, **changes):
    return fit_hmm(sequences, n_states, 0, seed, dataclasses.replace(LOOSE, **changes))


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_finds_the_planted_parameters(kind):
    model = fit(planted(n_sequences=20), 3, covariance_type=kind).model
    order = np.argsort(model.means_ @ [1, 2])
    np.testing.assert_allclose(model.means_[order], [[0, 0], [6, 0], [0, 6]], atol=0.25)
    transitions = [[0.7, 0.25, 0.05], [0.05, 0.7, 0.25], [0.25, 0.05, 0.7]]
    np.testing.assert_allclose(model.transmat_[np.ix_(order, order)], transitions, atol=0.07)
    np.testing.assert_allclose(model.covars_, np.tile(np.eye(2), (3, 1, 1)), atol=0.25)


def test_restarts_with_different_seeds_differ_and_with_the_same_do_not():
    sequences = [noise(100, 3, s) for s in range(3)]
    for restart in (0, 1):  # k-means, random
        found = [fit_hmm(sequences, 6, restart, seed, LOOSE).log_likelihood for seed in range(4)]
        assert len(set(found)) == 4
        assert fit_hmm(sequences, 6, restart, 2, LOOSE).log_likelihood == found[2]


def test_a_number_of_states_that_the_data_cannot_carry_is_skipped():
    params = HmmParams(covariance_type="diag", min_snippets_per_state=100)
    skipped = fit_hmm(planted(), 4, 2, 0, params)
    assert (skipped.status, skipped.restart, skipped.model) == ("skipped", 2, None)
    assert skipped.reason == "360 snippets leave fewer than 100 a state"
    assert fit_hmm(planted(), 3, 0, 0, params).status == "ok"


def test_used_up_iterations_are_said():
    sequences = [noise(100, 3, s) for s in range(3)]
    short = fit(sequences, 6, n_iter=3, max_repairs=0)
    assert (short.status, short.converged, short.n_iter) == ("not_converged", False, 3)
    assert short.reason == "3 iterations used up"
    assert math.isfinite(short.bic)
    long = fit(sequences, 6)
    assert (long.status, long.converged, long.reason) == ("ok", True, "")


@pytest.mark.parametrize("error", [ValueError, np.linalg.LinAlgError])
def test_an_error_in_a_fit_is_a_failed_fit(monkeypatch, error):
    def fail(*_, **__):
        raise error("eigenvalues did not converge")

    monkeypatch.setattr("models.hmm.fitting.run_em", fail)
    found = fit(planted(), 3)
    assert (found.status, found.reason) == ("failed", "eigenvalues did not converge")
    assert found.model is None
    assert np.isnan([found.log_likelihood, found.bic, found.aic, found.icl]).all()


def test_a_merge_search_outlives_fits_that_fail(monkeypatch):
    """A fit with one state more that fails must not end the search."""
    songs = songs_of(planted())
    params = dataclasses.replace(QUICK, n_states=(3, 3), max_n_states=4)
    search = MergeSearch(songs, params, 0)
    finish = search._finish

    def failing_above_three(n_states, start, origin):
        if n_states > 3:
            return False
        return finish(n_states, start, origin)

    monkeypatch.setattr(search, "_finish", failing_above_three)
    search.run()
    assert {f.n_states for f in search.fits} == {2, 3}


def test_a_run_that_is_taken_further_stays_as_it_was():
    songs = songs_of(planted())
    search = MergeSearch(songs, QUICK, 0)
    _, em = search._rough("coarse", 3, 2)
    means = em.model.means_.copy()
    assert search._finish(3, em.model, Origin("polish", "merge"))
    np.testing.assert_array_equal(em.model.means_, means)
    assert not np.array_equal(search._runs[3][1].model.means_, means)
