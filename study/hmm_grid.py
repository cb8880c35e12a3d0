"""Stage 4: HMMs per bird, age, number of states and restart; the number of states by BIC.

Ray tasks take batches of fits of one bird and age. A batch is sized by its predicted cost, the
longest go first, and every task holds one core and one thread.
"""

import dataclasses
import json
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from data_io.atomic import atomic_dir
from data_io.recordings import Recording, parse_age
from data_io.song_models import SongModel, save_song_model
from data_io.store import read_latents, write_rows
from models.hmm import HmmFit, HmmParams, Selection, covariances, fit_hmm, select_by_bic, too_few
from study.cluster import n_cores, run_tasks
from study.config import StudyConfig
from study.console import Console, Progress
from study.ingest import BirdAge, birds_and_ages
from study.paths import RunPaths

BATCHES_PER_CORE = 8  # enough for cores to end together, few enough not to busy the driver

_GRID = pa.schema(
    [
        ("bird", pa.string()),
        ("age", pa.string()),
        ("n_states", pa.int32()),
        ("restart", pa.int32()),
        ("covariance_type", pa.string()),
        ("log_likelihood", pa.float64()),
        ("n_free_params", pa.int64()),
        ("n_observations", pa.int64()),
        ("bic", pa.float64()),
        ("aic", pa.float64()),
        ("n_iter", pa.int32()),
        ("converged", pa.bool_()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("seconds", pa.float64()),
    ]
)
_SELECTED = pa.schema(
    [
        ("bird", pa.string()),
        ("age", pa.string()),
        ("dph", pa.int32()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("n_states", pa.int32()),
        ("restart", pa.int32()),
        ("bic", pa.float64()),
        ("aic", pa.float64()),
        ("log_likelihood", pa.float64()),
        ("n_free_params", pa.int64()),
        ("n_observations", pa.int64()),
        ("n_recordings", pa.int32()),
        ("runner_up_n_states", pa.int32()),
        ("runner_up_bic_distance", pa.float64()),
        ("edge", pa.bool_()),
        ("edge_side", pa.string()),
        ("covariance_type", pa.string()),
        ("converged", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class Batch:
    """Fits of one bird and age that one task does.

    Attributes:
        piece: bird and age.
        fits: (n_states, restart) of each.
        cost: predicted, in units that only compare.
    """

    piece: BirdAge
    fits: tuple[tuple[int, int], ...]
    cost: float


def fit_cost(n_snippets: int, n_states: int, latent_dim: int) -> float:
    """Predicted cost of a fit: forward-backward K^2 and emissions K d, per snippet."""
    return float(n_snippets * n_states * (n_states + 4 * latent_dim + 50))


def plan_batches(
    sizes: dict[BirdAge, int], latent_dim: int, params: HmmParams, n_cores: int
) -> list[Batch]:
    """Split the grid into batches of about equal cost, longest first.

    Args:
        sizes: snippets of every bird and age that is fitted.
        latent_dim: numbers in a latent.
        params: the grid.
        n_cores: of the cluster.
    """
    costs = {
        (piece, k): fit_cost(n, k, latent_dim)
        for piece, n in sizes.items()
        for k in params.n_states
    }
    target = params.n_restarts * sum(costs.values()) / max(1, n_cores * BATCHES_PER_CORE)
    batches = []
    for piece in sizes:
        fits: list[tuple[int, int]] = []
        cost = 0.0
        grid = [(k, r) for k in reversed(params.n_states) for r in range(params.n_restarts)]
        for k, restart in grid:
            if fits and cost + costs[piece, k] > target:
                batches.append(Batch(piece, tuple(fits), cost))
                fits, cost = [], 0.0
            fits.append((k, restart))
            cost += costs[piece, k]
        batches.append(Batch(piece, tuple(fits), cost))
    return sorted(batches, key=lambda batch: (-batch.cost, batch.piece, batch.fits))


def fit_seed(seed: int, piece: BirdAge, n_states: int, restart: int) -> int:
    """Seed of one fit, whatever task does it and in whatever order."""
    name = zlib.crc32("\0".join(piece).encode())
    return int(np.random.SeedSequence([seed, name, n_states, restart]).generate_state(1)[0])


@ray.remote(num_cpus=1, max_retries=3)
def _fit_batch(
    sequences: list[NDArray[np.float64]], batch: Batch, seed: int, params: HmmParams
) -> list[HmmFit]:
    """All fits of a batch; only the one with the lowest BIC keeps its model."""
    with threadpool_limits(1):
        fits = [
            fit_hmm(sequences, k, restart, fit_seed(seed, batch.piece, k, restart), params)
            for k, restart in batch.fits
        ]
    return _without_beaten_models(fits)


def read_whitening(paths: RunPaths) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation [latent_dim] that latents are whitened by."""
    facts = json.loads(paths.whitening.read_text("utf-8"))
    return np.array(facts["mean"]), np.array(facts["std"])


def whitened(paths: RunPaths, piece: BirdAge) -> list[NDArray[np.float64]]:
    """Whitened latents [n_snippets, latent_dim] of every recording of a bird and age, float64."""
    mean, std = read_whitening(paths)
    latents = read_latents(paths.latents, *piece)
    return [(z.astype(np.float64) - mean) / std for z in latents.values()]


def run_grid(
    config: StudyConfig, recordings: list[Recording], paths: RunPaths, console: Console
) -> list[dict[str, Any]]:
    """Fit the grid; write hmm_grid.parquet, hmm_selected.parquet and hmm/.

    Returns:
        One row per bird and age, as in hmm_selected.parquet.
    """
    params = config.hmm
    pieces = birds_and_ages(recordings)
    lengths, names = _lengths(paths, pieces)
    reasons = {piece: too_few(lengths[piece], params) for piece in pieces}
    sizes = {piece: sum(lengths[piece]) for piece in pieces if not reasons[piece]}
    latent_dim = len(read_whitening(paths)[0])
    fits = _fit_all(plan_batches(sizes, latent_dim, params, n_cores()), config, paths, console)
    rows: list[dict[str, Any]] = []
    selected: list[dict[str, Any]] = []
    with atomic_dir(paths.hmm) as folder:
        for piece in pieces:
            done = sorted(fits.get(piece, []), key=lambda fit: (fit.n_states, fit.restart))
            rows += [_grid_row(piece, fit) for fit in done]
            selection = select_by_bic(done)
            selected.append(
                _selected_row(
                    piece, reasons[piece], len(lengths[piece]), sum(lengths[piece]), selection
                )
            )
            if selection is not None:
                _save(folder, paths, piece, names[piece], selection, config)
    write_rows(paths.hmm_grid, rows, _GRID)
    write_rows(paths.hmm_selected, selected, _SELECTED)
    return selected


def _lengths(
    paths: RunPaths, pieces: list[BirdAge]
) -> tuple[dict[BirdAge, list[int]], dict[BirdAge, list[str]]]:
    lengths, names = {}, {}
    for piece in pieces:
        latents = read_latents(paths.latents, *piece)
        lengths[piece] = [len(z) for z in latents.values()]
        names[piece] = list(latents)
    return lengths, names


def _fit_all(
    batches: list[Batch], config: StudyConfig, paths: RunPaths, console: Console
) -> dict[BirdAge, list[HmmFit]]:
    """Run all batches; latents of a bird and age are put into the object store once."""
    n_fits = sum(len(batch.fits) for batch in batches)
    total_cost = sum(batch.cost for batch in batches) or 1.0
    progress = Progress(console, n_fits, "fits")
    left = {piece: 0 for piece in dict.fromkeys(batch.piece for batch in batches)}
    for batch in batches:
        left[batch.piece] += 1
    stored: dict[BirdAge, ray.ObjectRef] = {}
    fits: dict[BirdAge, list[HmmFit]] = {piece: [] for piece in left}

    def submit(batch: Batch) -> ray.ObjectRef:
        if batch.piece not in stored:
            stored[batch.piece] = ray.put(whitened(paths, batch.piece))
        return _fit_batch.remote(stored[batch.piece], batch, config.seed, config.hmm)

    def keep(batch: Batch, result: list[HmmFit]) -> None:
        fits[batch.piece] = _without_beaten_models(fits[batch.piece] + result)
        left[batch.piece] -= 1
        if not left[batch.piece]:
            del stored[batch.piece]  # nobody needs these latents any more
        progress.advance(len(batch.fits), batch.cost / total_cost)

    run_tasks(submit, batches, keep, lambda b: f"HMM of {b.piece[0]} at {b.piece[1]}, {b.fits}")
    return fits


def _without_beaten_models(fits: list[HmmFit]) -> list[HmmFit]:
    """Fits of one bird and age, of which only that with the lowest BIC so far keeps its model."""
    selection = select_by_bic(fits)
    best = selection.best if selection else None
    return [fit if fit is best else dataclasses.replace(fit, model=None) for fit in fits]


def _grid_row(piece: BirdAge, fit: HmmFit) -> dict[str, Any]:
    row = {f.name: getattr(fit, f.name) for f in dataclasses.fields(fit) if f.name != "model"}
    for name in ("log_likelihood", "bic", "aic"):
        row[name] = None if np.isnan(row[name]) else row[name]
    return {"bird": piece[0], "age": piece[1], **row}


def _selected_row(
    piece: BirdAge, reason: str, n_recordings: int, n_snippets: int, selection: Selection | None
) -> dict[str, Any]:
    row = {
        "bird": piece[0],
        "age": piece[1],
        "dph": parse_age(piece[1])[0],
        "n_recordings": n_recordings,
        "n_observations": n_snippets,
        "edge": False,
        "edge_side": "",
    }
    if selection is None:
        status = "too_few_snippets" if reason else "failed"
        return {**row, "status": status, "reason": reason or "every fit failed, see hmm_grid"}
    best = selection.best
    copied = ("n_states", "restart", "bic", "aic", "log_likelihood", "n_free_params",
              "covariance_type", "converged")  # fmt: skip
    remark = ""
    if selection.edge:
        remark = f"BIC is lowest at the {selection.edge} number of states tried: widen hmm.n_states"
    return {
        **row,
        "status": "ok",
        "reason": remark,
        **{name: getattr(best, name) for name in copied},
        "runner_up_n_states": selection.runner_up,
        "runner_up_bic_distance": selection.runner_up_distance,
        "edge": bool(selection.edge),
        "edge_side": selection.edge,
    }


def _save(
    folder: Any,
    paths: RunPaths,
    piece: BirdAge,
    names: list[str],
    selection: Selection,
    config: StudyConfig,
) -> None:
    best = selection.best
    assert best.model is not None  # the best fit keeps its model
    mean, std = read_whitening(paths)
    model = SongModel(
        best.model.startprob_,
        best.model.transmat_,
        best.model.means_,
        covariances(best.model),
        best.covariance_type,
        mean,
        std,
    )
    row = _grid_row(piece, best)
    row.pop("covariance_type")
    save_song_model(folder, *piece, model, {"fit": row, "recordings": names, "seed": config.seed})
