"""The Ray task: the HMM search on one amount of song, measured on song that is held out."""

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from models.hmm import GaussianHMM, HmmParams, search_states
from models.hmm.em import Songs
from models.hmm.predictive import song_likelihoods
from study.cluster.tasks import MAX_RETRIES
from study.hmms.tables import CRITERIA
from study.how_much.truth import Named, Truth, divergences

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A search on one amount of song; without a model, what it would give is None.

    Attributes:
        status: ok, too_few_snippets, failed.
        reason: why, where not ok; a remark on the choice where it is.
        n_states: number of states that BIC chooses.
        aic_n_states: that AIC would choose; likewise the other criteria.
        held_out_n_states: that recordings would choose which the search itself keeps out of the
            song that it is given.
        held_out_log_likelihood: of the song that is never fitted, in nats per snippet.
        predictive_information: of the same song, in bits per snippet.
        divergence_to_truth: of the pairs of labels that the model sings to the pairs of the true
            chain, in bits; None without a truth.
        divergence_of_labels: the same of the pairs in the fitted song itself, cut into snippets:
            what even a perfect model would have.
        seconds: of the search.
        held_out_nats: log-likelihood of each held-out recording.
        held_out_snippets: snippets of each held-out recording.
    """

    status: str
    reason: str
    n_states: int | None = None
    aic_n_states: int | None = None
    icl_n_states: int | None = None
    bic_effective_n_states: int | None = None
    held_out_n_states: int | None = None
    held_out_log_likelihood: float | None = None
    predictive_information: float | None = None
    divergence_to_truth: float | None = None
    divergence_of_labels: float | None = None
    seconds: float = 0.0
    held_out_nats: list[float] | None = None
    held_out_snippets: list[int] | None = None


@ray.remote(num_cpus=1, max_retries=MAX_RETRIES)
def fit_task(
    fitted: list[Array],
    held_out: list[Array],
    params: HmmParams,
    seed: int,
    truth: tuple[Truth, list[Named]] | None,
) -> Measured:
    """Search the number of states on some song and measure it on other song.

    Args:
        fitted: whitened latents [n_snippets, latent_dim], one array per recording.
        held_out: the same of the recordings that are never fitted.
        params: of the search.
        seed: of the search.
        truth: of the bird and age, and the true labels of each fitted recording; None where
            nobody knows it.
    """
    began = time.monotonic()
    with threadpool_limits(1):
        found = search_states(fitted, params, seed)
        seconds = round(time.monotonic() - began, 2)
        if found.model is None:
            return Measured(status=found.status, reason=found.reason, seconds=seconds)
        likelihoods = song_likelihoods(Songs(held_out, found.model.covariance_type), found.model)
        if not np.isfinite(likelihoods.in_order + likelihoods.order_ignored).all():
            reason = "a held-out recording is impossible under the model"
            return Measured(status="failed", reason=reason, seconds=seconds)
        chosen = {column: found.chosen_by.get(name) for name, column in CRITERIA.items()}
        return Measured(
            status=found.status,
            reason=found.reason,
            n_states=found.n_states,
            **chosen,
            held_out_log_likelihood=likelihoods.per_snippet,
            predictive_information=likelihoods.predictive_information,
            **_against(truth, fitted, found.model, seed),
            seconds=seconds,
            held_out_nats=likelihoods.in_order.tolist(),
            held_out_snippets=likelihoods.lengths.tolist(),
        )


def _against(
    truth: tuple[Truth, list[Named]] | None, fitted: list[Array], model: GaussianHMM, seed: int
) -> dict[str, Any]:
    """The divergences to the truth; nothing where nobody knows it."""
    if truth is None:
        return {}
    posteriors = Songs(fitted, model.covariance_type)
    of_model, of_labels = divergences(
        *truth, posteriors.posteriors(posteriors.centred(model)), model.transmat_, seed
    )
    return {
        "divergence_to_truth": None if math.isnan(of_model) else of_model,
        "divergence_of_labels": None if math.isnan(of_labels) else of_labels,
    }
