"""Random snippets for training, from one contiguous block of frames."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_io.recordings.table import SIDES, BirdAge, Recordings
from data_io.store import N_FREQ, read_spectrograms

MOST_MINUTES = 100_000


@dataclass(frozen=True)
class SnippetParams:
    """Length and hop of snippets, and the shares of the sound that are held out, bout by bout.

    Attributes:
        n_frames: frames in a snippet.
        hop: frames from one snippet of a recording to the next, where it becomes latents, from 1
            to n_frames. Snippets overlap where it is less. Trainings draw snippets at random
            and measure them end to end, whatever it is.
        selection_fraction: share of each bird and age on which trials are compared.
        report_fraction: share of each bird and age that the chosen decoder alone is measured on.
        max_minutes: most minutes of sound to load for training, and a quarter of it for
            evaluation; a larger study gives evenly from all birds and ages.
    """

    n_frames: int = 16
    hop: int = 4
    selection_fraction: float = 0.15
    report_fraction: float = 0.15
    max_minutes: float = 120.0

    def __post_init__(self) -> None:
        if self.n_frames < 1:
            raise ValueError(
                f"n_frames is {self.n_frames}: a snippet has 1 frame or more; 16 is usual."
            )
        if not 1 <= self.hop <= self.n_frames:
            raise ValueError(
                f"hop is {self.hop}: snippets of {self.n_frames} frames leave none out between "
                f"them with a hop from 1 to {self.n_frames}; 4 is usual, {self.n_frames} puts them "
                "end to end."
            )
        for name in ("selection_fraction", "report_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must lie between 0 and 1.")
        if not self.selection_fraction + self.report_fraction < 1:
            raise ValueError(
                f"selection_fraction ({self.selection_fraction}) and report_fraction "
                f"({self.report_fraction}) leave nothing for training: lower them."
            )
        if not 0 < self.max_minutes <= MOST_MINUTES:
            raise ValueError(
                f"max_minutes is {self.max_minutes}: it must be above 0, and {MOST_MINUTES:,} or "
                "less: a thousand minutes of frames take 7.7 GB of memory."
            )

    @property
    def new_share(self) -> float:
        """Share of a snippet that the one before did not hold."""
        return self.hop / self.n_frames


@dataclass(frozen=True)
class FramePool:
    """Frames of many recordings end to end, and where snippets may start.

    Attributes:
        frames: [n_total_frames, n_freq] float32; one frame is contiguous.
        starts: [n_starts] index of every frame where a snippet may start; no snippet reaches over
            the end of its recording.
        n_frames: frames in a snippet.
        frames_of: number of frames of each bird and age, in the order of ``frames``.
        has_sound: [n_total_frames] whether each frame holds sound; empty where nobody told.
        lengths: number of frames of each recording, in the order of ``frames``; recordings of one
            bird and age are adjacent.
    """

    frames: NDArray[np.float32]
    starts: NDArray[np.int64]
    n_frames: int
    frames_of: dict[BirdAge, int] = field(default_factory=dict)
    has_sound: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    lengths: tuple[int, ...] = ()

    def crops(self, choice: NDArray[np.int64]) -> NDArray[np.float32]:
        """Snippets [n, 1, n_freq, n_frames] that begin at ``starts[choice]``; always a copy."""
        rows = self.starts[choice][:, None] + np.arange(self.n_frames)
        return np.ascontiguousarray(self.frames[rows].swapaxes(1, 2))[:, None]

    def by_recording(self) -> dict[BirdAge, list[NDArray[np.float32]]]:
        """Frames [n_recording_frames, n_freq] of every recording, by bird and age; no copies.

        Raises:
            ValueError: ``lengths`` or ``frames_of`` does not count all frames of the pool.
        """
        counted = {sum(self.lengths), sum(self.frames_of.values())}
        if counted != {len(self.frames)}:
            raise ValueError(
                f"lengths and frames_of count {sorted(counted)} frames, the pool holds "
                f"{len(self.frames)}: make the pool with load_pool."
            )
        bird_ages, ends = list(self.frames_of), np.cumsum(list(self.frames_of.values()))
        found: dict[BirdAge, list[NDArray[np.float32]]] = {}
        start = 0
        for length in self.lengths:
            if length:
                of = bird_ages[int(np.searchsorted(ends, start, side="right"))]
                found.setdefault(of, []).append(self.frames[start : start + length])
            start += length
        return found


def load_pool(
    folder: Path,
    recordings: Recordings,
    side: str,
    n_frames: int,
    max_frames: int,
    seed: int,
) -> FramePool:
    """Load frames of one side of the split.

    Args:
        folder: of all spectrograms.
        recordings: of the study.
        side: of the split, one of `data_io.recordings.SIDES`.
        n_frames: frames in a snippet.
        max_frames: stop adding recordings here.
        seed: of the choice, if not all fit.

    Raises:
        ValueError: no recording is on this side.
    """
    chosen = _choose(recordings.on(side), max_frames, seed)
    if not chosen:
        raise ValueError(
            f"No recording is on the {side} side of the split: a bird needs "
            f"{SIDES.index(side) + 1} bouts at one age. Give more recordings."
        )
    blocks, sounds = [np.zeros((0, N_FREQ), "f4")], [np.zeros(0, np.bool_)]
    lengths = []
    frames_of: dict[BirdAge, int] = {}
    for (bird, age), paths in sorted(chosen.items()):
        for _, spectrogram, has_sound in read_spectrograms(folder, bird, age, only=paths):
            blocks.append(spectrogram.T)
            sounds.append(has_sound)
            lengths.append(spectrogram.shape[1])
            frames_of[bird, age] = frames_of.get((bird, age), 0) + spectrogram.shape[1]
    frames = np.ascontiguousarray(np.concatenate(blocks, dtype=np.float32))
    starts = snippet_starts(lengths, n_frames)
    has_sound = np.concatenate(sounds)
    return FramePool(frames, starts, n_frames, frames_of, has_sound, tuple(lengths))


def snippet_starts(lengths: Iterable[int], n_frames: int) -> NDArray[np.int64]:
    """Every frame at which a snippet may start, for recordings of ``lengths`` frames end to end."""
    starts, offset = [np.zeros(0, np.int64)], 0
    for length in lengths:
        starts.append(offset + np.arange(max(length - n_frames + 1, 0), dtype=np.int64))
        offset += length
    return np.concatenate(starts)


def _choose(candidates: Recordings, max_frames: int, seed: int) -> dict[BirdAge, set[str]]:
    """Take recordings in turn from every bird and age, in an order drawn by ``seed``.

    Stop once they hold ``max_frames`` frames. Gives the paths of each bird and age.
    """
    rng = np.random.default_rng(seed)
    by_path = candidates.taken(np.argsort(candidates.column("path"), kind="stable"))
    queues: dict[BirdAge, tuple[list[str], list[int]]] = {}
    for bird_age, group in by_path.by_bird_age().items():
        order = rng.permutation(len(group))
        shuffled = group.taken(order)
        queues[bird_age] = (
            shuffled.column("path").tolist(), shuffled.column("n_frames").tolist(),
        )  # fmt: skip
    chosen: dict[BirdAge, set[str]] = {}
    total = 0
    for turn in range(max((len(paths) for paths, _ in queues.values()), default=0)):
        for bird_age, (paths, lengths) in queues.items():
            if total >= max_frames:
                return chosen
            if turn < len(paths):
                chosen.setdefault(bird_age, set()).add(paths[turn])
                total += lengths[turn]
    return chosen
