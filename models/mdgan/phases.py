"""The six phases of a training step; a phase moves only its own networks.

Source: Che et al. 2016, arXiv 1612.02136, section 3.3. Additions to the paper: the pooled copy and
the squared difference in the reconstruction, the latent cycle, the distance of latents to the prior
(sliced Wasserstein, Kolouri et al. 2018, arXiv 1804.01947), adversarial terms that begin later,
relativistic discriminators, noisy labels, the monitor, and silence apart from sound: silent
snippets are reconstructed and encoded near one place, and nothing else sees them. Here lambda_recon
weighs the reconstruction; in the paper the weight belongs to the adversarial term.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from models.mdgan import losses
from models.mdgan.params import MdganParams
from models.mdgan.step_numbers import Numbers

Losses = dict[str, Tensor]


class Phases:
    """What a training step computes. It never waits for the device.

    Args:
        params: of the training.
        nets: encoder, generator, manifold_disc, diffusion_disc and monitor_disc, on one device.
        optimizers: of these, by the same names.
        device: of the networks.
    """

    def __init__(
        self,
        params: MdganParams,
        nets: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Adam],
        device: torch.device,
    ):
        self._params = params
        self._nets = nets
        self._optimizers = optimizers
        self._device = device
        self._is_half = params.precision == "bfloat16"

    def step(self, x: Tensor, n_sounding: int, numbers: Numbers, is_adversarial: bool) -> Losses:
        """Run all phases once, on the device alone.

        Args:
            x: real snippets [batch, 1, n_freq, n_frames], the sounding ones first.
            n_sounding: how many of them hold sound.
            numbers: of `models.mdgan.step_numbers.draw`.
            is_adversarial: whether the adversarial terms have begun.

        Returns:
            The unweighted loss of every phase, each a scalar without gradient.
        """
        out: Losses = {}
        # Weights that were cast to bfloat16 are kept for all passes of a step, until they move.
        with torch.autocast(self._device.type, enabled=False) if self._is_half else nullcontext():
            if not is_adversarial:
                self._reconstruct(x, n_sounding, numbers, out)
            elif self._params.order == "joint":
                self._step_jointly(x, n_sounding, numbers, out)
            else:
                self._step_in_turn(x, n_sounding, numbers, out)
        return {name: value.detach() for name, value in out.items()}

    def _reconstruct(self, x: Tensor, n_sounding: int, numbers: Numbers, out: Losses) -> None:
        """Run the manifold phase of encoder and generator without adversary."""
        with self._phase("encoder", "generator"):
            z, x_hat = self._reconstruction(x)
            self._autoencoder_loss(x, x_hat, z, n_sounding, numbers, out).backward()

    def _step_in_turn(self, x: Tensor, n_sounding: int, numbers: Numbers, out: Losses) -> None:
        """Run the phases in the order of the paper: manifold step, then diffusion step."""
        # E and G do not move between phases 1 and 2: one pass serves both.
        self._require_grad("encoder", "generator")
        z, x_hat = self._reconstruction(x)
        real, made = x[:n_sounding], x_hat[:n_sounding]
        self.manifold_discriminator_phase(real, made, numbers, out)
        self.manifold_autoencoder_phase(x, x_hat, z, n_sounding, numbers, out)
        self._require_grad("generator")
        x_sampled = self._sample(numbers["prior"])
        self.diffusion_discriminator_phase(made, x_sampled, numbers, out)
        self.diffusion_generator_phase(made, x_sampled, out)
        if self._params.lambda_latent > 0:
            self.latent_phase(numbers, out)
        if self._params.monitor:
            self.monitor_phase(real, x_sampled, numbers, out)

    def _step_jointly(self, x: Tensor, n_sounding: int, numbers: Numbers, out: Losses) -> None:
        """Update both discriminators, then encoder and generator once by the sum of their terms.

        One pass gives the samples for phase 4 and for the latent cycle: the gradient of a sum of
        losses is the sum of the gradients, on one graph as on two.
        """
        self._require_grad("encoder", "generator")
        z, x_hat = self._reconstruction(x)
        real, made = x[:n_sounding], x_hat[:n_sounding]
        x_sampled = self._sample(numbers["prior"])
        self.manifold_discriminator_phase(real, made, numbers, out)
        self.diffusion_discriminator_phase(made, x_sampled, numbers, out)
        with self._phase("encoder", "generator"):
            loss = self._autoencoder_loss(x, x_hat, z, n_sounding, numbers, out)
            loss = loss + self._deceive("manifold", real, made, out)
            loss = loss + self._deceive("diffusion", made, x_sampled, out)
            if self._params.lambda_latent > 0:
                loss = loss + self._cycle_loss(numbers["prior"], x_sampled, out)
            loss.backward()
        if self._params.monitor:
            self.monitor_phase(real, x_sampled, numbers, out)

    def manifold_discriminator_phase(
        self, x: Tensor, x_hat: Tensor, numbers: Numbers, out: Losses
    ) -> None:
        """1: the manifold discriminator tells real snippets from reconstructions."""
        with self._phase("manifold_disc"):
            self._disc_loss("manifold_disc", x, x_hat, numbers, out).backward()

    def manifold_autoencoder_phase(
        self, x: Tensor, x_hat: Tensor, z: Tensor, n_sounding: int, numbers: Numbers, out: Losses
    ) -> None:
        """2: encoder and generator reconstruct, and make reconstructions that pass for real."""
        with self._phase("encoder", "generator"):
            adversarial = self._deceive("manifold", x[:n_sounding], x_hat[:n_sounding], out)
            loss = adversarial + self._autoencoder_loss(x, x_hat, z, n_sounding, numbers, out)
            loss.backward()

    def diffusion_discriminator_phase(
        self, x_hat: Tensor, x_sampled: Tensor, numbers: Numbers, out: Losses
    ) -> None:
        """3: the diffusion discriminator tells reconstructions from samples of the prior.

        It takes the reconstructions from the start of the step, which saves a pass through E and G.
        """
        with self._phase("diffusion_disc"):
            self._disc_loss("diffusion_disc", x_hat, x_sampled, numbers, out).backward()

    def diffusion_generator_phase(self, x_hat: Tensor, x_sampled: Tensor, out: Losses) -> None:
        """4: the generator makes samples that pass for reconstructions. The gradient reaches it."""
        with self._phase("generator"):
            self._deceive("diffusion", x_hat, x_sampled, out).backward()

    def latent_phase(self, numbers: Numbers, out: Losses) -> None:
        """5: encoding a sample gives back its latent, on a graph of its own."""
        with self._phase("encoder", "generator"):
            prior = numbers["cycle"]
            self._cycle_loss(prior, self._sample(prior), out).backward()

    def monitor_phase(self, x: Tensor, x_sampled: Tensor, numbers: Numbers, out: Losses) -> None:
        """6: the monitor tells real snippets from samples; its loss tells how far they differ."""
        with self._phase("monitor_disc"):
            self._disc_loss("monitor_disc", x, x_sampled, numbers, out).backward()

    def _reconstruction(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self._pass("encoder", x)
        return z, self._pass("generator", z)

    def _sample(self, prior: Tensor) -> Tensor:
        return self._pass("generator", prior, "prior")

    def _autoencoder_loss(
        self, x: Tensor, x_hat: Tensor, z: Tensor, n_sounding: int, numbers: Numbers, out: Losses
    ) -> Tensor:
        """Weigh and add the terms: reconstruction, sounding latents to the prior, silent spread."""
        p = self._params
        recon = losses.reconstruction(x, x_hat, p.distance, p.pool_weight, p.mse_weight)
        out["train/reconstruction"] = recon
        loss = p.lambda_recon * recon
        if p.lambda_prior:
            distance = losses.sliced_wasserstein(
                z[:n_sounding], numbers["to_prior"], numbers["directions"]
            )
            out["train/latent_to_prior"] = distance
            loss = loss + p.lambda_prior * distance
        if p.lambda_silence and n_sounding < len(x):
            spread = losses.spread(z[n_sounding:])
            out["train/silent_spread"] = spread
            loss = loss + p.lambda_silence * spread
        return loss

    def _deceive(self, step: str, real: Tensor, made: Tensor, out: Losses) -> Tensor:
        logits = self._pass(f"{step}_disc", made)
        if self._params.gan_loss == "relativistic":
            with torch.no_grad():
                of_real = self._pass(f"{step}_disc", real)
            loss = losses.relativistic_loss(logits, of_real)
        else:
            loss = losses.adversarial_loss(logits)
        out[f"train/{step}_adversarial"] = loss
        return loss

    def _cycle_loss(self, prior: Tensor, x_sampled: Tensor, out: Losses) -> Tensor:
        again = self._pass("encoder", x_sampled, "prior")
        loss = losses.distance(again, prior, self._params.distance)
        out["train/latent_cycle"] = loss
        return self._params.lambda_latent * loss

    def _disc_loss(
        self, name: str, first: Tensor, second: Tensor, numbers: Numbers, out: Losses
    ) -> Tensor:
        """Loss of a discriminator, with its weighted penalty if it is relativistic."""
        weight = self._params.r1_r2 / 2
        # The monitor's own loss says how far snippets differ: it stays the same for all trainings.
        is_relativistic = self._params.gan_loss == "relativistic" and name != "monitor_disc"
        is_penalised = is_relativistic and weight > 0
        first, second = (one.detach().requires_grad_(is_penalised) for one in (first, second))
        of_first, of_second = self._pass(name, first), self._pass(name, second)
        if is_relativistic:
            loss = losses.relativistic_loss(of_first, of_second)
        else:
            loss = losses.discriminator_loss(of_first, of_second, numbers[f"{name}_labels"])
        out[f"train/{name}"] = loss
        if is_penalised:
            r1 = losses.gradient_penalty(of_first, first)
            penalty = r1 + losses.gradient_penalty(of_second, second)
            out[f"train/{name}_penalty"] = penalty
            loss = loss + weight * penalty
        return loss

    def _pass(self, name: str, *inputs: Any) -> Tensor:
        half = torch.autocast(self._device.type, torch.bfloat16) if self._is_half else nullcontext()
        with half:
            output: Tensor = self._nets[name](*inputs)
        return output.float()

    @contextmanager
    def _phase(self, *owners: str) -> Iterator[None]:
        """Give gradients to the owners only; step their optimizers after the block."""
        self._require_grad(*owners)
        for name in owners:
            self._optimizers[name].zero_grad()
        yield
        if self._params.max_grad_norm:
            parameters = [p for name in owners for p in self._nets[name].parameters()]
            nn.utils.clip_grad_norm_(parameters, self._params.max_grad_norm)
        for name in owners:
            self._optimizers[name].step()
        if self._is_half:
            torch.clear_autocast_cache()

    def _require_grad(self, *owners: str) -> None:
        for name, net in self._nets.items():
            if next(net.parameters()).requires_grad != (name in owners):
                net.requires_grad_(name in owners)
