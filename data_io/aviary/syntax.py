"""Chains that give the next syllable, with exact entropies and divergences.

A chain has contexts. The context says how likely each syllable is; context and syllable together
say which context follows ("unifilar"), so that entropy rates are exact sums and not estimates
(Cover & Thomas 2006, Elements of Information Theory, 4.2).
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
SyntaxKind = Literal["first_order", "second_order", "repeats"]

FEWEST_SYLLABLES = 4  # second-order song needs a third and a fourth that differ
REPEATED = 2  # place in the motif of the repeated syllable


@dataclass(frozen=True)
class Chain:
    """A source of syllables.

    Attributes:
        labels: ``(n_labels,)`` of the syllables.
        probs: ``(n_contexts, n_labels)`` of the next syllable; rows sum to 1.
        onward: ``(n_contexts, n_labels)`` context after context and syllable.
        start: Context at the beginning of a bout.
    """

    labels: tuple[str, ...]
    probs: FloatArray
    onward: IntArray
    start: int

    def __post_init__(self) -> None:
        """Refuse arrays that are no chain (ValueError)."""
        n_contexts = len(self.probs)
        for name, array in (("probs", self.probs), ("onward", self.onward)):
            if array.shape != (n_contexts, len(self.labels)):
                raise ValueError(
                    f"{name} has shape {array.shape}: there are {len(self.labels)} labels and "
                    f"{n_contexts} contexts; give ({n_contexts}, {len(self.labels)})"
                )
        sums = self.probs.sum(axis=1)
        if not (self.probs.min() >= 0.0 and np.allclose(sums, 1.0, rtol=0.0, atol=1e-9)):
            raise ValueError(
                f"probs has rows that sum to {sums.min()} to {sums.max()}, least value "
                f"{self.probs.min()}: rows are probabilities; let none be negative and all sum to 1"
            )
        contexts = [*self.onward.ravel(), self.start]
        if not 0 <= min(contexts) <= max(contexts) < n_contexts:
            raise ValueError(
                f"onward and start hold contexts {min(contexts)} to {max(contexts)}: there are "
                f"{n_contexts}, counted from 0; name one of them"
            )

    def context_probs(self) -> FloatArray:
        """Share of syllables sung in each context in the long run, ``(n_contexts,)``."""
        return _long_run(self._context_matrix(), self.start)

    def label_probs(self) -> FloatArray:
        """Share of each syllable in the long run, ``(n_labels,)``."""
        return np.asarray(self.context_probs() @ self.probs)

    def transition_matrix(self) -> FloatArray:
        """P(next label | label) in the long run, ``(n_labels, n_labels)``.

        It is all that a first-order model can learn. The row of a label that is never sung is NaN.
        """
        pairs = self.pair_probs()
        with np.errstate(invalid="ignore"):
            return np.asarray(pairs / pairs.sum(axis=1, keepdims=True))

    def pair_probs(self) -> FloatArray:
        """Joint distribution of label and next label in the long run, ``(n_labels, n_labels)``."""
        pairs = np.zeros((len(self.labels), len(self.labels)))
        sung = self.context_probs()[:, np.newaxis] * self.probs
        for label in range(len(self.labels)):
            pairs[label] = sung[:, label] @ self.probs[self.onward[:, label]]
        return pairs

    def entropy_rate(self) -> float:
        """Entropy rate in bits per syllable: what the whole past leaves open."""
        return float(self.context_probs() @ _entropies(self.probs))

    def predictive_information(self) -> float:
        """What the past tells of the next syllable: H(label) - entropy rate, bits per syllable."""
        return max(float(_entropies(self.label_probs())) - self.entropy_rate(), 0.0)

    def beyond_first_order(self) -> float:
        """What the past tells beyond the last syllable: H(next | label) - entropy rate, bits."""
        pairs = self.pair_probs()
        given_label = float(_entropies(pairs.ravel()) - _entropies(pairs.sum(axis=1)))
        return max(given_label - self.entropy_rate(), 0.0)

    def sing(self, rng: Generator, n: int) -> list[int]:
        """Draw the ``n`` syllables of a bout as indices of ``labels``, from ``start``."""
        cumulative = np.cumsum(self.probs, axis=1)
        cumulative[:, -1] = 1.0  # rounding must not leave a gap at the top
        context, sung = self.start, []
        for draw in rng.uniform(size=n):
            label = int(np.searchsorted(cumulative[context], draw, side="right"))
            sung.append(label)
            context = int(self.onward[context, label])
        return sung

    def _context_matrix(self) -> FloatArray:
        matrix = np.zeros((len(self.probs), len(self.probs)))
        np.add.at(matrix, (np.arange(len(self.probs))[:, np.newaxis], self.onward), self.probs)
        return matrix


def pair_divergence(a: Chain, b: Chain) -> float:
    """Jensen-Shannon divergence of (label, next label) of two chains.

    Labels of the same name are the same syllable. The joint distributions are those of the long
    run, over the labels of both.

    Returns:
        Bits, 0 (same) to 1 (no pair in common).
    """
    labels = sorted({*a.labels, *b.labels})
    p, q = (_spread(chain, labels) for chain in (a, b))
    return jensen_shannon(p, q)


def jensen_shannon(p: FloatArray, q: FloatArray) -> float:
    """Jensen-Shannon divergence of two tables of probabilities, in bits, 0 to 1."""
    apart = (_entropies(p.ravel()) + _entropies(q.ravel())) / 2
    # Rounding may leave a little less than nothing.
    return max(float(_entropies((p + q).ravel() / 2) - apart), 0.0)


def divergence_rate(a: Chain, b: Chain) -> float:
    """Kullback-Leibler divergence rate of chain ``a`` from chain ``b``, exact.

    The mean log ratio of the probabilities that the two give to song of ``a``, which both hear
    from the beginning of a bout on, in the long run.

    Returns:
        Bits per syllable; infinite where ``a`` sings what ``b`` never does.
    """
    index = {label: i for i, label in enumerate(b.labels)}
    column = [index.get(label) for label in a.labels]
    joint = [(a.start, b.start)]
    number = {joint[0]: 0}
    steps, bits = [], []
    for here, (context_a, context_b) in enumerate(joint):  # grows while it is walked
        log_ratio = 0.0
        for label, p in enumerate(a.probs[context_a]):
            if p == 0.0:
                continue
            of_b = column[label]
            q = 0.0 if of_b is None else float(b.probs[context_b, of_b])
            if of_b is None or q == 0.0:
                return math.inf
            log_ratio += p * math.log2(p / q)
            onward = (int(a.onward[context_a, label]), int(b.onward[context_b, of_b]))
            if onward not in number:
                number[onward] = len(joint)
                joint.append(onward)
            steps.append((here, number[onward], float(p)))
        bits.append(log_ratio)
    matrix = np.zeros((len(joint), len(joint)))
    for source, target, p in steps:
        matrix[source, target] += p
    return max(float(_long_run(matrix, 0) @ np.array(bits)), 0.0)


def motif_chain(
    motif: tuple[str, ...],
    kind: SyntaxKind,
    order_variability: float,
    *,
    branching: float,
    repeats: tuple[int, int],
) -> Chain:
    """Make the chain of a bird that sings a motif over and over.

    - first_order: The motif. Each context is the last syllable.
    - second_order: On its way back the motif holds its third and its second syllable once more
      (a b c d e becomes a b c d e c b). What follows them depends on what came before, so each
      context is the last two syllables.
    - repeats: The third syllable is sung several times in a row; the context counts them.

    Args:
        motif: ``(n_labels,)`` syllables in order, each once, four at least.
        kind: See above.
        order_variability: 0 to 1: with this weight every next syllable is drawn at random from the
            motif, each equally likely.
        branching: Chance of skipping the second syllable.
        repeats: Fewest and most times in a row of a repeated syllable; every number between is
            equally likely, so that the mean is the middle (while order_variability is 0).

    Raises:
        ValueError: The motif is too short or holds a syllable twice, the kind is unknown, or the
            variability is not in 0 to 1.
    """
    _check_motif(motif, kind, order_variability)
    n = len(motif)
    places = list(range(n))  # index of the label at each place of the song
    if kind == "second_order":
        places += [2, 1]
    elif kind == "repeats":
        places[REPEATED:REPEATED] = [REPEATED] * (repeats[1] - 1)
    n_places = len(places)
    grown = np.zeros((n_places, n))
    for place in range(n_places):
        grown[place, places[(place + 1) % n_places]] = 1.0
    grown[0] *= 1.0 - branching
    grown[0, 2] += branching
    if kind == "repeats":
        fewest, most = repeats
        for sung in range(fewest, most):
            ends = 1.0 / (most - sung + 1)
            grown[REPEATED + sung - 1] *= 1.0 - ends
            grown[REPEATED + sung - 1, (REPEATED + 1) % n] += ends
    probs = (1.0 - order_variability) * grown + order_variability / n
    return Chain(motif, probs, _onward(places, n, kind), start=n_places - 1)


def _check_motif(motif: tuple[str, ...], kind: SyntaxKind, order_variability: float) -> None:
    if len(motif) < FEWEST_SYLLABLES or len(set(motif)) < len(motif):
        raise ValueError(
            f"motif is {motif}: chains are made of {FEWEST_SYLLABLES} or more different "
            "syllables; name each once"
        )
    if kind not in get_args(SyntaxKind):
        raise ValueError(
            f"kind is {kind!r}: no such syntax; choose from {', '.join(get_args(SyntaxKind))}"
        )
    if not 0.0 <= order_variability <= 1.0:
        raise ValueError(
            f"order_variability is {order_variability}: it is the weight of random order; "
            "choose a value from 0 to 1"
        )


def _onward(places: list[int], n_labels: int, kind: SyntaxKind) -> IntArray:
    """Place after a place and a label: where this pair stands in the song, else the label alone.

    Pairs decide, not places: so contexts never hold more of the past than two syllables, but for
    the count of repeats, which goes on within a run alone.
    """
    first = [places.index(label) for label in range(n_labels)]
    pair_at: dict[tuple[int, int], int] = {}
    for place, label in enumerate(places):
        pair_at.setdefault((places[place - 1], label), place)
    onward = np.zeros((len(places), n_labels), np.int64)
    for place, last in enumerate(places):
        for label in range(n_labels):
            if kind == "repeats" and label == last == REPEATED:
                longest = len(places) - n_labels + REPEATED
                onward[place, label] = min(place + 1, longest)
            else:
                onward[place, label] = pair_at.get((last, label), first[label])
    return onward


def _spread(chain: Chain, labels: list[str]) -> FloatArray:
    """Joint distribution of label and next label over more labels, ``(n * n,)``."""
    at = [labels.index(label) for label in chain.labels]
    pairs = np.zeros((len(labels), len(labels)))
    pairs[np.ix_(at, at)] = chain.pair_probs()
    return pairs.ravel()


def _entropies(probs: FloatArray) -> FloatArray:
    """Entropies along the last axis in bits; 0 log 0 is 0."""
    logs = np.log2(probs, out=np.zeros_like(probs), where=probs > 0.0)
    return np.asarray(-(probs * logs).sum(axis=-1))


def _long_run(matrix: FloatArray, start: int) -> FloatArray:
    """Share of time in each state of a Markov chain, from a start state, in the long run.

    A chain that rests half of the time has the same shares and no period, so its powers converge.
    Squaring gives the power 2**60; works for chains that cannot reach every state, too.
    """
    power = (np.eye(len(matrix)) + matrix) / 2.0
    for _ in range(60):
        power = power @ power
        power /= power.sum(axis=1, keepdims=True)
    return np.asarray(power[start])
