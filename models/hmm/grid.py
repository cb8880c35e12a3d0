"""A grid of fits: every number of states, several times each, and which ones come next."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.hmm import criteria
from models.hmm.choice import select_by_bic
from models.hmm.em import Songs
from models.hmm.fit import HmmFit, Origin, without_model
from models.hmm.fitting import most_states, restart_fit, restart_seed
from models.hmm.held_out import held_out_songs
from models.hmm.merge_search import COARSE_RATIO
from models.hmm.params import HmmParams, in_words

Array = NDArray[np.float64]


def grid_fits(
    sequences: Sequence[Array], songs: Songs, params: HmmParams, seed: int
) -> list[HmmFit]:
    """Every fit of a grid, and those that BIC asks for beyond its ends.

    Args:
        sequences: whitened latents [n_snippets, latent_dim], one array per recording.
        songs: the same, packed.
        params: the grid.
        seed: of the bird and age; every fit has one of its own, which follows from it.
    """
    fits: list[HmmFit] = []
    wanted = first_numbers(songs.n_observations, params)
    while wanted:
        fits += [
            fit_hmm(sequences, k, r, restart_seed(seed, k, r), params, songs)
            for k in wanted
            for r in range(params.n_restarts)
        ]
        wanted = more_numbers(fits, params)
    return fits


def first_numbers(n_observations: float, params: HmmParams) -> list[int]:
    """Numbers of states of the grid that leave enough snippets to each state."""
    limit = most_states(n_observations, params)
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
    songs = songs or Songs(sequences, params.kind, params.engine)
    if n_states > most_states(songs.n_observations, params):
        return without_model(
            n_states, Origin("grid", "", restart), songs, params, status="skipped", seconds=0.0,
            reason=f"{in_words(songs.n_snippets, songs.new_share)} leave fewer than "
            f"{params.min_snippets_per_state} a state",
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
