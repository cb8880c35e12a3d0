"""A decoder that gives the same snippet whatever the latent: the way in which a GAN fails."""

import torch
from torch import Tensor

from models.mdgan.model import Mdgan

COLLAPSED_BELOW = 0.05  # share of the real snippets' spread


def spread(snippets: Tensor) -> float:
    """Root of the mean variance over snippets [n, 1, n_freq, n_frames]: 0 where all are equal."""
    return float(snippets.var(0).mean().sqrt())


def spread_ratio(x: Tensor, x_hat: Tensor, x_sampled: Tensor) -> float:
    """Spread of reconstructions or samples, whichever is less, against that of real snippets.

    Args:
        x: real snippets [n, 1, n_freq, n_frames].
        x_hat: reconstructions.
        x_sampled: decoded latents of the prior.

    Returns:
        1 where they vary as real ones do, 0 where all are the same; NaN where x does not vary.
    """
    real = spread(x)
    return min(spread(x_hat), spread(x_sampled)) / real if real > 0 else float("nan")


def is_collapsed(model: Mdgan, x: Tensor) -> bool:
    """Whether the decoder has collapsed, by real snippets ``x``; changes no random numbers."""
    x = x.to(model.device)
    rng = torch.Generator().manual_seed(0)
    x_hat = model.decode(model.encode(x))
    x_sampled = model.decode(model.sample_prior(len(x), rng), "prior")
    return spread_ratio(x, x_hat, x_sampled) < COLLAPSED_BELOW
