"""Spectrograms of whole recordings to latents, and back."""

import numpy as np
import torch
from numpy.typing import NDArray

from models.mdgan.devices import full_precision
from models.mdgan.networks import Encoder, Generator

BATCH = 512


def n_snippets(total_frames: int, n_frames: int, hop: int) -> int:
    """Number of snippets that hold every frame of a spectrogram, ``hop`` frames apart."""
    return 1 + max(-(-(total_frames - n_frames) // hop), 0)


def cut_snippets(
    spectrogram: NDArray[np.float32], n_frames: int, hop: int | None = None
) -> NDArray[np.float32]:
    """Cut a spectrogram into snippets, in order.

    Repeats of the last frame fill up the last snippet, so that the tail of a recording is kept.
    Silence there would be a sound of its own.

    Args:
        spectrogram: [n_freq, total_frames], total_frames >= 1.
        n_frames: frames in a snippet.
        hop: frames from the start of a snippet to that of the next; None puts them end to end.

    Returns:
        [n_snippets, n_freq, n_frames], a copy: n_frames / hop times the spectrogram.
    """
    n = n_snippets(spectrogram.shape[1], n_frames, hop or n_frames)
    return _snippets(spectrogram, n_frames, hop or n_frames, 0, n)


def _snippets(
    spectrogram: NDArray[np.float32], n_frames: int, hop: int, first: int, last: int
) -> NDArray[np.float32]:
    """Snippets ``first`` to ``last`` - 1 [last - first, n_freq, n_frames]."""
    if spectrogram.shape[1] == 0:
        raise ValueError("The spectrogram has 0 frames: there is nothing to cut into snippets.")
    n_wanted = (last - 1 - first) * hop + n_frames
    part = spectrogram[:, first * hop : first * hop + n_wanted]
    part = np.pad(part, ((0, 0), (0, n_wanted - part.shape[1])), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(part, n_frames, axis=1)[:, ::hop]
    return windows.swapaxes(0, 1).copy()


@torch.no_grad()
def encode_spectrogram(
    encoder: Encoder,
    spectrogram: NDArray[np.float32],
    n_frames: int,
    device: str = "cpu",
    hop: int | None = None,
) -> NDArray[np.float32]:
    """Encode a spectrogram; beside it and the latents, memory holds one batch of snippets.

    Args:
        encoder: encodes snippets.
        spectrogram: [n_freq, total_frames], total_frames >= 1.
        n_frames: frames in a snippet.
        device: "cpu" or "cuda".
        hop: frames from the start of a snippet to that of the next; None puts them end to end.

    Returns:
        Latents [n_snippets, latent_dim], in order; the last snippet is filled up as
        `cut_snippets` does it.
    """
    encoder.eval()
    hop = hop or n_frames
    n = n_snippets(spectrogram.shape[1], n_frames, hop)
    z = np.zeros((0, 0), np.float32)
    with full_precision():  # as a training encodes what it is measured on
        for first in range(0, n, BATCH):
            batch = _snippets(spectrogram, n_frames, hop, first, min(first + BATCH, n))
            part = encoder(torch.from_numpy(batch)[:, None].to(device)).cpu().numpy()
            if first == 0:
                # A list of parts would hold the memory between them as well.
                z = np.zeros((n, *part.shape[1:]), np.float32)
            z[first : first + len(part)] = part
    return z


@torch.no_grad()
def decode_latents(
    generator: Generator,
    z: NDArray[np.float32],
    total_frames: int | None = None,
    device: str = "cpu",
    hop: int | None = None,
) -> NDArray[np.float32]:
    """Decode latents to a spectrogram: snippets that overlap are added, without seams.

    A frame is the mean of the snippets that hold it, each weighted by a Hann window over its
    frames, so that no snippet begins or ends abruptly. Snippets end to end stay as they are.

    Args:
        generator: decodes latents.
        z: [n_snippets, latent_dim].
        total_frames: cut the result to this length; None keeps whole snippets.
        device: "cpu" or "cuda".
        hop: frames from the start of a snippet to that of the next, at most those of a snippet;
            None puts them end to end.

    Returns:
        [n_freq, total_frames].
    """
    generator.eval()
    latents = torch.from_numpy(np.asarray(z, dtype=np.float32))
    spectrogram = weights = np.zeros((0, 0), np.float32)
    with full_precision():
        for first, batch in zip(range(0, len(z), BATCH), latents.split(BATCH), strict=True):
            snippets = generator(batch.to(device))[:, 0].cpu().numpy()
            n_freq, n_frames = snippets.shape[1:]
            step = hop or n_frames
            if first == 0:
                spectrogram = np.zeros((n_freq, step * (len(z) - 1) + n_frames), np.float32)
                weights = _hann_shares(len(z), n_frames, step)
            for frame in range(n_frames):
                at = slice(first * step + frame, (first + len(batch) - 1) * step + frame + 1, step)
                spectrogram[:, at] += weights[first : first + len(batch), frame] * (
                    snippets[:, :, frame].T
                )
    return np.ascontiguousarray(spectrogram[:, :total_frames])


def _hann_shares(n: int, n_frames: int, hop: int) -> NDArray[np.float32]:
    """Weight of each frame of each snippet [n, n_frames]; those of one frame of a song sum to 1."""
    window = np.hanning(n_frames + 2)[1:-1]  # nowhere 0: the ends of a song have one snippet
    totals = np.zeros(hop * (n - 1) + n_frames)
    for frame in range(n_frames):
        totals[frame : hop * (n - 1) + frame + 1 : hop] += window[frame]
    rows = np.lib.stride_tricks.sliding_window_view(totals, n_frames)[::hop]
    return (window / rows).astype(np.float32)
