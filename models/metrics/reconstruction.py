"""Figures of reconstructions alone, for a decoder that is not being trained."""

import torch

from models.mdgan.devices import full_precision
from models.mdgan.networks import Encoder, Generator
from models.metrics.held_out import HeldOut

BATCH = 256


@torch.no_grad()
def measure_reconstruction(
    encoder: Encoder, generator: Generator, held_out: HeldOut, seed: int
) -> dict[str, float]:
    """Errors of encoded and decoded snippets, as `models.metrics.evaluation` defines them.

    Args:
        encoder: gives latents.
        generator: decodes them.
        held_out: the snippets.
        seed: of the PCA's samples.

    Returns:
        ``recon_l1`` and ``recon_l2`` (log1p units), ``recon_lsd_db``, ``frechet_recon``, and
        ``recon_l1_vs_pca``, divided by the figure of a PCA with as many dimensions.
    """
    encoder.eval()
    generator.eval()
    with full_precision():
        latents = [encoder(batch) for batch in held_out.snippets.split(BATCH)]
        x_hat = torch.cat([generator(z) for z in latents])
    errors = held_out.errors(x_hat)
    pca = held_out.pca_figures(latents[0].shape[1], seed)
    return {
        "recon_l1": errors["l1"],
        "recon_l2": errors["l2"],
        "recon_lsd_db": errors["lsd_db"],
        "frechet_recon": held_out.frechet(held_out.features_of(x_hat)),
        "recon_l1_vs_pca": errors["l1"] / pca["l1"],
    }
