"""States that ages share: EM against one model of known parts, BIC by hand, draws by counting."""

import dataclasses
import math

import numpy as np
import pytest

from models.hmm import HmmParams, restored, shared
from models.hmm.ages import effective_number, predictive_information, silent_states, states_in_use
from models.hmm.draws import drawn, even_sizes
from models.hmm.em import Songs, new_model, run_em
from models.hmm.shared import (
    _SharedEm,
    search_shared,
    shared_bic,
    with_own_transitions,
)
from tests.helpers.hmm_songs import KINDS, planted, sung

PARAMS = HmmParams(
    n_states=(1, 8), covariance_type="diag", n_restarts=1, min_snippets=1, min_snippets_per_state=5
)
MEANS = 6.0 * np.array([[0, 0], [1, 0], [0, 1.0]])


def ages_of(orders, n_songs=8, seed=0):
    rng = np.random.default_rng(seed)
    chains = [o * np.roll(np.eye(3), 1, axis=1) + (1 - o) / 3 for o in orders]
    return [[sung(MEANS, chain, 60, rng) for _ in range(n_songs)] for chain in chains]


def start_for(songs, kind):
    model = new_model(3, 2, dataclasses.replace(PARAMS, covariance_type=kind))
    model.startprob_, model.transmat_ = np.full(3, 1 / 3), np.full((3, 3), 1 / 3)
    model.means_ = MEANS - songs.centre + [[1, 0.5], [-1, 0], [0, 1]]
    model.covars_ = {"spherical": np.ones(3), "diag": np.ones((3, 2)), "tied": np.eye(2),
                     "full": np.stack([np.eye(2)] * 3)}[kind]  # fmt: skip
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_with_one_age_shared_em_is_em(kind):
    params = dataclasses.replace(PARAMS, covariance_type=kind)
    songs = Songs(planted(), kind)
    fit, model = _SharedEm([planted()], songs.centre, params, 1.0).fit(start_for(songs, kind), 12)
    alone = run_em(songs, start_for(songs, kind), params, 12)
    assert fit.log_likelihood == pytest.approx(alone.log_likelihood, rel=1e-6)
    np.testing.assert_allclose(model.means_, alone.model.means_, atol=1e-3)


def test_shared_em_never_lowers_the_likelihood_and_ends_where_it_is_highest():
    ages = ages_of((0.0, 0.9))
    songs = Songs([s for age in ages for s in age], "diag")
    em = _SharedEm(ages, songs.centre, PARAMS, 1.0)
    found = [em.fit(start_for(songs, "diag"), n)[0].log_likelihood for n in range(1, 12)]
    assert np.all(np.diff(found) > -1e-6 * abs(found[-1]))
    _, best = em.fit(start_for(songs, "diag"), 100)
    truth = restored(np.full(3, 1 / 3), best.transmat_, MEANS - songs.centre, np.ones((3, 2)),
                     "diag")  # fmt: skip
    assert em.fit(best, 50)[0].log_likelihood > em.fit(truth, 0)[0].log_likelihood


def test_every_age_has_the_transitions_that_suit_it_best():
    ages = ages_of((0.0, 0.9))
    songs = Songs([s for age in ages for s in age], "diag")
    fit, model = _SharedEm(ages, songs.centre, PARAMS, 1.0).fit(start_for(songs, "diag"), 200)
    each = [Songs(age, "diag") for age in ages]
    own = [with_own_transitions(songs.uncentred(model), one, PARAMS) for one in each]
    assert fit.log_likelihood == pytest.approx(sum(em.log_likelihood for em in own), abs=0.1)


def test_the_search_finds_the_shared_states_and_counts_transitions_for_each_age():
    found = search_shared(ages_of((0.0, 0.5, 0.9)), PARAMS, seed=0)
    assert found.model.n_components == 3
    np.testing.assert_allclose(np.sort(found.model.means_.sum(1)), np.sort(MEANS.sum(1)), atol=0.4)
    best = next(fit for fit in found.fits if fit.n_states == 3 and fit.status == "ok")
    assert best.n_free_params == 3 * 4 + 3 * (2 + 6)
    sizes = [480] * 3
    by_hand = -2 * best.log_likelihood + 12 * math.log(1440) + 8 * 3 * math.log(480)
    assert best.bic == pytest.approx(by_hand)
    assert shared_bic(best.log_likelihood, 3, 2, "diag", sizes) == pytest.approx(by_hand)
    assert found.n_snippets == 1440


