"""A grid of fits: which numbers of states come next, and one fit of them."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.hmm import criteria
from models.hmm.em import Songs
from models.hmm.fitting import most_states, restart_fit
from models.hmm.held_out import held_out_songs
from models.hmm.merge_search import COARSE_RATIO
from models.hmm.params import HmmParams
from models.hmm.records import (
    HmmFit,
    Origin,
    select_by_bic,
    without_model,
)

Array = NDArray[np.float64]


def first_numbers(n_snippets: int, params: HmmParams) -> list[int]:
    """Numbers of states of the grid that leave enough snippets to each state."""
    limit = most_states(n_snippets, params)
    return [k for k in params.n_states if k <= limit] or ([limit] if limit else [])


def more_numbers(fits: Sequence[HmmFit], params: HmmParams) -> list[int]:
    """Further numbers of states for a grid whose lowest BIC is at or beyond its end; [] elsewhere.

    First in steps of COARSE_RATIO, until BIC rises again, then in between.
    """
    selection = select_by_bic(fits)
    if selection is None:
        return []
    k = selection.best.n_states
    tried = {fit.n_states for fit in fits}
    limit = most_states(selection.best.n_observations, params)
    if selection.edge == "lowest":
        further = [max(1, math.floor(k / COARSE_RATIO))]
    elif selection.edge == "highest" and k < limit:
        further = [min(limit, math.ceil(k * COARSE_RATIO))]
    else:
        below = max((one for one in tried if one < k), default=k)
        above = min((one for one in tried if one > k), default=k)
        further = [
            (a + b) // 2
            for a, b in ((below, k), (k, above))
            if b - a > 1 and (a < params.n_states[0] or b > params.n_states[-1])
        ]
    # One that was tried without success is no reason to try again.
    return sorted(set(further) - tried)


def fit_hmm(
    sequences: Sequence[Array],
    n_states: int,
    restart: int,
    seed: int,
    params: HmmParams,
    songs: Songs | None = None,
) -> HmmFit:
    """Fit one Gaussian HMM of a grid.

    Args:
        sequences: whitened latents [n_snippets, latent_dim], one array per recording.
        n_states: number of states.
        restart: index of the restart; the first one is also fitted without the held-out recordings.
        seed: of the start; restarts must have different ones.
        params: of the fit.
        songs: the sequences, where they are packed already.

    Returns:
        The fit; a fit that goes wrong has a status and a reason, it raises nothing.
    """
    songs = songs or Songs(sequences, params.covariance_type, params.engine)
    if n_states > most_states(songs.n_snippets, params):
        return without_model(
            n_states, Origin("grid", "", restart), songs, params, "skipped",
            f"{songs.n_snippets} snippets leave fewer than {params.min_snippets_per_state} a state",
            0.0,
        )  # fmt: skip
    fit, _ = restart_fit(songs, n_states, restart, seed, "grid", params)
    if restart or not fit.has_model:
        return fit
    fitted, held_out = held_out_songs(sequences, params)
    if held_out is None or n_states > fitted.n_snippets:
        return fit
    _, em = restart_fit(fitted, n_states, restart, seed, "grid", params)
    if em is None:
        return fit
    per_snippet = criteria.held_out_log_likelihood(held_out, fitted, em)
    return dataclasses.replace(fit, held_out_log_likelihood=per_snippet)


def missing_fits(
    done: Sequence[HmmFit], n_snippets: int, params: HmmParams
) -> list[tuple[int, int]]:
    """Fits (n_states, restart) that a grid needs next; [] where only the choice is left.

    First the numbers of states of the grid, all restarts of each; then more, as long as BIC is
    lowest at their end. More are asked for only when all fits before are done, so that which ones
    are does not depend on the order in which fits end, nor on where a study was killed.

    Args:
        done: fits of a bird and age, in any order.
        n_snippets: of the bird and age.
        params: the grid.
    """
    by_fit = {(fit.n_states, fit.restart): fit for fit in done}
    known: dict[tuple[int, int], HmmFit] = {}
    numbers = first_numbers(n_snippets, params)
    while numbers:
        wanted = [(k, r) for k in numbers for r in range(params.n_restarts)]
        missing = [fit for fit in wanted if fit not in by_fit]
        if missing:
            return missing
        known |= {fit: by_fit[fit] for fit in wanted}
        numbers = more_numbers(list(known.values()), params)
    return []
