"""The number of states of one bird and age: `select_n_states`, and what a study calls."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from models.hmm import criteria
from models.hmm.choice import ChosenByBic, choices, select_by_bic, with_fits
from models.hmm.em import Songs
from models.hmm.fit import HmmFit
from models.hmm.fitting import most_states
from models.hmm.gaussian import GaussianHMM
from models.hmm.grid import first_numbers, grid_fits
from models.hmm.held_out import shared_held_out, with_held_out
from models.hmm.merge_search import MergeSearch
from models.hmm.params import CovarianceType, HmmParams, SearchKind, too_few

Array = NDArray[np.float64]
SearchStatus = Literal["ok", "too_few_snippets", "failed"]

LARGEST = 1e140  # sums of its squares are still float64


@dataclass(frozen=True)
class StatesFound:
    """The number of states that a search found, and every fit on the way.

    Attributes:
        status: ok, too_few_snippets, failed.
        reason: why, where not ok; a remark on the choice where it is.
        fits: every fit that was looked at, in order; only the chosen one has its model.
        selection: the choice by BIC; None where there is no model.
        edge: "" or "highest": BIC is lowest at the highest number of states that may be tried.
        chosen_by: number of states that each criterion would choose.
        n_effective: independent observations that the snippets are worth.
        restart_spread: log-likelihood of the chosen fit above the worst restart at that number of
            states, in nats; NaN where there was none.
        n_agreeing: restarts within a nat per thousand snippets of the chosen fit.
        n_restarts: restarts at that number of states.
    """

    status: SearchStatus
    reason: str
    fits: list[HmmFit] = field(default_factory=list)
    selection: ChosenByBic | None = None
    edge: str = ""
    chosen_by: dict[str, int] = field(default_factory=dict)
    n_effective: float = math.nan
    restart_spread: float = math.nan
    n_agreeing: int = 0
    n_restarts: int = 0

    @property
    def n_states(self) -> int | None:
        """The number of states with the lowest BIC."""
        return self.selection.best.n_states if self.selection else None

    @property
    def model(self) -> GaussianHMM | None:
        """The model with the lowest BIC."""
        return self.selection.best.model if self.selection else None

    @property
    def table(self) -> list[dict[str, Any]]:
        """One row per fit, by number of states; ``pandas.DataFrame(search.table)`` shows it."""
        names = [f.name for f in dataclasses.fields(HmmFit) if f.name != "model"]
        by_states = sorted(self.fits, key=lambda fit: fit.n_states)
        return [{name: getattr(fit, name) for name in names} for fit in by_states]


def select_n_states(
    sequences: Sequence[Array],
    covariance_type: CovarianceType = "diag",
    n_states: tuple[int, int] = (5, 100),
    seed: int = 0,
    search: SearchKind = "merge",
    params: HmmParams | None = None,
) -> StatesFound:
    """Find the number of states of a Gaussian HMM by BIC.

    Latents of any scale will do: they are divided by one number before, and all that is returned is
    in their own units again.

    Args:
        sequences: latents [n_snippets, latent_dim], one array per recording.
        covariance_type: spherical, diag, tied or full.
        n_states: lowest and highest number of states; more are tried where BIC is lowest at the
            highest, up to twice as many.
        seed: the same one gives the same result.
        search: "merge", or "grid" for every number of states in the range.
        params: all the rest; the arguments before replace what it says of them.

    Raises:
        ValueError: the arrays do not have the same number of columns, there are none, or they
            hold numbers that are not finite; ``n_states`` is no range; or ``seed`` is none.
    """
    seed, (lowest, highest) = _checked_seed(seed), _checked_range(n_states)
    numbers = tuple(range(lowest, highest + 1)) if search == "grid" else (lowest, highest)
    params = dataclasses.replace(
        params or HmmParams(min_snippets=1, min_recordings=1),
        n_states=numbers,
        max_n_states=None,
        covariance_type=covariance_type,
        search=search,
    )
    arrays = _checked_sequences(sequences)
    scale = _scale(arrays)
    largest = max(float(np.abs(a).max(initial=0)) for a in arrays)
    if largest > LARGEST or scale < 1 / LARGEST:
        return StatesFound(
            "failed",
            f"latents up to {largest:.0e} that vary by about {scale:.0e}: float64 does not hold "
            "their squares",
        )
    # Products of these sizes gain nothing from threads, and a cluster has a fit for every core.
    with np.errstate(all="ignore"), threadpool_limits(1):
        found = search_states([a / scale for a in arrays], params, seed)
    return _rescaled(found, scale, arrays[0].shape[1])


def _checked_seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed!r}: give a whole number from 0 to {2**32 - 1}.")
    return int(seed)


def _checked_range(n_states: Any) -> tuple[int, int]:
    """The lowest and the highest number of states; refuse what is no such pair."""
    given = list(n_states) if isinstance(n_states, list | tuple | np.ndarray) else [n_states]
    if any(isinstance(k, bool) or not isinstance(k, int | np.integer) for k in given):
        raise ValueError(f"n_states is {n_states!r}: give two whole numbers, such as (5, 20).")
    if len(given) != 2:
        k = given or [5, 20]
        raise ValueError(
            f"n_states is {n_states!r}: give the lowest and the highest number of states, here "
            f"({min(k)}, {max(k)}); search='grid' then tries every number from one to the other."
        )
    if not 1 <= given[0] <= given[1]:
        raise ValueError(f"n_states is {n_states}: give the lowest and the highest, from 1 on.")
    return int(given[0]), int(given[1])


def _checked_sequences(sequences: Sequence[Array]) -> list[Array]:
    """The sequences as float64 [n_snippets, latent_dim]; refuse what no HMM can be fitted to."""
    given: Any = sequences  # numpy's arrays are no Sequence to mypy
    if isinstance(given, np.ndarray) and given.ndim == 2:
        raise ValueError(
            f"sequences is one array of the shape {given.shape}: give a list with one array "
            "for each recording, for a single one [latents]."
        )
    try:
        arrays = [np.asarray(s, dtype=np.float64) for s in sequences]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"sequences are not arrays of numbers ({error}): give a list of arrays "
            "[n_snippets, latent_dim], one for each recording."
        ) from error
    shapes = sorted({a.shape[1:] for a in arrays})
    if len(shapes) != 1 or len(shapes[0]) != 1 or shapes[0][0] < 1:
        advice = ""
        if shapes == [()] and arrays[0].ndim == 1:
            advice = " Where a latent is one number, give array[:, None]."
        raise ValueError(
            "sequences must be arrays [n_snippets, latent_dim] with one latent_dim; their shapes "
            f"are {[a.shape for a in arrays[:5]]}{' ...' if len(arrays) > 5 else ''}.{advice}"
        )
    for i, array in enumerate(arrays):
        if n_broken := int((~np.isfinite(array).all(1)).sum()):
            raise ValueError(
                f"sequences[{i}] holds {n_broken} of {len(array)} snippets that are not finite "
                "numbers: leave that recording out, or look for gaps in it."
            )
    return arrays


def search_states(
    sequences: Sequence[Array], params: HmmParams, seed: int, before: GaussianHMM | None = None
) -> StatesFound:
    """Search as ``params`` say.

    Args:
        sequences: whitened latents [n_snippets, latent_dim], one array per recording.
        params: of the search.
        seed: the same one gives the same result.
        before: model of the age before, where ages are chained.
    """
    refused = refusal(sequences, params)
    if refused is not None:
        return refused
    songs = Songs(sequences, params.covariance_type, params.engine)
    if params.search == "grid":
        return conclude(songs, grid_fits(sequences, songs, params, seed), params)
    search = MergeSearch(songs, params, seed)
    search.run(before)
    return conclude(songs, with_held_out(sequences, search.fits, search.top, params, seed), params)


def refusal(sequences: Sequence[Array], params: HmmParams) -> StatesFound | None:
    """Why these latents cannot be fitted at all; None where they can."""
    lengths = [len(s) for s in sequences]
    few = too_few([n for n in lengths if n], params)
    if few or not sum(lengths):
        return StatesFound("too_few_snippets", few or "no snippets")
    if not first_numbers(sum(lengths), params):
        return StatesFound(
            "too_few_snippets",
            f"{sum(lengths)} snippets leave fewer than {params.min_snippets_per_state} to a state "
            "(hmm.min_snippets_per_state)",
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
        songs: that were fitted.
        fits: all of them; at least the one with the lowest BIC with its model.
        params: of the search.
    """
    fits = shared_held_out(fits)
    selection = select_by_bic(fits)
    if selection is None:
        reasons = sorted({fit.reason for fit in fits})
        return StatesFound("failed", f"every fit failed: {'; '.join(reasons[:3])}", fits)
    best = selection.best
    assert best.model is not None
    n_effective = criteria.n_effective(songs, songs.centred(best.model))
    changed = [_with_effective(fit, best, n_effective) for fit in fits]
    selection = with_fits(selection, fits, changed)
    fits, best = changed, selection.best
    limit = most_states(songs.n_snippets, params)
    edge = "highest" if best.n_states == limit and limit > 1 else ""
    restarts = [fit.log_likelihood for fit in fits if fit.n_states == best.n_states
                and fit.reached_by in ("restart", "grid") and fit.has_model]  # fmt: skip
    near = best.log_likelihood - best.n_observations / 1000
    remarks = []
    if edge:
        remarks.append(
            f"BIC is lowest at the highest number of states that may be tried, {limit}: raise "
            "hmm.max_n_states, or record more"
        )
    if best.status != "ok":
        remarks.append(best.reason)
    return StatesFound(
        status="ok",
        reason="; ".join(remarks),
        fits=fits,
        selection=selection,
        edge=edge,
        chosen_by=choices(fits),
        n_effective=n_effective,
        restart_spread=best.log_likelihood - min(restarts) if restarts else math.nan,
        n_agreeing=sum(one >= near for one in restarts),
        n_restarts=len(restarts),
    )


