"""All checks of one bird and age: of latents, and of what is heard of them."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.checks.compare import Check, Song, Statistic, compare
from models.checks.params import ChecksParams
from models.checks.statistics import autocorrelation, order_information, quantiles, run_lengths
from models.checks.windows import check_windows
from models.hmm.song_hmm import SongHmm

Array = NDArray[np.float64]

LAGS_MS = tuple(range(64, 513, 64))


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
    real = some_songs(sequences, params.n_snippets, seed)
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
            Statistic("order", "bits", order, "three snippets in a row"),
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


def some_songs(songs: Sequence[Array], n_snippets: int, seed: int) -> list[Array]:
    """Songs in an order drawn by ``seed``, until they have so many snippets; the last is cut."""
    chosen: list[Array] = []
    left = n_snippets
    for i in np.random.default_rng(seed).permutation(len(songs)):
        if left > 0 and len(songs[i]):
            chosen.append(songs[i][:left])
            left -= len(chosen[-1])
    return chosen
