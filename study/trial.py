"""One trial: what Ray Tune runs on a worker."""

import dataclasses
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray import tune

from data_io.snippets import FramePool
from models.checkpoints import load_training, save_decoder, save_training
from models.evaluation import COLLAPSED_OBJECTIVE, Reference, evaluate
from models.training import Mdgan, MdganParams, Progress, TrainingFailedError, train


@dataclass(frozen=True)
class TrialData:
    """What all trials share; Ray keeps one copy per node, which workers read without copying.

    Attributes:
        pool: frames of training recordings.
        valid: [n, 1, n_freq, n_frames] held-out snippets, the same for all trials.
        reference: what all trials are measured by.
    """

    pool: FramePool
    valid: np.ndarray
    reference: Reference


def trial_name(number: int) -> str:
    """Name of a trial: trial-000 is the first."""
    return f"trial-{number:03d}"


def trial_params(base: MdganParams, config: dict[str, Any]) -> MdganParams:
    """The parameters of a trial: the study's, with every sampled value in its place."""
    names = {field.name for field in dataclasses.fields(MdganParams)}
    return dataclasses.replace(base, **{k: v for k, v in config.items() if k in names})


def build(params: MdganParams, data: TrialData, seed: int, device: str) -> Mdgan:
    """A new training of this shape."""
    return Mdgan(params, data.pool.n_frames, seed, device)


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
    model = build(params, data, seed, "cuda" if use_gpu else "cpu")
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            load_training(model, Path(folder))
    valid = torch.tensor(data.valid)
    started, seen_before = time.monotonic(), model.snippets_seen
    last_report = 0

    def report(progress: Progress) -> None:
        nonlocal last_report
        last_report = progress.report
        rate = (progress.snippets_seen - seen_before) / (time.monotonic() - started)
        metrics = {**progress.metrics, "time/snippets_per_s": rate}
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            save_training(model, folder)
            facts = {"snippets_seen": progress.snippets_seen, "params": dataclasses.asdict(params)}
            save_decoder(model, folder, facts)
            tune.report(
                {
                    **metrics,
                    "report": progress.report,
                    "snippets_seen": progress.snippets_seen,
                    "reason": "",
                },
                checkpoint=tune.Checkpoint.from_directory(folder),
            )

    def metrics_of(model: Mdgan) -> dict[str, float]:
        return evaluate(model, data.reference, valid, seed)

    try:
        train(model, lambda n, rng: sample_batch(data.pool, n, rng), metrics_of, report)
    except TrainingFailedError as error:
        # A number that samplers can use, and that no sound trial comes near.
        failed = {objective: COLLAPSED_OBJECTIVE, "report": last_report + 1}
        tune.report({**failed, "snippets_seen": model.snippets_seen, "reason": str(error)})
