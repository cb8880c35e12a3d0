"""The stage that trains decoders of single birds, or birds and ages.

They take the best trial's parameters. Each decoder is one Ray task; a chain of ages is one task.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from data_io.files import atomic_dir, digest
from data_io.recordings.table import SELECTION, TRAINING, BirdAge, Recordings
from data_io.store import write_rows
from models.mdgan.model import Mdgan
from models.mdgan.params import MdganParams
from models.metrics.neighbours import N_NEIGHBOURS
from models.metrics.reference import Reference
from study.base.console import Console, Progress
from study.base.errors import StudyError
from study.base.ledger import StageResult
from study.base.paths import RunPaths
from study.base.seeds import bird_age_seed
from study.cluster.gpus import device, wait_for_memory
from study.cluster.tasks import MAX_RETRIES, TaskRunner, gpu_task
from study.config.tree import StudyConfig, scope_in_words
from study.context import Stage, Study
from study.decoders.one_decoder import (
    DecoderPlan,
    Trained,
    decoder_row,
    load_data,
    save_trained,
    start_from,
    train_decoder,
)
from study.decoders.scope import chains, recordings_of
from study.training.data import lacks_sound
from study.training.train import best_facts, new_mdgan

_COLUMNS = pa.schema(
    [
        ("bird", pa.string()),
        ("age", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("started_from", pa.string()),
        ("n_recordings", pa.int32()),
        ("n_snippets", pa.int64()),
        ("snippets_seen", pa.int64()),
        ("seconds", pa.float64()),
        ("encoder_sha256", pa.string()),
        ("generator_sha256", pa.string()),
    ]
)


def train_decoders(
    config: StudyConfig,
    recordings: Recordings,
    paths: RunPaths,
    tasks: TaskRunner,
    console: Console,
    *,
    gpus: float,
) -> list[Trained]:
    """Train the decoders of ``config.decoders.scope``; write decoders/ and their tables.

    A decoder that cannot be trained gets a row that says why. A chain passes over it: the next age
    starts from the last age that has a decoder.

    Args:
        config: of the study.
        recordings: of the study.
        paths: of the run folder, which holds best/ and reference.npz.
        tasks: runs one task per decoder, or per chain of decoders.
        console: shows progress.
        gpus: for one training, as many as for a trial.

    Returns:
        One result per decoder, in order of bird and age.

    Raises:
        TaskError: a training failed; the message names the bird and age.
    """
    params = decoder_params(config, paths)
    n_frames = config.snippets.n_frames
    planned = [
        [_plan(bird_age, recordings, n_frames) for bird_age in chain]
        for chain in chains(config.decoders.scope, recordings)
    ]
    done: dict[BirdAge, Trained] = {}
    for plan in (plan for chain in planned for plan in chain):
        status, reason = _why_not_trained(plan, params)
        if status:
            done[plan.bird_age] = Trained(decoder_row(plan, status, reason))
    left = [[plan for plan in chain if plan.bird_age not in done] for chain in planned]
    work = sorted(filter(None, left), key=len, reverse=True)
    progress = Progress(console, sum(map(len, work)), "decoders")
    cpus = config.resources.cpus_per_trial
    task = gpu_task(_train_chain, gpus, num_cpus=cpus, max_retries=MAX_RETRIES)
    with atomic_dir(paths.decoders) as folder:

        def keep(chain: list[DecoderPlan], results: list[Trained]) -> None:
            done.update({plan.bird_age: one for plan, one in zip(chain, results, strict=True)})
            progress.advance(len(results))

        tasks.run(
            lambda chain: task.remote(config, params, paths, folder, chain, gpus),
            work,
            keep,
            lambda chain: f"Training decoders of {', '.join(plan.name for plan in chain)}",
        )
    results = [done[plan.bird_age] for chain in planned for plan in chain]
    _write_table(paths, results)
    _write_reports(paths, results)
    return results


def decoder_params(config: StudyConfig, paths: RunPaths) -> MdganParams:
    """The best trial's parameters, with the number of snippets that the configuration asks for."""
    params = MdganParams(**best_facts(paths)["params"])
    n_snippets = config.decoders.n_snippets
    return params if n_snippets is None else dataclasses.replace(params, n_snippets=n_snippets)


