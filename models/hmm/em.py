"""EM on the songs of one bird and age: packed once, then as many models as wanted.

Models here are centred as the songs are; `Songs.uncentred` brings one back.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hmmlearn import hmm
from numpy.typing import NDArray

from models.hmm.draws import drawn
from models.hmm.gaussian import GaussianHMM
from models.hmm.packed import Packed
from models.hmm.params import CovarianceType, Engine, HmmParams
from models.hmm.squarem import Parameters, further, give, parameters_of

Array = NDArray[np.float64]
Statistics = dict[str, Any]

# A thousandth of a transition everywhere: a state seen only at the ends of songs keeps a row of
# transitions that sums to 1.
TRANSITION_PRIOR = 1e-3
# Nats per snippet and iteration below which EM is near an optimum: further away, steps that are
# longer than its own may lead to another one.
SLOW = 1e-2
# Expected snippets below which a state has no data to learn from.
DEAD = 1e-6


class Songs:
    """Whitened latents of one bird and age, centred and packed once for all fits.

    Args:
        sequences: [n_snippets, latent_dim] each, one per recording; empty ones are left out.
        covariance_type: of the models that will be fitted.
        new_share: share of a snippet that the one before does not hold; below 1 where snippets
            overlap.
        engine: "ours", or "hmmlearn" to have the E-step done by hmmlearn's default.
    """

    def __init__(
        self,
        sequences: Sequence[Array],
        covariance_type: CovarianceType,
        engine: Engine = "ours",
        new_share: float = 1.0,
    ):
        X = np.concatenate(list(sequences)).astype(np.float64)
        self.lengths = [len(s) for s in sequences if len(s)]
        self.centre: Array = np.median(X, axis=0)  # a mean would follow an outlier
        self.X: Array = X - self.centre
        self.engine = engine
        self.new_share = new_share
        self.covariance_type = covariance_type
        self._packed = Packed(self.X, self.lengths, covariance_type)

    @property
    def n_snippets(self) -> int:
        """Snippets of all songs."""
        return len(self.X)

    @property
    def n_observations(self) -> float:
        """Snippets that the songs would be cut into without overlap: the N of BIC."""
        return self.n_snippets * self.new_share

    @property
    def latent_dim(self) -> int:
        """Numbers in a latent."""
        return int(self.X.shape[1])

    def part(self, numbers: Sequence[int]) -> "Songs":
        """The songs of these numbers, centred as all are."""
        songs = np.split(self.X, np.cumsum(self.lengths)[:-1])
        return self._of([songs[i] for i in numbers])

    def _of(self, centred: list[Array]) -> "Songs":
        some = copy.copy(self)
        some.X = np.concatenate(centred)
        some.lengths = [len(song) for song in centred]
        some._packed = Packed(some.X, some.lengths, self.covariance_type)
        return some

    def some(self, n_snippets: int, seed: int) -> "Songs":
        """Songs drawn by ``seed``, ``n_snippets`` in all, centred as all are; all where they fit.

        The last one is cut, and none is longer than half of them.
        """
        if self.n_snippets <= n_snippets:
            return self
        songs = np.split(self.X, np.cumsum(self.lengths)[:-1])
        short = [song[: n_snippets // 2] for song in songs]
        return self._of(drawn(short, n_snippets, seed))

    def e_step(self, model: GaussianHMM) -> tuple[Statistics, float]:
        """Sufficient statistics, as hmmlearn names them, and log-likelihood in nats.

        {} and NaN where a covariance of the model is none.
        """
        try:
            with np.errstate(all="ignore"):  # the log-likelihood tells
                if self.engine == "hmmlearn":
                    stats, log_likelihood = _plain(model)._do_estep(self.X, self.lengths)
                    return stats, float(log_likelihood)
                return model.e_step(self._packed)
        except (ValueError, np.linalg.LinAlgError):
            return {}, math.nan

    def log_likelihood(self, model: GaussianHMM) -> float:
        """Log-likelihood of all songs, in nats; NaN where a covariance of the model is none."""
        try:
            with np.errstate(all="ignore"):
                if self.engine == "hmmlearn":
                    return float(_plain(model).score(self.X, self.lengths))
                return model.log_likelihood(self._packed)
        except (ValueError, np.linalg.LinAlgError):
            return math.nan

    def posteriors(self, model: GaussianHMM) -> Array:
        """P(state | song) of every snippet [n_snippets, n_states]."""
        with np.errstate(all="ignore"):
            return self._packed.posteriors(model)

    def most_probable_paths(self, model: GaussianHMM) -> list[NDArray[np.int64]]:
        """The most probable states of every song together (Viterbi) [n_snippets] each."""
        with np.errstate(all="ignore"):
            return self._packed.most_probable_paths(model)

    def snippet_log_likelihoods(self, model: GaussianHMM) -> Array:
        """Log p(snippet | those before it in its song) [n_snippets]."""
        with np.errstate(all="ignore"):
            return self._packed.snippet_log_likelihoods(model)

    def uncentred(self, model: GaussianHMM) -> GaussianHMM:
        """A copy of ``model`` for latents as they were given."""
        moved = copy.copy(model)
        moved.means_ = model.means_ + self.centre
        return moved

    def centred(self, model: GaussianHMM) -> GaussianHMM:
        """A copy of ``model`` for these songs, of a model for latents as they were given."""
        moved = copy.copy(model)
        moved.means_ = model.means_ - self.centre
        return moved


def _plain(model: GaussianHMM) -> hmm.GaussianHMM:
    """The same model as hmmlearn's own class."""
    plain = hmm.GaussianHMM(model.n_components, model.covariance_type)
    plain.__dict__.update(model.__dict__)
    return plain


