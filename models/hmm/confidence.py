"""How sure the number of states is: a 95 % confidence set around the choice by BIC.

The model selection confidence set of Casa and Ferrari 2025 (arXiv 2503.18790): the orders that a
penalised likelihood ratio test against the chosen one does not reject. Fewer states have BIC's
penalty and more states AIC's: each is judged by the penalty that speaks for it. BIC alone would
rule out states that are there, but too rare for it. Songs are the independent units: the ratio's
standard error is that of differences between songs, so that neither the order within a song nor
the overlap of snippets matters.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models.hmm.em import Songs
from models.hmm.fit import HmmFit
from models.hmm.gaussian import GaussianHMM

Array = NDArray[np.float64]

QUANTILE = 1.6449  # of the normal distribution: 95 %, one-sided


def states_set(songs: Songs, fits: Mapping[int, HmmFit], chosen: int) -> tuple[int, ...]:
    """The numbers of states next to ``chosen`` that the songs do not rule out, and itself.

    Only numbers of states with a finished fit are tested, upwards and downwards from the chosen
    one, until one is rejected. It says what the songs can tell apart if one of the models is right;
    not how far a wrong kind of model may mislead.

    Args:
        songs: that all were fitted to, packed for their kind of covariances.
        fits: the best fit of each number of states, with its model.
        chosen: by BIC.
    """
    kept = [chosen]
    if len(songs.lengths) < 2:
        return (chosen,)
    best = fits[chosen]
    assert best.model is not None
    of_best = song_nats(songs, best.model)
    for step in (-1, 1):
        n_states = chosen + step
        while n_states in fits and fits[n_states].status != "rough":
            other = fits[n_states]
            assert other.model is not None
            gained = song_nats(songs, other.model) - of_best
            error = math.sqrt(len(gained)) * float(gained.std(ddof=1))
            ahead = best.bic - other.bic if step < 0 else best.aic - other.aic
            if not ahead / 2 > -QUANTILE * error:
                break
            kept.append(n_states)
            n_states += step
    return tuple(sorted(kept))


def song_nats(songs: Songs, model: GaussianHMM) -> Array:
    """Log-likelihood of every song [n_songs], in nats.

    Args:
        songs: packed for the kind of covariances of the model.
        model: for latents as they were given.
    """
    nats = songs.snippet_log_likelihoods(songs.centred(model))
    return np.asarray(np.add.reduceat(nats, np.cumsum([0, *songs.lengths[:-1]])))
