"""Snippets and the reference that tests of held-out measures share."""

import numpy as np
import torch

from models.metrics.songs import gather_songs


def snippets(n, seed):
    """Two narrow bumps of random height, mostly of low pitch, and a little noise."""
    rng = np.random.default_rng(seed)
    f = np.linspace(0, 1, 129)[:, None]
    t = np.linspace(-0.5, 0.5, 16)[None]
    x = 0.02 * rng.random((n, 129, 16))
    for _ in range(2):
        height, pitch, slope = rng.random((3, n, 1, 1))
        x += 2 * height * np.exp(-(((f - pitch**2 - 0.5 * (slope - 0.5) * t) / 0.04) ** 2))
    return torch.from_numpy(x[:, None].astype(np.float32))


TRAIN, VALID = snippets(300, 1), snippets(200, 2)


def in_a_row(x):
    """Frames [n * 16, 129] of snippets [n, 1, 129, 16], as one recording."""
    return np.concatenate(x[:, 0].numpy(), axis=1).T.copy()


def songs_of(held_out, training=TRAIN, bird="b1", age="45"):
    """Songs of one bird and age: a training recording and a held-out one, in full."""
    key = (bird, age)
    return gather_songs({key: [in_a_row(training)]}, {key: [in_a_row(held_out)]}, 16, 10**4, 0)


SONGS = songs_of(VALID)
