"""Does the objective find the decoders that one would choose? Sixteen trainings, ranked.

python -m benchmarks.objective [--data DIR] [--snippets 40000]

Ten sound trainings, and six that no one would want: autoencoders without adversary and without the
distance to the prior (they reconstruct well and cannot sample), a weight of the reconstruction so
large that nothing else counts, and decoders with constant output. Ranked by the objective of a
study (held-out L1 over PCA's plus twice the Frechet distance of samples) and, beside it, by the
weighted training loss, which contains the very weights that a search changes. Without --data:
simulated birds.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch
from scipy import stats

from benchmarks.material import Material, material, trained
from models.mdgan.params import MdganParams
from models.metrics.evaluation import COLLAPSED_OBJECTIVE

SOUND = "sound"


def trainings(n_snippets: int) -> list[tuple[str, MdganParams]]:
    """Kind and parameters of each."""
    base = MdganParams(n_snippets=n_snippets, n_reports=1, monitor=False, collapse_after=0)
    sound = [
        (8, 150.0, 10.0, 1e-3), (8, 300.0, 10.0, 1e-3), (8, 600.0, 30.0, 1e-3),
        (16, 150.0, 5.0, 1e-3), (16, 300.0, 10.0, 1e-3), (16, 600.0, 20.0, 1e-3),
        (16, 300.0, 10.0, 5e-4), (32, 150.0, 10.0, 1e-3), (32, 300.0, 10.0, 1e-3),
        (32, 600.0, 20.0, 1e-3),
    ]  # fmt: skip
    result = [
        (SOUND, replace(base, latent_dim=d, lambda_recon=recon, lambda_prior=prior, lr=lr))
        for d, recon, prior, lr in sound
    ]
    alone = replace(base, adversarial_from=1.0, lambda_prior=0.0)
    constant = replace(base, width=4, dense_width=0, initialisation="normal", lr=1e-7)
    for d in (8, 16):
        result += [
            ("autoencoder alone", replace(alone, latent_dim=d)),
            ("lambda too large", replace(base, latent_dim=d, lambda_recon=1e5)),
            ("constant output", replace(constant, latent_dim=d)),
        ]
    return result


def weighted_loss(params: MdganParams, losses: dict[str, float]) -> float:
    """What encoder and generator minimise."""
    weights = {
        "reconstruction": params.lambda_recon, "latent_to_prior": params.lambda_prior,
        "latent_cycle": params.lambda_latent, "manifold_adversarial": 1.0,
        "diffusion_adversarial": 1.0,
    }  # fmt: skip
    return sum(w * losses.get(f"train/{name}", 0.0) for name, w in weights.items())


def main(on: Material, n_snippets: int, seed: int) -> None:
    """Train all, print them by objective."""
    rows = []
    for kind, params in trainings(n_snippets):
        _, metrics = trained(params, on, seed)
        metrics = metrics or {"valid/objective": COLLAPSED_OBJECTIVE}
        rows.append((kind, params, metrics, weighted_loss(params, metrics)))
        print(f"{len(rows)} of 16: {kind}", file=sys.stderr)
    by_loss = sorted(row[3] for row in rows)
    print(f"{n_snippets:,} snippets each, seed {seed}; by objective, best first")
    print(
        "rank  kind               latent   recon  prior  objective  L1/PCA  Frechet  rank by loss"
    )
    rows.sort(key=lambda row: row[2]["valid/objective"])
    for rank, (kind, p, m, loss) in enumerate(rows, 1):
        print(
            f"{rank:4}  {kind:17} {p.latent_dim:7} {p.lambda_recon:7.0f} {p.lambda_prior:6.0f} "
            f"{m['valid/objective']:10.3f} {m.get('valid/recon_l1_vs_pca', float('nan')):7.3f} "
            f"{m.get('valid/frechet_sample', float('nan')):8.3f} {by_loss.index(loss) + 1:13}"
        )
    l1 = [row[2].get("valid/recon_l1", float("nan")) for row in rows]
    correlation = stats.spearmanr([row[3] for row in rows], l1).statistic
    print(f"Spearman correlation of the weighted training loss with held-out L1: {correlation:.2f}")
    n_sound = sum(row[0] == SOUND for row in rows)
    for name, order in (("objective", rows), ("weighted loss", sorted(rows, key=lambda r: r[3]))):
        above = sum(row[0] == SOUND for row in order[:n_sound])
        print(f"first {n_sound} by {name}: {above} sound")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of recordings; without: simulated birds")
    parser.add_argument("--snippets", type=int, default=40_000, help="seen in each training")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    main(material(args.data, None, args.seed), args.snippets, args.seed)