def _plan(bird_age: BirdAge, recordings: Recordings, n_frames: int) -> DecoderPlan:
    mine = recordings_of(bird_age, recordings)
    n_of = {
        side: int((mine.on(side).column("n_frames") // n_frames).sum())
        for side in (TRAINING, SELECTION)
    }
    return DecoderPlan(bird_age, mine, n_of[TRAINING], n_of[SELECTION])


def _why_not_trained(plan: DecoderPlan, params: MdganParams) -> tuple[str, str]:
    """Status and reason of a decoder that cannot be trained; both empty if it can."""
    if not len(plan.recordings.on(SELECTION)):
        reason = "no recording is held out to measure it; one age needs 2 bouts"
        return "no_held_out", reason
    if plan.n_held_out <= N_NEIGHBOURS:
        reason = f"{plan.n_held_out} held-out snippets to measure it, {N_NEIGHBOURS + 1} needed"
        return "no_held_out", reason
    if plan.n_snippets < params.batch_size:
        needed = f"{params.batch_size} needed (mdgan.batch_size)"
        reason = f"{plan.n_snippets} snippets to train on, {needed}"
        return "too_few_snippets", reason
    return "", ""


def _write_table(paths: RunPaths, results: list[Trained]) -> None:
    names = dict.fromkeys(name for one in results for name in one.row)
    metrics = [pa.field(name, pa.float64()) for name in names if name not in _COLUMNS.names]
    write_rows(paths.decoder_table, [one.row for one in results], pa.schema([*_COLUMNS, *metrics]))


def _write_reports(paths: RunPaths, results: list[Trained]) -> None:
    rows = [
        {"bird": one.row["bird"], "age": one.row["age"], "snippets_seen": seen, **report}
        for one in results
        for seen, report in sorted(one.reports.items())
    ]
    known = [("bird", pa.string()), ("age", pa.string()), ("snippets_seen", pa.int64())]
    names = dict.fromkeys(name for row in rows for name in row)
    metrics = [(name, pa.float64()) for name in names if name not in dict(known)]
    write_rows(paths.decoder_reports, rows, pa.schema([*known, *metrics]))


def _train_chain(
    config: StudyConfig,
    params: MdganParams,
    paths: RunPaths,
    folder: Path,
    chain: list[DecoderPlan],
    gpus: float,
) -> list[Trained]:
    """Train one decoder after the other, each from the last sound one, and write them."""
    results: list[Trained] = []
    before: tuple[str, Mdgan] | None = None
    reference = Reference.load(paths.reference)
    wait_for_memory(gpus)
    where = device(gpus > 0)
    with _threads(config.resources.cpus_per_trial):
        for plan in chain:
            seed = bird_age_seed(config.seed, plan.bird_age)
            data = load_data(config, plan, paths, reference)
            if lacks_sound(params, data.pool):
                reason = (
                    "no training recording holds sound (mdgan.minibatch=uniform learns silence)"
                )
                results.append(Trained(decoder_row(plan, "no_sound", reason)))
                continue
            model = new_mdgan(params, data, seed, where)
            if before is not None:
                start_from(model, before[1])
            trained = train_decoder(model, data, plan, seed, gpus, before[0] if before else "")
            if trained.is_sound:
                before = plan.bird_age[1], model
                save_trained(model, trained, folder, config.decoders.scope)
            results.append(trained)
    return results


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """Give torch ``n`` threads in the block; the process runs other tasks after it."""
    others = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(others)


def _needs(study: Study) -> dict[str, Any]:
    config = study.config
    return study.depends_on(
        "recordings", "trials", decoders=config.decoders, mdgan=config.mdgan,
        n_eval_snippets=config.search.n_eval_snippets,
    )  # fmt: skip


def _run(study: Study) -> StageResult:
    config, paths, console = study.config, study.paths, study.console
    console.note(scope_in_words(config.decoders.scope))
    trained = train_decoders(config, study.recordings, paths, study.tasks, console, gpus=study.gpus)
    rows = [one.row for one in trained]
    refused = [row for row in rows if row["status"] != "ok"]
    for row in refused:
        name = f"{row['bird']} {row['age']}".rstrip()
        console.note(f"{name} has no decoder: {row['reason']}")
    if len(refused) == len(rows):
        raise StudyError(
            f"None of {len(rows)} decoders could be trained; {paths.decoder_table} gives the "
            "reason for each. Give more recordings, or set decoders.scope to all or bird."
        )
    names = ("bird", "age", "status", "reason", "encoder_sha256", "generator_sha256")
    made = digest([[row.get(name) for name in names] for row in rows])
    facts = {"n_decoders": len(rows) - len(refused), "n_without_decoder": len(refused)}
    outputs = [paths.decoder_table, paths.decoder_reports, paths.decoders]
    return StageResult(outputs, made, facts)


DECODERS = Stage(
    "decoders", needs=_needs, run=_run, is_wanted=lambda config: config.decoders.scope != "all"
)
