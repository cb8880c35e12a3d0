"""What is planted in simulated birds is found again, from the WAV files and the tables alone.

    python -m benchmarks.aviary_truth [--seeds 20] [--minutes 2] [--jobs 2]

Simulates the five birds at four ages with each seed and measures every planted fact anew, by
methods of its own: levels and silence by the energy of the samples above 500 Hz, pitch by
autocorrelation, entropies by counts of labels. The project's models play no part; its detector of
sound has a row of its own.

One row for each fact: planted and found (means), the spread of found - planted, how often it was
measured, and the share of these within two standard errors. Those of entropies, order and runs come
from song that is drawn from the tables, in bouts of the same lengths, which also takes the bias of
counts away; those of variability from a bootstrap over recordings. Where no standard error is known
a tolerance stands in the row. A fact is found where that share is 85 % (of 95 % that two standard
errors promise) or more, and the mean is off by ``most_off`` at most; an effect must also lie five
standard errors of its mean from 0. Few seeds do not tell effects. Exit 1 where a fact is not found.
"""

import argparse
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.random import default_rng

from benchmarks.aviary_heard import Floats, Heard, Row, duration_s, voices
from benchmarks.aviary_order import (
    Finding,
    bootstrapped,
    bouts,
    entropy_findings,
    order_findings,
    songs,
)
from data_io.aviary.params import AviaryParams
from data_io.aviary.truth import AGES_FILE, BIRDS_FILE, RECORDINGS_FILE, SOUNDS_FILE
from data_io.aviary.write import simulate_aviary

AGES = (45, 60, 75, 90)
LEAST_SHARE = 0.85


@dataclass(frozen=True)
class Fact:
    """A row of the table.

    Attributes:
        name: Of its findings.
        most_off: How far the mean of all may be off.
        tolerance: Of one finding, where no standard error is known.
        is_effect: The mean must lie five standard errors from 0.
    """

    name: str
    most_off: float
    tolerance: float = 0.0
    is_effect: bool = False


FACTS = [
    Fact("entropy rate, bits", 0.03),
    Fact("surprise by the chain, bits", 0.03),
    Fact("beyond first order, second order", 0.03, is_effect=True),
    Fact("beyond first order, first order", 0.03),
    Fact("mean run of the repeated", 0.2),
    Fact("repertoire", 0.0),
    Fact("copied share, by sound", 0.1, tolerance=0.25),
    Fact("timing variability", 0.03),
    Fact("morning, durations, pupils", 0.05, is_effect=True),
    Fact("morning, durations, grown", 0.05),
    Fact("morning, pitch, pupils", 0.05, is_effect=True),
    Fact("morning, pitch, grown", 0.05),
    Fact("silence share", 0.02, tolerance=0.04),
    Fact("silence share, detector", 0.04, tolerance=0.05),
    Fact("gain step, dB", 0.6, is_effect=True),
    Fact("gain of a day, dB", 0.2, tolerance=0.5),
    Fact("noise step, dB", 0.3, tolerance=0.5, is_effect=True),
    Fact("noise, dB", 0.1, tolerance=0.3),
    Fact("hum, dB", 0.3, tolerance=1.0),
    Fact("calls share", 0.01),
    Fact("introductory notes", 0.1),
    Fact("cage noises per minute", 0.3),
]


def babble_sd() -> float:
    """Standard deviation of the log duration of subsong: 20 ms and an exponential of 90 ms."""
    return float(np.log(0.02 + default_rng(0).exponential(0.09, 1_000_000)).std())


def deviations(
    heard: Heard, value: Callable[[Row], float], is_rough: bool
) -> tuple[list[Row], Floats]:
    """Syllables and how far the log of a value lies from the mean (rough: median) of its label."""
    syllables = [sound for sound in heard.sounds if sound["kind"] == "syllable"]
    logs = np.log([value(sound) for sound in syllables])
    known = np.isfinite(logs)
    syllables = [sound for sound, is_known in zip(syllables, known, strict=True) if is_known]
    logs = logs[known]
    labels = np.array([sound["label"] for sound in syllables])
    for label in set(labels.tolist()):
        mine = labels == label
        off = logs[mine] - (np.median(logs[mine]) if is_rough else logs[mine].mean())
        # Of n values, n - 1 are free.
        logs[mine] = off * np.sqrt(mine.sum() / max(mine.sum() - 1, 1))
    return syllables, logs


