"""The MDGAN: five networks and six phases a step; a phase moves only its own networks.

Source: Che et al. 2016, arXiv 1612.02136, section 3.3. Additions to the paper: the pooled copy and
the squared difference in the reconstruction, the latent cycle, the distance of latents to the prior
(sliced Wasserstein, Kolouri et al. 2018, arXiv 1804.01947), adversarial terms that begin later,
noisy labels and the monitor. Here lambda_recon weighs the reconstruction; in the paper the weight
belongs to the adversarial term.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.mdgan import losses
from models.mdgan.convolutions import Discriminator
from models.mdgan.networks import Encoder, Generator
from models.mdgan.params import MdganParams as MdganParams
from models.mdgan.params import learning_rate
from models.mdgan.pca import Pca
from models.mdgan.shape import Source

Losses = dict[str, Tensor]

_COMPILE_MODES = {"default": "default", "cuda_graphs": "reduce-overhead"}


class Mdgan:
    """The five networks, their optimizers and the random numbers of one training.

    Args:
        params: of the training.
        n_frames: frames in a snippet.
        seed: of initial weights, batches, labels and prior samples.
        device: "cpu" or "cuda".
        pca: the dense path begins as this PCA; without one it begins at random.
    """

    def __init__(
        self,
        params: MdganParams,
        n_frames: int,
        seed: int,
        device: str = "cpu",
        pca: Pca | None = None,
    ):
        self.params = params
        self.shape = params.shape(n_frames)
        self.device = torch.device(device)
        # Always on the CPU, so that batches and labels are the same on every device.
        self.rng = torch.Generator().manual_seed(seed)
        # A separate generator: the monitor's labels must not change what the others draw.
        self.monitor_rng = torch.Generator().manual_seed(seed)
        self.snippets_seen = 0
        # Layers draw their weights from torch's global generator; restore its state afterwards.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = Encoder(self.shape)
            self.generator = Generator(self.shape)
            self.nets: dict[str, nn.Module] = {
                "encoder": self.encoder,
                "generator": self.generator,
                "manifold_disc": Discriminator(self.shape),
                "diffusion_disc": Discriminator(self.shape),
                "monitor_disc": Discriminator(self.shape),
            }
        if pca is not None:
            self.encoder.start_as(pca)
            self.generator.start_as(pca)
        self.averaged: dict[str, AveragedModel] = {}
        self.optimizers: dict[str, torch.optim.Adam] = {}
        for name, net in self.nets.items():
            net.to(self.device)
            if params.channels_last:
                net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if params.ema_decay and name in ("encoder", "generator"):
                average = get_ema_multi_avg_fn(params.ema_decay)
                self.averaged[name] = AveragedModel(net, multi_avg_fn=average, use_buffers=True)
            if params.compilation != "off":
                net.compile(mode=_COMPILE_MODES[params.compilation])
            self.optimizers[name] = torch.optim.Adam(
                net.parameters(), lr=params.lr, betas=(params.beta1, 0.999), fused=True
            )

    @property
    def is_adversarial(self) -> bool:
        """True once the adversarial terms have begun."""
        return self.snippets_seen >= self.params.adversarial_from * self.params.n_snippets

    def kept(self, name: str) -> nn.Module:
        """The encoder or generator to evaluate and keep; with averaged weights if there are any."""
        return self.averaged[name].module if name in self.averaged else self.nets[name]

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Latents [batch, latent_dim] of snippets [batch, 1, n_freq, n_frames]."""
        # In evaluation mode a latent does not depend on the rest of the batch.
        z: Tensor = self.kept("encoder").eval()(x)
        return z

    @torch.no_grad()
    def decode(self, z: Tensor, source: Source = "encoded") -> Tensor:
        """Snippets [batch, 1, n_freq, n_frames] of latents [batch, latent_dim]."""
        snippets: Tensor = self.kept("generator").eval()(z, source)
        return snippets

    def sample_prior(self, n: int, rng: torch.Generator | None = None) -> Tensor:
        """Latents [n, latent_dim] from the prior, on the device."""
        p = self.params
        z = losses.sample_prior(n, p.latent_dim, p.prior, p.prior_scale, rng or self.rng)
        return z.to(self.device)

    def train_step(self, x: Tensor) -> Losses:
        """Run all phases once for a minibatch of real snippets.

        Args:
            x: snippets [batch, 1, n_freq, n_frames].

        Returns:
            The unweighted loss of every phase, each a scalar without gradient on the device.
        """
        self._set_rates()
        for net in self.nets.values():
            net.train()
        if self.params.compilation == "cuda_graphs":
            torch.compiler.cudagraph_mark_step_begin()
        x = x.to(self.device, non_blocking=True)
        if self.params.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        out: Losses = {}
        if not self.is_adversarial:
            self._reconstruct(x, out)
        elif self.params.order == "joint":
            self._step_jointly(x, out)
        else:
            self._step_in_turn(x, out)
        for name, average in self.averaged.items():
            average.update_parameters(self.nets[name])
        self.snippets_seen += len(x)
        return {name: value.detach() for name, value in out.items()}

    def _reconstruct(self, x: Tensor, out: Losses) -> None:
        """Run the manifold phase of encoder and generator without adversary."""
        with self._phase("encoder", "generator"):
            z, x_hat = self._reconstruction(x)
            self._autoencoder_loss(x, x_hat, z, out).backward()

    def _step_in_turn(self, x: Tensor, out: Losses) -> None:
        """Run the phases in the order of the paper: manifold step, then diffusion step."""
        # E and G do not move between phases 1 and 2: one pass serves both.
        self._require_grad("encoder", "generator")
        z, x_hat = self._reconstruction(x)
        self.manifold_discriminator_phase(x, x_hat, out)
        self.manifold_autoencoder_phase(x, x_hat, z, out)
        self._require_grad("generator")
        _, x_sampled = self._sample(len(x))
        self.diffusion_discriminator_phase(x_hat, x_sampled, out)
        self.diffusion_generator_phase(x_sampled, out)
        if self.params.lambda_latent > 0:
            self.latent_phase(len(x), out)
        if self.params.monitor:
            self.monitor_phase(x, x_sampled, out)

    def _step_jointly(self, x: Tensor, out: Losses) -> None:
        """Update both discriminators, then encoder and generator once by the sum of their terms.

        One pass gives the samples for phase 4 and for the latent cycle: the gradient of a sum of
        losses is the sum of the gradients, on one graph as on two.
        """
        self._require_grad("encoder", "generator")
        z, x_hat = self._reconstruction(x)
        prior, x_sampled = self._sample(len(x))
        self.manifold_discriminator_phase(x, x_hat, out)
        self.diffusion_discriminator_phase(x_hat, x_sampled, out)
        with self._phase("encoder", "generator"):
            loss = self._autoencoder_loss(x, x_hat, z, out)
            loss = loss + self._deceive("manifold", x_hat, out)
            loss = loss + self._deceive("diffusion", x_sampled, out)
            if self.params.lambda_latent > 0:
                loss = loss + self._cycle_loss(prior, x_sampled, out)
            loss.backward()
        if self.params.monitor:
            self.monitor_phase(x, x_sampled, out)

    def manifold_discriminator_phase(self, x: Tensor, x_hat: Tensor, out: Losses) -> None:
        """1: the manifold discriminator tells real snippets from reconstructions."""
        with self._phase("manifold_disc"):
            loss = self._disc_loss("manifold_disc", x, x_hat)
            loss.backward()
        out["train/manifold_disc"] = loss

    def manifold_autoencoder_phase(self, x: Tensor, x_hat: Tensor, z: Tensor, out: Losses) -> None:
        """2: encoder and generator reconstruct, and make reconstructions that pass for real."""
        with self._phase("encoder", "generator"):
            adversarial = self._deceive("manifold", x_hat, out)
            loss = adversarial + self._autoencoder_loss(x, x_hat, z, out)
            loss.backward()

    def diffusion_discriminator_phase(self, x_hat: Tensor, x_sampled: Tensor, out: Losses) -> None:
        """3: the diffusion discriminator tells reconstructions from samples of the prior.

        It takes the reconstructions from the start of the step, which saves a pass through E and G.
        """
        with self._phase("diffusion_disc"):
            loss = self._disc_loss("diffusion_disc", x_hat, x_sampled)
            loss.backward()
        out["train/diffusion_disc"] = loss

    def diffusion_generator_phase(self, x_sampled: Tensor, out: Losses) -> None:
        """4: the generator makes samples that pass for reconstructions. The gradient reaches it."""
        with self._phase("generator"):
            self._deceive("diffusion", x_sampled, out).backward()

    def latent_phase(self, n: int, out: Losses) -> None:
        """5: encoding a sample gives back its latent, on a graph of its own."""
        with self._phase("encoder", "generator"):
            prior, x_sampled = self._sample(n)
            self._cycle_loss(prior, x_sampled, out).backward()

    def monitor_phase(self, x: Tensor, x_sampled: Tensor, out: Losses) -> None:
        """6: the monitor tells real snippets from samples; its loss tells how far they differ."""
        with self._phase("monitor_disc"):
            loss = self._disc_loss("monitor_disc", x, x_sampled, self.monitor_rng)
            loss.backward()
        out["train/monitor_disc"] = loss

    def _reconstruction(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self._pass("encoder", x)
        return z, self._pass("generator", z)

    def _sample(self, n: int) -> tuple[Tensor, Tensor]:
        prior = self.sample_prior(n)
        return prior, self._pass("generator", prior, "prior")

    def _autoencoder_loss(self, x: Tensor, x_hat: Tensor, z: Tensor, out: Losses) -> Tensor:
        """Weighted reconstruction, plus the weighted distance of the latents to the prior."""
        p = self.params
        recon = losses.reconstruction(x, x_hat, p.distance, p.pool_weight, p.mse_weight)
        out["train/reconstruction"] = recon
        if p.lambda_prior == 0:
            return p.lambda_recon * recon
        distance = losses.sliced_wasserstein(z, self.sample_prior(len(z)), self.rng)
        out["train/latent_to_prior"] = distance
        return p.lambda_recon * recon + p.lambda_prior * distance

    def _deceive(self, step: str, made: Tensor, out: Losses) -> Tensor:
        loss = losses.adversarial_loss(self._pass(f"{step}_disc", made))
        out[f"train/{step}_adversarial"] = loss
        return loss

    def _cycle_loss(self, prior: Tensor, x_sampled: Tensor, out: Losses) -> Tensor:
        again = self._pass("encoder", x_sampled, "prior")
        loss = losses.distance(again, prior, self.params.distance)
        out["train/latent_cycle"] = loss
        return self.params.lambda_latent * loss

    def _disc_loss(
        self, name: str, first: Tensor, second: Tensor, rng: torch.Generator | None = None
    ) -> Tensor:
        logits = self._pass(name, first.detach()), self._pass(name, second.detach())
        return losses.discriminator_loss(*logits, self.params.label_noise, rng or self.rng)

    def _pass(self, name: str, *inputs: Any) -> Tensor:
        is_half = self.params.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=is_half):
            output: Tensor = self.nets[name](*inputs)
        return output.float()

    @contextmanager
    def _phase(self, *owners: str) -> Iterator[None]:
        """Give gradients to the owners only; step their optimizers after the block."""
        self._require_grad(*owners)
        for name in owners:
            self.optimizers[name].zero_grad()
        yield
        if self.params.max_grad_norm:
            parameters = [p for name in owners for p in self.nets[name].parameters()]
            nn.utils.clip_grad_norm_(parameters, self.params.max_grad_norm)
        for name in owners:
            self.optimizers[name].step()

    def _require_grad(self, *owners: str) -> None:
        for name, net in self.nets.items():
            net.requires_grad_(name in owners)

    def _set_rates(self) -> None:
        rate = learning_rate(self.params, self.snippets_seen)
        for name, optimizer in self.optimizers.items():
            share = self.params.disc_lr_ratio if name.endswith("_disc") else 1.0
            for group in optimizer.param_groups:
                group["lr"] = rate * share

    def state_dict(self) -> dict[str, Any]:
        """The whole state: a training that loads it goes on as if it had never stopped."""
        return {
            "nets": {name: net.state_dict() for name, net in self.nets.items()},
            "averaged": {name: average.state_dict() for name, average in self.averaged.items()},
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "rng": self.rng.get_state(),
            "monitor_rng": self.monitor_rng.get_state(),
            "snippets_seen": self.snippets_seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state that ``state_dict`` gave."""
        for name, net in self.nets.items():
            net.load_state_dict(state["nets"][name])
            optimizer = self.optimizers[name]
            optimizer.load_state_dict(state["optimizers"][name])
            for parameter, moments in optimizer.state.items():
                for key in ("exp_avg", "exp_avg_sq"):
                    # The fused step walks through memory: moments need the layout of their weights.
                    moments[key] = torch.empty_like(parameter).copy_(moments[key])
        for name, average in self.averaged.items():
            average.load_state_dict(state["averaged"][name])
        # A generator's state stays on the CPU, wherever a file was mapped to.
        self.rng.set_state(state["rng"].cpu())
        self.monitor_rng.set_state(state["monitor_rng"].cpu())
        self.snippets_seen = state["snippets_seen"]
