"""The best decoder on the report side of the split, which took no part in choosing it.

The lowest of many figures is low by chance as well. So the figures that chose the best trial
flatter it, and those of other recordings do not.
"""

from typing import Any

import pyarrow as pa
import torch

from data_io.files import read_json, write_json
from data_io.recordings.table import REPORT, SELECTION, TRAINING, Recordings
from data_io.store import read_table, write_rows
from models.mdgan.checkpoints import load_decoder
from models.metrics.held_out_songs import HeldOutSongs
from models.metrics.measure import measure_decoder
from models.metrics.neighbours import N_NEIGHBOURS
from models.metrics.reference import Reference
from study.base.paths import RunPaths
from study.config.tree import StudyConfig
from study.training.data import load_side, songs_beside

Side = dict[str, Any]
Row = dict[str, Any]
IN_WORDS = {
    "recon_l1": "L1",
    "recon_l1_vs_pca": "L1/PCA-16",
    "frechet_song": "Frechet distance of sampled songs",
    "coverage_song": "their coverage",
}
WORST_IN_WORDS = {
    "recon_l1_vs_own_pca": "Reconstructed worst is {bird} at {age}: L1 {recon_l1:.3g}, "
    "{recon_l1_vs_own_pca:.3g} times that of its own PCA-16.",
    "frechet_song": "Sampled worst is {bird} at {age}: Frechet distance {frechet_song:.3g}, where "
    "real songs have {frechet_real:.3g}.",
}


def measure_best(
    config: StudyConfig, recordings: Recordings, paths: RunPaths, reference: Reference
) -> dict[str, Side]:
    """Measure the best decoder on both held-out sides.

    Figures of all birds and ages together are written as JSON, those of each as Parquet.

    Returns:
        By side: ``metrics`` of `models.metrics.measure.measure`, ``n_snippets`` and
        ``n_recordings``. The report side is missing where no bird and age has one, or all of it
        is too short to measure anything.
    """
    encoder, generator, _ = load_decoder(paths.best)
    training = load_side(config, recordings, paths, TRAINING)
    found: dict[str, Side] = {}
    rows = []
    for side in (SELECTION, REPORT):
        of_side = recordings.on(side)
        if not len(of_side):
            continue
        songs = songs_beside(config, training, recordings, paths, side)
        if sum(len(s.held_out) for s in songs) <= N_NEIGHBOURS:
            continue
        held_out = HeldOutSongs(reference, songs, torch.device("cpu"))
        evaluation = measure_decoder(encoder, generator, held_out, config.seed)
        rows += [{"side": side, **row} for row in evaluation.by_bird_age]
        found[side] = {
            "metrics": evaluation.metrics,
            "n_snippets": len(held_out.snippets.snippets),
            "n_recordings": len(of_side),
        }
    write_figures(paths, found, rows)
    return found


def write_figures(paths: RunPaths, found: dict[str, Side], rows: list[Row]) -> None:
    """Write best_held_out.json, and best_by_bird_age.parquet of rows that begin with ``side``."""
    write_json(paths.best_held_out, found)
    types = {"side": pa.string(), "bird": pa.string(), "age": pa.string()}
    types |= {"n_snippets": pa.int64(), "n_windows": pa.int64()}
    names = dict.fromkeys(name for row in rows for name in row)
    schema = pa.schema([(name, types.get(name, pa.float64())) for name in names])
    write_rows(paths.best_by_bird_age, rows, schema)


def in_words(paths: RunPaths) -> str:
    """The figures of both sides in one sentence, and what is worst."""
    found = read_json(paths.best_held_out) or {}
    if REPORT not in found:
        return (
            "No bird and age has enough bouts for a report side: there are only the figures that "
            "chose the best trial, and they flatter it."
        )
    chose, report = (found[side]["metrics"] for side in (SELECTION, REPORT))
    known = [
        (words, f"valid/{name}")
        for name, words in IN_WORDS.items()
        if f"valid/{name}" in chose and f"valid/{name}" in report
    ]
    figures = ", ".join(f"{words} {report[name]:.3g}" for words, name in known)
    rows = read_table(paths.best_by_bird_age).to_pylist()
    on = {s: {(r["bird"], r["age"]) for r in rows if r["side"] == s} for s in found}
    n, n_without = found[REPORT]["n_recordings"], len(on[SELECTION] - on[REPORT])
    without = f" {n_without} more have too few bouts for that." if n_without else ""
    return (
        f"The best decoder on {n:,} recording{'s' * (n != 1)} that chose nothing, of "
        f"{_birds_and_ages(len(on[REPORT]))}: {figures} (on those that chose it "
        f"{', '.join(f'{chose[name]:.3g}' for _, name in known)}).{without}"
        + worst_in_words([row for row in rows if row["side"] == REPORT])
    )


def _birds_and_ages(n: int) -> str:
    return f"{n:,} bird{'s' * (n != 1)} and age{'s' * (n != 1)}"


def worst_in_words(rows: list[Row]) -> str:
    """The birds and ages that are reconstructed and sung worst, where there are several."""
    words = ""
    for name, sentence in WORST_IN_WORDS.items():
        known = [row for row in rows if row[name] is not None]
        if len(known) > 1:
            worst = max(known, key=lambda row: float(row[name]))
            words += " " + sentence.format(**worst)
    return words
