"""What benchmarks/gpu.py measures with: networks, ways to compute a step, minibatches, a clock.

Of this project it needs models/ alone, so that it runs where there is no Ray and no network.
"""

import dataclasses
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from models.mdgan.frames import Balance, Frames
from models.mdgan.model import Mdgan
from models.mdgan.params import MdganParams, Minibatch

Batch = Callable[[], tuple[Tensor, int]]  # snippets, and how many of them, the first, hold sound

# The networks of the presets, with a latent as large as the middle of their search; a test compares
# them with the presets.
RECIPES = {
    "full": MdganParams(
        latent_dim=32, width=64, dense_width=1024, batch_size=256,
        n_snippets=6_000_000, n_reports=30, monitor=False,
    ),
    "paper": MdganParams(
        latent_dim=32, width=128, dense_width=0, disc_width=128, has_head=True,
        initialisation="normal", order="alternating", adversarial_from=0.0, pool_weight=1.0,
        mse_weight=0.0, lambda_recon=100.0, lambda_prior=0.0, lr=5e-5, disc_lr_ratio=1.0,
        lr_schedule="constant", lr_warmup=0.0, collapse_after=10_000, batch_size=64,
        minibatch="uniform", n_snippets=3_000_000, n_reports=30, monitor=True,
    ),
    "dense": MdganParams(latent_dim=32),
}  # fmt: skip
# Its step takes the gradient of a gradient, which a graph has to record too.
RECIPES["relativistic"] = dataclasses.replace(
    RECIPES["full"], gan_loss="relativistic", adversarial_from=0.0, disc_width=64
)
# Ways to compute a step; the last ones need a compiler, or cannot be repeated.
WAYS: dict[str, dict[str, Any]] = {
    "float32": {},
    "tf32": {"precision": "tf32"},
    "bfloat16": {"precision": "bfloat16"},
    "bfloat16, channels_last": {"precision": "bfloat16", "channels_last": True},
    "float32, cuda_graphs": {"compilation": "cuda_graphs"},
    "tf32, cuda_graphs": {"precision": "tf32", "compilation": "cuda_graphs"},
    "bfloat16, cuda_graphs": {"precision": "bfloat16", "compilation": "cuda_graphs"},
    "tf32, cuDNN free to choose": {"precision": "tf32"},
    "float32, compiled": {"compilation": "default"},
}


class Recorded(NamedTuple):
    """What minibatches are cut from.

    Attributes:
        frames: [n, 129] end to end.
        starts: where snippets may start.
        has_sound: [n]; empty if all frames hold sound.
    """

    frames: np.ndarray
    starts: np.ndarray
    has_sound: np.ndarray

    def on(self, device: torch.device, params: MdganParams) -> Frames:
        """The frames on a device, for minibatches as ``params`` ask for them."""
        balance = Balance.of(params, self.has_sound, ())
        return Frames(self.frames, self.starts, 16, device, balance)


