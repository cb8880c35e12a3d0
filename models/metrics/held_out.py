"""Held-out snippets, and how near other snippets come to them, by a study's reference."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.metrics.distances import (
    errors_of_each,
    frechet_distance,
    log_magnitude_db,
    mean_and_cov,
)
from models.metrics.neighbours import neighbour_measures, neighbour_radii
from models.metrics.reference import FEATURE_PARTS, PART, Reference

Array = NDArray[np.float64]

MOST_NEAR = 4000  # snippets that nearest neighbours are looked for among
PCA_DIM = 16  # one reference for all latent sizes: a larger latent must show that it is better


def few(features: Array) -> Array:
    """At most MOST_NEAR of features [n, d], evenly spread: all pairs of them are held in memory."""
    rows = np.linspace(0, len(features) - 1, min(len(features), MOST_NEAR)).astype(np.int64)
    chosen: Array = features[rows]
    return chosen


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
        self.raw_features = reference.features(snippets)
        self._scale = np.empty(self.raw_features.shape[1])
        for part in FEATURE_PARTS:
            self._scale[part] = np.sqrt(self.raw_features[:, part].var(0).sum())
        if not self._scale.all():
            raise ValueError(
                f"All {len(snippets)} held-out snippets are equal: they cannot measure "
                "anything. Check the held-out recordings for silence."
            )
        self._features = self.raw_features / self._scale
        self._gaussians = [mean_and_cov(self._features[:, part]) for part in FEATURE_PARTS]
        self._radii = neighbour_radii(few(self._features))
        self._pca_figures: dict[int, dict[str, float]] = {}
        self._pca_errors: dict[str, Array] = {}

    def features_of(self, snippets: Tensor) -> Array:
        """Scaled features [n, n_features] of any snippets [n, 1, n_freq, n_frames]."""
        return self.reference.features(snippets) / self._scale

    def errors_of_each(self, x_hat: Tensor) -> dict[str, Array]:
        """`models.metrics.distances.errors_of_each` of reconstructions of the held-out snippets."""
        triples = zip(
            *(all_of.split(PART) for all_of in (x_hat, self.snippets, self._db)), strict=True
        )
        parts = [errors_of_each(*some) for some in triples]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def errors(self, x_hat: Tensor) -> dict[str, float]:
        """Means over all snippets of `errors_of_each`."""
        return {name: float(each.mean()) for name, each in self.errors_of_each(x_hat).items()}

    def frechet(self, features: Array) -> float:
        """Frechet distance of scaled features [n, n_features] to the held-out snippets' features.

        It is the mean of two distances: in the PCA features, and in the convolution's features.
        """
        parts = zip(FEATURE_PARTS, self._gaussians, strict=True)
        return float(
            np.mean([frechet_distance(*mean_and_cov(features[:, p]), *real) for p, real in parts])
        )

    def neighbours(self, features: Array) -> dict[str, float]:
        """`models.metrics.neighbours.neighbour_measures` of the scaled features of samples.

        Of held-out snippets and of samples MOST_NEAR are compared at most.
        """
        device = self.snippets.device
        return neighbour_measures(few(self._features), self._radii, few(features), device)

    @property
    def pca_errors_of_each(self) -> dict[str, Array]:
        """`errors_of_each` of a PCA of PCA_DIM dimensions, clipped at 0; computed once."""
        if not self._pca_errors:
            self._pca_errors = self.errors_of_each(self._by_pca())
        return self._pca_errors

    def pca_figures(self, seed: int) -> dict[str, float]:
        """Frechet distances of a PCA of PCA_DIM dimensions, clipped at 0; computed once.

        Returns:
            ``frechet_recon`` of reconstructions, and ``frechet_sample`` of as many samples of a
            Gaussian in PCA space, drawn by ``seed``.
        """
        if seed not in self._pca_figures:
            samples = self.reference.pca_sample(len(self.snippets), PCA_DIM, seed)
            found = {"frechet_recon": self._by_pca(), "frechet_sample": samples}
            self._pca_figures[seed] = {
                name: self.frechet(self.features_of(snippets)) for name, snippets in found.items()
            }
        return self._pca_figures[seed]

    def _by_pca(self) -> Tensor:
        scores = self.reference.pca_scores(self.snippets, PCA_DIM)
        return self.reference.pca_decode(scores).to(self.snippets.device)
