"""Encoder, generator and discriminators of the MDGAN, sized from a handful of numbers.

Every size follows from (latent_dim, n_freq, n_frames, width) by the one plan below, so that encoder
and generator cannot disagree. Snippets are tensors [batch, 1, n_freq, n_frames].
"""

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn

Normalisation = Literal["layer", "batch", "instance", "none"]

N_FREQ = 129
# Heights (frequencies) and widths (frames) of the feature maps, from latent (1 x 1) to snippet.
_HEIGHTS = (1, 3, 8, 31, 63, N_FREQ)
_WIDTHS = {16: (1, 3, 4, 5, 8, 16), 8: (1, 3, 4, 5, 4, 8)}
_KERNELS = ((3, 3), (4, 4), (5, 4), (5, 4), (5, 4))
_STRIDES = ((1, 1), (3, 1), (4, 1), (2, 1), (2, 2))


@dataclass(frozen=True)
class NetworkShape:
    """The numbers that fix every layer.

    Attributes:
        latent_dim: numbers in a latent.
        n_frames: frames in a snippet, 16 (64 ms) or 8 (32 ms).
        width: channels of the layer next to the snippet in encoder and generator ("ngf").
        disc_width: the same in the discriminators ("ndf").
        normalisation: kind of normalisation between layers.
    """

    latent_dim: int
    n_frames: int = 16
    width: int = 16
    disc_width: int = 8
    normalisation: Normalisation = "layer"

    def __post_init__(self) -> None:
        for name in ("latent_dim", "width", "disc_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be 1 or more.")
        if self.n_frames not in _WIDTHS:
            raise ValueError(
                f"n_frames is {self.n_frames}: the networks are planned for snippets of "
                f"{' or '.join(map(str, sorted(_WIDTHS)))} frames. Choose one of these."
            )
        if self.normalisation not in get_args(Normalisation):
            raise ValueError(
                f"normalisation is {self.normalisation!r}: choose one of "
                f"{', '.join(get_args(Normalisation))}."
            )


@dataclass(frozen=True)
class _Layer:
    """One transposed convolution of the generator, and mirrored, one convolution of the encoder."""

    channels_in: int
    channels_out: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]


def _plan(shape: NetworkShape) -> list[_Layer]:
    """Layers of the generator in order. A transposed convolution gives (in - 1) s - 2 p + k."""
    widths = _WIDTHS[shape.n_frames]
    w = shape.width
    channels = (shape.latent_dim, 8 * w, 4 * w, 2 * w, w, 1)
    layers = []
    for i, (kernel, stride) in enumerate(zip(_KERNELS, _STRIDES, strict=True)):
        excess_height = (_HEIGHTS[i] - 1) * stride[0] + kernel[0] - _HEIGHTS[i + 1]
        excess_width = (widths[i] - 1) * stride[1] + kernel[1] - widths[i + 1]
        padding = (excess_height // 2, excess_width // 2)
        layers.append(_Layer(channels[i], channels[i + 1], kernel, stride, padding))
    return layers


def _norm(kind: Normalisation, channels: int) -> nn.Module:
    if kind == "layer":
        return nn.GroupNorm(1, channels)  # over channels, frequencies and frames of one snippet
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    return nn.Identity()


def _has_bias(kind: Normalisation) -> bool:
    """Whether a layer before this normalisation has a bias: not where the norm takes it out."""
    return kind not in ("batch", "instance")


class Generator(nn.Module):
    """The item decoder: latents [batch, latent_dim] to snippets [batch, 1, n_freq, n_frames]."""

    def __init__(self, shape: NetworkShape):
        super().__init__()
        layers = _plan(shape)
        blocks: list[nn.Module] = []
        for i, layer in enumerate(layers):
            is_last = i == len(layers) - 1
            blocks.append(
                nn.ConvTranspose2d(
                    layer.channels_in,
                    layer.channels_out,
                    layer.kernel,
                    layer.stride,
                    layer.padding,
                    bias=is_last or _has_bias(shape.normalisation),
                )
            )
            if not is_last:
                blocks += [_norm(shape.normalisation, layer.channels_out), nn.ReLU()]
        # log(1 + magnitude) is never negative.
        self.net = nn.Sequential(*blocks, nn.Softplus())

    def forward(self, z: Tensor) -> Tensor:
        """Decode ``z`` [batch, latent_dim]."""
        snippets: Tensor = self.net(z[:, :, None, None])
        return snippets


class Encoder(nn.Module):
    """Snippets [batch, 1, n_freq, n_frames] to latents [batch, latent_dim]: the generator's mirror.

    The last layer is linear: a ReLU there kills latents. There is no MLP head: without it
    reconstruction was better at equal time.
    """

    def __init__(self, shape: NetworkShape):
        super().__init__()
        layers = _plan(shape)[::-1]
        blocks: list[nn.Module] = []
        for i, layer in enumerate(layers):
            is_last = i == len(layers) - 1
            blocks.append(
                nn.Conv2d(
                    layer.channels_out,
                    layer.channels_in,
                    layer.kernel,
                    layer.stride,
                    layer.padding,
                    bias=is_last or _has_bias(shape.normalisation),
                )
            )
            if not is_last:
                # An instance norm on the 3 x 3 maps before the latent is kept: 9 values suffice.
                blocks += [_norm(shape.normalisation, layer.channels_in), nn.ReLU()]
        self.net = nn.Sequential(*blocks)

    def forward(self, snippets: Tensor) -> Tensor:
        """Encode ``snippets`` [batch, 1, n_freq, n_frames]."""
        z: Tensor = self.net(snippets).flatten(1)
        return z


class Discriminator(nn.Module):
    """Snippets [batch, 1, n_freq, n_frames] to logits [batch], by four strided convolutions."""

    def __init__(self, shape: NetworkShape):
        super().__init__()
        blocks: list[nn.Module] = []
        channels, height, width = 1, N_FREQ, shape.n_frames
        for i in range(4):
            channels_out = shape.disc_width * 2**i
            # A map of one frame is no longer halved in time.
            kernel, stride = ((4, 4), (2, 2)) if width > 1 else ((4, 3), (2, 1))
            bias = i == 0 or _has_bias(shape.normalisation)
            blocks.append(nn.Conv2d(channels, channels_out, kernel, stride, padding=1, bias=bias))
            if i > 0:
                blocks.append(_norm(shape.normalisation, channels_out))
            blocks.append(nn.LeakyReLU(0.2))
            channels, height, width = channels_out, height // 2, max(width // 2, 1)
        blocks += [nn.Flatten(), nn.Linear(channels * height * width, 1)]
        self.net = nn.Sequential(*blocks)

    def forward(self, snippets: Tensor) -> Tensor:
        """Logit of each snippet: above 0 where it is taken for the first of the two kinds."""
        logits: Tensor = self.net(snippets).squeeze(1)
        return logits
