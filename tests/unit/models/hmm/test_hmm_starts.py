"""Where EM begins: seeds, structure of transitions, merges and splits."""

import dataclasses
import itertools

import numpy as np
import pytest

from models.hmm.em import TRANSITION_PRIOR, run_em, set_covariances
from models.hmm.merge_path import _cheapest_step, merge_costs, merge_path
from models.hmm.starts import (
    chained_start,
    kmeans_start,
    merged,
    random_start,
    split,
    with_new_state,
    without_rare_transitions,
    without_state,
)
from tests.helpers.hmm_songs import (
    KINDS,
    LOOSE,
    at,
    known_model,
    matrices,
    noise,
    planted,
    songs_of,
)

PARTS = ("startprob_", "transmat_", "means_", "_covars_")


def params_of(kind, **changes):
    return dataclasses.replace(LOOSE, covariance_type=kind, **changes)


def assert_sound(model, n_states, kind, d=2):
    """Shapes, and rows that sum to 1."""
    shapes = {"spherical": (n_states,), "diag": (n_states, d), "tied": (d, d),
              "full": (n_states, d, d)}  # fmt: skip
    assert model.n_components == n_states
    assert model._covars_.shape == shapes[kind]
    assert model.means_.shape == (n_states, d)
    assert model.transmat_.shape == (n_states, n_states)
    np.testing.assert_allclose(model.transmat_.sum(1), 1)
    np.testing.assert_allclose(model.startprob_.sum(), 1)
    assert (model.transmat_ >= 0).all()
    assert np.linalg.eigvalsh(matrices(model)).min() > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", [kmeans_start, random_start])
def test_starts_follow_the_seed_alone(start, kind):
    songs = songs_of([noise(100, 2, s) for s in range(3)], kind)
    params = params_of(kind)
    np.random.seed(1)  # noqa: NPY002
    models = [start(songs, 6, seed, params) for seed in range(4)]
    np.random.seed(2)  # noqa: NPY002
    again = start(songs, 6, 1, params)
    for name in PARTS:
        assert getattr(again, name).tobytes() == getattr(models[1], name).tobytes()
    # Two k-means may end in the same clusters.
    assert len({str(np.sort(m.means_, axis=0)) for m in models}) >= 3
    for model in models:
        assert_sound(model, 6, kind)


@pytest.mark.parametrize("start", [kmeans_start, random_start])
def test_of_many_snippets_some_make_the_start(start, monkeypatch):
    monkeypatch.setattr("models.hmm.starts.KMEANS_SNIPPETS", 50)
    songs = songs_of([noise(300, 2)])
    seen = {str(start(songs, 3, seed, LOOSE).means_) for seed in (0, 0, 1)}
    assert len(seen) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_k_means_starts_with_the_spread_within_clusters(kind):
    songs = songs_of(planted(), kind)
    model = songs.uncentred(kmeans_start(songs, 3, 0, params_of(kind)))
    order = np.argsort(model.means_ @ [1, 2])
    np.testing.assert_allclose(model.means_[order], [[0, 0], [6, 0], [0, 6]], atol=0.4)
    np.testing.assert_allclose(matrices(model), np.tile(np.eye(2), (3, 1, 1)), atol=0.2)


def test_a_random_start_is_at_snippets_that_share_the_volume():
    songs = songs_of([noise(400, 4)])
    model = random_start(songs, 16, 0, LOOSE)
    for mean in model.means_:
        assert np.square(songs.X - mean).sum(1).min() < 1e-20
    np.testing.assert_allclose(model._covars_, songs.X.var(0).mean() / 16 ** (2 / 4))


# Left-right transitions


def assert_left_right(model):
    np.testing.assert_array_equal(model.transmat_, np.triu(model.transmat_))
    np.testing.assert_array_equal(model.startprob_, np.eye(model.n_components)[0])


