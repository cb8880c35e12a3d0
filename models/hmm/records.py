"""What is kept of every fit, and the choice among them by BIC."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from models.hmm import criteria
from models.hmm.em import Em, Songs
from models.hmm.gaussian import GaussianHMM
from models.hmm.health import examine
from models.hmm.params import HmmParams

FitStatus = Literal["ok", "rough", "not_converged", "not_monotone", "failed", "skipped"]
HAS_MODEL = ("ok", "rough", "not_converged", "not_monotone")


@dataclass(frozen=True)
class HmmFit:
    """One fit and how it went.

    Attributes:
        n_states: number of states.
        reached_by: grid, coarse, merge path, polish, merge, split, restart or chained.
        restart: index among the restarts of this number of states; 0 for what has none.
        start: what EM began with: k-means, random, merge, split, chained.
        covariance_type: of the emissions.
        log_likelihood: nats, over all snippets that were fitted; NaN where there is no model.
        n_free_params: start, transitions, means, covariances, without structural zeros.
        n_observations: snippets behind the log-likelihood: the N of BIC.
        bic: -2 log L + n_free_params log N; lower is better. It decides.
        aic: -2 log L + 2 n_free_params.
        icl: BIC plus twice the entropy of the states given the songs.
        bic_effective: BIC with the effective number of observations; NaN until it is known.
        held_out_log_likelihood: nats per snippet, of recordings that a fit of this number of states
            did not see; NaN where none was made.
        n_iter: EM iterations.
        converged: by our own test on the last gain.
        is_monotone: the objective of EM never fell.
        n_dead: states to which no snippet belongs.
        n_singleton: states that hold one snippet.
        n_floored: states with a variance that the floor or the prior makes.
        n_repairs: repairs of dead and singleton states that were kept.
        status: ok, rough (few iterations on purpose), not_converged (iterations used up),
            not_monotone, failed, skipped.
        reason: why, where not ok.
        seconds: CPU time of the fit.
        model: for latents as given; None where failed or skipped, or where it was not kept.
    """

    n_states: int
    reached_by: str
    restart: int
    start: str
    covariance_type: str
    log_likelihood: float
    n_free_params: int
    n_observations: int
    bic: float
    aic: float
    icl: float
    bic_effective: float
    held_out_log_likelihood: float
    n_iter: int
    converged: bool
    is_monotone: bool
    n_dead: int
    n_singleton: int
    n_floored: int
    n_repairs: int
    status: FitStatus
    reason: str
    seconds: float
    model: GaussianHMM | None = None

    @property
    def has_model(self) -> bool:
        """Whether there is a log-likelihood to compare."""
        return self.status in HAS_MODEL


@dataclass(frozen=True)
class Origin:
    """How a fit was come by."""

    reached_by: str
    start: str
    restart: int = 0


def record_of(
    songs: Songs, em: Em, origin: Origin, params: HmmParams, seconds: float, n_repairs: int = 0,
    is_rough: bool = False, n_iter: int | None = None,
) -> HmmFit:  # fmt: skip
    """The record of a run of EM, with its model."""
    n_iter = em.n_iter if n_iter is None else n_iter
    if not math.isfinite(em.log_likelihood):
        reason = f"log-likelihood is {em.log_likelihood} after {n_iter} iterations"
        return without_model(em.n_states, origin, songs, params, "failed", reason, seconds)
    free = criteria.count_free_params(em, params)
    n = songs.n_snippets
    status, reason = _status(em, is_rough, n_iter)
    health = examine(em, params)
    return HmmFit(
        n_states=em.n_states,
        reached_by=origin.reached_by,
        restart=origin.restart,
        start=origin.start,
        covariance_type=params.covariance_type,
        log_likelihood=em.log_likelihood,
        n_free_params=free,
        n_observations=n,
        bic=criteria.bic(em.log_likelihood, free, n),
        aic=criteria.aic(em.log_likelihood, free),
        icl=criteria.icl(em, free, n),
        bic_effective=math.nan,
        held_out_log_likelihood=math.nan,
        n_iter=n_iter,
        converged=em.converged,
        is_monotone=em.is_monotone,
        n_dead=health.n_dead,
        n_singleton=health.n_singleton,
        n_floored=health.n_floored,
        n_repairs=n_repairs,
        status=status,
        reason=reason,
        seconds=seconds,
        model=songs.uncentred(em.model),
    )


def _status(em: Em, is_rough: bool, n_iter: int) -> tuple[FitStatus, str]:
    if not em.is_monotone:
        return "not_monotone", "the objective of EM fell: a covariance is close to singular"
    if em.converged:
        return "ok", ""
    if is_rough:
        return "rough", f"{n_iter} iterations, to see where BIC is low"
    return "not_converged", f"{n_iter} iterations used up"


def without_model(
    n_states: int,
    origin: Origin,
    songs: Songs,
    params: HmmParams,
    status: FitStatus,
    reason: str,
    seconds: float,
) -> HmmFit:
    """The record of a fit that gave no model."""
    free = criteria.n_free_params(n_states, songs.latent_dim, params.covariance_type)
    nan = math.nan
    return HmmFit(
        n_states, origin.reached_by, origin.restart, origin.start, params.covariance_type,
        nan, free, songs.n_snippets, nan, nan, nan, nan, nan,
        0, False, True, 0, 0, 0, 0, status, reason, seconds,
    )  # fmt: skip


@dataclass(frozen=True)
class Selection:
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


def select_by_bic(fits: Sequence[HmmFit]) -> Selection | None:
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
        return Selection(best, None, None, edge)
    return Selection(best, by_bic[1].n_states, by_bic[1].bic - best.bic, edge)


def with_fits(selection: Selection, before: Sequence[HmmFit], after: Sequence[HmmFit]) -> Selection:
    """The same choice among fits of which something was changed, in the same order.

    Not chosen anew: rounding could make BICs equal, and the other fit has no model.
    """
    best = next(new for old, new in zip(before, after, strict=True) if old is selection.best)
    return dataclasses.replace(selection, best=best)


def best_fits(fits: Sequence[HmmFit]) -> dict[int, HmmFit]:
    """The fit with the lowest BIC of every number of states; finished ones before rough ones."""
    best: dict[int, HmmFit] = {}
    for fit in fits:
        if fit.has_model and (fit.n_states not in best or _rank(fit) < _rank(best[fit.n_states])):
            best[fit.n_states] = fit
    return best


def _rank(fit: HmmFit) -> tuple[Any, ...]:
    return fit.status == "rough", fit.bic, fit.restart, fit.reached_by, fit.start


def choices(fits: Sequence[HmmFit]) -> dict[str, int]:
    """The number of states that each criterion would choose, by name of the criterion."""
    chosen: dict[str, int] = {}
    best = best_fits(fits)
    for name in ("bic", "aic", "icl", "bic_effective", "held_out_log_likelihood"):
        sign = -1 if name == "held_out_log_likelihood" else 1
        known = {k: sign * getattr(f, name) for k, f in best.items()
                 if math.isfinite(getattr(f, name))}  # fmt: skip
        if known:
            chosen[name] = min(known, key=lambda k: (known[k], k))
    return chosen
