"""Contexts: copies of states that remember what came before them.

What came before a state is grouped by what follows it: two pasts that the same states follow, in
the same shares, are one context (causal states; Shalizi and Klinkner 2004, Rissanen 1983). A group
stays apart where its row of transitions is worth its price. Emissions are kept; copies share them.
"""

import copy
import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.hmm import criteria
from models.hmm.arrays import covariances, restored
from models.hmm.em import Songs
from models.hmm.gaussian import GaussianHMM
from models.hmm.grouping import grouped
from models.hmm.held_out import held_out_songs
from models.hmm.params import HmmParams
from models.hmm.predictive import occupancy
from models.hmm.song_hmm import SongHmm

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

ROUNDS = 3  # a context is of four snippets at most: a state and three before it
ITERATIONS = 2  # of EM on transitions, when contexts have been found
# Snippets of pseudo-counts by which a row of transitions leans on the row that it was split from.
LEAN = 1.0
# Shares of BIC's price of a group, tried in turn: held-out songs say which contexts are best.
PRICES = (1.0, 0.5, 0.25, 0.125)


@dataclass(frozen=True)
class Remembered:
    """The model of a bird's song, and what its memory is worth.

    BIC counts transitions that are expected at least once, less one for each row, and one for each
    context beyond the states, which says what it is a past of. Both models are counted so: they can
    be compared with each other, and not with that of a search, which counts all transitions.

    Attributes:
        song: the model.
        memory: none, context or autoregressive.
        n_free_params: of the model, counted so.
        log_likelihood: nats, over all snippets.
        bic: -2 log_likelihood + n_free_params log N.
        held_out_log_likelihood: nats per snippet of recordings that had no part in the transitions;
            NaN where none were held out.
        plain_bic, plain_held_out_log_likelihood: the same of the model without memory.
    """

    song: SongHmm
    memory: str
    n_free_params: int
    log_likelihood: float
    bic: float
    held_out_log_likelihood: float
    plain_bic: float
    plain_held_out_log_likelihood: float


@dataclass
class _Chain:
    """Contexts of ``model``, and where each leads.

    Attributes:
        model: over contexts, centred.
        state_of: [n_contexts].
        onto: [n_contexts, n_states] the context that each state is reached in from each context.
        leaning: [n_contexts, n_states] the rows that rows of transitions lean on.
    """

    model: GaussianHMM
    state_of: IntArray
    onto: IntArray
    leaning: Array

    def rows(self, matrix: Array) -> Array:
        """By next state [n_contexts, n_states], of a matrix by next context."""
        return np.take_along_axis(matrix, self.onto, axis=1)


def add_memory(
    sequences: Sequence[Array],
    model: GaussianHMM,
    params: HmmParams,
    seed: int,
    new_share: float = 1.0,
) -> Remembered:
    """Give the states of ``model`` the memory that ``params.memory`` asks for.

    Contexts are found of two snippets and more, at several prices of a group. Those are taken that
    make held-out recordings most likely; where none are held out, those of the lowest BIC, at its
    own price. "auto" takes only contexts that lower BIC and do not lower the held-out likelihood.

    Args:
        sequences: whitened latents [n_snippets, latent_dim], one array per recording.
        model: of a search of the same sequences.
        params: of that search.
        seed: of the bird and age.
        new_share: share of a snippet that the one before does not hold.

    Raises:
        ValueError: ``params.memory`` is "autoregressive", which changes what is searched.
    """
    if params.memory == "autoregressive":
        raise ValueError(
            "memory is autoregressive, which no finished search can be given: call "
            "search_with_carry in its place."
        )
    params = dataclasses.replace(params, covariance_type=model.covariance_type)
    songs = Songs(sequences, model.covariance_type, params.engine, new_share)
    growth = _Growth(songs, songs.centred(model), songs.n_observations)
    plain = _judged(songs, growth.plain)
    if params.memory == "none":
        return _remembered(songs, model, plain, plain, (math.nan, math.nan))
    held_out = _HeldOut.of(sequences, model, params, songs.n_observations)
    worths, least = _worths(growth, plain, held_out)
    plain_nats = held_out.learned_nats(1.0, 0) if held_out else math.nan
    for price, n_rounds in sorted(worths, key=lambda tried: -worths[tried]):
        if params.memory == "auto" and worths[price, n_rounds] < least:
            break
        found = _judged(songs, growth.learned(price, n_rounds))
        if len(found.chain.state_of) == model.n_components:
            continue  # what was found without the held-out songs is not there with them
        nats = held_out.learned_nats(price, n_rounds) if held_out else math.nan
        if params.memory == "context" or (found.bic < plain.bic and not nats < plain_nats):
            return _remembered(songs, model, plain, found, (plain_nats, nats))
    return _remembered(songs, model, plain, plain, (plain_nats, plain_nats))


