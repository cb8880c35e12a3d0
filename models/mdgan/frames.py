"""Frames of recordings on the device of a training: a minibatch is cut out where it is used."""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.mdgan.devices import send


class Frames:
    """Frames of many recordings end to end, and where snippets may start.

    Args:
        frames: [n_total_frames, n_freq] float32; on a CPU they are not copied.
        starts: [n_starts] index of every frame where a snippet may start.
        n_frames: frames in a snippet.
        device: where the frames lie.
    """

    def __init__(
        self,
        frames: NDArray[np.float32],
        starts: NDArray[np.int64],
        n_frames: int,
        device: torch.device,
    ):
        with warnings.catch_warnings():
            # Ray's memory is read-only, and torch warns of writing to it. Nobody writes here.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            self._frames = torch.from_numpy(frames).to(device)
            self._starts = torch.from_numpy(starts)
        self._steps = torch.arange(n_frames, device=device)

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """Random snippets [n, 1, n_freq, n_frames]; ``rng`` gives the same ones on every device."""
        choice = torch.randint(len(self._starts), (n,), generator=rng)
        first = send(self._starts[choice], self._frames.device)
        snippets = self._frames[first[:, None] + self._steps]  # [n, n_frames, n_freq]
        return snippets.transpose(1, 2).contiguous()[:, None]
