"""Frames of recordings on the device of a training: a minibatch is cut out where it is used."""

import math
import warnings
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.mdgan.devices import send
from models.mdgan.params import MdganParams

# Between each snippet alike (1) and each bird and age alike (0). Of eight public birds, one with
# two thirds of all song, the small ones are learned better than at 1, and the large one as well; at
# 0.5 the large one loses 3 % (L1 over PCA's, ``benchmarks/silence.py``).
BALANCE_POWER = 0.75


@dataclass(frozen=True)
class Balance:
    """The rule of a balanced minibatch.

    A snippet is silent if none of its frames holds sound, and sounding otherwise. The sounding
    snippets of a minibatch come from a bird and age drawn with a probability proportional to its
    number of sounding snippets to the power BALANCE_POWER, then from any of these alike. The silent
    ones are drawn likewise from the silent ones.

    Attributes:
        silent_share: of a minibatch that is silent, at least one snippet; less where less of the
            recordings is silent.
        has_sound: [n_total_frames] whether a frame holds sound; empty if all do.
        frames_of: number of frames of each bird and age, which are adjacent; empty if there is one.
    """

    silent_share: float
    has_sound: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    frames_of: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, params: MdganParams, has_sound: NDArray[np.bool_], frames_of: Collection[int]
    ) -> "Balance | None":
        """The balance that ``params`` ask for; None for uniform minibatches."""
        if params.minibatch == "uniform":
            return None
        return cls(params.silent_share, has_sound, tuple(frames_of))

    def is_silent(self, starts: NDArray[np.int64], n_frames: int) -> NDArray[np.bool_]:
        """Tell for each snippet that begins at ``starts`` whether it is silent."""
        if not len(self.has_sound):
            return np.zeros(len(starts), np.bool_)
        before = np.concatenate([[0], np.cumsum(self.has_sound)])
        silent: NDArray[np.bool_] = before[starts + n_frames] == before[starts]
        return silent


class Frames:
    """Frames of many recordings end to end, and where snippets may start.

    Args:
        frames: [n_total_frames, n_freq] float32; on a CPU they are not copied.
        starts: [n_starts] index of every frame where a snippet may start, in ascending order.
        n_frames: frames in a snippet.
        device: where the frames lie.
        balance: of a minibatch; None draws any snippet alike, and all are taken for sounding.

    Raises:
        ValueError: ``balance`` has not one answer for each frame, or no snippet holds sound.
    """

    def __init__(
        self,
        frames: NDArray[np.float32],
        starts: NDArray[np.int64],
        n_frames: int,
        device: torch.device,
        balance: Balance | None = None,
    ):
        with warnings.catch_warnings():
            # Ray's memory is read-only, and torch warns of writing to it. Nobody writes here.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            self._frames = torch.from_numpy(frames).to(device)
            if balance is None:
                self._sounding, self._silent_share = _Starts(starts, [len(frames)]), 0.0
            else:
                _check(balance, len(frames))
                is_silent = balance.is_silent(starts, n_frames)
                if is_silent.all():
                    raise ValueError(
                        f"None of {len(starts)} snippets holds sound: there is no song to learn. "
                        "Look at the recordings, or set mdgan.minibatch=uniform to learn silence."
                    )
                counts = balance.frames_of or (len(frames),)
                self._sounding = _Starts(starts[~is_silent], counts)
                self._silent = _Starts(starts[is_silent], counts)
                self._silent_share = min(balance.silent_share, float(is_silent.mean()))
        self._steps = torch.arange(n_frames, device=device)

    def n_sounding(self, n: int) -> int:
        """Number of sounding snippets among the ``n`` of a minibatch; they come first."""
        # At least one silent snippet where there are any, but never all.
        n_silent = math.ceil(self._silent_share * n)
        return max(n - n_silent, 1)

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """Random snippets [n, 1, n_freq, n_frames]; ``rng`` gives the same ones on every device."""
        n_sounding = self.n_sounding(n)
        first = self._sounding.draw(n_sounding, rng)
        if n_sounding < n:
            first = torch.cat([first, self._silent.draw(n - n_sounding, rng)])
        first = send(first, self._frames.device)
        snippets = self._frames[first[:, None] + self._steps]  # [n, n_frames, n_freq]
        return snippets.transpose(1, 2).contiguous()[:, None]


class _Starts:
    """Starts [n_starts] to draw from, ascending, of birds and ages with ``frames_of`` frames."""

    def __init__(self, starts: NDArray[np.int64], frames_of: Collection[int]):
        edges = np.searchsorted(starts, np.cumsum([0, *frames_of]))
        self._starts = torch.from_numpy(starts)
        self._first = torch.from_numpy(edges[:-1])
        self._n = torch.from_numpy(np.diff(edges)).double()

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        if len(self._n) == 1:
            return self._starts[torch.randint(len(self._starts), (n,), generator=rng)]
        of = torch.multinomial(self._n**BALANCE_POWER, n, replacement=True, generator=rng)
        place = torch.rand(n, generator=rng, dtype=torch.float64) * self._n[of]
        return self._starts[self._first[of] + place.long()]


def _check(balance: Balance, n_frames: int) -> None:
    counts = {"has_sound": len(balance.has_sound), "frames_of": sum(balance.frames_of)}
    for name, n in counts.items():
        if n not in (0, n_frames):
            raise ValueError(
                f"{name} is of {n} frames, and there are {n_frames}: give one answer for each "
                "frame of the recordings."
            )
