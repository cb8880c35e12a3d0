"""The table that `benchmarks.hpo_replay` replays: small trainings all over a search space.

Points are the first of a scrambled Sobol sequence over SPACE, the same for each material; each is
trained with seeds 0 and 1, and reports 10 times. Nets and budgets are small, so that one
training with its reports takes a few seconds of a core. The table holds numbers alone.

The objective is the study's, the Frechet distance of sampled songs to held-out ones, but for the
sequence model: its components are clusters of training snippets by reference features, the same
for each trial, in place of mixtures that are fitted to each trial's latents. With as little song as
here the starts of the mixtures would decide, and 512 trainings with more song take hours. So the
table says how samplers and rungs differ where the objective is clean. With --as-study it has the
objective of a study, noise and all.
"""

import dataclasses
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from scipy.stats import qmc
from sklearn.cluster import KMeans

from benchmarks.material import N_FRAMES, Loaded, crops, load, pool
from data_io.aviary.params import AviaryParams
from data_io.aviary.write import simulate_aviary
from data_io.recordings.table import REPORT, SELECTION, SIDES, TRAINING
from data_io.snippets import FramePool
from models.mdgan.frames import Balance, Frames
from models.mdgan.model import Mdgan
from models.mdgan.params import MdganParams
from models.mdgan.training import Evaluation, TrainingFailedError, TrainingReport, train
from models.metrics.evaluation import COLLAPSED_OBJECTIVE
from models.metrics.held_out_songs import HeldOutSongs
from models.metrics.measure import (
    LEAST_SAMPLED,
    SAMPLED_LENGTH,
    check_finite,
    in_batches,
    measure,
    whitening,
)
from models.metrics.reference import FEATURE_PARTS, Reference, fit_reference
from models.metrics.sequence_model import FLOOR, PRIOR_MOVES, SequenceModel, steady_state
from models.metrics.songs import Songs, gather_songs
from study.config.space import SpaceEntry
from study.search.distributions import at_share

SPACE = {
    "latent_dim": SpaceEntry(choice=(8, 16, 32), role="scientific"),
    "lambda_recon": SpaceEntry(log_uniform=(100.0, 600.0), role="scientific"),
    "lambda_prior": SpaceEntry(log_uniform=(0.1, 10.0), role="scientific"),
    "lr": SpaceEntry(log_uniform=(3e-4, 5e-3)),
}
BASE = MdganParams(
    dense_width=64, n_components=48, disc_width=4, n_snippets=10_240, n_reports=10, batch_size=64,
    adversarial_from=1.0, monitor=False,
)  # fmt: skip
Array = NDArray[np.float32]
N_POINTS, SEEDS = 128, (0, 1)
N_HELD_OUT = 300  # snippets behind every metric
MOST_TRAINING = 300  # snippets of a bird and age behind its sequence model
N_REFERENCE = 4000
MOST_RECORDINGS = 24  # of a bird and age
REAL_BIRDS = ("G402", "R3625")  # with song enough on the held-out sides
SNIPPETS_PER_CLUSTER, MOST_CLUSTERS, SHRINKAGE = 40, 20, 20
SAMPLED = 3  # snippets of sampled song for each held-out one
KEPT = ("objective", "worst", "coverage", "recon_l1")


@dataclass(frozen=True)
class Ground:
    """What the trainings of one material learn from, and what measures them.

    Attributes:
        pool: frames for training.
        reference: of the figures.
        held_out: held-out songs, and training songs for the sequence model.
        clusters: of the training snippets of each bird and age [n].
    """

    pool: FramePool
    reference: Reference
    held_out: HeldOutSongs
    clusters: list[NDArray[np.int64]]


def points(n: int) -> list[dict[str, Any]]:
    """The first n points of the table."""
    shares = qmc.Sobol(len(SPACE), scramble=True, rng=0).random(n)
    return [
        {
            name: at_share(entry, share)
            for (name, entry), share in zip(SPACE.items(), row, strict=True)
        }
        for row in shares.tolist()
    ]


def aviary() -> Ground:
    """Two simulated birds, each at two ages."""
    params = AviaryParams(n_birds=2, ages_dph=(60, 90), minutes=0.8, recording_s=(4.0, 10.0))
    with tempfile.TemporaryDirectory() as folder:
        simulate_aviary(Path(folder) / "aviary", params, 0)
        return ground(load(Path(folder) / "aviary", None))


def real(data: Path) -> Ground:
    """Recordings of REAL_BIRDS, at most MOST_RECORDINGS of each bird and age."""
    return ground([one for bird in REAL_BIRDS for one in fewer(load(data, bird))])


