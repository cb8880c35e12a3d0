"""Held-out metrics of a decoder, none of them weighted by what is searched.

All trials of a study are measured against one `Reference`: a PCA and a fixed random convolution,
fitted before the search on snippets of training recordings, with the statistics of the held-out
snippets in these features. A Frechet distance is then comparable over trials (Heusel et al. 2017,
arXiv 1706.08500, with features that never change). Distances are divided by the total variance of
the features, so that 0 is "the same" and a decoder that always gives the mean snippet has 1.
"""

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn import functional

from models.mdgan import Mdgan
from models.training import TrainingFailedError

Array = NDArray[np.float64]

N_PCA_FEATURES = 32
N_CONV_CHANNELS = 16
MAX_PCA_DIM = 128
COLLAPSED_BELOW = 0.05  # share of the real snippets' standard deviation
COLLAPSED_OBJECTIVE = 1000.0  # finite, so that samplers can use it, and worse than any sound trial
OBJECTIVES = (
    "valid/objective",
    "valid/recon_l1_vs_pca",
    "valid/recon_l1",
    "valid/recon_l2",
    "valid/frechet_sample",
)


@dataclass(frozen=True)
class Reference:
    """What every trial of a study is measured by.

    Attributes:
        pca_mean: [n_freq * n_frames] mean training snippet.
        pca_components: [n_components, n_freq * n_frames] principal components of training snippets.
        conv_kernels_1: [N_CONV_CHANNELS, 1, 5, 3] fixed random kernels.
        conv_kernels_2: [N_CONV_CHANNELS, N_CONV_CHANNELS, 5, 3].
        pca_l1, pca_l2: [n_components] held-out error of a PCA of 1, 2, ... dimensions, log1p units.
        feature_mean: [n_features] of the held-out snippets, PCA features then convolution features.
        feature_cov: [n_features, n_features].
    """

    pca_mean: Array
    pca_components: Array
    conv_kernels_1: Array
    conv_kernels_2: Array
    pca_l1: Array
    pca_l2: Array
    feature_mean: Array
    feature_cov: Array

    @property
    def sha256(self) -> str:
        """Hash over all arrays: equal for all trials of a study."""
        digest = hashlib.sha256()
        for field in fields(self):
            digest.update(np.ascontiguousarray(getattr(self, field.name)).tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write all arrays to an .npz file."""
        np.savez(path, allow_pickle=False, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: Path) -> "Reference":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{f.name: arrays[f.name] for f in fields(cls)})

    def features(self, snippets: Tensor) -> Array:
        """Fixed features [n, N_PCA_FEATURES + N_CONV_CHANNELS * 4] of snippets [n, 1, F, T]."""
        flat = snippets.flatten(1).numpy().astype(np.float64) - self.pca_mean
        pca = flat @ self.pca_components[:N_PCA_FEATURES].T
        return np.concatenate([pca, self._convolve(snippets)], axis=1)

    def _convolve(self, snippets: Tensor) -> Array:
        kernels_1 = torch.from_numpy(self.conv_kernels_1).float()
        kernels_2 = torch.from_numpy(self.conv_kernels_2).float()
        maps = functional.relu(functional.conv2d(snippets, kernels_1, stride=2))
        maps = functional.relu(functional.conv2d(maps, kernels_2, stride=2))
        # Four bands of frequency, averaged over time and within the band.
        features: Array = functional.adaptive_avg_pool2d(maps, (4, 1)).flatten(1).double().numpy()
        return features

    def frechet(self, snippets: Tensor) -> float:
        """Frechet distance of snippets [n, 1, F, T] to the held-out ones.

        The mean of that in the PCA features and that in the convolution features, each divided by
        the total variance there: the one is blind to blur, the other weak on pitch.
        """
        mean, cov = _mean_and_cov(self.features(snippets))
        parts = []
        for part in (slice(0, N_PCA_FEATURES), slice(N_PCA_FEATURES, None)):
            reference_cov = self.feature_cov[part, part]
            d = frechet_distance(
                mean[part], cov[part, part], self.feature_mean[part], reference_cov
            )
            parts.append(d / np.trace(reference_cov))
        return float(np.mean(parts))


def fit_reference(train: Tensor, valid: Tensor, seed: int) -> Reference:
    """Fit the reference of a study.

    Args:
        train: snippets [n, 1, n_freq, n_frames] of training recordings.
        valid: snippets of held-out recordings.
        seed: of the random kernels and of the PCA's solver.
    """
    rng = np.random.default_rng(seed)
    flat = train.flatten(1).numpy()
    n_components = min(MAX_PCA_DIM, len(flat) - 1)
    if n_components < N_PCA_FEATURES:
        raise ValueError(
            f"{len(flat)} training snippets are too few for a reference with "
            f"{N_PCA_FEATURES} principal components. Give more recordings."
        )
    pca = PCA(n_components, svd_solver="randomized", random_state=seed).fit(flat)
    mean, components = pca.mean_.astype(np.float64), pca.components_.astype(np.float64)
    l1, l2 = _pca_errors(valid.flatten(1).numpy().astype(np.float64), mean, components)
    conv_1 = rng.standard_normal((N_CONV_CHANNELS, 1, 5, 3)) / np.sqrt(15)
    conv_2 = rng.standard_normal((N_CONV_CHANNELS, N_CONV_CHANNELS, 5, 3))
    conv_2 /= np.sqrt(15 * N_CONV_CHANNELS)
    empty = np.zeros(0)
    bare = Reference(mean, components, conv_1, conv_2, l1, l2, empty, empty)
    feature_mean, feature_cov = _mean_and_cov(bare.features(valid))
    return Reference(mean, components, conv_1, conv_2, l1, l2, feature_mean, feature_cov)


def _pca_errors(flat: Array, mean: Array, components: Array) -> tuple[Array, Array]:
    """Mean absolute and mean squared error of reconstructions from 1, 2, ... components."""
    residual = flat - mean
    scores = residual @ components.T
    l1, l2 = [], []
    for i, component in enumerate(components):
        residual = residual - np.outer(scores[:, i], component)
        l1.append(np.abs(residual).mean())
        l2.append(np.square(residual).mean())
    return np.array(l1), np.array(l2)


def _mean_and_cov(features: Array) -> tuple[Array, Array]:
    return features.mean(0), np.cov(features, rowvar=False)


def frechet_distance(mean_a: Array, cov_a: Array, mean_b: Array, cov_b: Array) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) of two Gaussians (Dowson and Landau 1982)."""
    # A B is similar to a positive semi-definite matrix: its eigenvalues are real and not negative.
    eigenvalues = np.linalg.eigvals(cov_a @ cov_b).real.clip(min=0)
    trace = np.trace(cov_a) + np.trace(cov_b) - 2 * np.sqrt(eigenvalues).sum()
    return float(np.square(mean_a - mean_b).sum() + trace)


@torch.no_grad()
def evaluate(model: Mdgan, reference: Reference, valid: Tensor, seed: int) -> dict[str, float]:
    """Unweighted metrics of a decoder on held-out snippets.

    Args:
        model: networks are put into evaluation mode.
        reference: of the study.
        valid: snippets [n, 1, n_freq, n_frames] of held-out recordings, the same for all trials.
        seed: of the prior samples, the same for all trials.

    Returns:
        ``valid/recon_l1``, ``valid/recon_l2`` (log1p units), the same divided by the error of a
        PCA of the same dimension (``_vs_pca``), ``valid/frechet_recon``, ``valid/frechet_sample``,
        ``valid/latent_frechet`` (distance of the latents from the prior, per dimension),
        ``valid/latent_ks`` (mean Kolmogorov-Smirnov statistic over dimensions),
        ``valid/latent_dead`` (dimensions that do not vary), ``valid/collapsed`` (0 or 1),
        ``valid/spread`` (of snippets, the lesser of reconstructed and sampled, against the held-out
        ones) and ``valid/objective``.

    Raises:
        TrainingFailedError: the decoder gives numbers that are not finite.
    """
    for net in model.nets.values():
        net.eval()
    rng = torch.Generator().manual_seed(seed)
    z = _in_batches(model.encoder, valid, model.device)
    x_hat = _in_batches(model.generator, z, model.device)
    prior = model.sample_prior(len(valid), rng).cpu()
    samples = _in_batches(model.generator, prior, model.device)
    if not (x_hat.isfinite().all() and samples.isfinite().all()):
        raise TrainingFailedError(
            f"Decoded snippets are not finite after {model.snippets_seen} snippets: training has "
            "diverged. Lower lr or lambda_recon."
        )
    metrics = {
        "valid/recon_l1": float((x_hat - valid).abs().mean()),
        "valid/recon_l2": float((x_hat - valid).square().mean()),
    }
    pca = min(model.params.latent_dim, len(reference.pca_l1)) - 1
    metrics["valid/recon_l1_vs_pca"] = metrics["valid/recon_l1"] / float(reference.pca_l1[pca])
    metrics["valid/recon_l2_vs_pca"] = metrics["valid/recon_l2"] / float(reference.pca_l2[pca])
    metrics["valid/frechet_recon"] = reference.frechet(x_hat)
    metrics["valid/frechet_sample"] = reference.frechet(samples)
    metrics |= _latent_metrics(z.double().numpy(), prior.double().numpy())
    spread = min(_spread(x_hat), _spread(samples)) / _spread(valid)
    metrics["valid/spread"] = spread
    metrics["valid/collapsed"] = float(spread < COLLAPSED_BELOW)
    metrics["valid/objective"] = objective(metrics)
    return metrics


def objective(metrics: dict[str, float]) -> float:
    """What trials are ranked by; lower is better.

    Held-out L1 over that of a PCA of the same dimension, plus the Frechet distance of samples. The
    first alone would favour a decoder that cannot sample, the second alone one that cannot
    reconstruct; neither contains a loss weight. A collapsed trial is worse than any other.
    """
    if metrics["valid/collapsed"]:
        return COLLAPSED_OBJECTIVE
    sound = metrics["valid/recon_l1_vs_pca"] + metrics["valid/frechet_sample"]
    return min(sound, COLLAPSED_OBJECTIVE - 1)


def _spread(snippets: Tensor) -> float:
    """Root of the mean variance over snippets: 0 where all are the same."""
    return float(snippets.var(0).mean().sqrt())


def _latent_metrics(z: Array, prior: Array) -> dict[str, float]:
    latent_dim = z.shape[1]
    cov_z, cov_prior = np.atleast_2d(np.cov(z, rowvar=False)), np.cov(prior, rowvar=False)
    distance = frechet_distance(z.mean(0), cov_z, prior.mean(0), np.atleast_2d(cov_prior))
    ks = [stats.ks_2samp(z[:, i], prior[:, i], method="asymp").statistic for i in range(latent_dim)]
    return {
        "valid/latent_frechet": distance / latent_dim,
        "valid/latent_ks": float(np.mean(ks)),
        "valid/latent_dead": float((z.std(0) < 0.01).sum()),
    }


def _in_batches(net: torch.nn.Module, inputs: Tensor, device: torch.device) -> Tensor:
    """``net`` over ``inputs``, 256 at a time, so that memory does not grow with their number."""
    return torch.cat([net(batch.to(device)).cpu() for batch in inputs.split(256)])
