"""The snippets that all trials of a study share: for training, and the fixed held-out ones."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_io.recordings import Recording
from data_io.snippets import FramePool, load_pool
from study.config import StudyConfig
from study.ingest import BirdAge
from study.paths import RunPaths


@dataclass(frozen=True)
class HeldOutSnippets:
    """The held-out snippets that every trial is measured on, and where they are from.

    Attributes:
        snippets: [n, 1, n_freq, n_frames] log(1 + magnitude).
        birds_and_ages: [n] bird and age of each.
    """

    snippets: NDArray[np.float32]
    birds_and_ages: list[BirdAge]


def load_side(
    config: StudyConfig, recordings: list[Recording], paths: RunPaths, split: str
) -> FramePool:
    """Frames of one side of the split, "train" or "valid"."""
    n_frames, max_frames = config.snippets.n_frames, config.max_frames(split)
    return load_pool(paths.spectrograms, recordings, split, n_frames, max_frames, config.seed)


def choose_held_out(
    config: StudyConfig, pool: FramePool, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Which of ``pool.starts`` trials are measured on.

    It must be what ``rng`` is used for first: so a study's choice follows from its seed alone.
    """
    return rng.integers(len(pool.starts), size=config.search.n_eval_snippets)


def load_held_out(
    config: StudyConfig, recordings: list[Recording], paths: RunPaths
) -> HeldOutSnippets:
    """The snippets that the trials were measured on, each with its bird and age."""
    pool = load_side(config, recordings, paths, "valid")
    choice = choose_held_out(config, pool, np.random.default_rng(config.seed))
    return HeldOutSnippets(pool.crops(choice), pool.birds_and_ages(choice))
