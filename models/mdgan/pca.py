"""Principal components of snippets: a decoder is compared with them, and may begin as them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Pca:
    """Principal components of snippets, flattened.

    Attributes:
        mean: [n_freq * n_frames] mean snippet.
        components: [n_components, n_freq * n_frames], orthonormal rows.
        std: [n_components] standard deviation of the snippets along each.
    """

    mean: Array
    components: Array
    std: Array


def fit_pca(snippets: Tensor, n_components: int, seed: int) -> Pca:
    """Fit a PCA, by scikit-learn's randomised solver.

    Args:
        snippets: [n, 1, n_freq, n_frames].
        n_components: number of components.
        seed: of the solver.

    Raises:
        ValueError: there are not more snippets than components, or they do not differ.
    """
    flat = snippets.flatten(1).numpy()
    if len(flat) <= n_components:
        raise ValueError(
            f"{len(flat)} snippets are too few for {n_components} principal components. Give more "
            "recordings, or ask for fewer components."
        )
    if not np.ptp(flat, axis=0).any():
        raise ValueError(f"All {len(flat)} snippets are equal: they have no principal components.")
    fitted = PCA(n_components, svd_solver="randomized", random_state=seed).fit(flat)
    return Pca(
        fitted.mean_.astype(np.float64),
        fitted.components_.astype(np.float64),
        np.sqrt(fitted.explained_variance_.astype(np.float64)),
    )
