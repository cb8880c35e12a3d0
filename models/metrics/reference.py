"""The reference that measures all trials of a study: a PCA and features that never change.

Frechet distances of different trials are comparable only with fixed features (Heusel et al. 2017,
arXiv 1706.08500; the features here are our own). They are 32 PCA scores and a random convolution.
The PCA is fitted before the search, on snippets of training recordings.

Why these two (``benchmarks/frechet_sensitivity.py``, 2,000 snippets, simulated and real song): the
PCA sees pitch and hardly sees blur; the convolution sees noise and blur. For a shift in pitch of
real song the convolution gives 0.08, the PCA 0.56. The weakest fault is a bird left out: it gives
1.7 and 2.1 times the floor in the mean of both, 1.8 and 1.7 times in the PCA alone, 1.5 and 2.5
times in the convolution alone. With 128 scores, or with the hidden units of a bird classifier, the
floor is 2 to 4 times as high, and the weakest fault gives 1.2 to 1.9 times that floor. And a
study of one bird has no birds for a classifier to tell apart.

Song is compared over windows of N_WINDOW consecutive snippets, so that order and timing count: both
kinds of features of a window, each in the principal components of windows of training song.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.mdgan.devices import full_precision
from models.mdgan.pca import Pca, fit_pca
from models.mdgan.shape import N_FREQ
from models.metrics.songs import N_WINDOW, Songs

Array = NDArray[np.float64]

N_PCA_FEATURES = 32
N_CONV_CHANNELS = 16
N_BANDS = 4  # bands of frequency; the convolution's output is averaged over each
MAX_PCA_DIM = 128
PART = 4096  # snippets at a time: what is computed on the way takes several times their memory
FEATURE_PARTS = (slice(0, N_PCA_FEATURES), slice(N_PCA_FEATURES, None))  # PCA, convolution
N_WINDOW_FEATURES = 32  # of each kind
WINDOW_PARTS = (slice(0, N_WINDOW_FEATURES), slice(N_WINDOW_FEATURES, None))  # PCA, convolution


# Compared and hashed by identity, so that a cache can hold results by their reference.
@dataclass(frozen=True, eq=False)
class Reference:
    """The fixed features that measure every trial of a study.

    Attributes:
        pca_mean: [n_freq * n_frames] mean training snippet.
        pca_components: [n_components, n_freq * n_frames] principal components of training snippets.
        pca_std: [n_components] standard deviation of the training snippets along each.
        conv_kernels_1: [N_CONV_CHANNELS, 1, 5, 3] fixed random kernels.
        conv_kernels_2: [N_CONV_CHANNELS, N_CONV_CHANNELS, 5, 3].
        window_mean: [N_WINDOW * n_features] mean window of training song; the PCA features of its
            snippets, in order, then those of the convolution.
        window_components: [N_WINDOW * n_features, 2 * N_WINDOW_FEATURES] principal components, each
            kind of features by itself; zeros where there are too few windows.
        held_out_sha256: [32] hash of the held-out snippets that trials are measured on, as bytes.
    """

    pca_mean: Array
    pca_components: Array
    pca_std: Array
    conv_kernels_1: Array
    conv_kernels_2: Array
    window_mean: Array
    window_components: Array
    held_out_sha256: NDArray[np.uint8]

    @property
    def pca(self) -> Pca:
        """The principal components of training snippets."""
        return Pca(self.pca_mean, self.pca_components, self.pca_std)

    @property
    def sha256(self) -> str:
        """Hash over all arrays; metrics of trials can be compared if it is equal."""
        digest = hashlib.sha256()
        for field in fields(self):
            digest.update(np.ascontiguousarray(getattr(self, field.name)).tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write all arrays to an .npz file."""
        np.savez(path, allow_pickle=False, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: Path) -> "Reference":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: it is missing.
            OSError: the disk does not give it; the error names it.
            ValueError: it is another file, or was changed. Reading it never runs code.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(**{f.name: arrays[f.name] for f in fields(cls)})
        # A file that is not an archive of plain arrays raises one of these; none names the file.
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            if isinstance(error, OSError) and error.errno is not None:  # of the system
                error.filename = error.filename or str(path)
                raise
            raise ValueError(
                f"{path} is not the file that a study wrote ({error}). Delete it and run the same "
                "command again."
            ) from error

    def features(self, snippets: Tensor) -> Array:
        """Fixed features [n, n_features] of snippets [n, 1, n_freq, n_frames].

        The first N_PCA_FEATURES are PCA scores; N_CONV_CHANNELS * N_BANDS features of the
        convolution follow.
        """
        return np.concatenate(
            [
                np.concatenate([self.pca_scores(some, N_PCA_FEATURES), self.convolve(some)], axis=1)
                for some in snippets.split(PART)
            ]
        )

    def window_features(self, features: Array, lengths: Sequence[int]) -> Array:
        """Features [n_windows, 2 * N_WINDOW_FEATURES] of all windows within recordings.

        Args:
            features: `features` [n, n_features] of consecutive snippets, stretches end to end.
            lengths: snippets of each stretch.
        """
        windows: Array = (windows_of(features, lengths) - self.window_mean) @ self.window_components
        return windows

    def pca_scores(self, snippets: Tensor, dim: int) -> Array:
        """Scores [n, dim] of snippets [n, 1, n_freq, n_frames] in the first components."""
        flat = snippets.flatten(1).cpu().numpy().astype(np.float64) - self.pca_mean
        scores: Array = flat @ self.pca_components[:dim].T
        return scores

    def pca_decode(self, scores: Array) -> Tensor:
        """Snippets [n, 1, n_freq, n_frames] of scores [n, dim] in the first components.

        They are clipped at 0: a log magnitude is never negative, so this is the best PCA can do.
        """
        flat = scores @ self.pca_components[: scores.shape[1]] + self.pca_mean
        snippets = torch.from_numpy(flat.clip(min=0).astype(np.float32))
        return snippets.reshape(len(scores), 1, N_FREQ, -1)

    def pca_sample(self, n: int, dim: int, seed: int) -> Tensor:
        """Snippets [n, 1, n_freq, n_frames] from a Gaussian in the first ``dim`` components.

        It has the standard deviations of the training snippets, and needs no network.
        """
        std = self.pca_std[:dim]
        return self.pca_decode(np.random.default_rng(seed).standard_normal((n, len(std))) * std)

    def convolve(self, snippets: Tensor) -> Array:
        """Features [n, N_CONV_CHANNELS * N_BANDS] of snippets, by the fixed random convolution."""
        kernels_1 = torch.tensor(self.conv_kernels_1).float().to(snippets.device)
        kernels_2 = torch.tensor(self.conv_kernels_2).float().to(snippets.device)
        with full_precision():
            maps = functional.relu(functional.conv2d(snippets, kernels_1, stride=2))
            maps = functional.relu(functional.conv2d(maps, kernels_2, stride=2))
        bands = functional.adaptive_avg_pool2d(maps, (N_BANDS, 1)).flatten(1)
        features: Array = bands.double().cpu().numpy()
        return features


