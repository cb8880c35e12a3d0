"""The best decoder on the report side of the split, which took no part in choosing it.

The lowest of many figures is low by chance as well. So the figures that chose the best trial
flatter it, and those of other recordings do not.
"""

from typing import Any

import torch

from data_io.files import read_json, write_json
from data_io.recordings.table import REPORT, SELECTION, TRAINING, Recordings
from models.mdgan.checkpoints import load_decoder
from models.metrics.held_out_songs import HeldOutSongs
from models.metrics.measure import measure_decoder
from models.metrics.reference import Reference
from study.base.paths import RunPaths
from study.config.tree import StudyConfig
from study.training.data import load_side, songs_beside

Side = dict[str, Any]
IN_WORDS = {
    "recon_l1": "L1",
    "recon_l1_vs_pca": "L1/PCA",
    "frechet_song": "Frechet distance of sampled songs",
}


def measure_best(
    config: StudyConfig, recordings: Recordings, paths: RunPaths, reference: Reference
) -> dict[str, Side]:
    """Measure reconstructions by the best decoder on both held-out sides; write them as JSON.

    Returns:
        By side: ``metrics`` and ``by_bird_age`` of `models.metrics.measure.measure`,
        ``n_snippets`` and ``n_recordings``. The report side is missing where no bird and age has
        one.
    """
    encoder, generator, _ = load_decoder(paths.best)
    training = load_side(config, recordings, paths, TRAINING)
    found = {}
    for side in (SELECTION, REPORT):
        of_side = recordings.on(side)
        if not len(of_side):
            continue
        songs = songs_beside(config, training, recordings, paths, side)
        held_out = HeldOutSongs(reference, songs, torch.device("cpu"))
        evaluation = measure_decoder(encoder, generator, held_out, config.seed)
        found[side] = {
            "metrics": evaluation.metrics,
            "by_bird_age": evaluation.by_bird_age,
            "n_snippets": len(held_out.snippets.snippets),
            "n_recordings": len(of_side),
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
    n = found[REPORT]["n_recordings"]
    chose, report = (found[side]["metrics"] for side in (SELECTION, REPORT))
    known = [
        (words, f"valid/{name}")
        for name, words in IN_WORDS.items()
        if f"valid/{name}" in chose and f"valid/{name}" in report
    ]
    figures = ", ".join(f"{words} {report[name]:.3g}" for words, name in known)
    return (
        f"The best decoder on {n:,} recording{'s' * (n != 1)} that chose nothing: {figures} (on "
        f"those that chose it {', '.join(f'{chose[name]:.3g}' for _, name in known)})."
        + worst_in_words(found[REPORT]["by_bird_age"])
    )


def worst_in_words(rows: list[dict[str, Any]]) -> str:
    """The bird and age that is reconstructed worst, where there are several."""
    known = [row for row in rows if row["recon_l1_vs_own_pca"] is not None]
    if len(known) < 2:
        return ""
    worst = max(known, key=lambda row: float(row["recon_l1_vs_own_pca"]))
    return (
        f" Worst is {worst['bird']} at {worst['age']}: L1 {worst['recon_l1']:.3g}, "
        f"{worst['recon_l1_vs_own_pca']:.3g} times that of its own PCA."
    )
