"""Convolutions of encoder, generator and discriminators, sized from a `NetworkShape`.

The one plan below gives every size of encoder and generator, so that they cannot disagree.
Snippets are tensors [batch, 1, n_freq, n_frames].
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from models.mdgan.normalisation import (
    SourceModule,
    SourceSequential,
    activation,
    disc_norm,
    has_bias,
    initialised,
    norm,
)
from models.mdgan.shape import N_FREQ, NetworkShape, Source

# Heights (frequencies) and widths (frames) of the feature maps, from latent (1 x 1) to snippet.
_HEIGHTS = (1, 3, 8, 31, 63, N_FREQ)
_WIDTHS = {16: (1, 3, 4, 5, 8, 16), 8: (1, 3, 4, 5, 4, 8)}
_KERNELS = ((3, 3), (4, 4), (5, 4), (5, 4), (5, 4))
_STRIDES = ((1, 1), (3, 1), (4, 1), (2, 1), (2, 2))
_LEAK = 0.2

Between = Callable[[int], list[nn.Module]]


@dataclass(frozen=True)
class Layer:
    """One transposed convolution of the generator, and mirrored, one convolution of the encoder.

    Attributes:
        channels_in: maps on the side of the latent.
        channels_out: maps on the side of the snippet.
        kernel: height and width.
        stride: the same.
        padding: the same.
        fan_in: numbers behind one number of the transposed convolution's output, on average.
    """

    channels_in: int
    channels_out: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    fan_in: float


def plan(shape: NetworkShape) -> list[Layer]:
    """Layers of the generator in order; the encoder has them in reverse order."""
    if shape.width == 0:
        raise ValueError(
            "width is 0: this shape leaves the convolutions out. Raise width, or build the dense "
            "path alone."
        )
    w = shape.width
    channels = (shape.latent_dim, 8 * w, 4 * w, 2 * w, w, 1)
    sizes = list(zip(_HEIGHTS, _WIDTHS[shape.n_frames], strict=True))
    layers = []
    for i, (kernel, stride) in enumerate(zip(_KERNELS, _STRIDES, strict=True)):
        (pad_height, height_taps), (pad_width, width_taps) = (
            _pad_and_taps(*axis)
            for axis in zip(sizes[i], sizes[i + 1], kernel, stride, strict=True)
        )
        padding, fan_in = (pad_height, pad_width), channels[i] * height_taps * width_taps
        layers.append(Layer(channels[i], channels[i + 1], kernel, stride, padding, fan_in))
    return layers


def _pad_and_taps(n_in: int, n_out: int, kernel: int, stride: int) -> tuple[int, float]:
    """Padding of a transposed convolution along one axis, and its mean inputs behind an output.

    It gives (n_in - 1) stride - 2 padding + kernel.
    """
    padding = ((n_in - 1) * stride + kernel - n_out) // 2
    reached = [i * stride + k - padding for i in range(n_in) for k in range(kernel)]
    return padding, sum(0 <= place < n_out for place in reached) / n_out


class ResidualBlock(SourceModule):
    """x + conv(act(norm(conv(act(norm(x)))))) with 3 x 3 kernels, at the size of x.

    Source: He et al. 2016, arXiv 1603.05027, figure 1b.

    Args:
        shape: says how weights begin.
        channels: of the maps, in and out.
        between: gives the modules before each convolution.
        last_bias: whether the second convolution has a bias; false if a norm after the block would
            remove it.
    """

    def __init__(self, shape: NetworkShape, channels: int, between: Between, last_bias: bool):
        super().__init__()
        modules: list[nn.Module] = []
        for bias in (has_bias(shape.normalisation), last_bias):
            conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=bias)
            modules += [*between(channels), initialised(conv, shape)]
        self.net = SourceSequential(*modules)

    def forward(self, x: Tensor, source: Source = "encoded") -> Tensor:
        """Maps [batch, channels, height, width] to maps of the same size."""
        refined: Tensor = x + self.net(x, source)
        return refined


def _mirrored(
    shape: NetworkShape, convolution: type[nn.Conv2d] | type[nn.ConvTranspose2d]
) -> SourceSequential:
    """The plan from latent to snippet by transposed convolutions, or back by convolutions."""
    kind = shape.normalisation
    is_encoder = convolution is nn.Conv2d

    def between(channels: int) -> list[nn.Module]:
        return [*norm(kind, channels), activation(kind, nn.ReLU())]

    modules: list[nn.Module] = []
    layers = plan(shape)[:: -1 if is_encoder else 1]
    for i, layer in enumerate(layers):
        is_last = i == len(layers) - 1
        before, after = layer.channels_in, layer.channels_out
        if is_encoder:
            before, after = after, before
        bias = is_last or has_bias(kind)
        conv = convolution(before, after, layer.kernel, layer.stride, layer.padding, bias=bias)
        modules.append(initialised(conv, shape, None if is_encoder else layer.fan_in))
        if not is_last:
            if shape.is_residual:
                modules.append(ResidualBlock(shape, after, between, bias))
            modules += between(after)
    return SourceSequential(*modules)


class ConvGenerator(nn.Module):
    """Latents to snippets before the output's activation, by transposed convolutions."""

    def __init__(self, shape: NetworkShape):
        super().__init__()
        self.net = _mirrored(shape, nn.ConvTranspose2d)

    def forward(self, z: Tensor, source: Source = "encoded") -> Tensor:
        """Decode latents.

        Args:
            z: [batch, latent_dim].
            source: where ``z`` comes from.

        Returns:
            [batch, 1, n_freq, n_frames], of both signs.
        """
        maps: Tensor = self.net(z[:, :, None, None], source)
        return maps

    def zero_last_layer(self) -> None:
        """Set the last layer to 0, so that the output is 0 before training."""
        _zero(self.net[-1])


