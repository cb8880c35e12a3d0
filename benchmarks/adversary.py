"""Does the adversary earn its place? The same decoder with and without, over several seeds.

python -m benchmarks.adversary --data DIR --bird G402 [--snippets 20000] [--seeds 3]

Each recipe learns the same song with each seed, and is judged by what is heard: songs of the quick
sequence model, decoded, against held-out song (Frechet distance and coverage of a study, mean over
three samplings), and a boosted-tree classifier that is to tell held-out windows of song from
sampled ones, and held-out snippets from their reconstructions (area under its curve, five folds of
consecutive song; 0.5: it cannot). "floor" is training song in the place of sampled song. L1 is over
that of a PCA of 16 dimensions; lambda_prior is 10 where a recipe does not say. D1 and D2 are the
discriminators' losses since they began (chance: 1.386, relativistic 0.693). Mean and standard error
over seeds. The last row trains without adversary for as long as the slowest recipe took. Without
--data: two simulated birds.
"""

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from benchmarks.material import Material, trained
from benchmarks.objective import songs_of
from models.mdgan.model import Mdgan
from models.mdgan.params import MdganParams
from models.metrics.held_out_songs import HeldOutSongs, held_out_songs
from models.metrics.measure import SAMPLED_LENGTH, in_batches, measure, whitening
from models.metrics.sequence_model import fit_sequence_model

Array = NDArray[np.float64]

WITHOUT = "no adversary"
NONE = {"adversarial_from": 1.0}
LAMBDA_PRIOR = 10.0  # adversary and prior samples need it; the default is 1
CONSTANT = {"is_disc_lr_constant": True}
RELATIVISTIC = {"gan_loss": "relativistic", **CONSTANT}
RECIPES: dict[str, dict[str, object]] = {
    WITHOUT: NONE,
    "  lambda_prior 1": {**NONE, "lambda_prior": 1.0},
    "  lambda_prior 0": {**NONE, "lambda_prior": 0.0},
    "the paper's, from 0.9, falling rate": {"adversarial_from": 0.9},
    "  from 0.3, constant rate": {"adversarial_from": 0.3, **CONSTANT},
    "relativistic, from 0.5": {"adversarial_from": 0.5, **RELATIVISTIC},
    "  from 0.3": {"adversarial_from": 0.3, **RELATIVISTIC},
    "  from 0.5, on silence too": {
        "adversarial_from": 0.5, "minibatch": "uniform", **RELATIVISTIC,
    },
}  # fmt: skip
EQUAL_TIME = "no adversary, for as long"
N_SAMPLINGS = 3
COLUMNS = {
    "song": "frechet_song", "cover": "coverage_song", "AUC song": "auc_song",
    "AUC rec": "auc_recon", "L1/PCA": "recon_l1_vs_pca", "prior": "valid/frechet_sample",
    "D1": "train/manifold_disc", "D2": "train/diffusion_disc",
}  # fmt: skip


def auc(real: Array, other: Array, seed: int) -> float:
    """How well a classifier tells features [n, d] of two kinds apart, on folds it has not seen.

    Folds are blocks of consecutive rows: windows overlap, and neighbours are alike.
    """
    features = np.concatenate([real, other])
    kind = np.repeat([0, 1], [len(real), len(other)])
    trees = HistGradientBoostingClassifier(max_iter=60, random_state=seed)
    found = cross_val_predict(trees, features, kind, cv=StratifiedKFold(5), method="predict_proba")
    return float(roc_auc_score(kind, found[:, 1]))


def windows(held_out: HeldOutSongs, snippets: torch.Tensor, lengths: Sequence[int]) -> Array:
    """Window features of song."""
    reference = held_out.snippets.reference
    return reference.window_features(reference.features(snippets), lengths)


