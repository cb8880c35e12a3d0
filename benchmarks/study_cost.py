"""GPU hours and money of a preset's search: an estimate from counted operations, not a measurement.

python -m benchmarks.study_cost [--preset full] [--tflops 10] [--gpus 1] [--dollars 1]

It counts the operations of one training step on the CPU, once before and once after the adversarial
terms begin, and multiplies by the steps of all trainings; trials that are stopped early count as
whole. What a GPU reaches of them in a second is your assumption (--tflops): a third of what its
maker promises for float32 is a fair first guess. Then divide by the GPUs and multiply by the price.
Waiting, evaluation, HMM fits, the head and storage are not in it.
"""

import argparse
import dataclasses

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.mdgan.model import Mdgan
from models.mdgan.params import MdganParams
from study.cluster.gpu_memory import largest_params
from study.config.reader import load_config
from study.config.tree import StudyConfig

BATCH = 16  # snippets to count with; operations grow with their number


def step_tflop(params: MdganParams, n_frames: int, is_adversarial: bool) -> float:
    """10^12 operations of one training step."""
    counted = dataclasses.replace(
        params, batch_size=BATCH, adversarial_from=0.0 if is_adversarial else 1.0
    )
    model = Mdgan(counted, n_frames, 0)
    with FlopCounterMode(display=False) as counter:
        model.train_step(torch.rand(BATCH, 1, 129, n_frames))
    return counter.get_total_flops() / BATCH * params.batch_size / 1e12


def n_trainings(config: StudyConfig) -> int:
    """Trials, and the candidates for the best again with fresh seeds."""
    selection = config.search.selection
    return config.search.n_trials + selection.n_candidates * selection.n_seeds


def main(preset: str, tflops: float, gpus: int, dollars: float) -> None:
    """Print how the estimate comes about."""
    config = load_config(preset, None, [])
    base = config.mdgan
    params = dataclasses.replace(
        largest_params(base, config.search.space), adversarial_from=base.adversarial_from
    )
    before, after = (step_tflop(params, config.snippets.n_frames, late) for late in (False, True))
    n_steps = params.n_snippets / params.batch_size
    share = params.adversarial_from
    training = n_steps * (share * before + (1 - share) * after)
    n = n_trainings(config)
    seconds = training / tflops
    hours = n * seconds / 3600
    print(f"{n} trainings of {n_steps:,.0f} steps, {share:.0%} of {before:.2f} and the rest of")
    print(f"{after:.2f} TFLOP: {training:,.0f} TFLOP a training, {n * training:,.0f} in all")
    print(f"at {tflops:g} TFLOP/s: {seconds / 60:.1f} min a training, {hours:.1f} GPU hours,")
    print(f"{hours / gpus:.1f} h on {gpus} GPUs; at {dollars:g} dollars a GPU hour: "
          f"{hours * dollars:.0f} dollars")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="full")
    parser.add_argument("--tflops", type=float, default=10.0, help="10^12 operations a second")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--dollars", type=float, default=1.0, help="for one GPU and hour")
    args = parser.parse_args()
    main(args.preset, args.tflops, args.gpus, args.dollars)
