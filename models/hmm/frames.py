"""States of frames: a frame has the state of the snippet that is centred on it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def frame_posteriors(
    by_offset: Sequence[Array], hop: int, n_frames: int, total_frames: int
) -> Array:
    """Give each frame of a recording the posteriors of the snippet whose centre is nearest.

    With the posteriors of one sequence of snippets this is cheap and as coarse as the hop: where
    the recording begins decides which frames share a snippet. With ``hop`` sequences, the snippets
    that begin at frame 0, hop, ..., at frame 1, hop + 1, ... and so on, every frame has a snippet
    of its own, and a shift of the recording shifts the states with it. The model knows steps of
    ``hop`` frames, so each sequence is decoded by itself. From latents ``z`` at a hop of 1:

    ```python
    offsets = range(min(hop, len(z)))
    p = frame_posteriors([song.posteriors([z[o::hop]]) for o in offsets], hop, 16, total_frames)
    states = p.argmax(1)
    ```

    Args:
        by_offset: posteriors [n_snippets, n_states] of the sequences of snippets that begin at
            frame 0, 1, ...; one sequence, or all of them.
        hop: frames from the start of a snippet of a sequence to that of the next.
        n_frames: frames in a snippet.
        total_frames: frames of the recording.

    Returns:
        [total_frames, n_states]. The first and the last half of a snippet have the posteriors of
        the first and the last one.

    Raises:
        ValueError: there is no sequence, or more than ``hop``.
    """
    if not 1 <= len(by_offset) <= hop:
        raise ValueError(
            f"by_offset holds {len(by_offset)} sequences, and the hop is {hop}: give the "
            "posteriors of one sequence of snippets, or of one for each of the hop's frames."
        )
    starts = np.concatenate([o + hop * np.arange(len(p)) for o, p in enumerate(by_offset)])
    order = np.argsort(starts)
    centred_at = starts[order] + n_frames // 2
    # The frame where a snippet's turn begins: half-way from the centre before.
    turns = (centred_at[1:] + centred_at[:-1] + 1) // 2
    nearest = np.searchsorted(turns, np.arange(total_frames), side="right")
    found: Array = np.concatenate(list(by_offset))[order][nearest]
    return found
