"""The fan-out of HMM fits: every fit once, the longest first, seeds that depend on nothing else."""

import itertools

import pytest

from models.hmm import HmmFit, HmmParams, select_by_bic
from study.hmm_grid import _without_beaten_models, fit_cost, fit_seed, plan_batches

PARAMS = HmmParams(n_states=(5, 20, 100), n_restarts=3)
SIZES = {("a", "45"): 300, ("a", "90"): 20_000, ("b", "45"): 2_000}


@pytest.mark.parametrize("n_cores", [1, 2, 64, 1000])
def test_every_fit_is_in_one_batch(n_cores):
    batches = plan_batches(SIZES, 16, PARAMS, n_cores)
    fits = [(b.piece, *fit) for b in batches for fit in b.fits]
    assert sorted(fits) == sorted(itertools.product(SIZES, PARAMS.n_states, range(3)))


def test_the_longest_batches_go_first_and_none_is_far_above_its_share():
    batches = plan_batches(SIZES, 16, PARAMS, 4)
    costs = [b.cost for b in batches]
    assert costs == sorted(costs, reverse=True)
    longest_fit = fit_cost(20_000, 100, 16)
    assert max(costs) <= max(longest_fit, sum(costs) / (4 * 8)) * 1.001


def test_more_cores_get_more_batches():
    assert len(plan_batches(SIZES, 16, PARAMS, 1)) < len(plan_batches(SIZES, 16, PARAMS, 64))


def test_nothing_to_fit_gives_no_batch():
    assert plan_batches({}, 16, PARAMS, 2) == []


def test_seeds_differ_by_bird_age_states_and_restart_and_by_nothing_else():
    pieces = [("a", "45"), ("a", "90"), ("b", "45"), ("a4", "5")]
    keys = list(itertools.product((0, 1), pieces, (5, 20), (0, 1, 2)))
    seeds = [fit_seed(*key) for key in keys]
    assert len(set(seeds)) == len(seeds)
    assert seeds == [fit_seed(*key) for key in keys]


def test_equal_fits_keep_the_model_that_is_selected_in_whatever_order_they_arrive():
    def fit(n_states, restart, bic):
        return HmmFit(n_states, restart, "diag", -bic / 2, 1, 100, bic, bic, 5, True, "ok", "", 0.1,
                      model=f"model {n_states}/{restart}")  # fmt: skip

    fits = [fit(2, 0, 9.0), fit(3, 0, 5.0), fit(3, 1, 5.0), fit(4, 0, 5.0)]
    for order in itertools.permutations(fits):
        kept = []
        for arrived in order:
            kept = _without_beaten_models([*kept, arrived])
        best = select_by_bic(sorted(kept, key=lambda f: (-f.n_states, -f.restart))).best
        assert (best.n_states, best.restart, best.model) == (3, 0, "model 3/0")
