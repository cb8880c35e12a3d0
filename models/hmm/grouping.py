"""Which pasts of a state are one: those that the same states follow, in the same shares."""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

# A past that was seen less often has no group of its own.
SELDOM = 2.0


def grouped(counts: Array, n_observations: float, price: float = 1.0) -> IntArray:
    """Groups of pasts by what follows them.

    Those two groups are joined that lose least, as long as a group costs more than joining two
    loses: its row of transitions (those that are seen, less one), one parameter that says what it
    is a past of, and the logarithm of how many pasts it is chosen from. Without the last two,
    chance finds groups everywhere.

    Args:
        counts: [n_pasts, n_states] of what follows.
        n_observations: the N of BIC: a parameter costs half its logarithm.
        price: share of all this that a group costs.

    Returns:
        [n_pasts] number of each past's group; 0 is the commonest, and has the seldom seen pasts.
    """
    seen = np.flatnonzero(counts.sum(1) >= SELDOM)
    found = np.zeros(len(counts), dtype=np.int64)
    if not len(seen):
        return found
    rows, members = counts[seen], np.eye(len(seen), dtype=bool)
    naming = price * math.log(len(seen))
    price *= 0.5 * math.log(n_observations)
    own = _cost(rows, price)
    loss = np.array([_cost(rows + row, price) for row in rows]) - own - own[:, None] - naming
    np.fill_diagonal(loss, np.inf)
    while loss.min() < 0:
        i, j = divmod(int(np.argmin(loss)), len(rows))
        rows[i] += rows[j]
        members[i] |= members[j]
        rows[j], members[j] = 0.0, False
        own[i] = _cost(rows[i], price)
        change = np.where(
            members.any(1), _cost(rows + rows[i], price) - own - own[i] - naming, np.inf
        )
        loss[j], loss[:, j] = np.inf, np.inf
        loss[i], loss[:, i] = change, change
        loss[i, i] = np.inf
    commonest_first = np.argsort(-rows.sum(1), kind="stable")
    for number, group in enumerate(commonest_first):
        found[seen[members[group]]] = number
    return found


def _cost(rows: Array, price: float) -> Array:
    """Nats that it costs to say what follows, of groups with these counts [..., n_states]."""
    shares = rows / np.maximum(rows.sum(-1, keepdims=True), 1e-300)
    logs = np.log(np.maximum(shares, 1e-300))
    return np.asarray(-(rows * logs).sum(-1) + price * np.maximum((rows >= 1).sum(-1), 1))
