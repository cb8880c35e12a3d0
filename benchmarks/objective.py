"""Does the objective rank decoders as the finished study would hear them?

python -m benchmarks.objective --data DIR [--bird NAME] [--labels CSV]      real recordings
python -m benchmarks.objective                                              two simulated birds

Thirteen decoders: latent sizes 8, 16 and 32; with and without pull to the prior, adversary and the
rule of silence; hardly trained, a PCA, and constant output. For each the yardstick is the finished
stage: a hidden Markov model of each bird and age with full covariances and as many states as BIC
wants, fitted to the latents of all training song; songs as long as the held-out recordings, eight
of each length, sampled from its steady state and decoded; their Frechet distance to held-out song
in window features of a study, mean over birds and ages, for two seeds of the sampling. With labels
(a CSV with recording, onset_s, offset_s and label) also the V-measure of its states against the
label at the centre of each snippet, silence a label of its own.

Then Spearman's rank correlation with both, of the objective, of that of version 0.5.0 (L1 over that
of a PCA of the same size, and twice the Frechet distance of samples of the prior), and of others.
"""

import argparse
import csv
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import v_measure_score
from torch import Tensor

from benchmarks.material import N_FRAMES, SPECTROGRAM, Loaded, Material, load, material_of, trained
from data_io.aviary.params import AviaryParams
from data_io.aviary.write import simulate_aviary
from data_io.recordings.table import SELECTION, TRAINING
from models.hmm import GaussianHMM, HmmParams, sample_latents, select_n_states
from models.hmm.predictive import stationary_probs
from models.mdgan.encoding import cut_snippets
from models.mdgan.model import Mdgan
from models.mdgan.params import MdganParams
from models.metrics.held_out_songs import HeldOutSong
from models.metrics.measure import in_batches, whitening

Array = NDArray[np.float64]
BirdAge = tuple[str, str]

TWO_BIRDS = AviaryParams(n_birds=2, ages_dph=(60, 90), minutes=2.5, recording_s=(2.0, 6.0))
HMM = HmmParams(min_snippets=1, min_recordings=1, n_restarts=1, held_out_fraction=0.0)
STATES = (5, 45)
N_SAMPLINGS = 2
SONGS_PER_HELD_OUT = 8  # sampled of each length: fewer make the yardstick a noisy one
SILENCE = ""  # the label between syllables
CONSTANT = "constant output"


