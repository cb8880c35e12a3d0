"""What is counted in the labels of a simulated bird and age: entropies, dependence, runs."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
from numpy.random import Generator, default_rng

from benchmarks.aviary_heard import Floats, Row

N_BOOTSTRAPS = 100
N_DRAWN = 40
LONGEST_RUN = 100
Bouts = list[list[int]]  # labels of syllables by their place in the table


@dataclass(frozen=True)
class Finding:
    """One measurement of one fact; ``se`` is 0 where it is not known."""

    fact: str
    planted: float
    found: float
    se: float = 0.0


def bouts(sounds: Iterable[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Recording and sounds of every bout."""
    sung = [sound for sound in sounds if sound["bout"] >= 0]
    for (recording, _), bout in groupby(sung, lambda sound: (sound["recording"], sound["bout"])):
        yield recording, list(bout)


def songs(sounds: Iterable[Row]) -> list[list[str]]:
    """Labels of the syllables of every bout."""
    return [
        [sound["label"] for sound in bout if sound["kind"] == "syllable"]
        for _, bout in bouts(sounds)
    ]


def bootstrapped(of: Callable[[Floats], Any], parts: Floats) -> tuple[float, float]:
    """A statistic of sums over ``parts [n, ...]`` and its standard error."""
    rng = default_rng(0)
    flat = parts.reshape(len(parts), -1)
    weights = rng.multinomial(len(parts), np.full(len(parts), 1.0 / len(parts)), N_BOOTSTRAPS)
    again = [of(sums.reshape(parts.shape[1:])) for sums in weights @ flat]
    return float(of(parts.sum(axis=0))), float(np.std(again, ddof=1))


def entropy_findings(age: Row, sung: list[list[str]]) -> Iterator[Finding]:
    """Entropy rate of counted contexts, and the mean surprise by the probabilities planted."""
    bouts = coded(age, sung)
    yield against_drawn("entropy rate, bits", age["entropy_rate_bits"], entropy_rate, age, bouts)

    probs = np.array(age["context_probs"])
    surprises = -np.log2(np.maximum(probs, 1e-300))
    row_entropies = (probs * np.where(probs > 0.0, surprises, 0.0)).sum(axis=1)
    counts = count_contexts(age, bouts)
    # In the contexts that were sung, since bouts begin in one.
    expected = (counts.sum(axis=1) * row_entropies).sum() / counts.sum()
    found = (counts * surprises).sum() / counts.sum()
    variances = (probs * (surprises - row_entropies[:, None]) ** 2).sum(axis=1)
    se = np.sqrt((counts.sum(axis=1) * variances).sum()) / counts.sum()
    yield Finding("surprise by the chain, bits", expected, found, se)


def order_findings(age: Row, bird: Row, sung: list[list[str]]) -> Iterator[Finding]:
    """Dependence on the syllable before the last, or runs of a repeated syllable."""
    bouts = coded(age, sung)
    if age["syntax"] == "repeats":
        repeated = age["labels"].index(bird["repeated_label"])
        planted = 1.0 / (1.0 - age["transition_matrix"][repeated][repeated])
        mean = partial(mean_run, repeated=repeated)
        yield against_drawn("mean run of the repeated", planted, mean, age, bouts)
    else:
        name = f"beyond first order, {age['syntax'].replace('_', ' ')}"
        planted = age["beyond_first_order_bits"]
        yield against_drawn(name, planted, beyond_first_order, age, bouts)


def against_drawn(
    fact: str,
    planted: float,
    statistic: Callable[[Row, Bouts], float],
    age: Row,
    bouts: Bouts,
) -> Finding:
    """A statistic of song, with its bias taken off.

    Counts of little song seem to hold more order than there is, and bouts begin in one context.
    Song that is drawn from the table, in bouts of the same lengths, tells how far both move the
    statistic from what is planted, and how far it spreads.
    """
    rng = default_rng(0)
    drawn = [statistic(age, redrawn(rng, age, bouts)) for _ in range(N_DRAWN)]
    found = statistic(age, bouts) - (np.mean(drawn) - planted)
    return Finding(fact, planted, float(found), float(np.std(drawn, ddof=1)))


def coded(age: Row, sung: list[list[str]]) -> Bouts:
    """Bouts as indices of the labels of the table."""
    number = {label: i for i, label in enumerate(age["labels"])}
    return [[number[label] for label in labels] for labels in sung]


def count_contexts(age: Row, bouts: Bouts) -> Floats:
    """How often each label was sung in each context, ``[n_contexts, n_labels]``."""
    counts = np.zeros(np.shape(age["context_probs"]))
    for bout in bouts:
        context = age["context_start"]
        for label in bout:
            counts[context, label] += 1
            context = age["context_onward"][context][label]
    return counts


def entropy_rate(age: Row, bouts: Bouts) -> float:
    """Entropies of the counted rows, in the contexts of the long run, bits per syllable."""
    counts = count_contexts(age, bouts) + 1e-9  # no row is empty
    rows = counts / counts.sum(axis=1, keepdims=True)
    n_contexts = len(rows)
    matrix = np.zeros((n_contexts, n_contexts))
    np.add.at(matrix, (np.arange(n_contexts)[:, None], age["context_onward"]), rows)
    steady = np.linalg.matrix_power((matrix + np.eye(n_contexts)) / 2.0, 4096)[0]
    return float(-(steady[:, None] * rows * np.log2(rows)).sum())


def mean_run(age: Row, bouts: Bouts, repeated: int) -> float:
    """Mean length of runs, of which some are cut by the end of a bout (Kaplan & Meier 1958)."""
    reached, ended = np.zeros(LONGEST_RUN), np.zeros(LONGEST_RUN)
    for bout in bouts:
        length = 0
        for label, following in zip(bout[:-1], bout[1:], strict=True):
            length = length + 1 if label == repeated else 0
            if length:
                reached[length] += 1
                ended[length] += following != repeated
    goes_on = np.where(reached[1:] > 0.0, 1.0 - ended[1:] / np.maximum(reached[1:], 1.0), 0.0)
    return float(1.0 + np.cumprod(goes_on).sum())


def beyond_first_order(age: Row, bouts: Bouts) -> float:
    """H(next | last) - H(next | last two) of the counts, bits."""
    triples = np.zeros((len(age["labels"]),) * 3)
    for bout in bouts:
        np.add.at(triples, (bout[:-2], bout[1:-1], bout[2:]), 1)
    p = triples / triples.sum()

    def bits(q: Floats) -> float:
        return float(-(q * np.log2(q, out=np.zeros_like(q), where=q > 0.0)).sum())

    return bits(p.sum(axis=0)) - bits(p.sum(axis=(0, 2))) - bits(p) + bits(p.sum(axis=2))


def redrawn(rng: Generator, age: Row, bouts: Bouts) -> Bouts:
    """Bouts of the same lengths, drawn from the probabilities in the table."""
    cumulative = np.cumsum(age["context_probs"], axis=1)
    again = []
    for bout in bouts:
        context, song = age["context_start"], []
        for draw in rng.uniform(size=len(bout)):
            label = min(int(np.searchsorted(cumulative[context], draw)), len(age["labels"]) - 1)
            song.append(label)
            context = age["context_onward"][context][label]
        again.append(song)
    return again
