"""A matrix that carries each latent over to the next: autoregressive emissions."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.hmm.contexts import Remembered, add_memory
from models.hmm.params import HmmParams
from models.hmm.search import StatesFound, search_states

Array = NDArray[np.float64]


def search_with_carry(
    sequences: Sequence[Array], params: HmmParams, seed: int, new_share: float = 1.0
) -> tuple[StatesFound, Remembered | None]:
    """Find the number of states and the carry together; None where there is no model."""
    found = search_states(sequences, params, seed)
    if found.model is None:
        return found, None
    return found, add_memory(sequences, found.model, params, seed, new_share)