@pytest.mark.parametrize("n_ages", [2, 16])
def test_the_number_of_states_does_not_fall_as_the_same_song_is_dealt_into_more_ages(
    monkeypatch, n_ages
):
    monkeypatch.setattr(shared, "MOST_ROWS", 1200)
    rng = np.random.default_rng(0)
    means = 5.0 * np.array([[i, j] for i in range(3) for j in range(2)])
    chain = 0.3 * np.roll(np.eye(6), 1, axis=1) + 0.7 / 6
    songs = [sung(means, chain, 50, rng) for _ in range(192)]
    found = search_shared([songs[i::n_ages] for i in range(n_ages)], PARAMS, seed=0)
    assert found.model.n_components == 6
    assert found.n_snippets == 1200


def test_the_fit_to_some_snippets_lets_expect_the_likelihood_and_the_bic_of_all():
    some, all_of_them = (ages_of((0.0, 0.9), n_songs=n, seed=3) for n in (40, 200))
    centre = np.zeros(2)
    start = start_for(Songs([s for age in some for s in age], "diag"), "diag")
    start.means_ = MEANS
    sizes = [sum(map(len, age)) for age in all_of_them]
    expected = _SharedEm(some, centre, PARAMS, 1.0, sizes).fit(start, 100)[0]
    found = _SharedEm(all_of_them, centre, PARAMS, 1.0).fit(start, 100)[0]
    assert expected.log_likelihood == pytest.approx(found.log_likelihood, rel=0.01)
    assert expected.bic == pytest.approx(found.bic, rel=0.01)


def test_overlap_makes_the_penalty_smaller_and_not_the_likelihood():
    ages = ages_of((0.0, 0.9))
    whole, half = (
        next(fit for fit in search_shared(ages, PARAMS, 0, share).fits if fit.n_states == 3)
        for share in (1.0, 0.5)
    )
    assert whole.log_likelihood == pytest.approx(half.log_likelihood, rel=1e-6)
    assert whole.bic - half.bic == pytest.approx(whole.n_free_params * math.log(2), abs=0.01)


def test_ages_without_enough_song_give_the_reason():
    few = search_shared([[np.zeros((3, 2))]], dataclasses.replace(PARAMS, min_snippets=10), 0)
    assert (few.status, few.model) == ("too_few_snippets", None)
    assert "3 snippets, 10 needed" in few.reason


def test_transitions_of_an_age_are_learned_and_emissions_kept():
    (songs_of_age,) = ages_of((0.8,), n_songs=40)
    flat = restored(np.eye(3)[0], np.full((3, 3), 1 / 3), MEANS, np.ones((3, 2)), "diag")
    songs = Songs(songs_of_age, "diag")
    em = with_own_transitions(flat, songs, PARAMS)
    learned = songs.uncentred(em.model)
    truth = 0.8 * np.roll(np.eye(3), 1, axis=1) + 0.2 / 3
    np.testing.assert_allclose(learned.transmat_, truth, atol=0.03)
    np.testing.assert_array_equal(learned.means_, MEANS)
    assert em.converged
    assert learned.startprob_.min() > 0.1  # songs begin anywhere, though the start said one state


def test_zeros_of_the_structure_of_transitions_stay_zeros():
    ages = ages_of((0.9, 0.8))
    songs = Songs([s for age in ages for s in age], "diag")
    upper = np.triu(np.ones((3, 3)))
    start = start_for(songs, "diag")
    start.transmat_ = upper / upper.sum(1, keepdims=True)
    _, shared = _SharedEm(ages, songs.centre, PARAMS, 1.0).fit(start, 20)
    own = with_own_transitions(songs.uncentred(start), songs, PARAMS).model
    for model in (shared, own):
        np.testing.assert_array_equal(model.transmat_ > 0, upper > 0)
        np.testing.assert_allclose(model.transmat_.sum(1), 1)


