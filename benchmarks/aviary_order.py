"""What is counted in the labels of a simulated bird and age: entropies, dependence, runs."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.random import Generator, default_rng

from benchmarks.aviary_heard import Floats, Row

N_BOOTSTRAPS = 100


@dataclass(frozen=True)
class Finding:
    """One measurement of one fact: within two ``se``, or within ``tolerance``."""

    fact: str
    planted: float
    found: float
    se: float = 0.0
    tolerance: float = 0.0

    @property
    def is_near(self) -> bool:
        """Whether it was found."""
        return abs(self.found - self.planted) <= 2.0 * self.se + self.tolerance


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


def entropy(counts: Floats) -> Floats:
    """Entropies along the last axis of counts, bits, with Miller's and Madow's correction."""
    total = np.maximum(counts.sum(axis=-1), 1e-9)
    p = counts / total[..., None]
    logs = np.log2(p, out=np.zeros_like(p), where=p > 0.0)
    seen = (counts > 0.0).sum(axis=-1)
    return -(p * logs).sum(axis=-1) + np.maximum(seen - 1, 0) / (2.0 * total * np.log(2.0))


def bootstrapped(of: Callable[[Floats], Any], parts: Floats) -> tuple[float, float]:
    """A statistic of sums over ``parts [n, ...]`` and its standard error."""
    rng = default_rng(0)
    flat = parts.reshape(len(parts), -1)
    weights = rng.multinomial(len(parts), np.full(len(parts), 1.0 / len(parts)), N_BOOTSTRAPS)
    again = [of(sums.reshape(parts.shape[1:])) for sums in weights @ flat]
    return float(of(parts.sum(axis=0))), float(np.std(again, ddof=1))


def entropy_findings(age: Row, sung: list[list[str]]) -> Iterator[Finding]:
    """Entropy rate of counted contexts, and the mean surprise by the probabilities planted."""
    probs, onward = np.array(age["context_probs"]), np.array(age["context_onward"])
    n_contexts, n_labels = probs.shape
    number = {label: i for i, label in enumerate(age["labels"])}
    counts = np.zeros((len(sung), n_contexts, n_labels))
    for i, labels in enumerate(sung):
        context = age["context_start"]
        for label in labels:
            counts[i, context, number[label]] += 1
            context = onward[context, number[label]]

    def rate(total: Floats) -> float:
        # Rows by counts, contexts as they would be in the long run and not from bouts' starts.
        rows = (total + 1e-6) / (total + 1e-6).sum(axis=1, keepdims=True)
        matrix = np.zeros((n_contexts, n_contexts))
        np.add.at(matrix, (np.arange(n_contexts)[:, None], onward), rows)
        steady = np.linalg.matrix_power((matrix + np.eye(n_contexts)) / 2.0, 4096)[0]
        return float(steady @ entropy(total))

    found, se = bootstrapped(rate, counts)
    yield Finding("entropy rate, bits", age["entropy_rate_bits"], found, se)

    surprises = -np.log2(np.maximum(probs, 1e-300))
    row_entropies = (probs * np.where(probs > 0.0, surprises, 0.0)).sum(axis=1)
    # In the contexts that were sung, since bouts begin in one.
    expected = float((counts.sum(axis=(0, 2)) * row_entropies).sum() / counts.sum())
    mean, _ = bootstrapped(lambda total: (total * surprises).sum() / total.sum(), counts)
    off = (counts * (surprises - row_entropies[:, None])).sum(axis=(1, 2))
    se = float(np.sqrt((off**2).sum()) / counts.sum())
    yield Finding("surprise by the chain, bits", expected, mean, se)


def order_findings(age: Row, bird: Row, sung: list[list[str]]) -> Iterator[Finding]:
    """Dependence on the syllable before the last, and runs of a repeated syllable."""
    number = {label: i for i, label in enumerate(age["labels"])}
    coded = [[number[label] for label in labels] for labels in sung]
    triples = count_triples(coded, len(number))
    if age["syntax"] == "repeats":
        repeated = number[bird["repeated_label"]]
        planted = 1.0 / (1.0 - age["transition_matrix"][repeated][repeated])
        found, se = bootstrapped(mean_run, np.array([runs(bout, repeated) for bout in coded]))
        yield Finding("mean run of the repeated", planted, found, se)
        return
    # Counts of little song seem to hold some dependence where there is none, and bouts begin in one
    # context. Song that is drawn from the table, in bouts of the same lengths, tells how much that
    # moves the value, and how far it spreads.
    rng = default_rng(0)
    drawn = [
        beyond_first_order(count_triples(redrawn(rng, age, coded), len(number)).sum(axis=0))
        for _ in range(30)
    ]
    planted = age["beyond_first_order_bits"]
    found = beyond_first_order(triples.sum(axis=0)) - (np.mean(drawn) - planted)
    name = f"beyond first order, {age['syntax'].replace('_', ' ')}"
    yield Finding(name, planted, found, np.std(drawn, ddof=1))


def runs(bout: list[int], repeated: int) -> Floats:
    """Runs that reached each length and went on or ended, and those that ended, ``[2, 30]``."""
    counts = np.zeros((2, 30))
    length = 0
    for label, following in zip(bout[:-1], bout[1:], strict=True):
        length = length + 1 if label == repeated else 0
        if length:
            counts[0, length] += 1
            counts[1, length] += following != repeated
    return counts


def mean_run(counts: Floats) -> float:
    """Mean length of runs, of which some are cut by the end of a bout (Kaplan & Meier 1958)."""
    goes_on = 1.0 - counts[1, 1:] / np.maximum(counts[0, 1:], 1.0)
    goes_on[counts[0, 1:] == 0.0] = 0.0
    return float(1.0 + np.cumprod(goes_on).sum())


def count_triples(coded: list[list[int]], n: int) -> Floats:
    """Numbers of label, next and next but one in every bout, ``[n_bouts, n, n, n]``."""
    triples = np.zeros((len(coded), n, n, n))
    for i, at in enumerate(coded):
        np.add.at(triples[i], (at[:-2], at[1:-1], at[2:]), 1)
    return triples


def beyond_first_order(triples: Floats) -> float:
    """H(next | last) - H(next | last two) of counts ``[before, last, next]``, bits."""
    p = triples / triples.sum()

    def bits(q: Floats) -> float:
        return float(-(q * np.log2(q, out=np.zeros_like(q), where=q > 0.0)).sum())

    return bits(p.sum(axis=0)) - bits(p.sum(axis=(0, 2))) - bits(p) + bits(p.sum(axis=2))


def redrawn(rng: Generator, age: Row, bouts: list[list[int]]) -> list[list[int]]:
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
