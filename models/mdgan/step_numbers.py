"""Random numbers of one training step: drawn on the CPU in one order, and sent at once.

A copy to a GPU that is not pinned waits until the GPU has done all that was asked of it before. One
pinned copy a step waits for nothing. Numbers are drawn on the CPU, so that a seed gives the same
ones on every device.
"""

import torch
from torch import Tensor

from models.mdgan import losses
from models.mdgan.params import MdganParams

Numbers = dict[str, Tensor]


def names_of(p: MdganParams, is_adversarial: bool) -> list[str]:
    """Names of a step's numbers, in the order in which they are drawn.

    ``prior``, ``to_prior`` and ``cycle`` are latents [n, latent_dim] of the prior: for samples, for
    the distance of encoded latents to the prior, and for the latent cycle of the alternating order.
    ``directions`` [latent_dim, N_DIRECTIONS] belong to that distance. ``<disc>_labels`` [2, n] are
    the noisy labels of a discriminator; relativistic ones have none.
    """
    to_prior = ["to_prior", "directions"] if p.lambda_prior else []
    if not is_adversarial:
        return to_prior
    if p.order == "joint":
        names = ["prior", "manifold_disc_labels", "diffusion_disc_labels", *to_prior]
    else:
        names = ["manifold_disc_labels", *to_prior, "prior", "diffusion_disc_labels"]
        names += ["cycle"] if p.lambda_latent else []
    if p.gan_loss == "relativistic":
        names = [name for name in names if not name.endswith("_labels")]
    return names + (["monitor_disc_labels"] if p.monitor else [])


def draw(
    p: MdganParams, names: list[str], n: int, rng: torch.Generator, monitor_rng: torch.Generator
) -> Numbers:
    """Draw the numbers called ``names``, in their order, for a minibatch of ``n`` snippets."""
    return {name: _draw_one(p, name, n, rng, monitor_rng) for name in names}


def _draw_one(
    p: MdganParams, name: str, n: int, rng: torch.Generator, monitor_rng: torch.Generator
) -> Tensor:
    if name == "directions":
        return losses.random_directions(p.latent_dim, rng)
    if name.endswith("_labels"):
        own = monitor_rng if name.startswith("monitor") else rng
        return torch.stack(
            [losses.noisy_labels(n, label, p.label_noise, own) for label in (1.0, 0.0)]
        )
    return losses.sample_prior(n, p.latent_dim, p.prior, p.prior_scale, rng)


def pack(numbers: Numbers, pinned: bool) -> Tensor:
    """All ``numbers`` end to end in one float32 buffer; ``pinned`` for a copy to a GPU.

    Each step takes a new buffer: torch reuses pinned memory only after the copy from it has ended.
    """
    flat = [tensor.flatten() for tensor in numbers.values()]
    buffer = torch.empty(sum(map(len, flat)), pin_memory=pinned)
    return torch.cat(flat, out=buffer) if flat else buffer


def unpack(buffer: Tensor, numbers: Numbers) -> Numbers:
    """Views of ``buffer``, a copy of what `pack` made of ``numbers``, with their names and shapes.

    ``numbers`` give names and shapes only.
    """
    parts = buffer.split([tensor.numel() for tensor in numbers.values()])
    return {
        name: part.view(tensor.shape)
        for (name, tensor), part in zip(numbers.items(), parts, strict=True)
    }
