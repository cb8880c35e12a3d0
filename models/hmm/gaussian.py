"""hmmlearn's Gaussian HMM with exact EM by matrix products; same use, attributes and results.

Emission log-densities are linear in features of a snippet ([x, x^2, 1], or [x, x x', 1]): one
matrix product gives them for all states, another the sufficient statistics. The recursions are in
kernels.py. Data are centred inside, so that values far from zero lose no digits; the few
snippets that are far from all others are done by differences to the means, for the same reason.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hmmlearn import _hmmc, hmm
from numpy.typing import NDArray
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import ThreadpoolController

from models.hmm import kernels

Array = NDArray[np.float64]

# In medians of the absolute values: beyond, the square of a value hides differences to means.
FAR = 100.0
# Medians are of about so many snippets, evenly spaced: they need not be exact, but of all snippets
# they would take as long as an iteration of EM.
MEDIAN_OF = 2000

_THREADS = ThreadpoolController()  # once: looking for the libraries takes 7 ms


class GaussianHMM(hmm.GaussianHMM):
    """Gaussian HMM; see hmmlearn.hmm.GaussianHMM for parameters and attributes.

    ``implementation`` only says what happens to a song whose probabilities underflow: "log" (the
    default) does it in logarithms, "scaling" raises ValueError as hmmlearn does. ``fit`` uses one
    thread.
    """

    means_: Array
    means_prior: Any
    dof_: float | None = None

    def fit(self, X: Array, lengths: Sequence[int] | None = None) -> "GaussianHMM":
        """Estimate parameters by EM.

        Args:
            X: [n_snippets, n_features], songs end to end.
            lengths: snippets of each song; None for one song.
        """
        X = check_array(X)
        centre = _medians(X)  # means would follow an outlier
        X = X - centre
        self._packed: Packed | None = Packed(X, lengths, self.covariance_type)
        means_prior = self.means_prior
        self.means_prior = means_prior - centre
        if hasattr(self, "means_"):
            self.means_ = np.asarray(self.means_) - centre
        try:
            with _THREADS.limit(limits=1):
                super().fit(X, lengths)
        finally:
            self._packed = None
            self.means_prior = means_prior
            if hasattr(self, "means_"):
                self.means_ = self.means_ + centre
        return self

    def _do_estep(self, X: Array, lengths: Sequence[int] | None) -> tuple[dict[str, Any], float]:
        packed = getattr(self, "_packed", None) or Packed(X, lengths, self.covariance_type)
        return self.e_step(packed)

    def e_step(self, packed: "Packed") -> tuple[dict[str, Any], float]:
        """Sufficient statistics as hmmlearn's M-step takes them, and the log-likelihood in nats.

        Args:
            packed: songs, centred as the means of this model are.
        """
        d = self.n_features = np.shape(self.means_)[1]
        stats = self._initialize_sufficient_statistics()
        sums = packed.run(self)
        stats["nobs"] = len(packed.lengths) - len(sums.marked)
        if "s" in self.params:
            stats["start"] = sums.start
        if "t" in self.params:
            stats["trans"] = sums.transitions
        stats["post"] = sums.occupancy
        stats["obs"] = sums.features[:, :d].copy()
        if self.covariance_type in ("spherical", "diag"):
            stats["obs**2"] = sums.features[:, d:].copy()
        else:
            upper = np.triu_indices(d)
            stats["obs*obs.T"][:, upper[0], upper[1]] = sums.features[:, d:]
            stats["obs*obs.T"][:, upper[1], upper[0]] = sums.features[:, d:]
        log_likelihood = sums.log_likelihood
        recursions = {"scaling": self._fit_scaling, "log": self._fit_log}[self.implementation]
        for song in sums.marked:
            X = packed.song(song)
            lattice, one, *others = recursions(X)
            self._accumulate_sufficient_statistics(stats, X, lattice, *others)
            log_likelihood += float(one)
        return stats, log_likelihood

    def log_likelihood(self, packed: "Packed") -> float:
        """Log-likelihood in nats, by the forward pass alone; songs are centred as the means are."""
        sums = packed.run(self, only_score=True)
        return sums.log_likelihood + sum(
            self._score_song(packed.song(song), compute_posteriors=False)[0] for song in sums.marked
        )

    def _score_song(self, X: Array, *, compute_posteriors: bool) -> tuple[float, Array]:
        """Log-likelihood and posteriors of one song, by hmmlearn's own recursions."""
        score = {"scaling": self._score_scaling, "log": self._score_log}[self.implementation]
        log_likelihood, posteriors = score(X, None, compute_posteriors=compute_posteriors)
        return float(log_likelihood), posteriors

    def _score(
        self, X: Array, lengths: Sequence[int] | None = None, *, compute_posteriors: bool
    ) -> tuple[float, Array]:
        """Log-likelihood, and posteriors [n_snippets, n_states] where asked for."""
        check_is_fitted(self, "startprob_")
        self._check()
        X = check_array(X)
        centre = _medians(X)
        packed = Packed(X - centre, lengths, self.covariance_type)
        means = self.means_
        self.means_ = means - centre
        try:
            if compute_posteriors:
                return self.log_likelihood(packed), packed.posteriors(self)
            return self.log_likelihood(packed), np.empty((0, self.n_components))
        finally:
            self.means_ = means

    def natural_parameters(self) -> Array:
        """Weights [n_features of a snippet, n_states] of the emission log-densities."""
        d = self.n_features
        constant = d * np.log(2 * np.pi)
        if self.covariance_type in ("spherical", "diag"):
            variances = np.asarray(self._covars_, dtype=np.float64)
            if variances.ndim == 1:
                variances = np.tile(variances[:, None], (1, d))
            constants = -0.5 * (
                constant + np.log(variances).sum(1) + (self.means_**2 / variances).sum(1)
            )
            return np.vstack([(self.means_ / variances).T, (-0.5 / variances).T, constants])
        covariances = np.broadcast_to(self._covars_, (self.n_components, d, d))
        factors = _cholesky(covariances)
        inverses = np.linalg.inv(factors)
        precisions = np.swapaxes(inverses, 1, 2) @ inverses
        linear = (precisions @ self.means_[:, :, None])[:, :, 0]
        log_dets = 2 * np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(1)
        constants = -0.5 * (constant + log_dets + (linear * self.means_).sum(1))
        upper = np.triu_indices(d)
        # Off the diagonal a product stands for two elements of x x'.
        weights = np.where(upper[0] == upper[1], -0.5, -1.0)
        quadratic = weights * precisions[:, upper[0], upper[1]]
        return np.vstack([linear.T, quadratic.T, constants])


