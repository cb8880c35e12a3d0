"""Chains of syllables against enumeration, against long song, and against scipy."""

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
from numpy.random import default_rng
from scipy.spatial.distance import jensenshannon

from data_io.aviary.syntax import Chain, divergence_rate, motif_chain, pair_divergence

KINDS = ["first_order", "second_order", "repeats"]


def chain_of(kind, order=0.1, motif="abcd", branching=0.25, repeats=(2, 3)):
    return motif_chain(tuple(motif), kind, order, branching=branching, repeats=repeats)


def steady(chain):
    """Stationary contexts by eigenvectors."""
    matrix = np.zeros((len(chain.probs),) * 2)
    for context, row in enumerate(chain.probs):
        for label, p in enumerate(row):
            matrix[context, chain.onward[context, label]] += p
    values, vectors = np.linalg.eig(matrix.T)
    found = np.real(vectors[:, np.argmin(np.abs(values - 1.0))])
    return found / found.sum()


def probability(chain, context, string):
    p = 1.0
    for label in string:
        p *= chain.probs[context, label]
        context = chain.onward[context, label]
    return p


def entropy(probs):
    probs = np.asarray(probs)[np.asarray(probs) > 0.0]
    return float(-(probs * np.log2(probs)).sum())


def block_entropies(chain, n):
    """H of strings of n labels in the long run, and the same where the first context is known."""
    contexts = steady(chain)
    table = np.array(
        [
            [probability(chain, context, string) for string in product(range(4), repeat=n)]
            for context in range(len(contexts))
        ]
    )
    known = sum(p * entropy(row) for p, row in zip(contexts, table, strict=True))
    return entropy(contexts @ table), known


