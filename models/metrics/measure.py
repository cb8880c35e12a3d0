"""Figures of a decoder on held-out song, by bird and age; of reconstructions and sampled songs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.mdgan.devices import full_precision
from models.mdgan.networks import Encoder, Generator
from models.mdgan.training import Evaluation, TrainingFailedError
from models.metrics.held_out_songs import HeldOutSong, HeldOutSongs
from models.metrics.sequence_model import SequenceModel, fit_sequence_model

Array = NDArray[np.float64]
Net = Callable[[Tensor], Tensor]

BATCH = 256
N_FITS = 3  # of the sequence model: one alone falls now here, now there by its start
SAMPLED_PER_HELD_OUT = 1.5  # snippets of sampled song for each held-out one, of each fit
LEAST_SAMPLED = 200  # snippets of sampled song
SAMPLED_LENGTH = 20  # snippets of one sampled song
DEAD_VARIANCE = 1e-8  # a latent dimension that varies less is not whitened
SONG_METRICS = ("frechet_song", "frechet_real", "coverage_song")
HIGHER_IS_BETTER = ("coverage_song",)


@dataclass(frozen=True)
class Measured:
    """What was found, and what it was found from.

    Attributes:
        z: latents [n, latent_dim] of all held-out snippets.
        x_hat: their reconstructions.
        metrics: see `measure`; names without ``valid/``.
        by_bird_age: a row for each bird and age.
    """

    z: Tensor
    x_hat: Tensor
    metrics: dict[str, float]
    by_bird_age: list[dict[str, Any]]


def measure_decoder(
    encoder: Encoder, generator: Generator, held_out: HeldOutSongs, seed: int
) -> Evaluation:
    """`measure` for the nets of a decoder that is not being trained; names begin with ``valid/``.

    Raises:
        TrainingFailedError: the decoder gives numbers that are not finite.
    """
    encoder.eval()
    generator.eval()
    with full_precision():
        found = measure(encoder, generator, held_out, seed)
    metrics = {f"valid/{name}": value for name, value in found.metrics.items()}
    return Evaluation(metrics, found.by_bird_age)


@torch.no_grad()
def measure(encode: Net, decode: Net, held_out: HeldOutSongs, seed: int) -> Measured:
    """Measure reconstructions and sampled songs of every bird and age.

    Sampled songs come from `models.metrics.sequence_model`, fitted to the latents of training song
    of the same bird and age, and are as they would be heard: decoded, more than the held-out song.
    Song metrics are means over N_FITS fits. They are compared with it over windows of consecutive
    snippets (`models.metrics.held_out_songs.HeldOutSong`).

    Args:
        encode: snippets [n, 1, n_freq, n_frames] to latents [n, latent_dim].
        decode: latents to snippets.
        held_out: what is measured on.
        seed: of the sampled songs, the same for all decoders.

    Returns:
        Its metrics: ``recon_l1``, ``recon_l2`` (log1p units) and ``recon_lsd_db`` over all
        snippets; divided by the figures of one PCA of 16 dimensions for all latent sizes
        ``recon_l1_vs_pca``, ``recon_l2_vs_pca`` and ``recon_lsd_vs_pca``; ``recon_l1_vs_own_pca``,
        divided by that of a PCA of 16 dimensions of each bird and age's own training snippets. Of
        each of these ``*_mean`` over birds and ages and ``*_worst``. Over birds and ages alone:
        ``frechet_song`` and ``frechet_song_worst``; ``frechet_real``, the same of training song,
        which a decoder can hardly get below; ``coverage_song`` and ``coverage_song_worst``. A song
        metric is missing where no bird and age has song enough.
        Its rows by bird and age: ``bird``, ``age``, ``n_snippets``, ``n_windows`` and each metric,
        None where there is too little song for it.

    Raises:
        TrainingFailedError: the decoder gives numbers that are not finite.
    """
    z = in_batches(encode, held_out.snippets.snippets)
    x_hat = in_batches(decode, z)
    check_finite(x_hat)
    errors = held_out.snippets.errors_of_each(x_hat)
    pca = held_out.snippets.pca_errors_of_each
    rows = []
    for songs, at in zip(held_out.songs, held_out.rows, strict=True):
        row: dict[str, Any] = {
            "bird": songs.bird,
            "age": songs.age,
            "n_snippets": len(songs.held_out),
        }
        row |= _errors(
            {name: e[at] for name, e in errors.items()}, {n: e[at] for n, e in pca.items()}
        )
        row["recon_l1_vs_own_pca"] = _ratio(row["recon_l1"], songs.own_pca_l1)
        rows.append(row)
    metrics = _errors(errors, pca)
    own = np.array([songs.own_pca_l1 for songs in held_out.songs])
    n = np.array([row["n_snippets"] for row in rows])[~np.isnan(own)]
    l1 = np.array([row["recon_l1"] for row in rows])[~np.isnan(own)]
    if own_total := float(n @ own[~np.isnan(own)]):
        metrics["recon_l1_vs_own_pca"] = float(n @ l1) / own_total
    for name in list(metrics):
        metrics |= _mean_and_worst(name, [row[name] for row in rows], f"{name}_mean")
    _add_song_metrics(encode, decode, held_out, seed, rows)
    for name in SONG_METRICS:
        metrics |= _mean_and_worst(name, [row[name] for row in rows], name)
    return Measured(z, x_hat, metrics, rows)


def in_batches(net: Net, inputs: Tensor) -> Tensor:
    """Run ``net`` over ``inputs``, BATCH at a time, so that its memory does not grow with them."""
    return torch.cat([net(batch).float() for batch in inputs.split(BATCH)])


def _add_song_metrics(
    encode: Net, decode: Net, held_out: HeldOutSongs, seed: int, rows: list[dict[str, Any]]
) -> None:
    """Add the song metrics of each bird and age to its row."""
    with_song = [song is not None for song in held_out.of_song]
    if any(with_song):
        z = in_batches(encode, held_out.training).double().cpu().numpy()
        if not np.isfinite(z).all():
            raise TrainingFailedError("Latents of training snippets are not finite. Lower lr.")
        scale = whitening(z)
    end = 0
    for songs, song, real, row in zip(
        held_out.songs, held_out.of_song, held_out.frechet_real, rows, strict=True
    ):
        at = slice(end, end := end + len(songs.training))
        found: dict[str, Any] = dict.fromkeys(SONG_METRICS)
        if song is not None:
            found["frechet_real"] = real
            whitened, lengths = (z[at] - scale[0]) / scale[1], songs.training_lengths
            of_fits = [
                _song_metrics(
                    decode, held_out, song, fit_sequence_model(whitened, lengths, fit), scale, fit
                )
                for fit in range(seed, seed + N_FITS)
            ]
            found |= {name: float(np.mean([f[name] for f in of_fits])) for name in of_fits[0]}
        row.update(n_windows=song.n_windows if song else 0, **found)


def whitening(z: Array) -> tuple[Array, Array]:
    """Mean and standard deviation [latent_dim] of latents [n, latent_dim]; 1 where they are equal.

    They are those of a study: songs of both are sampled from the same latents.
    """
    variance = z.var(0)
    return z.mean(0), np.where(variance > DEAD_VARIANCE, np.sqrt(variance), 1.0)


def _song_metrics(
    decode: Net,
    held_out: HeldOutSongs,
    song: HeldOutSong,
    model: SequenceModel,
    scale: tuple[Array, Array],
    seed: int,
) -> dict[str, float]:
    """Of songs that are sampled from the model, more than the held-out ones."""
    n_songs = int(max(LEAST_SAMPLED, SAMPLED_PER_HELD_OUT * song.n_snippets)) // SAMPLED_LENGTH
    rng = np.random.default_rng(seed)
    z = model.sample(n_songs, SAMPLED_LENGTH, rng) * scale[1] + scale[0]
    snippets = in_batches(decode, torch.from_numpy(z).float().to(held_out.training.device))
    check_finite(snippets)
    features, lengths = held_out.snippets.reference.features(snippets), [SAMPLED_LENGTH] * n_songs
    return {
        "frechet_song": song.frechet(features, lengths),
        "coverage_song": song.coverage(features, lengths),
    }


def check_finite(decoded: Tensor) -> None:
    """Refuse decoded snippets that are not finite, by a TrainingFailedError."""
    if not decoded.isfinite().all():
        raise TrainingFailedError(
            "Decoded snippets are not finite: training has diverged. Lower lr or lambda_recon."
        )


def _errors(errors: dict[str, Array], pca: dict[str, Array]) -> dict[str, float]:
    """Means, and their ratios to those of the PCA."""
    found = {f"recon_{name}": float(each.mean()) for name, each in errors.items()}
    for name, unit in (("l1", ""), ("l2", ""), ("lsd", "_db")):
        found[f"recon_{name}_vs_pca"] = found[f"recon_{name}{unit}"] / float(
            pca[name + unit].mean()
        )
    return found


def _ratio(value: float, of: float) -> float | None:
    return value / of if of > 0 else None


def _mean_and_worst(name: str, values: list[float | None], mean_name: str) -> dict[str, float]:
    """Of birds and ages that have a value; nothing where none has."""
    known = [value for value in values if value is not None]
    if not known:
        return {}
    worst = min(known) if name in HIGHER_IS_BETTER else max(known)
    return {mean_name: float(np.mean(known)), f"{name}_worst": worst}
