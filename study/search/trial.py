"""One trial: what Ray Tune runs on a worker."""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray import tune

from data_io.files import STORAGE_FULL, write_json
from models.mdgan.checkpoints import load_training, save_decoder, save_training
from models.mdgan.params import MdganParams
from models.mdgan.training import TrainingFailedError, TrainingReport
from models.metrics.evaluation import COLLAPSED_OBJECTIVE
from study.cluster.gpus import UnusableGpuError, device, wait_for_memory
from study.search.system_metrics import system_metrics
from study.search.trial_folder import (
    BY_BIRD_AGE,
    Report,
    TrialFolder,
    TrialSpec,
    read_reports,
)
from study.training.data import TrialData
from study.training.train import new_mdgan, train_on, trial_params

# What Tune ranks trials by: the study's objective, or a number worse than any where the decoder has
# collapsed, whichever metric the objective is.
RANKED_BY = "objective"


@dataclass(frozen=True)
class TrialJob:
    """Settings that all trials of a search share, beside their data.

    Attributes:
        base: parameters that are not searched.
        objective: metric that trials are ranked by.
        folder: holds the folders of the trials.
        n_threads: threads of a trial.
        gpus: share of a GPU, or GPUs, that a trial was given; 0 for none.
    """

    base: MdganParams
    objective: str
    folder: Path
    n_threads: int
    gpus: float


def run_trial(config: dict[str, Any], data: TrialData, job: TrialJob) -> None:
    """Train one MDGAN, or go on with it from its newest checkpoint; report held-out metrics.

    Every report is in a checkpoint before it is told to Ray, so none is lost whoever is killed.
    Reports of earlier processes are told again first.

    Args:
        config: ``spec``, the fields of a `TrialSpec`.
        data: of the study.
        job: what all trials have in common. The same parameters and seed give the same result, in
            whichever trial.
    """
    torch.set_num_threads(job.n_threads)
    spec = TrialSpec(**config["spec"])
    folder = TrialFolder(job.folder / spec.name)
    reports: list[Report] = []
    try:
        _train_trial(spec, data, job, folder, reports)
    except TrainingFailedError as error:
        _tell_failure(reports, error.status, str(error), isinstance(error, UnusableGpuError))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        remedy = "Lower mdgan.batch_size or the widths, or raise resources.gpus_per_trial."
        _tell_failure(reports, "failed", f"out of memory: {error}. {remedy}", True)
    except OSError as error:
        if error.errno not in STORAGE_FULL:
            raise
        tune.report({RANKED_BY: COLLAPSED_OBJECTIVE, "report": 0, "storage": str(error)})


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether memory was wanting; CUDA's libraries say so in words only."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    words = str(error)
    return "CUDA" in words and ("out of memory" in words or "ALLOC_FAILED" in words)


def _train_trial(
    spec: TrialSpec, data: TrialData, job: TrialJob, folder: TrialFolder, reports: list[Report]
) -> None:
    started = time.monotonic()
    folder.check_is(spec)
    folder.own()
    params = trial_params(job.base, spec.params)
    checkpoint, notes = folder.newest_checkpoint()
    reports += read_reports(checkpoint)
    for known in reports:
        tune.report({**known, "note": "; ".join(notes)})
        notes = []
    wait_for_memory(job.gpus)
    model = new_mdgan(params, data, spec.seed, device(job.gpus > 0))
    if checkpoint is not None:
        load_training(model, checkpoint, data.sha256)
    seen_before = model.snippets_seen
    seconds_before = reports[-1]["time/seconds"] if reports else 0.0
    began = time.monotonic()

    def report(progress: TrainingReport) -> None:
        now = time.monotonic()
        metrics = progress.metrics
        ranked_by = COLLAPSED_OBJECTIVE if metrics["valid/collapsed"] else metrics[job.objective]
        reports.append(
            {
                **metrics,
                "time/snippets_per_s": (progress.snippets_seen - seen_before) / (now - began),
                "time/seconds": seconds_before + now - started,
                **system_metrics(),
                RANKED_BY: ranked_by,
                "report": progress.report,
                "snippets_seen": progress.snippets_seen,
                "reported_at": time.time(),
                "reason": "",
            }
        )

        def fill(path: Path) -> dict[str, str]:
            hashes = save_training(model, path, {"seed": spec.seed, "data_sha256": data.sha256})
            facts = {"snippets_seen": model.snippets_seen, "params": dataclasses.asdict(params)}
            content = {"report": progress.report, "rows": progress.by_bird_age}
            write_json(path / BY_BIRD_AGE, content)
            return hashes | save_decoder(model, path, facts)

        folder.save(progress.report, reports, fill)
        tune.report({**reports[-1], "note": "; ".join(notes)})
        notes.clear()

    train_on(model, data, spec.seed, job.gpus, report)


def _tell_failure(reports: list[Report], ended: str, reason: str, may_go_on: bool) -> None:
    last = reports[-1] if reports else {"report": 0, "snippets_seen": 0}
    tune.report(
        {
            # A number that samplers can use, and that no sound trial comes near.
            RANKED_BY: COLLAPSED_OBJECTIVE,
            "report": last["report"] + 1,
            "snippets_seen": last["snippets_seen"],
            "ended": ended,
            "reason": reason,
            "may_go_on": may_go_on,
        }
    )
