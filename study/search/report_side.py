"""The best decoder on the report side of the split, which took no part in choosing it.

The lowest of many figures is low by chance as well. So the figures that chose the best trial
flatter it, and those of other recordings do not.
"""

import numpy as np
import torch

from data_io.files import read_json, write_json
from data_io.recordings.table import REPORT, SELECTION, Recordings
from models.mdgan.checkpoints import load_decoder
from models.metrics.held_out import HeldOut
from models.metrics.reconstruction import measure_reconstruction
from models.metrics.reference import Reference
from study.base.paths import RunPaths
from study.config.tree import StudyConfig
from study.training.data import choose_held_out, load_side

Figures = dict[str, float]


def measure_best(
    config: StudyConfig, recordings: Recordings, paths: RunPaths, reference: Reference
) -> dict[str, Figures]:
    """Measure reconstructions by the best decoder on both held-out sides; write them as JSON.

    Returns:
        By side: figures of `models.metrics.reconstruction`, ``n_snippets`` and ``n_recordings``.
        The report side is missing where no bird and age has one.
    """
    encoder, generator, _ = load_decoder(paths.best)
    found = {}
    for side in (SELECTION, REPORT):
        of_side = recordings.on(side)
        if not len(of_side):
            continue
        pool = load_side(config, recordings, paths, side)
        rng = np.random.default_rng(config.seed)
        choice = choose_held_out(config, pool, rng)
        held_out = HeldOut(reference, torch.from_numpy(pool.crops(choice)))
        found[side] = measure_reconstruction(encoder, generator, held_out, config.seed) | {
            "n_snippets": float(len(choice)),
            "n_recordings": float(len(of_side)),
        }
    write_json(paths.best_held_out, found)
    return found


def in_words(paths: RunPaths) -> str:
    """The figures of both sides in one sentence."""
    found = read_json(paths.best_held_out) or {}
    if REPORT not in found:
        return (
            "No bird and age has enough bouts for a report side: the figures above chose the best "
            "trial, and so flatter it."
        )
    chose, report = found[SELECTION], found[REPORT]
    n = round(report["n_recordings"])
    return (
        f"The best decoder on {n:,} recording{'s' * (n != 1)} that chose nothing: L1 "
        f"{report['recon_l1']:.3g}, L1/PCA {report['recon_l1_vs_pca']:.3g}, Frechet distance of "
        f"reconstructions {report['frechet_recon']:.3g} (on those that chose it "
        f"{chose['recon_l1']:.3g}, {chose['recon_l1_vs_pca']:.3g}, {chose['frechet_recon']:.3g})."
    )
