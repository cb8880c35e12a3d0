"""Amounts of song: all there is, half of it, a quarter, ..., in whole recordings.

The recordings of a subsample stand in one random order, and an amount is the first of them. So the
smaller amounts of a subsample are part of its larger ones, and what a doubling gains is a
difference within a subsample.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_io.recordings.table import REPORT, SELECTION, TRAINING, BirdAge, Recordings
from models.hmm import HmmParams
from study.base.seeds import bird_age_seed

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Song:
    """The recordings of one bird and age that are fitted, and those that are held out.

    Attributes:
        bird_age: bird and age.
        fitted: paths of the recordings of the training side.
        held_out: those of the report side; of the selection side where there is none.
        sound_minutes: [n_fitted] minutes of sound in each.
        recorded_minutes: [n_fitted] minutes of each, silence included.
        n_snippets: [n_fitted] of each.
        new_share: share of a snippet that the one before did not hold.
    """

    bird_age: BirdAge
    fitted: tuple[str, ...]
    held_out: tuple[str, ...]
    sound_minutes: Array
    recorded_minutes: Array
    n_snippets: NDArray[np.int64]
    new_share: float

    @property
    def n_observations(self) -> float:
        """Snippets of all recordings that are fitted, less what they share."""
        return float(self.n_snippets.sum()) * self.new_share


@dataclass(frozen=True)
class Amount:
    """An amount of song of one bird and age, in one subsample.

    Attributes:
        halvings: of all the song there is; 0 is all of it.
        subsample: its number.
        chosen: places in `Song.fitted`.
    """

    halvings: int
    subsample: int
    chosen: tuple[int, ...]


def song_of(
    bird_age: BirdAge, recordings: Recordings, lengths: dict[str, int], new_share: float
) -> Song:
    """The song of one bird and age.

    Args:
        bird_age: bird and age.
        recordings: its own, those that are used.
        lengths: snippets of every recording that has any.
        new_share: share of a snippet that the one before did not hold.
    """
    recordings = recordings.where(np.array([path in lengths for path in recordings.column("path")]))
    training, report = recordings.on(TRAINING), recordings.on(REPORT)
    held_out = report if len(report) else recordings.on(SELECTION)
    paths = training.column("path")
    return Song(
        bird_age,
        tuple(paths),
        tuple(held_out.column("path")),
        training.column("sound_s").astype(np.float64) / 60,
        training.column("seconds") / 60,
        np.array([lengths[path] for path in paths], dtype=np.int64),
        new_share,
    )


def amounts(song: Song, params: HmmParams, study_seed: int, subsample: int) -> list[Amount]:
    """All amounts of one subsample, the largest first.

    An amount is the number of recordings whose minutes of sound are nearest to it. The smallest is
    the last that leaves, on average, as much as the study asks of a bird and age for a model
    (``hmm.min_snippets``, ``hmm.min_recordings``).

    Args:
        song: of a bird and age.
        params: of the study.
        study_seed: of the study.
        subsample: its number; with the study's seed it decides the order of the recordings.
    """
    seed = [bird_age_seed(study_seed, song.bird_age), subsample]
    order = np.random.default_rng(seed).permutation(len(song.fitted))
    until = np.cumsum(song.sound_minutes[order])
    found: list[Amount] = []
    n_before = len(order) + 1
    for halvings in range(64):
        part = 2.0**-halvings
        is_enough = (
            part * song.n_observations >= params.min_snippets
            and part * len(order) >= params.min_recordings
        )
        n = len(order) if halvings == 0 else 1 + int(np.abs(until - part * until[-1]).argmin())
        n = min(n, n_before - 1)
        if n < 1 or (halvings and not is_enough):
            break
        found.append(Amount(halvings, subsample, tuple(int(i) for i in order[:n])))
        n_before = n
    return found
