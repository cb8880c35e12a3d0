"""The stage that draws a picture of each trial with a decoder, whatever the trial's status."""

import hashlib
import importlib
import importlib.util
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from data_io.files import atomic_dir, digest
from data_io.names.ages import age_order
from data_io.recordings.table import BirdAge, Recordings
from data_io.store import read_table
from models.mdgan.checkpoints import load_decoder
from models.mdgan.losses import sample_prior
from models.mdgan.networks import Encoder, Generator
from models.metrics.reference import Reference
from study.base.console import Console, Progress
from study.base.ledger import StageResult
from study.base.paths import RunPaths
from study.cluster.tasks import TaskRunner
from study.config.tree import StudyConfig
from study.context import Stage, Study
from study.report.decoder_figures import DecoderView, decoder_figure
from study.search.trial_folder import BrokenRecordError, TrialFolder
from study.training.data import HeldOutSnippets, load_held_out

Row = dict[str, Any]
N_SHOWN = 8
MAX_TITLE_CHARS = 160
BATCH = 256
PROGRESS_EVERY_S = 60.0  # drawing is quick: usually one line, more with very many trials


def draw_trials(
    config: StudyConfig,
    recordings: Recordings,
    paths: RunPaths,
    tasks: TaskRunner,
    console: Console,
) -> list[str]:
    """Write trials/<trial>.png for every trial that left a checkpoint.

    Returns:
        Ids of the trials that were drawn, by number.
    """
    rows = read_table(paths.trials).to_pylist()
    reports_of: dict[str, list[Row]] = {}
    for report in read_table(paths.trial_reports).to_pylist():
        reports_of.setdefault(report["trial_id"], []).append(report)
    checkpoints = {row["trial_id"]: kept_decoder(paths, row["trial_id"]) for row in rows}
    work = [row for row in rows if checkpoints[row["trial_id"]] is not None]
    if len(work) < len(rows):
        n = len(rows) - len(work)
        console.note(
            f"{n} of {len(rows)} trials left no decoder in {paths.search} and are not drawn"
        )
    held_out = load_held_out(config, recordings, paths)
    shown = choose_to_show(held_out, N_SHOWN)
    shared = ray.put(held_out)
    progress = Progress(console, len(work), "trials drawn", PROGRESS_EVERY_S)
    with atomic_dir(paths.trial_figures) as folder:
        tasks.run(
            lambda row: _draw_trial.remote(
                config,
                row,
                reports_of.get(row["trial_id"], []),
                checkpoints[row["trial_id"]],
                paths.reference,
                shared,
                shown,
                folder / paths.trial_figure(row["trial_id"]).name,
            ),
            work,
            lambda row, result: progress.advance(),
            lambda row: f"The picture of {row['trial_id']}",
        )
    return [row["trial_id"] for row in work]


def kept_decoder(paths: RunPaths, trial_id: str) -> Path | None:
    """Folder of a trial's last decoder; None if it left none."""
    folder = TrialFolder(paths.search / trial_id).decoder
    return folder if folder.is_dir() else None


