"""Held-out metrics of a decoder; no searched parameter weighs them.

All trials of a study are measured on the same held-out snippets, by one
`models.metrics.reference.Reference`. Each figure of reconstruction or sampling is also
divided by the figure of a PCA of the same dimension, because a large latent is no merit.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from models.mdgan.collapse import COLLAPSED_BELOW, spread_ratio
from models.mdgan.model import Mdgan
from models.mdgan.training import TrainingFailedError
from models.metrics.distances import frechet_distance, mean_and_cov
from models.metrics.held_out import held_out_of
from models.metrics.reference import Reference

Array = NDArray[np.float64]

COLLAPSED_OBJECTIVE = 1000.0  # finite, so that samplers can use it, and worse than any sound trial
DEAD_BELOW = 0.01  # standard deviation of a latent dimension that does not vary
SAMPLES_WEIGHT = 2.0
OBJECTIVES = (
    "valid/objective",
    "valid/recon_l1_vs_pca",
    "valid/recon_l1",
    "valid/recon_l2",
    "valid/recon_lsd_db",
    "valid/frechet_sample",
)


@torch.no_grad()
def evaluate(model: Mdgan, reference: Reference, valid: Tensor, seed: int) -> dict[str, float]:
    """Unweighted metrics of a decoder on held-out snippets.

    Args:
        model: encodes and decodes; it is not changed.
        reference: of the study.
        valid: snippets [n, 1, n_freq, n_frames] of held-out recordings, on the model's device: the
            same tensor at each report of a training, the same snippets for all trials. A Frechet
            distance falls with n, so distances compare at equal n only.
        seed: of the prior samples, the same for all trials.

    Returns:
        All under ``valid/``. Of reconstructions: ``recon_l1``, ``recon_l2`` (log1p units),
        ``recon_lsd_db`` and ``frechet_recon``; of as many samples of the prior: ``frechet_sample``,
        ``precision``, ``recall``, ``density``, ``coverage``. ``recon_l1_vs_pca``,
        ``recon_l2_vs_pca``, ``recon_lsd_vs_pca``, ``frechet_recon_vs_pca`` and
        ``frechet_sample_vs_pca`` are divided by the figures of a PCA of the same dimension (see
        `models.metrics.held_out.HeldOut.pca_figures`): below 1 the decoder is better. Of latents:
        the measures of `latent_measures`. ``spread`` (the smaller spread of reconstructed and
        sampled snippets, divided by the held-out snippets' spread), ``collapsed``
        (0 or 1) and ``objective``.

    Raises:
        TrainingFailedError: the decoder gives numbers that are not finite.
    """
    rng = torch.Generator().manual_seed(seed)
    z = _in_batches(model.encode, valid)
    x_hat = _in_batches(model.decode, z)
    prior = model.sample_prior(len(valid), rng)
    samples = _in_batches(lambda batch: model.decode(batch, "prior"), prior)
    if not (x_hat.isfinite().all() and samples.isfinite().all()):
        raise TrainingFailedError(
            f"Decoded snippets are not finite after {model.snippets_seen} snippets: training has "
            "diverged. Lower lr or lambda_recon."
        )
    held_out = held_out_of(reference, valid)
    errors = held_out.errors(x_hat)
    sample_features = held_out.features_of(samples)
    frechet_recon = held_out.frechet(held_out.features_of(x_hat))
    frechet_sample = held_out.frechet(sample_features)
    pca = held_out.pca_figures(model.params.latent_dim, seed)
    spread = spread_ratio(valid, x_hat, samples)
    found = {
        "recon_l1": errors["l1"],
        "recon_l2": errors["l2"],
        "recon_lsd_db": errors["lsd_db"],
        "frechet_recon": frechet_recon,
        "frechet_sample": frechet_sample,
        **held_out.neighbours(sample_features),
        "recon_l1_vs_pca": errors["l1"] / pca["l1"],
        "recon_l2_vs_pca": errors["l2"] / pca["l2"],
        "recon_lsd_vs_pca": errors["lsd_db"] / pca["lsd_db"],
        "frechet_recon_vs_pca": frechet_recon / pca["frechet_recon"],
        "frechet_sample_vs_pca": frechet_sample / pca["frechet_sample"],
        **latent_measures(z.double().cpu().numpy(), prior.double().cpu().numpy()),
        "spread": spread,
        "collapsed": float(spread < COLLAPSED_BELOW),
    }
    metrics = {f"valid/{name}": value for name, value in found.items()}
    metrics["valid/objective"] = objective(metrics)
    return metrics


def objective(metrics: dict[str, float]) -> float:
    """The number that ranks trials; lower is better.

    It is the held-out L1 divided by the L1 of a PCA of the same dimension, plus twice the Frechet
    distance of samples. The first alone would favour a decoder that cannot sample, the second alone
    a decoder that cannot reconstruct; neither contains a loss weight. The distance counts twice:
    the L1 of sound trainings differs by hundredths, and the distance must outweigh that
    (``benchmarks/objective.py``). A collapsed trial ranks below all others.
    """
    if metrics["valid/collapsed"]:
        return COLLAPSED_OBJECTIVE
    sound = metrics["valid/recon_l1_vs_pca"] + SAMPLES_WEIGHT * metrics["valid/frechet_sample"]
    return min(sound, COLLAPSED_OBJECTIVE - 1)


def latent_measures(z: Array, prior: Array) -> dict[str, float]:
    """Distances between latents and the prior that samples start from.

    Args:
        z: latents [n, latent_dim] of held-out snippets.
        prior: as many samples of the prior; its dimensions are independent and alike.

    Returns:
        ``latent_frechet`` (per dimension), ``latent_mean`` (largest mean of a dimension, in
        standard deviations of the prior), ``latent_cov`` (root mean square of the correlations
        between dimensions that vary), ``latent_ks`` (Kolmogorov-Smirnov statistic, mean over
        dimensions) and ``latent_dead`` (number of dimensions that do not vary).
    """
    latent_dim = z.shape[1]
    mean, cov = mean_and_cov(z)
    ks = [stats.ks_2samp(z[:, i], prior[:, i], method="asymp").statistic for i in range(latent_dim)]
    is_dead = z.std(0) < DEAD_BELOW
    return {
        "latent_frechet": frechet_distance(mean, cov, *mean_and_cov(prior)) / latent_dim,
        "latent_mean": float(np.abs(mean).max() / prior.std()),
        "latent_cov": _root_mean_square_correlation(cov[np.ix_(~is_dead, ~is_dead)]),
        "latent_ks": float(np.mean(ks)),
        "latent_dead": float(is_dead.sum()),
    }


def _root_mean_square_correlation(cov: Array) -> float:
    """Over all pairs of dimensions; 0 if there is no pair."""
    std = np.sqrt(np.diag(cov))
    correlations = (cov / np.outer(std, std))[np.triu_indices(len(cov), 1)]
    return float(np.sqrt(np.square(correlations).mean())) if len(correlations) else 0.0


def _in_batches(net: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """Run ``net`` over ``inputs``, 256 at a time, so that its memory does not grow with them."""
    return torch.cat([net(batch).float() for batch in inputs.split(256)])
