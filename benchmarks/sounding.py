"""Frames that hold sound, against the labels that a person gave; and rigs of ten gains.

    python -m benchmarks.sounding RECORDINGS LABELS.csv
    python -m benchmarks.sounding RECORDINGS LABELS.csv --rigs BIRD

LABELS.csv has the columns recording (path below RECORDINGS), onset_s, offset_s, label. Every
label counts as sound, calls and noises too. Frames within 10 ms of an edge are left out. Two ways
to count: from the first label - 0.5 s to the last + 0.5 s of each recording, and whole recordings,
in which sound that the person did not label counts as wrong. All birds have the same settings.

--rigs writes the recordings of one bird at gains from -30 to +10 dB as 16-bit files (the loudest
just below full scale) and compares their levelled spectrograms, as a relative L1.
"""

import argparse
import csv
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from data_io.names.listing import survey
from data_io.recordings.bird_age import read_bird_age
from data_io.recordings.reading import ReadParams, read_sound
from data_io.recordings.table import Recordings
from data_io.store import read_spectrograms

EDGE_S, MARGIN_S = 0.010, 0.5
GAINS_DB = np.linspace(-30, 10, 10)
PARAMS = ReadParams(longest_s=600.0)
FRAME_S = PARAMS.spectrogram.frame_s
Labels = dict[str, list[tuple[float, float]]]


def read_csv(path: Path) -> Labels:
    """Onset and offset of every label, by recording."""
    labels: Labels = defaultdict(list)
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            onset, offset = float(row["onset_s"]), float(row["offset_s"])
            if onset < offset:  # others are slips of the pen
                labels[row["recording"]].append((onset, offset))
    return labels


def counts(
    has_sound: NDArray[np.bool_], labels: list[tuple[float, float]], whole: bool
) -> NDArray[np.int64]:
    """Frames: labelled and found, labelled, found, left out."""
    at = np.arange(len(has_sound)) * FRAME_S
    is_labelled = np.zeros(len(at), bool)
    is_known = np.ones(len(at), bool)
    for onset, offset in labels:
        is_labelled |= (at >= onset) & (at < offset)
        for edge in (onset, offset):
            is_known &= np.abs(at - edge) > EDGE_S
    if not whole:
        first, last = min(labels)[0], max(offset for _, offset in labels)
        is_known &= (at > first - MARGIN_S) & (at < last + MARGIN_S)
    labelled, found = is_labelled[is_known], has_sound[is_known]
    return np.array(
        [(labelled & found).sum(), labelled.sum(), found.sum(), (~is_known).sum()], np.int64
    )


def against_labels(root: Path, labels: Labels) -> None:
    """Print recall and precision of each bird that has labels."""
    of_bird: dict[str, dict[bool, NDArray[np.int64]]] = {}
    n_recordings: dict[str, int] = defaultdict(int)
    with tempfile.TemporaryDirectory() as folder:
        for (bird, age), listed in survey(root).recordings.used.by_bird_age().items():
            if not any(path in labels for path in listed.column("path")):
                continue
            found = read_bird_age(root, listed, PARAMS, Path(folder))
            masks = _masks(Path(folder), bird, age, found)
            for path in masks.keys() & labels.keys():
                n_recordings[bird] += 1
                for whole in (False, True):
                    sums = of_bird.setdefault(bird, {}).setdefault(whole, np.zeros(4, np.int64))
                    sums += counts(masks[path], labels[path], whole)
    print(
        f"{'bird':12} {'recordings':>10}  {'counted':24} {'recall':>7} {'precision':>9}  left out"
    )
    for bird, both in sorted(of_bird.items()):
        for whole, (hits, labelled, n_found, left_out) in both.items():
            how = "whole recordings" if whole else "first to last label"
            print(
                f"{bird:12} {n_recordings[bird]:10}  {how:24} {hits / labelled:7.3f} "
                f"{hits / n_found:9.3f}  {left_out * FRAME_S:.0f} s"
            )


def _masks(folder: Path, bird: str, age: str, found: Recordings) -> dict[str, NDArray[np.bool_]]:
    """Frames that hold sound of each file; pieces of a file one behind the other."""
    parts: dict[str, list[NDArray[np.bool_]]] = defaultdict(list)
    file_of = {row.path: row.file for row in found}
    for row in read_spectrograms(folder, bird, age):
        parts[file_of[row.recording]].append(row.has_sound)
    return {file: np.concatenate(masks) for file, masks in parts.items()}


def rigs(root: Path, bird: str) -> None:
    """Print how far levelled spectrograms of ten rigs lie from those of the loudest."""
    with tempfile.TemporaryDirectory() as folder:
        listed = survey(root).recordings
        listed = listed.where(listed.column("bird") == bird)
        if not len(listed):
            raise SystemExit(f"{root} holds no recording of a bird {bird!r}.")
        sounds = [(row, *read_sound(root, row)) for row in listed]
        peak = max(float(np.abs(sound).max()) for _, sound, _ in sounds)
        results = {}
        for gain_db in GAINS_DB:
            rig = Path(folder) / f"{gain_db:+.1f}"
            for row, sound, rate in sounds:
                path = rig / "data" / bird / row.age / Path(row.path).name
                path.parent.mkdir(parents=True, exist_ok=True)
                scale = 10 ** ((gain_db - GAINS_DB[-1]) / 20) * 0.999 / peak
                soundfile.write(path.with_suffix(".wav"), sound * scale, rate, subtype="PCM_16")
            results[gain_db] = _of_rig(rig)
        loudest, sounding = results[GAINS_DB[-1]]
        print(f"{'gain, dB':>9} {'relative L1':>12} {'frames with another answer':>27}")
        for gain_db, (spectrogram, has_sound) in results.items():
            difference = np.abs(spectrogram - loudest).sum() / loudest.sum()
            print(f"{gain_db:9.1f} {difference:12.3f} {(has_sound != sounding).mean():27.4f}")


def _of_rig(rig: Path) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    groups: Iterable[tuple[tuple[str, str], Recordings]]
    groups = survey(rig / "data").recordings.used.by_bird_age().items()
    rows = []
    for (bird, age), listed in groups:
        read_bird_age(rig / "data", listed, PARAMS, rig / "store")
        rows += list(read_spectrograms(rig / "store", bird, age))
    return (
        np.concatenate([row.spectrogram for row in rows], axis=1),
        np.concatenate([row.has_sound for row in rows]),
    )


def main() -> None:
    """Print the comparison that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recordings", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--rigs", metavar="BIRD", help="compare ten gains of one bird instead")
    options = parser.parse_args()
    if options.rigs:
        rigs(options.recordings, options.rigs)
    else:
        against_labels(options.recordings, read_csv(options.labels))


if __name__ == "__main__":
    main()
