"""What one more trial on a node costs in memory: its own, not the data that all trials share.

    python -m benchmarks.trial_memory
    python -m benchmarks.trial_memory --megabytes 2000 --trials 4

Trials of a few steps run side by side, once on small data and once on large; each says how much
memory is its process's alone (USS). Were the data copied per trial, the difference would be the
size of the data.
"""

import argparse

import numpy as np
import psutil
import ray
import torch

from data_io.snippets import FramePool
from models.mdgan.params import MdganParams
from models.metrics.reference import fit_reference
from models.metrics.songs import gather_songs
from study.cluster.connection import connected
from study.training.data import TrialData
from study.training.train import new_mdgan, train_on

PARAMS = MdganParams(n_snippets=12_800, n_reports=2)
N_FREQ, N_FRAMES, N_VALID = 129, 16, 2000


def trial_data(megabytes: float, seed: int = 0) -> TrialData:
    """Noise of that size to train on, with 2,000 held-out snippets as in a study."""
    rng = np.random.default_rng(seed)
    n = max(4096, int(megabytes * 1e6 / 4 / N_FREQ))
    pool = FramePool(rng.random((n, N_FREQ), "f4"), np.arange(n - N_FRAMES), N_FRAMES)
    held_out = {("noise", "1"): [rng.random((N_VALID * N_FRAMES, N_FREQ), "f4")]}
    songs = gather_songs({("noise", "1"): [pool.frames]}, held_out, N_FRAMES, N_VALID, seed)
    seen = torch.from_numpy(pool.crops(rng.integers(len(pool.starts), size=1000)))
    reference = fit_reference(seen, songs, seed, PARAMS.n_components)
    return TrialData(pool, songs, reference, "noise")


@ray.remote(num_cpus=0, max_calls=1)
def train_briefly(data: TrialData) -> float:
    """Train a trial; give the most memory (MB) that was its process's alone at a report."""
    torch.set_num_threads(1)
    process, most = psutil.Process(), []
    model = new_mdgan(PARAMS, data, 0, "cpu")
    train_on(model, data, 0, 0.0, lambda _: most.append(process.memory_full_info().uss / 1e6))
    return max(most)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=500.0, help="size of the large data")
    parser.add_argument("--trials", type=int, default=4, help="side by side")
    options = parser.parse_args()
    small = 2.2
    mean = {}
    with connected(None):
        for megabytes in (small, options.megabytes):
            data = ray.put(trial_data(megabytes))
            used = ray.get([train_briefly.remote(data) for _ in range(options.trials)])
            mean[megabytes] = float(np.mean(used))
            print(f"data of {megabytes:7.1f} MB: each of {options.trials} trials takes "
                  f"{min(used):.0f} to {max(used):.0f} MB of its own")  # fmt: skip
    grown = mean[options.megabytes] - mean[small]
    print(f"{options.megabytes - small:.0f} MB more data: {grown:+.1f} MB per trial "
          f"({100 * grown / (options.megabytes - small):.1f} % of it)")  # fmt: skip


if __name__ == "__main__":
    main()
