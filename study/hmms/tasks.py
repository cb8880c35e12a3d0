"""The Ray tasks of the HMM stage: a search, fits of a grid, the choice among them.

Every task holds one core and one thread, and works on one bird and age.
"""

import dataclasses
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import ray
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from data_io.song_models import SongModel
from models.hmm import (
    HmmFit,
    HmmParams,
    StateSearch,
    conclude,
    covariances,
    fit_hmm,
    restored,
    search_states,
    select_by_bic,
)
from models.hmm.em import Songs
from models.hmm.gaussian import GaussianHMM
from models.hmm.search import refusal, restart_seed
from study.cluster.tasks import MAX_RETRIES
from study.hmms.tables import Row, fit_row, search_row

Array = NDArray[np.float64]
# Start probabilities, transitions, means, covariances, as `models.hmm.restored` takes them.
Parameters = tuple[Array, Array, Array, Array]


@dataclass(frozen=True)
class Outcome:
    """What a task gives.

    Attributes:
        fits: rows, as `hmm_tables.fit_row` gives them.
        parameters: of the best of the fits; None where none has a model.
        found: what the whole search found; None for fits of a grid.
        cpu_seconds: of the task.
    """

    fits: list[Row]
    parameters: Parameters | None
    found: Row | None
    cpu_seconds: float


@ray.remote(num_cpus=1, max_retries=MAX_RETRIES)
def search_task(
    sequences: list[Array], seed: int, params: HmmParams, before: SongModel | None
) -> Outcome:
    """The merge search of a bird and age; ``seed`` is that of the bird and age."""
    started = time.process_time()
    with threadpool_limits(1):
        model = None if before is None else _model(_parameters_in(before), params)
        return _concluded(search_states(sequences, params, seed, model), started)


@ray.remote(num_cpus=1, max_retries=MAX_RETRIES)
def fits_task(
    sequences: list[Array], fits: Sequence[tuple[int, int]], seed: int, params: HmmParams
) -> Outcome:
    """Fits of a grid of a bird and age; ``seed`` is that of the bird and age."""
    started = time.process_time()
    with threadpool_limits(1):
        songs = Songs(sequences, params.covariance_type, params.engine)
        done = [fit_hmm(sequences, k, r, restart_seed(seed, k, r), params, songs) for k, r in fits]
        selection = select_by_bic(done)
        best = selection.best.model if selection else None
        return _outcome(done, best, None, started)


@ray.remote(num_cpus=1, max_retries=MAX_RETRIES)
def conclusion_task(
    sequences: list[Array], fits: list[HmmFit], best: SongModel | None, params: HmmParams
) -> Outcome:
    """The choice among all fits of a grid; none of latents that cannot be fitted at all.

    Args:
        sequences: that were fitted.
        fits: without models, in any order.
        best: the model of the one with the lowest BIC; None where none has a model.
        params: the grid.
    """
    started = time.process_time()
    with threadpool_limits(1):
        refused = refusal(sequences, params)
        if refused is not None:
            return _concluded(refused, started)
        if best is not None:
            chosen = select_by_bic(fits)
            assert chosen is not None  # it is whose model was given
            i = next(i for i, fit in enumerate(fits) if fit is chosen.best)
            model = _model(_parameters_in(best), params)
            fits = [*fits[:i], dataclasses.replace(fits[i], model=model), *fits[i + 1 :]]
        songs = Songs(sequences, params.covariance_type, params.engine)
        return _concluded(conclude(songs, fits, params), started)


def _concluded(search: StateSearch, started: float) -> Outcome:
    found = {**search_row(search), "node": socket.gethostname()}
    return _outcome(search.fits, search.model, found, started)


def _outcome(
    fits: list[HmmFit], best: GaussianHMM | None, found: Row | None, started: float
) -> Outcome:
    parameters = None
    if best is not None:
        parameters = (best.startprob_, best.transmat_, best.means_, covariances(best))
    seconds = time.process_time() - started
    return Outcome([fit_row(fit) for fit in fits], parameters, found, seconds)


def _parameters_in(model: SongModel) -> Parameters:
    return model.start_probs, model.transition_matrix, model.means, model.covariances


def _model(parameters: Parameters, params: HmmParams) -> GaussianHMM:
    return restored(*parameters, params.covariance_type)
