"""The choice among the fits of one bird and age, by BIC and by the criteria beside it."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.hmm.fit import HmmFit


@dataclass(frozen=True)
class ChosenByBic:
    """The number of states that BIC chooses among fits of one bird and age.

    Attributes:
        best: the fit with the lowest BIC.
        runner_up: the best number of states but one; None where only one could be fitted.
        runner_up_distance: its BIC above the best, in nats times 2.
        edge: "", "lowest" or "highest": the minimum lies at that end of the numbers that were
            fitted, so that the best number may lie beyond.
    """

    best: HmmFit
    runner_up: int | None
    runner_up_distance: float | None
    edge: str


def select_by_bic(fits: Sequence[HmmFit]) -> ChosenByBic | None:
    """The fit with the lowest BIC; None where no fit has a model.

    Rough fits are chosen only where there are no others. Where two are equal, fewer states and then
    the lower restart win, so that the order of ``fits`` plays no part.

    Args:
        fits: of one bird and age, all fitted to the same snippets.
    """
    best_of = best_fits(fits)
    finished = {k: fit for k, fit in best_of.items() if fit.status != "rough"} or best_of
    if not finished:
        return None
    by_bic = sorted(finished.values(), key=lambda fit: (fit.bic, fit.n_states))
    best = by_bic[0]
    edge = ""
    if best.n_states == max(best_of):
        edge = "highest"
    elif best.n_states == min(best_of) and best.n_states > 1:
        edge = "lowest"
    if len(by_bic) == 1:
        return ChosenByBic(best, None, None, edge)
    return ChosenByBic(best, by_bic[1].n_states, by_bic[1].bic - best.bic, edge)


def with_fits(
    selection: ChosenByBic, before: Sequence[HmmFit], after: Sequence[HmmFit]
) -> ChosenByBic:
    """The same choice among fits of which something was changed, in the same order.

    Not chosen anew: rounding could make BICs equal, and the other fit has no model.
    """
    best = next(new for old, new in zip(before, after, strict=True) if old is selection.best)
    return dataclasses.replace(selection, best=best)


def best_fits(fits: Sequence[HmmFit]) -> dict[int, HmmFit]:
    """The fit with the lowest BIC of every number of states; finished ones before rough ones.

    Of the kind of covariances with the lowest BIC alone.
    """
    best: dict[int, HmmFit] = {}
    lowest = min((fit for fit in fits if fit.has_model), key=_rank, default=None)
    for fit in fits:
        if lowest is None or not fit.has_model or fit.covariance_type != lowest.covariance_type:
            continue
        if fit.n_states not in best or _rank(fit) < _rank(best[fit.n_states]):
            best[fit.n_states] = fit
    return best


def _rank(fit: HmmFit) -> tuple[Any, ...]:
    return fit.status == "rough", fit.bic, fit.restart, fit.reached_by, fit.start


def choices(fits: Sequence[HmmFit]) -> tuple[dict[str, int], tuple[str, ...]]:
    """What each criterion would choose.

    Returns:
        The number of states by name of the criterion; and the names of those that choose the
        highest number for which they are known, so that they may be lower, or the held-out
        likelihood higher, beyond.
    """
    chosen: dict[str, int] = {}
    at_limit: list[str] = []
    is_rough = all(fit.status == "rough" for fit in best_fits(fits).values())
    best = best_fits(fits)
    for name in ("bic", "aic", "icl", "bic_effective", "held_out_log_likelihood"):
        sign = -1 if name == "held_out_log_likelihood" else 1
        # BIC decides: what is rough is no choice, elsewhere it shows the curve.
        known = {k: sign * getattr(f, name) for k, f in best.items()
                 if math.isfinite(getattr(f, name))
                 and (name != "bic" or f.status != "rough" or is_rough)}  # fmt: skip
        if known:
            chosen[name] = min(known, key=lambda k: (known[k], k))
            if chosen[name] == max(known) > min(known):
                at_limit.append(name)
    return chosen, tuple(at_limit)
