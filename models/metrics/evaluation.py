"""Held-out metrics of a decoder; no searched parameter weighs them.

All trials of a study are measured on the same held-out songs, by one
`models.metrics.reference.Reference`. Figures of reconstruction are also divided by those of one
PCA, the same for all latent sizes.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from models.mdgan.collapse import COLLAPSED_BELOW, spread_ratio
from models.mdgan.model import Mdgan
from models.mdgan.training import Evaluation
from models.metrics.distances import frechet_distance, mean_and_cov
from models.metrics.held_out_songs import held_out_songs
from models.metrics.measure import check_finite, in_batches, measure
from models.metrics.reference import Reference
from models.metrics.songs import Songs

Array = NDArray[np.float64]

COLLAPSED_OBJECTIVE = 1000.0  # finite, so that samplers can use it, and worse than any sound trial
DEAD_BELOW = 0.01  # standard deviation of a latent dimension that does not vary
OBJECTIVES = (
    "valid/objective",
    "valid/frechet_song",
    "valid/frechet_song_worst",
    "valid/recon_l1",
    "valid/recon_l1_mean",
    "valid/recon_l1_worst",
    "valid/recon_l1_vs_pca",
    "valid/recon_l2",
    "valid/recon_lsd_db",
    "valid/frechet_sample",
)
OF_SONG = {"valid/objective", "valid/frechet_song", "valid/frechet_song_worst"}  # need windows


@torch.no_grad()
def evaluate(model: Mdgan, reference: Reference, songs: tuple[Songs, ...], seed: int) -> Evaluation:
    """Unweighted metrics of a decoder on held-out song.

    Args:
        model: encodes and decodes; it is not changed.
        reference: of the study.
        songs: of all birds and ages, by `models.metrics.songs.gather_songs`: the same object at
            each report of a training, the same songs for all trials. A Frechet distance falls with
            the number of windows, so distances compare for the same songs only.
        seed: of everything that is sampled, the same for all trials.

    Returns:
        Metrics, all under ``valid/``: those of `models.metrics.measure.measure`, and its rows by
        bird and age. Further ``frechet_recon`` of reconstructed snippets; of as many samples of
        the prior ``frechet_sample``, ``precision``, ``recall``, ``density``, ``coverage``;
        ``frechet_recon_vs_pca`` and ``frechet_sample_vs_pca``, divided by the figures of a PCA of
        16 dimensions. Of latents: the measures of `latent_measures`. ``spread`` (the smaller spread
        of reconstructed and sampled snippets, divided by the held-out snippets' spread),
        ``collapsed`` (0 or 1) and `objective`, missing where no bird and age has song enough.

    Raises:
        TrainingFailedError: the decoder gives numbers that are not finite.
    """
    held_out = held_out_songs(reference, songs, model.device)
    found = measure(model.encode, model.decode, held_out, seed)
    snippets = held_out.snippets
    rng = torch.Generator().manual_seed(seed)
    prior = model.sample_prior(len(snippets.snippets), rng)
    samples = in_batches(lambda batch: model.decode(batch, "prior"), prior)
    check_finite(samples)
    sample_features = snippets.features_of(samples)
    frechet = {
        "frechet_recon": snippets.frechet(snippets.features_of(found.x_hat)),
        "frechet_sample": snippets.frechet(sample_features),
    }
    pca = snippets.pca_figures(seed)
    spread = spread_ratio(snippets.snippets, found.x_hat, samples)
    named = {
        **found.metrics,
        **frechet,
        **{f"{name}_vs_pca": value / pca[name] for name, value in frechet.items()},
        **snippets.neighbours(sample_features),
        **latent_measures(found.z.double().cpu().numpy(), prior.double().cpu().numpy()),
        "spread": spread,
        "collapsed": float(spread < COLLAPSED_BELOW),
    }
    metrics = {f"valid/{name}": value for name, value in named.items()}
    if "frechet_song" in named:
        metrics["valid/objective"] = objective(metrics)
    return Evaluation(metrics, found.by_bird_age)


def objective(metrics: dict[str, float]) -> float:
    """The number that ranks trials; lower is better.

    It is the Frechet distance of sampled songs to held-out songs, mean over birds and ages. A
    collapsed trial ranks below all others.
    """
    if metrics["valid/collapsed"]:
        return COLLAPSED_OBJECTIVE
    return min(metrics["valid/frechet_song"], COLLAPSED_OBJECTIVE - 1)


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