def new_model(n_states: int, latent_dim: int, params: HmmParams) -> GaussianHMM:
    """A model without parameters, with the priors of ``params``."""
    kind = params.covariance_type
    model = GaussianHMM(
        n_states,
        kind,
        # A scalar prior would be added to every element of a full matrix.
        covars_prior=params.covars_prior
        * (np.eye(latent_dim) if kind in ("tied", "full") else 1.0),
        transmat_prior=1 + TRANSITION_PRIOR,
        init_params="",
    )
    model.n_features = latent_dim
    model.dof_ = params.dof if params.emissions == "student_t" else None
    return model


def set_covariances(model: GaussianHMM, variances: Array, params: HmmParams) -> None:
    """Give every state the ``variances`` [n_states, latent_dim], in the shape of its type."""
    model.covars_ = {
        "spherical": lambda: variances.mean(1),
        "diag": lambda: variances,
        "tied": lambda: np.diag(variances.mean(0)),
        "full": lambda: np.stack([np.diag(v) for v in variances]),
    }[params.covariance_type]()


def m_step(model: GaussianHMM, stats: Statistics, params: HmmParams) -> None:
    """M-step of hmmlearn, then variances lifted to ``params.min_variance``."""
    # A state that no snippet belongs to would get 0 / 0: it stays as it is, for repair to find.
    dead = stats["post"] < DEAD
    if dead.any():
        before = model.means_, model._covars_
        stats = dict(stats)
        for name in {"post", "weight"} & set(stats):
            stats[name] = np.maximum(stats[name], DEAD)
    with np.errstate(all="ignore"):
        model._do_mstep(stats)
    if params.covariance_type == "spherical":
        # hmmlearn holds the variance once per dimension here, and misreads that shape elsewhere.
        model._covars_ = model._covars_[:, 0].copy()
    if dead.any():
        model.means_[dead] = before[0][dead]
        if params.covariance_type != "tied":
            model._covars_[dead] = before[1][dead]
    covars = model._covars_
    if params.covariance_type in ("spherical", "diag"):
        np.maximum(covars, params.min_variance, out=covars)
        return
    if not np.isfinite(covars).all():
        return  # the log-likelihood tells
    try:
        values, vectors = np.linalg.eigh(covars)
    except np.linalg.LinAlgError:
        return
    if values.min() < params.min_variance:
        lifted = np.maximum(values, params.min_variance)[..., None, :]
        model._covars_ = (vectors * lifted) @ np.swapaxes(vectors, -1, -2)


