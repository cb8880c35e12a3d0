"""States of frames."""

import numpy as np
import pytest

from models.hmm.frames import frame_posteriors


def one_hot(states, n_states):
    return np.eye(n_states)[np.asarray(states)]


@pytest.mark.parametrize("hop", [1, 3, 4, 16])
def test_one_sequence_gives_each_frame_the_snippet_with_the_nearest_centre(hop):
    n, total = 6, hop * 5 + 16
    found = frame_posteriors([one_hot(range(n), n)], hop, 16, total).argmax(1)
    centres = hop * np.arange(n) + 8
    distances = np.abs(np.arange(total)[:, None] - centres)
    assert (distances[np.arange(total), found] == distances.min(1)).all()


def test_snippets_end_to_end_give_their_own_frames_their_state():
    found = frame_posteriors([one_hot([2, 0, 1], 3)], 16, 16, 45).argmax(1)
    assert found.tolist() == [2] * 16 + [0] * 16 + [1] * 13


def test_all_offsets_give_each_frame_the_snippet_that_is_centred_on_it():
    n_frames, hop, total = 16, 4, 41
    n = total - n_frames + 1  # snippets at a hop of 1
    states = np.arange(n)
    by_offset = [one_hot(states[o::hop], n) for o in range(hop)]
    found = frame_posteriors(by_offset, hop, n_frames, total).argmax(1)
    assert found.tolist() == [0] * 8 + list(range(n)) + [n - 1] * 7


def test_a_recording_that_begins_later_has_the_same_states_with_all_offsets_alone():
    states, hop, n_frames = np.random.default_rng(0).integers(0, 5, 60), 4, 16

    def of_frames(later, n_offsets):
        own = states[later:]
        by_offset = [one_hot(own[o::hop], 5) for o in range(n_offsets)]
        return frame_posteriors(by_offset, hop, n_frames, len(own) + n_frames - 1).argmax(1)

    inner = slice(n_frames, -n_frames)
    assert (of_frames(0, hop)[2:][inner] == of_frames(2, hop)[inner]).all()
    assert (of_frames(0, 1)[2:][inner] != of_frames(2, 1)[inner]).any()


def test_a_recording_of_one_snippet_has_one_state():
    found = frame_posteriors([one_hot([1], 2)], 4, 16, 3)
    assert found.tolist() == [[0, 1]] * 3


@pytest.mark.parametrize("n", [0, 5])
def test_no_sequence_and_more_than_the_hop_are_errors(n):
    with pytest.raises(ValueError, match=f"by_offset holds {n} sequences, and the hop is 4"):
        frame_posteriors([np.ones((3, 2))] * n, 4, 16, 30)
