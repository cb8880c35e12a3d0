"""Held-out songs of birds and ages: how near reconstructions and sampled songs come to them."""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from models.metrics.distances import frechet_distance, mean_and_cov
from models.metrics.held_out import HeldOut
from models.metrics.neighbours import neighbour_measures, neighbour_radii
from models.metrics.reference import WINDOW_PARTS, Reference
from models.metrics.songs import Songs

Array = NDArray[np.float64]

WINDOWS_PER_FEATURE = 8  # a covariance needs more windows than features
LEAST_SCALE = 0.3  # of the median bird and age: one that is silent must not drown the others


class HeldOutSong:
    """Windows of a bird and age's held-out song, and how near other song comes to them.

    Of each kind of window features the first n_windows / WINDOWS_PER_FEATURE are used, at most all.
    The two kinds count alike: each is divided by the root of its variance over the held-out
    windows. So 0 means "the same", and one sound for ever is about 1.

    Args:
        reference: of the study.
        features: `Reference.features` [n, n_features] of held-out snippets.
        lengths: snippets of each stretch.
        least_scales: of both kinds; a bird that is all but silent has no scale of its own.
    """

    def __init__(
        self,
        reference: Reference,
        features: Array,
        lengths: Sequence[int],
        least_scales: Sequence[float] = (0.0, 0.0),
    ):
        self.reference = reference
        windows = reference.window_features(features, lengths)
        self.n_snippets, self.n_windows = len(features), len(windows)
        n = max(1, self.n_windows // WINDOWS_PER_FEATURE)
        self._columns = [range(windows.shape[1])[part][:n] for part in WINDOW_PARTS]
        parts = [windows[:, columns] for columns in self._columns]
        spreads = spreads_of(windows, self._columns)
        self._scales = [
            max(spread, least) or 1.0 for spread, least in zip(spreads, least_scales, strict=True)
        ]
        self._parts = [part / scale for part, scale in zip(parts, self._scales, strict=True)]
        self._gaussians = [mean_and_cov(part) for part in self._parts]
        self._radii = neighbour_radii(np.hstack(self._parts))

    def frechet(self, features: Array, lengths: Sequence[int]) -> float:
        """Frechet distance of other song's windows to the held-out windows, mean of both kinds."""
        parts = zip(self._scaled(features, lengths), self._gaussians, strict=True)
        return float(
            np.mean([frechet_distance(*mean_and_cov(part), *real) for part, real in parts])
        )

    def coverage(self, features: Array, lengths: Sequence[int]) -> float:
        """Share of the held-out windows with a window of other song among their neighbours."""
        real, other = np.hstack(self._parts), np.hstack(self._scaled(features, lengths))
        return neighbour_measures(real, self._radii, other)["coverage"]

    def _scaled(self, features: Array, lengths: Sequence[int]) -> list[Array]:
        windows = self.reference.window_features(features, lengths)
        columns_and_scales = zip(self._columns, self._scales, strict=True)
        return [windows[:, columns] / scale for columns, scale in columns_and_scales]


def spreads_of(windows: Array, columns: Sequence[range | slice]) -> list[float]:
    """Root of the variance of windows [n, n_features] over each kind of features."""
    return [float(np.sqrt(windows[:, of_kind].var(0).sum())) for of_kind in columns]


class HeldOutSongs:
    """All held-out snippets of a study's songs, with what is computed from them once.

    Args:
        reference: of the study.
        songs: of all birds and ages that are measured.
        device: of the snippets, and of what is compared with them.

    Attributes:
        snippets: all held-out ones, birds and ages in order.
        rows: of each bird and age among them.
        training: all training snippets [n, 1, n_freq, n_frames], in the same order.
        of_song: windows of each bird and age; None where it has no part in the song metrics.
        frechet_real: distance of its training song to its held-out song; None where not known.
    """

    def __init__(self, reference: Reference, songs: tuple[Songs, ...], device: torch.device):
        self.songs = songs
        snippets = torch.from_numpy(np.concatenate([s.held_out for s in songs])).to(device)
        self.snippets = HeldOut(reference, snippets)
        ends = np.cumsum([len(s.held_out) for s in songs])
        self.rows = [slice(end - len(s.held_out), end) for s, end in zip(songs, ends, strict=True)]
        # Copies: what Ray shares is read-only.
        training = np.concatenate([s.training for s in songs])
        self.training = torch.from_numpy(training).to(device)
        parts = self.training.split([len(s.training) for s in songs])
        self.of_song: list[HeldOutSong | None] = []
        self.frechet_real: list[float | None] = []
        least = self._least_scales()
        for s, rows, seen in zip(songs, self.rows, parts, strict=True):
            song, real = None, None
            if s.has_song:
                features = self.snippets.raw_features[rows]
                song = HeldOutSong(reference, features, s.held_out_lengths, least)
                real = song.frechet(reference.features(seen), s.training_lengths)
            self.of_song.append(song)
            self.frechet_real.append(real)

    def _least_scales(self) -> list[float]:
        """LEAST_SCALE of the median spread of a bird and age, of both kinds of window features."""
        spreads = []
        for s, rows in zip(self.songs, self.rows, strict=True):
            if s.has_song:
                features = self.snippets.raw_features[rows]
                windows = self.snippets.reference.window_features(features, s.held_out_lengths)
                spreads.append(spreads_of(windows, WINDOW_PARTS))
        if not spreads:
            return [0.0, 0.0]
        scales: list[float] = (LEAST_SCALE * np.median(spreads, axis=0)).tolist()
        return scales


# Cached by identity: a training asks for the same objects at each of its reports.
@functools.lru_cache(maxsize=2)
def held_out_songs(
    reference: Reference, songs: tuple[Songs, ...], device: torch.device
) -> HeldOutSongs:
    """The `HeldOutSongs` of these objects, made once."""
    return HeldOutSongs(reference, songs, device)
