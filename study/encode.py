"""The stage that encodes: each recording becomes a sequence of latents.

One Ray task encodes one bird and age.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data_io.files import atomic_dir, digest, read_json, write_json
from data_io.latents import read_latents, write_latents
from data_io.recordings.table import TRAINING, BirdAge, Recordings
from data_io.store import BrokenFileError, partition, read_spectrograms, read_table
from models.mdgan.checkpoints import load_decoder
from models.mdgan.devices import use_arithmetic
from models.mdgan.encoding import encode_spectrogram
from study.base.console import Console, Progress
from study.base.ledger import StageResult
from study.base.paths import RunPaths
from study.cluster.gpus import device
from study.cluster.tasks import TaskRunner, gpu_task
from study.config.tree import DecoderScope, StudyConfig
from study.context import Stage, Study
from study.decoders.scope import decoder_of, decoder_stage, whitening_file, without_decoder

Array = NDArray[np.float64]
# Sum, sum of squares and number of training latents; they give the whitening.
Moments = tuple[NDArray[np.float64], NDArray[np.float64], int]


def encode(
    config: StudyConfig,
    recordings: Recordings,
    paths: RunPaths,
    tasks: TaskRunner,
    console: Console,
) -> int:
    """Encode the recordings of every bird and age that has a decoder, and write latents/.

    Returns:
        The number of snippets.
    """
    groups = recordings.used.by_bird_age()
    missing = without_decoder(config, paths, recordings)
    bird_ages = [bird_age for bird_age in groups if bird_age not in missing]
    progress = Progress(console, len(bird_ages), "birds and ages encoded")
    moments: dict[BirdAge, Moments] = {}
    n_snippets = 0
    task = gpu_task(_encode_bird_age, config.resources.gpus_per_encode)
    with atomic_dir(paths.latents) as folder:

        def keep(bird_age: BirdAge, result: tuple[int, Moments]) -> None:
            nonlocal n_snippets
            n_snippets += result[0]
            moments[bird_age] = result[1]
            progress.advance()

        tasks.run(
            lambda bird_age: task.remote(
                decoder_of(config, paths, *bird_age),
                paths,
                folder,
                bird_age,
                dict(
                    zip(
                        groups[bird_age].column("path"),
                        groups[bird_age].column("split"),
                        strict=True,
                    )
                ),
                config.snippets.hop,
                config.spectrogram.frame_s,
                config.resources.gpus_per_encode > 0,
            ),  # fmt: skip
            bird_ages,
            keep,
            lambda bird_age: f"Encoding {bird_age[0]} at {bird_age[1]}",
        )
        of_decoder: dict[Path, list[Moments]] = {}
        for bird_age in bird_ages:
            path = whitening_file(folder, config.decoders.scope, *bird_age)
            of_decoder.setdefault(path, []).append(moments[bird_age])
        for path, of_served in of_decoder.items():
            write_json(path, whitening(of_served))
    return n_snippets


def whitening(moments: list[Moments]) -> dict[str, Any]:
    """Mean and standard deviation per dimension, over the training recordings of one decoder.

    Args:
        moments: one entry per bird and age that the decoder serves.
    """
    n = sum(m[2] for m in moments)
    mean = np.sum([m[0] for m in moments], axis=0) / n
    variance = np.sum([m[1] for m in moments], axis=0) / n - mean**2
    # A dimension that does not vary is left alone: divided by its spread, it would become noise.
    std = np.where(variance > 1e-8, np.sqrt(np.maximum(variance, 0)), 1.0)
    return {
        "what": "whitened = (z - mean) / std, per dimension, over training recordings",
        "n_snippets": n,
        "mean": mean.tolist(),
        "std": std.tolist(),
    }


def _encode_bird_age(
    decoder: Path,
    paths: RunPaths,
    folder: Path,
    bird_age: BirdAge,
    splits: dict[str, str],
    hop: int,
    frame_s: float,
    use_gpu: bool,
) -> tuple[int, Moments]:
    bird, age = bird_age
    encoder, _, facts = load_decoder(decoder)
    where = device(use_gpu, "gpus_per_encode")
    use_arithmetic(torch.device(where), "float32")
    encoder.to(where)
    shape = facts["shape"]
    total, squares, n_train = np.zeros(shape["latent_dim"]), np.zeros(shape["latent_dim"]), 0

    def latents() -> Iterator[tuple[str, NDArray[np.float32], NDArray[np.float32]]]:
        nonlocal total, squares, n_train
        stored = read_spectrograms(paths.spectrograms, bird, age, only=set(splits))
        for name, spectrogram, has_sound in stored:
            z = encode_spectrogram(encoder, spectrogram, shape["n_frames"], where, hop)
            if splits[name] == TRAINING:
                total += z.sum(0, dtype=np.float64)
                squares += np.square(z, dtype=np.float64).sum(0)
                n_train += len(z)
            yield name, z, sound_shares(has_sound, len(z), shape["n_frames"], hop)

    encoder_sha256 = facts["sha256"]["encoder.safetensors"]
    n = write_latents(
        folder, bird, age, latents(), hop * frame_s, shape["latent_dim"],
        {"encoder_sha256": encoder_sha256, "n_frames": shape["n_frames"], "hop": hop},
    )  # fmt: skip
    return n, (total, squares, n_train)


def sound_shares(
    has_sound: NDArray[np.bool_], n_snippets: int, n_frames: int, hop: int
) -> NDArray[np.float32]:
    """Share of the frames of each snippet that hold sound [n_snippets]; the last may be padded."""
    before = np.r_[0, np.cumsum(has_sound)]  # sounding frames before each frame, and the end
    starts = hop * np.arange(n_snippets)
    ends = np.minimum(starts + n_frames, len(has_sound))
    shares: NDArray[np.float32] = ((before[ends] - before[starts]) / n_frames).astype(np.float32)
    return shares


def read_whitening(
    paths: RunPaths, bird_age: BirdAge, scope: DecoderScope = "all"
) -> tuple[Array, Array]:
    """Mean and standard deviation [latent_dim] that whiten the latents of a bird and age.

    Raises:
        BrokenFileError: the file is missing.
        BrokenSealError: it is not as it was written.
    """
    path = whitening_file(paths.latents, scope, *bird_age)
    facts = read_json(path)
    if facts is None:
        raise BrokenFileError(f"{path} is missing. Run the same command again: it is written anew.")
    return np.array(facts["mean"]), np.array(facts["std"])


def whitened(paths: RunPaths, bird_age: BirdAge, scope: DecoderScope = "all") -> list[Array]:
    """Sequences of whitened latents, one [n_snippets, latent_dim] per recording, float64."""
    return list(whitened_by_recording(paths, bird_age, scope).values())


def whitened_by_recording(
    paths: RunPaths, bird_age: BirdAge, scope: DecoderScope = "all"
) -> dict[str, Array]:
    """The same sequences by the path of their recording."""
    mean, std = read_whitening(paths, bird_age, scope)
    latents = read_latents(paths.latents, *bird_age)
    return {path: (z.astype(np.float64) - mean) / std for path, z in latents.items()}


def recording_lengths(paths: RunPaths, bird_age: BirdAge) -> dict[str, int]:
    """Number of snippets of every recording of a bird and age, in stored order."""
    table = read_table(partition(paths.latents, *bird_age), columns=["recording"])
    lengths: dict[str, int] = {}
    for pair in table["recording"].value_counts().to_pylist():
        lengths[pair["values"]] = pair["counts"]
    return lengths


def _before(study: Study) -> tuple[str, str]:
    return "recordings", decoder_stage(study.config.decoders.scope)


def _needs(study: Study) -> dict[str, Any]:
    return study.depends_on(*_before(study), hop=study.config.snippets.hop)


def _run(study: Study) -> StageResult:
    n_snippets = encode(study.config, study.recordings, study.paths, study.tasks, study.console)
    study.console.note(f"{n_snippets:,} snippets")
    hop = study.config.snippets.hop
    made = digest([*(study.ledger.done[stage].digest for stage in _before(study)), hop])
    return StageResult([study.paths.latents], made, {"n_snippets": n_snippets})


LATENTS = Stage("latents", needs=_needs, run=_run)