def variability_findings(age: Row, heard: Heard) -> Iterator[Finding]:
    """Timing by the spread of durations; morning against evening, in durations and pitch."""
    facts = {row["recording"]: row for row in heard.recordings}
    grown = age["role"] in ("tutor", "unchanging")
    values = {
        "durations": (duration_s, "timing_variability"),
        "pitch": (lambda s: heard.pitch[s["recording"], s["index"]], "sound_variability"),
    }
    for what, (value, column) in values.items():
        syllables, off = deviations(heard, value, is_rough=what == "pitch")
        # Per recording: squares and numbers, in the morning and in the evening; what is planted.
        power = 1 if what == "pitch" else 2
        sums = {path: np.zeros((2, 3)) for path in facts}
        for sound, deviation in zip(syllables, off, strict=True):
            fact = facts[sound["recording"]]
            late = int(fact["part_of_day"] >= 0.5)
            # A wrong octave must not outweigh all other syllables.
            size = min(abs(deviation), 0.5) if what == "pitch" else deviation**2
            sums[sound["recording"]][late] += (size, 1.0, fact[column] ** power)
        parts = np.array(list(sums.values()))
        if what == "durations" and not grown:
            found, se = bootstrapped(timing, parts)
            planted = np.sqrt(parts[..., 2].sum() / parts[..., 1].sum())
            yield Finding("timing variability", planted, found, se)
        if parts.sum(axis=0)[:, 1].min() < 50:
            continue
        if grown or (age["role"] == "pupil" and 0.1 < age[column] < 0.7):
            found, se = bootstrapped(partial(log_ratio, power=power), parts[..., :2])
            planted = log_ratio(parts.sum(axis=0)[:, [2, 1]], power)
            yield Finding(f"morning, {what}, {'grown' if grown else 'pupils'}", planted, found, se)


def timing(total: Floats) -> float:
    """Variability of timing from squares and numbers."""
    square = total[:, 0].sum() / total[:, 1].sum()
    return float(np.sqrt(max(square - 0.02**2, 0.0)) / BABBLE_SD)


def log_ratio(sizes: Floats, power: int) -> float:
    """Log of the spread in the morning over that in the evening, of sums and numbers ``[2, 2]``."""
    means = sizes[:, 0] / np.maximum(sizes[:, 1], 1.0)
    return float(np.log(max(means[0], 1e-12) / max(means[1], 1e-12)) / power)


def level_findings(
    bird: Row, days: list[tuple[Row, Heard]], params: AviaryParams
) -> Iterator[Finding]:
    """Silence, gain, noise and hum of one bird."""
    for age, heard in days:
        first_age, first = days[0]
        fact = heard.recordings[0]
        silence = age["silence_share"]
        yield Finding("silence share", silence, heard.silence_share)
        yield Finding("silence share, detector", silence, heard.silence_by_detector)
        yield Finding("noise, dB", fact["noise_db"], heard.noise_db)
        yield Finding("hum, dB", fact["hum_db"], heard.hum_db)
        if bird["role"] in ("tutor", "unchanging") and age is not first_age:
            yield Finding("gain of a day, dB", fact["gain_db"] - first.recordings[0]["gain_db"],
                          heard.level_db - first.level_db)  # fmt: skip

    def step(dph: int, value: Callable[[Heard], float]) -> tuple[float, float]:
        sides = [
            [value(h) for age, h in days if (age["dph"] >= dph) == late] for late in (False, True)
        ]
        return np.mean(sides[1]) - np.mean(sides[0]), np.sqrt(sum(1.0 / len(s) for s in sides))

    if bird["gain_step_dph"]:
        found, days_se = step(bird["gain_step_dph"], lambda heard: heard.level_db)
        yield Finding("gain step, dB", params.gain_step_db, found, params.gain_day_sd_db * days_se)
    if bird["noise_step_dph"]:
        found, _ = step(bird["noise_step_dph"], lambda heard: heard.noise_db - heard.level_db)
        yield Finding("noise step, dB", params.noise_step_db, found)


def count_findings(
    bird: Row, days: list[tuple[Row, Heard]], params: AviaryParams
) -> Iterator[Finding]:
    """Shares of calls, introductory notes and noises of the cage of one bird."""
    sounds = [sound for _, heard in days for sound in heard.sounds]
    kinds = [sound["kind"] for sound in sounds]
    n_own = len(kinds) - kinds.count("cage_noise")
    share = params.calls_share
    yield Finding("calls share", share, kinds.count("call") / n_own,
                  np.sqrt(share * (1.0 - share) / n_own))  # fmt: skip
    notes = np.array([
        sum(sound["kind"] == "introductory" for sound in bout) for _, bout in bouts(sounds)
        if bout[-1]["kind"] == "syllable"
    ])  # fmt: skip
    yield Finding("introductory notes", params.introductory_notes, notes.mean(),
                  notes.std() / np.sqrt(len(notes)))  # fmt: skip
    minutes = sum(age["seconds"] for age, _ in days) / 60.0
    yield Finding("cage noises per minute", params.cage_noises_per_minute,
                  kinds.count("cage_noise") / minutes,
                  np.sqrt(params.cage_noises_per_minute / minutes))  # fmt: skip