def fewer(loaded: list[Loaded]) -> list[Loaded]:
    """Every n-th recording, so that MOST_RECORDINGS of each bird and age are left at most."""
    found: list[Loaded] = []
    for bird_age in dict.fromkeys((one.recording.bird, one.recording.age) for one in loaded):
        mine = [one for one in loaded if (one.recording.bird, one.recording.age) == bird_age]
        found += mine[:: -(-len(mine) // MOST_RECORDINGS)]
    return found


def ground(loaded: list[Loaded]) -> Ground:
    """Pool, held-out songs and reference of recordings."""
    sides = {side: pool(loaded, side) for side in SIDES}
    songs_of = {side: of_side.by_recording() for side, of_side in sides.items()}
    # Nothing is reported of these decoders, so the report side of the split measures as well.
    held_out = {
        key: [*songs_of[SELECTION][key], *songs_of[REPORT][key]] for key in songs_of[REPORT]
    }
    seen = {key: first(songs, MOST_TRAINING) for key, songs in songs_of[TRAINING].items()}
    songs = gather_songs(seen, held_out, N_FRAMES, N_HELD_OUT, seed=0)
    snippets = crops(sides[TRAINING], N_REFERENCE, torch.Generator().manual_seed(0))
    reference = fit_reference(snippets, songs, 0)
    clusters = [clusters_of(reference, one) for one in songs]
    measured = HeldOutSongs(reference, songs, torch.device("cpu"))
    return Ground(sides[TRAINING], reference, measured, clusters)


def clusters_of(reference: Reference, songs: Songs) -> NDArray[np.int64]:
    """One of k clusters for each training snippet, by its reference features."""
    features = reference.features(torch.from_numpy(songs.training))[:, FEATURE_PARTS[0]]
    k = max(1, min(len(features) // SNIPPETS_PER_CLUSTER, MOST_CLUSTERS))
    found: NDArray[np.int64] = KMeans(k, n_init=3, random_state=0).fit(features).labels_
    return found


def first(recordings: Sequence[Array], most: int) -> list[Array]:
    """Recordings up to ``most`` snippets in all."""
    ends = np.cumsum([len(one) // N_FRAMES for one in recordings])
    return list(recordings[: int(np.searchsorted(ends, most)) + 1])


@torch.no_grad()
def measured(model: Mdgan, on: Ground, seed: int) -> Evaluation:
    """Distance and coverage of sampled songs, and reconstruction."""
    held_out = on.held_out
    z = in_batches(model.encode, held_out.training).double().numpy()
    mean, scale = whitening(z)
    distances, coverages, end = [], [], 0
    for songs, song, clusters in zip(held_out.songs, held_out.of_song, on.clusters, strict=True):
        at = slice(end, end := end + len(songs.training))
        if song is None:
            continue
        chain = sequence_model((z[at] - mean) / scale, songs.training_lengths, clusters)
        n_songs = max(LEAST_SAMPLED, SAMPLED * song.n_snippets) // SAMPLED_LENGTH
        drawn = chain.sample(n_songs, SAMPLED_LENGTH, np.random.default_rng(seed)) * scale + mean
        snippets = in_batches(model.decode, torch.from_numpy(drawn).float())
        check_finite(snippets)
        features, lengths = on.reference.features(snippets), [SAMPLED_LENGTH] * n_songs
        distances.append(song.frechet(features, lengths))
        coverages.append(song.coverage(features, lengths))
    x = held_out.snippets.snippets
    l1 = float((in_batches(model.decode, in_batches(model.encode, x)) - x).abs().mean())
    return Evaluation(
        {
            "objective": float(np.mean(distances)), "worst": max(distances),
            "coverage": float(np.mean(coverages)), "recon_l1": l1,
        }
    )  # fmt: skip


def sequence_model(
    z: NDArray[np.float64], lengths: Sequence[int], clusters: NDArray[np.int64]
) -> SequenceModel:
    """A chain of Gaussians, one for each cluster, counted from whitened latents [n, d]."""
    k, dim = int(clusters.max()) + 1, z.shape[1]
    n = np.bincount(clusters, minlength=k)
    means = np.array([z[clusters == i].mean(0) for i in range(k)])
    floor = FLOOR * np.eye(dim)
    pooled = np.cov((z - means[clusters]).T) + floor
    shares = (n / (n + SHRINKAGE))[:, None, None]
    own = np.array([np.cov(z[clusters == i].T) if n[i] > 1 else pooled for i in range(k)])
    covariances = shares * own + (1 - shares) * pooled + floor
    follows = np.ones(len(z) - 1, np.bool_)
    follows[np.cumsum(lengths)[:-1] - 1] = False
    counts = np.zeros((k, k))
    np.add.at(counts, (clusters[:-1][follows], clusters[1:][follows]), 1)
    moves = counts + PRIOR_MOVES * n / len(z)
    moves /= moves.sum(1, keepdims=True)
    return SequenceModel(steady_state(moves), moves, means, np.linalg.cholesky(covariances))


@torch.no_grad()
def measured_as_study(model: Mdgan, on: Ground, seed: int) -> Evaluation:
    """The same by the objective of a study."""
    found = measure(model.encode, model.decode, on.held_out, seed).metrics
    names = ("frechet_song", "frechet_song_worst", "coverage_song", "recon_l1")
    return Evaluation({kept: found[name] for kept, name in zip(KEPT, names, strict=True)})


def curve(
    on: Ground, point: dict[str, Any], seed: int, as_study: bool = False
) -> list[dict[str, float]]:
    """The reports of one training; a failed one ends with the value of collapsed trials."""
    params = dataclasses.replace(BASE, **point)
    model = Mdgan(params, N_FRAMES, seed, pca=on.reference.pca)
    balance = Balance.of(params, on.pool.has_sound, on.pool.frames_of.values())
    frames = Frames(on.pool.frames, on.pool.starts, N_FRAMES, model.device, balance)
    reports: list[TrainingReport] = []
    by = measured_as_study if as_study else measured
    try:
        train(model, frames, lambda trained: by(trained, on, seed), reports.append)
    except TrainingFailedError as error:
        print(f"{point} with seed {seed}: {error}", file=sys.stderr)
    found = [{name: one.metrics[name] for name in KEPT} for one in reports]
    worst = dict.fromkeys(KEPT, float("nan")) | {"objective": COLLAPSED_OBJECTIVE}
    return found + [worst] * (BASE.n_reports - len(found))


def make(out: Path, data: Path, n_jobs: int, n_points: int, as_study: bool) -> None:
    """Train what is missing of the table, and write it; a killed run goes on from its journal.

    Args:
        out: Parquet file to write; its journal has the same name and .jsonl.
        data: folder of recordings that holds REAL_BIRDS.
        n_jobs: processes at once, of one thread each.
        n_points: of the Sobol sequence; a larger number later adds the difference.
        as_study: measure by the objective of a study.
    """
    journal = out.with_suffix(".jsonl")
    lines = journal.read_text("utf-8").splitlines() if journal.exists() else []
    done = [json.loads(line) for line in lines]
    known = {(one["material"], one["point"], one["seed"]) for one in done}
    chosen = points(n_points)
    wanted = [
        (name, i, chosen[i], seed, as_study)
        for i in range(n_points) for seed in SEEDS for name in ("aviary", "real")
        if (name, i, seed) not in known
    ]  # fmt: skip
    if wanted:
        grounds = {"aviary": aviary(), "real": real(data)}
        with (
            multiprocessing.get_context("fork").Pool(n_jobs, _begin, (grounds,)) as workers,
            journal.open("a", encoding="utf-8") as file,
        ):
            for one in workers.imap(_row, wanted):
                done.append(one)
                file.write(json.dumps(one) + "\n")
                file.flush()
                print(f"{len(done)} of {len(wanted) + len(known)}", file=sys.stderr)
    write(out, done)


_GROUNDS: dict[str, Ground] = {}


def _begin(grounds: dict[str, Ground]) -> None:
    torch.set_num_threads(1)
    _GROUNDS.update(grounds)


def _row(wanted: tuple[str, int, dict[str, Any], int, bool]) -> dict[str, Any]:
    name, i, point, seed, as_study = wanted
    reports = curve(_GROUNDS[name], point, seed, as_study)
    return {"material": name, "point": i, "seed": seed, "params": point, "reports": reports}


def write(out: Path, done: list[dict[str, Any]]) -> None:
    """Write one row per report."""
    rows = [
        {
            "material": one["material"], "point": one["point"], "seed": one["seed"],
            **one["params"], "report": number,
            "snippets_seen": BASE.n_snippets * number // BASE.n_reports, **report,
        }
        for one in sorted(done, key=lambda one: (one["material"], one["point"], one["seed"]))
        for number, report in enumerate(one["reports"], 1)
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows)
    singles = [
        (field.name, pa.float32()) if field.name in KEPT else (field.name, field.type)
        for field in table.schema
    ]
    pq.write_table(table.cast(pa.schema(singles)), out, compression="zstd")
    print(f"{out}: {len(rows):,} rows, {out.stat().st_size / 1e6:.2f} MB")


def read(path: Path) -> dict[str, dict[str, Any]]:
    """By material: points (list of parameters), and ``curves`` [seeds, points, reports]."""
    rows = pq.read_table(path).to_pylist()
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(row["material"] for row in rows):
        mine = [row for row in rows if row["material"] == name]
        n = 1 + max(row["point"] for row in mine)
        curves = np.full((len(SEEDS), n, BASE.n_reports), np.nan)
        chosen: list[dict[str, Any]] = [{} for _ in range(n)]
        for row in mine:
            curves[row["seed"], row["point"], row["report"] - 1] = row["objective"]
            chosen[row["point"]] = {param: row[param] for param in SPACE}
        found[name] = {"points": chosen, "curves": curves}
    return found
