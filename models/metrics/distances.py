"""Distances between snippets, or between their features: errors and Frechet distances."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

LSD_FLOOR = 0.01


def log_magnitude_db(snippets: Tensor) -> Tensor:
    """20 log10 of the magnitudes behind snippets of log(1 + magnitude), with the floor `LSD_FLOOR`.

    A sine of full scale has a magnitude of 64 (half the sum of a Hann window of 256 points), so the
    floor lies 76 dB below it. Without a floor silence would decide: 0 and a millionth are as many
    dB apart as a syllable and silence.
    """
    x = snippets.clamp(min=math.log1p(LSD_FLOOR))
    # log(expm1(x)) = x + log(1 - exp(-x)), which does not overflow if a decoder is far too loud.
    return 20 / math.log(10) * (x + torch.log(-torch.expm1(-x)))


def errors_of_each(x_hat: Tensor, x: Tensor, x_db: Tensor) -> dict[str, Array]:
    """Unweighted errors of reconstructions, of each snippet.

    Args:
        x_hat: reconstructed snippets [n, 1, n_freq, n_frames], log1p units.
        x: the snippets themselves.
        x_db: `log_magnitude_db` of ``x``, which many calls can share.

    Returns:
        ``l1`` (mean absolute) and ``l2`` (mean squared) in log1p units, and ``lsd_db``, the
        log-spectral distance in dB, each [n]. The latter is per frame the root over frequencies of
        the mean squared difference, then the mean over frames (Gray and Markel 1976, Distance
        measures for speech processing, with p = 2).
    """
    error = x_hat - x
    in_db = log_magnitude_db(x_hat) - x_db
    found = {
        "l1": error.abs().mean((1, 2, 3)),
        "l2": error.square().mean((1, 2, 3)),
        "lsd_db": in_db.square().mean(2).sqrt().mean((1, 2)),
    }
    return {name: value.double().cpu().numpy() for name, value in found.items()}


def reconstruction_errors(x_hat: Tensor, x: Tensor, x_db: Tensor) -> dict[str, float]:
    """Means over all snippets of `errors_of_each`."""
    return {name: float(value.mean()) for name, value in errors_of_each(x_hat, x, x_db).items()}


def mean_and_cov(features: Array) -> tuple[Array, Array]:
    """Mean [d] and covariance [d, d] of features [n, d]."""
    return features.mean(0), np.atleast_2d(np.cov(features, rowvar=False))


def frechet_distance(mean_a: Array, cov_a: Array, mean_b: Array, cov_b: Array) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) of two Gaussians (Dowson and Landau 1982)."""
    # A B is similar to a positive semi-definite matrix: its eigenvalues are real and not negative.
    eigenvalues = np.linalg.eigvals(cov_a @ cov_b).real.clip(min=0)
    trace = np.trace(cov_a) + np.trace(cov_b) - 2 * np.sqrt(eigenvalues).sum()
    return float(np.square(mean_a - mean_b).sum() + trace)
