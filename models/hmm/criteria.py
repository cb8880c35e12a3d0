"""Criteria of one fit: parameters counted, BIC, AIC, ICL, effective number of observations.

Lower is better for all but the held-out log-likelihood. Sources: Schwarz 1978 (BIC), Akaike 1974
(AIC), Biernacki, Celeux and Govaert 2000 (ICL), Geyer 1992 (autocorrelation time), Pohle et al.
2017 (why BIC alone does not do for long recordings).
"""

import math

import numpy as np
from numpy.typing import NDArray

from models.hmm.em import Em, Songs
from models.hmm.gaussian import GaussianHMM
from models.hmm.params import CovarianceType, HmmParams

Array = NDArray[np.float64]

MAX_LAG = 100  # snippets; autocorrelation beyond is noise


def n_free_params(
    n_states: int,
    latent_dim: int,
    covariance_type: CovarianceType,
    n_transitions: int | None = None,
    n_starts: int | None = None,
) -> int:
    """Free parameters of a Gaussian HMM: start, transitions, means, covariances.

    Args:
        n_states: number of states.
        latent_dim: numbers in a latent.
        covariance_type: spherical, diag, tied or full.
        n_transitions: transitions that are not zero by structure; all where not given.
        n_starts: states that a song can begin with; all where not given.
    """
    k, d = n_states, latent_dim
    covariances = {
        "spherical": k,
        "diag": k * d,
        "tied": d * (d + 1) // 2,
        "full": k * d * (d + 1) // 2,
    }[covariance_type]
    starts = (k if n_starts is None else n_starts) - 1
    transitions = (k * k if n_transitions is None else n_transitions) - k
    return starts + transitions + k * d + covariances


def count_free_params(em: Em, params: HmmParams) -> int:
    """Free parameters of a fit, without the zeros of its transition structure."""
    k, d = em.n_states, em.model.n_features
    kind: CovarianceType = em.model.covariance_type
    if params.transitions == "full":
        return n_free_params(k, d, kind)
    n_starts = 1 if params.transitions == "left_right" else k
    n_transitions = int(np.count_nonzero(em.model.transmat_))
    return n_free_params(k, d, kind, n_transitions, n_starts)


def bic(log_likelihood: float, n_free: int, n_observations: float) -> float:
    """-2 log L + n_free log N."""
    return -2 * log_likelihood + n_free * math.log(n_observations)


def aic(log_likelihood: float, n_free: int) -> float:
    """-2 log L + 2 n_free."""
    return -2 * log_likelihood + 2 * n_free


def effective_bic(log_likelihood: float, n_free: int, n_snippets: int, n_effective: float) -> float:
    """BIC of a likelihood tempered to ``n_effective`` independent observations.

    -2 log L n_effective / n_snippets + n_free log(n_effective). Equal to BIC where snippets do not
    overlap and the model leaves no autocorrelation.
    """
    return bic(log_likelihood * n_effective / n_snippets, n_free, n_effective)


def path_entropy(em: Em) -> float:
    """Entropy of the states given the songs, in nats: how surely each snippet has its state.

    From the identity H(states | songs) = log L - E[log p(songs, states)], the expectation over the
    posterior, which is linear in the sufficient statistics of the E-step.
    """
    model, stats = em.model, em.stats
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = _sum_where(stats["start"], np.log(model.startprob_))
        expected += _sum_where(stats["trans"], np.log(model.transmat_))
    expected += stats["log_density"] if "log_density" in stats else _gaussian_log_density(em)
    # Between sure and as unsure as can be; outside are only the digits lost for far outliers.
    most = float(stats["post"].sum()) * math.log(em.n_states)
    return float(np.clip(em.log_likelihood - expected, 0.0, most))


def _gaussian_log_density(em: Em) -> float:
    """Expected log-density of all snippets given their states, in nats."""
    stats, d = em.stats, em.model.n_features
    features = [stats["obs"]]
    # hmmlearn gives zeros for "obs**2" where the covariances are matrices.
    if "obs*obs.T" in stats:
        upper = np.triu_indices(d)
        features.append(stats["obs*obs.T"][:, upper[0], upper[1]])
    else:
        features.append(stats["obs**2"])
    features.append(stats["post"][:, None])
    return float((np.hstack(features) * em.model.natural_parameters().T).sum())


def _sum_where(counts: Array, logs: Array) -> float:
    return float((counts * np.where(counts > 0, logs, 0.0)).sum())


def icl(em: Em, n_free: int, n_observations: float) -> float:
    """BIC + 2 H(states | songs): also asks that states can be told apart."""
    return bic(em.log_likelihood, n_free, n_observations) + 2 * path_entropy(em)


def n_effective(songs: Songs, model: GaussianHMM) -> float:
    """Independent observations that the snippets are worth, given the model.

    What is left of every snippet after its state's mean and scale are taken out would be white if
    the model were right. Where snippets overlap, or sound drifts within a state, it is correlated
    over its integrated autocorrelation time tau, and N / tau observations remain (mean over
    dimensions).
    """
    posteriors = songs.posteriors(model)
    variances = np.diagonal(np.asarray(model.covars_), axis1=1, axis2=2)
    residuals = (songs.X - posteriors @ model.means_) / np.sqrt(posteriors @ variances)
    n = songs.n_snippets
    longest = min(MAX_LAG, max(songs.lengths) - 1)
    covariances = np.zeros((longest + 1, songs.latent_dim))
    begin = 0
    for length in songs.lengths:
        song = residuals[begin : begin + length]
        begin += length
        for lag in range(min(longest, length - 1) + 1):
            covariances[lag] += (song[lag:] * song[: length - lag]).sum(0)
    correlations = covariances / np.maximum(covariances[0], 1e-300)
    taus = np.array([_autocorrelation_time(c) for c in correlations.T])
    return float(n * np.mean(1 / taus))


def _autocorrelation_time(correlations: Array) -> float:
    """1 + 2 sum of autocorrelations, up to where a pair of lags no longer sums above 0."""
    pairs = correlations[1 : 1 + 2 * ((len(correlations) - 1) // 2)].reshape(-1, 2).sum(1)
    ends = np.flatnonzero(pairs <= 0)
    return max(1.0, 1 + 2 * float(pairs[: ends[0] if len(ends) else None].sum()))


def split_recordings(n_recordings: int, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Numbers of recordings to fit and to hold out; 2 are always left to fit.

    The same for every number of states.
    """
    n_held_out = max(1, round(n_recordings * fraction)) if fraction > 0 else 0
    n_held_out = max(0, min(n_held_out, n_recordings - 2))
    held_out = np.random.default_rng(seed).permutation(n_recordings)[:n_held_out]
    fitted = sorted(set(range(n_recordings)) - set(held_out.tolist()))
    return fitted, sorted(held_out.tolist())


def held_out_log_likelihood(held_out: Songs, fitted: Songs, em: Em) -> float:
    """Forward log-likelihood per snippet of recordings that had no part in the fit, in nats."""
    model = held_out.centred(fitted.uncentred(em.model))
    return held_out.log_likelihood(model) / held_out.n_snippets
