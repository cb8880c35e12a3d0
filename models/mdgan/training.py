"""The training loop: batches, reports and its end; it knows neither data nor launcher."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from models.mdgan.collapse import COLLAPSED_BELOW, is_collapsed
from models.mdgan.model import Losses, Mdgan
from models.mdgan.params import MdganParams

CHECK_EVERY = 50  # steps; a check waits for the device, so not after each


class Minibatches(Protocol):
    """Where a training takes its real snippets from; `models.mdgan.frames.Frames` is one."""

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """Give n real snippets [n, 1, n_freq, n_frames], the sounding ones first."""
        ...

    def n_sounding(self, n: int) -> int:
        """Give the number of sounding snippets among n."""
        ...


class TrainingFailedError(RuntimeError):
    """Training cannot go on; the message says why.

    Attributes:
        status: of the trial or decoder in training.
    """

    status = "failed"


class CollapsedError(TrainingFailedError):
    """The decoder gives the same snippet whatever the latent."""

    status = "collapsed"


@dataclass(frozen=True)
class Evaluation:
    """Held-out figures of a model.

    Attributes:
        metrics: by name.
        by_bird_age: a row for each bird and age.
    """

    metrics: dict[str, float]
    by_bird_age: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class TrainingReport:
    """One report of a training.

    Attributes:
        report: index, from 1.
        snippets_seen: up to this report.
        metrics: by name.
        by_bird_age: a row of metrics for each bird and age.
    """

    report: int
    snippets_seen: int
    metrics: dict[str, float]
    by_bird_age: list[dict[str, Any]] = field(default_factory=list)


def train(
    model: Mdgan,
    minibatches: Minibatches,
    evaluate: Callable[[Mdgan], Evaluation],
    on_progress: Callable[[TrainingReport], None],
) -> None:
    """Train ``model`` to the end of its budget, from its present state.

    Args:
        model: new, or with the state of an earlier training.
        minibatches: real snippets to learn from.
        evaluate: gives held-out figures of the model.
        on_progress: called after every evaluation; it may raise an error to end the training.

    Raises:
        CollapsedError: decoded snippets do not vary, after ``collapse_after`` steps or later.
        TrainingFailedError: a loss is not a finite number.
    """
    p = model.params
    sums: Losses = {}
    counts: dict[str, int] = {}
    n_sounding = minibatches.n_sounding(p.batch_size)
    report = min(model.snippets_seen // p.report_every, p.n_reports - 1)  # the last is at the end
    while model.snippets_seen < p.n_snippets:
        x = minibatches.sample(p.batch_size, model.rng)
        for name, value in model.train_step(x, n_sounding).items():
            sums[name] = sums[name] + value if name in sums else value
            counts[name] = counts.get(name, 0) + 1
        step = model.snippets_seen // p.batch_size
        is_report = model.snippets_seen >= _report_at(p, report + 1)
        if step % CHECK_EVERY == 0 or is_report:
            known = _on_cpu(sums)
            _check_finite(known, model.snippets_seen)
        if p.collapse_after and step >= p.collapse_after and step % CHECK_EVERY == 0:
            _check_collapse(model, x, step)
        if is_report:
            report += 1
            # A phase that began after the last report has a mean over its own steps.
            means = {name: value / counts[name] for name, value in known.items()}
            found = evaluate(model)
            metrics = {**means, **found.metrics}
            on_progress(TrainingReport(report, model.snippets_seen, metrics, found.by_bird_age))
            sums, counts = {}, {}


def _report_at(params: MdganParams, report: int) -> int:
    return params.n_snippets if report == params.n_reports else report * params.report_every


def _on_cpu(sums: Losses) -> dict[str, float]:
    """All sums, after one wait for the device."""
    return dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True))


def _check_finite(sums: dict[str, float], snippets_seen: int) -> None:
    # A number that is not finite stays in its sum.
    for name, value in sums.items():
        if not math.isfinite(value):
            raise TrainingFailedError(
                f"{name} is {value} after {snippets_seen} snippets: training has diverged. "
                "Lower lr or lambda_recon, or set max_grad_norm."
            )


def _check_collapse(model: Mdgan, x: Tensor, step: int) -> None:
    if is_collapsed(model, x):
        raise CollapsedError(
            f"After {step} steps decoded snippets vary less than {COLLAPSED_BELOW} times as much "
            "as real ones: the decoder has collapsed. Lower lr or raise lambda_recon; a slow "
            "training may need a higher collapse_after."
        )
