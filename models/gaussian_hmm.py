"""hmmlearn's Gaussian HMM with exact EM by matrix products; same use, attributes and results.

Emission log-densities are linear in features of a snippet ([x, x^2, 1], or [x, x x', 1]): one
matrix product gives them for all states, another the sufficient statistics. The recursions are in
hmm_kernels.py. Data are centred inside, so that values far from zero lose no digits; the few
snippets that are far from all others are done by differences to the means, for the same reason.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hmmlearn import hmm
from numpy.typing import NDArray
from sklearn.utils import check_array
from threadpoolctl import threadpool_limits

from models import hmm_kernels as kernels

Array = NDArray[np.float64]

# In medians of the absolute values: beyond, the square of a value hides differences to means.
FAR = 100.0


class GaussianHMM(hmm.GaussianHMM):
    """Gaussian HMM; see hmmlearn.hmm.GaussianHMM for parameters and attributes.

    ``implementation`` only says what happens to a song whose probabilities underflow: "log" (the
    default) does it in logarithms, "scaling" raises ValueError as hmmlearn does. ``fit`` uses one
    thread.
    """

    means_: Array
    means_prior: Any

    def fit(self, X: Array, lengths: Sequence[int] | None = None) -> "GaussianHMM":
        """Estimate parameters by EM.

        Args:
            X: [n_snippets, n_features], songs end to end.
            lengths: snippets of each song; None for one song.
        """
        X = check_array(X)
        centre = np.median(X, axis=0)  # a mean would follow an outlier
        X = X - centre
        self._packed: _Packed | None = _Packed(X, lengths, self.covariance_type)
        means_prior = self.means_prior
        self.means_prior = means_prior - centre
        if hasattr(self, "means_"):
            self.means_ = np.asarray(self.means_) - centre
        try:
            with threadpool_limits(1):
                super().fit(X, lengths)
        finally:
            self._packed = None
            self.means_prior = means_prior
            if hasattr(self, "means_"):
                self.means_ = self.means_ + centre
        return self

    def _do_estep(self, X: Array, lengths: Sequence[int] | None) -> tuple[dict[str, Any], float]:
        """Sufficient statistics and log-likelihood, as hmmlearn's M-step takes them."""
        packed = getattr(self, "_packed", None) or _Packed(X, lengths, self.covariance_type)
        stats = self._initialize_sufficient_statistics()
        sums = packed.run(self)
        d = self.n_features
        stats["nobs"] = len(packed.lengths) - len(sums.marked)
        if "s" in self.params:
            stats["start"] = sums.start
        if "t" in self.params:
            stats["trans"] = sums.transitions
        stats["post"] = sums.features[:, -1].copy()
        stats["obs"] = sums.features[:, :d].copy()
        if self.covariance_type in ("spherical", "diag"):
            stats["obs**2"] = sums.features[:, d:-1].copy()
        else:
            upper = np.triu_indices(d)
            stats["obs*obs.T"][:, upper[0], upper[1]] = sums.features[:, d:-1]
            stats["obs*obs.T"][:, upper[1], upper[0]] = sums.features[:, d:-1]
        log_likelihood = sums.log_likelihood
        for song in sums.marked:
            log_likelihood += self._one_song(stats, packed.song(song))
        return stats, log_likelihood

    def _one_song(self, stats: dict[str, Any], X: Array) -> float:
        """Add one song to ``stats`` by hmmlearn's own recursions."""
        recursions = {"scaling": self._fit_scaling, "log": self._fit_log}[self.implementation]
        lattice, log_likelihood, *others = recursions(X)
        self._accumulate_sufficient_statistics(stats, X, lattice, *others)
        return float(log_likelihood)

    def _score(
        self, X: Array, lengths: Sequence[int] | None = None, *, compute_posteriors: bool
    ) -> tuple[float, Array]:
        """Log-likelihood; posteriors only where asked for, by hmmlearn."""
        if compute_posteriors:
            return super()._score(X, lengths, compute_posteriors=True)  # type: ignore[no-any-return]
        self._check()
        X = check_array(X)
        centre = np.median(X, axis=0)
        packed = _Packed(X - centre, lengths, self.covariance_type)
        means = self.means_
        self.means_ = means - centre
        try:
            sums = packed.run(self, only_score=True)
        finally:
            self.means_ = means
        score = {"scaling": self._score_scaling, "log": self._score_log}[self.implementation]
        log_likelihood = sums.log_likelihood
        for song in sums.marked:
            one, _ = score(packed.song(song) + centre, None, compute_posteriors=False)
            log_likelihood += one
        return log_likelihood, np.empty((0, self.n_components))

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
    """What an E-step leaves: sums over all songs that are not marked."""

    def __init__(self, n_states: int, n_features: int):
        self.log_likelihood = 0.0
        self.start = np.zeros(n_states)
        self.transitions = np.zeros((n_states, n_states))
        self.features = np.zeros((n_states, n_features))
        self.marked: list[int] = []


