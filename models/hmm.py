"""The item sequence model: Gaussian HMMs of latents, and the number of states by BIC.

Sources: Rabiner 1989 for EM; Schwarz 1978 for BIC. The models are hmmlearn's, their EM that of
gaussian_hmm.py. A state is not a syllable: it is a kind of snippet.
"""

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from models.gaussian_hmm import GaussianHMM

Array = NDArray[np.float64]
CovarianceType = Literal["spherical", "diag", "tied", "full"]
FitStatus = Literal["ok", "not_converged", "failed", "skipped"]


@dataclass(frozen=True)
class HmmParams:
    """The grid of HMM fits per bird and age.

    Attributes:
        n_states: numbers of states to try.
        covariance_type: spherical, diag, tied or full.
        n_restarts: fits per number of states, each with a seed of its own.
        n_iter: EM iterations at most.
        tol: converged when an iteration gains less than this log-likelihood per snippet, in nats.
        covars_prior: adds this much spread to every state, in whitened units times snippets; keeps
            variances above 0.
        min_snippets: a bird and age with fewer gets no model, and a row that says so.
        min_recordings: the same for recordings.
        min_snippets_per_state: numbers of states that would leave fewer are not tried.
    """

    n_states: tuple[int, ...] = (5, 10, 15, 20, 30, 40, 60, 80, 100)
    covariance_type: CovarianceType = "diag"
    n_restarts: int = 3
    n_iter: int = 200
    tol: float = 1e-4
    covars_prior: float = 1e-2
    min_snippets: int = 200
    min_recordings: int = 2
    min_snippets_per_state: int = 10

    def __post_init__(self) -> None:
        if not self.n_states or min(self.n_states) < 1:
            raise ValueError(
                f"n_states is {list(self.n_states)}: give at least one number of states, each 1 or "
                "more."
            )
        # As numbers, so that 5 comes before 20 and 20 before 100; each once.
        object.__setattr__(self, "n_states", tuple(sorted(set(self.n_states))))
        if self.covariance_type not in get_args(CovarianceType):
            raise ValueError(
                f"covariance_type is {self.covariance_type!r}: choose one of "
                f"{', '.join(get_args(CovarianceType))}."
            )
        for name in ("n_restarts", "n_iter", "min_snippets", "min_recordings"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be 1 or more.")
        for name in ("tol", "covars_prior", "min_snippets_per_state"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be above 0.")


@dataclass(frozen=True)
class HmmFit:
    """One fit and how it went.

    Attributes:
        n_states: number of states.
        restart: index of the restart.
        covariance_type: of the emissions.
        log_likelihood: nats, over all snippets that were fitted; NaN where there is no model.
        n_free_params: start, transitions, means, covariances.
        n_observations: snippets behind the log-likelihood: the N of BIC.
        bic: -2 log L + n_free_params log N; lower is better.
        aic: -2 log L + 2 n_free_params.
        n_iter: EM iterations.
        converged: by our own test on the last gain.
        status: ok, not_converged (iterations used up), failed, skipped.
        reason: why, where not ok.
        seconds: CPU and wall time of the fit, one thread.
        model: the fitted model; None where failed or skipped.
    """

    n_states: int
    restart: int
    covariance_type: str
    log_likelihood: float
    n_free_params: int
    n_observations: int
    bic: float
    aic: float
    n_iter: int
    converged: bool
    status: FitStatus
    reason: str
    seconds: float
    model: GaussianHMM | None = None


@dataclass(frozen=True)
class Selection:
    """The number of states that BIC chooses among fits of one bird and age.

    Attributes:
        best: the fit with the lowest BIC.
        runner_up: the best number of states but one; None where only one could be fitted.
        runner_up_distance: its BIC above the best, in nats times 2.
        edge: "", "lowest" or "highest": the minimum lies at that end of the numbers that could be
            fitted, so that the best number may lie beyond.
    """

    best: HmmFit
    runner_up: int | None
    runner_up_distance: float | None
    edge: str


def n_free_params(n_states: int, latent_dim: int, covariance_type: CovarianceType) -> int:
    """Free parameters of a Gaussian HMM: start, transitions, means, covariances."""
    k, d = n_states, latent_dim
    covariances = {
        "spherical": k,
        "diag": k * d,
        "tied": d * (d + 1) // 2,
        "full": k * d * (d + 1) // 2,
    }[covariance_type]
    return (k - 1) + k * (k - 1) + k * d + covariances


def too_few(lengths: Sequence[int], params: HmmParams) -> str:
    """Why recordings of ``lengths`` snippets are too few for a model; "" where they suffice."""
    n_snippets = sum(lengths)
    if n_snippets < params.min_snippets:
        return f"{n_snippets} snippets, {params.min_snippets} needed (hmm.min_snippets)"
    if len(lengths) < params.min_recordings:
        return f"{len(lengths)} recordings, {params.min_recordings} needed (hmm.min_recordings)"
    return ""


def fit_hmm(
    sequences: Sequence[Array], n_states: int, restart: int, seed: int, params: HmmParams
) -> HmmFit:
    """Fit one Gaussian HMM by EM.

    Args:
        sequences: whitened latents [n_snippets, latent_dim], one array per recording.
        n_states: number of states.
        restart: index of the restart, for the record.
        seed: of the start; restarts must have different ones.
        params: grid and EM.

    Returns:
        The fit; a fit that goes wrong has status "failed" and a reason, it raises nothing.
    """
    X = np.concatenate(sequences).astype(np.float64)
    lengths = [len(s) for s in sequences if len(s)]  # hmmlearn fails on an empty sequence
    n_observations, latent_dim = X.shape
    free = n_free_params(n_states, latent_dim, params.covariance_type)
    started = time.perf_counter()

    def without_model(status: FitStatus, reason: str, n_iter: int = 0) -> HmmFit:
        nan = math.nan
        seconds = time.perf_counter() - started
        return HmmFit(n_states, restart, params.covariance_type, nan, free, n_observations,
                      nan, nan, n_iter, False, status, reason, seconds)  # fmt: skip

    if n_observations < n_states * params.min_snippets_per_state:
        return without_model(
            "skipped",
            f"{n_observations} snippets leave fewer than {params.min_snippets_per_state} a state",
        )
    if not np.isfinite(X).all():
        return without_model("failed", "latents that are not finite numbers")
    try:
        # A state that dies gives 0 / 0: the log-likelihood will tell.
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            model, log_likelihood = _em(X, lengths, n_states, seed, params)
    except (ValueError, np.linalg.LinAlgError) as error:
        return without_model("failed", str(error))
    if not math.isfinite(log_likelihood):
        return without_model("failed", f"log-likelihood is {log_likelihood}", model.monitor_.iter)
    converged = _has_converged(list(model.monitor_.history), params.tol * n_observations)
    status: FitStatus = "ok" if converged else "not_converged"
    reason = f"{params.n_iter} iterations used up"
    if model.monitor_.iter < params.n_iter:  # the prior can cost more than an iteration gains
        reason = f"log-likelihood fell in iteration {model.monitor_.iter}: lower hmm.covars_prior"
    return HmmFit(
        n_states=n_states,
        restart=restart,
        covariance_type=params.covariance_type,
        log_likelihood=log_likelihood,
        n_free_params=free,
        n_observations=n_observations,
        bic=-2 * log_likelihood + free * math.log(n_observations),
        aic=-2 * log_likelihood + 2 * free,
        n_iter=model.monitor_.iter,
        converged=converged,
        status=status,
        reason="" if converged else reason,
        seconds=time.perf_counter() - started,
        model=model,
    )


def _em(
    X: Array, lengths: list[int], n_states: int, seed: int, params: HmmParams
) -> tuple[GaussianHMM, float]:
    """Run EM from a k-means start; give the model and its log-likelihood."""
    model = _started_hmm(X, n_states, seed, params).fit(X, lengths)
    model.covars_ = covariances(model)  # EM leaves spherical ones in a shape that sample() misreads
    return model, float(model.score(X, lengths))


def _started_hmm(X: Array, n_states: int, seed: int, params: HmmParams) -> GaussianHMM:
    latent_dim = X.shape[1]
    kind = params.covariance_type
    with warnings.catch_warnings():
        # Fewer distinct snippets than states: the fit itself will tell.
        warnings.simplefilter("ignore", ConvergenceWarning)
        kmeans = KMeans(n_states, n_init=1, max_iter=20, random_state=seed).fit(X)
    # A scalar prior would be added to every element of a full matrix.
    prior = params.covars_prior * (np.eye(latent_dim) if kind in ("tied", "full") else 1.0)
    model = GaussianHMM(
        n_states,
        kind,
        covars_prior=prior,
        # A thousandth of a transition everywhere: a state seen only at the ends of songs keeps a
        # row of transitions that sums to 1.
        transmat_prior=1 + 1e-3,
        n_iter=params.n_iter,
        tol=params.tol * len(X),  # hmmlearn's is absolute
        random_state=seed,
        init_params="",
    )
    model.n_features = latent_dim
    model.startprob_ = np.full(n_states, 1 / n_states)
    model.transmat_ = np.full((n_states, n_states), 1 / n_states)
    model.means_ = kmeans.cluster_centers_
    # One spread for all: that within clusters, so that a cluster of one snippet is no spike.
    within = float(np.square(X - kmeans.cluster_centers_[kmeans.labels_]).mean()) + 1e-3
    shapes = {
        "spherical": np.full(n_states, within),
        "diag": np.full((n_states, latent_dim), within),
        "tied": within * np.eye(latent_dim),
        "full": np.tile(within * np.eye(latent_dim), (n_states, 1, 1)),
    }
    model.covars_ = shapes[kind]
    return model


def _has_converged(history: list[float], tol: float) -> bool:
    """Whether the last iteration changed little; hmmlearn's flag is True at its end anyhow."""
    return len(history) > 1 and abs(history[-1] - history[-2]) < tol


def covariances(model: GaussianHMM) -> Array:
    """Covariances in the shape that hmmlearn's ``covars_`` is set with."""
    covars = np.asarray(model._covars_, dtype=np.float64)
    # After EM, hmmlearn holds a spherical variance once per dimension.
    if model.covariance_type == "spherical" and covars.ndim == 2:
        return covars[:, 0].copy()
    return covars


def restored(
    start_probs: Array,
    transition_matrix: Array,
    means: Array,
    covariances: Array,
    covariance_type: CovarianceType,
) -> GaussianHMM:
    """An hmmlearn model with these parameters (shapes as `covariances` gives them)."""
    model = GaussianHMM(len(start_probs), covariance_type)
    model.n_features = means.shape[1]
    model.startprob_, model.transmat_ = start_probs, transition_matrix
    model.means_, model.covars_ = means, covariances
    return model


def sample_latents(
    model: GaussianHMM, n_snippets: int, seed: int
) -> tuple[Array, NDArray[np.int64]]:
    """A sequence of whitened latents [n_snippets, latent_dim] and its states [n_snippets].

    The first state is drawn from the start probabilities, and latents from the emissions: their
    means alone would be a song without variation.
    """
    z, states = model.sample(n_snippets, random_state=seed)
    return z, states


def select_by_bic(fits: Sequence[HmmFit]) -> Selection | None:
    """The fit with the lowest BIC; None where no fit has a model.

    Where two are equal, fewer states and then the lower restart win, so that the order of ``fits``
    plays no part.

    Args:
        fits: of one bird and age, all fitted to the same snippets.
    """
    best_of: dict[int, HmmFit] = {}
    for fit in fits:
        if fit.status in ("ok", "not_converged"):
            known = best_of.get(fit.n_states)
            if known is None or (fit.bic, fit.restart) < (known.bic, known.restart):
                best_of[fit.n_states] = fit
    if not best_of:
        return None
    by_bic = sorted(best_of.values(), key=lambda fit: (fit.bic, fit.n_states))
    best = by_bic[0]
    edge = ""
    if best.n_states == max(best_of):
        edge = "highest"
    elif best.n_states == min(best_of) and best.n_states > 1:
        edge = "lowest"
    if len(by_bic) == 1:
        return Selection(best, None, None, edge)
    return Selection(best, by_bic[1].n_states, by_bic[1].bic - best.bic, edge)
