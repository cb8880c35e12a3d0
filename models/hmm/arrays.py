"""A model's parameters as plain arrays and back, and songs sampled from it."""

import numpy as np
from numpy.typing import NDArray

from models.hmm.gaussian import GaussianHMM
from models.hmm.params import CovarianceType

Array = NDArray[np.float64]


def covariances(model: GaussianHMM) -> Array:
    """Covariances in the shape that hmmlearn's ``covars_`` is set with."""
    covars = np.asarray(model._covars_, dtype=np.float64)
    # After EM, hmmlearn holds a spherical variance once per dimension.
    if model.covariance_type == "spherical" and covars.ndim == 2:
        return covars[:, 0].copy()
    return covars


def restored(
    start_probs: Array,
    transition_matrix: Array,
    means: Array,
    covariances: Array,
    covariance_type: CovarianceType,
    dof: float | None = None,
) -> GaussianHMM:
    """A model with these parameters (shapes as `covariances` gives them).

    ``dof`` are degrees of freedom of Student t emissions; None for Gaussian ones.
    """
    model = GaussianHMM(len(start_probs), covariance_type)
    model.dof_ = dof
    model.n_features = means.shape[1]
    model.startprob_, model.transmat_ = start_probs, transition_matrix
    model.means_, model.covars_ = means, covariances
    return model


def sample_latents(
    model: GaussianHMM, n_snippets: int, seed: int
) -> tuple[Array, NDArray[np.int64]]:
    """A sequence of whitened latents [n_snippets, latent_dim] and its states [n_snippets].

    The first state is drawn from the start probabilities, and latents from the emissions: their
    means alone would be a song without variation.
    """
    z, states = model.sample(n_snippets, random_state=seed)
    return z, states
