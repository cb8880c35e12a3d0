"""Steps of EM taken further in the direction in which they go: SQUAREM.

Varadhan and Roland 2008, "Simple and globally convergent methods for accelerating the convergence
of any EM algorithm", Scandinavian Journal of Statistics 35, scheme S3.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.hmm.gaussian import GaussianHMM

Array = NDArray[np.float64]
# Start probabilities, transitions, means and covariances, as a model holds them.
Parameters = tuple[Array, Array, Array, Array]


def parameters_of(model: GaussianHMM) -> Parameters:
    """The arrays of a model; an M-step makes new ones, so they stay as they are."""
    return model.startprob_, model.transmat_, model.means_, model._covars_


def give(model: GaussianHMM, parameters: Parameters) -> None:
    """Set the parameters of a model."""
    model.startprob_, model.transmat_, model.means_, model._covars_ = parameters


def further(
    steps: Sequence[Parameters], is_matrix: bool, least_variance: float
) -> Parameters | None:
    """Parameters beyond two iterations of EM.

    Probabilities are taken further as square roots and made to sum to 1 again, variances as
    logarithms; zeros stay zeros. A covariance matrix that would get a variance below
    ``least_variance`` stays as EM left it.

    Args:
        steps: the parameters before the two, between them, and after.
        is_matrix: covariances are matrices: tied or full.
        least_variance: floor of variances.

    Returns:
        None where two iterations of EM already go as far.
    """
    before, between, after = (_free(p, is_matrix) for p in steps)
    step = [b - a for a, b in zip(before, between, strict=True)]
    bend = [c - b - s for b, c, s in zip(between, after, step, strict=True)]
    squares = [sum(float(np.square(a).sum()) for a in arrays) for arrays in (step, bend)]
    if not 0 < squares[1] < squares[0] < math.inf:
        return None
    length = math.sqrt(squares[0] / squares[1])
    start, moves, means, covariances = (
        a + 2 * length * s + length**2 * b for a, s, b in zip(before, step, bend, strict=True)
    )
    if is_matrix:
        is_wide = np.linalg.eigvalsh(covariances)[..., :1, None] >= least_variance
        covariances = np.where(is_wide, covariances, steps[2][3])
    else:
        covariances = np.maximum(np.exp(covariances), least_variance)
    return _to_one(start), _to_one(moves), means, covariances


def _free(parameters: Parameters, is_matrix: bool) -> list[Array]:
    start, moves, means, covariances = parameters
    spread = covariances if is_matrix else np.log(covariances)
    return [np.sqrt(start), np.sqrt(moves), means, spread]


def _to_one(roots: Array) -> Array:
    squares = np.square(roots)
    return np.asarray(squares / squares.sum(-1, keepdims=True))
