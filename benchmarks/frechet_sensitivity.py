"""What a Frechet distance sees, by the embedding it is taken in.

python -m benchmarks.frechet_sensitivity [--data FOLDER] [--snippets 2000]

Each row changes snippets in one way, each column is one embedding; 0 is "the same", 1 about what
the mean snippet gets. Embeddings are fitted to crops of training recordings, distances are taken
from other crops of these recordings. A change that costs no more than the floor is not seen, so a
second table has the same over the floor. The third is the bias of a distance over the number of
snippets. The study uses the last column. Birds are simulated, or read from FOLDER
(<bird>/<age>/songs/*.wav), of which each bird with two bouts at one age is taken.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is loaded

import argparse
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from torch import Tensor
from torch.nn import functional

from benchmarks.material import load
from data_io.aviary.params import AviaryParams
from data_io.aviary.write import simulate_aviary
from data_io.snippets import FramePool, snippet_starts
from models.metrics.distances import frechet_distance, mean_and_cov
from models.metrics.reference import MAX_PCA_DIM, N_PCA_FEATURES, Reference, fit_reference

Array = NDArray[np.float64]
Embedding = Callable[[Tensor], Array]

SIMULATION = AviaryParams(n_birds=4, ages_dph=(45, 90), minutes=0.4, recording_s=(2.0, 4.0))
N_FRAMES = 16
N_FIT = 8000
SAMPLE_SIZES = (128, 512, 1000, 2000, 4000)
_NARROW, _WIDE, _CONV = f"PCA-{N_PCA_FEATURES}", f"PCA-{MAX_PCA_DIM}", "convolution"
N_CLASSIFIER_INPUTS, N_CLASSIFIER_HIDDEN = 64, 64


@dataclass(frozen=True)
class Song:
    """Frames of every bird on one side of the split."""

    pools: dict[str, FramePool]

    def crops(self, n: int, seed: int, without: str = "") -> tuple[Tensor, NDArray[np.str_]]:
        """``n`` random snippets, as many of each bird, and whose they are."""
        rng = np.random.default_rng(seed)
        birds = [bird for bird in self.pools if bird != without]
        labels = np.array([birds[i % len(birds)] for i in range(n)])
        snippets = np.empty((n, 1, *self._size), np.float32)
        for bird in birds:
            pool = self.pools[bird]
            choice = rng.integers(len(pool.starts), size=int((labels == bird).sum()))
            snippets[labels == bird] = pool.crops(choice)
        return torch.from_numpy(snippets), labels

    @property
    def _size(self) -> tuple[int, int]:
        pool = next(iter(self.pools.values()))
        return pool.frames.shape[1], pool.n_frames


def read_song(folder: Path) -> dict[str, Song]:
    """Training and held-out frames of all birds that have both."""
    blocks: dict[str, dict[str, list[NDArray[np.float32]]]] = {"training": {}, "selection": {}}
    for recording, spectrogram, _ in load(folder, None):
        if recording.split in blocks:
            of_bird = blocks[recording.split].setdefault(recording.bird, [])
            of_bird.append(spectrogram.T)
    birds = sorted(set(blocks["training"]) & set(blocks["selection"]))
    return {side: Song({b: _pool(of_birds[b]) for b in birds}) for side, of_birds in blocks.items()}


def _pool(blocks: list[NDArray[np.float32]]) -> FramePool:
    starts = snippet_starts([len(block) for block in blocks], N_FRAMES)
    return FramePool(np.concatenate(blocks), starts, N_FRAMES)


def bird_classifier(reference: Reference, snippets: Tensor, birds: NDArray[np.str_]) -> Embedding:
    """Hidden units of a small network that was taught whose snippet it is."""

    def inputs(x: Tensor) -> Array:
        scores = reference.pca_scores(x, N_CLASSIFIER_INPUTS)
        return scores / reference.pca_std[:N_CLASSIFIER_INPUTS]

    net = MLPClassifier(N_CLASSIFIER_HIDDEN, batch_size=128, max_iter=15, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 15 passes are enough to tell birds
        net.fit(inputs(snippets), birds)
    return lambda x: np.maximum(inputs(x) @ net.coefs_[0] + net.intercepts_[0], 0)


def distances_in(embedding: Embedding, snippets: Tensor) -> Callable[[Tensor], float]:
    """Frechet distance to ``snippets`` over their total variance, in one embedding."""
    mean, cov = mean_and_cov(embedding(snippets))

    def distance(x: Tensor) -> float:
        return frechet_distance(*mean_and_cov(embedding(x)), mean, cov) / float(np.trace(cov))

    return distance


def all_distances(
    embeddings: dict[str, Embedding], snippets: Tensor
) -> dict[str, Callable[[Tensor], float]]:
    """Distances to ``snippets`` in each embedding, and in pairs: the mean of the two."""
    single = {name: distances_in(embedding, snippets) for name, embedding in embeddings.items()}

    def both(one: str, other: str) -> Callable[[Tensor], float]:
        return lambda x: (single[one](x) + single[other](x)) / 2

    return {
        **single,
        f"{_WIDE}, conv.": both(_WIDE, _CONV),
        f"{_NARROW}, conv.": both(_NARROW, _CONV),  # what the study uses
    }


def blur(x: Tensor, size: int) -> Tensor:
    """Mean over ``size`` x ``size``, of what lies inside the snippet."""
    pad = size // 2
    return functional.avg_pool2d(x, size, stride=1, padding=pad, count_include_pad=False)


def changes(
    same: Tensor, songs: dict[str, Song], reference: Reference, seed: int
) -> dict[str, Tensor]:
    """The snippets of every row."""
    rng = torch.Generator().manual_seed(seed)
    order = torch.rand(len(same), N_FRAMES, generator=rng).argsort(1)
    shuffled = same.gather(3, order[:, None, None, :].expand_as(same))
    dropped = next(iter(songs["training"].pools))
    noise = torch.randn(same.shape, generator=rng)
    return {
        "the same distribution (floor)": same,
        "other songs of the same birds": songs["selection"].crops(len(same), seed + 1)[0],
        "noise 0.1": (same + 0.1 * noise).clip(min=0),
        "blur 3": blur(same, 3),
        "blur 5": blur(same, 5),
        "magnitude times 1.5": torch.log1p(1.5 * torch.expm1(same)),
        "columns shuffled in time": shuffled,
        "shifted 4 frequency bins": same.roll(4, dims=2),
        f"{dropped} left out": songs["training"].crops(len(same), seed, without=dropped)[0],
        "PCA-16 reconstruction": reference.pca_decode(reference.pca_scores(same, 16)),
        "mean snippet": same.mean(0, keepdim=True).expand_as(same),
    }


def print_table(title: str, columns: list[str], rows: dict[str, Array]) -> None:
    """One line per row, one number per column."""
    print(f"{title:<32}" + "".join(f"{column:>17}" for column in columns), flush=True)
    for label, values in rows.items():
        print(f"{label:<32}" + "".join(f"{value:>17.3f}" for value in values), flush=True)
    print()


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="real recordings instead of simulated ones")
    parser.add_argument("--snippets", type=int, default=2000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.data or Path(temporary)
        if args.data is None:
            simulate_aviary(folder, SIMULATION, seed=0)
        songs = read_song(folder)
    fitted_to, birds = songs["training"].crops(N_FIT, seed=1)
    target, _ = songs["training"].crops(args.snippets, seed=2)
    reference = fit_reference(fitted_to, (), seed=0)
    embeddings: dict[str, Embedding] = {
        _NARROW: lambda x: reference.pca_scores(x, N_PCA_FEATURES),
        _WIDE: lambda x: reference.pca_scores(x, MAX_PCA_DIM),
        _CONV: reference.convolve,
        "bird classifier": bird_classifier(reference, fitted_to, birds),
    }
    names = ", ".join(songs["training"].pools)
    print(f"{args.snippets} snippets of {names}; embeddings fitted to {N_FIT}\n")

    same, _ = songs["training"].crops(args.snippets, seed=3)
    measures = all_distances(embeddings, target)
    rows = {
        label: np.array([distance(x) for distance in measures.values()])
        for label, x in changes(same, songs, reference, seed=4).items()
    }
    print_table("change", list(measures), rows)
    floor = next(iter(rows.values()))
    seen = {label: row / floor for label, row in list(rows.items())[1:]}
    seen["least seen change"] = np.min(list(seen.values()), axis=0)
    print_table("change / floor", list(measures), seen)

    bias = {}
    for n in SAMPLE_SIZES:
        one, other = (songs["training"].crops(n, seed=seed)[0] for seed in (5, 6))
        bias[f"{n} snippets"] = np.array(
            [d(other) for d in all_distances(embeddings, one).values()]
        )
    print_table("the same distribution", list(measures), bias)


if __name__ == "__main__":
    main()
