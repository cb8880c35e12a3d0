"""How well held-out song is reconstructed: ours against PCA of the same dimension, in one run.

python -m benchmarks.reconstruction --data DIR      real recordings, a table by bird
python -m benchmarks.reconstruction                 simulated birds, a table by age

Both learn from the same training recordings and are measured on the same held-out ones (whole
bouts, 15 % of each bird and age; consecutive snippets, all of them). L1 and L2 are in
log(1 + magnitude), LSD is the log-spectral distance in dB. Negative values of PCA are set to 0,
which a magnitude cannot be below: PCA at its best. A ratio is ours over PCA: below 1 is better. The
last column is our L2 over the variance of these very snippets: louder song has larger errors.
Then every bird and age as a study measures it, on the held-out songs of its trials: L1 over that of
a PCA of 16 dimensions of this bird and age alone; and songs sampled from a sequence model by a
fixed recipe (`models.metrics.sequence_model`): their Frechet distance to held-out song over windows
of 4 snippets, beside that of training song, and the share of held-out windows that they cover.
Then samples: Frechet distance to held-out snippets (features as in a study) of decoded latents of
the prior, of a Gaussian in the space of a PCA of 16 dimensions, and of real snippets (the floor).
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.material import (
    N_FRAMES,
    N_HELD_OUT,
    SPECTROGRAM,
    Material,
    crops,
    material,
    trained,
)
from models.mdgan.encoding import cut_snippets
from models.mdgan.model import Mdgan
from models.mdgan.params import MdganParams
from models.metrics.distances import log_magnitude_db, reconstruction_errors
from models.metrics.held_out import HeldOut
from models.metrics.held_out_songs import held_out_songs
from models.metrics.measure import measure
from models.metrics.reference import Reference


def errors(x: Tensor, x_hat: Tensor) -> list[float]:
    """L1, L2 and log-spectral distance."""
    return list(reconstruction_errors(x_hat, x, log_magnitude_db(x)).values())


def decoded(model: Mdgan, x: Tensor) -> Tensor:
    """Reconstructions of snippets [n, 1, n_freq, n_frames]."""
    return torch.cat([model.decode(model.encode(batch)) for batch in x.split(512)])


def line(name: str, x: Tensor, x_hat: Tensor, x_pca: Tensor) -> str:
    """One line of the table: errors of ours, of PCA, and their ratio; then our L2 over variance."""
    ours, pca = errors(x, x_hat), errors(x, x_pca)
    variance = float(x.var(0).mean())
    cells = [
        f"{a:8.{digits}f} {b:8.{digits}f} {a / b:6.3f}"
        for a, b, digits in zip(ours, pca, (4, 4, 2), strict=True)
    ]
    return f"{name:12} {len(x):5}  " + "  ".join(cells) + f" {ours[1] / variance:8.3f}"


def held_out_groups(on: Material, by: str) -> dict[str, Tensor]:
    """All consecutive snippets [n, 1, n_freq, n_frames] of held-out recordings, by bird or age."""
    parts: dict[str, list[Tensor]] = {}
    for recording, spectrogram, _ in on.loaded:
        if recording.split == "selection":
            key = recording.bird if by == "bird" else recording.age
            parts.setdefault(key, []).append(torch.from_numpy(cut_snippets(spectrogram, N_FRAMES)))
    return {key: torch.cat(parts[key])[:, None] for key in sorted(parts)}


def table(model: Mdgan, reference: Reference, groups: dict[str, Tensor], by: str) -> None:
    """Print a line per group, and one for all."""
    names = "  ".join(f"{name:>8} {'PCA':>8} {'ratio':>6}" for name in ("L1", "L2", "LSD"))
    print(f"{by:12} {'n':>5}  {names}   L2/var")
    latent_dim = model.params.latent_dim
    everything: list[tuple[Tensor, Tensor, Tensor]] = []
    for key, x in groups.items():
        x_pca = reference.pca_decode(reference.pca_scores(x, latent_dim))
        everything.append((x, decoded(model, x), x_pca))
        print(line(key, *everything[-1]))
    print(line("all", *(torch.cat(part) for part in zip(*everything, strict=True))))


def table_of_songs(model: Mdgan, on: Material, seed: int) -> None:
    """Print a line per bird and age, their mean and the worst."""
    held_out = held_out_songs(on.reference, on.songs, model.device)
    found = measure(model.encode, model.decode, held_out, seed)
    names = {
        "recon_l1": "L1", "recon_l1_vs_own_pca": "own PCA-16", "frechet_song": "songs",
        "frechet_real": "real", "coverage_song": "covered",
    }  # fmt: skip
    heads = " ".join(f"{title:>10}" for title in names.values())
    print(f"\n{'bird and age':20} {'n':>5} {heads}")

    def print_line(head: str, n: str, values: list[float | None]) -> None:
        cells = [f"{'':>10}" if value is None else f"{value:10.4f}" for value in values]
        print(f"{head:20} {n:>5} {' '.join(cells)}")

    for row in found.by_bird_age:
        head = f"{row['bird']} {row['age']}"
        print_line(head, str(row["n_snippets"]), [row[name] for name in names])
    of_song = ("frechet_song", "frechet_real", "coverage_song")
    means = [name if name in of_song else f"{name}_mean" for name in names]
    print_line("mean", "", [found.metrics.get(name) for name in means])
    print_line("worst", "", [found.metrics.get(f"{name}_worst") for name in names])


def main(on: Material, latent_dims: list[int], n_snippets: int, seed: int, by: str) -> None:
    """Print a table per latent size."""
    groups = held_out_groups(on, by)
    some, others = (
        crops(on.valid_pool, N_HELD_OUT, torch.Generator().manual_seed(seed + i)) for i in (0, 1)
    )
    real = HeldOut(on.reference, some)
    floor = real.frechet(real.features_of(others))
    pools = (on.train_pool, on.valid_pool)
    minutes = [len(pool.frames) * SPECTROGRAM.frame_s / 60 for pool in pools]
    print(
        f"{len(on.loaded)} recordings; {minutes[0]:.1f} min for training, {minutes[1]:.1f} held out"
    )
    for latent_dim in latent_dims:
        params = MdganParams(
            latent_dim=latent_dim, n_snippets=n_snippets, n_reports=1, monitor=False
        )
        began, began_cpu = time.monotonic(), time.process_time()
        model, metrics = trained(params, on, seed)
        seconds = time.monotonic() - began, time.process_time() - began_cpu
        print(
            f"\nlatent size {latent_dim}: {n_snippets:,} snippets in {seconds[0]:.0f} s "
            f"({seconds[1]:.0f} s CPU), seed {seed}"
        )
        table(model, on.reference, groups, by)
        table_of_songs(model, on, seed)
        samples = metrics["valid/frechet_sample"]
        print(
            f"Frechet distance to held-out snippets (n {N_HELD_OUT}): samples {samples:.3f}, "
            f"Gaussian in PCA space {samples / metrics['valid/frechet_sample_vs_pca']:.3f}, "
            f"floor {floor:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of recordings; without: simulated birds")
    parser.add_argument("--bird", help="only this one")
    parser.add_argument("--latent", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--snippets", type=int, default=300_000, help="seen in each training")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--by", choices=["bird", "age"])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    main(
        material(args.data, args.bird, args.seed), args.latent, args.snippets, args.seed,
        args.by or ("bird" if args.data else "age"),
    )  # fmt: skip
