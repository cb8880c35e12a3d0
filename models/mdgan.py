"""The MDGAN: five networks and six phases a step, each moving only the networks that own it.

Source: Che et al. 2016, arXiv 1612.02136, section 3.3. Additions to the paper: the pooled copy in
the reconstruction, the latent regularisation, noisy labels and the monitor. Here lambda_recon
weighs the reconstruction; in the paper the weight stands before the adversarial term.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from models import losses
from models.networks import Discriminator, Encoder, Generator, NetworkShape, Normalisation

Losses = dict[str, float]
Schedule = Literal["constant", "cosine"]


@dataclass(frozen=True)
class MdganParams:
    """Everything that steers one training, apart from data and seed.

    Attributes:
        latent_dim: numbers in a latent.
        width: channels next to the snippet in encoder and generator.
        disc_width: the same in the three discriminators.
        normalisation: layer, batch, instance or none.
        prior: distribution of the latents that samples start from: normal, uniform, student_t.
        prior_scale: its scale (standard deviation of the normal).
        distance: l1 or l2, for reconstruction and latent regularisation.
        pool_weight: weight of the pooled copy in the reconstruction, 0 leaves it out.
        lambda_recon: weight of the reconstruction against the adversarial term.
        lambda_latent: weight of the latent regularisation d(E(G(z)), z), 0 leaves it out.
        label_noise: probability, per sample, that a discriminator's label is flipped.
        lr: Adam's learning rate for encoder and generator at the start.
        disc_lr_ratio: the discriminators' learning rate as a share of ``lr``.
        lr_schedule: constant, or cosine (to 5 % of ``lr`` at the end).
        beta1: Adam's first decay.
        batch_size: snippets in a minibatch.
        n_snippets: snippets seen in a whole training.
        n_reports: evaluations, evenly spaced, the last at the end.
        monitor: whether to train the monitoring discriminator (no effect on the others).
    """

    latent_dim: int = 16
    width: int = 16
    disc_width: int = 8
    normalisation: Normalisation = "layer"
    prior: losses.Prior = "normal"
    prior_scale: float = 1.0
    distance: losses.Distance = "l1"
    pool_weight: float = 1.0
    lambda_recon: float = 300.0
    lambda_latent: float = 1.0
    label_noise: float = 0.1
    lr: float = 1e-3
    disc_lr_ratio: float = 0.5
    lr_schedule: Schedule = "cosine"
    beta1: float = 0.5
    batch_size: int = 32
    n_snippets: int = 24_000
    n_reports: int = 8
    monitor: bool = True

    def __post_init__(self) -> None:
        positive = ("prior_scale", "lr", "disc_lr_ratio", "batch_size", "n_snippets", "n_reports")
        for name in positive:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be above 0.")
        for name in ("pool_weight", "lambda_recon", "lambda_latent"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be 0 or more.")
        choices = {
            "prior": losses.Prior, "distance": losses.Distance, "lr_schedule": Schedule
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
        if not 0 <= self.beta1 < 1:
            raise ValueError(f"beta1 is {self.beta1}: it must be at least 0 and below 1.")
        if self.n_snippets < self.n_reports * self.batch_size:
            raise ValueError(
                f"n_snippets is {self.n_snippets}: too few for {self.n_reports} reports of at "
                f"least one batch of {self.batch_size}. Raise n_snippets or lower n_reports."
            )

    @property
    def report_every(self) -> int:
        """Snippets between two reports."""
        return self.n_snippets // self.n_reports


def learning_rate(params: MdganParams, snippets_seen: int) -> float:
    """Rate of encoder and generator after ``snippets_seen`` snippets."""
    if params.lr_schedule == "constant":
        return params.lr
    fraction = min(snippets_seen / params.n_snippets, 1.0)
    return params.lr * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * fraction)))


class Mdgan:
    """The five networks, their optimizers and the random numbers of one training.

    Args:
        params: what to train.
        n_frames: frames in a snippet.
        seed: of initial weights, batches, labels and prior samples.
        device: "cpu" or "cuda".
    """

    def __init__(self, params: MdganParams, n_frames: int, seed: int, device: str = "cpu"):
        self.params = params
        self.shape = NetworkShape(
            params.latent_dim, n_frames, params.width, params.disc_width, params.normalisation
        )
        self.device = torch.device(device)
        # Always on the CPU: the same batches and labels whatever the device.
        self.rng = torch.Generator().manual_seed(seed)
        # Of its own: the monitor's labels must not change what the others draw.
        self.monitor_rng = torch.Generator().manual_seed(seed)
        self.snippets_seen = 0
        self.nets: dict[str, nn.Module] = {}
        # Layers draw their weights from torch's global numbers; leave those as they were.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = Encoder(self.shape)
            self.generator = Generator(self.shape)
            self.nets = {
                "encoder": self.encoder,
                "generator": self.generator,
                "manifold_disc": Discriminator(self.shape),
                "diffusion_disc": Discriminator(self.shape),
                "monitor_disc": Discriminator(self.shape),
            }
        self.optimizers: dict[str, torch.optim.Adam] = {}
        for name, net in self.nets.items():
            net.to(self.device)
            self.optimizers[name] = torch.optim.Adam(
                net.parameters(), lr=params.lr, betas=(params.beta1, 0.999), fused=True
            )

    def sample_prior(self, n: int, rng: torch.Generator | None = None) -> Tensor:
        """Latents [n, latent_dim] from the prior, on the device."""
        p = self.params
        z = losses.sample_prior(n, p.latent_dim, p.prior, p.prior_scale, rng or self.rng)
        return z.to(self.device)

    @contextmanager
    def _phase(self, *owners: str) -> Iterator[None]:
        """Gradients for the owners only; after the block their optimizers step."""
        self._require_grad(*owners)
        for name in owners:
            self.optimizers[name].zero_grad()
        yield
        for name in owners:
            self.optimizers[name].step()

    def _require_grad(self, *owners: str) -> None:
        for name, net in self.nets.items():
            net.requires_grad_(name in owners)

    def train_step(self, x: Tensor) -> Losses:
        """One pass through all phases for a minibatch of real snippets.

        Args:
            x: snippets [batch, 1, n_freq, n_frames].

        Returns:
            The unweighted loss of every phase.
        """
        self._set_rates()
        for net in self.nets.values():
            net.train()
        x = x.to(self.device)
        out: dict[str, Tensor] = {}

        # E and G do not move between phases 1 and 2: one pass serves both.
        self._require_grad("encoder", "generator")
        x_hat = self.generator(self.encoder(x))
        self.manifold_discriminator_phase(x, x_hat, out)
        self.manifold_autoencoder_phase(x, x_hat, out)
        self._require_grad("generator")
        x_sampled = self.generator(self.sample_prior(len(x)))
        self.diffusion_discriminator_phase(x_hat, x_sampled, out)
        self.diffusion_generator_phase(x_sampled, out)
        if self.params.lambda_latent > 0:
            self.latent_phase(len(x), out)
        if self.params.monitor:
            self.monitor_phase(x, x_sampled, out)

        self.snippets_seen += len(x)
        return {name: float(value.detach()) for name, value in out.items()}

    def manifold_discriminator_phase(
        self, x: Tensor, x_hat: Tensor, out: dict[str, Tensor]
    ) -> None:
        """1: the manifold discriminator tells real snippets from reconstructions."""
        disc = self.nets["manifold_disc"]
        with self._phase("manifold_disc"):
            loss = self._disc_loss(disc(x), disc(x_hat.detach()))
            loss.backward()
        out["train/manifold_disc"] = loss

    def manifold_autoencoder_phase(self, x: Tensor, x_hat: Tensor, out: dict[str, Tensor]) -> None:
        """2: encoder and generator reconstruct, and make reconstructions that pass for real."""
        p = self.params
        with self._phase("encoder", "generator"):
            adversarial = losses.adversarial_loss(self.nets["manifold_disc"](x_hat))
            reconstruction = losses.reconstruction(x, x_hat, p.distance, p.pool_weight)
            (adversarial + p.lambda_recon * reconstruction).backward()
        out["train/manifold_adversarial"] = adversarial
        out["train/reconstruction"] = reconstruction

    def diffusion_discriminator_phase(
        self, x_hat: Tensor, x_sampled: Tensor, out: dict[str, Tensor]
    ) -> None:
        """3: the diffusion discriminator tells reconstructions from samples of the prior.

        The reconstructions are those from the start of the step: a pass through E and G less.
        """
        disc = self.nets["diffusion_disc"]
        with self._phase("diffusion_disc"):
            loss = self._disc_loss(disc(x_hat.detach()), disc(x_sampled.detach()))
            loss.backward()
        out["train/diffusion_disc"] = loss

    def diffusion_generator_phase(self, x_sampled: Tensor, out: dict[str, Tensor]) -> None:
        """4: the generator makes samples that pass for reconstructions. The gradient reaches it."""
        with self._phase("generator"):
            loss = losses.adversarial_loss(self.nets["diffusion_disc"](x_sampled))
            loss.backward()
        out["train/diffusion_adversarial"] = loss

    def latent_phase(self, n: int, out: dict[str, Tensor]) -> None:
        """5: encoding a sample gives back its latent, on a graph of its own."""
        with self._phase("encoder", "generator"):
            z = self.sample_prior(n)
            loss = losses.distance(self.encoder(self.generator(z)), z, self.params.distance)
            (self.params.lambda_latent * loss).backward()
        out["train/latent_cycle"] = loss

    def monitor_phase(self, x: Tensor, x_sampled: Tensor, out: dict[str, Tensor]) -> None:
        """6: the monitor tells real snippets from samples: how far samples are from song."""
        disc = self.nets["monitor_disc"]
        with self._phase("monitor_disc"):
            loss = self._disc_loss(disc(x), disc(x_sampled.detach()), self.monitor_rng)
            loss.backward()
        out["train/monitor_disc"] = loss

    def _disc_loss(
        self, logits_first: Tensor, logits_second: Tensor, rng: torch.Generator | None = None
    ) -> Tensor:
        noise = self.params.label_noise
        return losses.discriminator_loss(logits_first, logits_second, noise, rng or self.rng)

    def _set_rates(self) -> None:
        rate = learning_rate(self.params, self.snippets_seen)
        for name, optimizer in self.optimizers.items():
            share = self.params.disc_lr_ratio if name.endswith("_disc") else 1.0
            for group in optimizer.param_groups:
                group["lr"] = rate * share

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on as if never stopped."""
        return {
            "nets": {name: net.state_dict() for name, net in self.nets.items()},
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "rng": self.rng.get_state(),
            "monitor_rng": self.monitor_rng.get_state(),
            "snippets_seen": self.snippets_seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state of ``state_dict``."""
        for name, net in self.nets.items():
            net.load_state_dict(state["nets"][name])
            self.optimizers[name].load_state_dict(state["optimizers"][name])
        # A generator's state stays on the CPU, wherever a file was mapped to.
        self.rng.set_state(state["rng"].cpu())
        self.monitor_rng.set_state(state["monitor_rng"].cpu())
        self.snippets_seen = state["snippets_seen"]
