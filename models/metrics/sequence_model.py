"""A sequence model by a fixed recipe, quick enough for every report of every trial.

It stands for the hidden Markov model of the finished study: a mixture of Gaussians with full
covariances, and transitions counted between the likeliest components of consecutive snippets
(``benchmarks/objective.py`` says how well its songs stand for those of the finished model).
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

Array = NDArray[np.float64]

# Components: PER_ROOT times the root of the number of snippets, and half of that at HALF_AT
# dimensions. So do the states with the lowest BIC of full covariances grow and shrink.
PER_ROOT, HALF_AT = 0.45, 32
FLOOR = 1e-3  # added to every variance, in whitened units
# Covariances lean to the mean of all components as so many snippets would pull them: one of few
# snippets stretches to sounds that nobody sang.
LEAN = 20.0
N_ITER = 20
PRIOR_MOVES = 1.0  # transitions from each component that are added, spread as the components are


@dataclass(frozen=True)
class SequenceModel:
    """A Markov chain of Gaussian components.

    Attributes:
        start: [k] shares in the steady state.
        transitions: [k, k] P(next component | component).
        means: [k, d].
        roots: [k, d, d] lower Cholesky factors of the covariances.
    """

    start: Array
    transitions: Array
    means: Array
    roots: Array

    def sample(self, n_songs: int, length: int, rng: np.random.Generator) -> Array:
        """Latents [n_songs * length, d] of songs of ``length`` snippets each, end to end."""
        states = np.empty((n_songs, length), np.int64)
        before = np.broadcast_to(self.start, (n_songs, len(self.start)))
        for i in range(length):
            reach = before.cumsum(1)
            states[:, i] = (reach < rng.random((n_songs, 1)) * reach[:, -1:]).sum(1)
            before = self.transitions[states[:, i]]
        drawn = states.ravel()
        z = rng.standard_normal((len(drawn), self.means.shape[1]))
        for state in np.unique(drawn):
            rows = drawn == state
            z[rows] = z[rows] @ self.roots[state].T + self.means[state]
        return z


def fit_sequence_model(z: Array, lengths: Sequence[int], seed: int) -> SequenceModel:
    """Fit by the fixed recipe.

    Args:
        z: whitened latents [n, d] of consecutive snippets, stretches end to end.
        lengths: snippets of each stretch.
        seed: of the start of the mixture.
    """
    k = n_components(*z.shape)
    mixture = GaussianMixture(k, reg_covar=FLOOR, max_iter=N_ITER, random_state=seed)
    # In one thread sums have one order, so the same latents give the same model.
    with threadpool_limits(1), warnings.catch_warnings():
        # N_ITER is the recipe, converged or not; equal latents have fewer clusters than components.
        warnings.simplefilter("ignore", ConvergenceWarning)
        states = mixture.fit_predict(z)
    follows = np.ones(len(z) - 1, np.bool_)
    follows[np.cumsum(lengths)[:-1] - 1] = False
    counts = np.zeros((k, k))
    np.add.at(counts, (states[:-1][follows], states[1:][follows]), 1)
    shrunk = leaning(mixture.covariances_, len(z) * mixture.weights_)
    transitions = counts + PRIOR_MOVES * mixture.weights_
    transitions /= transitions.sum(1, keepdims=True)
    return SequenceModel(
        steady_state(transitions),
        transitions,
        mixture.means_,
        np.asarray(np.linalg.cholesky(shrunk), np.float64),
    )


def leaning(covariances: Array, n_of: Array) -> Array:
    """Covariances [k, d, d] of components with ``n_of`` [k] snippets, shrunk to their mean."""
    own = (n_of / (n_of + LEAN))[:, None, None]
    mean = np.tensordot(n_of / n_of.sum(), covariances, 1)
    shrunk: Array = np.asarray(own * covariances + (1 - own) * mean, np.float64)
    return shrunk


def n_components(n: int, latent_dim: int) -> int:
    """Components for ``n`` snippets: 16, 14 and 9 of 1,500 with 8, 16 and 32 dimensions."""
    return max(1, round(PER_ROOT * math.sqrt(n) / (1 + (latent_dim / HALF_AT) ** 2)))


def steady_state(transitions: Array) -> Array:
    """Shares [k] that transitions [k, k] leave as they are; all states must be reached."""
    k = len(transitions)
    return np.linalg.solve(np.eye(k) - transitions.T + 1.0, np.ones(k)).clip(min=0)
