"""Spectrograms of whole recordings to latents, and back."""

import numpy as np
import torch
from numpy.typing import NDArray

from models.mdgan.devices import full_precision
from models.mdgan.networks import Encoder, Generator

BATCH = 512


def cut_snippets(spectrogram: NDArray[np.float32], n_frames: int) -> NDArray[np.float32]:
    """Cut a spectrogram into consecutive snippets, in order.

    Repeats of the last frame fill up the last snippet, so that the tail of a recording is kept.
    Silence there would be a sound of its own.

    Args:
        spectrogram: [n_freq, total_frames], total_frames >= 1.
        n_frames: frames in a snippet.

    Returns:
        [ceil(total_frames / n_frames), n_freq, n_frames].
    """
    n_freq, total = spectrogram.shape
    if total == 0:
        raise ValueError("The spectrogram has 0 frames: there is nothing to cut into snippets.")
    n_snippets = -(-total // n_frames)
    padded = np.pad(spectrogram, ((0, 0), (0, n_snippets * n_frames - total)), mode="edge")
    return np.ascontiguousarray(padded.reshape(n_freq, n_snippets, n_frames).swapaxes(0, 1))


@torch.no_grad()
def encode_spectrogram(
    encoder: Encoder, spectrogram: NDArray[np.float32], n_frames: int, device: str = "cpu"
) -> NDArray[np.float32]:
    """Latents [n_snippets, latent_dim] of a spectrogram [n_freq, total_frames], in order."""
    encoder.eval()
    snippets = torch.from_numpy(cut_snippets(spectrogram, n_frames))[:, None]
    with full_precision():  # as a training encodes what it is measured on
        parts = [encoder(batch.to(device)).cpu() for batch in snippets.split(BATCH)]
    z: NDArray[np.float32] = torch.cat(parts).numpy()
    return z


@torch.no_grad()
def decode_latents(
    generator: Generator,
    z: NDArray[np.float32],
    total_frames: int | None = None,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Decode latents to a spectrogram, snippet after snippet.

    Args:
        generator: decodes latents.
        z: [n_snippets, latent_dim].
        total_frames: cut the result to this length; None keeps whole snippets.
        device: "cpu" or "cuda".

    Returns:
        [n_freq, total_frames].
    """
    generator.eval()
    latents = torch.from_numpy(np.asarray(z, dtype=np.float32))
    with full_precision():
        parts = [generator(batch.to(device)).cpu() for batch in latents.split(BATCH)]
    snippets = torch.cat(parts)[:, 0]  # [n_snippets, n_freq, n_frames]
    spectrogram = snippets.permute(1, 0, 2).flatten(1).numpy()
    return np.ascontiguousarray(spectrogram[:, :total_frames])
