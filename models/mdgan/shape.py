"""The numbers that fix every layer of encoder, generator and discriminators."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

N_FREQ = 129
N_FRAMES = (8, 16)  # the networks are planned for these
# Far beyond what was ever of use: a slip of the key must not ask for all memory.
_MOST = {"latent_dim": 4096, "width": 4096, "disc_width": 4096, "dense_width": 65_536}

Normalisation = Literal["layer", "batch", "batch_no_affine", "instance", "spectral", "selu", "none"]
Initialisation = Literal["default", "normal"]
# The origin of a latent; batch norm keeps separate statistics for each.
Source = Literal["encoded", "prior"]


@dataclass(frozen=True)
class NetworkShape:
    """The numbers that fix every layer.

    Attributes:
        latent_dim: numbers in a latent.
        n_frames: frames in a snippet, 16 (64 ms) or 8 (32 ms).
        width: channels of the layer next to the snippet in the convolutions of encoder and
            generator ("ngf"); 0 leaves the convolutions out.
        disc_width: the same in the discriminators ("ndf").
        normalisation: between convolutions: layer, batch (with separate statistics for samples of
            the prior), batch_no_affine, instance, spectral (of the discriminators' weights, with
            layer in encoder and generator), selu (no normalisation, SELU instead of ReLU), none.
        is_residual: whether each convolution has a residual block after it.
        has_head: whether the encoder's convolutions end in a small MLP on the latent.
        initialisation: of convolutions, head and discriminators: default (torch's own, but
            LeCun's for selu) or normal (N(0, 0.02)).
        dense_width: hidden units of the dense path beside the convolutions; 0 leaves it out.
        n_components: principal components that the dense path works on.
    """

    latent_dim: int
    n_frames: int = 16
    width: int = 16
    disc_width: int = 8
    normalisation: Normalisation = "layer"
    is_residual: bool = False
    has_head: bool = False
    initialisation: Initialisation = "default"
    dense_width: int = 512
    n_components: int = 256

    def __post_init__(self) -> None:
        for name, least in (
            ("latent_dim", 1), ("width", 0), ("disc_width", 1), ("dense_width", 0),
            ("n_components", 1),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be {least} or more.")
        for name, most in _MOST.items():
            if getattr(self, name) > most:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be {most} or less.")
        if self.width == 0 and self.dense_width == 0:
            raise ValueError(
                "width and dense_width are both 0: that leaves no network. Raise one of them."
            )
        if self.n_frames not in N_FRAMES:
            raise ValueError(
                f"n_frames is {self.n_frames}: the networks are planned for snippets of "
                f"{' or '.join(map(str, N_FRAMES))} frames. Choose one of these."
            )
        if self.n_components > N_FREQ * self.n_frames:
            raise ValueError(
                f"n_components is {self.n_components}: a snippet of {self.n_frames} frames has "
                f"{N_FREQ * self.n_frames} numbers and no more components. Lower n_components."
            )
        kinds: dict[str, Any] = {"normalisation": Normalisation, "initialisation": Initialisation}
        for name, kind in kinds.items():
            if getattr(self, name) not in get_args(kind):
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}: choose one of {', '.join(get_args(kind))}."
                )
        if self.dense_width and self.latent_dim > self.n_components:
            raise ValueError(
                f"latent_dim is {self.latent_dim} and n_components {self.n_components}: the dense "
                "path begins as a PCA and needs a component for each number of the latent. Raise "
                "n_components."
            )
