"""Random snippets for training, from one contiguous block of frames."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_io.recordings import BirdAge, Recording
from data_io.store import N_FREQ, read_spectrograms

MOST_MINUTES = 100_000


@dataclass(frozen=True)
class SnippetParams:
    """Length of a snippet, and the share of recordings that is held out.

    Attributes:
        n_frames: frames in a snippet.
        valid_fraction: share of the recordings of each bird and age that is held out.
        max_minutes: most minutes of sound to load for training, and a quarter of it for
            evaluation; a larger study gives evenly from all birds and ages.
    """

    n_frames: int = 16
    valid_fraction: float = 0.2
    max_minutes: float = 120.0

    def __post_init__(self) -> None:
        if not 0 < self.valid_fraction < 1:
            raise ValueError(
                f"valid_fraction is {self.valid_fraction}: it must lie between 0 and 1."
            )
        if not 0 < self.max_minutes <= MOST_MINUTES:
            raise ValueError(
                f"max_minutes is {self.max_minutes}: it must be above 0, and {MOST_MINUTES:,} or "
                "less: a thousand minutes of frames take 7.7 GB of memory."
            )


@dataclass(frozen=True)
class FramePool:
    """Frames of many recordings end to end, and where snippets may start.

    Attributes:
        frames: [n_total_frames, n_freq] float32; one frame is contiguous.
        starts: [n_starts] index of every frame where a snippet may start; no snippet reaches over
            the end of its recording.
        n_frames: frames in a snippet.
        frames_of: number of frames of each bird and age, in the order of ``frames``.
    """

    frames: NDArray[np.float32]
    starts: NDArray[np.int64]
    n_frames: int
    frames_of: dict[BirdAge, int] = field(default_factory=dict)

    def crops(self, choice: NDArray[np.int64]) -> NDArray[np.float32]:
        """Snippets [n, 1, n_freq, n_frames] that begin at ``starts[choice]``; always a copy."""
        rows = self.starts[choice][:, None] + np.arange(self.n_frames)
        return np.ascontiguousarray(self.frames[rows].swapaxes(1, 2))[:, None]

    def birds_and_ages(self, choice: NDArray[np.int64]) -> list[BirdAge]:
        """Bird and age of each snippet that begins at ``starts[choice]``.

        Raises:
            ValueError: ``frames_of`` does not count all frames of the pool.
        """
        bird_ages, ends = list(self.frames_of), np.cumsum(list(self.frames_of.values()))
        if sum(self.frames_of.values()) != len(self.frames):
            raise ValueError(
                f"frames_of counts {sum(self.frames_of.values())} frames, the pool holds "
                f"{len(self.frames)}: make the pool with load_pool."
            )
        return [bird_ages[i] for i in np.searchsorted(ends, self.starts[choice], side="right")]


def load_pool(
    folder: Path,
    recordings: list[Recording],
    split: str,
    n_frames: int,
    max_frames: int,
    seed: int,
) -> FramePool:
    """Load frames of one side of the split.

    Args:
        folder: of all spectrograms.
        recordings: of the study.
        split: "train" or "valid".
        n_frames: frames in a snippet.
        max_frames: stop adding recordings here.
        seed: of the choice, if not all fit.

    Raises:
        ValueError: no recording is on this side.
    """
    chosen = _choose([r for r in recordings if r.split == split], max_frames, seed)
    if not chosen:
        raise ValueError(
            f"No recording is on the side {split!r} of the split: a bird needs two usable "
            "recordings at one age. Give more recordings."
        )
    lengths, blocks = [], []
    groups: dict[BirdAge, set[str]] = {}
    frames_of: dict[BirdAge, int] = {}
    for recording in chosen:
        groups.setdefault((recording.bird, recording.age), set()).add(recording.path)
    for (bird, age), paths in sorted(groups.items()):
        for _, spectrogram in read_spectrograms(folder, bird, age, only=paths):
            blocks.append(spectrogram.T)
            lengths.append(spectrogram.shape[1])
            frames_of[bird, age] = frames_of.get((bird, age), 0) + spectrogram.shape[1]
    frames = np.concatenate(blocks, dtype=np.float32) if blocks else np.zeros((0, N_FREQ), "f4")
    starts = snippet_starts(lengths, n_frames)
    return FramePool(np.ascontiguousarray(frames), starts, n_frames, frames_of)


def snippet_starts(lengths: Iterable[int], n_frames: int) -> NDArray[np.int64]:
    """Every frame at which a snippet may start, for recordings of ``lengths`` frames end to end."""
    starts, offset = [np.zeros(0, np.int64)], 0
    for length in lengths:
        starts.append(offset + np.arange(max(length - n_frames + 1, 0), dtype=np.int64))
        offset += length
    return np.concatenate(starts)


def _choose(candidates: list[Recording], max_frames: int, seed: int) -> list[Recording]:
    """Take recordings in turn from every bird and age, in an order drawn by ``seed``.

    Stop once they hold ``max_frames`` frames.
    """
    rng = np.random.default_rng(seed)
    queues: dict[BirdAge, list[Recording]] = {}
    for recording in sorted(candidates, key=lambda r: r.path):
        queues.setdefault((recording.bird, recording.age), []).append(recording)
    shuffled = [[queue[i] for i in rng.permutation(len(queue))] for queue in queues.values()]
    chosen: list[Recording] = []
    total = 0
    for turn in range(max(map(len, shuffled), default=0)):
        for queue in shuffled:
            if turn < len(queue) and total < max_frames:
                chosen.append(queue[turn])
                total += queue[turn].n_frames
    return chosen
