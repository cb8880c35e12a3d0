"""Snippets per second of a training step, ours against every pass written out, in one run.

python benchmarks/train_step.py [width ...]

The other side has the same networks, losses and optimizers, but computes the reconstruction and
the sample anew in each phase and lets gradients flow into networks that do not move.
"""

import sys
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch

from models import losses
from models.mdgan import Losses, Mdgan, MdganParams


class WrittenOut(Mdgan):
    """The same phases, every pass computed where it is needed."""

    def train_step(self, x: torch.Tensor) -> Losses:
        """One pass through all phases; gives no losses."""
        p = self.params
        encoder, generator = self.encoder, self.generator
        manifold, diffusion = self.nets["manifold_disc"], self.nets["diffusion_disc"]

        def step(owners: tuple[str, ...], loss: torch.Tensor) -> None:
            for net in self.nets.values():
                net.zero_grad()
            loss.backward()
            for name in owners:
                self.optimizers[name].step()

        def disc(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            return losses.discriminator_loss(first, second, p.label_noise, self.rng)

        step(("manifold_disc",), disc(manifold(x), manifold(generator(encoder(x)))))
        x_hat = generator(encoder(x))
        reconstruction = losses.reconstruction(x, x_hat, p.distance, p.pool_weight)
        adversarial = losses.adversarial_loss(manifold(x_hat))
        step(("encoder", "generator"), adversarial + p.lambda_recon * reconstruction)
        x_hat, sampled = generator(encoder(x)), generator(self.sample_prior(len(x)))
        step(("diffusion_disc",), disc(diffusion(x_hat), diffusion(sampled)))
        sampled = generator(self.sample_prior(len(x)))
        step(("generator",), losses.adversarial_loss(diffusion(sampled)))
        z = self.sample_prior(len(x))
        cycle = losses.distance(encoder(generator(z)), z, p.distance)
        step(("encoder", "generator"), p.lambda_latent * cycle)
        sampled = generator(self.sample_prior(len(x)))
        monitor = self.nets["monitor_disc"]
        step(("monitor_disc",), disc(monitor(x), monitor(sampled)))
        return {}


def snippets_per_s(model: Mdgan, seconds: float = 4.0) -> float:
    """Median over batches, after two to warm up."""
    x = torch.rand(model.params.batch_size, 1, 129, 16)
    times = []
    started = time.perf_counter()
    while time.perf_counter() - started < seconds or len(times) < 5:
        begin = time.perf_counter()
        model.train_step(x)
        times.append(time.perf_counter() - begin)
    return len(x) / sorted(times[2:])[len(times[2:]) // 2]


def main(widths: list[int]) -> None:
    """Print one line per width."""
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, float32; snippets per second")
    print("width  disc_width  batch  written out   ours  ratio")
    for width in widths:
        params = MdganParams(width=width, disc_width=width // 2)
        plain = snippets_per_s(WrittenOut(params, 16, 0))
        ours = snippets_per_s(Mdgan(params, 16, 0))
        print(
            f"{width:5}  {width // 2:10}  {params.batch_size:5}  {plain:11.1f}  {ours:5.1f}  "
            f"{ours / plain:5.2f}"
        )


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [8, 16, 32])
