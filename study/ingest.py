"""Stage 1: recordings to spectrograms, one Ray task per bird and age."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import ray

from data_io.files import atomic_dir, digest
from data_io.recordings import (
    BirdAge,
    Recording,
    assign_split,
    read,
    skip_duplicates,
)
from data_io.simulate import bird_names, simulate_bird_age, write_truth
from data_io.spectrogram import Spectrogram, SpectrogramParams, log_spectrogram
from data_io.store import write_recordings, write_spectrograms
from study.base.console import Console, Progress
from study.base.paths import RunPaths
from study.cluster.tasks import run_tasks
from study.config.tree import StudyConfig


def simulate(config: StudyConfig, paths: RunPaths, console: Console) -> str:
    """Write simulated birds in the input layout; give a hash of how they were made."""
    params = config.data.simulation
    work = [(bird, dph) for bird in bird_names(params.n_birds) for dph in params.ages_dph]
    progress = Progress(console, len(work), "birds and ages")
    rows: dict[tuple[str, int], list[dict]] = {}
    with atomic_dir(paths.simulated_birds) as folder:
        task = ray.remote(simulate_bird_age)

        def keep(piece: tuple[str, int], result: list[dict]) -> None:
            rows[piece] = result
            progress.advance()

        run_tasks(
            lambda piece: task.remote(folder, params, config.seed, *piece),
            work,
            keep,
            lambda piece: f"Simulating {piece[0]} at {piece[1]} dph",
            config.resources.max_tasks,
        )
        write_truth(folder, [row for piece in work for row in rows[piece]])
    return digest({"params": dataclasses.asdict(params), "seed": config.seed})


def fingerprint(root: Path, recordings: list[Recording]) -> str:
    """Hash of names, sizes and times of all files: whether they changed, without reading them."""
    stats = []
    for recording in recordings:
        try:
            stat = (root / recording.path).stat()
            stats.append([recording.path, stat.st_size, stat.st_mtime_ns])
        except OSError as error:
            stats.append([recording.path, str(error.strerror)])
    return digest(stats)


def ingest(
    config: StudyConfig,
    data_dir: Path,
    found: list[Recording],
    paths: RunPaths,
    console: Console,
) -> list[Recording]:
    """Read, check and transform all recordings; write recordings.parquet and spectrograms/.

    Args:
        config: of the study.
        data_dir: folder of the recordings.
        found: what `scan` listed in it.
        paths: of the run folder.
        console: shows progress.

    Returns:
        Every recording found, with status, reason and split.
    """
    groups: dict[BirdAge, list[Recording]] = {}
    result: list[Recording] = []
    for recording in found:
        if recording.is_used:
            groups.setdefault((recording.bird, recording.age), []).append(recording)
        else:
            result.append(recording)
    work = sorted(groups, key=lambda bird_age: (-len(groups[bird_age]), bird_age))
    progress = Progress(console, len(found), "recordings")
    progress.advance(len(result))
    min_seconds = config.snippets.n_frames * config.spectrogram.frame_s
    with atomic_dir(paths.spectrograms) as folder:

        def keep(piece: BirdAge, recordings: list[Recording]) -> None:
            result.extend(recordings)
            progress.advance(len(recordings))

        run_tasks(
            lambda piece: _ingest_bird_age.remote(
                data_dir, folder, groups[piece], config.spectrogram, min_seconds
            ),
            work,
            keep,
            lambda piece: f"Reading {piece[0]} at {piece[1]}",
            config.resources.max_tasks,
        )
    in_order = {recording.path: i for i, recording in enumerate(found)}
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
    """How many recordings there are, are used and are not, in one line."""
    n_used = sum(r.is_used for r in recordings)
    n_flagged = sum(r.status == "flagged" for r in recordings)
    n_valid = sum(r.split == "valid" for r in recordings)
    minutes = sum(r.seconds for r in recordings if r.is_used) / 60
    return (
        f"{len(recordings)} recordings found: {n_used} used ({minutes:.1f} min, {n_flagged} of "
        f"them flagged), {len(recordings) - n_used} skipped; {n_valid} held out."
    )
