"""What states mean: by covariances and hop, against labels, other seeds and a shift of the start.

    python -m benchmarks.states --data DIR --birds G402 bl26lb16 --labels FILE.csv --ignore s n
    python -m benchmarks.states                        two birds of the aviary, their true labels

One decoder (16 latents, the defaults) is trained on the training recordings of the birds. An HMM
of each bird, of all its ages together, is fitted to its training recordings, for each hop and kind
of covariances, its number of states by BIC, at two seeds (N: overlap counted once). Printed are:

    nats       log-likelihood of the recordings held out, in nats per snippet
    V, hom     V-measure and homogeneity of the states of frames against the labels, over all
               frames that have one; --ignore leaves labels out that tell nothing
    seeds      normalised mutual information (NMI) of the states of frames under two searches
    shift      NMI of the states of frames after every recording loses its first half hop

The last four are of frames by all offsets: a frame has the state of the snippet that is centred on
it. "near" stands for the cheap way: a frame has the state of the snippet of one sequence whose
centre is nearest. --labels is a CSV file with recording, onset_s, offset_s and label.
"""

import argparse
import csv
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from sklearn.metrics import homogeneity_score, normalized_mutual_info_score, v_measure_score
from threadpoolctl import threadpool_limits

from benchmarks.material import N_FRAMES, SPECTROGRAM, Loaded, load, material_of, trained
from data_io.aviary.params import AviaryParams
from data_io.aviary.truth import SOUNDS_FILE
from data_io.aviary.write import simulate_aviary
from models.hmm import CovarianceType, GaussianHMM, HmmParams, select_n_states
from models.hmm.em import Songs
from models.hmm.frames import frame_posteriors
from models.mdgan.encoding import encode_spectrogram
from models.mdgan.params import MdganParams

LATENT_DIM = 16
N_STATES = (3, 100)
HOPS = (16, 8, 4)
KINDS: tuple[CovarianceType, ...] = ("diag", "full")
UNLABELLED = -1
COLUMNS = (
    "hop",
    "cov",
    "K",
    "N",
    "nats",
    "V near",
    "V",
    "hom",
    "seeds",
    "shift near",
    "shift",
    "s",
)

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
Sounds = dict[str, list[tuple[float, float, str]]]  # onset, offset, label by recording


@dataclass(frozen=True)
class Song:
    """A recording.

    Attributes:
        z: whitened latents [n_frames - 15, latent_dim], a snippet for every frame.
        labels: [n_frames] number of the label of each frame; UNLABELLED where there is none.
        is_fitted: whether it is of the training side.
    """

    z: Array
    labels: IntArray
    is_fitted: bool


def songs_of(loaded: list[Loaded], sounds: Sounds, seed: int) -> dict[str, list[Song]]:
    """Train a decoder; give the latents and labels of every bird."""
    params = MdganParams(latent_dim=LATENT_DIM, n_reports=1, monitor=False)
    model, _ = trained(params, material_of(loaded, seed), seed)
    encoder = model.kept("encoder")
    # Two half hops may be cut off, and every offset then still has two snippets.
    long = [one for one in loaded if one.spectrogram.shape[1] >= N_FRAMES + 4 * max(HOPS)]
    latents = [encode_spectrogram(encoder, one.spectrogram, N_FRAMES, hop=1) for one in long]
    fitted = np.concatenate(
        [z for one, z in zip(long, latents, strict=True) if one.recording.split == "training"]
    ).astype(np.float64)
    mean, std = fitted.mean(0), fitted.std(0)
    found: dict[str, list[Song]] = {}
    numbers: dict[str, int] = {}
    for one, z in zip(long, latents, strict=True):
        labels = np.full(one.spectrogram.shape[1], UNLABELLED)
        for onset_s, offset_s, label in sounds.get(one.recording.path, []):
            at = slice(round(onset_s / SPECTROGRAM.frame_s), round(offset_s / SPECTROGRAM.frame_s))
            labels[at] = numbers.setdefault(label, len(numbers))
        song = Song((z - mean) / std, labels, one.recording.split == "training")
        found.setdefault(one.recording.bird, []).append(song)
    return found


def frame_states(
    model: GaussianHMM, songs: list[Song], hop: int, later: int, n_offsets: int
) -> IntArray:
    """States of the frames of all songs from frame ``later`` of each on, end to end."""
    by_offset = []
    for offset in range(n_offsets):
        sequences = Songs([song.z[later + offset :: hop] for song in songs], model.covariance_type)
        posteriors = sequences.posteriors(sequences.centred(model))
        by_offset.append(np.split(posteriors, np.cumsum(sequences.lengths)[:-1]))
    return np.concatenate([
        frame_posteriors(own, hop, N_FRAMES, len(song.labels) - later).argmax(1)
        for song, *own in zip(songs, *by_offset, strict=True)
    ])  # fmt: skip


