"""Song models on disk as models that sing, and back."""

import numpy as np
from numpy.typing import NDArray

from data_io.song_models import SongModel
from models.hmm import SongHmm, covariances, restored

Array = NDArray[np.float64]


def to_song_hmm(model: SongModel) -> SongHmm:
    """The model of whitened latents that ``model`` holds."""
    kind = model.covariance_type
    states = model.state_of
    hmm = restored(
        model.start_probs,
        model.transition_matrix,
        model.means[states],
        model.covariances if kind == "tied" else model.covariances[states],
        kind,  # type: ignore[arg-type]
        model.dof,
    )
    return SongHmm(hmm, states, model.carry)


def to_song_model(song: SongHmm, whitening: tuple[Array, Array], hop: int) -> SongModel:
    """A song model as it is written: emissions once for each state, not for each context.

    Args:
        song: of whitened latents.
        whitening: mean and standard deviation [latent_dim] that they were whitened by.
        hop: frames from one snippet to the next.
    """
    model = song.hmm
    _, first = np.unique(song.state_of, return_index=True)
    covars = covariances(model)
    return SongModel(
        start_probs=np.asarray(model.startprob_),
        transition_matrix=np.asarray(model.transmat_),
        means=model.means_[first],
        covariances=covars if model.covariance_type == "tied" else covars[first],
        covariance_type=model.covariance_type,
        whitening_mean=whitening[0],
        whitening_std=whitening[1],
        state_of=song.state_of,
        carry=song.carry,
        dof=model.dof_,
        hop=hop,
    )
