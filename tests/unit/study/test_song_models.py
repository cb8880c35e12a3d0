"""A song model on disk is the same model again."""

import dataclasses

import numpy as np
import pytest

from models.hmm import SongHmm, restored
from study.hmms.song_models import to_song_hmm, to_song_model
from tests.helpers.hmm_songs import KINDS, known_model

WHITENING = np.array([1.0, -2.0]), np.array([0.5, 3.0])


def with_contexts(kind, dof):
    """The known model with its last state twice."""
    model, states = known_model(kind), np.array([0, 1, 2, 2])
    covars = np.asarray(model._covars_)
    transitions = np.random.default_rng(0).dirichlet(np.ones(4), 4)
    again = restored(
        np.full(4, 0.25), transitions, model.means_[states],
        covars if kind == "tied" else covars[states], kind, dof,
    )  # fmt: skip
    return SongHmm(again, states, np.diag([0.1, 0.2]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_song_model_is_the_same_model_again(kind):
    song = with_contexts(kind, 4.0)
    written = to_song_model(song, WHITENING, hop=4)
    assert (len(written.means), written.hop, written.dof) == (3, 4, 4.0)
    again = to_song_hmm(written)
    songs, _ = song.sample_songs([30, 40], seed=0)
    same, _ = again.sample_songs([30, 40], seed=0)
    np.testing.assert_array_equal(np.concatenate(same), np.concatenate(songs))
    np.testing.assert_array_equal(again.log_likelihoods(songs), song.log_likelihoods(songs))
    twice = dataclasses.astuple(to_song_model(again, WHITENING, hop=4))
    for one, other in zip(dataclasses.astuple(written), twice, strict=True):
        np.testing.assert_array_equal(one, other)
