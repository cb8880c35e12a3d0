"""The Ray task of the HMM stage: the whole search of one bird and age, on one core."""

import dataclasses
import socket
from dataclasses import dataclass

import numpy as np
import ray
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from data_io.recordings.table import BirdAge
from data_io.song_models import SongModel
from models.hmm import HmmParams, add_memory, search_states, search_with_carry
from models.hmm.ages import silent_states
from models.hmm.contexts import Remembered
from models.hmm.search import StatesFound
from study.cluster.tasks import MAX_RETRIES
from study.hmms.rows import row_of
from study.hmms.song_models import to_song_hmm, to_song_model
from study.hmms.tables import Searched, selected_row

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Made:
    """How the latents of a bird and age were made.

    Attributes:
        whitening: mean and standard deviation [latent_dim] that they were whitened by.
        hop: frames from one snippet to the next.
        new_share: share of a snippet that the one before does not hold.
    """

    whitening: tuple[Array, Array]
    hop: int
    new_share: float


@ray.remote(num_cpus=1, max_retries=MAX_RETRIES)
def search_task(
    bird_age: BirdAge,
    sequences: list[Array],
    holds_sound: list[NDArray[np.bool_]],
    made: Made,
    seed: int,
    params: HmmParams,
    before: SongModel | None,
) -> Searched:
    """Find the number of states of one bird and age, and what they remember.

    Args:
        bird_age: bird and age.
        sequences: whitened latents [n_snippets, latent_dim], one array per recording.
        holds_sound: whether any frame of a snippet holds sound [n_snippets], one array per
            recording.
        made: how these latents were made.
        seed: of the bird and age.
        params: of the search.
        before: model of the age before, where ages are chained.
    """
    with threadpool_limits(1):
        found, remembered = _search(sequences, made.new_share, seed, params, before)
        n_silent = None
        if remembered is not None:
            posteriors = np.concatenate(remembered.song.posteriors(sequences))
            n_silent = int(silent_states(posteriors, np.concatenate(holds_sound)).sum())
    lengths = [len(z) for z in sequences]
    row = selected_row(
        bird_age, found, remembered, n_silent, lengths, made.new_share, socket.gethostname()
    )
    model = None
    if remembered is not None:
        model = to_song_model(remembered.song, made.whitening, made.hop)
    return Searched([row_of(fit) for fit in found.fits], row, model)


def _search(
    sequences: list[Array],
    new_share: float,
    seed: int,
    params: HmmParams,
    before: SongModel | None,
) -> tuple[StatesFound, Remembered | None]:
    if params.memory == "autoregressive":
        return search_with_carry(sequences, params, seed, new_share)
    start = None if before is None else to_song_hmm(before).without_memory()
    found = search_states(sequences, params, seed, start, new_share)
    if found.model is None:
        return found, None
    params = dataclasses.replace(params, covariance_type=found.model.covariance_type)
    return found, add_memory(sequences, found.model, params, seed, new_share)
