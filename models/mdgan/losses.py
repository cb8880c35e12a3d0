"""Loss terms of the MDGAN, one pure function per term; weights are applied in models.mdgan.phases.

Source: Che et al. 2016, Mode Regularized GANs, arXiv 1612.02136, section 3.3 (manifold and
diffusion steps), with the additions that phases.py names.
"""

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

Distance = Literal["l1", "l2"]
Prior = Literal["normal", "uniform", "student_t"]

STUDENT_T_DOF = 10.0
N_DIRECTIONS = 64  # of the sliced Wasserstein distance


def distance(a: Tensor, b: Tensor, kind: Distance) -> Tensor:
    """Mean absolute ("l1") or mean squared ("l2") difference, as a scalar."""
    if kind == "l1":
        return functional.l1_loss(a, b)
    if kind == "l2":
        return functional.mse_loss(a, b)
    raise ValueError(f"distance is {kind!r}: choose one of {', '.join(get_args(Distance))}.")


def reconstruction(
    x: Tensor, x_hat: Tensor, kind: Distance, pool_weight: float, mse_weight: float
) -> Tensor:
    """d(x, x_hat) + pool_weight * d(pool(x), pool(x_hat)) + mse_weight * mean((x - x_hat)^2).

    pool: 3 x 3 average with stride 4. The pooled copy asks for the right coarse shape before
    the fine shape is right. The squared difference weighs loud places, which count little in L1.
    """
    loss = distance(x, x_hat, kind)
    if pool_weight:
        coarse, coarse_hat = (functional.avg_pool2d(one, 3, stride=4) for one in (x, x_hat))
        loss = loss + pool_weight * distance(coarse, coarse_hat, kind)
    if mse_weight:
        loss = loss + mse_weight * functional.mse_loss(x, x_hat)
    return loss


def random_directions(latent_dim: int, rng: torch.Generator) -> Tensor:
    """Random directions [latent_dim, N_DIRECTIONS] of `sliced_wasserstein`, of any length."""
    return torch.randn(latent_dim, N_DIRECTIONS, generator=rng)


def sliced_wasserstein(a: Tensor, b: Tensor, directions: Tensor) -> Tensor:
    """Squared Wasserstein-2 distance of two sets of latents, the mean over directions.

    Along a line the best transport pairs the sorted points (Bonneel et al. 2015; as a regulariser
    of autoencoders: Kolouri et al. 2018, arXiv 1804.01947).

    Args:
        a: [n, latent_dim].
        b: [n, latent_dim].
        directions: [latent_dim, n_directions], of any length.
    """
    directions = directions / directions.norm(dim=0)
    a_sorted, b_sorted = ((one @ directions).sort(dim=0).values for one in (a, b))
    return functional.mse_loss(a_sorted, b_sorted)


def spread(z: Tensor) -> Tensor:
    """Mean squared distance of latents [n, latent_dim] to their mean, per dimension."""
    return (z - z.mean(0)).square().mean()


def noisy_labels(
    n: int, label: float, flip_probability: float, generator: torch.Generator
) -> Tensor:
    """Labels [n] equal to ``label`` (0 or 1); each flips alone with ``flip_probability``."""
    labels = torch.full((n,), label)
    flips = torch.rand(n, generator=generator) < flip_probability
    return torch.where(flips, 1.0 - labels, labels)


def discriminator_loss(logits_first: Tensor, logits_second: Tensor, labels: Tensor) -> Tensor:
    """-log D(first) - log(1 - D(second)) where ``labels`` [2, n] are 1 and 0; `noisy_labels` flip.

    Args:
        logits_first: [n].
        logits_second: [n].
        labels: of the first, then of the second; in their type and on their device.
    """
    bce = functional.binary_cross_entropy_with_logits
    return bce(logits_first, labels[0]) + bce(logits_second, labels[1])


def adversarial_loss(logits: Tensor) -> Tensor:
    """-log D(generated): the non-saturating loss of the network that made the snippets."""
    return functional.softplus(-logits).mean()


def relativistic_loss(logits_better: Tensor, logits_worse: Tensor) -> Tensor:
    """-log sigmoid(D(better) - D(worse)), the mean over pairs; both arguments are [n].

    A discriminator gives the first kind and the second, the network that made the second gives the
    second and the first. Source: Jolicoeur-Martineau 2018, arXiv 1807.00734; with the penalty below
    it is R3GAN's: Huang et al. 2025, arXiv 2501.05441, equation 1 and section 2.2.
    """
    return functional.softplus(logits_worse - logits_better).mean()


def gradient_penalty(logits: Tensor, snippets: Tensor) -> Tensor:
    """Squared length of the logits' gradient by ``snippets``, the mean over them; it has a graph.

    R1 on real snippets, R2 on generated ones (Mescheder et al. 2018, arXiv 1801.04406).

    Args:
        logits: [n], computed from ``snippets``.
        snippets: [n, 1, n_freq, n_frames] that ask for a gradient.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), snippets, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def sample_prior(
    n: int, latent_dim: int, prior: Prior, scale: float, generator: torch.Generator
) -> Tensor:
    """Latents [n, latent_dim] from the prior: N(0, scale^2), U(-scale, scale) or scale * t(10)."""
    if prior == "normal":
        return scale * torch.randn(n, latent_dim, generator=generator)
    if prior == "uniform":
        return scale * (2 * torch.rand(n, latent_dim, generator=generator) - 1)
    if prior == "student_t":
        normal = torch.randn(n, latent_dim, generator=generator)
        # A chi-squared number with an even number of degrees of freedom is a sum of exponentials;
        # torch's own sampler of it takes no generator.
        uniform = torch.rand(n, latent_dim, int(STUDENT_T_DOF) // 2, generator=generator)
        chi_squared = -2 * torch.log1p(-uniform).sum(-1)
        return scale * normal / torch.sqrt(chi_squared / STUDENT_T_DOF)
    raise ValueError(f"prior is {prior!r}: choose one of {', '.join(get_args(Prior))}.")
