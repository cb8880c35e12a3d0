"""Snippets per second of a training step: ours against every pass written out, in one run.

python -m benchmarks.train_step [--width 32] [--batch 64] [--seconds 20]

The first row is the order of passes of earlier code: each phase computes its reconstruction and its
sample anew, gradients flow into networks that do not move, discriminators are as wide as the
generator, and the monitoring discriminator is trained at each step. The rows below change one thing
after the other; the column "nets" says up to where networks and phases are the same. Rounds of all
rows follow one another, so that a busy machine slows them alike; the ratio is that of the medians.
The column "waits" says how often a step would wait for a GPU: each copy that is not pinned.
"""

import argparse
import dataclasses
import statistics
import time

import torch

from models.mdgan import losses
from models.mdgan.model import Losses, Mdgan
from models.mdgan.params import MdganParams
from tests.helpers.waits import counted_waits


class WrittenOut(Mdgan):
    """The same phases, every pass computed where it is needed."""

    def train_step(self, x: torch.Tensor, n_sounding: int | None = None) -> Losses:
        """One pass through all phases; gives no losses, and takes all snippets for sounding."""
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
            labels = [
                losses.noisy_labels(len(x), label, p.label_noise, self.rng).to(self.device)
                for label in (1.0, 0.0)
            ]
            return losses.discriminator_loss(first, second, torch.stack(labels))

        def prior() -> torch.Tensor:
            drawn = losses.sample_prior(len(x), p.latent_dim, p.prior, p.prior_scale, self.rng)
            return drawn.to(self.device)

        x = x.to(self.device)

        step(("manifold_disc",), disc(manifold(x), manifold(generator(encoder(x)))))
        x_hat = generator(encoder(x))
        reconstruction = losses.reconstruction(x, x_hat, p.distance, p.pool_weight, p.mse_weight)
        adversarial = losses.adversarial_loss(manifold(x_hat))
        step(("encoder", "generator"), adversarial + p.lambda_recon * reconstruction)
        x_hat, sampled = generator(encoder(x)), generator(prior())
        step(("diffusion_disc",), disc(diffusion(x_hat), diffusion(sampled)))
        sampled = generator(prior())
        step(("generator",), losses.adversarial_loss(diffusion(sampled)))
        z = prior()
        cycle = losses.distance(encoder(generator(z)), z, p.distance)
        step(("encoder", "generator"), p.lambda_latent * cycle)
        sampled = generator(prior())
        monitor = self.nets["monitor_disc"]
        step(("monitor_disc",), disc(monitor(x), monitor(sampled)))
        return {}


def rows(width: int, batch: int) -> list[tuple[str, str, Mdgan, int]]:
    """What is compared: nets, name, model and sounding snippets of each row.

    The first is the base of all ratios.
    """
    base = MdganParams(
        width=width, dense_width=0, disc_width=width, batch_size=batch, pool_weight=1.0,
        mse_weight=0.0, lambda_prior=0.0, adversarial_from=0.0, order="alternating", monitor=True,
    )  # fmt: skip
    models: list[tuple[str, str, Mdgan, int]] = [
        ("equal", "earlier order, every pass written out", WrittenOut(base, 16, 0), batch),
        ("equal", "ours: no pass twice, owners frozen", Mdgan(base, 16, 0), batch),
    ]
    n_sounding = batch

    def further(nets: str, name: str, **changes: object) -> None:
        nonlocal base
        base = dataclasses.replace(base, **changes)  # type: ignore[arg-type]
        models.append((nets, name, Mdgan(base, 16, 0), n_sounding))

    further("equal", "  + one joint update of encoder and generator", order="joint")
    if torch.cpu._is_avx512_bf16_supported():
        further("equal", "  + bfloat16", precision="bfloat16")
    further("no monitor", "  + no monitor", monitor=False)
    further("narrower", "  + discriminators of half the width", disc_width=max(1, width // 2))
    further("other", "dense path instead of convolutions", width=0, dense_width=512)
    n_sounding = batch - batch // 4
    further("other", "  + a quarter of the snippets is silent", lambda_prior=10.0)
    further("other", "  + relativistic, with R1 and R2", gan_loss="relativistic")
    further("no adversary", "  its steps before adversarial_from", adversarial_from=1.0)
    return models


def main(width: int, batch: int, seconds: float) -> None:
    """Print one line per row."""
    torch.set_num_threads(1)
    compared = rows(width, batch)
    x = torch.rand(batch, 1, 129, 16)
    waits = []
    for _, _, model, n_sounding in compared:
        with counted_waits() as found:
            model.train_step(x, n_sounding)  # warms up
        waits.append(found.n_waits)
    times: list[list[float]] = [[] for _ in compared]
    while sum(times[0]) < seconds or len(times[0]) < 5:
        for row, (_, _, model, n_sounding) in zip(times, compared, strict=True):
            begin = time.perf_counter()
            model.train_step(x, n_sounding)
            row.append(time.perf_counter() - begin)
    print(
        f"torch {torch.__version__}, one thread, width {width}, batch {batch}, "
        f"{len(times[0])} rounds"
    )
    print(f"{'':46} {'nets':13} snippets/s  ratio  waits")
    first = statistics.median(times[0])
    for row, (nets, name, _, _), n_waits in zip(times, compared, waits, strict=True):
        median = statistics.median(row)
        print(f"{name:46} {nets:13} {batch / median:10.1f} {first / median:6.2f} {n_waits:6}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20.0, help="of the first row's steps")
    args = parser.parse_args()
    main(args.width, args.batch, args.seconds)
