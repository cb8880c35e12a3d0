"""Contexts: copies of states that remember what came before them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.hmm import criteria
from models.hmm.em import Em, Songs
from models.hmm.gaussian import GaussianHMM
from models.hmm.params import HmmParams
from models.hmm.song_hmm import SongHmm

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Remembered:
    """The model of a bird's song, and what its memory is worth.

    Attributes:
        song: the model.
        memory: none, context or autoregressive.
        n_free_params: of the model.
        log_likelihood: nats, over all snippets.
        bic: -2 log_likelihood + n_free_params log N.
        held_out_log_likelihood: nats per snippet of recordings that had no part in the memory; NaN
            where none were held out.
        plain_bic, plain_held_out_log_likelihood: the same of the model without memory.
    """

    song: SongHmm
    memory: str
    n_free_params: int
    log_likelihood: float
    bic: float
    held_out_log_likelihood: float
    plain_bic: float
    plain_held_out_log_likelihood: float


def add_memory(
    sequences: Sequence[Array],
    model: GaussianHMM,
    params: HmmParams,
    seed: int,
    new_share: float = 1.0,
) -> Remembered:
    """Give the states of ``model`` the memory that ``params.memory`` asks for.

    Args:
        sequences: whitened latents [n_snippets, latent_dim], one array per recording.
        model: of a search of the same sequences.
        params: of that search.
        seed: of the bird and age.
        new_share: share of a snippet that the one before does not hold.
    """
    songs = Songs(sequences, model.covariance_type, params.engine, new_share)
    stats, log_likelihood = songs.e_step(songs.centred(model))
    free = criteria.count_free_params(Em(model, stats, log_likelihood), params)
    bic = criteria.bic(log_likelihood, free, songs.n_observations)
    return Remembered(
        SongHmm.plain(model), "none", free, log_likelihood, bic, math.nan, bic, math.nan
    )