def _with_effective(fit: HmmFit, best: HmmFit, n_effective: float) -> HmmFit:
    model = fit.model if fit is best else None
    if not fit.has_model:
        return dataclasses.replace(fit, model=None)
    effective = criteria.effective_bic(
        fit.log_likelihood, fit.n_free_params, fit.n_observations, n_effective
    )
    return dataclasses.replace(fit, bic_effective=effective, model=model)


def _scale(arrays: Sequence[Array]) -> float:
    """One number to divide latents by, so that floors and priors mean the same for all."""
    X = np.concatenate(list(arrays)) if arrays else np.zeros((0, 1))
    X = X[np.isfinite(X).all(1)]
    if not len(X):
        return 1.0
    centred = X - np.median(X, axis=0)
    with np.errstate(over="ignore"):
        # 1.4826 makes a normal variable's standard deviation of it; outliers do not count.
        typical = 1.4826 * float(np.median(np.abs(centred), axis=0).mean())
        spread = typical if typical > 0 else float(centred.std(0).mean())
    return spread if math.isfinite(spread) and spread > 0 else 1.0


def _rescaled(search: StatesFound, scale: float, latent_dim: int) -> StatesFound:
    """A search on latents divided by ``scale``, in the latents' own units."""
    log_scale = latent_dim * math.log(scale)

    def one(fit: HmmFit) -> HmmFit:
        if not fit.has_model:
            return fit
        more = 2 * fit.n_observations * log_scale
        model = fit.model
        if model is not None:
            model.means_ = model.means_ * scale
            model._covars_ = np.asarray(model._covars_) * scale**2
        return dataclasses.replace(
            fit,
            log_likelihood=fit.log_likelihood - more / 2,
            bic=fit.bic + more,
            aic=fit.aic + more,
            icl=fit.icl + more,
            bic_effective=fit.bic_effective + more * search.n_effective / fit.n_observations,
            held_out_log_likelihood=fit.held_out_log_likelihood - log_scale,
            model=model,
        )

    fits = [one(fit) for fit in search.fits]
    selection = search.selection and with_fits(search.selection, search.fits, fits)
    return dataclasses.replace(search, fits=fits, selection=selection)