def windows_of(features: Array, lengths: Sequence[int]) -> Array:
    """All windows [n_windows, N_WINDOW * n_features] of features [n, n_features], kind by kind."""
    ends = np.cumsum(lengths, dtype=np.int64)
    starts = [np.arange(end - n, end - N_WINDOW + 1) for end, n in zip(ends, lengths, strict=True)]
    rows = np.concatenate([np.zeros(0, np.int64), *starts])[:, None] + np.arange(N_WINDOW)
    parts = []
    for of_kind in (features[:, part] for part in FEATURE_PARTS):
        parts.append(of_kind[rows].reshape(len(rows), N_WINDOW * of_kind.shape[1]))
    windows: Array = np.hstack(parts)
    return windows


def fit_reference(
    train: Tensor, songs: Sequence[Songs], seed: int, max_components: int = MAX_PCA_DIM
) -> Reference:
    """Fit the reference of a study.

    Args:
        train: snippets [n, 1, n_freq, n_frames] of training recordings.
        songs: that trials will be measured on.
        seed: of the random kernels and of the PCA's solver.
        max_components: principal components; fewer if there are fewer training snippets.

    Raises:
        ValueError: too few training snippets, or all of them are equal.
    """
    n_components = min(max_components, len(train) - 1)
    if n_components < N_PCA_FEATURES:
        raise ValueError(
            f"{len(train)} training snippets are too few for a reference with "
            f"{N_PCA_FEATURES} principal components. Give more recordings."
        )
    pca = fit_pca(train, n_components, seed)
    rng = np.random.default_rng(seed)
    conv_1 = rng.standard_normal((N_CONV_CHANNELS, 1, 5, 3)) / np.sqrt(15)
    conv_2 = rng.standard_normal((N_CONV_CHANNELS, N_CONV_CHANNELS, 5, 3))
    conv_2 /= np.sqrt(15 * N_CONV_CHANNELS)

    held_out = hashlib.sha256()
    for of_bird_age in songs:
        held_out.update(of_bird_age.held_out.tobytes())
    n_features = N_PCA_FEATURES + N_CONV_CHANNELS * N_BANDS
    fitted = Reference(
        pca.mean, pca.components, pca.std, conv_1, conv_2,
        np.zeros(N_WINDOW * n_features),
        np.zeros((N_WINDOW * n_features, 2 * N_WINDOW_FEATURES)),
        np.frombuffer(held_out.digest(), np.uint8),
    )  # fmt: skip
    windows = [
        windows_of(fitted.features(torch.from_numpy(s.training)), s.training_lengths)
        for s in songs if len(s.training)
    ]  # fmt: skip
    return _with_windows(fitted, np.concatenate(windows)) if windows else fitted


def _with_windows(reference: Reference, windows: Array) -> Reference:
    """The reference with the principal components of windows [n, N_WINDOW * n_features]."""
    if len(windows) < 2:
        return reference
    mean = windows.mean(0)
    components = np.zeros_like(reference.window_components)
    end = N_WINDOW * N_PCA_FEATURES
    rows = (slice(0, end), slice(end, None))
    for of_kind, columns in zip(rows, WINDOW_PARTS, strict=True):
        cov = np.cov(windows[:, of_kind], rowvar=False)
        n = min(N_WINDOW_FEATURES, len(windows) - 1)
        components[of_kind, columns][:, :n] = np.linalg.eigh(cov)[1][:, ::-1][:, :n]
    return replace(reference, window_mean=mean, window_components=components)
