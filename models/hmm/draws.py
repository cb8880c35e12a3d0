"""Some of the songs of several ages: as many of each as can be, and whole recordings."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)


def even_sizes(sizes: Sequence[int], n_rows: int) -> list[int]:
    """How many of each one's ``sizes`` to take, for at most ``n_rows`` together and evenly."""
    taken = [0] * len(sizes)
    # Those with the least first: what they cannot give, the others may.
    for n_before, i in enumerate(sorted(range(len(sizes)), key=lambda i: sizes[i])):
        taken[i] = min(sizes[i], n_rows // (len(sizes) - n_before))
        n_rows -= taken[i]
    return taken


def drawn(sequences: Sequence[NDArray[T]], n_rows: int, seed: int) -> list[NDArray[T]]:
    """Whole recordings drawn by the seed until there are ``n_rows`` snippets; the last is cut.

    In their order. Arrays of the same lengths give the same recordings, whatever they hold.
    """
    if sum(map(len, sequences)) <= n_rows:
        return [s for s in sequences if len(s)]
    chosen: list[tuple[int, NDArray[T]]] = []
    for i in np.random.default_rng(seed).permutation(len(sequences)).tolist():
        some = sequences[i][:n_rows]
        if len(some):
            chosen.append((i, some))
        n_rows -= len(some)
    return [some for _, some in sorted(chosen, key=lambda one: one[0])]
