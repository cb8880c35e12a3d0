"""The stages that simulate birds and read recordings: recordings become spectrograms.

One Ray task reads one bird and age.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

from data_io.files import atomic_dir, digest
from data_io.recordings import (
    BirdAge,
    Recording,
    Survey,
    assign_split,
    data_hash,
    read,
    skip_duplicates,
    survey,
)
from data_io.simulate import bird_names, simulate_bird_age, write_truth
from data_io.spectrogram import Spectrogram, SpectrogramParams, log_spectrogram
from data_io.store import read_recordings, write_recordings, write_spectrograms
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
) -> list[Recording]:
    """Read, check and transform all recordings; write recordings.parquet and spectrograms/.

    Args:
        config: of the study.
        found: the files in the folder of recordings.
        paths: of the run folder.
        tasks: runs one task per bird and age.
        console: shows progress.

    Returns:
        Every recording found, with status, reason and split.
    """
    groups: dict[BirdAge, list[Recording]] = {}
    result: list[Recording] = []
    for recording in found.recordings:
        if recording.is_used:
            groups.setdefault((recording.bird, recording.age), []).append(recording)
        else:
            result.append(recording)
    work = sorted(groups, key=lambda bird_age: (-len(groups[bird_age]), bird_age))
    progress = Progress(console, len(found.recordings), "recordings")
    progress.advance(len(result))
    min_seconds = config.snippets.n_frames * config.spectrogram.frame_s
    with atomic_dir(paths.spectrograms) as folder:

        def keep(bird_age: BirdAge, recordings: list[Recording]) -> None:
            result.extend(recordings)
            progress.advance(len(recordings))

        tasks.run(
            lambda bird_age: _ingest_bird_age.remote(
                found.root, folder, groups[bird_age], config.spectrogram, min_seconds
            ),
            work,
            keep,
            lambda bird_age: f"Reading {bird_age[0]} at {bird_age[1]}",
        )
    in_order = {recording.path: i for i, recording in enumerate(found.recordings)}
    result.sort(key=lambda recording: in_order[recording.path])
    result = assign_split(skip_duplicates(result), config.snippets.valid_fraction, config.seed)
    write_recordings(paths.recordings, result)
    return result


@ray.remote
def _ingest_bird_age(
    data_dir: Path,
    folder: Path,
    recordings: list[Recording],
    params: SpectrogramParams,
    min_seconds: float,
) -> list[Recording]:
    """Write the spectrograms of one bird and age, one recording in memory at a time."""
    checked: list[Recording] = []

    def spectrograms() -> Iterator[tuple[str, Spectrogram]]:
        for listed in recordings:
            recording, waveform = read(data_dir, listed, min_seconds)
            if waveform is not None and recording.sample_rate_hz:
                spectrogram = log_spectrogram(waveform, recording.sample_rate_hz, params)
                recording = dataclasses.replace(recording, n_frames=spectrogram.shape[1])
                yield recording.path, spectrogram
            checked.append(recording)

    bird, age = recordings[0].bird, recordings[0].age
    facts = dataclasses.asdict(params)
    write_spectrograms(folder, bird, age, spectrograms(), facts)
    return checked


def count_recordings(recordings: list[Recording]) -> str:
    """One line with the numbers of recordings found, used, skipped and held out."""
    n_used = sum(r.is_used for r in recordings)
    n_flagged = sum(r.status == "flagged" for r in recordings)
    n_valid = sum(r.split == "valid" for r in recordings)
    minutes = sum(r.seconds for r in recordings if r.is_used) / 60
    return (
        f"{len(recordings)} recordings found: {n_used} used ({minutes:.1f} min, {n_flagged} of "
        f"them flagged), {len(recordings) - n_used} skipped; {n_valid} held out."
    )


def _run_simulation(study: Study) -> StageResult:
    made = simulate(study.config, study.paths, study.tasks, study.console)
    return StageResult([study.paths.simulated_birds], made)


def _survey_simulation(study: Study) -> None:
    study.survey = survey(study.paths.simulated_birds)


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
        spectrogram=config.spectrogram,
        n_frames=config.snippets.n_frames,
        valid_fraction=config.snippets.valid_fraction,
    )


def _run_recordings(study: Study) -> StageResult:
    paths = study.paths
    recordings = ingest(study.config, _surveyed(study), paths, study.tasks, study.console)
    if not any(r.is_used for r in recordings):
        reasons = "; ".join(f"{r.path}: {r.reason}" for r in recordings[:3])
        raise StudyError(
            f"None of {len(recordings)} recordings can be used ({reasons}, ...). "
            f"{paths.recordings} says why for each."
        )
    return StageResult([paths.recordings, paths.spectrograms], data_hash(recordings))


def _read_recordings(study: Study) -> None:
    study.recordings = read_recordings(study.paths.recordings)
    study.console.note(count_recordings(study.recordings))


def _surveyed(study: Study) -> Survey:
    assert study.survey is not None  # by the command, or by the stage before
    return study.survey


RECORDINGS = Stage(
    "recordings", needs=_needs_recordings, run=_run_recordings, then=_read_recordings
)
