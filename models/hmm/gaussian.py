"""hmmlearn's Gaussian HMM with exact EM by matrix products; same use, attributes and results.

Emission log-densities are linear in features of a snippet ([x, x^2, 1], or [x, x x', 1]): one
matrix product gives them for all states, another the sufficient statistics. The recursions are in
kernels.py. Data are centred inside, so that values far from zero lose no digits; the few
snippets that are far from all others are done by differences to the means, for the same reason.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hmmlearn import hmm
from numpy.typing import NDArray
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import ThreadpoolController

from models.hmm import student_t
from models.hmm.packed import Packed, medians

Array = NDArray[np.float64]

_THREADS = ThreadpoolController()  # once: looking for the libraries takes 7 ms


class GaussianHMM(hmm.GaussianHMM):
    """Gaussian HMM; see hmmlearn.hmm.GaussianHMM for parameters and attributes.

    ``implementation`` only says what happens to a song whose probabilities underflow: "log" (the
    default) does it in logarithms, "scaling" raises ValueError as hmmlearn does. ``fit`` uses one
    thread. With ``dof_``, emissions are multivariate t of so many degrees of freedom, and
    ``covars_`` their matrices: covariances are dof_ / (dof_ - 2) times as large.
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
        centre = medians(X)  # means would follow an outlier
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

    def e_step(self, packed: Packed) -> tuple[dict[str, Any], float]:
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
        if self.dof_ is not None:
            stats |= {"weight": sums.weight, "log_density": sums.log_density}
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

    def log_likelihood(self, packed: Packed) -> float:
        """Log-likelihood in nats, by the forward pass alone; songs are centred as the means are."""
        sums = packed.run(self, only_score=True)
        return sums.log_likelihood + sum(
            self._score_song(packed.song(song), compute_posteriors=False)[0] for song in sums.marked
        )

    def _compute_log_likelihood(self, X: Array) -> Array:
        return self._log_densities(X)[0]

    def _log_densities(self, X: Array) -> tuple[Array, Array]:
        """Emission log-densities by differences to the means, and weights, [n, n_states] each."""
        densities = np.asarray(super()._compute_log_likelihood(X), dtype=np.float64)
        weights = np.ones_like(densities)
        self.to_student_t(densities, weights)
        return densities, weights

    def to_student_t(self, log_densities: Array, weights: Array) -> None:
        """In place: Gaussian log-densities become those of this model's emissions."""
        if self.dof_ is not None:
            d = np.shape(self.means_)[1]
            student_t.from_gaussian(
                log_densities, self._peaks(), student_t.constant(self.dof_, d), self.dof_, d,
                weights,
            )  # fmt: skip

    def _peaks(self) -> Array:
        """Gaussian log-densities at the means [n_states]."""
        k, d = np.shape(self.means_)
        covars = np.asarray(self._covars_, dtype=np.float64)
        if self.covariance_type in ("spherical", "diag"):
            # hmmlearn holds a spherical variance once, or once per dimension after its M-step.
            log_dets = np.log(covars.reshape(k, -1)).sum(1) * (d / covars.reshape(k, -1).shape[1])
        else:
            log_dets = np.broadcast_to(np.linalg.slogdet(covars)[1], k)
        return np.asarray(-0.5 * (d * np.log(2 * np.pi) + log_dets))

    def _accumulate_sufficient_statistics(
        self, stats: dict[str, Any], X: Array, lattice: Array, posteriors: Array, *others: Array
    ) -> None:
        """Of one song; see hmmlearn."""
        add = super()._accumulate_sufficient_statistics
        if self.dof_ is None:
            add(stats, X, lattice, posteriors, *others)
            return
        log_densities, weights = self._log_densities(X)
        unweighted = {
            "post": stats["post"] + posteriors.sum(0),
            "start": stats["start"] + posteriors[0],
            "weight": stats["weight"] + (posteriors * weights).sum(0),
            "log_density": stats["log_density"] + float((posteriors * log_densities).sum()),
        }
        add(stats, X, lattice, posteriors * weights, *others)
        stats.update(unweighted)

    def _do_mstep(self, stats: dict[str, Any]) -> None:
        super()._do_mstep(stats if self.dof_ is None else {**stats, "post": stats["weight"]})

    def _generate_sample_from_state(self, state: int, random_state: Any) -> Array:
        drawn = super()._generate_sample_from_state(state, random_state)
        if self.dof_ is None:
            return np.asarray(drawn)
        wide = np.sqrt(self.dof_ / random_state.chisquare(self.dof_))
        return np.asarray(self.means_[state] + (drawn - self.means_[state]) * wide)

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
        centre = medians(X)
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
