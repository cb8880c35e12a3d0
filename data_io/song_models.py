"""Song models (selected HMMs) on disk: plain arrays in .npz, facts in .json; no pickle."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from data_io.files import atomic_file, file_sha256, naming, read_json, write_json

FORMAT_VERSION = 3  # 2 had no seal, 1 no contexts
Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class SongModel:
    """An HMM of the latents of one bird at one age.

    A state is a kind of snippet, 64 ms long; it is not a syllable. A context is a copy of a state
    that remembers what came before; where there is no memory, contexts are the states.

    Attributes:
        start_probs: [n_contexts].
        transition_matrix: [n_contexts, n_contexts], rows sum to 1.
        means: [n_states, latent_dim], of whitened latents, or of what ``carry`` leaves of them.
        covariances: as hmmlearn's ``covars_`` is set: spherical [n_states], diag
            [n_states, latent_dim], tied [latent_dim, latent_dim], full [n_states, latent_dim,
            latent_dim].
        covariance_type: spherical, diag, tied or full.
        whitening_mean, whitening_std: [latent_dim]; whitened = (z - mean) / std.
        state_of: [n_contexts] the state that each context is a copy of.
        carry: [latent_dim, latent_dim] matrix A of x(t) - A x(t-1), which the HMM is of; None where
            it is of the latents themselves.
        dof: degrees of freedom of Student t emissions, of which ``covariances`` are the scale;
            None for Gaussian ones.
        hop: frames from one snippet to the next.
    """

    start_probs: Array
    transition_matrix: Array
    means: Array
    covariances: Array
    covariance_type: str
    whitening_mean: Array
    whitening_std: Array
    state_of: IntArray
    carry: Array | None
    dof: float | None
    hop: int


def save_song_model(
    folder: Path, bird: str, age: str, model: SongModel, facts: dict[str, Any]
) -> None:
    """Write ``<folder>/<bird>/<age>.npz`` and ``.json``; the .json holds the hash of the .npz."""
    path = folder / bird / f"{age}.npz"
    carry = {} if model.carry is None else {"carry": model.carry}
    with atomic_file(path) as temporary:
        np.savez(
            temporary,
            allow_pickle=False,
            start_probs=model.start_probs,
            transition_matrix=model.transition_matrix,
            means=model.means,
            covariances=model.covariances,
            state_of=model.state_of,
            **carry,
        )
    content = {
        "format_version": FORMAT_VERSION,
        "bird": bird,
        "age": age,
        "covariance_type": model.covariance_type,
        "dof": model.dof,
        "hop": model.hop,
        "whitening": {
            "mean": model.whitening_mean.tolist(),
            "std": model.whitening_std.tolist(),
        },
        "sha256": file_sha256(path),
        **facts,
    }
    write_json(path.with_suffix(".json"), content)


def load_song_model(folder: Path, bird: str, age: str) -> tuple[SongModel, dict[str, Any]]:
    """Read what `save_song_model` wrote.

    Raises:
        FileNotFoundError: one of them is missing.
        ValueError: one of them is not as it was written (BrokenSealError for the .json), is of
            another bird or age, or an earlier version wrote it.
    """
    path = folder / bird / f"{age}.npz"
    json_path = path.with_suffix(".json")
    facts = read_json(json_path)
    if facts is None:
        raise FileNotFoundError(f"{json_path} is missing. Run the same command again.")
    _check_version(json_path, facts)
    if (facts["bird"], facts["age"]) != (bird, age):
        raise ValueError(
            f"{json_path} is of {facts['bird']} at {facts['age']}: somebody copied or renamed it. "
            "Delete the .npz and the .json and run the same command again."
        )
    if file_sha256(path) != facts["sha256"]:
        raise ValueError(
            f"{path} does not have the hash that {json_path.name} gives: it was "
            "changed or cut short. Delete both and run the same command again."
        )
    try:
        with naming(path), np.load(path, allow_pickle=False) as arrays:
            model = SongModel(
                arrays["start_probs"],
                arrays["transition_matrix"],
                arrays["means"],
                arrays["covariances"],
                facts["covariance_type"],
                np.array(facts["whitening"]["mean"]),
                np.array(facts["whitening"]["std"]),
                arrays["state_of"],
                arrays["carry"] if "carry" in arrays.files else None,
                facts["dof"],
                facts["hop"],
            )
    # A file that is not an archive of plain arrays raises one of these; none names the file.
    except (ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise _not_ours(path, error) from error
    return model, facts


def _check_version(path: Path, facts: dict[str, Any]) -> None:
    version = facts.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path} has the format version {version}, and this code reads {FORMAT_VERSION}: "
            "another version of birdsong wrote it. Run the study again into a new folder, or read "
            "it by the version that wrote it."
        )


def _not_ours(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path} is not a file that a study wrote ({error}). Delete the .npz and the .json and run "
        "the same command again."
    )