@dataclass(frozen=True)
class Bench:
    """Where and with what is measured.

    Attributes:
        device: "cuda" or "cpu".
        is_tiny: small networks and few steps: a test of the script, not a measurement.
        pool: .npz with ``frames`` [n, 129], ``starts`` and, if known, ``has_sound`` [n], or None
            for a made-up one.
    """

    device: str
    is_tiny: bool
    pool: Path | None

    def params(self, recipe: str, **changes: Any) -> MdganParams:
        """Parameters of a recipe; small ones where the bench is tiny."""
        params = RECIPES[recipe]
        if self.is_tiny:
            params = dataclasses.replace(
                params, latent_dim=4, width=min(params.width, 4), n_components=8, disc_width=2,
                dense_width=min(params.dense_width, 16), batch_size=16,
            )  # fmt: skip
            changes = {**changes, "compilation": "off"}  # it would take a minute on a CPU
        return dataclasses.replace(params, **changes)

    def n(self, many: int) -> int:
        """``many``, or a few where the bench is tiny."""
        return 2 if self.is_tiny else many

    def frames(self) -> Recorded:
        """Frames end to end, where snippets may start, and which frames hold sound."""
        return _frames(self.pool, 2_000 if self.is_tiny else 500_000)

    def batches(self, params: MdganParams) -> Batch:
        """Minibatches on the device, the same ones each time that it is asked."""
        frames = _frames_on(self, params.minibatch)
        rng, n = torch.Generator().manual_seed(1), params.batch_size
        return lambda: (frames.sample(n, rng), frames.n_sounding(n))

    def snippets(self, n: int) -> Tensor:
        """Snippets [n, 1, 129, 16] on the CPU."""
        n = min(n, 300) if self.is_tiny else n
        everything = self.frames().on(torch.device("cpu"), MdganParams(minibatch="uniform"))
        return everything.sample(n, torch.Generator().manual_seed(2))

    def wait(self) -> None:
        """Wait until the device has done all."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def forget(self) -> None:
        """Free what earlier models held, and count `peak_gb` anew."""
        gc.collect()  # models with parametrised or compiled layers are circles of references
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_gb(self) -> float | None:
        """Most memory that torch held since `forget`; None on a CPU."""
        return torch.cuda.max_memory_reserved() / 1e9 if self.device == "cuda" else None


@cache
def _frames(pool: Path | None, n: int) -> Recorded:
    """The frames of a file; without one, ``n`` of a bump that wanders, with noise and pauses."""
    if pool is not None:
        return read_frames(pool)
    rng = np.random.default_rng(0)
    pitch = np.cumsum(rng.standard_normal(n, dtype=np.float32)) % 129
    height = np.exp(-((np.arange(129, dtype=np.float32) - pitch[:, None]) ** 2) / 50)
    noise = 0.1 * rng.random((n, 129), dtype=np.float32)
    has_sound = np.arange(n) % 200 >= 80
    frames = 2 * height * has_sound[:, None] + noise
    return Recorded(frames.astype(np.float32), np.arange(n - 16), has_sound)


def read_frames(pool: Path) -> Recorded:
    """Frames of a file, starts, and which frames hold sound; all if it does not say.

    Raises:
        ValueError: they cannot be used.
    """
    try:
        with np.load(pool, allow_pickle=False) as arrays:
            frames = arrays["frames"].astype(np.float32, copy=False)
            starts = arrays["starts"].astype(np.int64, copy=False)
            has_sound = arrays.get("has_sound", np.zeros(0)).astype(np.bool_, copy=False)
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise ValueError(f"{pool} is no .npz with frames and starts: {error}.") from error
    is_whole = frames.ndim == 2 and frames.shape[1] == 129 and starts.ndim == 1 and len(starts)
    if not is_whole or starts.min() < 0 or starts.max() + 16 > len(frames):
        # On a GPU an index out of range ends the process without saying which.
        raise ValueError(
            f"{pool} holds frames {list(frames.shape)} and starts {list(starts.shape)}: give "
            "frames [n, 129], and starts of snippets of 16 frames that lie within them."
        )
    if has_sound.shape not in ((0,), (len(frames),)):
        raise ValueError(
            f"{pool} holds has_sound {list(has_sound.shape)}: give one answer for each of "
            f"{len(frames)} frames, or leave it out."
        )
    return Recorded(frames, starts, has_sound)


@cache
def _frames_on(bench: Bench, minibatch: Minibatch) -> Frames:
    return bench.frames().on(torch.device(bench.device), MdganParams(minibatch=minibatch))


def kinds_of_step(params: MdganParams) -> list[tuple[str, MdganParams]]:
    """The steps of a training before and after its adversarial terms begin."""
    late = params.order, dataclasses.replace(params, adversarial_from=0.0)
    if params.adversarial_from == 0:
        return [late]
    return [("reconstruction", dataclasses.replace(params, adversarial_from=1.0)), late]


def ms_per_step(bench: Bench, model: Mdgan, batch: Batch, n: int) -> float:
    """Mean over ``n`` steps after the first ones."""
    for _ in range(bench.n(8)):
        model.train_step(*batch())
    bench.wait()
    began = time.perf_counter()
    for _ in range(n):
        model.train_step(*batch())
    bench.wait()
    return 1000 * (time.perf_counter() - began) / n
