"""The Ray task of the HMM stage: the whole search of one bird and age, on one core."""

import socket

import numpy as np
import ray
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from data_io.recordings.table import BirdAge
from data_io.song_models import SongModel
from models.hmm import HmmParams, SongHmm, search_states
from study.cluster.tasks import MAX_RETRIES
from study.hmms.rows import row_of
from study.hmms.song_models import to_song_hmm, to_song_model
from study.hmms.tables import Searched, selected_row

Array = NDArray[np.float64]

N_FRAMES = 16  # of a snippet: snippets lie side by side


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
        start = None if before is None else to_song_hmm(before).without_memory()
        found = search_states(sequences, params, seed, start)
    row = selected_row(bird_age, found, [len(z) for z in sequences], socket.gethostname())
    model = None
    if found.model is not None:
        model = to_song_model(SongHmm.plain(found.model), whitening, N_FRAMES)
    return Searched([row_of(fit) for fit in found.fits], row, model)
