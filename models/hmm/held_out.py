"""The held-out log-likelihood by number of states: whole recordings, the same for every number."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.hmm import criteria
from models.hmm.choice import select_by_bic
from models.hmm.em import Em, Songs, run_em
from models.hmm.fit import HmmFit
from models.hmm.fitting import restart_seed
from models.hmm.merge_path import merge_path
from models.hmm.merge_search import TOP_ITERATIONS
from models.hmm.params import HmmParams
from models.hmm.starts import kmeans_start

Array = NDArray[np.float64]

HEADROOM = 1.5  # the merge path begins this far above the number that BIC chose


def held_out_songs(sequences: Sequence[Array], params: HmmParams) -> tuple[Songs, Songs | None]:
    """Songs to fit and songs to hold out (None where there are too few to hold any out)."""
    some = [s for s in sequences if len(s)]
    first, second = criteria.split_recordings(len(some), params.held_out_fraction, seed=0)
    fitted = Songs([some[i] for i in first], params.kind, params.engine)
    if not second:
        return fitted, None
    return fitted, Songs([some[i] for i in second], params.kind, params.engine)


def with_held_out(
    sequences: Sequence[Array], fits: list[HmmFit], top: int, params: HmmParams, seed: int
) -> list[HmmFit]:
    """The fits of a merge search, with held-out log-likelihoods by number of states.

    From a second merge path on the recordings that are not held out, which begins with ``top``
    states, or closer to the chosen number.
    """
    fitted, held_out = held_out_songs(sequences, params)
    if held_out is None or top < 1:
        return fits
    best = select_by_bic(fits)
    if best is not None:  # beyond, held-out likelihoods are of no use
        top = min(top, math.ceil(HEADROOM * best.best.n_states) + 5)
    top = min(top, fitted.n_snippets)
    start = kmeans_start(fitted, top, restart_seed(seed, top, 0), params)
    em = run_em(fitted, start, params, TOP_ITERATIONS)
    numbers = {fit.n_states for fit in fits}
    per_snippet: dict[tuple[str, int], float] = {}

    def note(em: Em) -> None:
        if em.n_states in numbers and math.isfinite(em.log_likelihood):
            per_snippet[params.kind, em.n_states] = criteria.held_out_log_likelihood(
                held_out, fitted, em
            )

    note(em)
    if math.isfinite(em.log_likelihood):
        for step in merge_path(fitted, em, min(numbers), round(top / 1.3), params, n_tried=1):
            note(step)
    return _with_values(fits, per_snippet)


def shared_held_out(fits: Sequence[HmmFit]) -> list[HmmFit]:
    """The fits, each with the held-out log-likelihood of its number of states.

    It is a property of the number of states: whichever restart is the best there, it has it.
    """
    per_snippet = {
        (fit.covariance_type, fit.n_states): fit.held_out_log_likelihood
        for fit in fits
        if math.isfinite(fit.held_out_log_likelihood)
    }
    return _with_values(fits, per_snippet)


def _with_values(fits: Sequence[HmmFit], per_snippet: dict[tuple[str, int], float]) -> list[HmmFit]:
    """The fits with held-out log-likelihoods by kind and number of states, where one is known."""
    return [
        dataclasses.replace(
            fit, held_out_log_likelihood=per_snippet[fit.covariance_type, fit.n_states]
        )
        if (fit.covariance_type, fit.n_states) in per_snippet
        else fit
        for fit in fits
    ]
