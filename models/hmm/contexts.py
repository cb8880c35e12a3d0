"""Contexts: copies of states that remember what came before them.

What came before a state is grouped by what follows it: two pasts that the same states follow, in
the same shares, are one context (causal states; Shalizi and Klinkner 2004, Rissanen 1983). A group
stays apart where its row of transitions lowers BIC. Emissions are kept; copies share them.
"""

import copy
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.hmm import criteria
from models.hmm.arrays import covariances, restored
from models.hmm.em import Songs
from models.hmm.gaussian import GaussianHMM
from models.hmm.held_out import held_out_songs
from models.hmm.params import HmmParams
from models.hmm.predictive import stationary_probs
from models.hmm.song_hmm import SongHmm

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

ROUNDS = 2  # a context is of three snippets at most: a state and two before it
ITERATIONS = 2  # of EM on transitions, after every round
# Snippets of pseudo-counts by which a row of transitions leans on the row that it was split from.
LEAN = 4.0
# A past that was seen less often has no context of its own.
SELDOM = 2.0


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

    "auto" takes contexts where they lower BIC and do not lower the held-out likelihood.

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
    plain = _without_memory(songs.centred(model))
    judged = [_judged(songs, plain)]
    if params.memory == "none":
        return _remembered(songs, judged, 0, [math.nan])
    judged += [_judged(songs, chain) for chain in _grown(songs, plain, ROUNDS)]
    n_rounds = min(range(1, len(judged)), key=lambda n: judged[n].bic, default=0)
    held_out = _held_out(sequences, model, params, n_rounds)
    if params.memory == "auto" and not (
        judged[n_rounds].bic < judged[0].bic and not held_out[n_rounds] < held_out[0]
    ):
        n_rounds = 0
    return _remembered(songs, judged, n_rounds, held_out)


class _Judged(NamedTuple):
    """A chain and its criteria."""

    chain: _Chain
    bic: float
    n_free: int
    log_likelihood: float


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
    songs: Songs, judged: Sequence[_Judged], chosen: int, held_out: Sequence[float]
) -> Remembered:
    """The judged chain of number ``chosen``; the first is without memory."""
    found = judged[chosen]
    return Remembered(
        song=SongHmm(songs.uncentred(found.chain.model), found.chain.state_of),
        memory="context" if chosen else "none",
        n_free_params=found.n_free,
        log_likelihood=found.log_likelihood,
        bic=found.bic,
        held_out_log_likelihood=held_out[chosen],
        plain_bic=judged[0].bic,
        plain_held_out_log_likelihood=held_out[0],
    )


def _without_memory(model: GaussianHMM) -> _Chain:
    k = model.n_components
    return _Chain(model, np.arange(k), np.tile(np.arange(k), (k, 1)), np.array(model.transmat_))


def _grown(songs: Songs, chain: _Chain, n_rounds: int) -> list[_Chain]:
    """The chain with contexts of two snippets, of three, ...; fewer where none are found."""
    chains: list[_Chain] = []
    paths = songs.most_probable_paths(chain.model)
    for _ in range(n_rounds):
        n_before = len(chain.state_of)
        chain = _split(chain, paths, 0.5 * math.log(songs.n_observations))
        if len(chain.state_of) == n_before:
            break
        _learn(songs, chain)
        chains.append(chain)
    return chains


def _learn(songs: Songs, chain: _Chain) -> None:
    """A few iterations of EM on transitions alone."""
    for _ in range(ITERATIONS):
        stats, _ = songs.e_step(chain.model)
        _set_rows(chain, chain.rows(stats["trans"]))


def _set_rows(chain: _Chain, counts: Array) -> None:
    """Transitions of expected ``counts`` [n_contexts, n_states]."""
    rows = counts + LEAN * chain.leaning
    transitions = np.zeros((len(rows), len(rows)))
    np.put_along_axis(transitions, chain.onto, rows / rows.sum(1, keepdims=True), axis=1)
    chain.model.transmat_ = transitions


