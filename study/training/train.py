"""One training on a study's data, as trials and decoders do it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from models.mdgan.model import Mdgan
from models.mdgan.params import MdganParams
from models.mdgan.training import TrainingReport, train
from models.metrics.evaluation import evaluate
from study.training.data import TrialData, sample_batch


def trial_params(base: MdganParams, sampled: dict[str, Any]) -> MdganParams:
    """The parameters of a trial: the study's parameters, with the sampled values put in."""
    return dataclasses.replace(base, **sampled)


def new_mdgan(params: MdganParams, data: TrialData, seed: int, device: str) -> Mdgan:
    """A new, untrained MDGAN; its dense path begins as the PCA of the reference."""
    return Mdgan(params, data.pool.n_frames, seed, device, data.reference.pca)


def train_on(
    model: Mdgan, data: TrialData, seed: int, on_progress: Callable[[TrainingReport], None]
) -> None:
    """Train to the end of the budget; evaluate on the held-out snippets of ``data``."""
    valid = torch.tensor(data.valid)  # a copy, because Ray's memory is read-only
    train(
        model,
        lambda n, rng: sample_batch(data.pool, n, rng),
        lambda trained: evaluate(trained, data.reference, valid, seed),
        on_progress,
    )


def too_like(metrics: dict[str, float]) -> str:
    """The reason why a decoder with these last metrics has collapsed."""
    return f"snippets vary {metrics['valid/spread']:.3f} times as much as real ones"
