"""All checks of one bird and age: of latents, and of what is heard of them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from models.checks.compare import Check, Song, Statistic, compare
from models.checks.params import ChecksParams
from models.checks.statistics import autocorrelation, order_information, quantiles, run_lengths
from models.checks.windows import check_windows
from models.hmm.song_hmm import SongHmm

Array = NDArray[np.float64]

LAGS_MS = tuple(range(64, 513, 64))
N_STRETCHES = 20


class Heard(Protocol):
    """What is measured of the sound of one song, as `data_io.song_measures.SongMeasures`."""

    @property
    def sounds_ms(self) -> Array:
        """How long each sound lasts."""

    @property
    def gaps_ms(self) -> Array:
        """How long each gap between sounds lasts."""

    @property
    def loudness_db(self) -> Array:
        """Of every frame."""

    @property
    def pitch_hz(self) -> Array:
        """Of every voiced frame."""


def check_latents(
    model: SongHmm,
    sequences: Sequence[Array],
    snippet_ms: float,
    params: ChecksParams,
    seed: int,
) -> list[Check]:
    """Check dwell, order and windows of a model of songs.

    Real and sampled songs are named by the same model, so that its mistakes are in both.

    Args:
        model: of the songs.
        sequences: real latents [n_snippets, latent_dim] of each song, as the model takes them.
        snippet_ms: from one snippet to the next.
        params: how much is sampled.
        seed: of all that is drawn.
    """
    drawn = stretches([len(z) for z in sequences], params.n_snippets, seed)
    real = [sequences[part.song][part.start : part.stop] for part in drawn]
    lengths = [len(song) for song in real]
    replicas = [
        model.sample_songs(lengths, seed + 1 + i)[0] for i in range(params.n_replicas)
    ]  # fmt: skip
    named = model.states(real)
    named_replicas = [model.states(songs) for songs in replicas]

    def dwell(songs: Sequence[Song]) -> Array:
        return quantiles([snippet_ms * run_lengths(song) for song in songs])

    def order(songs: Sequence[Song]) -> Array:
        return np.array([order_information(songs)])

    return [
        compare(Statistic("dwell", "ms", dwell, "runs of a state"), named, named_replicas, seed),
        compare(
            Statistic("order", "bits", order, "snippets in a row"),
            named, named_replicas, seed,
        ),
        check_windows(real, replicas, seed),
    ]  # fmt: skip


def check_sounds(
    real: Sequence[Heard],
    replicas: Sequence[Sequence[Heard]],
    reconstruction: Sequence[Heard],
    frame_ms: float,
    seed: int,
) -> list[Check]:
    """Check durations, loudness and pitch of decoded songs.

    Args:
        real: the recordings, song by song.
        replicas: sampled songs, decoded.
        reconstruction: the recordings, encoded and decoded.
        frame_ms: from one frame to the next.
        seed: of the halves.
    """
    return [
        compare(
            statistic,
            [of(song) for song in real],
            [[of(song) for song in songs] for songs in replicas],
            seed,
            [of(song) for song in reconstruction],
        )
        for statistic, of in sound_statistics(frame_ms)
    ]


def sound_statistics(frame_ms: float) -> list[tuple[Statistic, Callable[[Heard], Array]]]:
    """What is compared of sound, and what of a song each takes."""
    lags = [round(lag / frame_ms) for lag in LAGS_MS]

    def loudness(songs: Sequence[Song]) -> Array:
        return autocorrelation(songs, lags)

    long_enough = f"frames {LAGS_MS[-1]} ms apart"
    return [
        (Statistic("sounds", "ms", quantiles, "sounds"), lambda song: song.sounds_ms),
        (Statistic("gaps", "ms", quantiles, "gaps between sounds"), lambda song: song.gaps_ms),
        (Statistic("loudness", "r", loudness, long_enough), lambda song: song.loudness_db),
        (Statistic("pitch", "Hz", quantiles, "voiced frames"), lambda song: song.pitch_hz),
    ]


class Stretch(NamedTuple):
    """Part of a song: which song, its first snippet, and the one after its last."""

    song: int
    start: int
    stop: int


def stretches(lengths: Sequence[int], n_snippets: int, seed: int) -> list[Stretch]:
    """Parts of songs, drawn until they have ``n_snippets`` snippets.

    A part has at most a twentieth of that: a few long recordings still have halves.

    Args:
        lengths: snippets of each song.
        n_snippets: of all parts together, at most.
        seed: of the draw.
    """
    longest = max(n_snippets // N_STRETCHES, 1)
    parts = [
        Stretch(song, start, min(start + longest, length))
        for song, length in enumerate(lengths)
        for start in range(0, length, longest)
    ]
    order = np.random.default_rng(seed).permutation(len(parts))
    n_so_far = np.cumsum([parts[i].stop - parts[i].start for i in order])
    return [parts[i] for i in order[n_so_far <= n_snippets]]