class _Sums:
    """Sums of an E-step over all songs that are not marked."""

    def __init__(self, n_states: int, n_features: int):
        self.log_likelihood = 0.0
        self.start = np.zeros(n_states)
        self.transitions = np.zeros((n_states, n_states))
        self.occupancy = np.zeros(n_states)
        self.features = np.zeros((n_states, n_features))  # but for the last one, the 1
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
        far = np.abs(X).max(1) > FAR * _medians(np.abs(X)).mean()
        self._far = [np.flatnonzero(far[chunk.rows]) for chunk in self._chunks]
        self._features = [_features(X[chunk.rows], is_diagonal) for chunk in self._chunks]
        self._work = np.empty((0, 0, 0))

    def _rows(self, song: int) -> slice:
        return slice(self._starts[song], self._starts[song + 1])

    def song(self, number: int) -> Array:
        """Snippets of one song."""
        return self.X[self._rows(number)]

    def run(self, model: GaussianHMM, only_score: bool = False) -> _Sums:
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
                    sums.features += done.gamma.T @ done.features[:, :-1]
        with np.errstate(under="ignore"):
            sums.transitions = transitions * model.transmat_
        return sums

    def posteriors(self, model: GaussianHMM) -> Array:
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

    def most_probable_paths(self, model: GaussianHMM) -> list[NDArray[np.int64]]:
        """The most probable states of every song together (Viterbi) [n_snippets] each.

        Args:
            model: its means are centred as X is.
        """
        paths: dict[int, NDArray[np.int64]] = {}
        weights = model.natural_parameters()
        for chunk, features, far in zip(self._chunks, self._features, self._far, strict=True):
            densities = features @ weights
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

    def snippet_log_likelihoods(self, model: GaussianHMM) -> Array:
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

    def _recursions(self, model: GaussianHMM, only_score: bool) -> Iterator["_Done"]:
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
            densities, alpha, onward, gamma = work[:, :n]
            np.matmul(features, weights, out=densities)
            if len(far):
                densities[far] = model._compute_log_likelihood(self.X[chunk.rows[far]])
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
            yield _Done(chunk, features, marked, shifts, scales, alpha, onward, gamma)

    def _memory(self, n_states: int) -> Array:
        """Four arrays for the largest chunk; kept, because fresh memory is slow at first touch."""
        if self._work.shape[2] != n_states:
            longest = max((len(chunk.rows) for chunk in self._chunks), default=0)
            self._work = np.empty((4, longest, n_states))
        return self._work


@dataclass(frozen=True)
class _Done:
    """Forward-backward of one chunk; see kernels.py for the arrays."""

    chunk: kernels.Chunk
    features: Array
    marked: list[int]
    shifts: Array
    scales: Array
    alpha: Array
    onward: Array
    gamma: Array


def _cholesky(covariances: Array) -> Array:
    """Lower factors [n_states, d, d]; a singular matrix gets hmmlearn's 1e-7 on its diagonal.

    Raises:
        ValueError: a matrix is no covariance even so.
    """
    try:
        return np.asarray(np.linalg.cholesky(covariances), dtype=np.float64)
    except np.linalg.LinAlgError:
        lifted = covariances + 1e-7 * np.eye(covariances.shape[-1])
    factors = np.empty(lifted.shape)
    for state, matrix in enumerate(covariances):
        try:
            factors[state] = np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError:
            try:
                factors[state] = np.linalg.cholesky(lifted[state])
            except np.linalg.LinAlgError as error:
                raise ValueError(
                    f"The covariance of state {state} is not positive definite: give covars_prior, "
                    "or fewer states."
                ) from error
    return factors


def _medians(X: Array) -> Array:
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
