"""Parameters of one training of an MDGAN."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from models.mdgan.devices import Precision
from models.mdgan.losses import Distance, Prior
from models.mdgan.shape import Initialisation, NetworkShape, Normalisation

Schedule = Literal["constant", "linear", "cosine"]
Order = Literal["alternating", "joint"]
Compilation = Literal["off", "default", "cuda_graphs"]
Minibatch = Literal["balanced", "uniform"]
GanLoss = Literal["paper", "relativistic"]

# The most that a number may be; beyond, float32 overflows or the training never ends.
_MOST = {
    "prior_scale": 1e3, "lr": 1.0, "disc_lr_ratio": 1e3, "batch_size": 2**16, "n_snippets": 10**12,
    "n_reports": 10**5, "pool_weight": 1e6, "mse_weight": 1e6, "lambda_recon": 1e6,
    "lambda_latent": 1e6, "lambda_prior": 1e6, "lambda_silence": 1e6, "max_grad_norm": 1e9,
    "collapse_after": 10**12, "r1_r2": 1e6,
}  # fmt: skip
LEAST_RATE = 0.05  # share of lr that is left at the end of a schedule


@dataclass(frozen=True)
class MdganParams:
    """Parameters of one training: all that steers it, except data and seed.

    Attributes:
        latent_dim: numbers in a latent.
        width: channels next to the snippet in the convolutions of encoder and generator; 0 means no
            convolutions.
        dense_width: hidden units of the dense path, which begins as a PCA; 0 means no dense path.
        n_components: principal components that the dense path works on.
        disc_width: channels next to the snippet in the three discriminators.
        normalisation: layer, batch, batch_no_affine, instance, spectral, selu or none.
        is_residual: a residual block after each convolution.
        has_head: the encoder's convolutions end in a small MLP.
        initialisation: of convolutions: default (torch's own) or normal (N(0, 0.02)).
        prior: distribution of latents for samples: normal, uniform, student_t.
        prior_scale: its scale (standard deviation of the normal).
        distance: l1 or l2, for reconstruction and latent cycle.
        pool_weight: weight of the pooled copy in the reconstruction, 0 leaves it out.
        mse_weight: weight of the mean squared difference in the reconstruction beside
            ``distance``; 0 leaves it out.
        lambda_recon: weight of the reconstruction against the adversarial terms.
        lambda_latent: weight of the latent cycle d(E(G(z)), z), 0 leaves it out.
        lambda_prior: weight of the distance between the latents of sounding snippets and the
            prior, 0 leaves it out.
        lambda_silence: weight of the squared distance of the latents of silent snippets to their
            mean in the minibatch, 0 leaves it out.
        adversarial_from: share of the training before the adversarial terms begin; until then
            encoder and generator learn to reconstruct. 0 as in the paper; 1, the default, for no
            adversary: an autoencoder (``benchmarks/adversary.py`` says why).
        order: alternating (two updates of the generator, manifold then diffusion, as in the
            paper), or joint (one update by the sum).
        gan_loss: paper (a discriminator says real or not of each snippet), or relativistic (it says
            which of two is real, and its gradient is penalised, as in R3GAN).
        r1_r2: weight of the penalty on the squared gradients of a relativistic discriminator, half
            of it on each kind of snippets; 0 leaves it out.
        label_noise: probability, per sample, that a discriminator's label is flipped. Relativistic
            discriminators have no labels.
        lr: Adam's learning rate for encoder and generator at the start.
        disc_lr_ratio: the discriminators' learning rate as a share of ``lr``.
        is_disc_lr_constant: the discriminators' rate stays as it is at the start, whatever
            ``lr_schedule`` and ``lr_warmup`` say of the others'.
        lr_schedule: constant, or linear or cosine to 5 % of ``lr`` at the end.
        lr_warmup: share of the training during which the rate rises from 0.
        beta1: Adam's first decay.
        max_grad_norm: longest gradient, of encoder and generator together or of a discriminator;
            a longer one is scaled down. 0 for no limit.
        ema_decay: decay per step of the averaged weights, which are evaluated and kept; 0 keeps the
            last weights.
        collapse_after: after this many steps, the training ends if decoded snippets do not vary; 0
            never ends it.
        batch_size: snippets in a minibatch.
        minibatch: balanced (sound against silence, birds and ages against each other, see
            `models.mdgan.frames.Balance`), or uniform (any snippet alike, and none is taken for
            silent, as in the paper).
        silent_share: most of a balanced minibatch that is silent.
        n_snippets: snippets seen in a whole training.
        n_reports: evaluations, evenly spaced, the last at the end.
        monitor: whether to train the monitoring discriminator (no effect on the others).
        precision: of convolutions: float32, tf32 (GPUs round the factors to 10 bits; a CPU does
            not), or bfloat16 (autocast) where the hardware multiplies in it.
        channels_last: memory format of convolutions; faster on GPUs.
        compilation: off, default (torch.compile), or cuda_graphs (a step is recorded once and
            played as one graph; GPUs only).
    """

    latent_dim: int = 16
    width: int = 0
    dense_width: int = 512
    n_components: int = 128
    disc_width: int = 8
    normalisation: Normalisation = "layer"
    is_residual: bool = False
    has_head: bool = False
    initialisation: Initialisation = "default"
    prior: Prior = "normal"
    prior_scale: float = 1.0
    distance: Distance = "l1"
    pool_weight: float = 0.0
    mse_weight: float = 2.0
    lambda_recon: float = 300.0
    lambda_latent: float = 1.0
    lambda_prior: float = 1.0
    lambda_silence: float = 10.0
    adversarial_from: float = 1.0
    order: Order = "joint"
    gan_loss: GanLoss = "paper"
    r1_r2: float = 1.0
    label_noise: float = 0.1
    lr: float = 1e-3
    disc_lr_ratio: float = 0.5
    is_disc_lr_constant: bool = False
    lr_schedule: Schedule = "cosine"
    lr_warmup: float = 0.02
    beta1: float = 0.5
    max_grad_norm: float = 0.0
    ema_decay: float = 0.0
    collapse_after: int = 200
    batch_size: int = 128
    minibatch: Minibatch = "balanced"
    silent_share: float = 0.25
    n_snippets: int = 200_000
    n_reports: int = 8
    monitor: bool = True
    precision: Precision = "float32"
    channels_last: bool = False
    compilation: Compilation = "off"

    def __post_init__(self) -> None:
        for name in (
            "prior_scale", "lr", "disc_lr_ratio", "batch_size", "n_snippets", "n_reports"
        ):  # fmt: skip
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be above 0.")
        for name in (
            "pool_weight", "mse_weight", "lambda_recon", "lambda_latent", "lambda_prior",
            "lambda_silence", "max_grad_norm", "collapse_after", "r1_r2",
        ):  # fmt: skip
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be 0 or more.")
        for name, most in _MOST.items():
            if getattr(self, name) > most:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be {most:,} or less.")
        for name in ("beta1", "ema_decay", "lr_warmup", "silent_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)}: it must be at least 0 and below 1."
                )
        if not 0 <= self.adversarial_from <= 1:
            raise ValueError(
                f"adversarial_from is {self.adversarial_from}: it must lie between 0 and 1."
            )
        choices = {
            "prior": Prior, "distance": Distance, "lr_schedule": Schedule, "order": Order,
            "precision": Precision, "compilation": Compilation, "minibatch": Minibatch,
            "gan_loss": GanLoss,
        }  # fmt: skip
        for name, kinds in choices.items():
            if getattr(self, name) not in get_args(kinds):
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}: choose one of "
                    f"{', '.join(get_args(kinds))}."
                )
        if not 0 <= self.label_noise < 0.5:
            raise ValueError(
                f"label_noise is {self.label_noise}: it must be at least 0 and below 0.5, "
                "where labels would say nothing."
            )
        if self.n_snippets < self.n_reports * self.batch_size:
            raise ValueError(
                f"n_snippets is {self.n_snippets}: too few for {self.n_reports} reports of at "
                f"least one batch of {self.batch_size}. Raise n_snippets or lower n_reports."
            )
        if self.compilation == "default" and self.gan_loss == "relativistic" and self.r1_r2:
            raise ValueError(
                f"compilation is 'default' and r1_r2 {self.r1_r2}: torch.compile cannot compute "
                "the gradient of a gradient. Set compilation=off (or cuda_graphs), or r1_r2=0."
            )
        self.shape(16)

    @property
    def report_every(self) -> int:
        """Snippets between two reports."""
        return self.n_snippets // self.n_reports

    def shape(self, n_frames: int) -> NetworkShape:
        """The networks for snippets of ``n_frames`` frames."""
        return NetworkShape(
            latent_dim=self.latent_dim,
            n_frames=n_frames,
            width=self.width,
            disc_width=self.disc_width,
            normalisation=self.normalisation,
            is_residual=self.is_residual,
            has_head=self.has_head,
            initialisation=self.initialisation,
            dense_width=self.dense_width,
            n_components=self.n_components,
        )


def learning_rate(params: MdganParams, snippets_seen: int) -> float:
    """Rate of encoder and generator after ``snippets_seen`` snippets."""
    fraction = min(snippets_seen / params.n_snippets, 1.0)
    if params.lr_schedule == "constant":
        share = 1.0
    elif params.lr_schedule == "linear":
        share = LEAST_RATE + (1 - LEAST_RATE) * (1 - fraction)
    else:
        share = LEAST_RATE + (1 - LEAST_RATE) * 0.5 * (1 + math.cos(math.pi * fraction))
    if fraction < params.lr_warmup:
        # The first batch moves the weights too.
        share *= (snippets_seen + params.batch_size) / (
            params.lr_warmup * params.n_snippets + params.batch_size
        )
    return params.lr * share
