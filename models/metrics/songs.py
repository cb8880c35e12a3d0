"""Songs of each bird and age that measure a decoder: consecutive snippets of recordings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.mdgan.pca import fit_pca
from models.mdgan.shape import N_FREQ

Float32 = NDArray[np.float32]
BirdAge = tuple[str, str]

OWN_PCA_DIM = 16  # whatever the latent size, so that all sizes meet the same figure
LEAST_HELD_OUT = 32  # snippets of each bird and age, where it has as many
MOST_TRAINING = 1500  # snippets of each bird and age that its sequence model learns from
MOST_TRAINING_IN_ALL = 12_000
MOST_SONGS = 24  # birds and ages that have a sequence model
N_WINDOW = 4  # consecutive snippets in a window of song
LEAST_WINDOWS = 20  # held-out windows of a bird and age that has song metrics
STRETCH = 25  # consecutive snippets at most, where not all are taken


# Compared by identity, so that a cache can hold what is computed from them.
@dataclass(frozen=True, eq=False)
class Songs:
    """Consecutive snippets of one bird and age.

    Attributes:
        bird: its name.
        age: as the study writes it.
        training: [n, 1, n_freq, n_frames] of training recordings, at most MOST_TRAINING; none where
            the bird and age has no part in the song metrics.
        training_lengths: snippets of each recording, or stretch of one, in ``training``.
        held_out: [m, 1, n_freq, n_frames] of held-out recordings.
        held_out_lengths: the same of ``held_out``.
        own_pca_l1: mean absolute error (log1p units) of ``held_out`` by a PCA of OWN_PCA_DIM
            dimensions of this bird and age's own training snippets; NaN where it has fewer than two
            different ones.
    """

    bird: str
    age: str
    training: Float32
    training_lengths: tuple[int, ...]
    held_out: Float32
    held_out_lengths: tuple[int, ...]
    own_pca_l1: float

    @property
    def has_song(self) -> bool:
        """Whether there is enough of it for song metrics."""
        lengths = self.training_lengths, self.held_out_lengths
        return min(map(n_windows, lengths)) >= LEAST_WINDOWS


def n_windows(lengths: Sequence[int]) -> int:
    """Windows of N_WINDOW snippets within recordings of ``lengths`` snippets."""
    return sum(max(length - N_WINDOW + 1, 0) for length in lengths)


def gather_songs(
    training: Mapping[BirdAge, Sequence[Float32]],
    held_out: Mapping[BirdAge, Sequence[Float32]],
    n_frames: int,
    n_held_out: int,
    seed: int,
) -> tuple[Songs, ...]:
    """Choose the songs that measure all trials, by one rule.

    Every bird and age gives ``n_held_out`` divided by their number, and at least LEAST_HELD_OUT: so
    with many of them there are more than ``n_held_out`` in all. Song metrics are made for
    MOST_SONGS of those with LEAST_WINDOWS windows of training and of held-out song, in turn from
    each bird, so that a study of a thousand stays quick; from MOST_TRAINING training snippets of
    each or MOST_TRAINING_IN_ALL of them together. Where not all snippets of a bird and age are
    taken, stretches of STRETCH are, from all of its recordings and in an order drawn by the seed: a
    few whole recordings would not be like the rest.

    Args:
        training: frames [n_recording_frames, n_freq] of each training recording, by bird and age.
            They have no part in the choice of held-out songs.
        held_out: the same of held-out recordings; these birds and ages are measured.
        n_frames: in a snippet.
        n_held_out: snippets wanted in all.
        seed: of every choice, the same for all trials.

    Raises:
        ValueError: no held-out recording is as long as a snippet.
    """
    rng = np.random.default_rng(seed)
    longest = {key: max(map(len, recordings), default=0) for key, recordings in held_out.items()}
    measured = [key for key, length in longest.items() if length >= n_frames]
    if not measured:
        raise ValueError(
            f"None of the held-out recordings of {len(held_out)} birds and ages has {n_frames} "
            "frames, the length of a snippet. Give longer recordings."
        )
    n_each = max(LEAST_HELD_OUT, n_held_out // len(measured))
    new = {
        key: _consecutive(held_out[key], n_frames, n_each, rng, LEAST_WINDOWS) for key in measured
    }
    able = [
        key for key in measured
        if n_windows(new[key][1]) >= LEAST_WINDOWS
        and n_windows([len(one) // n_frames for one in training.get(key, ())]) >= LEAST_WINDOWS
    ]  # fmt: skip
    # A generator of its own: both held-out sides of a study choose the same birds and ages.
    with_song = spread(able, MOST_SONGS, np.random.default_rng([seed, 1]))
    n_training = min(MOST_TRAINING, MOST_TRAINING_IN_ALL // max(len(with_song), 1))
    found = []
    for key in measured:
        seen, seen_lengths = _consecutive(training.get(key, ()), n_frames, n_training, rng)
        own = own_pca_l1(seen, new[key][0], seed)
        if key not in with_song:
            seen, seen_lengths = seen[:0].copy(), ()  # a view would keep the whole
        found.append(Songs(*key, seen, seen_lengths, *new[key], own))
    return tuple(found)


def spread(birds_and_ages: Sequence[BirdAge], most: int, rng: np.random.Generator) -> set[BirdAge]:
    """Choose at most ``most``: one age of every bird, then a second one, and so on."""
    ages: dict[str, list[BirdAge]] = {}
    for i in rng.permutation(len(birds_and_ages)):
        ages.setdefault(birds_and_ages[i][0], []).append(birds_and_ages[i])
    turns = max((len(of_bird) for of_bird in ages.values()), default=0)
    in_turn = [of_bird[i] for i in range(turns) for of_bird in ages.values() if i < len(of_bird)]
    return set(in_turn[:most])


def own_pca_l1(training: Float32, held_out: Float32, seed: int) -> float:
    """L1 of held-out snippets by a PCA of OWN_PCA_DIM dimensions of training snippets.

    Both are [n, 1, n_freq, n_frames]. Fewer dimensions where there are not more training snippets;
    NaN with fewer than two, or where all are equal.
    """
    if len(training) < 2 or not np.ptp(training, axis=0).any():
        return float("nan")
    pca = fit_pca(torch.from_numpy(training), min(OWN_PCA_DIM, len(training) - 1), seed)
    components, mean = pca.components.astype(np.float32), pca.mean.astype(np.float32)
    flat = held_out.reshape(len(held_out), -1)
    x_hat = ((flat - mean) @ components.T @ components + mean).clip(min=0)
    return float(np.abs(x_hat - flat).mean(dtype=np.float64))


def _consecutive(
    recordings: Sequence[Float32],
    n_frames: int,
    most: int,
    rng: np.random.Generator,
    least_windows: int = 0,
) -> tuple[Float32, tuple[int, ...]]:
    """Stretches of consecutive snippets [n, 1, n_freq, n_frames], and the length of each.

    They are more than ``most`` where these hold fewer than ``least_windows`` windows.
    """
    whole = [len(frames) // n_frames for frames in recordings]
    step = STRETCH if sum(whole) > most else max(whole, default=1)
    stretches = [(i, at) for i, n in enumerate(whole) for at in range(0, n, max(step, 1))]
    parts = [np.zeros((0, 1, N_FREQ, n_frames), np.float32)]
    lengths: list[int] = []
    for j in rng.permutation(len(stretches)):
        i, at = stretches[j]
        left = most - sum(lengths)
        if left <= 0 and n_windows(lengths) < least_windows:
            left = step
        n = max(min(step, whole[i] - at, left), 0)
        if n:
            frames = recordings[i][at * n_frames : (at + n) * n_frames]
            parts.append(frames.reshape(n, n_frames, -1).swapaxes(1, 2)[:, None])
            lengths.append(n)
    return np.ascontiguousarray(np.concatenate(parts, dtype=np.float32)), tuple(lengths)
