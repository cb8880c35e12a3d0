"""Nearest neighbours: do samples look like song, and do they show all of it?

One Frechet distance cannot tell poor samples from samples of few kinds; these four measures can.
Precision and recall: Kynkaanniemi et al. 2019, arXiv 1904.06991, equation 1; density and coverage:
Naeem et al. 2020, arXiv 2002.09797, equations 3 and 4.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

Array = NDArray[np.float64]

N_NEIGHBOURS = 5


def neighbour_radii(points: Array) -> Array:
    """Distance [n] of each of ``points`` [n, d] to its N_NEIGHBOURS-th neighbour among the others.

    Raises:
        ValueError: there are too few points for so many neighbours.
    """
    if len(points) <= N_NEIGHBOURS:
        raise ValueError(
            f"{len(points)} snippets are too few for {N_NEIGHBOURS} nearest neighbours. Give more "
            "held-out snippets."
        )
    distances, _ = NearestNeighbors(n_neighbors=N_NEIGHBOURS).fit(points).kneighbors()
    radii: Array = distances[:, -1]
    return radii


def neighbour_measures(
    real: Array, real_radii: Array, samples: Array, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """Precision, recall, density and coverage of samples.

    The ball of a point reaches to its N_NEIGHBOURS-th neighbour among points of its own kind.

    Args:
        real: features [n, d] of real snippets.
        real_radii: `neighbour_radii` of ``real``, which many calls can share.
        samples: features [m, d] of samples.
        device: computes the n x m distances.

    Returns:
        ``precision``: share of samples that lie in a ball of a real snippet; ``recall``: share of
        real snippets that lie in a ball of a sample; ``density``: real balls around a sample over
        N_NEIGHBOURS, which no single outlier can raise (about 1 if both distributions are equal; it
        can be more); ``coverage``: share of real snippets with a sample in their ball.
    """
    arrays = (real, samples, real_radii, neighbour_radii(samples))
    of_real, of_samples, real_reach, sample_reach = (
        torch.from_numpy(array).to(device) for array in arrays
    )
    between = torch.cdist(of_real, of_samples)
    in_real_ball = between <= real_reach[:, None]
    in_sample_ball = between <= sample_reach
    return {
        "precision": float(in_real_ball.any(0).double().mean()),
        "recall": float(in_sample_ball.any(1).double().mean()),
        "density": float(in_real_ball.sum(0).double().mean() / N_NEIGHBOURS),
        "coverage": float(in_real_ball.any(1).double().mean()),
    }
