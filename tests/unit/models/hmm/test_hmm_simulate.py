"""What is planted in simulated latents is measured in them, not read from the parameters."""

import dataclasses
import functools

import numpy as np
import pytest
from hmmlearn import hmm

from models.hmm.latent_params import LatentParams
from models.hmm.simulate import simulate_latents
from tests.helpers.hmm_songs import KINDS, joined, matrices

FEW = LatentParams(n_states=4, latent_dim=3, n_snippets=60_000, n_songs=300)


@functools.cache
def made(seed=1, **changes):
    return simulate_latents(dataclasses.replace(FEW, **changes), seed)


def path_of(found):
    return np.concatenate(found.states)


def residuals(found):
    """Latents less the mean of their state, in standard deviations of each dimension."""
    rest = np.concatenate(found.songs) - found.model.means_[path_of(found)]
    return rest / np.sqrt(np.einsum("kii->ki", matrices(found.model)))[path_of(found)]


def counts(found, order):
    """How often states follow each other, never over the border of songs [n_states, ...]."""
    table = np.zeros((len(found.shares),) * (order + 1))
    for s in found.states:
        np.add.at(table, tuple(s[i : len(s) - order + i] for i in range(order + 1)), 1)
    return table


def bits(table):
    p = table[table > 0] / table.sum()
    return float(-(p * np.log2(p)).sum())


def memory(found):
    """I(next state; one before | state) in bits, of what was sung."""
    two, three = counts(found, 1), counts(found, 2)
    return 2 * bits(two) - bits(two.sum(1)) - bits(three)


def autocorrelation(songs, lag):
    pairs = [(s[:-lag], s[lag:]) for s in songs if len(s) > lag]
    before, after = (np.concatenate(side).ravel() for side in zip(*pairs, strict=True))
    return np.corrcoef(before, after)[0, 1]


# Songs


def test_songs_have_the_number_and_the_lengths_that_are_asked_for():
    found = made(n_snippets=50_001, n_songs=400, length_variation=0.3)
    lengths = np.array([len(s) for s in found.songs])
    assert (len(lengths), lengths.sum()) == (400, 50_001)
    assert lengths.min() >= 1
    assert lengths.std() / lengths.mean() == pytest.approx(0.3, abs=0.04)
    assert [len(s) for s in found.states] == lengths.tolist()
    assert found.songs[0].shape == (lengths[0], 3)


def test_songs_without_variation_are_equally_long():
    lengths = [len(s) for s in made(n_snippets=1_005, n_songs=10, length_variation=0.0).songs]
    assert set(lengths) == {100, 101} and sum(lengths) == 1_005


def test_as_many_songs_as_snippets_are_songs_of_one():
    assert {len(s) for s in made(n_snippets=50, n_songs=50).songs} == {1}


