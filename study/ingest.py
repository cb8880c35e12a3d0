"""The stages that simulate birds and read recordings: recordings become spectrograms.

One Ray task reads one bird and age.
"""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from data_io.aviary.birds import birds_and_ages
from data_io.aviary.truth import DayTruth, write_truth
from data_io.aviary.write import simulate_bird_age, write_birds_csv
from data_io.files import FOR_NOW, atomic_dir, digest, remove_folder
from data_io.names.listing import Survey, survey
from data_io.recordings.bird_age import Before, read_bird_age
from data_io.recordings.reading import ReadParams
from data_io.recordings.split import assign_split, cuts_bouts, without_side
from data_io.recordings.table import (
    REPORT,
    SELECTION,
    SIDES,
    BirdAge,
    Recordings,
    data_hash,
    skip_duplicates,
)
from data_io.store import read_recordings, write_recordings
from study.base.console import Console, Progress, count
from study.base.errors import StudyError
from study.base.ledger import StageResult
from study.base.paths import RunPaths
from study.cluster.tasks import TaskRunner
from study.config.tree import StudyConfig
from study.context import Stage, Study
from study.read_before import ReadBefore

UNREAD_NAMED = 3  # recordings that the terminal names


def simulate(config: StudyConfig, paths: RunPaths, tasks: TaskRunner, console: Console) -> str:
    """Write simulated birds in the input layout; return a hash of their parameters and seed."""
    params = config.data.simulation
    work = birds_and_ages(params)
    progress = Progress(console, len(work), "birds and ages")
    truths: dict[tuple[str, int], DayTruth] = {}
    with atomic_dir(paths.simulated_birds) as folder:
        task = ray.remote(simulate_bird_age)

        def keep(bird_age: tuple[str, int], result: DayTruth) -> None:
            truths[bird_age] = result
            progress.advance()

        tasks.run(
            lambda bird_age: task.remote(folder, params, config.seed, *bird_age),
            work,
            keep,
            lambda bird_age: f"Simulating {bird_age[0]} at {bird_age[1]} dph",
        )
        write_birds_csv(folder, params, config.seed)
        write_truth(folder, params, config.seed, (truths[bird_age] for bird_age in work))
    return digest({"params": dataclasses.asdict(params), "seed": config.seed})


def ingest(
    config: StudyConfig, found: Survey, paths: RunPaths, tasks: TaskRunner, console: Console
) -> Recordings:
    """Read, check and transform all recordings; write recordings.parquet and spectrograms/.

    What an earlier start wrote of a bird and age is taken over where its files are as they were,
    also that of a start that was cut off while it read.

    Args:
        config: of the study.
        found: the files in the folder of recordings.
        paths: of the run folder.
        tasks: runs one task per bird and age.
        console: shows progress.

    Returns:
        Every recording found, with status, reason and side of the split.
    """
    snippets = config.snippets
    with atomic_dir(paths.spectrograms) as folder:
        store = ReadBefore(paths, folder, config.reading)
        whole = read_all(config, found, tasks, console, store)
        result = assign_split(
            whole, snippets.selection_fraction, snippets.report_fraction, config.seed
        )
    write_recordings(paths.recordings, result)
    remove_folder(paths.reading)
    return result


def read_all(
    config: StudyConfig,
    found: Survey,
    tasks: TaskRunner,
    console: Console,
    store: ReadBefore | None = None,
) -> Recordings:
    """Read and check every file, one task per bird and age; no recording has a side yet.

    Args:
        config: how recordings are read.
        found: the files.
        tasks: runs the tasks.
        console: shows progress.
        store: of the spectrograms; None only checks.
    """
    listed = found.recordings.used
    rows = listed.rows_by_bird_age()
    left_out = found.recordings.where(~found.recordings.is_used)
    parts = dict.fromkeys(rows, left_out)
    progress = Progress(console, len(found.recordings), "recordings")
    progress.advance(len(left_out))

    def keep(bird_age: BirdAge, recordings: Recordings) -> None:
        parts[bird_age] = recordings
        progress.advance(len(rows[bird_age]))

    def submit(bird_age: BirdAge) -> ray.ObjectRef:
        files = listed.taken(rows[bird_age])
        folder, before = (store.folder, store.before(bird_age, files)) if store else (None, None)
        return _ingest_bird_age.remote(found.root, files, config.reading, folder, before)

    def read(bird_age: BirdAge, recordings: Recordings) -> None:
        if store is not None:
            store.keep(bird_age, recordings)
        keep(bird_age, recordings)

    work = []
    for bird_age in sorted(rows, key=lambda bird_age: (-len(rows[bird_age]), bird_age)):
        known = store.take_over(bird_age, listed.taken(rows[bird_age])) if store else None
        if known is not None:
            keep(bird_age, known)
        else:
            work.append(bird_age)
    tasks.run(submit, work, read, lambda bird_age: f"Reading {bird_age[0]} at {bird_age[1]}")
    return skip_duplicates(Recordings.joined([*parts.values(), left_out]))