def row_of(songs: list[Song], hop: int, kind: CovarianceType, seed: int) -> list[str]:
    """One line of the table: the search at two seeds, and its states of frames."""
    fitted = [song.z[::hop] for song in songs if song.is_fitted]
    held_out = Songs([song.z[::hop] for song in songs if not song.is_fitted], kind)
    params = HmmParams(held_out_fraction=0.0, min_recordings=1)
    began = time.process_time()
    found, other = (
        select_n_states(fitted, kind, N_STATES, one, params=params, new_share=hop / N_FRAMES)
        for one in (seed, seed + 1)
    )
    seconds = (time.process_time() - began) / 2
    model = found.model
    if model is None or other.model is None:
        return [f"{hop}", kind, found.reason or other.reason]
    labels = np.concatenate([song.labels for song in songs])
    after = np.concatenate([np.arange(len(song.labels)) >= hop // 2 for song in songs])
    near, centred = (frame_states(model, songs, hop, 0, n) for n in (1, hop))
    shifted = [frame_states(model, songs, hop, hop // 2, n) for n in (1, hop)]
    figures = [
        held_out.log_likelihood(held_out.centred(model)) / held_out.n_snippets,
        *_against(v_measure_score, labels, near, centred),
        *_against(homogeneity_score, labels, centred),
        normalized_mutual_info_score(centred, frame_states(other.model, songs, hop, 0, hop)),
        normalized_mutual_info_score(near[after], shifted[0]),
        normalized_mutual_info_score(centred[after], shifted[1]),
    ]
    n = f"{sum(map(len, fitted)) * hop / N_FRAMES:,.0f}"
    counts = [f"{hop}", kind, f"{found.n_states}, {other.n_states}", n]
    return [*counts, *(f"{value:.3f}" for value in figures), f"{seconds:.0f}"]


def _against(
    score: Callable[[IntArray, IntArray], float], labels: IntArray, *states: IntArray
) -> list[float]:
    known = labels != UNLABELLED
    if not known.any():
        return [np.nan] * len(states)
    return [score(labels[known], one[known]) for one in states]


def read_sounds(rows: Iterable[dict[str, str]], ignored: list[str]) -> Sounds:
    """Sounds by recording, without labels that tell nothing."""
    found: Sounds = {}
    for row in rows:
        if row["label"] not in ignored:
            sound = float(row["onset_s"]), float(row["offset_s"]), row["label"]
            found.setdefault(row["recording"], []).append(sound)
    return found


def simulated(seed: int) -> tuple[list[Loaded], Sounds]:
    """Two adult birds of the aviary, and what they sang."""
    with tempfile.TemporaryDirectory() as folder:
        simulate_aviary(Path(folder), AviaryParams(n_birds=2, ages_dph=(90,), minutes=4.0), seed)
        rows = pq.ParquetFile(Path(folder) / SOUNDS_FILE).read().to_pylist()
        return load(Path(folder), None), read_sounds(rows, [])


def main() -> None:
    """Print a table for each bird."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--birds", nargs="+", help="of --data; all without")
    parser.add_argument("--labels", type=Path, help="CSV: recording, onset_s, offset_s, label")
    parser.add_argument("--ignore", nargs="*", default=[], help="labels that tell nothing")
    parser.add_argument("--hops", nargs="+", type=int, default=list(HOPS))
    parser.add_argument("--kinds", nargs="+", choices=get_args(CovarianceType), default=KINDS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = {k: v for k, v in os.environ.items() if k.startswith("OPENBLAS")}
    print(f"OpenBLAS settings: {settings or 'none'}")
    sounds: Sounds = {}
    if args.data is None:
        loaded, sounds = simulated(args.seed)
    else:
        loaded = [one for bird in args.birds or [None] for one in load(args.data, bird)]
        if args.labels:
            with args.labels.open(encoding="utf-8", newline="") as file:
                sounds = read_sounds(csv.DictReader(file), args.ignore)
    with threadpool_limits(1):
        for bird, songs in songs_of(loaded, sounds, args.seed).items():
            print(f"\n{bird}: {len(songs)} recordings\n")
            print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
            for hop in args.hops:
                for kind in args.kinds:
                    row = row_of(songs, hop, kind, args.seed)
                    print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