def test_a_seed_gives_the_same_numbers_again_and_another_seed_others():
    params = dataclasses.replace(FEW, n_snippets=2_000, order=2, t_df=5, covariance_type="full")
    one, again, other = (simulate_latents(params, seed) for seed in (3, 3, 4))
    for a, b in zip(one.songs, again.songs, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(one.songs[0][0] - other.songs[0][0]).min() > 0
    assert np.abs(one.shares - other.shares).min() > 0


def test_the_model_does_not_depend_on_how_much_song_there_is():
    less, more = made(), made(n_snippets=1_000, n_songs=7)
    np.testing.assert_array_equal(less.model.means_, more.model.means_)
    np.testing.assert_array_equal(less.model.transmat_, more.model.transmat_)
    assert less.accuracy == more.accuracy


def test_the_states_do_not_depend_on_the_emissions():
    for other in ({"covariance_type": "full"}, {"t_df": 3.0}, {"ar": 0.5}, {"latent_dim": 7}):
        np.testing.assert_array_equal(path_of(made()), path_of(made(**other)))


# The chain


@pytest.mark.parametrize("order", [1, 2])
def test_states_follow_each_other_as_often_as_the_truth_says(order):
    found = made(order=order)
    n = counts(found, order)
    errors = np.sqrt(found.transitions * (1 - found.transitions) / n.sum(-1, keepdims=True))
    measured = n / n.sum(-1, keepdims=True)
    assert np.abs((measured - found.transitions) / errors).max() < 4.5
    assert (errors < 0.1).all()


@pytest.mark.parametrize("changes", [{}, {"order": 2}, {"rarest": 0.05}])
def test_states_are_as_frequent_as_the_truth_says_from_the_first_snippet_on(changes):
    found = made(n_songs=6_000, **changes)
    measured = np.bincount(path_of(found)) / len(path_of(found))
    np.testing.assert_allclose(measured, found.shares, atol=0.01)
    first = np.bincount([s[0] for s in found.states], minlength=4) / 6_000
    np.testing.assert_allclose(first, found.shares, atol=0.025)
    np.testing.assert_allclose(found.model.startprob_, found.shares)


def test_a_state_stays_by_its_stickiness_beside_what_it_stays_by_chance():
    loose, sticky = (np.trace(counts(made(stickiness=by), 1)) / 59_700 for by in (0.0, 0.8))
    assert sticky == pytest.approx(0.8 + 0.2 * loose, abs=0.01)


@pytest.mark.parametrize("order", [1, 2])
def test_entropies_of_the_chain_are_those_of_what_is_sung(order):
    found = made(order=order)
    rate = bits(counts(found, 2)) - bits(counts(found, 1))
    assert found.entropy_rate_bits == pytest.approx(rate, abs=0.01)
    told = bits(np.bincount(path_of(found))) - rate
    assert found.predictive_information_bits == pytest.approx(told, abs=0.02)


def test_a_chain_of_second_order_remembers_one_state_more():
    first, second = made(n_states=6), made(n_states=6, order=2)
    assert memory(first) < 0.005
    assert first.beyond_first_order_bits == pytest.approx(0, abs=1e-12)
    assert second.beyond_first_order_bits == pytest.approx(memory(second), abs=0.01)
    assert memory(second) > 0.2


def test_pairs_tell_nothing_of_the_order():
    first, second = made(), made(order=2)
    np.testing.assert_allclose(second.model.transmat_, first.model.transmat_)
    pairs = counts(second, 1)
    measured = pairs / pairs.sum(1, keepdims=True)
    np.testing.assert_allclose(measured, first.model.transmat_, atol=0.02)


def test_the_rarest_state_has_its_share_of_the_commonest():
    n = np.sort(np.bincount(path_of(made(n_states=3, rarest=0.01, stickiness=0.0))))
    assert n[0] / n[2] == pytest.approx(0.01, rel=0.2)
    assert n[1] / n[2] == pytest.approx(0.1, rel=0.1)  # geometrically between


# Silence


@pytest.mark.parametrize("order", [1, 2])
def test_silence_has_its_share_of_the_snippets(order):
    found = made(n_states=6, silence_share=0.45, n_silent=2, order=order, n_snippets=200_000)
    share = np.bincount(path_of(found)) / 200_000
    assert found.n_silent == 2
    assert share[:2].sum() == pytest.approx(0.45, abs=0.01)
    assert share[0] == pytest.approx(share[1], abs=0.01)


def test_silence_is_narrow_and_in_one_place():
    found = made(n_states=6, silence_share=0.45, n_silent=3, silence_variance=0.01, latent_dim=20)
    X, path = np.concatenate(found.songs), path_of(found)
    means = np.stack([X[path == k].mean(0) for k in range(6)])
    variance = np.array([X[path == k].var(0).mean() for k in range(6)])
    np.testing.assert_allclose(variance, [0.01] * 3 + [1] * 3, rtol=0.05)
    apart = np.linalg.norm(means[:, None] - means, axis=-1)
    silent, sounding = apart[:3, :3], apart[3:, 3:]
    assert 0 < silent.max() < 0.2 * sounding[sounding > 0].min()
    # Against their own spread they are as far apart as sounding states, but for chance.
    scaled = silent[silent > 0].mean() / 0.1
    assert scaled == pytest.approx(sounding[sounding > 0].mean(), rel=0.3)


def test_rare_states_are_rare_among_those_that_sound():
    found = made(n_states=5, silence_share=0.6, n_silent=1, rarest=0.05, stickiness=0.0)
    n = np.bincount(path_of(found))
    assert n[0] / n.sum() == pytest.approx(0.6, abs=0.02)
    assert n[1:].min() / n[1:].max() == pytest.approx(0.05, rel=0.2)


# Emissions


@pytest.mark.parametrize("kind", KINDS)
def test_latents_scatter_about_their_states_as_the_covariances_say(kind):
    found = made(covariance_type=kind, condition=9.0)
    X, path, true = np.concatenate(found.songs), path_of(found), matrices(found.model)
    measured = np.stack([np.cov(X[path == k].T) for k in range(4)])
    np.testing.assert_allclose(measured, true, atol=0.09)
    axes = np.linalg.eigvalsh(measured)
    np.testing.assert_allclose(axes.mean(1), 1, atol=0.05)
    condition = 1 if kind == "spherical" else 9
    np.testing.assert_allclose(axes[:, -1] / axes[:, 0], condition, rtol=0.12)
    slanted = np.abs(measured - [np.diag(np.diag(m)) for m in measured]).max()
    differ = np.abs(measured - measured[0]).max()
    assert (slanted > 0.3) == (kind in ("tied", "full"))
    assert (differ > 0.3) == (kind in ("diag", "full"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("accuracy", [0.8, 0.97])
def test_the_truth_names_as_many_states_rightly_as_is_asked_for(kind, accuracy):
    found = made(
        covariance_type=kind, separation=accuracy, n_states=8, latent_dim=6,
        condition=2.0, n_snippets=20_000, n_songs=100,
    )  # fmt: skip
    peer = hmm.GaussianHMM(8, kind)  # not our recursions
    peer.n_features = 6
    peer.startprob_, peer.transmat_ = found.model.startprob_, found.model.transmat_
    peer.means_, peer.covars_ = found.model.means_, found.model._covars_
    X, lengths = joined(found.songs)
    named = peer.predict_proba(X, lengths).argmax(1)
    assert (named == path_of(found)).mean() == pytest.approx(accuracy, abs=0.02)
    assert found.accuracy == pytest.approx(accuracy, abs=0.001)


def test_means_lie_as_far_apart_as_is_asked_for():
    found = made(separation=2.5, separated_by="distance", n_states=10, latent_dim=200,
                 n_snippets=2_000, n_songs=10)  # fmt: skip
    X, path = np.concatenate(found.songs), path_of(found)
    means = np.stack([X[path == k].mean(0) for k in range(10)])
    assert means.std() == pytest.approx(2.5, rel=0.1)
    assert found.distance == 2.5


def test_t_noise_has_heavy_tails_and_the_variance_of_normal_noise():
    def kurtosis(found):
        rest = residuals(found)
        np.testing.assert_allclose(rest.var(0), 1, atol=0.05)
        return (rest**4).mean() - 3

    assert kurtosis(made()) == pytest.approx(0, abs=0.1)
    assert kurtosis(made(t_df=10.0, covariance_type="diag")) == pytest.approx(6 / 6, abs=0.25)


@pytest.mark.parametrize("ar", [0.0, 0.8, -0.3])
def test_noise_is_correlated_within_a_song_and_begins_anew_with_the_next(ar):
    found = made(ar=ar, n_songs=6_000)
    noise = residuals(found)
    songs = np.split(noise, np.cumsum([len(s) for s in found.songs])[:-1])
    assert autocorrelation(songs, 1) == pytest.approx(ar, abs=0.015)
    assert autocorrelation(songs, 2) == pytest.approx(ar**2, abs=0.015)
    assert noise.var() == pytest.approx(1, abs=0.03)
    first, last = np.stack([s[0] for s in songs]), np.stack([s[-1] for s in songs])
    assert first.var() == pytest.approx(1, abs=0.05)
    assert np.corrcoef(last[:-1].ravel(), first[1:].ravel())[0, 1] == pytest.approx(0, abs=0.03)


# What cannot be simulated


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"n_states": 0}, "n_states is 0: give 1 to"),
        ({"latent_dim": 0}, "latent_dim is 0"),
        ({"n_songs": 0}, "n_songs is 0"),
        ({"n_snippets": 299}, "299 for 300 songs.*raise n_snippets"),
        ({"length_variation": -0.1}, "length_variation is -0.1: give 0 to 10"),
        ({"separation": 1.0}, "separation is 1.0: an accuracy lies between 0 and 1"),
        ({"separation": 0.0, "separated_by": "distance"}, "separation is 0.0.*above 0"),
        ({"separated_by": "luck"}, "'luck': choose one of accuracy, distance"),
        ({"stickiness": 1.0}, "stickiness is 1.0: give 0 to 0.999"),
        ({"order": 3}, "order is 3: choose 1 or 2"),
        ({"order": 2, "n_states": 1}, "order is 2 with one state"),
        ({"covariance_type": "round"}, "'round': choose one of spherical, diag, tied, full"),
        ({"condition": 0.5}, "condition is 0.5: give 1 to"),
        ({"silence_share": 1.0, "n_silent": 1}, "silence_share is 1.0: give 0, or"),
        ({"silence_share": 0.4}, "n_silent is 0: silence needs states.*Give both"),
        ({"n_silent": 1}, "silence_share is 0.0 and n_silent is 1.*Give both"),
        ({"silence_share": 0.4, "n_silent": 4}, "n_silent is 4 of 4 states.*fewer"),
        ({"silence_variance": 0.0}, "silence_variance is 0.0: give"),
        ({"silence_share": 0.4, "n_silent": 1, "covariance_type": "tied"}, "tied with silence"),
        ({"rarest": 0.0}, "rarest is 0.0: give"),
        ({"t_df": 2.0}, "t_df is 2.0: it must be above 2"),
        ({"ar": 1.0}, "ar is 1.0: give a number between -1 and 1"),
        ({"ar": float("nan")}, "ar is nan"),
    ],
)
def test_what_cannot_be_is_refused_with_its_remedy(changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(FEW, **changes)


def test_an_accuracy_that_no_distance_gives_is_refused():
    with pytest.raises(ValueError, match=r"accuracy of 0.3, but .* give 0\.\d+.*raise it"):
        made(separation=0.3)


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed is -1: it must be 0 or more"):
        made(seed=-1)


def test_noise_of_overlapping_snippets_is_shared_by_their_part_in_common():
    rest = residuals(made(overlap=4))
    lengths = np.cumsum([len(s) for s in made(overlap=4).songs])[:-1]
    songs = np.split(rest, lengths)
    assert rest.var() == pytest.approx(1.0, abs=0.03)
    found = [autocorrelation(songs, lag) for lag in (1, 2, 3, 4, 5)]
    assert found == pytest.approx([0.75, 0.5, 0.25, 0.0, 0.0], abs=0.03)


def test_overlap_and_drifting_noise_are_refused_together():
    with pytest.raises(ValueError, match="overlap is 4 and ar is 0.5"):
        LatentParams(overlap=4, ar=0.5)
