"""Recordings, held-out snippets and one training, for the benchmarks of the decoder."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_io.aviary.params import AviaryParams
from data_io.aviary.write import simulate_aviary
from data_io.names.listing import survey
from data_io.recordings.bird_age import read_bird_age
from data_io.recordings.reading import ReadParams
from data_io.recordings.split import assign_split
from data_io.recordings.table import BirdAge, Recording, Recordings, skip_duplicates
from data_io.snippets import FramePool, snippet_starts
from data_io.spectrogram import SpectrogramParams
from data_io.store import read_spectrograms
from models.mdgan.frames import Balance, Frames
from models.mdgan.model import Mdgan
from models.mdgan.params import MdganParams
from models.mdgan.training import TrainingFailedError, TrainingReport, train
from models.metrics.evaluation import evaluate
from models.metrics.reference import Reference, fit_reference
from models.metrics.songs import Songs, gather_songs

N_FRAMES = 16
N_HELD_OUT = 2000  # snippets that metrics are computed on
N_REFERENCE = 16_000
SPECTROGRAM = SpectrogramParams()


class Loaded(NamedTuple):
    """A recording with its side of the split, and its spectrogram.

    Attributes:
        recording: as a study reads it.
        spectrogram: [n_freq, n_frames].
        has_sound: [n_frames].
    """

    recording: Recording
    spectrogram: NDArray[np.float32]
    has_sound: NDArray[np.bool_]


@dataclass(frozen=True)
class Material:
    """What decoders are trained and measured on.

    Attributes:
        loaded: all recordings.
        train_pool: frames for training.
        valid_pool: held-out frames.
        songs: held-out songs, N_HELD_OUT snippets where there are as many.
        reference: what all are measured by.
    """

    loaded: list[Loaded]
    train_pool: FramePool
    valid_pool: FramePool
    songs: tuple[Songs, ...]
    reference: Reference


def material(data: Path | None, bird: str | None, seed: int) -> Material:
    """Read recordings, or simulate birds, and split them."""
    with tempfile.TemporaryDirectory() as folder:
        if data is None:
            simulate_aviary(Path(folder) / "aviary", AviaryParams(), seed)
        loaded = load(data or Path(folder) / "aviary", bird)
    return material_of(loaded, seed)


def material_of(loaded: list[Loaded], seed: int) -> Material:
    """Pools of frames, held-out songs and the reference."""
    train_pool, valid_pool = (pool(loaded, side) for side in ("training", "selection"))
    rng = torch.Generator().manual_seed(seed)
    songs = gather_songs(
        train_pool.by_recording(), valid_pool.by_recording(), N_FRAMES, N_HELD_OUT, seed
    )
    reference = fit_reference(crops(train_pool, N_REFERENCE, rng), songs, seed)
    return Material(loaded, train_pool, valid_pool, songs, reference)


def load(
    root: Path, bird: str | None, spectrogram: SpectrogramParams = SPECTROGRAM
) -> list[Loaded]:
    """Read recordings as a study reads them, and split them.

    Args:
        root: folder of recordings.
        bird: the only one to read; None for all.
        spectrogram: by default high-passed, and each bird and age at its level.
    """
    params = ReadParams(min_seconds=N_FRAMES * spectrogram.frame_s, spectrogram=spectrogram)
    parts, stored = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for bird_age, listed in survey(root).recordings.used.by_bird_age().items():
            if bird is None or bird == bird_age[0]:
                part = read_bird_age(root, listed, params, Path(folder))
                parts.append(part)
                if len(part.used):
                    for name, *kept in read_spectrograms(Path(folder), *bird_age):
                        stored[name] = kept
    split = assign_split(skip_duplicates(Recordings.joined(parts)), 0.15, 0.15, seed=0)
    return [Loaded(r, *stored[r.path]) for r in split if r.is_used]


def pool(loaded: list[Loaded], side: str) -> FramePool:
    """Frames of one side of the split, end to end, for random crops."""
    chosen = sorted(
        (one for one in loaded if one.recording.split == side),
        key=lambda one: (one.recording.bird, one.recording.age),
    )
    frames = np.ascontiguousarray(np.concatenate([one.spectrogram.T for one in chosen]))
    lengths = [len(one.has_sound) for one in chosen]
    frames_of: dict[BirdAge, int] = {}
    for one, length in zip(chosen, lengths, strict=True):
        bird_age = one.recording.bird, one.recording.age
        frames_of[bird_age] = frames_of.get(bird_age, 0) + length
    has_sound = np.concatenate([one.has_sound for one in chosen])
    starts = snippet_starts(lengths, N_FRAMES)
    return FramePool(frames, starts, N_FRAMES, frames_of, has_sound, tuple(lengths))


def crops(of: FramePool, n: int, rng: torch.Generator) -> Tensor:
    """Random snippets [n, 1, n_freq, n_frames]."""
    return Frames(of.frames, of.starts, of.n_frames, torch.device("cpu")).sample(n, rng)


def trained(params: MdganParams, on: Material, seed: int) -> tuple[Mdgan, dict[str, float]]:
    """A model after its training, and its held-out metrics; without any where it failed."""
    model = Mdgan(params, N_FRAMES, seed, pca=on.reference.pca)
    reports: list[TrainingReport] = []
    of = on.train_pool
    balance = Balance.of(params, of.has_sound, of.frames_of.values())
    try:
        train(
            model,
            Frames(of.frames, of.starts, of.n_frames, model.device, balance),
            lambda trained: evaluate(trained, on.reference, on.songs, seed),
            reports.append,
        )
    except TrainingFailedError as error:
        print(error)
        return model, {}
    return model, reports[-1].metrics
