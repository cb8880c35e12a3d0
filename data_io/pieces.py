"""A long recording cut into pieces where it is quietest."""

import numpy as np

from data_io.sounding import Energies
from data_io.spectrogram import Magnitude

Piece = tuple[int, Magnitude, Energies]

_QUIET_FRAMES = 50  # a cut lies in the middle of these: 0.2 s, longer than gaps within song


class Pieces:
    """Cuts a stream of frames into pieces that can be recordings of their own.

    Where more than ``longest_frames`` come, a piece ends at the quietest place between two thirds
    of that and all of it. No piece of a long recording is shorter than a third. At most 4/3 of the
    longest piece is held.

    Args:
        longest_frames: longest length of a piece, in frames.

    Raises:
        ValueError: longest_frames is below 3.
    """

    def __init__(self, longest_frames: int) -> None:
        if longest_frames < 3:
            raise ValueError(f"longest_frames is {longest_frames}: it must be 3 or more.")
        self._longest = longest_frames
        self._first = 0
        self._magnitudes: list[Magnitude] = []
        self._energies: list[Energies] = []
        self._n_held = 0

    def push(self, magnitude: Magnitude, energy_db: Energies) -> list[Piece]:
        """Take frames and give the pieces that are finished.

        Args:
            magnitude: [n_freq, k].
            energy_db: [k], see `data_io.sounding.frame_energy_db`.

        Returns:
            (index of its first frame in the recording, magnitude, energies) of each.
        """
        room = self._longest + self._longest // 3
        pieces: list[Piece] = []
        for start in range(0, magnitude.shape[1], room):
            part = slice(start, start + room)
            self._magnitudes.append(magnitude[:, part].copy())
            self._energies.append(energy_db[part].copy())
            self._n_held += self._magnitudes[-1].shape[1]
            while self._n_held > room:
                pieces.append(self._cut())
        return pieces

    def finish(self) -> list[Piece]:
        """Give the last pieces; none if nothing was pushed."""
        pieces = [self._cut()] if self._n_held > self._longest else []
        return pieces + ([self._take(self._n_held)] if self._n_held else [])

    def _cut(self) -> Piece:
        """Take the piece up to the quietest place; a third of the longest is left, or more."""
        sums = np.concatenate([[0.0], *self._energies]).cumsum()
        third = self._longest // 3
        places = np.arange(self._longest - third, min(self._longest, self._n_held - third) + 1)
        # Quiet on both sides of the place, and not there alone: sound dips within a syllable.
        starts = np.maximum(places - _QUIET_FRAMES // 2, 0)
        ends = np.minimum(places + _QUIET_FRAMES // 2, self._n_held)
        return self._take(int(places[np.argmin((sums[ends] - sums[starts]) / (ends - starts))]))

    def _take(self, n_frames: int) -> Piece:
        magnitude, energy_db = np.concatenate(self._magnitudes, 1), np.concatenate(self._energies)
        # Copies: a view would keep the whole alive.
        piece = self._first, magnitude[:, :n_frames].copy(), energy_db[:n_frames]
        self._magnitudes = [magnitude[:, n_frames:].copy()]
        self._energies = [energy_db[n_frames:]]
        self._first += n_frames
        self._n_held -= n_frames
        return piece
