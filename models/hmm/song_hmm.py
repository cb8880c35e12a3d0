"""The model of a bird's song: an HMM, what its states remember, and songs sampled from it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.hmm.arrays import covariances, restored
from models.hmm.em import Songs
from models.hmm.gaussian import GaussianHMM
from models.hmm.predictive import occupancy
from models.hmm.simulate import state_paths

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Snippets of a carried song that are sung before it begins: what carries over has no beginning.
BURN_IN = 64
# Posteriors of contexts are held for about so many snippets at a time, and a song at least.
GROUP_SNIPPETS = 50_000
# Snippets of a song, where only the model is at hand.
TYPICAL_LENGTH = 100.0


@dataclass(frozen=True)
class SongHmm:
    """A hidden Markov model of songs of latents, with or without memory.

    A state is a kind of snippet. A context is a copy of a state that remembers what came before;
    the HMM runs over contexts, and copies of one state have the same emissions.

    Attributes:
        hmm: over contexts, for whitened latents, or for what the carry leaves of them.
        state_of: [n_contexts] the state that each context is a copy of.
        carry: [latent_dim, latent_dim] matrix A that carries a latent over to the next: the HMM is
            of x(t) - A x(t-1), and of x - A x for the first snippet of a song; None for none.
    """

    hmm: GaussianHMM
    state_of: IntArray
    carry: Array | None = None

    @classmethod
    def plain(cls, model: GaussianHMM) -> "SongHmm":
        """A model without memory."""
        return cls(model, np.arange(model.n_components))

    @property
    def n_contexts(self) -> int:
        """Number of contexts; of states where there is no memory."""
        return len(self.state_of)

    @property
    def n_states(self) -> int:
        """Number of states."""
        return int(self.state_of.max()) + 1

    def without_memory(self) -> GaussianHMM:
        """The HMM over states that is nearest: what follows a state, whatever came before it.

        Copies of a state count by their shares of songs of TYPICAL_LENGTH; by equal shares where
        no song comes to the state. The steady state would be 0 for states that are left for good.
        """
        if self.n_contexts == self.n_states:
            return self.hmm
        _, first = np.unique(self.state_of, return_index=True)
        copies = np.eye(self.n_states)[self.state_of]
        share = occupancy(self.hmm.startprob_, self.hmm.transmat_, TYPICAL_LENGTH)
        shares = share[:, None] * copies
        shares = np.where(shares.sum(0) > 0, shares, copies)
        onward = shares.T @ self.hmm.transmat_ @ copies
        covars = covariances(self.hmm)
        return restored(
            self.hmm.startprob_ @ copies,
            onward / onward.sum(1, keepdims=True),
            self.hmm.means_[first],
            covars if self.hmm.covariance_type == "tied" else covars[first],
            self.hmm.covariance_type,
            self.hmm.dof_,
        )

    def sample_songs(self, lengths: Sequence[int], seed: int) -> tuple[list[Array], list[IntArray]]:
        """Songs drawn from the model: latents [length, latent_dim] and states [length] of each.

        Songs begin anywhere in songs of the mean length asked for (`occupancy`): real ones are cut
        out of a day, and start probabilities are of the few beginnings of recordings. A model with
        a state whose mean stay is longer than a song (the last one from left to right, or silence
        at the ends of recordings) begins with its start probabilities: its songs run once from the
        first sound to the last, and begun anywhere they would be mostly that state.

        Args:
            lengths: snippets of each song, 1 or more.
            seed: the same one gives the same songs.

        Raises:
            ValueError: a length is below 1.
        """
        if len(lengths) and min(lengths) < 1:
            raise ValueError(
                f"lengths holds {min(lengths)}: a song has a snippet at least; leave it out."
            )
        rng = np.random.default_rng(seed)
        extra = 0 if self.carry is None else BURN_IN
        drawn = np.asarray(lengths, dtype=np.int64) + extra
        contexts = state_paths(self.hmm.transmat_, self._starts(lengths), drawn, rng)
        latents = self._emitted(contexts, rng)
        ends = drawn.cumsum()[:-1]
        songs = np.split(latents, ends)
        states = np.split(self.state_of[contexts], ends)
        if self.carry is not None:
            songs = [_carried(song, self.carry) for song in songs]
        return [z[extra:] for z in songs], [s[extra:] for s in states]

    def _starts(self, lengths: Sequence[int]) -> Array:
        """Probabilities [n_contexts] of the first context of songs of ``lengths``."""
        mean_length = float(np.mean(lengths)) if len(lengths) else 1.0
        # The transition prior lets no state of a full matrix stay for good: a song's time must do.
        if np.diag(self.hmm.transmat_).max() > 1 - 1 / mean_length:
            return np.asarray(self.hmm.startprob_, dtype=np.float64)
        return occupancy(self.hmm.startprob_, self.hmm.transmat_, mean_length)

    def _emitted(self, contexts: IntArray, rng: np.random.Generator) -> Array:
        latents = rng.standard_normal((len(contexts), np.shape(self.hmm.means_)[1]))
        if self.hmm.dof_ is not None:
            latents /= np.sqrt(rng.chisquare(self.hmm.dof_, (len(contexts), 1)) / self.hmm.dof_)
        covars = np.asarray(self.hmm.covars_)  # hmmlearn gives full matrices for all types
        states = self.state_of[contexts]
        for state in np.unique(states):
            context = int(np.argmax(self.state_of == state))
            rows = states == state
            root = np.linalg.cholesky(covars[context])
            latents[rows] = self.hmm.means_[context] + latents[rows] @ root.T
        return latents

    def posteriors(self, sequences: Sequence[Array]) -> list[Array]:
        """P(state | song) of every snippet [n_snippets, n_states], of each song.

        Args:
            sequences: whitened latents [n_snippets, latent_dim] of each song.
        """
        songs = self._songs(sequences)
        model, copies = songs.centred(self.hmm), np.eye(self.n_states)[self.state_of]
        ends = np.cumsum(songs.lengths)
        found = np.empty((songs.n_snippets, self.n_states))
        # Contexts may be hundreds: only those of some songs at a time are held.
        groups = (ends - 1) // GROUP_SNIPPETS
        for group in np.unique(groups):
            numbers = np.flatnonzero(groups == group)
            rows = slice(ends[numbers[0]] - songs.lengths[numbers[0]], ends[numbers[-1]])
            found[rows] = songs.part(numbers.tolist()).posteriors(model) @ copies
        return np.split(found, np.cumsum([len(s) for s in sequences])[:-1])

    def states(self, sequences: Sequence[Array]) -> list[IntArray]:
        """The most probable state of every snippet [n_snippets], of each song.

        Args:
            sequences: whitened latents [n_snippets, latent_dim] of each song.
        """
        return [p.argmax(1) for p in self.posteriors(sequences)]

    def log_likelihoods(self, sequences: Sequence[Array]) -> Array:
        """Log-likelihood of each song [n_songs], in nats; 0 for one without snippets.

        Args:
            sequences: whitened latents [n_snippets, latent_dim] of each song.
        """
        songs = self._songs(sequences)
        per_snippet = songs.snippet_log_likelihoods(songs.centred(self.hmm))
        ends = np.cumsum([len(s) for s in sequences])[:-1]
        return np.array(
            [part.sum() + self._log_jacobian * bool(len(part))
             for part in np.split(per_snippet, ends)]
        )  # fmt: skip

    @property
    def _log_jacobian(self) -> float:
        """Log of d(innovations) / d(latents) of a song: all of it is of the first snippet."""
        if self.carry is None:
            return 0.0
        return float(np.linalg.slogdet(np.eye(len(self.carry)) - self.carry)[1])

    def _songs(self, sequences: Sequence[Array]) -> Songs:
        left = sequences if self.carry is None else innovations(sequences, self.carry)
        return Songs(left, self.hmm.covariance_type)


def innovations(sequences: Sequence[Array], carry: Array) -> list[Array]:
    """What ``carry`` leaves of songs: x(t) - A x(t-1), the first as if preceded by itself."""
    return [x - np.vstack([x[:1], x[:-1]]) @ carry.T for x in sequences]


def _carried(song: Array, carry: Array) -> Array:
    """The latents of which ``song`` are the innovations."""
    latents = song.copy()
    latents[0] = np.linalg.solve(np.eye(len(carry)) - carry, song[0])
    for t in range(1, len(song)):
        latents[t] += carry @ latents[t - 1]
    return latents
