"""The Ray task of the HMM stage: the whole search of one bird and age, on one core."""

import socket

import numpy as np
import ray
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from data_io.recordings.table import BirdAge
from data_io.song_models import SongModel
from models.hmm import GaussianHMM, HmmParams, covariances, restored, search_states
from models.hmm.ages import silent_states
from models.hmm.em import Songs
from study.cluster.tasks import MAX_RETRIES
from study.hmms.rows import row_of
from study.hmms.tables import Searched, selected_row

Array = NDArray[np.float64]


@ray.remote(num_cpus=1, max_retries=MAX_RETRIES)
def search_task(
    bird_age: BirdAge,
    sequences: list[Array],
    holds_sound: list[NDArray[np.bool_]],
    whitening: tuple[Array, Array],
    seed: int,
    params: HmmParams,
    before: SongModel | None,
) -> Searched:
    """Find the number of states of one bird and age.

    Args:
        bird_age: bird and age.
        sequences: whitened latents [n_snippets, latent_dim], one array per recording.
        holds_sound: whether any frame of a snippet holds sound [n_snippets], one array per
            recording.
        whitening: mean and standard deviation [latent_dim] that they were whitened by.
        seed: of the bird and age.
        params: of the search.
        before: model of the age before, where ages are chained.
    """
    with threadpool_limits(1):
        start = None if before is None else plain_model(before)
        found = search_states(sequences, params, seed, start)
        n_silent = None if found.model is None else _n_silent(found.model, sequences, holds_sound)
    row = selected_row(bird_age, found, [len(z) for z in sequences], socket.gethostname(), n_silent)
    model = None if found.model is None else song_model(found.model, whitening)
    return Searched([row_of(fit) for fit in found.fits], row, model)


def _n_silent(
    model: GaussianHMM, sequences: list[Array], holds_sound: list[NDArray[np.bool_]]
) -> int:
    """Number of states most of whose snippets hold no sound."""
    songs = Songs(sequences, model.covariance_type)
    posteriors = songs.posteriors(songs.centred(model))
    return int(silent_states(posteriors, np.concatenate(holds_sound)).sum())


def plain_model(model: SongModel) -> GaussianHMM:
    """The HMM of a song model."""
    arrays = model.start_probs, model.transition_matrix, model.means, model.covariances
    return restored(*arrays, model.covariance_type)  # type: ignore[arg-type]  # of a study


def song_model(model: GaussianHMM, whitening: tuple[Array, Array]) -> SongModel:
    """The song model of an HMM of latents that were whitened by ``whitening``."""
    arrays = model.startprob_, model.transmat_, model.means_, covariances(model)
    return SongModel(*arrays, model.covariance_type, *whitening)
