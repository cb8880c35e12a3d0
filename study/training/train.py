"""One training on a study's data, as trials and decoders do it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from models.mdgan.checkpoints import FORMAT_VERSION
from models.mdgan.frames import Balance, Frames
from models.mdgan.model import Mdgan
from models.mdgan.params import MdganParams
from models.mdgan.tensor_files import read_required_json
from models.mdgan.training import TrainingReport, train
from models.metrics.evaluation import evaluate
from study.base.errors import StudyError
from study.base.paths import RunPaths
from study.cluster.gpu_memory import frames_fit
from study.training.data import TrialData


def best_facts(paths: RunPaths) -> dict[str, Any]:
    """The facts of the best trial's decoder, which its model.json holds.

    Raises:
        StudyError: the file is missing, or not as it was written.
    """
    try:
        return read_required_json(paths.best / "model.json", FORMAT_VERSION)
    except (FileNotFoundError, ValueError) as error:
        raise StudyError(
            f"{error} Once the folder is gone, the same command makes it anew from {paths.search}."
        ) from error


def trial_params(base: MdganParams, sampled: dict[str, Any]) -> MdganParams:
    """The parameters of a trial: the study's parameters, with the sampled values put in."""
    return dataclasses.replace(base, **sampled)


def new_mdgan(params: MdganParams, data: TrialData, seed: int, device: str) -> Mdgan:
    """A new, untrained MDGAN; its dense path begins as the PCA of the reference."""
    return Mdgan(params, data.pool.n_frames, seed, device, data.reference.pca)


def train_on(
    model: Mdgan,
    data: TrialData,
    seed: int,
    gpus: float,
    on_progress: Callable[[TrainingReport], None],
) -> None:
    """Train to the end of the budget; evaluate on the held-out snippets of ``data``.

    Args:
        model: as it begins or goes on.
        data: to learn from, and to measure on.
        seed: of the samples that are measured.
        gpus: GPUs, or the share of one, that the training was given.
        on_progress: called at each report.
    """
    pool = data.pool
    where = model.device if frames_fit(pool.frames.nbytes, gpus) else torch.device("cpu")
    balance = Balance.of(model.params, pool.has_sound, pool.frames_of.values())
    frames = Frames(pool.frames, pool.starts, pool.n_frames, where, balance)
    train(
        model,
        frames,
        lambda trained: evaluate(trained, data.reference, data.songs, seed),
        on_progress,
    )


def too_like(metrics: dict[str, float]) -> str:
    """The reason why a decoder with these last metrics has collapsed."""
    return f"snippets vary {metrics['valid/spread']:.3f} times as much as real ones"