class _Packed:
    """Songs, packed once for all iterations of a fit.

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
        far = np.abs(X).max(1) > FAR * np.median(np.abs(X), axis=0).mean()
        self._far = [np.flatnonzero(far[chunk.rows]) for chunk in self._chunks]
        self._features = [_features(X[chunk.rows], is_diagonal) for chunk in self._chunks]

    def song(self, number: int) -> Array:
        """Snippets of one song."""
        return self.X[self._starts[number] : self._starts[number + 1]]

    def run(self, model: GaussianHMM, only_score: bool = False) -> _Sums:
        """Forward-backward over all songs.

        Args:
            model: its means are centred as X is.
            only_score: leave out the backward pass and all sums but the log-likelihood.
        """
        weights = model.natural_parameters()
        start_probs = np.ascontiguousarray(model.startprob_, dtype=np.float64)
        transition_matrix = np.ascontiguousarray(model.transmat_, dtype=np.float64)
        n_states = len(start_probs)
        sums = _Sums(n_states, len(weights))
        transposed = np.ascontiguousarray(transition_matrix.T)
        transitions = np.zeros((n_states, n_states))
        for chunk, features, far in zip(self._chunks, self._features, self._far, strict=True):
            densities = features @ weights
            if len(far):
                densities[far] = model._compute_log_likelihood(self.X[chunk.rows[far]])
            n = len(densities)
            shifts, scales = np.empty(n), np.empty(n)
            kernels.to_densities(densities, shifts)
            alpha = np.empty((n, n_states))
            is_marked = np.zeros(len(chunk.songs), dtype=np.bool_)
            offsets = chunk.offsets
            kernels.forward(
                densities, start_probs, transition_matrix, offsets, alpha, scales, is_marked
            )
            onward, gamma = np.empty((2, n, n_states)) if not only_score else np.empty((2, n, 1))
            if not only_score:
                kernels.backward(
                    densities, transposed, offsets, alpha, scales, onward, gamma, is_marked
                )
            if is_marked.any():
                kernels.clear_marked(offsets, scales, shifts, onward, gamma, is_marked)
                sums.marked += [int(song) for song in chunk.songs[is_marked]]
            sums.log_likelihood += float(np.log(scales).sum() + shifts.sum())
            if not only_score:
                # Products of small probabilities may be 0: what matters is kept by the scales.
                with np.errstate(under="ignore"):
                    sums.start += gamma[: offsets[1]].sum(0)
                    transitions += alpha.T @ onward
                    sums.features += gamma.T @ features
        with np.errstate(under="ignore"):
            sums.transitions = transitions * transition_matrix
        return sums


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


def _features(X: Array, is_diagonal: bool) -> Array:
    """[x, x^2, 1] or [x, upper triangle of x x', 1] of every snippet."""
    if is_diagonal:
        squares = X**2
    else:
        upper = np.triu_indices(X.shape[1])
        squares = X[:, upper[0]] * X[:, upper[1]]
    return np.ascontiguousarray(np.hstack([X, squares, np.ones((len(X), 1))]))