def copied_finding(pupil: Heard, tutor: Heard, planted: float) -> Finding:
    """The share of the tutor's syllables that a grown pupil has, told by ear and not by name."""
    mine, tutors = voices(pupil), voices(tutor)
    heard = {
        label
        for label, voice in tutors.items()
        if min(np.nanmax(np.abs(voice - other)) for other in mine.values()) < 0.12
    }
    return Finding("copied share, by sound", planted, len(heard) / len(tutors))


def findings(seed: int, params: AviaryParams) -> list[Finding]:
    """Every finding of one seed."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "aviary"
        simulate_aviary(root, params, seed)
        tables = {
            name: pq.read_table(root / name).to_pylist()
            for name in (SOUNDS_FILE, RECORDINGS_FILE, AGES_FILE, BIRDS_FILE)
        }
        rows = {
            name: {key: list(group) for key, group in groupby(
                tables[name], lambda row: (row["bird"], row["dph"]))}
            for name in (SOUNDS_FILE, RECORDINGS_FILE)
        }  # fmt: skip
        found: list[Finding] = []
        oldest: dict[str, Heard] = {}
        for bird in tables[BIRDS_FILE]:
            days = []
            for age in (row for row in tables[AGES_FILE] if row["bird"] == bird["bird"]):
                key = (age["bird"], age["dph"])
                heard = Heard(root, rows[RECORDINGS_FILE][key], rows[SOUNDS_FILE][key])
                sung = songs(heard.sounds)
                heard_labels = {label for labels in sung for label in labels}
                wrong = len(heard_labels ^ set(age["repertoire"]))
                n_types = len(age["repertoire"])
                found.append(Finding("repertoire", n_types, n_types - wrong))
                found += entropy_findings(age, sung)
                found += variability_findings(age, heard)
                days.append((age, heard))
            found += order_findings(days[-1][0], bird, songs(days[-1][1].sounds))
            found += level_findings(bird, days, params)
            found += count_findings(bird, days, params)
            oldest[bird["bird"]] = days[-1][1]
        for bird in tables[BIRDS_FILE]:
            if bird["tutor"]:
                tutor = next(b for b in tables[BIRDS_FILE] if b["bird"] == bird["tutor"])
                planted = len(bird["copied"]) / len(tutor["motif"])
                found.append(copied_finding(oldest[bird["bird"]], oldest[bird["tutor"]], planted))
    return found


def show(found: list[Finding]) -> list[str]:
    """Print a row for each fact; return the names of those that are not found."""
    print(f"{'fact':34} {'planted':>8} {'found':>8} {'spread':>7} {'n':>5} {'near':>6}  near is")
    missed = []
    for fact in FACTS:
        planted, values, se = np.array(
            [(one.planted, one.found, one.se) for one in found if one.fact == fact.name]
        ).T
        off = values - planted
        near = np.mean(np.abs(off) <= 2.0 * se + fact.tolerance)
        good = near >= LEAST_SHARE and abs(off.mean()) <= fact.most_off
        if fact.is_effect:
            good &= abs(values.mean()) > 5.0 * values.std() / np.sqrt(len(values))
        if not good:
            missed.append(fact.name)
        is_near = f"within {fact.tolerance:g}" if fact.tolerance else "within 2 se"
        if not se.any() and not fact.tolerance:
            is_near = "the same"
        print(f"{fact.name:34} {planted.mean():8.3f} {values.mean():8.3f} {off.std():7.3f} "
              f"{len(off):5} {near:6.1%}  {is_near:12} {'' if good else 'NOT '}found")  # fmt: skip
    return missed


def main(arguments: list[str] | None = None) -> int:
    """Print the table; return 1 where a fact is not found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=2.0, help="of each bird and age")
    parser.add_argument("--jobs", type=int, default=1, help="seeds side by side")
    options = parser.parse_args(arguments)
    params = AviaryParams(n_birds=5, ages_dph=AGES, minutes=options.minutes)
    seeds = range(options.seeds)
    found: list[Finding] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context) as pool:
        for seed, of_seed in zip(
            seeds, pool.map(findings, seeds, [params] * len(seeds)), strict=True
        ):
            print(f"seed {seed}: {len(of_seed)} findings", file=sys.stderr, flush=True)
            found += of_seed
    missed = show(found)
    if missed:
        print(f"not found: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


BABBLE_SD = babble_sd()


if __name__ == "__main__":
    sys.exit(main())