def _split(chain: _Chain, paths: list[IntArray], price: float) -> _Chain:
    """Every context once for each group of contexts before it.

    Args:
        chain: what is split.
        paths: states of every song.
        price: nats that a parameter costs by BIC.
    """
    model = chain.model
    threes = _threes(chain, paths)
    group_of = np.stack([grouped(counts, price) for counts in threes])  # [context, before]
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


def grouped(counts: Array, price: float) -> IntArray:
    """Groups of pasts by what follows them.

    Those two groups are joined that lose least, as long as a group costs more than joining two
    loses: its row of transitions (those that are seen, less one), one parameter that says what it
    is a past of, and the logarithm of how many pasts it is chosen from. Without the last two,
    chance finds groups everywhere.

    Args:
        counts: [n_pasts, n_states] of what follows.
        price: nats that a parameter costs.

    Returns:
        [n_pasts] number of each past's group; 0 is the commonest, and has the seldom seen pasts.
    """
    seen = np.flatnonzero(counts.sum(1) >= SELDOM)
    found = np.zeros(len(counts), dtype=np.int64)
    if not len(seen):
        return found
    rows, members = counts[seen], np.eye(len(seen), dtype=bool)
    naming = math.log(len(seen))
    own = _cost(rows, price)
    loss = np.array([_cost(rows + row, price) for row in rows]) - own - own[:, None] - naming
    np.fill_diagonal(loss, np.inf)
    while loss.min() < 0:
        i, j = divmod(int(np.argmin(loss)), len(rows))
        rows[i] += rows[j]
        members[i] |= members[j]
        rows[j], members[j] = 0.0, False
        own[i] = _cost(rows[i], price)
        change = np.where(
            members.any(1), _cost(rows + rows[i], price) - own - own[i] - naming, np.inf
        )
        loss[j], loss[:, j] = np.inf, np.inf
        loss[i], loss[:, i] = change, change
        loss[i, i] = np.inf
    commonest_first = np.argsort(-rows.sum(1), kind="stable")
    for number, group in enumerate(commonest_first):
        found[seen[members[group]]] = number
    return found


def _cost(rows: Array, price: float) -> Array:
    """Nats that it costs to say what follows, of groups with these counts [..., n_states]."""
    shares = rows / np.maximum(rows.sum(-1, keepdims=True), 1e-300)
    logs = np.log(np.maximum(shares, 1e-300))
    return np.asarray(-(rows * logs).sum(-1) + price * np.maximum((rows >= 1).sum(-1), 1))


def _held_out(
    sequences: Sequence[Array], model: GaussianHMM, params: HmmParams, n_rounds: int
) -> list[float]:
    """Nats per snippet of held-out recordings, without memory and after each round of contexts.

    Emissions are those of ``model``, which has heard all recordings; transitions of both are
    learnt again without the held-out ones. Songs begin in the steady state.
    """
    fitted, held_out = held_out_songs(sequences, params)
    if held_out is None:
        return [math.nan] * (n_rounds + 1)
    again = copy.copy(fitted.centred(model))
    plain = _without_memory(again)
    plain.leaning = (plain.leaning > 0) / (plain.leaning > 0).sum(1, keepdims=True)
    counts = np.zeros(plain.onto.shape)
    for path in fitted.most_probable_paths(again):
        np.add.at(counts, (path[:-1], path[1:]), 1)
    _set_rows(plain, counts)
    _learn(fitted, plain)
    found = []
    for chain in [plain, *_grown(fitted, plain, n_rounds)]:
        steady = copy.copy(held_out.centred(fitted.uncentred(chain.model)))
        if np.diag(steady.transmat_).max() < 1:
            steady.startprob_ = stationary_probs(steady.transmat_)
        found.append(held_out.log_likelihood(steady) / held_out.n_snippets)
    return found + found[-1:] * (n_rounds + 1 - len(found))
