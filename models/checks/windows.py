"""Can a classifier tell windows of sampled latents from the bird's own?"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from models.checks.compare import MIN_SONGS, Check, judged, splits

Array = NDArray[np.float64]

WINDOW = 3  # snippets
MAX_WINDOWS = 1500  # of each side and fold
N_PAIRS = 5  # sets of songs that are told apart: real and replica, and replica and replica


def check_windows(real: Sequence[Array], replicas: Sequence[Sequence[Array]], seed: int) -> Check:
    """Area under the ROC curve of boosted trees that tell windows of real and sampled latents.

    Trained on half of the songs and measured on the other, and the other way round. Distances are
    that area above 0.5, which is chance.

    Args:
        real: latents [n_snippets, latent_dim] of each song.
        replicas: the same of every set of sampled songs.
        seed: of windows, halves and trees.
    """
    real = [song for song in real if len(song) >= WINDOW]
    replicas = [[song for song in songs if len(song) >= WINDOW] for songs in replicas]
    check = Check(check="windows", unit="AUC", n_songs=len(real), n_replicas=len(replicas))
    if len(real) < 2 * MIN_SONGS:
        needed = (
            f"{len(real)} songs of {WINDOW} snippets or more: halves of two folds need "
            f"{2 * MIN_SONGS} or more"
        )
        return replace(check, reason=needed)
    n = min(N_PAIRS, len(replicas) - 1)
    of_real = float(np.mean([told_apart(real, replicas[i], seed + i) for i in range(n)]))
    among = [told_apart(replicas[i], replicas[i + 1], seed + i) for i in range(n)]
    halves = [
        told_apart([real[j] for j in one], [real[j] for j in other], seed)
        for one, other in splits(len(real), seed)[:n]
    ]
    check = replace(
        check, real=of_real, replicas=float(np.median(among)), spread_low=min(among),
        spread_high=max(among), distance=above_chance([of_real])[0],
        halves=float(np.median(above_chance(halves))),
    )  # fmt: skip
    return judged(check, [area - 0.5 for area in among])


def above_chance(areas: Sequence[float]) -> list[float]:
    """Areas above 0.5.

    Where songs differ, but not their halves, trees trained on some songs are wrong about others:
    areas below chance are no difference of the halves.
    """
    return [max(area - 0.5, 0.0) for area in areas]


def told_apart(one: Sequence[Array], other: Sequence[Array], seed: int) -> float:
    """Area under the ROC curve, cross-validated by song: 0.5 is chance, 1 without a fault."""
    rng = np.random.default_rng(seed)
    folds = [
        [_windows([songs[i] for i in half], rng) for songs in (one, other)]
        for half in np.array_split(rng.permutation(min(len(one), len(other))), 2)
    ]
    areas = [
        _area(folds[i], folds[1 - i], seed)
        for i in (0, 1)
        if all(len(windows) for fold in folds for windows in fold)
    ]
    return float(np.mean(areas)) if areas else float("nan")


def _windows(songs: Sequence[Array], rng: np.random.Generator) -> Array:
    """Drawn windows [n, WINDOW * latent_dim]: the first snippet, then the steps from it."""
    parts = [
        np.concatenate([song[: -WINDOW + 1], *(song[k : len(song) - WINDOW + 1 + k]
                        - song[: -WINDOW + 1] for k in range(1, WINDOW))], axis=1)
        for song in songs if len(song) >= WINDOW
    ]  # fmt: skip
    if not parts:
        return np.zeros((0, 0))
    windows = np.concatenate(parts)
    return windows[rng.permutation(len(windows))[:MAX_WINDOWS]]


def _area(trained_on: Sequence[Array], measured_on: Sequence[Array], seed: int) -> float:
    trees = HistGradientBoostingClassifier(
        max_iter=40, max_leaf_nodes=15, early_stopping=False, random_state=seed % 2**32
    )
    classes = [np.repeat([0, 1], [len(w) for w in both]) for both in (trained_on, measured_on)]
    trees.fit(np.concatenate(list(trained_on)), classes[0])
    scores = trees.decision_function(np.concatenate(list(measured_on)))
    return float(roc_auc_score(classes[1], scores))
