"""The stages that simulate birds and read recordings: recordings become spectrograms.

One Ray task reads one bird and age.
"""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import ray

from data_io.files import atomic_dir, digest, link
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
from data_io.simulate import bird_names, simulate_bird_age, write_truth
from data_io.store import BrokenFileError, partition, read_recordings, write_recordings
from study.base.console import Console, Progress
from study.base.errors import StudyError
from study.base.ledger import StageResult
from study.base.paths import RunPaths
from study.cluster.tasks import TaskRunner
from study.config.tree import StudyConfig
from study.context import Stage, Study


def simulate(config: StudyConfig, paths: RunPaths, tasks: TaskRunner, console: Console) -> str:
    """Write simulated birds in the input layout; return a hash of their parameters and seed."""
    params = config.data.simulation
    work = [(bird, dph) for bird in bird_names(params.n_birds) for dph in params.ages_dph]
    progress = Progress(console, len(work), "birds and ages")
    rows: dict[tuple[str, int], list[dict]] = {}
    with atomic_dir(paths.simulated_birds) as folder:
        task = ray.remote(simulate_bird_age)

        def keep(bird_age: tuple[str, int], result: list[dict]) -> None:
            rows[bird_age] = result
            progress.advance()

        tasks.run(
            lambda bird_age: task.remote(folder, params, config.seed, *bird_age),
            work,
            keep,
            lambda bird_age: f"Simulating {bird_age[0]} at {bird_age[1]} dph",
        )
        write_truth(folder, [row for bird_age in work for row in rows[bird_age]])
    return digest({"params": dataclasses.asdict(params), "seed": config.seed})


def ingest(
    config: StudyConfig, found: Survey, paths: RunPaths, tasks: TaskRunner, console: Console
) -> Recordings:
    """Read, check and transform all recordings; write recordings.parquet and spectrograms/.

    What an earlier start wrote of a bird and age is taken over where its files are as they were.

    Args:
        config: of the study.
        found: the files in the folder of recordings.
        paths: of the run folder.
        tasks: runs one task per bird and age.
        console: shows progress.

    Returns:
        Every recording found, with status, reason and side of the split.
    """
    groups = found.recordings.used.by_bird_age()
    before = _read_before(paths, groups)
    left_out = found.recordings.where(~found.recordings.is_used)
    parts = dict.fromkeys(groups, left_out)
    progress = Progress(console, len(found.recordings), "recordings")
    progress.advance(len(left_out))
    with atomic_dir(paths.spectrograms) as folder:

        def keep(bird_age: BirdAge, recordings: Recordings) -> None:
            parts[bird_age] = recordings
            progress.advance(len(groups[bird_age]))

        work = []
        for bird_age in sorted(groups, key=lambda bird_age: (-len(groups[bird_age]), bird_age)):
            old = before.get(bird_age)
            if old is not None and old.serves(groups[bird_age], config.reading):
                link(partition(old.folder, *bird_age), partition(folder, *bird_age))
                keep(bird_age, old.recordings)
            else:
                work.append(bird_age)
        tasks.run(
            lambda bird_age: _ingest_bird_age.remote(
                found.root, groups[bird_age], config.reading, folder, before.get(bird_age)
            ),
            work,
            keep,
            lambda bird_age: f"Reading {bird_age[0]} at {bird_age[1]}",
        )
        whole = skip_duplicates(Recordings.joined([*parts.values(), left_out]))
        snippets = config.snippets
        result = assign_split(
            whole, snippets.selection_fraction, snippets.report_fraction, config.seed
        )
    write_recordings(paths.recordings, result)
    return result


def _read_before(paths: RunPaths, groups: dict[BirdAge, Recordings]) -> dict[BirdAge, Before]:
    """What an earlier start stored of each bird and age; nothing where it cannot be read."""
    if not (paths.recordings.is_file() and paths.spectrograms.is_dir()):
        return {}
    try:
        found = read_recordings(paths.recordings).by_bird_age()
    except BrokenFileError:  # made by another version, or altered: all is read again
        return {}
    before = {}
    for bird_age, rows in found.items():
        if bird_age in groups:
            # A file that was listed but could not be opened has no hash, nor has one that the
            # listing itself skips.
            is_listed = np.isin(rows.column("path"), groups[bird_age].column("path"))
            opened = rows.where(is_listed | (rows.column("sha256") != ""))
            before[bird_age] = Before(paths.spectrograms, opened)
    return before


@ray.remote
def _ingest_bird_age(
    data_dir: Path, listed: Recordings, params: ReadParams, folder: Path, before: Before | None
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
    return StageResult([paths.recordings, paths.spectrograms], data_hash(recordings))


def _read_recordings(study: Study) -> None:
    study.recordings = read_recordings(study.paths.recordings)
    study.console.note(count_recordings(study.recordings))
    if study.config.data.dir is not None:  # simulated recordings have nothing in common
        for remark in remarks_on_split(study.recordings):
            study.console.note(remark)


def _surveyed(study: Study) -> Survey:
    assert study.survey is not None  # by the command, or by the stage before
    return study.survey


RECORDINGS = Stage(
    "recordings", needs=_needs_recordings, run=_run_recordings, then=_read_recordings
)