def rising(n_songs=8):
    """Songs that pass through four kinds, in order."""
    rng = np.random.default_rng(0)
    means = np.repeat(np.array([[9.0, 0], [0, 9], [0, 0], [9, 9]]), 10, axis=0)
    return [means + rng.standard_normal(means.shape) for _ in range(n_songs)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", [kmeans_start, random_start])
def test_left_right_stays_so_through_em_merges_and_splits(start, kind):
    params = params_of(kind, transitions="left_right")
    songs = songs_of(rising(), kind)
    first = start(songs, 5, 0, params)
    assert_left_right(first)
    assert (np.triu(np.ones((5, 5))) == (first.transmat_ > 0)).all()
    em = run_em(songs, first, params, 20)
    assert_left_right(em.model)
    for step in merge_path(songs, em, 2, 0, params):
        assert_left_right(step.model)
        assert_sound(step.model, step.n_states, kind)
    at_once = merged(em.model, em.stats, [(0, 1), (2, 3)], params)
    assert_left_right(at_once)
    for state in range(5):
        more = split(em.model, state, params)
        assert_left_right(more)
        middle = more.means_[state : state + 2].mean(0)  # the two are neighbours
        np.testing.assert_allclose(middle, em.model.means_[state])
        np.testing.assert_array_equal(more.means_[state + 2 :], em.model.means_[state + 1 :])
        assert_sound(more, 6, kind)
        assert_left_right(run_em(songs, more, params, 5).model)


def test_left_right_states_come_in_the_order_of_the_song():
    params = params_of("diag", transitions="left_right")
    songs = songs_of(rising())
    model = songs.uncentred(run_em(songs, kmeans_start(songs, 4, 0, params), params, 50).model)
    np.testing.assert_allclose(model.means_, [[9, 0], [0, 9], [0, 0], [9, 9]], atol=0.6)


def test_only_left_right_neighbours_are_merged():
    params = params_of("diag", transitions="left_right")
    songs = songs_of(rising())
    em = run_em(songs, kmeans_start(songs, 4, 0, params), params, 10)
    costs = merge_costs(em.model, em.stats, params)
    expected = np.eye(4, k=1, dtype=bool)
    np.testing.assert_array_equal(np.isfinite(costs), expected)


# Chained ages


@pytest.mark.parametrize("kind", KINDS)
def test_a_chained_start_is_the_model_before_with_all_transitions_open(kind):
    before = known_model(kind)
    songs = songs_of([z + 7 for z in planted()], kind)
    model = chained_start(songs, before, params_of(kind))
    assert_sound(model, 3, kind)
    np.testing.assert_allclose(model.means_ + songs.centre, before.means_, atol=1e-12)
    np.testing.assert_array_equal(model._covars_, before._covars_)
    np.testing.assert_allclose(model.transmat_, 0.95 * before.transmat_ + 0.05 / 3)
    np.testing.assert_allclose(model.startprob_, 0.95 * before.startprob_ + 0.05 / 3)
    assert before.transmat_[0, 2] == 0  # the model before is not changed
    run_em(songs, model, params_of(kind), 3)
    np.testing.assert_array_equal(before._covars_, known_model(kind)._covars_)


def test_a_chained_left_right_start_stays_so():
    params = params_of("diag", transitions="left_right")
    songs = songs_of(rising())
    before = songs.uncentred(run_em(songs, kmeans_start(songs, 4, 0, params), params, 10).model)
    model = chained_start(songs, before, params)
    assert_left_right(model)
    assert_sound(model, 4, "diag")


# Sparse transitions


def test_rare_transitions_are_dropped_and_stay_so():
    params = params_of("diag", transitions="sparse")
    songs = songs_of(planted())
    em = run_em(songs, random_start(songs, 4, 0, params), params, 30)
    em.stats["trans"][2] = 0.4  # rare throughout: the likeliest is kept
    pruned = without_rare_transitions(em.model, em.stats)
    kept = em.stats["trans"] >= 1
    kept[2, np.argmax(em.model.transmat_[2])] = True
    np.testing.assert_array_equal(pruned.transmat_ > 0, kept)
    assert not kept.all()
    assert_sound(pruned, 4, "diag")
    assert (em.model.transmat_ > 0).all()  # a copy
    after = run_em(songs, pruned, params, 10).model
    np.testing.assert_array_equal(after.transmat_[~kept], 0)


# Merges


def m_step_by_hand(X, gamma, xi, starts, prior, kind):
    """Means, covariances, transitions and starts of posteriors."""
    n = gamma.sum(0)
    means = gamma.T @ X / n[:, None]
    scatter = np.stack([
        (g[:, None] * (X - m)).T @ (X - m) for g, m in zip(gamma.T, means, strict=True)
    ])  # fmt: skip
    d = X.shape[1]
    covars = {
        "spherical": lambda: [(np.trace(s) / d + prior) / k for s, k in zip(scatter, n)],  # noqa: B905
        "diag": lambda: [(np.diag(s) + prior) / k for s, k in zip(scatter, n)],  # noqa: B905
        "tied": lambda: (scatter.sum(0) + prior * np.eye(d)) / n.sum(),
        "full": lambda: [(s + prior * np.eye(d)) / k for s, k in zip(scatter, n)],  # noqa: B905
    }[kind]()
    transitions = xi + TRANSITION_PRIOR
    return (starts / starts.sum(), transitions / transitions.sum(1, keepdims=True), means,
            np.array(covars))  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pairs", [[(1, 3)], [(0, 4), (1, 3)], [(0, 1)]])
def test_a_merge_is_an_m_step_of_summed_posteriors(kind, pairs):
    params = params_of(kind, covars_prior=0.4)
    songs = songs_of(planted(4, 30), kind)
    em = run_em(songs, random_start(songs, 5, 2, params), params, 4)
    groups = [[k] for k in range(5)]
    for keep, gone in pairs:
        groups[keep].append(gone)
        groups[gone] = []
    groups = [g for g in groups if g]
    gamma = songs.posteriors(em.model)
    gamma = np.stack([gamma[:, g].sum(1) for g in groups], axis=1)
    xi = np.array([[em.stats["trans"][np.ix_(a, b)].sum() for b in groups] for a in groups])
    expected = m_step_by_hand(songs.X, gamma, xi, gamma[::30].sum(0), 0.4, kind)
    found = merged(em.model, em.stats, pairs, params)
    assert_sound(found, len(groups), kind)
    for name, part in zip(PARTS, expected, strict=True):
        np.testing.assert_allclose(getattr(found, name), part, rtol=1e-8, atol=1e-9, err_msg=name)


def test_a_merge_keeps_the_zeros_that_both_states_have():
    songs = songs_of(planted())
    model = known_model("diag")
    model.transmat_ = np.array([[0.6, 0.4, 0.0], [0.5, 0.5, 0.0], [0.3, 0.3, 0.4]])
    em = at(songs, model, LOOSE)
    found = merged(em.model, em.stats, [(0, 1)], LOOSE)
    np.testing.assert_array_equal(found.transmat_ > 0, [[True, False], [True, True]])


@pytest.mark.parametrize("kind", KINDS)
def test_a_merge_leaves_a_dead_state_where_it_was(kind):
    params = params_of(kind)
    songs = songs_of(planted(), kind)
    start = kmeans_start(songs, 4, 0, params)
    start.means_[3] = 1e4
    set_covariances(start, np.array([[1.0, 1.0]] * 3 + [[0.4, 0.4]]), params)
    em = run_em(songs, start, params, 3)
    found = merged(em.model, em.stats, [(0, 1)], params)
    np.testing.assert_array_equal(found.means_[2], [1e4, 1e4])
    if kind != "tied":
        np.testing.assert_allclose(matrices(found)[2], 0.4 * np.eye(2))


@pytest.mark.parametrize("kind", KINDS)
def test_the_two_copies_of_a_split_state_merge_back(kind):
    params = params_of(kind)
    songs = songs_of(planted(), kind)
    em = run_em(songs, kmeans_start(songs, 3, 0, params), params, 100)
    for state in range(3):
        twice = run_em(songs, split(em.model, state, params), params, 2)
        assert twice.log_likelihood > em.log_likelihood - 0.02 * songs.n_snippets
        costs = merge_costs(twice.model, twice.stats, params)
        assert np.unravel_index(np.argmin(costs), costs.shape) == (state, 3)
        back = merged(twice.model, twice.stats, [(state, 3)], params)
        found = songs.log_likelihood(back)
        assert found == pytest.approx(em.log_likelihood, abs=0.002 * songs.n_snippets)
        for name in PARTS:
            np.testing.assert_allclose(getattr(back, name), getattr(em.model, name), atol=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_merge_costs_are_what_merges_cost_but_for_fewer_states_to_go_to(kind):
    params = params_of(kind)
    songs = songs_of(planted(10), kind)
    em = run_em(songs, kmeans_start(songs, 3, 0, params), params, 100)
    costs = merge_costs(em.model, em.stats, params)
    assert np.isinf(costs[np.tril_indices(3)]).all()
    counts = em.stats["trans"]
    for i, j in itertools.combinations(range(3), 2):
        lost = em.log_likelihood - songs.log_likelihood(
            merged(em.model, em.stats, [(i, j)], params)
        )
        one_row = np.delete(counts, j, axis=0)
        one_row[i] = counts[i] + counts[j]
        one_column = np.delete(one_row, j, axis=1)
        one_column[:, i] = one_row[:, i] + one_row[:, j]
        gained = transition_log_likelihood(one_column) - transition_log_likelihood(one_row)
        # Full matrices are ranked by their diagonals; a tied one changes with the merge.
        if kind in ("spherical", "diag"):
            assert costs[i, j] - gained == pytest.approx(lost, rel=0.1)
        assert costs[i, j] > lost


def transition_log_likelihood(counts):
    return (counts * np.log(counts / counts.sum(1, keepdims=True))).sum()


@pytest.mark.parametrize("kind", KINDS)
def test_a_merge_path_goes_down_one_by_one_to_the_lowest(kind):
    params = params_of(kind)
    songs = songs_of(planted(), kind)
    em = run_em(songs, kmeans_start(songs, 12, 0, params), params, 10)
    path = list(merge_path(songs, em, 2, 0, params))
    assert [one.n_states for one in path] == list(range(11, 1, -1))
    fast = [one.n_states for one in merge_path(songs, em, 3, 6, params)]
    assert fast == [11, 10, 9, 8, 7, 6, 5, 4, 3]
    best = max(path, key=lambda one: -abs(one.n_states - 3))
    direct = run_em(songs, kmeans_start(songs, 3, 0, params), params, 100)
    assert best.log_likelihood > direct.log_likelihood - 0.01 * songs.n_snippets


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_takes_the_best_of_the_cheapest_merges_and_of_leaving_the_rarest_out(kind):
    params = params_of(kind)
    songs = songs_of(planted(), kind)
    for seed in range(4):
        em = run_em(songs, random_start(songs, 7, seed, params), params, 5)
        found = songs.log_likelihood(_cheapest_step(songs, em, 4, params))
        costs = merge_costs(em.model, em.stats, params)
        pairs = [np.unravel_index(i, costs.shape) for i in np.argsort(costs, axis=None)[:4]]
        tried = [merged(em.model, em.stats, [pair], params) for pair in pairs]
        tried.append(without_state(em.model, int(np.argmin(em.stats["post"])), params))
        assert found == pytest.approx(max(songs.log_likelihood(one) for one in tried), rel=1e-12)
        alone = songs.log_likelihood(_cheapest_step(songs, em, 1, params))
        assert alone == pytest.approx(songs.log_likelihood(tried[0]), rel=1e-12)


def test_well_above_the_numbers_of_interest_several_merge_at_once():
    songs = songs_of(planted())
    em = run_em(songs, kmeans_start(songs, 40, 0, LOOSE), LOOSE, 3)
    numbers = [one.n_states for one in merge_path(songs, em, 18, 20, LOOSE)]
    assert numbers == [36, 33, 30, 27, 25, 23, 21, 20, 19, 18]


# States fewer and more


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_state_what_led_to_it_leads_on(kind):
    before = known_model(kind)
    model = without_state(before, 1, params_of(kind))
    assert_sound(model, 2, kind)
    # 0 to 1 (0.4), and from 1 to 0 and 2 as 0.1 to 0.2
    first = np.array([0.6 + 0.4 * 0.1, 0.0 + 0.4 * 0.2])
    last = np.array([0.5 + 0.1 * 0.1, 0.4 + 0.1 * 0.2])
    np.testing.assert_allclose(model.transmat_, [first / first.sum(), last / last.sum()])
    start = np.array([0.2 + 0.3 * 0.1, 0.5 + 0.3 * 0.2])
    np.testing.assert_allclose(model.startprob_, start / start.sum())
    np.testing.assert_array_equal(model.means_, before.means_[[0, 2]])
    np.testing.assert_array_equal(matrices(model), matrices(before)[[0, 2]])


def test_without_a_state_no_row_is_left_empty():
    before = known_model("diag")
    before.transmat_ = np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.5, 0.5]])
    model = without_state(before, 1, LOOSE)
    np.testing.assert_allclose(model.transmat_, [[0.5, 0.5], [0.0, 1.0]])