def choose_to_show(held_out: HeldOutSnippets, n: int) -> NDArray[np.int64]:
    """Indices [n] of snippets to show, the same for all trials.

    They come evenly from all birds and ages, and from the loudest quarter of each: a random
    snippet is often the silence between two sounds.
    """
    members: dict[BirdAge, list[int]] = {}
    for i, bird_age in enumerate(held_out.birds_and_ages):
        members.setdefault(bird_age, []).append(i)
    bird_ages = sorted(members, key=lambda bird_age: (bird_age[0], age_order(bird_age[1])))
    wanted = [bird_ages[i * len(bird_ages) // n] for i in range(n)]
    loudness = held_out.snippets.mean(axis=(1, 2, 3))
    shown: list[int] = []
    for bird_age in dict.fromkeys(wanted):
        by_loudness = sorted(members[bird_age], key=lambda i: (loudness[i], i))
        shares = 0.75 + 0.25 * (np.arange(wanted.count(bird_age)) + 0.5) / wanted.count(bird_age)
        shown += [by_loudness[int(share * len(by_loudness))] for share in shares]
    return np.array(shown)


@ray.remote(num_cpus=1)
def _draw_trial(
    config: StudyConfig,
    row: Row,
    reports: list[Row],
    checkpoint: Path,
    reference_path: Path,
    held_out: HeldOutSnippets,
    shown: NDArray[np.int64],
    out: Path,
) -> None:
    try:
        encoder, generator, facts = load_decoder(checkpoint)
    except (FileNotFoundError, ValueError) as error:
        raise BrokenRecordError(
            f"{error} Without the folder {checkpoint} the trial has no picture, and the study "
            "goes on."
        ) from error
    reference = Reference.load(reference_path)
    view = view_decoder(encoder, generator, facts, reference, held_out, shown, config.seed)
    figure = decoder_figure(view, reports, config.spectrogram, _title(row, facts))
    # Without matplotlib's version in it, equal pictures are equal files.
    figure.savefig(out, metadata={"Software": None})


def _title(row: Row, facts: dict[str, Any]) -> str:
    shape = facts["shape"]
    ended = f"{row['trial_id']}, {row['status']}" + (f": {row['reason']}" if row["reason"] else "")
    return (
        textwrap.shorten(ended, MAX_TITLE_CHARS, placeholder=" ...") + "\n"
        f"{shape['latent_dim']} latents, width {shape['width']}, dense width "
        f"{shape['dense_width']}, norm {shape['normalisation']}; the decoder after "
        f"{facts['snippets_seen']:,} snippets"
    )


@torch.no_grad()
def view_decoder(
    encoder: Encoder,
    generator: Generator,
    facts: dict[str, Any],
    reference: Reference,
    held_out: HeldOutSnippets,
    shown: NDArray[np.int64],
    seed: int,
) -> DecoderView:
    """The content of a decoder's picture, beside PCA of the same dimension.

    PCA samples come from a Gaussian with the standard deviations of the training snippets' scores.
    They show what is possible without any network.

    Args:
        encoder: in evaluation mode.
        generator: in evaluation mode.
        facts: the content of model.json, see `models.mdgan.checkpoints.load_decoder`.
        reference: holds the PCA; its first latent_dim components are used, or all if it has fewer.
        held_out: all held-out snippets of the study.
        shown: indices of the snippets to show.
        seed: of the samples and of the map.
    """
    # A copy, because Ray's shared memory is read-only.
    snippets = torch.tensor(held_out.snippets)
    z = torch.cat([encoder(batch) for batch in snippets.split(BATCH)])
    n_shown, latent_dim = len(shown), z.shape[1]
    params = facts["params"]
    rng = torch.Generator().manual_seed(seed)
    prior = sample_prior(n_shown, latent_dim, params["prior"], params["prior_scale"], rng)
    scores = reference.pca_scores(snippets[shown], latent_dim)
    decoded = {
        "real": snippets[shown],
        "reconstructed": generator(z[shown]),
        f"PCA, {scores.shape[1]} dim.": reference.pca_decode(scores),
        # Batch norm keeps separate statistics for samples of the prior.
        "sampled": generator(prior, "prior"),
        "sampled, PCA": reference.pca_sample(n_shown, latent_dim, seed),
    }
    rows = {kind: some[:, 0].numpy() for kind, some in decoded.items()}
    latent_map, words = map_latents(z.numpy(), seed)
    shown_from = [held_out.birds_and_ages[i] for i in shown]
    return DecoderView(rows, shown_from, latent_map, words, held_out.birds_and_ages)


def map_latents(z: NDArray[np.float32], seed: int) -> tuple[NDArray[np.floating], str]:
    """Map latents [n, latent_dim] to a plane [n, 2]; also give the name of the plane.

    The map is UMAP (McInnes et al. 2018, arXiv 1802.03426) if umap-learn is installed, otherwise
    the first two principal components. One or two latents are shown unchanged.
    """
    n, latent_dim = z.shape
    if latent_dim == 1:
        heights = np.random.default_rng(seed).random(n)
        return np.column_stack([z[:, 0], heights]), "the latent, at random heights"
    if latent_dim == 2:
        return z, "the two latents"
    try:
        umap = importlib.import_module("umap")
    except ImportError:
        centred = z.astype(np.float64) - z.mean(0)
        u, s, _ = np.linalg.svd(centred, full_matrices=False)
        return u[:, :2] * s[:2], f"first two principal components of {latent_dim} latents"
    mapped: NDArray[np.floating] = umap.UMAP(random_state=seed, n_jobs=1).fit_transform(z)
    return mapped, f"UMAP of {latent_dim} latents"


def _needs(study: Study) -> dict[str, Any]:
    # All trials: later stages depend on the best one alone. And UMAP may be installed since.
    trials = read_table(study.paths.trials).to_pylist()
    has_umap = importlib.util.find_spec("umap") is not None
    return study.depends_on("recordings", "trials", all_trials=digest(trials), has_umap=has_umap)


def _run(study: Study) -> StageResult:
    drawn = draw_trials(study.config, study.recordings, study.paths, study.tasks, study.console)
    pictures = [study.paths.trial_figure(trial_id) for trial_id in drawn]
    made = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in pictures}
    facts = {"n_drawn": len(drawn)}
    return StageResult([study.paths.trial_figures], digest(made), facts)


TRIAL_FIGURES = Stage("trial figures", needs=_needs, run=_run)
