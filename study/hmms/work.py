"""Units of work of the HMM stage: what they are, what they cost, and which comes next."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from data_io.recordings import BirdAge
from models.hmm import HmmParams

SEARCH = "search"  # name in the journal of what concludes a bird and age

# A kill loses at most so many seconds of finished fits for each core ...
MAX_BATCH_SECONDS = 5.0
# ... and a task is not so short that the driver, at 10 ms for each, would be busy with them.
MIN_BATCH_SECONDS = 0.5
BATCHES_PER_CORE = 8  # in between: enough for cores to end together

_FIT_SECONDS = 0.02  # of a fit, however small
_UNIT_SECONDS = 4e-8  # of a unit of `fit_seconds`, about 100 iterations; measured to a factor of 3


@dataclass(frozen=True)
class Work:
    """What one task does for a bird and age.

    Attributes:
        piece: bird and age.
        kind: "search" (all of a merge search), "fits" (some of a grid), "conclusion" (the choice
            among all fits of a grid).
        seconds: predicted; they only compare.
        fits: (n_states, restart) of each fit, of "fits" alone.
    """

    piece: BirdAge
    kind: Literal["search", "fits", "conclusion"]
    seconds: float
    fits: tuple[tuple[int, int], ...] = ()

    @property
    def name(self) -> str:
        """Its name in the journal: a fit is in one batch, so its first fit names a batch."""
        return f"fits-{self.fits[0][0]}-{self.fits[0][1]}" if self.fits else SEARCH


def fit_seconds(n_snippets: int, n_states: int, latent_dim: int) -> float:
    """Predicted seconds of a fit: forward-backward K^2 and emissions K d, per snippet."""
    units = n_snippets * n_states * (n_states + 4 * latent_dim + 50)
    return _FIT_SECONDS + _UNIT_SECONDS * units


def search_seconds(n_snippets: int) -> float:
    """Predicted seconds of a merge search."""
    return 1.0 + 5e-4 * n_snippets


def batch_seconds(total_seconds: float, n_cores: int) -> float:
    """Seconds that a batch of fits should take at most, if it is more than one fit."""
    share = total_seconds / (n_cores * BATCHES_PER_CORE)
    return min(MAX_BATCH_SECONDS, max(MIN_BATCH_SECONDS, share))


def plan_batches(
    piece: BirdAge,
    fits: Sequence[tuple[int, int]],
    n_snippets: int,
    latent_dim: int,
    target_seconds: float,
) -> list[Work]:
    """Split fits of a bird and age into batches, longest first.

    Args:
        piece: bird and age.
        fits: (n_states, restart) of each.
        n_snippets: of the bird and age.
        latent_dim: numbers in a latent.
        target_seconds: a batch is predicted to take less, or is a single fit.
    """
    batches: list[Work] = []
    some: list[tuple[int, int]] = []
    seconds = 0.0
    for fit in sorted(fits, key=lambda fit: (-fit[0], fit[1])):
        more = fit_seconds(n_snippets, fit[0], latent_dim)
        if some and seconds + more > target_seconds:
            batches.append(Work(piece, "fits", seconds, tuple(some)))
            some, seconds = [], 0.0
        some.append(fit)
        seconds += more
    if some:
        batches.append(Work(piece, "fits", seconds, tuple(some)))
    return sorted(batches, key=lambda work: (-work.seconds, work.fits))


def describe(work: Work, params: HmmParams) -> str:
    """Work in words, for an error."""
    bird, age = work.piece
    if work.kind == "search":
        numbers = f"search from {params.n_states[0]} to {params.n_states[-1]} states"
    elif work.kind == "conclusion":
        numbers = f"choice among {', '.join(map(str, params.n_states))} states and more"
    else:
        listed = ", ".join(f"{k} states (restart {r})" for k, r in work.fits[:8])
        numbers = listed + (f" and {len(work.fits) - 8} fits more" if len(work.fits) > 8 else "")
    return f"HMMs of {bird} at {age}, {numbers},"
