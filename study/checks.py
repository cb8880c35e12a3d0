"""The stage that checks each song model: what it samples beside what the bird sang.

`models.checks` compares; here songs are read, sampled and decoded, one Ray task for each bird and
age. The model, its latents and its sounds are those of the study.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from data_io.files import digest
from data_io.recordings.table import BirdAge, Recordings
from data_io.song_measures import SongMeasures, measure_song
from data_io.song_models import SongModel, load_song_model
from data_io.sounding import gain_of
from data_io.store import read_spectrograms, write_rows
from models.checks.compare import UNLIKE, Check
from models.checks.songs import (
    Stretch,
    check_latents,
    check_sounds,
    sound_statistics,
    stretches,
)
from models.checks.statistics import quantiles
from models.mdgan.checkpoints import load_decoder
from models.mdgan.encoding import decode_latents
from study.base.console import Console, Progress
from study.base.ledger import StageResult
from study.base.paths import RunPaths
from study.base.seeds import bird_age_seed
from study.cluster.tasks import MAX_RETRIES, TaskRunner
from study.config.tree import StudyConfig
from study.context import Stage, Study
from study.decoders.scope import decoder_of
from study.encode import whitened_by_recording
from study.hmms.rows import Row, row_of, schema_of
from study.hmms.song_models import to_song_hmm

Array = NDArray[np.float64]

CHECKED = pa.schema([("bird", pa.string()), ("age", pa.string()), *schema_of(Check)])
QUANTILES = pa.schema(
    [
        ("bird", pa.string()),
        ("age", pa.string()),
        ("check", pa.string()),
        ("unit", pa.string()),
        ("songs", pa.string()),  # real, reconstruction or sampled
        ("share", pa.float64()),  # of the values that lie below
        ("value", pa.float64()),
    ]
)
SHARES = tuple(np.arange(1, 20) / 20)
KINDS = ("real", "reconstruction", "sampled")


def check_song_models(
    config: StudyConfig,
    recordings: Recordings,
    paths: RunPaths,
    tasks: TaskRunner,
    console: Console,
) -> list[Row]:
    """Check the model of every bird and age that has one; write the stage's tables.

    Returns:
        The rows of hmm_checks.parquet: `models.checks.compare.Check` with bird and age.
    """
    of_bird_age = recordings.used.by_bird_age()
    bird_ages = [one for one in of_bird_age if (paths.hmm / one[0] / f"{one[1]}.npz").exists()]
    progress = Progress(console, len(bird_ages), "song models checked")
    found: dict[BirdAge, tuple[list[Row], list[Row]]] = {}

    def keep(bird_age: BirdAge, rows: tuple[list[Row], list[Row]]) -> None:
        found[bird_age] = rows
        progress.advance()

    tasks.run(
        lambda one: checks_task.remote(config, paths, one, _level(config, of_bird_age[one])),
        bird_ages,
        keep,
        lambda one: f"Checks of the song model of {one[0]} at {one[1]}",
    )
    rows = [row for one in bird_ages for row in found[one][0]]
    write_rows(paths.hmm_checks, rows, CHECKED)
    of_quantiles = [row for one in bird_ages for row in found[one][1]]
    write_rows(paths.hmm_check_quantiles, of_quantiles, QUANTILES)
    return rows


def _level(config: StudyConfig, recordings: Recordings) -> float:
    """Reference level in the spectrograms of a bird and age; 0 where nothing sounds."""
    level = next(iter(recordings)).reference_level
    return float(level or 0) * gain_of(level or None, config.spectrogram)


@ray.remote(num_cpus=1, max_retries=MAX_RETRIES)
def checks_task(
    config: StudyConfig, paths: RunPaths, bird_age: BirdAge, level: float
) -> tuple[list[Row], list[Row]]:
    """Rows of both tables of one bird and age.

    Args:
        config: of the study.
        paths: of the run folder.
        bird_age: bird and age.
        level: reference level in its spectrograms, 0 where nothing sounds.
    """
    seed = bird_age_seed(config.seed, bird_age)
    stored, _ = load_song_model(paths.hmm, *bird_age)
    latents = whitened_by_recording(paths, bird_age, config.decoders.scope)
    frame_ms = 1000 * config.spectrogram.frame_s
    with threadpool_limits(1):
        model = to_song_hmm(stored)
        snippet_ms = config.snippets.hop * frame_ms
        checks = check_latents(model, list(latents.values()), snippet_ms, config.checks, seed)
        rows: list[Row] = []
        if level > 0:
            ear = Ear(config, paths, bird_age, stored, level)
            real, reconstruction, lengths = ear.recordings(latents, seed)
            replicas = [
                [ear.hear(z) for z in model.sample_songs(lengths, seed + 1 + i)[0]]
                for i in range(config.checks.n_replicas)
            ]
            checks += check_sounds(real, replicas, reconstruction, frame_ms, seed)
            sampled = [song for songs in replicas for song in songs]
            rows = quantile_rows((real, reconstruction, sampled), frame_ms)
    named = {"bird": bird_age[0], "age": bird_age[1]}
    return [named | row_of(check) for check in checks], [named | row for row in rows]


class Ear:
    """Hears recordings and decoded songs of one bird and age.

    Args:
        config: of the study.
        paths: of the run folder.
        bird_age: bird and age.
        stored: its song model, which knows how latents were whitened.
        level: reference level in its spectrograms.
    """

    def __init__(
        self,
        config: StudyConfig,
        paths: RunPaths,
        bird_age: BirdAge,
        stored: SongModel,
        level: float,
    ):
        self._config, self._paths, self._bird_age = config, paths, bird_age
        self._stored, self._level = stored, level
        _, self._generator, _ = load_decoder(decoder_of(config, paths, *bird_age))

    def hear(self, z: Array, n_frames: int | None = None) -> SongMeasures:
        """Decode whitened latents [n_snippets, latent_dim] and measure what is heard."""
        latents = (z * self._stored.whitening_std + self._stored.whitening_mean).astype(np.float32)
        hop = self._config.snippets.hop
        decoded = decode_latents(self._generator, latents, n_frames, hop=hop)
        return measure_song(decoded, self._config.spectrogram, self._level)

    def recordings(
        self, latents: dict[str, Array], seed: int
    ) -> tuple[list[SongMeasures], list[SongMeasures], list[int]]:
        """Parts of recordings as they are and as they are reconstructed; snippets of each.

        Args:
            latents: whitened, by path of the recording.
            seed: of the draw.
        """
        hop, params = self._config.snippets.hop, self._config.spectrogram
        n_snippets = round(self._config.checks.sound_s / (hop * params.frame_s))
        names = list(latents)
        parts: dict[str, list[Stretch]] = {}
        for part in stretches([len(latents[name]) for name in names], n_snippets, seed):
            parts.setdefault(names[part.song], []).append(part)
        real, reconstruction, lengths = [], [], []
        stored = read_spectrograms(self._paths.spectrograms, *self._bird_age, only=set(parts))
        for name, spectrogram, _ in stored:
            for part in parts[name]:
                last = (part.stop - 1) * hop + self._config.snippets.n_frames
                song = np.ascontiguousarray(spectrogram[:, part.start * hop : last])
                real.append(measure_song(song, params, self._level))
                z = latents[name][part.start : part.stop]
                reconstruction.append(self.hear(z, song.shape[1]))
                lengths.append(len(z))
        return real, reconstruction, lengths


def quantile_rows(heard: Sequence[Sequence[SongMeasures]], frame_ms: float) -> list[Row]:
    """Quantiles of what was heard of each kind of songs, at 0.05, 0.1, ..., 0.95.

    Args:
        heard: songs of each of ``KINDS``.
        frame_ms: from one frame to the next.
    """
    return [
        {"check": statistic.name, "unit": statistic.unit, "songs": kind, "share": share,
         "value": float(value)}
        for statistic, of in sound_statistics(frame_ms)
        if statistic.of is quantiles
        for kind, songs in zip(KINDS, heard, strict=True)
        for values in [np.concatenate([of(song) for song in songs])]
        if len(values)
        for share, value in zip(SHARES, np.quantile(values, SHARES), strict=True)
    ]  # fmt: skip


def _run(study: Study) -> StageResult:
    paths = study.paths
    rows = check_song_models(study.config, study.recordings, paths, study.tasks, study.console)
    unlike = sum(row["verdict"] == UNLIKE for row in rows)
    study.console.note(f"{unlike:,} of {len(rows):,} checks: unlike the bird")
    return StageResult([paths.hmm_checks, paths.hmm_check_quantiles], digest(rows))


CHECKS = Stage(
    "checks",
    needs=lambda study: study.depends_on(
        "recordings", "latents", "hmm", checks=study.config.checks
    ),
    run=_run,
)
