"""The data of a training: frames to learn from, and fixed held-out songs to measure it."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from data_io.files import atomic_file
from data_io.recordings.table import SELECTION, TRAINING, BirdAge, Recordings, data_hash
from data_io.snippets import FramePool, load_pool
from models.mdgan.params import MdganParams
from models.metrics.evaluation import OF_SONG
from models.metrics.neighbours import N_NEIGHBOURS
from models.metrics.reference import MAX_PCA_DIM, Reference, fit_reference
from models.metrics.songs import LEAST_WINDOWS, N_WINDOW, Songs, gather_songs
from study.base.errors import StudyError
from study.base.paths import RunPaths
from study.config.tree import StudyConfig

N_REFERENCE_SNIPPETS = 8000  # training snippets for the PCA of the reference


@dataclass(frozen=True)
class TrialData:
    """The data that all trials share; Ray keeps one copy per node, and workers read that copy.

    Attributes:
        pool: frames of training recordings.
        songs: of every bird and age with a held-out recording, the same for all trials.
        reference: measures all trials.
        sha256: hash of the recordings and their split.
    """

    pool: FramePool
    songs: tuple[Songs, ...]
    reference: Reference
    sha256: str


def load_trial_data(config: StudyConfig, recordings: Recordings, paths: RunPaths) -> TrialData:
    """Load frames and fixed held-out songs; fit and save the reference of the study.

    Raises:
        StudyError: trials are ranked by sampled songs, and no bird and age has song enough to
            compare them with.
    """
    pool = load_side(config, recordings, paths, TRAINING)
    songs = songs_beside(config, pool, recordings, paths, SELECTION)
    rng = np.random.default_rng(config.seed)
    seen = pool.crops(rng.integers(len(pool.starts), size=N_REFERENCE_SNIPPETS))
    reference = fit_reference(
        torch.from_numpy(seen),
        songs,
        config.seed,
        max(MAX_PCA_DIM, config.mdgan.n_components),  # the dense paths begin as its PCA
    )
    _check_song(config, pool, songs)
    with atomic_file(paths.reference) as temporary:
        reference.save(temporary)
    reference = Reference.load(paths.reference)
    return TrialData(pool, songs, reference, data_hash(recordings))


def _check_song(config: StudyConfig, pool: FramePool, songs: tuple[Songs, ...]) -> None:
    n_held_out = sum(len(s.held_out) for s in songs)
    if n_held_out <= N_NEIGHBOURS:
        raise StudyError(
            f"The selection side holds {n_held_out} snippets, {N_NEIGHBOURS + 1} are needed to "
            "measure a trial. Give more or longer recordings, or raise snippets.selection_fraction."
        )
    if lacks_sound(config.mdgan, pool):
        raise StudyError(
            "No frame of the training recordings holds sound: there is no song to learn. Look at "
            "them with `check`, or set mdgan.minibatch=uniform to learn silence."
        )
    of_song = {*config.search.lowered, config.search.compared} & OF_SONG
    if of_song and not any(s.has_song for s in songs):
        raise StudyError(
            f"None of {len(songs)} birds and ages has {LEAST_WINDOWS} held-out windows of "
            f"{N_WINDOW} consecutive snippets, so no sampled song can be compared, as "
            f"{' and '.join(sorted(of_song))} needs. Give more or longer recordings, or set "
            "search.objective=valid/recon_l1."
        )


def lacks_sound(params: MdganParams, pool: FramePool) -> bool:
    """Whether balanced minibatches have nothing to draw from: no frame holds sound."""
    is_known = len(pool.has_sound) > 0
    return params.minibatch == "balanced" and is_known and not pool.has_sound.any()


def load_side(config: StudyConfig, recordings: Recordings, paths: RunPaths, side: str) -> FramePool:
    """Load the frames of one side of the split."""
    n_frames, max_frames = config.snippets.n_frames, config.max_frames(side)
    return load_pool(paths.spectrograms, recordings, side, n_frames, max_frames, config.seed)


def songs_beside(
    config: StudyConfig, training: FramePool, recordings: Recordings, paths: RunPaths, side: str
) -> tuple[Songs, ...]:
    """Load the songs of a held-out side, beside the frames of the training side.

    Those of the selection side measure every trial.
    """
    held_out = load_side(config, recordings, paths, side)
    return gather_songs(
        training.by_recording(),
        held_out.by_recording(),
        config.snippets.n_frames,
        config.search.n_eval_snippets,
        config.seed,
    )


@dataclass(frozen=True)
class HeldOutSnippets:
    """The held-out snippets that measure every trial, and where they come from.

    Attributes:
        snippets: [n, 1, n_freq, n_frames] log(1 + magnitude).
        birds_and_ages: [n] bird and age of each.
    """

    snippets: NDArray[np.float32]
    birds_and_ages: list[BirdAge]


def load_held_out(config: StudyConfig, recordings: Recordings, paths: RunPaths) -> HeldOutSnippets:
    """Load the snippets that measured the trials, each with its bird and age."""
    held_out = load_side(config, recordings, paths, SELECTION).by_recording()
    songs = gather_songs(
        {}, held_out, config.snippets.n_frames, config.search.n_eval_snippets, config.seed
    )
    return HeldOutSnippets(
        np.concatenate([s.held_out for s in songs]),
        [(s.bird, s.age) for s in songs for _ in s.held_out],
    )
