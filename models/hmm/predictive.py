"""What the order of snippets tells of the next one: predictive information of songs, in bits.

log2 p(song) less log2 p(the same emissions, order ignored), per snippet: 0 where snippets follow
each other at random, at most the entropy of the states. A bird that sings in a fixed order has a
high one. It can be compared between models of other numbers of states, of latents of one space.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.hmm.arrays import covariances, restored
from models.hmm.em import Songs
from models.hmm.gaussian import GaussianHMM

Array = NDArray[np.float64]

SHORTEST = 2.0  # snippets, of the mean length of songs in `occupancy`


class SongLikelihoods(NamedTuple):
    """Log-likelihoods of songs under a model, song by song.

    Attributes:
        in_order: [n_songs] nats of each song.
        order_ignored: [n_songs] nats of its snippets with the probabilities of `occupancy` at each
            of them, whatever comes before.
        lengths: [n_songs] snippets of each.
    """

    in_order: Array
    order_ignored: Array
    lengths: NDArray[np.int64]

    @property
    def per_snippet(self) -> float:
        """Log-likelihood of all songs, in nats per snippet."""
        return float(self.in_order.sum() / self.lengths.sum())

    @property
    def predictive_information(self) -> float:
        """Of all songs, in bits per snippet; below 0 where the model expects another order."""
        gained = self.in_order.sum() - self.order_ignored.sum()
        return float(gained / self.lengths.sum() / math.log(2))


def song_likelihoods(songs: Songs, model: GaussianHMM) -> SongLikelihoods:
    """Log-likelihoods of songs with their order and without it.

    Songs begin anywhere in songs of their mean length (`occupancy`). The start probabilities of a
    model are 0 for every state that none of its few songs began in, and one song that begins there
    would outweigh all others.

    Args:
        songs: of any birds; where they are those that were fitted, the information is too high.
        model: for latents as they were given.

    Returns:
        NaN for a song that is impossible under the model.
    """
    anywhere = occupancy(model.startprob_, model.transmat_, float(np.mean(songs.lengths)))
    emissions = model.means_, covariances(model), model.covariance_type, model.dof_
    starts = np.cumsum([0, *songs.lengths[:-1]])
    in_order, order_ignored = (
        np.add.reduceat(
            songs.snippet_log_likelihoods(
                songs.centred(restored(anywhere, transitions, *emissions))
            ),
            starts,
        )
        for transitions in (model.transmat_, np.tile(anywhere, (len(anywhere), 1)))
    )
    return SongLikelihoods(in_order, order_ignored, np.array(songs.lengths))


def occupancy(start_probs: Array, transition_matrix: Array, mean_length: float) -> Array:
    """State probabilities [n_states] at a snippet that is anywhere in songs.

    The steady state of songs one after the other: each snippet is the last of its song with
    probability 1 / mean_length, and the next song begins by ``start_probs``. Where states follow
    each other so fast that a song meets all of them many times, it is near the steady state of the
    transitions alone. Where songs end in a state that is hardly ever left, that steady state is
    the end alone; this is the share of songs that the end has.

    Args:
        start_probs: [n_states].
        transition_matrix: [n_states, n_states], rows sum to 1.
        mean_length: of songs, in snippets. Counted as SHORTEST at least: songs of one snippet would
            only ever be in states that fitted songs began in.
    """
    ends = 1 / max(mean_length, SHORTEST)
    onward = np.eye(len(start_probs)) - (1 - ends) * np.asarray(transition_matrix)
    found = np.linalg.solve(onward.T, ends * np.asarray(start_probs, dtype=np.float64))
    found = np.maximum(found, 0)  # of rounding
    return np.asarray(found / found.sum(), dtype=np.float64)


def stationary_probs(transition_matrix: Array) -> Array:
    """State probabilities [n_states] that a transition leaves as they are.

    Where states form several groups that never meet, each solution is one; this is the one nearest
    to equal probabilities.
    """
    k = len(transition_matrix)
    equations = np.vstack([transition_matrix.T - np.eye(k), np.ones(k)])
    found = np.linalg.lstsq(equations, np.append(np.zeros(k), 1.0), rcond=None)[0]
    found = np.maximum(found, 0)  # of rounding
    return np.asarray(found / found.sum(), dtype=np.float64)
