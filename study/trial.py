"""One trial: what Ray Tune runs on a worker."""

import dataclasses
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray import tune

from data_io.snippets import FramePool
from models.checkpoints import load_training, save_decoder, save_training
from models.evaluation import COLLAPSED_OBJECTIVE, evaluate
from models.mdgan import Mdgan
from models.mdgan_params import MdganParams
from models.reference import Reference
from models.training import Progress, TrainingFailedError, train

# What Tune ranks trials by: the study's objective, or a number worse than any where the decoder has
# collapsed, whichever metric the objective is.
RANKED_BY = "objective"


@dataclass(frozen=True)
class TrialData:
    """What all trials share; Ray keeps one copy per node, which workers read without copying.

    Attributes:
        pool: frames of training recordings.
        valid: [n, 1, n_freq, n_frames] held-out snippets, the same for all trials.
        reference: what all trials are measured by.
        sha256: hash of the recordings and their split.
    """

    pool: FramePool
    valid: np.ndarray
    reference: Reference
    sha256: str


def trial_name(number: int) -> str:
    """Name of a trial: trial-000 is the first."""
    return f"trial-{number:03d}"


def trial_params(base: MdganParams, config: dict[str, Any]) -> MdganParams:
    """The parameters of a trial: the study's, with every sampled value in its place."""
    names = {field.name for field in dataclasses.fields(MdganParams)}
    return dataclasses.replace(base, **{k: v for k, v in config.items() if k in names})


def new_model(params: MdganParams, data: TrialData, seed: int, device: str) -> Mdgan:
    """A model that nothing was learned by yet; its dense path begins as the reference's PCA."""
    return Mdgan(params, data.pool.n_frames, seed, device, data.reference.pca)


def sample_batch(pool: FramePool, n: int, rng: torch.Generator) -> torch.Tensor:
    """Random snippets [n, 1, n_freq, n_frames] of training recordings."""
    choice = torch.randint(len(pool.starts), (n,), generator=rng).numpy()
    return torch.from_numpy(pool.crops(choice))


def run_trial(
    config: dict[str, Any],
    data: TrialData,
    base: MdganParams,
    seed: int,
    n_threads: int,
    use_gpu: bool,
    objective: str,
) -> None:
    """Train one MDGAN, report held-out metrics, keep a checkpoint with each report.

    Args:
        config: ``trial_number`` and the sampled parameters.
        data: of the study.
        base: parameters that are not searched.
        seed: of the study: the same configuration gives the same result, in whichever trial.
        n_threads: threads of the trial.
        use_gpu: whether the trial was given (part of) a GPU.
        objective: metric that trials are ranked by.
    """
    torch.set_num_threads(n_threads)
    params = trial_params(base, config)
    last_report, snippets_seen = 0, 0

    def report(progress: Progress, model: Mdgan) -> None:
        nonlocal last_report, snippets_seen
        speed = (progress.snippets_seen - seen_before) / (time.monotonic() - started)
        last_report, snippets_seen = progress.report, progress.snippets_seen
        position = {"report": last_report, "snippets_seen": snippets_seen, "reason": ""}
        metrics = progress.metrics
        ranked_by = COLLAPSED_OBJECTIVE if metrics["valid/collapsed"] else metrics[objective]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            save_training(model, folder, {"seed": seed, "data_sha256": data.sha256})
            facts = {"snippets_seen": snippets_seen, "params": dataclasses.asdict(params)}
            save_decoder(model, folder, facts)
            tune.report(
                {
                    **metrics,
                    "time/snippets_per_s": speed,
                    RANKED_BY: ranked_by,
                    **position,
                },
                checkpoint=tune.Checkpoint.from_directory(folder),
            )

    try:
        model = new_model(params, data, seed, _device(use_gpu))
        checkpoint = tune.get_checkpoint()
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                load_training(model, Path(folder), data.sha256)
            snippets_seen = model.snippets_seen
            last_report = snippets_seen // params.report_every
        started, seen_before = time.monotonic(), model.snippets_seen
        train_on(model, data, seed, lambda progress: report(progress, model))
    except TrainingFailedError as error:
        # A number that samplers can use, and that no sound trial comes near.
        position = {"report": last_report + 1, "snippets_seen": snippets_seen}
        ended = {"ended": error.status, "reason": str(error)}
        tune.report({RANKED_BY: COLLAPSED_OBJECTIVE, **position, **ended})


def train_on(
    model: Mdgan, data: TrialData, seed: int, on_progress: Callable[[Progress], None]
) -> None:
    """Train to the end of the budget, with evaluation on the held-out snippets of ``data``."""
    valid = torch.tensor(data.valid)  # a copy: Ray's memory is read-only
    train(
        model,
        lambda n, rng: sample_batch(data.pool, n, rng),
        lambda trained: evaluate(trained, data.reference, valid, seed),
        on_progress,
    )


def too_like(metrics: dict[str, float]) -> str:
    """Why a decoder whose last metrics these are has collapsed."""
    return f"snippets vary {metrics['valid/spread']:.3f} times as much as real ones"


def _device(use_gpu: bool) -> str:
    if use_gpu and not torch.cuda.is_available():
        raise TrainingFailedError(
            f"Ray gave this trial a GPU, but torch {torch.__version__} finds none: install a build "
            "of torch for GPUs, or set resources.gpus_per_trial=0."
        )
    return "cuda" if use_gpu else "cpu"