class _Judged(NamedTuple):
    """A chain and its criteria."""

    chain: _Chain
    bic: float
    n_free: int
    log_likelihood: float


def _worths(
    growth: "_Growth", plain: _Judged, held_out: "_HeldOut | None"
) -> tuple[dict[tuple[float, int], float], float]:
    """Of contexts, by price and number of rounds; and of the chain without memory."""
    if held_out:
        return held_out.worths(), held_out.nats(held_out.growth.plain)
    chains = enumerate(growth.chains(1.0), 1)
    return {(1.0, n): -_judged(growth.songs, c).bic for n, c in chains}, -plain.bic


def _judged(songs: Songs, chain: _Chain) -> _Judged:
    stats, log_likelihood = songs.e_step(chain.model)
    n_states = chain.onto.shape[1]
    n_each = (stats["trans"] >= 1).sum(1)
    n_transitions = int(np.maximum(n_each - 1, 0).sum()) + len(n_each) - n_states
    n_free = n_transitions + criteria.n_free_params(
        n_states, songs.latent_dim, chain.model.covariance_type, n_transitions=n_states
    )
    bic = criteria.bic(log_likelihood, n_free, songs.n_observations)
    return _Judged(chain, bic, n_free, log_likelihood)


def _remembered(
    songs: Songs,
    model: GaussianHMM,
    plain: _Judged,
    found: _Judged,
    held_out: tuple[float, float],
) -> Remembered:
    """What was found; ``held_out`` is of the chain without memory, then of that found."""
    hmm = songs.uncentred(found.chain.model)
    # Centred and back, the last digit may be another; ages that share states have the same means.
    hmm.means_ = model.means_[found.chain.state_of]
    return Remembered(
        song=SongHmm(hmm, found.chain.state_of),
        memory="none" if found is plain else "context",
        n_free_params=found.n_free,
        log_likelihood=found.log_likelihood,
        bic=found.bic,
        held_out_log_likelihood=held_out[1],
        plain_bic=plain.bic,
        plain_held_out_log_likelihood=held_out[0],
    )


class _Growth:
    """Chains with contexts, grown from the most probable states of songs.

    Args:
        songs: to learn from.
        model: without memory, centred as the songs.
        n_observations: the N of BIC.
    """

    def __init__(self, songs: Songs, model: GaussianHMM, n_observations: float):
        k = model.n_components
        onto = np.tile(np.arange(k), (k, 1))
        self.songs = songs
        self.plain = _Chain(model, np.arange(k), onto, np.array(model.transmat_))
        self.paths = songs.most_probable_paths(model)
        self.n_observations = n_observations

    def chains(self, price: float, n_rounds: int = ROUNDS) -> Iterator[_Chain]:
        """With contexts of two snippets, of three, ...; fewer where none are found."""
        chain = self.plain
        for _ in range(n_rounds):
            n_before = len(chain.state_of)
            chain = _split(chain, self.paths, self.n_observations, price)
            if len(chain.state_of) == n_before:
                break
            yield chain

    def learned(self, price: float, n_rounds: int) -> _Chain:
        """The last of these chains, after a few iterations of EM on transitions alone."""
        chain = [self.plain, *self.chains(price, n_rounds)][-1]
        chain = dataclasses.replace(chain, model=copy.copy(chain.model))
        for _ in range(ITERATIONS):
            stats, _ = self.songs.e_step(chain.model)
            _set_rows(chain, chain.rows(stats["trans"]))
        return chain


