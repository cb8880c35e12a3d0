"""How much disk a study takes, roughly."""

import shutil
from pathlib import Path

import torch

from models.mdgan.convolutions import Discriminator
from models.mdgan.networks import Encoder, Generator
from models.mdgan.shape import N_FREQ
from study.base.paths import RunPaths
from study.cluster.gpu_memory import FLOAT_BYTES, largest_params
from study.config.tree import StudyConfig

WAV_BYTES_PER_S = 88_200  # one channel of 16 bits at 44.1 kHz
ROW_BYTES = 16  # of a latent beside its numbers: index, start_s, share of sound
# Models, pictures, songs: little beside spectrograms and networks.
MARGIN = 1.2
SMALL_FILES_BYTES = 100_000_000
CHECKPOINTS_KEPT = 3  # of a running trial: the last two, and the one being written


def run_folder_need(config: StudyConfig, data_bytes: int, n_at_once: int) -> int:
    """Estimate the bytes that a whole study takes in its run folder.

    Args:
        config: of the study.
        data_bytes: size of the recordings; 0 where birds are simulated.
        n_at_once: trials that run at a time.
    """
    simulation, search = config.data.simulation, config.search
    seconds = data_bytes / WAV_BYTES_PER_S
    if config.data.dir is None:
        seconds = simulation.seconds
    made = seconds * WAV_BYTES_PER_S if config.data.dir is None else 0.0
    n_frames = seconds / config.spectrogram.frame_s
    spectrograms = n_frames * N_FREQ * FLOAT_BYTES
    latent_dim = largest_params(config.mdgan, config.search.space).latent_dim
    latents = n_frames / config.snippets.hop * (FLOAT_BYTES * latent_dim + ROW_BYTES)
    training, decoder = checkpoint_bytes(config)
    selection = search.selection
    n_repeats = selection.n_candidates * selection.n_seeds
    n_trainings = search.n_trials + n_repeats
    networks = CHECKPOINTS_KEPT * min(n_at_once, n_trainings) * training + n_trainings * decoder
    return round(MARGIN * (made + spectrograms + latents + networks)) + SMALL_FILES_BYTES


def checkpoint_bytes(config: StudyConfig) -> tuple[int, int]:
    """Count the bytes of a checkpoint of the search's largest training, and of its decoder."""
    params = largest_params(config.mdgan, config.search.space)
    shape = params.shape(config.snippets.n_frames)
    with torch.device("meta"):  # shapes alone: nothing is allocated
        coders = [Encoder(shape), Generator(shape)]
        discriminators = [Discriminator(shape) for _ in range(3)]
    decoder = FLOAT_BYTES * sum(_n_weights(net) for net in coders)
    weights = decoder + FLOAT_BYTES * sum(_n_weights(net) for net in discriminators)
    averaged = decoder if params.ema_decay else 0
    # Adam keeps two numbers for each weight; the decoder lies in a checkpoint once more.
    return 3 * weights + averaged + decoder, decoder


def _n_weights(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def node_need(config: StudyConfig, object_store_bytes: float) -> int:
    """Estimate the bytes that Ray writes to a node's disk: frames that its memory cannot hold.

    Args:
        config: of the study.
        object_store_bytes: memory for shared objects on the node.
    """
    n_frames = config.max_frames("training") + config.max_frames("selection")
    if config.data.dir is None:
        seconds = config.data.simulation.seconds
        n_frames = min(n_frames, round(seconds / config.spectrogram.frame_s))
    frames = n_frames * N_FREQ * FLOAT_BYTES
    return SMALL_FILES_BYTES + (frames if frames > object_store_bytes else 0)


def already_written(paths: RunPaths) -> int:
    """Count the bytes that an earlier start wrote and this one keeps."""
    kept = (paths.simulated_birds, paths.spectrograms, paths.search)
    return sum(f.stat().st_size for folder in kept for f in folder.rglob("*") if f.is_file())


def free_bytes(folder: Path) -> int:
    """Count the bytes that are free where ``folder`` is, or will be made."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free