@ray.remote
def _ingest_bird_age(
    data_dir: Path,
    listed: Recordings,
    params: ReadParams,
    folder: Path | None,
    before: Before | None,
) -> Recordings:
    return read_bird_age(data_dir, listed, params, folder, before)


def count_recordings(recordings: Recordings) -> str:
    """One line with the numbers of recordings found, used, skipped and held out."""
    used = recordings.used
    n_flagged = int((recordings.column("status") == "flagged").sum())
    minutes = used.column("seconds").sum() / 60
    sound = used.column("sound_s").sum() / 60
    sides = ", ".join(f"{len(recordings.on(side))} for {side}" for side in SIDES)
    return (
        f"{len(recordings):,} recordings found: {len(used):,} used ({minutes:.1f} min, {sound:.1f} "
        f"min of them sound, {n_flagged} flagged), {len(recordings) - len(used)} skipped; {sides}."
    )


def remarks_on_split(recordings: Recordings) -> list[str]:
    """What held-out figures cannot say, because birds and ages have too few bouts."""
    n, remarks = len(recordings.used.birds_and_ages()), []
    lacking, cut = without_side(recordings), cuts_bouts(recordings)
    for side in (SELECTION, REPORT):
        if without := [bird_age for bird_age, sides in lacking.items() if side in sides]:
            remarks.append(
                f"{len(without):,} of {n:,} birds and ages have nothing on the {side} side: they "
                f"have too few bouts or blocks of time (the first: {' at '.join(without[0])})."
            )
    if cut:
        remarks.append(
            f"{len(cut):,} of {n:,} birds and ages have neighbouring recordings on two sides, "
            "perhaps of one bout: they have too few bouts, or not every name or header tells the "
            f"time (the first: {' at '.join(cut[0])}). Held-out errors may be too small there."
        )
    return remarks


def _unread(recordings: Recordings) -> Recordings:
    """Recordings that the system did not give; the next start tries them again."""
    is_unread = pc.starts_with(recordings.table["reason"].cast(pa.string()), FOR_NOW)
    return recordings.where(is_unread.to_numpy())


def remarks_on_unread(recordings: Recordings) -> list[str]:
    """Which recordings the system did not give, why, and what to do."""
    unread = _unread(recordings)
    if not len(unread):
        return []
    first = itertools.islice(unread, UNREAD_NAMED)
    named = ", ".join(f"{one.path} ({one.reason.removeprefix(FOR_NOW)})" for one in first)
    n_more = len(unread) - UNREAD_NAMED
    return [
        f"{count(len(unread), 'recording')} cannot be read for now and "
        f"{'are' if len(unread) > 1 else 'is'} left out: {named}"
        f"{f' and {n_more:,} more' if n_more > 0 else ''}. See to the disk, or to the rights of "
        "the files: the same command tries them again."
    ]


def _run_simulation(study: Study) -> StageResult:
    made = simulate(study.config, study.paths, study.tasks, study.console)
    return StageResult([study.paths.simulated_birds], made)


def _survey_simulation(study: Study) -> None:
    study.survey = survey(study.paths.simulated_birds, "bird/age")


SIMULATED_BIRDS = Stage(
    "simulated birds",
    needs=lambda study: study.depends_on(simulation=study.config.data.simulation),
    run=_run_simulation,
    is_wanted=lambda config: config.data.dir is None,
    then=_survey_simulation,
)


def _needs_recordings(study: Study) -> dict[str, Any]:
    config = study.config
    return study.depends_on(
        files=_surveyed(study).fingerprint,
        reading=config.reading,
        selection_fraction=config.snippets.selection_fraction,
        report_fraction=config.snippets.report_fraction,
    )


def _run_recordings(study: Study) -> StageResult:
    paths = study.paths
    recordings = ingest(study.config, _surveyed(study), paths, study.tasks, study.console)
    if not len(recordings.used):
        first = itertools.islice(recordings, 3)
        reasons = "; ".join(f"{one.path}: {one.reason}" for one in first)
        raise StudyError(
            f"None of {len(recordings)} recordings can be used ({reasons}, ...). "
            f"{paths.recordings} says why for each."
        )
    remarks = []
    if study.config.data.dir is not None:  # simulated recordings have nothing in common
        remarks = remarks_on_split(recordings)
    outputs = [paths.recordings, paths.spectrograms]
    facts = {"remarks_on_split": remarks}
    return StageResult(outputs, data_hash(recordings), facts, not len(_unread(recordings)))


def _read_recordings(study: Study) -> None:
    study.recordings = read_recordings(study.paths.recordings)
    study.console.note(count_recordings(study.recordings))
    for remark in remarks_on_unread(study.recordings):
        study.console.note(remark)
    for remark in study.ledger.done["recordings"].facts["remarks_on_split"]:
        study.console.note(remark)


def _surveyed(study: Study) -> Survey:
    assert study.survey is not None  # by the command, or by the stage before
    return study.survey


RECORDINGS = Stage(
    "recordings", needs=_needs_recordings, run=_run_recordings, then=_read_recordings
)
