"""The data of a training: frames to learn from, and fixed held-out snippets to measure it."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from data_io.files import atomic_file
from data_io.recordings.table import SIDES, BirdAge, Recordings, data_hash
from data_io.snippets import FramePool, load_pool
from models.metrics.reference import MAX_PCA_DIM, Reference, fit_reference
from study.base.paths import RunPaths
from study.config.tree import StudyConfig

N_REFERENCE_SNIPPETS = 8000  # training snippets for the PCA of the reference


@dataclass(frozen=True)
class TrialData:
    """The data that all trials share; Ray keeps one copy per node, and workers read that copy.

    Attributes:
        pool: frames of training recordings.
        valid: [n, 1, n_freq, n_frames] held-out snippets, the same for all trials.
        reference: measures all trials.
        sha256: hash of the recordings and their split.
    """

    pool: FramePool
    valid: np.ndarray
    reference: Reference
    sha256: str


def load_trial_data(config: StudyConfig, recordings: Recordings, paths: RunPaths) -> TrialData:
    """Load frames and fixed held-out snippets; fit and save the reference of the study."""
    train, held_out = (load_side(config, recordings, paths, side) for side in SIDES[:2])
    rng = np.random.default_rng(config.seed)
    valid = held_out.crops(choose_held_out(config, held_out, rng))
    seen = train.crops(rng.integers(len(train.starts), size=N_REFERENCE_SNIPPETS))
    reference = fit_reference(
        torch.from_numpy(seen),
        torch.from_numpy(valid),
        config.seed,
        max(MAX_PCA_DIM, config.mdgan.n_components),  # the dense paths begin as its PCA
    )
    with atomic_file(paths.reference) as temporary:
        reference.save(temporary)
    reference = Reference.load(paths.reference)
    return TrialData(train, valid, reference, data_hash(recordings))


@dataclass(frozen=True)
class HeldOutSnippets:
    """The held-out snippets that measure every trial, and where they come from.

    Attributes:
        snippets: [n, 1, n_freq, n_frames] log(1 + magnitude).
        birds_and_ages: [n] bird and age of each.
    """

    snippets: NDArray[np.float32]
    birds_and_ages: list[BirdAge]


def load_side(config: StudyConfig, recordings: Recordings, paths: RunPaths, side: str) -> FramePool:
    """Load the frames of one side of the split."""
    n_frames, max_frames = config.snippets.n_frames, config.max_frames(side)
    return load_pool(paths.spectrograms, recordings, side, n_frames, max_frames, config.seed)


def choose_held_out(
    config: StudyConfig, pool: FramePool, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Choose the held-out snippets that measure trials, as indices [n] into ``pool.starts``.

    It must be the first use of ``rng``, so that a study's choice follows from its seed alone.
    """
    return rng.integers(len(pool.starts), size=config.search.n_eval_snippets)


def load_held_out(config: StudyConfig, recordings: Recordings, paths: RunPaths) -> HeldOutSnippets:
    """Load the snippets that measured the trials, each with its bird and age."""
    pool = load_side(config, recordings, paths, "selection")
    choice = choose_held_out(config, pool, np.random.default_rng(config.seed))
    return HeldOutSnippets(pool.crops(choice), pool.birds_and_ages(choice))