@pytest.mark.parametrize("order", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("kind", KINDS)
def test_entropy_rate_lies_between_the_bounds_of_enumerated_strings(kind, order):
    chain = chain_of(kind, order)
    (longer, longer_known), (shorter, shorter_known) = (block_entropies(chain, n) for n in (5, 4))
    upper, lower = longer - shorter, longer_known - shorter_known
    assert upper - lower < 1e-9  # five syllables tell the context, repeats of up to three too
    assert chain.entropy_rate() == pytest.approx(upper, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_information_is_that_of_enumerated_pairs(kind):
    chain = chain_of(kind)
    (one, _), (two, _) = (block_entropies(chain, n) for n in (1, 2))
    assert chain.predictive_information() == pytest.approx(one - chain.entropy_rate(), abs=1e-9)
    beyond = two - one - chain.entropy_rate()
    assert chain.beyond_first_order() == pytest.approx(max(beyond, 0.0), abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_transition_matrix_is_that_of_long_song(kind):
    chain = chain_of(kind, 0.2)
    song = np.array(chain.sing(default_rng(0), 100_000))
    counts = np.zeros((4, 4))
    np.add.at(counts, (song[:-1], song[1:]), 1)
    expected = chain.transition_matrix()
    se = np.sqrt(expected * (1 - expected) / counts.sum(axis=1, keepdims=True))
    # Counts of repeats hang together, so their spread is larger than the binomial one.
    assert (np.abs(counts / counts.sum(axis=1, keepdims=True) - expected) < 5 * se + 1e-9).all()
    np.testing.assert_allclose(np.bincount(song) / len(song), chain.label_probs(), atol=0.01)


def conditional_information(song):
    """I(next; last but one | last) of the counts of a song, bits."""
    triples = Counter(zip(song[:-2], song[1:-1], song[2:], strict=True))
    n = sum(triples.values())
    parts = {
        places: entropy([c / n for c in _marginal(triples, places).values()])
        for places in ((0, 1), (1, 2), (1,), (0, 1, 2))
    }
    return parts[0, 1] + parts[1, 2] - parts[1,] - parts[0, 1, 2]


def _marginal(triples, places):
    found = Counter()
    for triple, count in triples.items():
        found[tuple(triple[i] for i in places)] += count
    return found


@pytest.mark.parametrize("motif", ["abcd", "abcde", "abcdefg"])
def test_what_follows_in_second_order_song_depends_on_the_syllable_before_the_last(motif):
    second, first = (chain_of(kind, 0.02, motif) for kind in ("second_order", "first_order"))
    assert second.beyond_first_order() >= 0.3
    assert first.beyond_first_order() == pytest.approx(0.0, abs=1e-12)
    song = second.sing(default_rng(1), 50_000)
    assert conditional_information(song) == pytest.approx(second.beyond_first_order(), abs=0.02)
    assert conditional_information(first.sing(default_rng(1), 50_000)) < 0.01


def run_lengths(song, label):
    text = "".join("x" if sung == label else " " for sung in song)
    return np.array([len(run) for run in text.split()[1:-1]])


def test_a_repeated_syllable_is_sung_three_to_six_times_all_equally_often():
    chain = chain_of("repeats", 0.0, repeats=(3, 6))
    runs = run_lengths(chain.sing(default_rng(2), 50_000), label=2)
    shares = np.bincount(runs, minlength=7) / len(runs)
    np.testing.assert_allclose(shares, [0, 0, 0, 0.25, 0.25, 0.25, 0.25], atol=0.02)
    # What a run of a first-order model would be on average.
    assert 1.0 / (1.0 - chain.transition_matrix()[2, 2]) == pytest.approx(4.5)


def test_a_grown_bird_sings_its_motif_and_skips_the_second_syllable_at_times():
    song = "".join(
        "abcde"[i] for i in chain_of("first_order", 0.0, "abcde").sing(default_rng(3), 4000)
    )
    assert song.startswith(("abcde", "acde"))
    motifs = song.replace("abcde", "1").replace("acde", "2")
    assert set(motifs.rstrip("abcd")) == {"1", "2"}
    assert motifs.count("2") / len(motifs) == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_order_variability_mixes_every_row_with_chance(kind):
    grown, mixed, chance = (chain_of(kind, order) for order in (0.0, 0.3, 1.0))
    np.testing.assert_allclose(mixed.probs, 0.7 * grown.probs + 0.3 / 4, atol=1e-12)
    assert chance.entropy_rate() == pytest.approx(2.0)
    assert chance.predictive_information() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("kind_b", KINDS)
@pytest.mark.parametrize("kind_a", KINDS)
def test_divergence_rate_is_the_mean_log_ratio_over_long_song(kind_a, kind_b):
    a, b = chain_of(kind_a, 0.1, "abcd"), chain_of(kind_b, 0.3, "dbac")
    context_a, context_b, ratios = a.start, b.start, []
    for label in a.sing(default_rng(4), 20_000):
        label_b = b.labels.index(a.labels[label])
        ratios.append(math.log2(a.probs[context_a, label] / b.probs[context_b, label_b]))
        context_a, context_b = a.onward[context_a, label], b.onward[context_b, label_b]
    blocks = np.mean(np.reshape(ratios, (100, -1)), axis=1)
    se = blocks.std(ddof=1) / 10
    assert se < 0.03
    assert divergence_rate(a, b) == pytest.approx(blocks.mean(), abs=4 * se)
    assert divergence_rate(a, b) > 0.5


def test_divergence_rate_of_first_order_chains_is_the_textbook_sum():
    a, b = chain_of("first_order", 0.1), chain_of("first_order", 0.4)
    p, q = a.transition_matrix(), b.transition_matrix()
    expected = a.label_probs() @ (p * np.log2(p / q)).sum(axis=1)
    assert divergence_rate(a, b) == pytest.approx(expected, rel=1e-9)
    assert divergence_rate(a, a) == 0.0


def test_divergence_rate_is_infinite_where_a_syllable_is_never_sung():
    few, more = chain_of("first_order", 0.1, "abcd"), chain_of("first_order", 0.1, "abcde")
    assert divergence_rate(more, few) == math.inf
    assert math.isfinite(divergence_rate(few, more))
    # Both know all syllables, but one has an order without exception.
    assert divergence_rate(few, chain_of("first_order", 0.0)) == math.inf


@pytest.mark.parametrize("kind", KINDS)
def test_pair_divergence_is_that_of_scipy(kind):
    a, b = chain_of("first_order", 0.1, "abcd"), chain_of(kind, 0.3, "ebcxd")

    def joint(chain):
        given = dict(zip(chain.labels, chain.transition_matrix(), strict=True))
        share = dict(zip(chain.labels, chain.label_probs(), strict=True))
        return [
            share[x] * given[x][chain.labels.index(y)] if {x, y} <= set(chain.labels) else 0.0
            for x in "abcdex"
            for y in "abcdex"
        ]

    expected = jensenshannon(joint(a), joint(b), base=2) ** 2
    assert pair_divergence(a, b) == pytest.approx(expected, rel=1e-9)
    assert pair_divergence(b, a) == pytest.approx(expected, rel=1e-9)


def test_pair_divergence_is_0_for_the_same_song_and_1_for_song_without_a_common_syllable():
    a = chain_of("second_order", 0.1)
    assert pair_divergence(a, a) == 0.0
    assert pair_divergence(a, chain_of("second_order", 0.1, "efgh")) == pytest.approx(1.0)


def test_a_chain_that_never_returns_has_the_shares_of_where_it_ends():
    # From context 0 to the alternation of 1 and 2, which has a period of two.
    chain = Chain(
        ("a", "b"),
        np.array([[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]]),
        np.array([[1, 2], [2, 2], [1, 1]]),
        start=0,
    )
    np.testing.assert_allclose(chain.context_probs(), [0.0, 0.5, 0.5], atol=1e-12)
    np.testing.assert_allclose(chain.transition_matrix(), [[0, 1], [1, 0]], atol=1e-12)


def test_a_chain_that_can_end_in_two_ways_has_the_shares_of_its_start():
    # From context 0 to endless a (1 in 4) or to endless b; context 3 is never reached.
    chain = Chain(
        ("a", "b"),
        np.array([[0.25, 0.75], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]),
        np.array([[1, 2], [1, 1], [2, 2], [1, 1]]),
        start=0,
    )
    np.testing.assert_allclose(chain.context_probs(), [0.0, 0.25, 0.75, 0.0], atol=1e-12)
    np.testing.assert_allclose(chain.label_probs(), [0.25, 0.75], atol=1e-12)


def test_the_row_of_a_syllable_that_is_never_sung_is_nan():
    chain = chain_of("first_order", 0.0, branching=1.0)
    assert np.isnan(chain.transition_matrix()[1]).all()
    np.testing.assert_allclose(chain.transition_matrix()[0], [0, 0, 1, 0])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"motif": "abc"}, r"motif is \('a', 'b', 'c'\): .*4 or more different.*; name each once"),
        ({"motif": "abca"}, "motif is .*; name each once"),
        ({"kind": "third_order"}, "kind is 'third_order': .*choose from first_order, "),
        ({"order": 1.1}, "order_variability is 1.1: .*choose a value from 0 to 1"),
        ({"order": math.nan}, "order_variability is nan"),
    ],
)
def test_what_is_no_motif_is_refused(changed, words):
    with pytest.raises(ValueError, match=words):
        chain_of(**{"kind": "first_order"} | changed)


@pytest.mark.parametrize(
    ("probs", "onward", "start", "words"),
    [
        ([[0.5, 0.4]], [[0, 0]], 0, r"sum to 0.9.*all sum to 1"),
        ([[1.5, -0.5]], [[0, 0]], 0, "least value -0.5"),
        ([[0.5, 0.5]], [[0, 1]], 0, "contexts 0 to 1: there are 1"),
        ([[0.5, 0.5]], [[0, 0]], 1, "contexts 0 to 1"),
        ([[0.5, 0.5]], [[0]], 0, r"onward has shape \(1, 1\): .*give \(1, 2\)"),
        ([[1.0]], [[0]], 0, r"probs has shape \(1, 1\)"),
    ],
)
def test_what_is_no_chain_is_refused(probs, onward, start, words):
    with pytest.raises(ValueError, match=words):
        Chain(("a", "b"), np.array(probs), np.array(onward), start)
