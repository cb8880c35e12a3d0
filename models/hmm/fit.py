"""One fit as it is kept: its numbers, its health and how it went."""

import math
from dataclasses import dataclass
from typing import Literal

from models.hmm import criteria
from models.hmm.em import Em, Songs
from models.hmm.gaussian import GaussianHMM
from models.hmm.health import examine
from models.hmm.params import HmmParams

FitStatus = Literal["ok", "rough", "not_converged", "not_monotone", "failed", "skipped"]
HAS_MODEL = ("ok", "rough", "not_converged", "not_monotone")


@dataclass(frozen=True, kw_only=True)
class HmmFit:
    """One fit and how it went; the defaults are those of a fit without a model.

    Every field but ``model`` is a column of a table of fits, in this order.

    Attributes:
        n_states: number of states.
        reached_by: grid, coarse, merge path, polish, merge, split, restart or chained.
        restart: index among the restarts of this number of states; 0 where there are none.
        start: what EM began with: k-means, random, merge, split, chained.
        covariance_type: of the emissions.
        log_likelihood: nats, over all snippets that were fitted; NaN where there is no model.
        n_free_params: start, transitions, means, covariances, without structural zeros.
        n_snippets: snippets behind the log-likelihood.
        n_observations: those that would lie side by side: the N of BIC. Where snippets overlap,
            it is smaller than n_snippets.
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
    log_likelihood: float = math.nan
    n_free_params: int
    n_snippets: int
    n_observations: float
    bic: float = math.nan
    aic: float = math.nan
    icl: float = math.nan
    bic_effective: float = math.nan
    held_out_log_likelihood: float = math.nan
    n_iter: int = 0
    converged: bool = False
    is_monotone: bool = True
    n_dead: int = 0
    n_singleton: int = 0
    n_floored: int = 0
    n_repairs: int = 0
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
    """A run of EM as it is kept, with its model."""
    n_iter = em.n_iter if n_iter is None else n_iter
    if not math.isfinite(em.log_likelihood):
        reason = f"log-likelihood is {em.log_likelihood} after {n_iter} iterations"
        return without_model(
            em.n_states, origin, songs, params, status="failed", reason=reason, seconds=seconds
        )
    free = criteria.count_free_params(em, params)
    status, reason = _status(em, is_rough, n_iter)
    return HmmFit(
        n_states=em.n_states,
        **vars(origin),
        covariance_type=params.kind,
        log_likelihood=em.log_likelihood,
        n_free_params=free,
        n_snippets=songs.n_snippets,
        n_observations=songs.n_observations,
        bic=criteria.bic(em.log_likelihood, free, songs.n_observations),
        aic=criteria.aic(em.log_likelihood, free),
        icl=criteria.icl(em, free, songs.n_observations),
        n_iter=n_iter,
        converged=em.converged,
        is_monotone=em.is_monotone,
        **vars(examine(em, params)),
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
    *,
    status: FitStatus,
    reason: str,
    seconds: float,
) -> HmmFit:
    """The record of a fit that gave no model."""
    return HmmFit(
        n_states=n_states,
        **vars(origin),
        covariance_type=params.kind,
        n_free_params=criteria.n_free_params(n_states, songs.latent_dim, params.kind),
        n_snippets=songs.n_snippets,
        n_observations=songs.n_observations,
        status=status,
        reason=reason,
        seconds=seconds,
    )