def decoders(n_snippets: int) -> list[tuple[str, MdganParams]]:
    """Kind and parameters of each."""
    alone = MdganParams(
        lambda_prior=10.0, adversarial_from=1.0, n_snippets=n_snippets, n_reports=1, monitor=False,
        collapse_after=0,
    )  # fmt: skip
    uniform = {"minibatch": "uniform", "lambda_silence": 0.0}
    sizes = (8, 16, 32)
    short = replace(alone, n_snippets=max(n_snippets // 20, alone.batch_size))
    still = replace(alone, n_snippets=alone.batch_size, lr=1e-9)
    constant = replace(alone, width=4, dense_width=0, initialisation="normal", lr=1e-7)
    return [
        *(("pull", replace(alone, latent_dim=size)) for size in sizes),
        *(("no pull", replace(alone, latent_dim=size, lambda_prior=0.0)) for size in sizes),
        *(("no silence rule", replace(alone, latent_dim=size, **uniform)) for size in (16, 32)),
        ("adversary", replace(alone, adversarial_from=0.5)),
        ("hardly trained", replace(short, latent_dim=8)),
        ("hardly trained", replace(short, latent_dim=32)),
        ("as it begins", replace(still, latent_dim=16)),
        (CONSTANT, replace(constant, n_snippets=alone.batch_size)),
    ]


@dataclass(frozen=True)
class Truth:
    """What finished songs are measured by.

    Attributes:
        snippets: [n, 1, n_freq, n_frames] of every recording, in the order of ``loaded``.
        loaded: the recordings.
        songs: all held-out song of each bird and age.
        lengths: snippets of each of its held-out recordings.
        labels: of each snippet of each recording; none where nobody named its sounds.
    """

    snippets: list[Tensor]
    loaded: list[Loaded]
    songs: dict[BirdAge, HeldOutSong]
    lengths: dict[BirdAge, list[int]]
    labels: list[list[str]]


def truth_of(on: Material, labels: Path | None, unnamed: str | None) -> Truth:
    """All of the held-out song, and the labels."""
    snippets = [
        torch.from_numpy(cut_snippets(one.spectrogram, N_FRAMES))[:, None] for one in on.loaded
    ]
    held: dict[BirdAge, list[Tensor]] = {}
    for one, x in zip(on.loaded, snippets, strict=True):
        if one.recording.split == SELECTION:
            held.setdefault((one.recording.bird, one.recording.age), []).append(x)
    lengths = {key: [len(x) for x in parts] for key, parts in held.items()}
    songs = {
        key: HeldOutSong(on.reference, on.reference.features(torch.cat(parts)), lengths[key])
        for key, parts in held.items()
    }
    named = [[] for _ in on.loaded]
    if labels:
        named = labels_at_centres(labels, on.loaded, unnamed)
    return Truth(snippets, on.loaded, songs, lengths, named)


def labels_at_centres(path: Path, loaded: list[Loaded], unnamed: str | None) -> list[list[str]]:
    """The label at the centre of each snippet of each recording; none where one is ``unnamed``."""
    rows: dict[str, list[tuple[float, float, str]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            span = float(row["onset_s"]), float(row["offset_s"]), row["label"]
            rows.setdefault(row["recording"], []).append(span)
    found = []
    for one in loaded:
        n = -(-one.spectrogram.shape[1] // N_FRAMES)
        centres = (np.arange(n) + 0.5) * N_FRAMES * SPECTROGRAM.frame_s
        spans = rows.get(one.recording.path, [])
        labels = [
            next((label for on, off, label in spans if on <= t < off), SILENCE) for t in centres
        ]
        is_named = spans and unnamed not in {label for _, _, label in spans}
        found.append(labels if is_named else [])
    return found


@dataclass(frozen=True)
class Finished:
    """What the finished stage makes of a decoder.

    Attributes:
        frechet: of songs sampled from the HMMs, by seed; NaN where there is no HMM.
        n_states: mean over birds and ages.
        v_measure: of the states against labels; NaN without.
    """

    frechet: list[float]
    n_states: float
    v_measure: float


def finish(model: Mdgan, on: Material, truth: Truth) -> Finished:
    """Fit the HMMs of a decoder, sample songs, and measure them."""
    keys = [(one.recording.bird, one.recording.age) for one in truth.loaded]
    learnt = [one.recording.split == TRAINING for one in truth.loaded]
    with torch.no_grad():
        z = [in_batches(model.encode, x).double().numpy() for x in truth.snippets]
    mean, std = whitening(np.concatenate([z[i] for i in np.flatnonzero(learnt)]))
    z = [(a - mean) / std for a in z]
    frechet: dict[BirdAge, list[float]] = {}
    n_states, v_measures = [], []
    for key, song in truth.songs.items():
        mine = [i for i, other in enumerate(keys) if other == key]
        found = select_n_states([z[i] for i in mine if learnt[i]], "full", STATES, 0, params=HMM)
        if found.model is None:
            return Finished([math.nan] * N_SAMPLINGS, math.nan, math.nan)
        n_states.append(found.model.n_components)
        lengths = SONGS_PER_HELD_OUT * truth.lengths[key]
        decode = sampled(model, found.model, mean, std, lengths)
        frechet[key] = [
            song.frechet(on.reference.features(decode(seed)), lengths)
            for seed in range(N_SAMPLINGS)
        ]
        named = [i for i in mine if truth.labels[i]]
        if named:
            states = np.concatenate([found.model.predict(z[i]) for i in named])
            labels = [label for i in named for label in truth.labels[i]]
            v_measures.append(float(v_measure_score(labels, states)))
    by_seed = np.mean(list(frechet.values()), axis=0).tolist()
    return Finished(by_seed, float(np.mean(n_states)), float(np.mean(v_measures or [math.nan])))


def sampled(
    model: Mdgan, hmm: GaussianHMM, mean: Array, std: Array, lengths: list[int]
) -> Callable[[int], Tensor]:
    """Gives decoded snippets of songs of ``lengths`` snippets by seed, from the steady state."""
    hmm.startprob_ = stationary_probs(hmm.transmat_)

    @torch.no_grad()
    def decode(seed: int) -> Tensor:
        songs = [sample_latents(hmm, n, 10_000 * seed + i)[0] for i, n in enumerate(lengths)]
        z = torch.from_numpy(np.concatenate(songs) * std + mean).float()
        return in_batches(model.decode, z)

    return decode


def objective_before(model: Mdgan, on: Material, metrics: dict[str, float]) -> float:
    """The objective of version 0.5.0."""
    held_out = torch.from_numpy(np.concatenate([songs.held_out for songs in on.songs]))
    scores = on.reference.pca_scores(held_out, model.params.latent_dim)
    pca = float((on.reference.pca_decode(scores) - held_out).abs().mean())
    return metrics["valid/recon_l1"] / pca + 2 * metrics["valid/frechet_sample"]


RANKINGS = {
    "objective": "valid/objective",
    "objective of 0.5.0": "before",
    "Frechet, prior": "valid/frechet_sample",
    "L1": "valid/recon_l1",
    "Frechet, song": "valid/frechet_song",
}


def main(on: Material, truth: Truth, n_snippets: int, seed: int) -> None:
    """Train and finish all, print them and the correlations."""
    rows: list[tuple[str, int, dict[str, float], Finished]] = []
    print(f"{n_snippets:,} snippets each, seed {seed}\n")
    print(f"{'':16} size {'objective':>10} {'0.5.0':>7} {'prior':>7} {'L1':>7} {'cover':>6}"
          f" | {'finished, seeds':>16} {'states':>6} {'V':>6}")  # fmt: skip
    for kind, params in decoders(n_snippets):
        model, metrics = trained(params, on, seed)
        metrics["before"] = objective_before(model, on, metrics)
        done = finish(model, on, truth)
        rows.append((kind, params.latent_dim, metrics, done))
        m = metrics
        print(
            f"{kind:16} {params.latent_dim:4} {m['valid/objective']:10.4f} {m['before']:7.3f} "
            f"{m['valid/frechet_sample']:7.3f} {m['valid/recon_l1']:7.4f} "
            f"{m['valid/coverage_song']:6.3f} | {done.frechet[0]:8.4f} {done.frechet[1]:7.4f} "
            f"{done.n_states:6.1f} {done.v_measure:6.3f}",
            flush=True,
        )
    print_correlations(rows)


def print_correlations(rows: list[tuple[str, int, dict[str, float], Finished]]) -> None:
    """Spearman's correlations with the finished stage, with and without the constant output."""
    print(f"\n{'Spearman with':20} {'finished':>9} {'sound only':>10} {'V (sound)':>10}")
    sound = [row for row in rows if row[0] != CONSTANT]
    for name, key in RANKINGS.items():
        cells = []
        for some, of_v in ((rows, False), (sound, False), (sound, True)):
            target = [-r[3].v_measure if of_v else float(np.mean(r[3].frechet)) for r in some]
            worst = np.nan_to_num(target, nan=1e9)  # no HMM is worse than any
            cells.append(stats.spearmanr([r[2][key] for r in some], worst).statistic)
        print(f"{name:20} {cells[0]:9.2f} {cells[1]:10.2f} {cells[2]:10.2f}")
    a, b = ([r[3].frechet[i] for r in sound] for i in (0, 1))
    print(f"the finished stage with itself, two seeds: {stats.spearmanr(a, b).statistic:.2f}")


def songs_of(data: Path | None, bird: str | None, seed: int) -> Material:
    """Real recordings, or two simulated birds at two ages."""
    with tempfile.TemporaryDirectory() as folder:
        if data is None:
            simulate_aviary(Path(folder) / "aviary", TWO_BIRDS, seed)
        return material_of(load(data or Path(folder) / "aviary", bird), seed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of recordings; without: simulated birds")
    parser.add_argument("--bird", help="only this one")
    parser.add_argument("--labels", type=Path, help="CSV of labels")
    parser.add_argument("--unnamed", help="label of sounds that nobody named: left out with theirs")
    parser.add_argument("--snippets", type=int, default=40_000, help="seen in each training")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    material = songs_of(args.data, args.bird, args.seed)
    main(material, truth_of(material, args.labels, args.unnamed), args.snippets, args.seed)