def test_rows_are_shared_out_evenly_and_what_one_cannot_give_the_others_may():
    assert even_sizes([10, 100, 100], 90) == [10, 40, 40]
    assert even_sizes([100, 10, 5], 1000) == [100, 10, 5]
    assert sum(even_sizes([7, 9, 11], 10)) <= 10


def test_a_draw_takes_whole_songs_until_the_number_is_met_and_cuts_the_last():
    songs = [np.full((n, 1), n, dtype=float) for n in (30, 40, 50)]
    some = drawn(songs, 75, seed=1)
    assert sum(map(len, some)) == 75
    assert sum(len(s) < s[0, 0] for s in some) <= 1
    flags = drawn([np.ones(n, dtype=bool) for n in (30, 40, 50)], 75, seed=1)
    assert [len(f) for f in flags] == [len(s) for s in some]
    assert [len(s) for s in drawn(songs, 120, seed=1)] == [30, 40, 50]


def truth_bits(order):
    """Predictive information of the cycle of three with the rest by chance."""
    row = np.array([order + (1 - order) / 3, (1 - order) / 3, (1 - order) / 3])
    return math.log2(3) + (row * np.log2(np.maximum(row, 1e-300))).sum()


@pytest.mark.parametrize("order", [0.0, 0.5, 0.9])
def test_predictive_information_held_out_is_that_of_the_chain(order):
    (songs,) = ages_of((order,), n_songs=60)
    model = restored(np.full(3, 1 / 3), np.full((3, 3), 1 / 3), 3 * MEANS, np.ones((3, 2)), "diag")
    apart = [s + 2 * MEANS[np.square(s[:, None] - MEANS).sum(2).argmin(1)] for s in songs]
    found = predictive_information(apart, model, PARAMS, seed=0)
    truth = truth_bits(order) * 59 / 60  # nothing comes before the first snippet of a song
    assert found.low <= truth <= found.high + 0.005  # which the learning of transitions costs
    assert found.high - found.low < 0.15


def test_order_that_is_learned_from_chance_counts_against_songs_that_were_held_out():
    (songs,) = ages_of((0.0,), n_songs=4)
    model = restored(np.full(3, 1 / 3), np.full((3, 3), 1 / 3), MEANS, np.ones((3, 2)), "diag")
    assert predictive_information(songs, model, PARAMS, 0).value < 0


def test_without_a_song_to_hold_out_there_is_no_predictive_information():
    (songs,) = ages_of((0.5,), n_songs=1)
    model = restored(np.full(3, 1 / 3), np.full((3, 3), 1 / 3), MEANS, np.ones((3, 2)), "diag")
    assert np.isnan(predictive_information(songs, model, PARAMS, 0)).all()


def test_the_effective_number_of_equal_shares_is_their_number():
    assert effective_number(np.array([2.0, 2.0, 2.0, 0.0])) == pytest.approx(3)
    assert effective_number(np.array([5.0, 0.0])) == pytest.approx(1)
    assert math.isnan(effective_number(np.zeros(2)))


def test_states_in_use_have_an_interval_over_songs():
    same = states_in_use(np.tile([4.0, 4.0], (10, 1)), seed=0)
    assert same == pytest.approx((2, 2, 2))
    varied = states_in_use(np.repeat(np.eye(2), 5, axis=0), seed=0)
    assert varied.low < 1.99 < varied.value == pytest.approx(2)
    assert math.isnan(states_in_use(np.ones((1, 2)), seed=0).low)


def test_a_state_is_silent_where_most_of_its_snippets_hold_no_sound():
    posteriors = np.array([[1.0, 0.0], [1.0, 0.0], [0.6, 0.4], [0.0, 1.0]])
    holds_sound = np.array([False, False, True, True])
    assert silent_states(posteriors, holds_sound).tolist() == [True, False]
