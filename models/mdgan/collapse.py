"""Collapse: a decoder gives the same snippet for every latent, the usual failure of a GAN."""

import torch
from torch import Tensor

from models.mdgan.devices import send
from models.mdgan.model import Mdgan

COLLAPSED_BELOW = 0.05  # share of the real snippets' spread


def spread(snippets: Tensor) -> Tensor:
    """Root of the mean variance over snippets [n, 1, n_freq, n_frames]; 0 if all are equal."""
    return snippets.var(0).mean().sqrt()


def spread_ratio(x: Tensor, x_hat: Tensor, x_sampled: Tensor) -> float:
    """The smaller spread of reconstructions and samples, divided by the spread of real snippets.

    Args:
        x: real snippets [n, 1, n_freq, n_frames].
        x_hat: reconstructions.
        x_sampled: snippets decoded from latents of the prior.

    Returns:
        1 if they vary as real snippets do, 0 if all are equal, NaN if ``x`` does not vary.
    """
    # Taken from the device together: one wait.
    spreads = torch.stack([spread(snippets) for snippets in (x, x_hat, x_sampled)]).tolist()
    return min(spreads[1:]) / spreads[0] if spreads[0] > 0 else float("nan")


def is_collapsed(model: Mdgan, x: Tensor) -> bool:
    """True if the decoder has collapsed, compared with real snippets ``x``.

    It draws no random numbers from the training's own generator.
    """
    x = send(x, model.device)
    rng = torch.Generator().manual_seed(0)
    x_hat = model.decode(model.encode(x))
    x_sampled = model.decode(model.sample_prior(len(x), rng), "prior")
    return spread_ratio(x, x_hat, x_sampled) < COLLAPSED_BELOW