class _HeldOut:
    """Nats per snippet of held-out recordings.

    Emissions are those of the search, which has heard all recordings; transitions of all chains are
    learnt again without the held-out ones. Songs begin anywhere in songs of their mean length.
    """

    def __init__(self, growth: _Growth, songs: Songs):
        self.growth, self.songs = growth, songs

    @classmethod
    def of(
        cls,
        sequences: Sequence[Array],
        model: GaussianHMM,
        params: HmmParams,
        n_observations: float,
    ) -> "_HeldOut | None":
        """None where there are too few recordings to hold any out."""
        fitted, songs = held_out_songs(sequences, params)
        if songs is None:
            return None
        growth = _Growth(fitted, copy.copy(fitted.centred(model)), n_observations)
        plain = growth.plain
        plain.leaning = (plain.leaning > 0) / (plain.leaning > 0).sum(1, keepdims=True)
        counts = np.zeros(plain.onto.shape)
        for path in growth.paths:
            np.add.at(counts, (path[:-1], path[1:]), 1)
        _set_rows(plain, counts)
        return cls(growth, songs)

    def worths(self) -> dict[tuple[float, int], float]:
        """Of contexts, by price and number of rounds; transitions are as counted, without EM."""
        return {
            (price, n): self.nats(chain)
            for price in PRICES
            for n, chain in enumerate(self.growth.chains(price), 1)
        }

    def learned_nats(self, price: float, n_rounds: int) -> float:
        """Of a chain after EM."""
        return self.nats(self.growth.learned(price, n_rounds))

    def nats(self, chain: _Chain) -> float:
        """Of a chain."""
        model = self.songs.centred(self.growth.songs.uncentred(chain.model))
        mean_length = float(np.mean(self.songs.lengths))
        model.startprob_ = occupancy(model.startprob_, model.transmat_, mean_length)
        return self.songs.log_likelihood(model) / self.songs.n_snippets


def _set_rows(chain: _Chain, counts: Array) -> None:
    """Transitions of expected ``counts`` [n_contexts, n_states]."""
    rows = counts + LEAN * chain.leaning
    transitions = np.zeros((len(rows), len(rows)))
    np.put_along_axis(transitions, chain.onto, rows / rows.sum(1, keepdims=True), axis=1)
    chain.model.transmat_ = transitions


def _split(chain: _Chain, paths: list[IntArray], n_observations: float, price: float) -> _Chain:
    """Every context once for each group of contexts before it.

    Args:
        chain: what is split.
        paths: states of every song.
        n_observations: the N of BIC.
        price: share of BIC's price that a group costs.
    """
    model = chain.model
    threes = _threes(chain, paths)
    group_of = np.stack(
        [grouped(counts, n_observations, price) for counts in threes]
    )  # [context, before]
    n_groups = group_of.max(1) + 1
    first = np.cumsum(n_groups) - n_groups
    origin = np.repeat(np.arange(len(n_groups)), n_groups)
    group = np.arange(len(origin)) - first[origin]
    # From a copy of context c, a state is reached in the copy that c is of the past of.
    targets = chain.onto[origin]
    onto = first[targets] + group_of[targets, origin[:, None]]
    counts = np.stack(
        [threes[c][group_of[c] == g].sum(0) for c, g in zip(origin, group, strict=True)]
    )
    seen = counts.sum(1) + 1e-9
    covars = covariances(model)
    more = restored(
        model.startprob_[origin] * seen / np.bincount(origin, seen)[origin],
        np.eye(len(origin)), model.means_[origin],
        covars if model.covariance_type == "tied" else covars[origin],
        model.covariance_type, model.dof_,
    )  # fmt: skip
    leaning = chain.rows(np.asarray(model.transmat_))[origin]
    found = _Chain(more, chain.state_of[origin], onto, leaning)
    _set_rows(found, counts)
    return found


def _threes(chain: _Chain, paths: list[IntArray]) -> Array:
    """How often a context stands between a context before and a state after it.

    Returns:
        [n_contexts, n_contexts before, n_states after].
    """
    n, k = chain.onto.shape
    counts = np.zeros((n, n, k))
    _, first = np.unique(chain.state_of, return_index=True)
    for path in paths:
        contexts = path.copy()
        if len(path):
            contexts[0] = first[path[0]]
        for t in range(1, len(path)):
            contexts[t] = chain.onto[contexts[t - 1], path[t]]
        np.add.at(counts, (contexts[1:-1], contexts[:-2], path[2:]), 1)
    return counts
