"""Counts dead and singleton states of a fit, and repairs them."""

import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.hmm.em import Em, Songs, run_em
from models.hmm.gaussian import GaussianHMM
from models.hmm.params import HmmParams

Array = NDArray[np.float64]

# Expected snippets of a state: below the first nothing belongs to it, below the second one snippet.
N_DEAD = 0.5
N_SINGLETON = 1.5


@dataclass(frozen=True)
class Health:
    """States of a fit that hold less than they seem to.

    Attributes:
        n_dead: states to which less than half a snippet belongs.
        n_singleton: states that hold one snippet.
        n_floored: other states with a variance that the floor or the prior makes, not the data.
    """

    n_dead: int
    n_singleton: int
    n_floored: int

    @property
    def needs_repair(self) -> bool:
        """Whether there are states to seed anew."""
        return self.n_dead + self.n_singleton > 0

    def __str__(self) -> str:
        """In words; "" where all is well."""
        parts = [
            (self.n_dead, "dead"),
            (self.n_singleton, "of one snippet"),
            (self.n_floored, "with a variance at its floor"),
        ]
        return ", ".join(f"{n} states {what}" for n, what in parts if n)


def examine(em: Em, params: HmmParams) -> Health:
    """Count states that are dead, hold one snippet, or have a variance not made by data."""
    n = em.stats["post"]
    dead, singleton = n < N_DEAD, (n >= N_DEAD) & (n < N_SINGLETON)
    covars: Array = np.asarray(em.model._covars_, dtype=np.float64)
    if params.covariance_type in ("tied", "full"):
        covars = np.asarray(np.linalg.eigvalsh(covars), dtype=np.float64)
    if params.covariance_type == "tied":
        smallest = np.full(len(n), covars.min())
        n = np.full(len(n), n.sum())
    else:
        smallest = covars.reshape(len(n), -1).min(1)
    of_the_prior = params.covars_prior / np.maximum(n, 1e-12)
    floored = (smallest < params.min_variance * (1 + 1e-6)) | (of_the_prior > smallest / 2)
    return Health(int(dead.sum()), int(singleton.sum()), int((floored & ~dead & ~singleton).sum()))


def repaired(songs: Songs, em: Em, params: HmmParams) -> tuple[Em, int, int]:
    """Seed dead and singleton states anew among the worst explained snippets, and fit on.

    A repair that does not raise the objective is taken back: an outlier may be worth its state.

    Returns:
        The better fit, how many repairs were kept, and the EM iterations of all that were tried.
    """
    n_kept = n_iter = 0
    for _ in range(params.max_repairs):
        if not np.isfinite(em.log_likelihood) or not examine(em, params).needs_repair:
            break
        start = _reseeded(songs, em, params)
        if start is None:
            break
        again = run_em(songs, start, params, params.n_iter)
        n_iter += again.n_iter
        gain = params.tol * songs.n_snippets  # less is the same optimum
        if not np.isfinite(again.log_likelihood) or again.objective[-1] <= em.objective[-1] + gain:
            break
        em = again
        n_kept += 1
    return em, n_kept, n_iter


def _reseeded(songs: Songs, em: Em, params: HmmParams) -> GaussianHMM | None:
    """A copy with its weak states at the worst explained snippets of the others.

    None where every state is weak.
    """
    weak = np.flatnonzero(em.stats["post"] < N_SINGLETON)
    strong = np.flatnonzero(em.stats["post"] >= N_SINGLETON)
    if not len(strong):
        return None
    model = copy.deepcopy(em.model)
    explained = songs.snippet_log_likelihoods(model)
    # The snippets that weak states hold are explained well: they are not among the worst.
    n_worst = max(params.min_snippets_per_state * len(weak), songs.n_snippets // 20)
    worst = songs.X[np.argsort(explained, kind="stable")[:n_worst]]
    for number, state in enumerate(weak):
        nearest = np.argsort(np.square(worst - worst[number % len(worst)]).sum(1), kind="stable")
        model.means_[state] = worst[nearest[: params.min_snippets_per_state]].mean(0)
    if params.covariance_type != "tied":
        model._covars_[weak] = np.asarray(em.model._covars_)[strong].mean(0)
    if params.transitions != "left_right":
        n_states = model.n_components
        into = np.full(len(weak), 1 / n_states)
        model.transmat_[:, weak] = into
        model.transmat_[weak] = 1 / n_states
        model.transmat_ /= model.transmat_.sum(1, keepdims=True)
    return model
