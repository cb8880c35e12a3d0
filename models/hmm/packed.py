"""Songs packed once for all iterations of a fit, and the E-step on them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from hmmlearn import _hmmc
from numpy.typing import NDArray

from models.hmm import kernels, student_t

if TYPE_CHECKING:
    from models.hmm.gaussian import GaussianHMM

Array = NDArray[np.float64]

# In medians of the absolute values: beyond, the square of a value hides differences to means.
FAR = 100.0
# Medians are of about so many snippets, evenly spaced: they need not be exact, but of all snippets
# they would take as long as an iteration of EM.
MEDIAN_OF = 2000


class _Sums:
    """Sums of an E-step over all songs that are not marked."""

    def __init__(self, n_states: int, n_features: int):
        self.log_likelihood = 0.0
        self.start = np.zeros(n_states)
        self.transitions = np.zeros((n_states, n_states))
        self.occupancy = np.zeros(n_states)
        self.features = np.zeros((n_states, n_features))  # but for the last one, the 1
        self.weight = np.zeros(n_states)  # of snippets, in Student t emissions
        self.log_density = 0.0  # expected, of all snippets; the same
        self.marked: list[int] = []


class Packed:
    """Songs, packed once for all iterations of a fit, and the memory that these work in.

    One thread at a time may use it.

    Args:
        X: [n_snippets, n_features] centred.
        lengths: snippets of each song; None for one song.
        covariance_type: decides the features of a snippet.
    """

    def __init__(self, X: Array, lengths: Sequence[int] | None, covariance_type: str):
        self.X = X
        self.lengths = [len(X)] if lengths is None else [int(n) for n in lengths]
        if sum(self.lengths) != len(X):
            raise ValueError(
                f"lengths add up to {sum(self.lengths)}, but there are {len(X)} snippets."
            )
        self._starts = np.cumsum([0, *self.lengths])
        self._chunks = kernels.pack(self.lengths)
        is_diagonal = covariance_type in ("spherical", "diag")
        far = np.abs(X).max(1) > FAR * medians(np.abs(X)).mean()
        self._far = [np.flatnonzero(far[chunk.rows]) for chunk in self._chunks]
        self._features = [_features(X[chunk.rows], is_diagonal) for chunk in self._chunks]
        self._work = np.empty((0, 0, 0))

    def _rows(self, song: int) -> slice:
        return slice(self._starts[song], self._starts[song + 1])

    def song(self, number: int) -> Array:
        """Snippets of one song."""
        return self.X[self._rows(number)]

    def run(self, model: "GaussianHMM", only_score: bool = False) -> _Sums:
        """Forward-backward over all songs.

        Args:
            model: its means are centred as X is.
            only_score: leave out the backward pass and all sums but the log-likelihood.
        """
        n_states = model.n_components
        sums = _Sums(n_states, self._features[0].shape[1] - 1 if self._features else 0)
        transitions = np.zeros((n_states, n_states))
        for done in self._recursions(model, only_score):
            sums.marked += done.marked
            sums.log_likelihood += float(np.log(done.scales).sum() + done.shifts.sum())
            if not only_score:
                # Products of small probabilities may be 0: what matters is kept by the scales.
                with np.errstate(under="ignore"):
                    sums.start += done.gamma[: done.chunk.offsets[1]].sum(0)
                    transitions += done.alpha.T @ done.onward
                    sums.occupancy += np.ones(len(done.gamma)) @ done.gamma
                    sums.features += self._weighted(model, done, sums).T @ done.features[:, :-1]
        with np.errstate(under="ignore"):
            sums.transitions = transitions * model.transmat_
        return sums

    @staticmethod
    def _weighted(model: "GaussianHMM", done: "_Done", sums: _Sums) -> Array:
        """What every snippet counts in each state's mean and matrix [n, n_states]."""
        if model.dof_ is None:
            return done.gamma
        sums.log_density += student_t.expected_log_density(done.densities, done.shifts, done.gamma)
        weighted = np.multiply(done.gamma, done.weights, out=done.weights)
        sums.weight += weighted.sum(0)
        return weighted

    def posteriors(self, model: "GaussianHMM") -> Array:
        """P(state | all snippets of the song), [n_snippets, n_states], in the order of the data.

        Args:
            model: its means are centred as X is.
        """
        gamma = np.empty((len(self.X), model.n_components))
        for done in self._recursions(model, only_score=False):
            gamma[done.chunk.rows] = done.gamma
            for song in done.marked:
                _, gamma[self._rows(song)] = model._score_song(
                    self.song(song), compute_posteriors=True
                )
        return gamma

    def most_probable_paths(self, model: "GaussianHMM") -> list[NDArray[np.int64]]:
        """The most probable states of every song together (Viterbi) [n_snippets] each.

        Args:
            model: its means are centred as X is.
        """
        paths: dict[int, NDArray[np.int64]] = {}
        weights = model.natural_parameters()
        for chunk, features, far in zip(self._chunks, self._features, self._far, strict=True):
            densities = features @ weights
            model.to_student_t(densities, np.empty_like(densities))
            if len(far):
                densities[far] = model._compute_log_likelihood(self.X[chunk.rows[far]])
            in_order = densities[np.argsort(chunk.rows)]  # songs end to end, by number
            songs = np.sort(chunk.songs)
            ends = np.cumsum([self.lengths[song] for song in songs])
            for song, of_song in zip(songs, np.split(in_order, ends[:-1]), strict=True):
                _, path = _hmmc.viterbi(
                    np.asarray(model.startprob_), np.asarray(model.transmat_), of_song
                )
                paths[int(song)] = path
        return [paths.get(i, np.empty(0, np.int64)) for i in range(len(self.lengths))]

    def snippet_log_likelihoods(self, model: "GaussianHMM") -> Array:
        """Nats of p(snippet | those before it in the song), [n_snippets] in the data's order.

        Where a song has become impossible, snippets are NaN from there on.

        Args:
            model: its means are centred as X is.
        """
        found = np.empty(len(self.X))
        for done in self._recursions(model, only_score=True):
            found[done.chunk.rows] = np.log(done.scales) + done.shifts
            for song in done.marked:
                log_densities = model._compute_log_likelihood(self.song(song))
                _, lattice = _hmmc.forward_log(model.startprob_, model.transmat_, log_densities)
                so_far = np.logaddexp.reduce(lattice, axis=1)
                with np.errstate(invalid="ignore"):
                    found[self._rows(song)] = np.diff(so_far, prepend=0.0)
        return found

    def _recursions(self, model: "GaussianHMM", only_score: bool) -> Iterator["_Done"]:
        """Forward-backward chunk by chunk; marked songs are out of all sums.

        What it yields is overwritten by the next chunk.
        """
        weights = model.natural_parameters()
        start_probs = np.ascontiguousarray(model.startprob_, dtype=np.float64)
        transition_matrix = np.ascontiguousarray(model.transmat_, dtype=np.float64)
        transposed = np.ascontiguousarray(transition_matrix.T)
        work = self._memory(len(start_probs))
        for chunk, features, far in zip(self._chunks, self._features, self._far, strict=True):
            n, offsets = len(chunk.rows), chunk.offsets
            densities, alpha, onward, gamma, of_snippets = work[:, :n]
            np.matmul(features, weights, out=densities)
            model.to_student_t(densities, of_snippets)
            if len(far):
                densities[far], of_snippets[far] = model._log_densities(self.X[chunk.rows[far]])
            shifts, scales = np.empty((2, n))
            is_marked = np.zeros(len(chunk.songs), dtype=np.bool_)
            kernels.forward(
                densities, start_probs, transition_matrix, offsets, alpha, shifts, scales,
                kernels.SMALLEST_SCALE, is_marked,
            )  # fmt: skip
            if not only_score:
                kernels.backward(
                    densities, transposed, offsets, alpha, scales, onward, gamma, is_marked
                )
            if is_marked.any():
                kernels.clear_marked(offsets, scales, shifts, onward, gamma, is_marked)
            marked = [int(song) for song in chunk.songs[is_marked]]
            yield _Done(
                chunk, features, marked, shifts, scales, densities, alpha, onward, gamma,
                of_snippets,
            )  # fmt: skip

    def _memory(self, n_states: int) -> Array:
        """Five arrays for the largest chunk; kept, because fresh memory is slow at first touch."""
        if self._work.shape[2] != n_states:
            longest = max((len(chunk.rows) for chunk in self._chunks), default=0)
            self._work = np.empty((5, longest, n_states))
        return self._work


@dataclass(frozen=True)
class _Done:
    """Forward-backward of one chunk; see kernels.py for the arrays."""

    chunk: kernels.Chunk
    features: Array
    marked: list[int]
    shifts: Array
    scales: Array
    densities: Array
    alpha: Array
    onward: Array
    gamma: Array
    weights: Array


def medians(X: Array) -> Array:
    """Medians [n_features] of about MEDIAN_OF snippets."""
    few = X[:: max(1, len(X) // MEDIAN_OF)]
    return np.asarray(np.median(few, axis=0), dtype=np.float64)


def _features(X: Array, is_diagonal: bool) -> Array:
    """[x, x^2, 1] or [x, upper triangle of x x' row by row, 1] of every snippet."""
    n, d = X.shape
    features = np.empty((n, 1 + 2 * d if is_diagonal else 1 + d + d * (d + 1) // 2))
    features[:, :d] = X
    features[:, -1] = 1.0
    if is_diagonal:
        np.square(X, out=features[:, d:-1])
    else:
        end = d
        for i in range(d):
            begin, end = end, end + d - i
            np.multiply(X[:, i : i + 1], X[:, i:], out=features[:, begin:end])
    return features