def log_prior(model: GaussianHMM, params: HmmParams) -> float:
    """Of the parameters, up to a constant: what EM maximises beside the log-likelihood.

    Dirichlet on the rows of transitions; -prior / (2 variance) for every variance, or the trace of
    prior times precision, as in hmmlearn's M-step with ``covars_weight`` = 1.
    """
    allowed = model.transmat_[model.transmat_ > 0]
    transitions = TRANSITION_PRIOR * float(np.log(allowed).sum())
    covars = np.asarray(model._covars_, dtype=np.float64)
    if params.covariance_type in ("spherical", "diag"):
        precisions = float((1 / covars).sum()) * (model.n_features if covars.ndim == 1 else 1)
    else:
        precisions = float((1 / np.linalg.eigvalsh(covars)).sum())
    return transitions - 0.5 * params.covars_prior * precisions


@dataclass
class Em:
    """Where a run of EM ended.

    Attributes:
        model: centred as its songs.
        stats: sufficient statistics at these parameters; {} where there are none.
        log_likelihood: nats, at these parameters; not finite where the fit broke.
        objective: log-likelihood plus log prior after each iteration: what must not fall.
        converged: the last iteration gained less than the tolerance.
        is_monotone: the objective never fell by more than rounding.
    """

    model: GaussianHMM
    stats: Statistics
    log_likelihood: float
    objective: list[float] = field(default_factory=list)
    converged: bool = False
    is_monotone: bool = True

    @property
    def n_iter(self) -> int:
        """Parameter updates."""
        return max(0, len(self.objective) - 1)

    @property
    def n_states(self) -> int:
        """Number of states."""
        return int(self.model.n_components)


def run_em(
    songs: Songs,
    model: GaussianHMM,
    params: HmmParams,
    n_iter: int,
    tol: float | None = None,
    accelerate: bool = False,
) -> Em:
    """Improve ``model`` in place by at most ``n_iter`` iterations of EM.

    Args:
        songs: to fit.
        model: a start, centred as the songs.
        params: priors and floors.
        n_iter: parameter updates at most, tried or kept.
        tol: nats per snippet; ``params.tol`` where not given.
        accelerate: after every two iterations, go further in their direction where that raises the
            objective (models/hmm/squarem.py): the same optimum in fewer iterations.
    """
    smallest_gain = (params.tol if tol is None else tol) * songs.n_snippets
    rounding = 1e-9 * songs.n_snippets
    is_matrix = params.covariance_type in ("tied", "full")
    objective: list[float] = []
    converged, is_monotone = False, True
    behind: list[Parameters] = []  # where the last iterations of EM began
    plain: Parameters | None = None  # where EM alone had come, where the model is further
    n_updates = 0
    while True:
        stats, log_likelihood = songs.e_step(model)
        now = -math.inf
        if np.isfinite(log_likelihood):
            now = log_likelihood + log_prior(model, params)
        if plain is not None and not now >= objective[-1]:
            give(model, plain)
            plain = None
            n_updates += 1
            continue
        if not np.isfinite(log_likelihood):
            break
        objective.append(now)
        if len(objective) > 1:
            gain = objective[-1] - objective[-2]
            is_monotone &= gain >= -rounding - 1e-10 * abs(objective[-1])
            # How much going further gained does not tell how far EM is from its end.
            converged = plain is None and abs(gain) < smallest_gain
        if converged or n_updates >= n_iter:
            break
        is_slow = len(objective) > 1 and gain < SLOW * songs.n_snippets
        behind = [*behind, parameters_of(model)] if accelerate and is_slow else []
        plain = None
        m_step(model, stats, params)
        n_updates += 1
        if len(behind) == 2:
            plain = parameters_of(model)
            beyond = further((*behind, plain), is_matrix, params.min_variance)
            give(model, beyond or plain)
            behind, plain = [], plain if beyond else None
    return Em(model, stats, float(log_likelihood), objective, converged, is_monotone)