@pytest.mark.parametrize("kind", KINDS)
def test_a_split_puts_two_states_along_the_longest_axis(kind):
    before = known_model(kind)
    before.n_features = 2
    model = split(before, 1, params_of(kind))
    assert_sound(model, 4, kind)
    values, vectors = np.linalg.eigh(matrices(before)[1])
    apart = model.means_[3] - model.means_[1]
    assert np.linalg.norm(apart) == pytest.approx(np.sqrt(values[1]))
    # A round state has no longest axis.
    across = vectors[:, 0] if kind != "spherical" else np.zeros(2)
    assert apart @ across == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose((model.means_[1] + model.means_[3]) / 2, before.means_[1])
    np.testing.assert_array_equal(model.means_[[0, 2]], before.means_[[0, 2]])
    np.testing.assert_array_equal(matrices(model), matrices(before)[[0, 1, 2, 1]])
    # Together the two are entered and left as the one was.
    np.testing.assert_allclose(model.transmat_[:3, 1] + model.transmat_[:3, 3],
                               before.transmat_[:, 1])  # fmt: skip
    np.testing.assert_array_equal(model.transmat_[1], model.transmat_[3])
    np.testing.assert_allclose(model.startprob_, [0.2, 0.15, 0.5, 0.15])


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_state_goes_where_snippets_are_explained_worst(kind):
    params = params_of(kind, min_snippets_per_state=8)
    rare = np.array([14.0, -14.0])
    sequences = [np.concatenate([z, rare + 0.1 * noise(2, 2, 50 + i)])
                 for i, z in enumerate(planted())]  # fmt: skip
    songs = songs_of(sequences, kind)
    before = kmeans_start(songs_of(planted(), kind), 3, 0, params)
    before = songs.centred(songs_of(planted(), kind).uncentred(before))
    model = with_new_state(songs, before, params)
    assert_sound(model, 4, kind)
    np.testing.assert_allclose(model.means_[3] + songs.centre, rare, atol=0.3)
    np.testing.assert_array_equal(model.means_[:3], before.means_)
    assert run_em(songs, model, params, 20).stats["post"][3] == pytest.approx(12, abs=0.01)
