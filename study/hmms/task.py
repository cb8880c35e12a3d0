"""The Ray task of the HMM stage: the whole search of one bird and age, on one core."""

import socket
from typing import cast

import numpy as np
import ray
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from data_io.recordings.table import BirdAge
from data_io.song_models import SongModel
from models.hmm import CovarianceType, GaussianHMM, HmmParams, covariances, restored, search_states
from study.cluster.tasks import MAX_RETRIES
from study.hmms.rows import row_of
from study.hmms.tables import Searched, selected_row

Array = NDArray[np.float64]


@ray.remote(num_cpus=1, max_retries=MAX_RETRIES)
def search_task(
    bird_age: BirdAge,
    sequences: list[Array],
    whitening: tuple[Array, Array],
    seed: int,
    params: HmmParams,
    before: SongModel | None,
) -> Searched:
    """Find the number of states of one bird and age.

    Args:
        bird_age: bird and age.
        sequences: whitened latents [n_snippets, latent_dim], one array per recording.
        whitening: mean and standard deviation [latent_dim] that they were whitened by.
        seed: of the bird and age.
        params: of the search.
        before: model of the age before, where ages are chained.
    """
    with threadpool_limits(1):
        start = None if before is None else _restored(before)
        found = search_states(sequences, params, seed, start)
    row = selected_row(bird_age, found, [len(z) for z in sequences], socket.gethostname())
    model = None if found.model is None else _song_model(found.model, whitening)
    return Searched([row_of(fit) for fit in found.fits], row, model)


def _restored(model: SongModel) -> GaussianHMM:
    arrays = model.start_probs, model.transition_matrix, model.means, model.covariances
    return restored(*arrays, cast(CovarianceType, model.covariance_type))


def _song_model(model: GaussianHMM, whitening: tuple[Array, Array]) -> SongModel:
    arrays = model.startprob_, model.transmat_, model.means_, covariances(model)
    return SongModel(*arrays, model.covariance_type, *whitening)
