"""The training loop: batches, reports, and what ends it; it knows neither data nor launcher."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.mdgan import Losses, Mdgan, MdganParams

SampleBatch = Callable[[int, torch.Generator], Tensor]


class TrainingFailedError(RuntimeError):
    """Training cannot go on; the message says why."""


@dataclass(frozen=True)
class Progress:
    """What a training reports: index of the report from 1, snippets seen, metrics by name."""

    report: int
    snippets_seen: int
    metrics: dict[str, float]


def train(
    model: Mdgan,
    sample_batch: SampleBatch,
    evaluate: Callable[[Mdgan], dict[str, float]],
    on_progress: Callable[[Progress], None],
) -> None:
    """Train ``model`` to the end of its budget, from wherever it stands.

    Args:
        model: new, or with a state taken over.
        sample_batch: (n, rng) gives n real snippets [n, 1, n_freq, n_frames].
        evaluate: held-out metrics of the model as it is.
        on_progress: called after every evaluation; may raise to end the training.

    Raises:
        TrainingFailedError: a loss is not a finite number.
    """
    p = model.params
    sums: Losses = {}
    n_steps = 0
    report = min(model.snippets_seen // p.report_every, p.n_reports - 1)  # the last is at the end
    while model.snippets_seen < p.n_snippets:
        batch_losses = model.train_step(sample_batch(p.batch_size, model.rng))
        _check_finite(batch_losses, model.snippets_seen)
        n_steps += 1
        for name, value in batch_losses.items():
            sums[name] = sums.get(name, 0.0) + value
        if model.snippets_seen >= _report_at(p, report + 1):
            report += 1
            means = {name: value / n_steps for name, value in sums.items()}
            metrics = {**means, **evaluate(model)}
            on_progress(Progress(report, model.snippets_seen, metrics))
            sums, n_steps = {}, 0


def _report_at(params: MdganParams, report: int) -> int:
    return params.n_snippets if report == params.n_reports else report * params.report_every


def _check_finite(batch_losses: Losses, snippets_seen: int) -> None:
    for name, value in batch_losses.items():
        if not math.isfinite(value):
            raise TrainingFailedError(
                f"{name} is {value} after {snippets_seen} snippets: training has diverged. "
                "Lower lr or lambda_recon."
            )