class ConvEncoder(nn.Module):
    """Snippets to latents: the mirror of the generator, with a small MLP on top if asked for.

    The last layer is linear, because a ReLU there kills latents. The MLP's hidden layer leaks for
    the same reason: both of two ReLU units over one latent may be dead.
    """

    def __init__(self, shape: NetworkShape):
        super().__init__()
        self.net = _mirrored(shape, nn.Conv2d)
        d = shape.latent_dim
        self.head = nn.Sequential()
        if shape.has_head:
            self.head = nn.Sequential(
                initialised(nn.Linear(d, 2 * d), shape),
                activation(shape.normalisation, nn.LeakyReLU(_LEAK)),
                initialised(nn.Linear(2 * d, d), shape),
            )

    def forward(self, snippets: Tensor, source: Source = "encoded") -> Tensor:
        """Encode snippets.

        Args:
            snippets: [batch, 1, n_freq, n_frames].
            source: where the latents of ``snippets`` come from: "encoded" for real snippets and
                their reconstructions, "prior" for samples.

        Returns:
            [batch, latent_dim].
        """
        z: Tensor = self.head(self.net(snippets, source).flatten(1))
        return z

    def zero_last_layer(self) -> None:
        """Set the last layer to 0, so that the output is 0 before training."""
        _zero(self.head[-1] if len(self.head) else self.net[-1])


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class Discriminator(nn.Module):
    """Snippets [batch, 1, n_freq, n_frames] to logits [batch], by four strided convolutions.

    Under "spectral" each weight is divided by its largest singular value, which one power
    iteration in each training pass keeps track of (Miyato et al. 2018, arXiv 1802.05957).
    """

    def __init__(self, shape: NetworkShape):
        super().__init__()
        kind = shape.normalisation

        def between(channels: int) -> list[nn.Module]:
            return [*disc_norm(kind, channels), activation(kind, nn.LeakyReLU(_LEAK))]

        modules: list[nn.Module] = []
        channels, height, width = 1, N_FREQ, shape.n_frames
        for i in range(4):
            channels_out = shape.disc_width * 2**i
            # A map of one frame cannot be halved in time.
            kernel, stride = ((4, 4), (2, 2)) if width > 1 else ((4, 3), (2, 1))
            # No norm after the first convolution, or it would hide the level of a snippet.
            bias = i == 0 or has_bias(kind)
            conv = nn.Conv2d(channels, channels_out, kernel, stride, padding=1, bias=bias)
            modules.append(initialised(conv, shape))
            if shape.is_residual:
                modules.append(ResidualBlock(shape, channels_out, between, bias))
            modules += between(channels_out) if i else [activation(kind, nn.LeakyReLU(_LEAK))]
            channels, height, width = channels_out, height // 2, max(width // 2, 1)
        logit = initialised(nn.Linear(channels * height * width, 1), shape)
        self.net = nn.Sequential(*modules, nn.Flatten(), logit)
        if kind == "spectral":
            for module in list(self.modules()):
                if isinstance(module, nn.Conv2d | nn.Linear):
                    spectral_norm(module)

    def forward(self, snippets: Tensor) -> Tensor:
        """Logit of each snippet; above 0 if the network takes it for the first of the two kinds."""
        logits: Tensor = self.net(snippets).squeeze(1)
        return logits