@torch.no_grad()
def judged(model: Mdgan, on: Material, seed: int) -> dict[str, float]:
    """Figures of one decoder."""
    held_out = held_out_songs(on.reference, on.songs, model.device)
    measured = [measure(model.encode, model.decode, held_out, i) for i in range(N_SAMPLINGS)]
    found = {
        name: float(np.mean([one.metrics[name] for one in measured]))
        for name in ("frechet_song", "coverage_song", "recon_l1_vs_pca")
    }
    features = on.reference.features
    x, x_hat = held_out.snippets.snippets, measured[0].x_hat
    found["auc_recon"] = auc(features(x), features(x_hat), seed)
    z = in_batches(model.encode, held_out.training).double().numpy()
    mean, std = whitening(z)
    rng, end, aucs = np.random.default_rng(seed), 0, []
    for songs in on.songs:
        at = slice(end, end := end + len(songs.training))
        chain = fit_sequence_model((z[at] - mean) / std, songs.training_lengths, seed)
        n = math.ceil(len(songs.held_out) / SAMPLED_LENGTH)
        sampled = chain.sample(n, SAMPLED_LENGTH, rng) * std + mean
        decoded = in_batches(model.decode, torch.from_numpy(sampled).float())
        aucs.append(
            auc(
                windows(held_out, torch.from_numpy(songs.held_out), songs.held_out_lengths),
                windows(held_out, decoded, [SAMPLED_LENGTH] * n), seed,
            )
        )  # fmt: skip
    return {**found, "auc_song": float(np.mean(aucs))}


def floor(on: Material) -> dict[str, float]:
    """The same figures of training song."""
    held_out = held_out_songs(on.reference, on.songs, torch.device("cpu"))
    aucs, distances, coverages = [], [], []
    for songs, song in zip(on.songs, held_out.of_song, strict=True):
        assert song is not None
        real, seen = (torch.from_numpy(x) for x in (songs.held_out, songs.training))
        both = (real, songs.held_out_lengths), (seen, songs.training_lengths)
        aucs.append(auc(*(windows(held_out, *one) for one in both), 0))
        features = on.reference.features(seen)
        distances.append(song.frechet(features, songs.training_lengths))
        coverages.append(song.coverage(features, songs.training_lengths))
    means = (float(np.mean(values)) for values in (distances, coverages, aucs))
    return dict(zip(("frechet_song", "coverage_song", "auc_song"), means, strict=True))


def line(name: str, rows: list[dict[str, float]]) -> str:
    """Mean and standard error of each figure over seeds."""
    cells = []
    for key in COLUMNS.values():
        values = np.array([row.get(key, math.nan) for row in rows])
        error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        cells.append(f"{values.mean():7.4f} +-{error:6.4f}")
    n, seconds = (np.mean([row.get(key, 0) for row in rows]) for key in ("n", "cpu_s"))
    return f"{name:36} {n:9,.0f} {seconds:6.0f}  " + "  ".join(cells)


def trial(on: Material, changes: dict[str, object], n_snippets: int, seed: int) -> dict[str, float]:
    """Train with one recipe and seed, and judge."""
    changes = {"lambda_prior": LAMBDA_PRIOR, **changes}
    params = MdganParams(n_snippets=n_snippets, n_reports=1, monitor=False, **changes)  # type: ignore[arg-type]
    began = time.process_time()
    model, metrics = trained(params, on, seed)
    seconds = time.process_time() - began
    return {"n": n_snippets, "cpu_s": seconds, **metrics, **judged(model, on, seed)}


def main(on: Material, n_snippets: int, n_seeds: int, only: list[str]) -> None:
    """Print one line per recipe."""
    names = "  ".join(f"{name:>7} {'error':>8}" for name in COLUMNS)
    print(f"{'':36} {'snippets':>9} {'CPU s':>6}  {names}")
    print(line("floor", [floor(on)]))
    seconds: dict[str, float] = {}
    for name, changes in RECIPES.items():
        if any(part in name for part in only):
            rows = [trial(on, changes, n_snippets, seed) for seed in range(n_seeds)]
            seconds[name] = float(np.mean([row["cpu_s"] for row in rows]))
            print(line(name, rows), flush=True)
    if WITHOUT in seconds and len(seconds) > 1:
        slower = max(seconds.values()) / seconds[WITHOUT]
        rows = [trial(on, NONE, int(slower * n_snippets), seed) for seed in range(n_seeds)]
        print(line(EQUAL_TIME, rows), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of recordings; without: simulated birds")
    parser.add_argument("--bird", help="only this one")
    parser.add_argument("--snippets", type=int, default=20_000, help="seen in each training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[""], help="recipes whose name has this in it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    main(songs_of(args.data, args.bird, 0), args.snippets, args.seeds, args.only)
