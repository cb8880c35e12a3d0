"""One fit: a start, EM to convergence, repair, and its record."""

import time
from collections.abc import Callable

import numpy as np

from models.hmm import starts
from models.hmm.em import Em, Songs, run_em
from models.hmm.fit import HmmFit, Origin, record_of, without_model
from models.hmm.gaussian import GaussianHMM
from models.hmm.health import repaired
from models.hmm.params import HmmParams

PRUNINGS = 2  # of sparse transitions, each followed by EM

# Restarts take turns, so that no one kind of start decides.
_STARTS = (("k-means", starts.kmeans_start), ("random", starts.random_start))


def fit_from(
    songs: Songs,
    n_states: int,
    start: Callable[[], GaussianHMM],
    origin: Origin,
    params: HmmParams,
) -> tuple[HmmFit, Em | None]:
    """Run EM to convergence, repair, and record.

    Args:
        songs: to fit.
        n_states: of the start.
        start: gives the model to begin with; EM changes it.
        origin: for the record.
        params: of EM.

    Returns:
        The record, and where EM ended; None where the fit failed.
    """
    began = time.process_time()
    try:
        em = run_em(songs, start(), params, params.n_iter, accelerate=True)
        n_iter = em.n_iter
        em, n_repairs, n_more = repaired(songs, em, params)
        n_iter += n_more
        if params.transitions == "sparse":
            for _ in range(PRUNINGS):
                if not np.isfinite(em.log_likelihood):
                    break
                pruned = starts.without_rare_transitions(em.model, em.stats)
                em = run_em(songs, pruned, params, params.n_iter, accelerate=True)
                n_iter += em.n_iter
    except (ValueError, np.linalg.LinAlgError) as error:
        seconds = time.process_time() - began
        failed = without_model(
            n_states, origin, songs, params, status="failed", reason=str(error), seconds=seconds
        )
        return failed, None
    seconds = time.process_time() - began
    fit = record_of(songs, em, origin, params, seconds, n_repairs, n_iter=n_iter)
    return fit, em if fit.has_model else None


def restart_fit(
    songs: Songs, n_states: int, restart: int, seed: int, reached_by: str, params: HmmParams
) -> tuple[HmmFit, Em | None]:
    """A fit from a start of its own: k-means and random ones in turn.

    Args:
        songs: to fit.
        n_states: number of states.
        restart: index of the restart; even ones begin with k-means.
        seed: of this restart alone.
        reached_by: for the record.
        params: of EM.
    """
    name, start = _STARTS[restart % len(_STARTS)]
    origin = Origin(reached_by, name, restart)
    return fit_from(songs, n_states, lambda: start(songs, n_states, seed, params), origin, params)


def most_states(n_observations: float, params: HmmParams) -> int:
    """The largest number of states that leaves ``params.min_snippets_per_state`` to each.

    ``n_observations`` are the snippets that would lie side by side.
    """
    return min(params.n_states_limit, int(n_observations / params.min_snippets_per_state + 1e-9))


def restart_seed(seed: int, n_states: int, restart: int) -> int:
    """Seed of one restart of a grid."""
    return int(np.random.SeedSequence([seed, n_states, restart]).generate_state(1)[0])
