"""Layers between convolutions (normalisations, activations), and the first weights.

"Batch" keeps running statistics for each source of its input, because reconstructions and samples
of the prior differ. Modules that need the source derive from `SourceModule`.
"""

from typing import TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.mdgan.shape import NetworkShape, Normalisation, Source

# Radford et al. 2015, arXiv 1511.06434, section 4.
NORMAL_STD = 0.02

Weighted = TypeVar("Weighted", bound=nn.Conv2d | nn.ConvTranspose2d | nn.Linear)


class SourceModule(nn.Module):
    """A module whose ``forward(x, source)`` needs to know where ``x`` comes from."""


class SourceSequential(nn.Sequential):
    """Modules in order; it passes the source on to each `SourceModule`."""

    def forward(self, x: Tensor, source: Source = "encoded") -> Tensor:
        """Run ``x``, which comes from ``source``, through all modules."""
        for module in self:
            x = module(x, source) if isinstance(module, SourceModule) else module(x)
        return x


class SourceBatchNorm(SourceModule):
    """Batch norm that keeps a running mean and variance for each source.

    Scale and shift are shared: the sources differ in their statistics, but they train one function.
    So the diffusion phase changes reconstructions as well.

    Source: Li et al. 2016, arXiv 1603.04779 (statistics per domain, all else shared).

    Args:
        channels: of the maps.
        affine: whether a learned scale and shift follow.
    """

    def __init__(self, channels: int, affine: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        for source in get_args(Source):
            self.register_buffer(f"{source}_mean", torch.zeros(channels))
            self.register_buffer(f"{source}_variance", torch.ones(channels))

    def forward(self, x: Tensor, source: Source) -> Tensor:
        """Normalise maps [batch, channels, height, width]."""
        mean, variance = self.get_buffer(f"{source}_mean"), self.get_buffer(f"{source}_variance")
        return functional.batch_norm(x, mean, variance, self.weight, self.bias, self.training)


def norm(kind: Normalisation, channels: int) -> list[nn.Module]:
    """The normalisation of encoder and generator: one module, or none."""
    if kind in ("layer", "spectral"):
        return [nn.GroupNorm(1, channels)]  # over channels, frequencies and frames of one snippet
    if kind in ("batch", "batch_no_affine"):
        return [SourceBatchNorm(channels, affine=kind == "batch")]
    if kind == "instance":
        # The smallest maps of all networks hold 8 values or more: enough for a variance.
        return [nn.InstanceNorm2d(channels, affine=True)]
    return []


def disc_norm(kind: Normalisation, channels: int) -> list[nn.Module]:
    """The normalisation of the discriminators: one module, or none.

    Their batch norm is torch's own: each kind of snippet has its own pass, and discriminators are
    used in training mode only.
    """
    if kind == "spectral":
        return []
    if kind in ("batch", "batch_no_affine"):
        return [nn.BatchNorm2d(channels, affine=kind == "batch")]
    return norm(kind, channels)


def activation(kind: Normalisation, otherwise: nn.Module) -> nn.Module:
    """SELU if it replaces the normalisation, else ``otherwise``."""
    return nn.SELU() if kind == "selu" else otherwise


def has_bias(kind: Normalisation) -> bool:
    """True if a layer before this normalisation has a bias; false if the norm would remove it."""
    return kind not in ("batch", "batch_no_affine", "instance")


def initialised(module: Weighted, shape: NetworkShape, fan_in: float | None = None) -> Weighted:
    """Set a layer's first weights, and return the layer.

    "normal" draws weights from N(0, 0.02) and sets biases to 0 (norms begin with weight 1 and bias
    0 anyway). "default" leaves torch's own weights, except for SELU: it keeps mean 0 and
    variance 1 only with weights of variance 1 / fan_in (LeCun) and no biases. "normal" also holds
    for SELU, although it breaks this.

    Source: Radford et al. 2015, arXiv 1511.06434, section 4; Klambauer et al. 2017,
        arXiv 1706.02515, paragraph "Initialization".

    Args:
        module: the layer.
        shape: says which initialisation.
        fan_in: inputs behind one output. None counts the weights of one output, which is right
            for all but transposed convolutions.
    """
    if shape.initialisation == "normal":
        std = NORMAL_STD
    elif shape.normalisation == "selu":
        std = (fan_in or module.weight[0].numel()) ** -0.5
    else:
        return module
    nn.init.normal_(module.weight, std=std)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module
