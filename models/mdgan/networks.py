"""Encoder and generator: a dense path that begins as a PCA, convolutions, or the sum of both."""

from torch import Tensor, nn
from torch.nn import functional

from models.mdgan.convolutions import ConvEncoder, ConvGenerator
from models.mdgan.dense import DenseEncoder, DenseGenerator
from models.mdgan.pca import Pca
from models.mdgan.shape import NetworkShape as NetworkShape
from models.mdgan.shape import Source

# Sharpness of the output's Softplus. A network that begins as a PCA needs it nearly linear above 0.
_SHARPNESS, _DENSE_SHARPNESS = 1.0, 20.0


class Encoder(nn.Module):
    """Snippets [batch, 1, n_freq, n_frames] to latents [batch, latent_dim]."""

    def __init__(self, shape: NetworkShape):
        super().__init__()
        self.dense = DenseEncoder(shape) if shape.dense_width else None
        self.convolutions = ConvEncoder(shape) if shape.width else None
        if self.dense is not None and self.convolutions is not None:
            self.convolutions.zero_last_layer()

    def start_as(self, pca: Pca) -> None:
        """Begin as ``pca`` if there is a dense path; convolutions begin at random."""
        if self.dense is not None:
            self.dense.start_as(pca)

    def forward(self, snippets: Tensor, source: Source = "encoded") -> Tensor:
        """Encode ``snippets`` [batch, 1, n_freq, n_frames]; ``source`` is their origin."""
        if self.convolutions is None:
            assert self.dense is not None
            encoded: Tensor = self.dense(snippets)
            return encoded
        z: Tensor = self.convolutions(snippets, source)
        return z if self.dense is None else z + self.dense(snippets)


class Generator(nn.Module):
    """Latents [batch, latent_dim] to snippets [batch, 1, n_freq, n_frames]."""

    def __init__(self, shape: NetworkShape):
        super().__init__()
        self.dense = DenseGenerator(shape) if shape.dense_width else None
        self.convolutions = ConvGenerator(shape) if shape.width else None
        self.sharpness = _DENSE_SHARPNESS if shape.dense_width else _SHARPNESS
        if self.dense is not None and self.convolutions is not None:
            self.convolutions.zero_last_layer()

    def start_as(self, pca: Pca) -> None:
        """Begin as ``pca`` if there is a dense path; convolutions begin at random."""
        if self.dense is not None:
            self.dense.start_as(pca)

    def forward(self, z: Tensor, source: Source = "encoded") -> Tensor:
        """Decode ``z`` [batch, latent_dim]; ``source`` is its origin."""
        if self.convolutions is None:
            assert self.dense is not None
            raw = self.dense(z)
        else:
            raw = self.convolutions(z, source)
            raw = raw if self.dense is None else raw + self.dense(z)
        # log(1 + magnitude) is never negative.
        return functional.softplus(raw.float(), beta=self.sharpness)
