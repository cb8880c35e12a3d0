"""Student t emissions by the same matrix products as Gaussian ones.

The log-density of a multivariate t (Kotz and Nadarajah 2004) is a function of the Mahalanobis
distance, and so of the Gaussian log-density with the same mean and matrix. EM takes a t for a
Gaussian whose precision is drawn anew for every snippet: a snippet far from a state has little
weight in its mean and matrix. Matrices are divided by the summed weights (Kent, Tyler and Vardi
1994): the same optimum in fewer iterations.
"""

import math

import numba
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Below, a posterior adds nothing to an expectation, and its density may have been flushed to 0.
_NEGLIGIBLE = 1e-12


def constant(dof: float, latent_dim: int) -> float:
    """Log-density of a t at its mean, less that of a Gaussian with the same matrix."""
    return (
        math.lgamma((dof + latent_dim) / 2)
        - math.lgamma(dof / 2)
        + latent_dim / 2 * (math.log(2) - math.log(dof))
    )


@numba.njit(cache=True, error_model="numpy")
def from_gaussian(
    log_densities: Array, peaks: Array, constant: float, dof: float, latent_dim: int, weights: Array
) -> None:
    """In place: Gaussian log-densities [n, n_states] become those of a t.

    Args:
        log_densities: [n, n_states].
        peaks: [n_states] Gaussian log-densities at the means.
        constant: as `constant` gives it.
        dof: degrees of freedom.
        latent_dim: numbers in a latent.
        weights: [n, n_states] gets (dof + latent_dim) / (dof + squared Mahalanobis distance): what
            a snippet counts in a state's mean and matrix.
    """
    power = (dof + latent_dim) / 2
    for i in range(log_densities.shape[0]):
        for k in range(log_densities.shape[1]):
            # Not below 0 by rounding; NaN stays.
            squared = 2 * (peaks[k] - log_densities[i, k])
            if squared < 0:
                squared = 0.0
            weights[i, k] = 2 * power / (dof + squared)
            log_densities[i, k] = peaks[k] + constant - power * math.log1p(squared / dof)


@numba.njit(cache=True)
def expected_log_density(densities: Array, shifts: Array, posteriors: Array) -> float:
    """Sum of posterior times log-density, in nats.

    Args:
        densities: [n, n_states] divided by exp(shifts).
        shifts: [n].
        posteriors: [n, n_states].
    """
    total = 0.0
    for i in range(densities.shape[0]):
        for k in range(densities.shape[1]):
            if posteriors[i, k] > _NEGLIGIBLE:
                total += posteriors[i, k] * (math.log(densities[i, k]) + shifts[i])
    return total
