"""Song models (selected HMMs) on disk: plain arrays in .npz, facts in .json; no pickle."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from data_io.files import atomic_file, write_json

FORMAT_VERSION = 1
Array = NDArray[np.float64]


@dataclass(frozen=True)
class SongModel:
    """A Gaussian HMM of the latents of one bird at one age.

    A state is a kind of snippet, 64 ms long; it is not a syllable.

    Attributes:
        start_probs: [n_states].
        transition_matrix: [n_states, n_states], rows sum to 1.
        means: [n_states, latent_dim], of whitened latents.
        covariances: as hmmlearn's ``covars_`` is set: spherical [n_states], diag
            [n_states, latent_dim], tied [latent_dim, latent_dim], full [n_states, latent_dim,
            latent_dim].
        covariance_type: spherical, diag, tied or full.
        whitening_mean, whitening_std: [latent_dim]; whitened = (z - mean) / std.
    """

    start_probs: Array
    transition_matrix: Array
    means: Array
    covariances: Array
    covariance_type: str
    whitening_mean: Array
    whitening_std: Array


def save_song_model(
    folder: Path, bird: str, age: str, model: SongModel, facts: dict[str, Any]
) -> None:
    """Write ``<folder>/<bird>/<age>.npz`` and ``.json``; the .json holds the hash of the .npz."""
    path = folder / bird / f"{age}.npz"
    with atomic_file(path) as temporary:
        np.savez(
            temporary,
            allow_pickle=False,
            start_probs=model.start_probs,
            transition_matrix=model.transition_matrix,
            means=model.means,
            covariances=model.covariances,
        )
    content = {
        "format_version": FORMAT_VERSION,
        "bird": bird,
        "age": age,
        "covariance_type": model.covariance_type,
        "whitening": {
            "mean": model.whitening_mean.tolist(),
            "std": model.whitening_std.tolist(),
        },
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        **facts,
    }
    write_json(path.with_suffix(".json"), content)


def load_song_model(folder: Path, bird: str, age: str) -> tuple[SongModel, dict[str, Any]]:
    """Read what `save_song_model` wrote.

    Raises:
        ValueError: the .npz does not have the hash that the .json gives, or a study did not write
            one of them.
    """
    path = folder / bird / f"{age}.npz"
    json_path = path.with_suffix(".json")
    try:
        facts = json.loads(json_path.read_text("utf-8"))
    except ValueError as error:
        raise _not_ours(json_path, error) from error
    if hashlib.sha256(path.read_bytes()).hexdigest() != facts["sha256"]:
        raise ValueError(
            f"{path} does not have the hash that {json_path.name} gives: it was "
            "changed or cut short. Delete both and run the same command again."
        )
    try:
        with np.load(path, allow_pickle=False) as arrays:
            model = SongModel(
                arrays["start_probs"],
                arrays["transition_matrix"],
                arrays["means"],
                arrays["covariances"],
                facts["covariance_type"],
                np.array(facts["whitening"]["mean"]),
                np.array(facts["whitening"]["std"]),
            )
    # A file that is not an archive of plain arrays raises one of these; none names the file.
    except (ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise _not_ours(path, error) from error
    return model, facts


def _not_ours(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path} is not a file that a study wrote ({error}). Delete the .npz and the .json and run "
        "the same command again."
    )
