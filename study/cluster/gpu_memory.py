"""Measurement of the GPU memory of a training, with the largest network of a search."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models.mdgan.cuda_graph import WARM_UP
from models.mdgan.model import Mdgan
from models.mdgan.params import MdganParams
from models.mdgan.shape import N_FREQ
from models.metrics.evaluation import evaluate
from models.metrics.reference import fit_reference
from models.metrics.songs import MOST_TRAINING_IN_ALL, gather_songs
from study.config.space import SpaceEntry
from study.config.tree import StudyConfig

FLOAT_BYTES = 4
N_FOR_REFERENCE = 200  # made-up snippets; a reference is as large whatever it was fitted on
N_STEPS = WARM_UP + 3  # of the measured training; the last of them play a recorded step
# Choices between words, in order of the memory they take (most first): bytes kept at a time for the
# backward passes of one step, measured on the convolutions.
HUNGRIEST_FIRST = {
    "normalisation": (
        "instance", "batch", "batch_no_affine", "layer", "spectral", "selu", "none",
    ),
    "order": ("joint", "alternating"),
    "gan_loss": ("relativistic", "paper"),
}  # fmt: skip
# Here the smallest value takes most memory: adversarial terms then begin at once.
LEAST_IS_HUNGRIEST = ("adversarial_from",)
# Share that frames of recordings may take of a trial's part of a GPU, since a trial needs the rest,
# and of a whole GPU, so that they do not keep other trials out.
FRAMES_SHARE, FRAMES_SHARE_OF_GPU = 0.8, 0.25


def frames_fit(n_bytes: int, gpus: float) -> bool:
    """Whether frames of ``n_bytes`` lie on the GPU in a trial that was given ``gpus`` of it.

    Where they do not, minibatches are cut out on the CPU: the same ones, more slowly.
    """
    if not gpus:
        return False
    _, total = torch.cuda.mem_get_info()
    at_most = min(FRAMES_SHARE * min(gpus, 1.0), FRAMES_SHARE_OF_GPU)
    return n_bytes <= at_most * total


@dataclass(frozen=True)
class Measured:
    """Memory of one trial on one GPU.

    Attributes:
        gpu: its name.
        total_bytes: its memory.
        trial_bytes: most memory that a trial holds, including the libraries' own part, frames of
            recordings and the songs that it is measured on.
    """

    gpu: str
    total_bytes: int
    trial_bytes: int


def measure_training(config: StudyConfig, where: str) -> Measured:
    """Train the largest network for a few steps; this process must have its GPU to itself."""
    params = largest_params(config.mdgan, config.search.space)
    model = train_briefly(params, config.snippets.n_frames, where)
    evaluate_once(model, config.search.n_eval_snippets)
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    # Neither free nor reserved by us: context and libraries, which each process needs.
    context = max(0, total - free - torch.cuda.memory_reserved())
    name = torch.cuda.get_device_name()
    frames = config.max_frames("training") * N_FREQ * FLOAT_BYTES
    if frames > FRAMES_SHARE_OF_GPU * total:
        frames = 0  # they stay on the CPU
    songs = MOST_TRAINING_IN_ALL * N_FREQ * config.snippets.n_frames * FLOAT_BYTES
    return Measured(name, total, torch.cuda.max_memory_reserved() + context + frames + songs)


def train_briefly(params: MdganParams, n_frames: int, where: str) -> Mdgan:
    """Run the last steps of a training, where all terms take part, on random snippets."""
    model = Mdgan(params, n_frames, 0, where)
    rng = torch.Generator().manual_seed(0)
    model.snippets_seen = max(0, params.n_snippets - N_STEPS * params.batch_size)
    for _ in range(N_STEPS):
        x = torch.rand(params.batch_size, 1, N_FREQ, n_frames, generator=rng)
        model.train_step(x)
    return model


def evaluate_once(model: Mdgan, n_snippets: int) -> None:
    """Measure ``model`` on ``n_snippets`` random snippets, as at a report."""
    rng = np.random.default_rng(0)
    n_frames = model.shape.n_frames
    seen, held_out = (
        {("", ""): [rng.random((n * n_frames, N_FREQ), "f4")]}
        for n in (N_FOR_REFERENCE, n_snippets)
    )
    songs = gather_songs(seen, held_out, n_frames, n_snippets, 0)
    evaluate(model, fit_reference(torch.from_numpy(songs[0].training), songs, 0), songs, 0)


def largest_params(base: MdganParams, space: dict[str, SpaceEntry]) -> MdganParams:
    """The parameters that take most memory in the space of a search."""
    chosen: dict[str, Any] = {}
    for name, entry in space.items():
        values = entry.choice or entry.bounds
        if name in HUNGRIEST_FIRST:
            chosen[name] = min(values, key=HUNGRIEST_FIRST[name].index)
        elif name in LEAST_IS_HUNGRIEST:
            chosen[name] = min(values)
        elif all(isinstance(value, bool | int | float) for value in values):
            chosen[name] = max(values)
    return dataclasses.replace(base, **chosen)
