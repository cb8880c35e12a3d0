"""Losses of the first steps of tiny trainings, to be compared with later: golden_losses.json.

A change of these numbers is a change of what is trained. Where it is meant, measure them again:

    python -m tests.helpers.make_golden_losses
"""

import json
from pathlib import Path
from typing import get_args

import torch

from models.mdgan.shape import Normalisation
from tests.helpers.tiny_mdgan import PCA_DATA, build

PATH = Path(__file__).resolve().parent / "golden_losses.json"
N_STEPS = 20
FIRSTS = [7 * step % 48 for step in range(N_STEPS)]  # where in the data each batch begins
# Small steps: large ones make of a last bit that another CPU rounds otherwise another training.
CHANGES = {"lr": 5e-5, "batch_size": 16, "n_snippets": 16 * N_STEPS, "lr_warmup": 0.1}
CASES = {f"paper, {n}": ("convolutions", {"normalisation": n}) for n in get_args(Normalisation)}
CASES |= {
    "dense": ("dense", {"adversarial_from": 0.5}),
    "dense and convolutions": ("both", {"adversarial_from": 0.5}),
}


def golden_losses(case: str) -> dict[str, list[float | None]]:
    """Loss of each name at each of ``N_STEPS`` steps; None where its phase has not come in."""
    kind, changes = CASES[case]
    model = build(kind, **CHANGES, **changes)
    found = [model.train_step(PCA_DATA[first : first + 16]) for first in FIRSTS]
    return {
        name: [float(step[name]) if name in step else None for step in found] for name in found[-1]
    }


def main() -> None:
    """Measure all cases and write them to `PATH`."""
    torch.set_num_threads(1)
    content = {case: golden_losses(case) for case in CASES}
    PATH.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
