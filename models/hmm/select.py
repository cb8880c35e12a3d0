"""The door for others: `select_n_states` on latents in any units."""

import dataclasses
import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from models.hmm.choice import with_fits
from models.hmm.fit import HmmFit
from models.hmm.found import StatesFound
from models.hmm.gaussian import GaussianHMM
from models.hmm.params import CovarianceChoice, HmmParams, SearchKind
from models.hmm.search import LARGEST, search_states

Array = NDArray[np.float64]

MOST_UNEQUAL = 100  # spreads of columns: beyond, floors and priors mean nothing for the smaller


def select_n_states(
    sequences: Sequence[Array],
    covariance_type: CovarianceChoice = "auto",
    n_states: tuple[int, int] = (5, 100),
    seed: int = 0,
    search: SearchKind = "merge",
    params: HmmParams | None = None,
    new_share: float = 1.0,
) -> StatesFound:
    """Find the number of states of a Gaussian HMM by BIC.

    Latents of any scale will do: they are divided by one number before, or each column by its own
    spread where spreads differ by more than 100 times, which a remark says. All that is returned is
    in their own units again.

    Args:
        sequences: latents [n_snippets, latent_dim], one array per recording.
        covariance_type: spherical, diag, tied or full; "auto" searches diag and full and takes the
            one with the lower BIC.
        n_states: lowest and highest number of states; more are tried where BIC is lowest at the
            highest, up to twice as many.
        seed: the same one gives the same result.
        search: "merge", or "grid" for every number of states in the range.
        params: all the rest; the arguments before replace what it says of them.
        new_share: where snippets overlap, the share of one that the one before does not hold, such
            as hop / n_frames.

    Raises:
        ValueError: the arrays do not have the same number of columns, there are none, or they
            hold numbers that are not finite; ``n_states`` is no range, ``seed`` or ``new_share`` is
            none; or spreads of columns differ by more than 100 and covariances are spherical.
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
    scales, remark = _scales(arrays, covariance_type)
    scale = float(np.exp(np.log(scales).mean()))
    largest = max(float(np.abs(a).max(initial=0)) for a in arrays)
    if largest > LARGEST or scale < 1 / LARGEST:
        return StatesFound(
            "failed",
            f"latents up to {largest:.0e} that vary by about {scale:.0e}: float64 does not hold "
            "their squares",
        )
    # Products of these sizes gain nothing from threads, and a cluster has a fit for every core.
    with np.errstate(all="ignore"), threadpool_limits(1):
        found = search_states([a / scales for a in arrays], params, seed, None, new_share)
    reason = "; ".join(part for part in (found.reason, remark) if part)
    return _rescaled(dataclasses.replace(found, reason=reason), scales)


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
        arrays = [_as_float(s) for s in sequences]
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


def _as_float(sequence: Any) -> Array:
    """A sequence as float64; refuse what numpy would turn into other numbers without a word."""
    array = np.asarray(sequence)
    if array.dtype.kind not in "iufO":
        raise TypeError(f"one of them holds {array.dtype}")
    if array.dtype.kind == "O":
        for value in array.flat:
            if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
                raise TypeError(f"one of them holds {value!r}")
    return array.astype(np.float64, copy=False)


def _scales(arrays: Sequence[Array], covariance_type: CovarianceChoice) -> tuple[Array, str]:
    """What each column is divided by [latent_dim], and a remark where it is its own spread."""
    latent_dim = arrays[0].shape[1]
    spreads = np.array([_scale([a[:, [i]] for a in arrays]) for i in range(latent_dim)])
    X = np.concatenate(list(arrays)) if arrays else np.zeros((0, latent_dim))
    varies = np.ptp(X, axis=0) > 0 if len(X) else np.zeros(latent_dim, dtype=bool)
    # A column that never changes has no spread of its own.
    spreads[~varies] = np.median(spreads[varies]) if varies.any() else 1.0
    if not spreads.max() > MOST_UNEQUAL * spreads.min():
        return np.full(latent_dim, _scale(arrays)), ""
    which = (
        f"the spreads of columns differ by {spreads.max() / spreads.min():.3g} times (column "
        f"{int(spreads.argmin())}: {spreads.min():.3g}, column {int(spreads.argmax())}: "
        f"{spreads.max():.3g})"
    )
    if covariance_type == "spherical":
        raise ValueError(
            f"{which}, but a spherical state is equally wide in all: divide each column by its own "
            "spread, or give covariance_type='auto', which is free to."
        )
    return spreads, f"{which}: each was divided by its own"


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


def _rescaled(search: StatesFound, scales: Array) -> StatesFound:
    """A search on latents divided by ``scales`` [latent_dim], in the latents' own units."""
    log_scale = float(np.log(scales).sum())

    def one(fit: HmmFit) -> HmmFit:
        if not fit.has_model:
            return fit
        more = 2 * fit.n_snippets * log_scale
        model = fit.model
        if model is not None:
            model.means_ = model.means_ * scales
            model._covars_ = np.asarray(model._covars_) * _of_covariances(model, scales)
        return dataclasses.replace(
            fit,
            log_likelihood=fit.log_likelihood - more / 2,
            bic=fit.bic + more,
            aic=fit.aic + more,
            icl=fit.icl + more,
            bic_effective=fit.bic_effective + more * search.n_effective / fit.n_snippets,
            held_out_log_likelihood=fit.held_out_log_likelihood - log_scale,
            model=model,
        )

    fits = [one(fit) for fit in search.fits]
    rival_held_out = search.rival_held_out_log_likelihood - log_scale
    selection = search.selection and with_fits(search.selection, search.fits, fits)
    return dataclasses.replace(
        search, fits=fits, selection=selection, rival_held_out_log_likelihood=rival_held_out
    )


def _of_covariances(model: GaussianHMM, scales: Array) -> Array:
    """What covariances are multiplied by where the latents are multiplied by ``scales``."""
    if model.covariance_type == "spherical":
        return scales[:1] ** 2
    return np.square(scales) if model.covariance_type == "diag" else np.outer(scales, scales)
