"""Songs and models with known truths, for the tests of models/hmm/."""

from typing import get_args

import numpy as np

from models.hmm import CovarianceType, HmmFit, HmmParams, restored
from models.hmm.em import Songs, run_em

KINDS = get_args(CovarianceType)
LOOSE = HmmParams(
    covariance_type="diag", min_snippets=1, min_recordings=1, min_snippets_per_state=1
)


def noise(n, d, seed=0):
    """Snippets of one kind."""
    return np.random.default_rng(seed).standard_normal((n, d))


def planted(n_sequences=6, length=60, seed=0):
    """Sequences of a 3-state model, states 6 standard deviations apart."""
    rng = np.random.default_rng(seed)
    transitions = np.array([[0.7, 0.25, 0.05], [0.05, 0.7, 0.25], [0.25, 0.05, 0.7]])
    means = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    return [sung(means, transitions, length, rng) for _ in range(n_sequences)]


def sung(means, transitions, length, rng):
    """One song of a model with unit variances."""
    states = [rng.integers(len(means))]
    while len(states) < length:
        states.append(rng.choice(len(means), p=transitions[states[-1]]))
    return means[states] + rng.standard_normal((length, means.shape[1]))


def simulated(n_states, latent_dim=4, n_snippets=1500, n_songs=10, apart=4.0, seed=0):
    """Songs of a model whose states are ``apart`` standard deviations from the middle."""
    rng = np.random.default_rng([seed, n_states])
    means = apart * rng.standard_normal((n_states, latent_dim))
    transitions = 0.9 * rng.dirichlet(np.full(n_states, 0.5), n_states) + 0.1 / n_states
    return [sung(means, transitions, n_snippets // n_songs, rng) for _ in range(n_songs)]


def joined(sequences):
    """Snippets and lengths as hmmlearn takes them."""
    return np.concatenate(sequences), [len(s) for s in sequences if len(s)]


COVARIANCES = {
    "spherical": np.array([0.5, 1.0, 2.0]),
    "diag": np.array([[0.5, 1.0], [2.0, 0.3], [1.0, 1.5]]),
    "tied": np.array([[1.0, 0.6], [0.6, 2.0]]),
    "full": np.array([[[1.0, 0.6], [0.6, 2.0]], [[1.0, -0.5], [-0.5, 1.0]], np.eye(2)]),
}


def known_model(kind, apart=1.0):
    """A model of 3 states and 2 dimensions, with a transition that is zero."""
    return restored(
        np.array([0.2, 0.3, 0.5]),
        np.array([[0.6, 0.4, 0.0], [0.1, 0.7, 0.2], [0.5, 0.1, 0.4]]),
        apart * np.array([[0.0, 0.0], [2.0, 0.5], [-1.0, 2.0]]),
        COVARIANCES[kind],
        kind,
    )


def at(songs, model, params):
    """EM that has not moved: the statistics of ``model``, which is for latents as given."""
    return run_em(songs, songs.centred(model), params, 0)


def songs_of(sequences, kind="diag", engine="ours"):
    """Packed songs."""
    return Songs(sequences, kind, engine)


def matrices(model):
    """Covariances of all states as matrices [n_states, d, d], of any type."""
    d = model.means_.shape[1]
    covars = np.asarray(model._covars_)
    return {
        "spherical": lambda: covars[:, None, None] * np.eye(d),
        "diag": lambda: np.stack([np.diag(c) for c in covars]),
        "tied": lambda: np.stack([covars] * model.n_components),
        "full": lambda: covars,
    }[model.covariance_type]()


def rough_and_ready(n_states, bic, status="ok", restart=0):
    """The record of a fit that was never made."""
    reason = "" if status == "ok" else "made so"
    return HmmFit(
        n_states=n_states, reached_by="grid", restart=restart, start="k-means",
        covariance_type="diag", log_likelihood=-bic / 2, n_free_params=1,
        n_snippets=1000, n_observations=1000.0,
        bic=bic, aic=bic, icl=bic, bic_effective=bic, held_out_log_likelihood=-bic, n_iter=5,
        converged=True, is_monotone=True, n_dead=0, n_singleton=0, n_floored=0, n_repairs=0,
        status=status, reason=reason, seconds=0.1,
    )  # fmt: skip
