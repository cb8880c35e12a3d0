"""Held-out snippets, and how near other snippets come to them, by a study's reference."""

import functools

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.metrics.distances import (
    frechet_distance,
    log_magnitude_db,
    mean_and_cov,
    reconstruction_errors,
)
from models.metrics.neighbours import neighbour_measures, neighbour_radii
from models.metrics.reference import FEATURE_PARTS, Reference

Array = NDArray[np.float64]


class HeldOut:
    """Held-out snippets, with everything that is computed from them once for many comparisons.

    The PCA features and the convolution's features are each divided by the root of their total
    variance over the held-out snippets. So both count alike, 0 means "the same", and a decoder that
    always gives the mean snippet has a Frechet distance of about 1.

    Args:
        reference: of the study.
        snippets: [n, 1, n_freq, n_frames]; do not change them in place afterwards. What is compared
            with them is computed on their device.

    Raises:
        ValueError: too few snippets, or all of them are equal.
    """

    def __init__(self, reference: Reference, snippets: Tensor):
        self.reference = reference
        self.snippets = snippets
        self._db = log_magnitude_db(snippets)
        features = reference.features(snippets)
        self._scale = np.empty(features.shape[1])
        for part in FEATURE_PARTS:
            self._scale[part] = np.sqrt(features[:, part].var(0).sum())
        if not self._scale.all():
            raise ValueError(
                f"All {len(snippets)} held-out snippets are equal: they cannot measure "
                "anything. Check the held-out recordings for silence."
            )
        self._features = features / self._scale
        self._gaussians = [mean_and_cov(self._features[:, part]) for part in FEATURE_PARTS]
        self._radii = neighbour_radii(self._features)
        self._pca_figures: dict[tuple[int, int], dict[str, float]] = {}

    def features_of(self, snippets: Tensor) -> Array:
        """Scaled features [n, n_features] of any snippets [n, 1, n_freq, n_frames]."""
        return self.reference.features(snippets) / self._scale

    def errors(self, x_hat: Tensor) -> dict[str, float]:
        """`reconstruction_errors` of reconstructions of the held-out snippets."""
        return reconstruction_errors(x_hat, self.snippets, self._db)

    def frechet(self, features: Array) -> float:
        """Frechet distance of scaled features [n, n_features] to the held-out snippets' features.

        It is the mean of two distances: in the PCA features, and in the convolution's features.
        """
        parts = zip(FEATURE_PARTS, self._gaussians, strict=True)
        return float(
            np.mean([frechet_distance(*mean_and_cov(features[:, p]), *real) for p, real in parts])
        )

    def neighbours(self, features: Array) -> dict[str, float]:
        """`models.metrics.neighbours.neighbour_measures` of the scaled features of samples."""
        return neighbour_measures(self._features, self._radii, features, self.snippets.device)

    def pca_figures(self, latent_dim: int, seed: int) -> dict[str, float]:
        """The same figures for a PCA of the same dimension; computed once.

        Args:
            latent_dim: components; all components of the reference if it has fewer.
            seed: of the samples.

        Returns:
            ``l1``, ``l2``, ``lsd_db`` and ``frechet_recon`` of reconstructions, and
            ``frechet_sample`` of as many samples of a Gaussian in PCA space. All are clipped at 0.
        """
        key = latent_dim, seed
        if key not in self._pca_figures:
            self._pca_figures[key] = self._measure_pca(latent_dim, seed)
        return self._pca_figures[key]

    def _measure_pca(self, latent_dim: int, seed: int) -> dict[str, float]:
        pca = self.reference
        scores = pca.pca_scores(self.snippets, latent_dim)
        x_hat = pca.pca_decode(scores).to(self.snippets.device)
        samples = pca.pca_sample(len(self.snippets), latent_dim, seed)
        return {
            **self.errors(x_hat),
            "frechet_recon": self.frechet(self.features_of(x_hat)),
            "frechet_sample": self.frechet(self.features_of(samples)),
        }


# Cached by identity: a training asks for the same two objects at each of its reports.
@functools.lru_cache(maxsize=2)
def held_out_of(reference: Reference, snippets: Tensor) -> HeldOut:
    """The `HeldOut` of these two objects, made once."""
    return HeldOut(reference, snippets)
