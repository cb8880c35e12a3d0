"""A matrix that carries each latent over to the next: autoregressive emissions.

x(t) = A x(t-1) + e(t), one A for all states, and e(t) as the state emits it (Hamilton 1990); the
first snippet of a song is as if preceded by itself. It predicts the next snippet better than
without and sings worse: A is learnt from real songs, and a sampled song, which is never quite like
them, carries its own errors on.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.hmm import criteria
from models.hmm.choice import with_fits
from models.hmm.contexts import Remembered, add_memory
from models.hmm.em import Songs
from models.hmm.fit import HmmFit
from models.hmm.found import StatesFound
from models.hmm.gaussian import GaussianHMM
from models.hmm.params import HmmParams
from models.hmm.search import search_states
from models.hmm.song_hmm import SongHmm, innovations

Array = NDArray[np.float64]

# Rounds at most of a matrix for the states, and states for what the matrix leaves; each is a
# search. They end when no number of the matrix changes by CLOSE.
ROUNDS = 6
CLOSE = 0.02
# A song that carries over as much as this, or more, has no steady state: less is carried.
MOST = 0.99


def search_with_carry(
    sequences: Sequence[Array], params: HmmParams, seed: int, new_share: float = 1.0
) -> tuple[StatesFound, Remembered | None]:
    """Find the number of states of what a carry leaves of songs, and the carry.

    Args:
        sequences: whitened latents [n_snippets, latent_dim], one array per recording.
        params: of the search.
        seed: the same one gives the same result.
        new_share: share of a snippet that the one before does not hold.

    Returns:
        The search on what the carry leaves, with likelihoods and criteria of the latents
        themselves, the carry's numbers counted as parameters; and its model beside the one that a
        search without carry finds. The search that found no model and None, where one did not.
    """
    plain = search_states(sequences, params, seed, new_share=new_share)
    if plain.model is None:
        return plain, None
    # What is only on the way needs no held-out fits.
    hasty = dataclasses.replace(params, held_out_fraction=0.0, n_restarts=1)
    carry = carry_of(sequences, sequences, plain.model)
    for _ in range(ROUNDS):
        left = innovations(sequences, carry)
        found = search_states(left, hasty, seed, new_share=new_share)
        if found.model is None:
            return found, None
        before, carry = carry, carry_of(sequences, left, found.model)
        if np.abs(carry - before).max() < CLOSE:
            break
    left = innovations(sequences, carry)
    found = search_states(left, params, seed, new_share=new_share)
    if found.model is None:
        return found, None
    none = dataclasses.replace(params, memory="none")
    without = add_memory(sequences, plain.model, none, seed, new_share)
    within = add_memory(left, found.model, none, seed, new_share)
    found = _of_latents(found, sequences, carry, params)
    assert plain.selection and found.selection
    log_likelihood = within.log_likelihood + _log_jacobian(sequences, carry)
    n_free = within.n_free_params + carry.size
    n_observations = sum(map(len, sequences)) * new_share
    return found, Remembered(
        song=SongHmm(within.song.hmm, within.song.state_of, carry),
        memory="autoregressive",
        n_free_params=n_free,
        log_likelihood=log_likelihood,
        bic=criteria.bic(log_likelihood, n_free, n_observations),
        held_out_log_likelihood=found.selection.best.held_out_log_likelihood,
        plain_bic=without.bic,
        plain_held_out_log_likelihood=plain.selection.best.held_out_log_likelihood,
    )


def carry_of(sequences: Sequence[Array], left: Sequence[Array], model: GaussianHMM) -> Array:
    """The matrix A of x(t) = A x(t-1) + e(t) [latent_dim, latent_dim], given the states.

    Least squares about the means of states, each snippet weighted by its posteriors and by the
    precisions of its states.

    Args:
        sequences: latents of each song.
        left: what an earlier carry leaves of them; the latents, where there is none.
        model: of ``left``.
    """
    songs = Songs(left, model.covariance_type)
    posteriors = songs.posteriors(songs.centred(model))
    ends = np.cumsum(songs.lengths)[:-1]
    posteriors = np.concatenate([p[1:] for p in np.split(posteriors, ends)])
    some = [x for x in sequences if len(x)]
    now = np.concatenate([x[1:] for x in some])
    before = np.concatenate([x[:-1] for x in some])
    d = now.shape[1]
    equations, sums = np.zeros((d * d, d * d)), np.zeros((d, d))
    for covariance, weight in zip(np.asarray(model.covars_), posteriors.T, strict=True):
        total = max(float(weight.sum()), 1e-300)
        x, y = now - weight @ now / total, before - weight @ before / total
        weighted = weight[:, None] * y
        precision = np.linalg.inv(covariance)
        equations += np.kron(precision, weighted.T @ y)
        sums += precision @ (x.T @ weighted)
    carry = np.linalg.lstsq(equations, sums.ravel(), rcond=None)[0].reshape(d, d)
    radius = float(np.abs(np.linalg.eigvals(carry)).max())
    return np.asarray(carry * min(1.0, MOST / max(radius, 1e-300)), dtype=np.float64)


def _log_jacobian(sequences: Sequence[Array], carry: Array) -> float:
    """Log of d(innovations) / d(latents) of all songs: each song's is of its first snippet."""
    n_songs = sum(bool(len(x)) for x in sequences)
    return n_songs * float(np.linalg.slogdet(np.eye(len(carry)) - carry)[1])


def _of_latents(
    found: StatesFound, sequences: Sequence[Array], carry: Array, params: HmmParams
) -> StatesFound:
    """A search on what ``carry`` leaves, in likelihoods and criteria of the latents themselves."""
    some = [x for x in sequences if len(x)]
    log_jacobian = _log_jacobian(some, carry)
    _, held_out = criteria.split_recordings(len(some), params.held_out_fraction, seed=0)
    of_held_out = [some[i] for i in held_out]
    per_snippet = _log_jacobian(of_held_out, carry) / max(sum(map(len, of_held_out)), 1)
    n_snippets = sum(map(len, some))

    def one(fit: HmmFit) -> HmmFit:
        if not fit.has_model:
            return fit
        log_likelihood, n_free = fit.log_likelihood + log_jacobian, fit.n_free_params + carry.size
        bic = criteria.bic(log_likelihood, n_free, fit.n_observations)
        effective = math.nan
        if math.isfinite(fit.bic_effective):
            effective = criteria.effective_bic(
                log_likelihood, n_free, n_snippets, found.n_effective
            )
        return dataclasses.replace(
            fit,
            log_likelihood=log_likelihood,
            n_free_params=n_free,
            bic=bic,
            aic=criteria.aic(log_likelihood, n_free),
            icl=bic + fit.icl - fit.bic,
            bic_effective=effective,
            held_out_log_likelihood=fit.held_out_log_likelihood + per_snippet,
        )

    fits = [one(fit) for fit in found.fits]
    selection = found.selection and with_fits(found.selection, found.fits, fits)
    return dataclasses.replace(
        found, fits=fits, selection=selection,
        rival_held_out_log_likelihood=found.rival_held_out_log_likelihood + per_snippet,
    )  # fmt: skip
