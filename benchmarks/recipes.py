"""Ways of training the decoder, each given the same CPU time, on the same recordings.

python -m benchmarks.recipes [--data DIR] [--seconds 60] [--latent 16]

Held out by recording. L1, L2 and log-spectral distance over those of PCA (clipped at 0), Frechet
distance of samples of the prior and of a Gaussian in the space of the PCA. One seed: differences of
a few per cent prove nothing. Without --data: simulated birds.
"""

import argparse
import dataclasses
import math
import time
from pathlib import Path

import torch

from benchmarks.material import Material, crops, material, trained
from data_io.snippets import FramePool
from models.mdgan.model import Mdgan
from models.mdgan.params import MdganParams

AUTOENCODER = {"adversarial_from": 1.0, "lambda_prior": 0.0}
LATE = {"adversarial_from": 0.9}
CONVOLUTIONS = {**AUTOENCODER, "width": 16, "dense_width": 0, "batch_size": 32}
# The recipe of the paper, at a width and a rate that learn something in minutes.
PAPER = {
    "width": 16, "dense_width": 0, "disc_width": 16, "batch_size": 32, "adversarial_from": 0.0,
    "order": "alternating", "lambda_prior": 0.0, "mse_weight": 0.0, "pool_weight": 1.0,
}  # fmt: skip
RECIPES = {
    "the paper's, lr 1e-3": PAPER,
    "convolutions, autoencoder": CONVOLUTIONS,
    "  weights from N(0, 0.02)": {**CONVOLUTIONS, "initialisation": "normal"},
    "  with an MLP head": {**CONVOLUTIONS, "has_head": True},
    "  no normalisation": {**CONVOLUTIONS, "normalisation": "none"},
    "dense + convolutions (8), autoencoder": {**AUTOENCODER, "width": 8},
    "dense path, autoencoder": AUTOENCODER,
    "  no squared difference": {**AUTOENCODER, "mse_weight": 0.0},
    "the default: + to the prior": {},
    "  to the prior, weight 10": {"lambda_prior": 10.0},
    "+ adversary, last tenth": LATE,
    "  the paper's two updates": {**LATE, "order": "alternating"},
    "  no latent cycle": {**LATE, "lambda_latent": 0.0},
    "  discriminators of width 4": {**LATE, "disc_width": 4},
    "  discriminators of width 16": {**LATE, "disc_width": 16},
    "  adversary from the first step": {"adversarial_from": 0.0},
}


def budgeted(params: MdganParams, seconds: float, pool: FramePool, seed: int) -> MdganParams:
    """The parameters with as many snippets as ``seconds`` of CPU time allow."""
    per_snippet = 0.0
    share = params.adversarial_from
    for part, of_training in ((1.0, share), (0.0, 1 - share)):
        if of_training == 0:
            continue
        model = Mdgan(dataclasses.replace(params, adversarial_from=part), 16, seed)
        x = crops(pool, params.batch_size, model.rng)
        model.train_step(x)
        began, n = time.process_time(), 0
        while time.process_time() - began < 2 or n < 3:
            model.train_step(crops(pool, params.batch_size, model.rng))
            n += 1
        per_snippet += of_training * (time.process_time() - began) / (n * params.batch_size)
    return dataclasses.replace(params, n_snippets=int(seconds / per_snippet))


def main(on: Material, seconds: float, latent_dim: int, seed: int, only: list[str]) -> None:
    """Print one line per recipe."""
    print(f"{seconds:.0f} s of CPU time each, one thread, latent size {latent_dim}, seed {seed}")
    print(f"{'':37} snippets  L1/PCA  L2/PCA  LSD/PCA  Frechet  Gaussian")
    for name, changes in RECIPES.items():
        if not any(part in name for part in only):
            continue
        base = MdganParams(
            latent_dim=latent_dim, n_reports=1, monitor=False, collapse_after=0, **changes
        )  # type: ignore[arg-type]
        params = budgeted(base, seconds, on.train_pool, seed)
        _, metrics = trained(params, on, seed)

        def value(name: str, metrics: dict[str, float] = metrics) -> float:
            return metrics.get(f"valid/{name}", math.nan)

        print(
            f"{name:37} {params.n_snippets:8} {value('recon_l1_vs_pca'):7.3f} "
            f"{value('recon_l2_vs_pca'):7.3f} {value('recon_lsd_vs_pca'):8.3f} "
            f"{value('frechet_sample'):8.3f} "
            f"{value('frechet_sample') / value('frechet_sample_vs_pca'):9.3f}",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of recordings; without: simulated birds")
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU time of each training")
    parser.add_argument("--latent", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[""], help="recipes whose name has this in it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    on = material(args.data, None, args.seed)
    main(on, args.seconds, args.latent, args.seed, args.only)
