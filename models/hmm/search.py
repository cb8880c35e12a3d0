"""The number of states of one bird and age, as a study searches it."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.hmm import criteria
from models.hmm.choice import best_fits, choices, select_by_bic, with_fits
from models.hmm.confidence import states_set
from models.hmm.em import Songs
from models.hmm.fit import HmmFit
from models.hmm.fitting import most_states
from models.hmm.found import StatesFound
from models.hmm.gaussian import GaussianHMM
from models.hmm.grid import first_numbers, grid_fits
from models.hmm.held_out import HeldOut, fewest_within_error, merge_held_out, with_held_out
from models.hmm.merge_search import MergeSearch
from models.hmm.params import HmmParams, in_words, too_few
from models.hmm.report import NAMES

Array = NDArray[np.float64]

LARGEST = 1e140  # sums of its squares are still float64
# BIC per snippet by which a kind of covariances is so far behind that confirming cannot matter.
FAR = 0.5
# And by which it may still win, when one was searched in haste and the other was not.
NEAR = 0.1
FLOORED_SHARE = 0.2  # of states; more of them are worth a remark


def search_states(
    sequences: Sequence[Array],
    params: HmmParams,
    seed: int,
    before: GaussianHMM | None = None,
    new_share: float = 1.0,
) -> StatesFound:
    """Search as ``params`` say.

    Args:
        sequences: whitened latents [n_snippets, latent_dim], one array per recording.
        params: of the search.
        seed: the same one gives the same result.
        before: model of the age before, where ages are chained.
        new_share: share of a snippet that the one before does not hold; below 1 where snippets
            overlap. BIC's N, and the fewest snippets that params ask for, count snippets times it.

    Raises:
        ValueError: ``new_share`` is not above 0 and at most 1.
    """
    if not isinstance(new_share, int | float) or not 0 < new_share <= 1:
        raise ValueError(
            f"new_share is {new_share!r}: it is hop / n_frames of the snippets, above 0 and at "
            "most 1 (1 where they do not overlap)."
        )
    refused = refusal(sequences, params, new_share)
    if refused is not None:
        return refused
    songs_of = {k: Songs(sequences, k, params.engine, new_share) for k in params.kinds}
    params_of = {k: dataclasses.replace(params, covariance_type=k) for k in params.kinds}
    fits: list[HmmFit] = []
    held_out: dict[str, HeldOut] = {}
    if params.search == "grid":
        for kind, songs in songs_of.items():
            fits += grid_fits(sequences, songs, params_of[kind], seed)
    else:
        searches = [MergeSearch(songs_of[k], params_of[k], seed) for k in params.kinds]
        _run(searches, before)
        for kind, search in zip(params.kinds, searches, strict=True):
            of_kind = merge_held_out(sequences, search.fits, search.top, search.params, seed)
            held_out[kind] = of_kind
            fits += with_held_out(search.fits, of_kind.per_snippet(kind))
    chosen = select_by_bic(fits)
    kind = next(k for k in params.kinds if chosen is None or k == chosen.best.covariance_type)
    songs = songs_of[kind]
    found = conclude(songs, fits, params)
    if kind not in held_out:
        return found
    return dataclasses.replace(found, held_out_se_n_states=fewest_within_error(held_out[kind].nats))


def _run(searches: Sequence[MergeSearch], before: GaussianHMM | None) -> None:
    """Search with each kind of covariances; in haste with one that is far behind."""
    seen = [search.look() for search in searches]
    for search, lowest in zip(searches, seen, strict=True):
        search.run(before, in_haste=lowest > min(seen) + FAR)
    ahead = min(search.lowest_bic for search in searches)
    for search, lowest in zip(searches, seen, strict=True):
        if lowest > min(seen) + FAR and search.lowest_bic < ahead + NEAR:
            search.finish(before)


def refusal(
    sequences: Sequence[Array], params: HmmParams, new_share: float = 1.0
) -> StatesFound | None:
    """Why these latents cannot be fitted at all; None where they can."""
    lengths = [len(s) for s in sequences]
    few = too_few([n for n in lengths if n], params, new_share)
    if few or not sum(lengths):
        return StatesFound("too_few_snippets", few or "no snippets")
    if not first_numbers(sum(lengths) * new_share, params):
        return StatesFound(
            "too_few_snippets",
            f"{in_words(sum(lengths), new_share)} leave fewer than "
            f"{params.min_snippets_per_state} to a state (hmm.min_snippets_per_state)",
        )
    X = np.concatenate(list(sequences))
    broken = int((~np.isfinite(X).all(1)).sum())
    if broken:
        return StatesFound("failed", f"{broken} of {len(X)} snippets are not finite numbers")
    largest = float(np.abs(X).max())
    if largest > LARGEST:
        return StatesFound(
            "failed", f"latents up to {largest:.0e}: float64 cannot hold their squares"
        )
    if not np.ptp(X, axis=0).any():
        return StatesFound("failed", f"all {len(X)} snippets are equal")
    return None


def conclude(songs: Songs, fits: Sequence[HmmFit], params: HmmParams) -> StatesFound:
    """Choose among all fits of one bird and age; only the chosen one keeps its model.

    Args:
        songs: that were fitted, packed for covariances of the kind with the lowest BIC.
        fits: all of them; at least the one with the lowest BIC with its model.
        params: of the search.
    """
    fits = with_held_out(fits, {})
    selection = select_by_bic(fits)
    if selection is None:
        reasons = sorted({fit.reason for fit in fits})
        return StatesFound("failed", f"every fit failed: {'; '.join(reasons[:3])}", fits)
    best = selection.best
    assert best.model is not None
    n_effective = criteria.n_effective(songs, songs.centred(best.model))
    in_set = states_set(songs, best_fits(fits), best.n_states)
    changed = [_with_effective(fit, best, n_effective) for fit in fits]
    selection = with_fits(selection, fits, changed)
    fits, best = changed, selection.best
    limit = most_states(songs.n_observations, params)
    edge = "highest" if best.n_states == limit and limit > 1 else ""
    restarts = [fit.log_likelihood for fit in fits if fit.n_states == best.n_states
                and fit.covariance_type == best.covariance_type
                and fit.reached_by in ("restart", "grid") and fit.has_model]  # fmt: skip
    near = best.log_likelihood - best.n_snippets / 1000
    n_agreeing = sum(one >= near for one in restarts)
    chosen_by, at_limit = choices(fits)
    remarks = []
    if edge:
        remarks.append(
            f"BIC is lowest at the highest number of states that may be tried, {limit}: raise "
            "hmm.max_n_states, or record more"
        )
    if best.status != "ok":
        remarks.append(best.reason)
    remarks += _remarks(best, n_agreeing, len(restarts), at_limit)
    found = StatesFound(
        status="ok",
        reason="; ".join(remarks),
        fits=fits,
        selection=selection,
        edge=edge,
        chosen_by=chosen_by,
        n_effective=n_effective,
        restart_spread=best.log_likelihood - min(restarts) if restarts else math.nan,
        n_agreeing=n_agreeing,
        n_restarts=len(restarts),
        at_limit=at_limit,
        n_states_set=in_set,
    )
    return _with_rival(found, params)


def _remarks(
    best: HmmFit, n_agreeing: int, n_restarts: int, at_limit: tuple[str, ...]
) -> list[str]:
    """What a reader of the number of states must know, and its remedy."""
    remarks = []
    if not n_restarts:
        remarks.append(f"no independent restart ran at {best.n_states} states")
    elif not n_agreeing:
        remarks.append(
            f"none of {n_restarts} independent restarts reached the fit with {best.n_states} "
            "states: another seed may find other states"
        )
    if best.n_floored > FLOORED_SHARE * best.n_states:
        remarks.append(
            f"{best.n_floored} of {best.n_states} states lie on the variance floor, "
            "hmm.min_variance makes them: look for silence, equal snippets or a column that hardly "
            "varies"
        )
    beyond = [NAMES[name] for name in at_limit if name in NAMES]
    if beyond:
        remarks.append(
            f"{', '.join(beyond)}: still better at the highest number of states tried, so that "
            "their choices are lower bounds"
        )
    return remarks


def _with_rival(found: StatesFound, params: HmmParams) -> StatesFound:
    """The search with the best fit of the kind of covariances that was not chosen."""
    assert found.selection is not None
    best = found.selection.best
    kind = next((kind for kind in params.kinds if kind != best.covariance_type), "")
    rival = select_by_bic([fit for fit in found.fits if fit.covariance_type == kind])
    if rival is None:
        return dataclasses.replace(found, rival_covariance_type=kind)
    return dataclasses.replace(
        found,
        rival_covariance_type=kind,
        rival_n_states=rival.best.n_states,
        rival_bic_distance=rival.best.bic - best.bic,
        rival_held_out_log_likelihood=rival.best.held_out_log_likelihood,
    )


def _with_effective(fit: HmmFit, best: HmmFit, n_effective: float) -> HmmFit:
    model = fit.model if fit is best else None
    if not fit.has_model:
        return dataclasses.replace(fit, model=None)
    effective = criteria.effective_bic(
        fit.log_likelihood, fit.n_free_params, fit.n_snippets, n_effective
    )
    return dataclasses.replace(fit, bic_effective=effective, model=model)
