"""What is planted in simulated birds is found again, from the WAV files and the tables alone.

    python -m benchmarks.aviary_truth [--seeds 20] [--minutes 4] [--jobs 2]

Simulates the five birds at four ages with each seed and measures every planted fact anew, by
methods of its own: levels and silence by the energy of the samples above 500 Hz, pitch by
autocorrelation, entropies by counts of labels. The project's models play no part; its detector of
sound has a row of its own.

One row for each fact: planted and found (means), the spread of found - planted, how often it was
measured, and the share of these within two standard errors (from a bootstrap over recordings), or
within the tolerance that is stated. A fact is found where that share is 85 % (of 95 % that two
standard errors promise) or more, and the mean is not off by more than the tolerance beside. Exit 1
where a fact is not found.
"""

import argparse
import multiprocessing
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import soundfile as sf
from numpy.random import default_rng
from numpy.typing import NDArray
from scipy import fft

from data_io.aviary.params import AviaryParams
from data_io.aviary.truth import AGES_FILE, BIRDS_FILE, RECORDINGS_FILE, SOUNDS_FILE
from data_io.aviary.write import simulate_aviary
from data_io.sounding import frame_energy_db, has_sound, noise_floor_db
from data_io.spectrogram import MagnitudeStream, SpectrogramParams

AGES = (45, 60, 75, 90)
THRESHOLD_DB = 5.0  # above the noise, of which three frames in a row never rise so far
# Noise below 400 Hz against that from 410 to 490, where no hum lies, if it falls by 3 dB an octave.
NOISE_BELOW = 8.3
N_BOOTSTRAPS = 100
LEAST_SHARE = 0.85
Floats = NDArray[np.float64]
Row = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """One measurement of one fact: within two ``se``, or within ``tolerance``."""

    fact: str
    planted: float
    found: float
    se: float = 0.0
    tolerance: float = 0.0

    @property
    def is_near(self) -> bool:
        """Whether it was found."""
        return abs(self.found - self.planted) <= 2.0 * self.se + self.tolerance


@dataclass(frozen=True)
class Fact:
    """A row of the table.

    ``most_off``: of the mean. ``is_effect``: the mean lies five standard errors from 0.
    """

    name: str
    most_off: float
    is_effect: bool = False


FACTS = [
    Fact("entropy rate, bits", 0.03),
    Fact("surprise by the chain, bits", 0.03),
    Fact("beyond first order, second order", 0.03, is_effect=True),
    Fact("beyond first order, first order", 0.03),
    Fact("mean run of the repeated", 0.1),
    Fact("repertoire", 0.0),
    Fact("copied share, by sound", 0.1),
    Fact("timing variability", 0.03),
    Fact("morning, durations, pupils", 0.03, is_effect=True),
    Fact("morning, durations, grown", 0.03),
    Fact("morning, pitch, pupils", 0.1, is_effect=True),
    Fact("morning, pitch, grown", 0.05),
    Fact("silence share", 0.02),
    Fact("silence share, detector", 0.03),
    Fact("gain step, dB", 0.6, is_effect=True),
    Fact("gain of a day, dB", 0.3),
    Fact("noise step, dB", 0.5, is_effect=True),
    Fact("noise, dB", 0.5),
    Fact("hum, dB", 1.0),
    Fact("calls share", 0.01),
    Fact("introductory notes", 0.1),
    Fact("cage noises per minute", 0.5),
]


class Heard:
    """What is measured in the WAV files of one bird and age, with the truth beside."""

    def __init__(self, root: Path, recordings: list[Row], sounds: list[Row]) -> None:
        self.recordings, self.sounds = recordings, sounds
        sounds_of = defaultdict(list)
        for sound in sounds:
            sounds_of[sound["recording"]].append(sound)
        frames, low, energies_db = [], [], []
        self.pitch: dict[tuple[str, int], float] = {}
        self.centre: dict[tuple[str, int], float] = {}
        for recording in recordings:
            samples, rate = sf.read(root / recording["recording"], dtype="float32")
            above, between, below = split(samples, rate)
            frames.append(powers(above, rate))
            low.append(powers(below, rate) - NOISE_BELOW * powers(between, rate))
            energies_db.append(detector_energies(samples, rate))
            for sound in sounds_of[recording["recording"]]:
                if sound["kind"] == "syllable":
                    on, off = (round(sound[key] * rate) for key in ("onset_s", "offset_s"))
                    key = (sound["recording"], sound["index"])
                    self.pitch[key] = pitch_hz(above[on:off], rate)
                    self.centre[key] = centre_hz(above[on:off], rate)
        threshold = np.percentile(np.concatenate(frames), 25) * 10.0 ** (THRESHOLD_DB / 10.0)
        sounding = [long_runs(part > threshold) for part in frames]
        # Noise and hum are measured where the table says that nothing sounds: a thump of the cage
        # may lie below 500 Hz.
        silent = [
            far_from(sounds_of[recording["recording"]], len(part), frame_samples(rate) / rate)
            for recording, part in zip(recordings, frames, strict=True)
        ]
        power, is_sound, is_silent = (np.concatenate(x) for x in (frames, sounding, silent))
        self.silence_share = 1.0 - float(is_sound.mean())
        self.noise_db = decibels(power[is_silent].mean())
        self.hum_db = decibels(np.concatenate(low)[is_silent].mean())
        self.level_db = decibels(np.median(power[is_sound]))
        floor_db = noise_floor_db(np.concatenate(energies_db))
        frame_s = SpectrogramParams().frame_s
        self.silence_by_detector = 1.0 - float(
            np.concatenate([has_sound(part, floor_db, frame_s) for part in energies_db]).mean()
        )


def split(samples: Floats, rate: int) -> list[Floats]:
    """A recording above 500 Hz, between 410 and 490 Hz, and below 400 Hz, where hum lies."""
    n_fft = fft.next_fast_len(len(samples), real=True)
    spectrum = fft.rfft(samples, n_fft)
    hz = fft.rfftfreq(n_fft, 1.0 / rate)
    bands = (hz >= 500.0, (hz >= 410.0) & (hz <= 490.0), hz <= 400.0)
    return [fft.irfft(spectrum * band, n_fft)[: len(samples)] for band in bands]


def frame_samples(rate: int) -> int:
    """Samples of a frame of about 5 ms."""
    return round(0.005 * rate)


def far_from(sounds: list[Row], n_frames: int, frame_s: float) -> NDArray[np.bool_]:
    """Frames that lie 20 ms or more from every sound."""
    at = (np.arange(n_frames) + 0.5) * frame_s
    far = np.ones(n_frames, bool)
    for sound in sounds:
        far &= (at < sound["onset_s"] - 0.02) | (at > sound["offset_s"] + 0.02)
    return far


def powers(samples: Floats, rate: int) -> Floats:
    """Power of every frame."""
    step = frame_samples(rate)
    whole = samples[: len(samples) // step * step].reshape(-1, step)
    return np.square(whole, dtype=np.float64).mean(axis=1) + 1e-20


def detector_energies(samples: Floats, rate: int) -> NDArray[np.float32]:
    """Energies of the project's frames, dB."""
    params = SpectrogramParams()
    stream = MagnitudeStream(rate, params)
    parts = [stream.push(samples.astype(np.float32)), stream.finish()]
    return frame_energy_db(np.concatenate(parts, axis=1), params)


def long_runs(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Runs of at least three frames."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    kept = np.zeros(len(mask), bool)
    for start, end in edges.reshape(-1, 2):
        kept[start:end] = end - start >= 3
    return kept


def pitch_hz(samples: Floats, rate: int) -> float:
    """Pitch of the middle of a sound, 300 to 2000 Hz; NaN where it has none.

    By autocorrelation over that of the window (Boersma 1993): the shortest lag among those that
    are nearly the best.
    """
    part = samples[len(samples) // 4 : len(samples) - len(samples) // 4]
    window = np.hanning(len(part))
    n_fft = fft.next_fast_len(2 * len(part), real=True)
    lags, of_window = (
        fft.irfft(np.abs(fft.rfft(x, n_fft)) ** 2, n_fft) for x in (part * window, window)
    )
    lags /= np.maximum(of_window, 1e-3 * of_window[0])
    shortest, longest = int(rate / 2000.0), min(int(rate / 300.0), len(part) * 2 // 3)
    tried = lags[shortest:longest]
    if len(tried) < 3:
        return np.nan
    middle = tried[1:-1]
    is_peak = (middle >= tried[:-2]) & (middle > tried[2:]) & (middle > 0.85 * tried.max())
    peaks = shortest + 1 + np.flatnonzero(is_peak)
    return rate / peaks[0] if len(peaks) and lags[peaks[0]] > 0.3 * lags[0] else np.nan


def centre_hz(samples: Floats, rate: int) -> float:
    """Mean frequency of a sound, weighted by magnitude, below 8 kHz."""
    magnitude = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    hz = np.fft.rfftfreq(len(samples), 1.0 / rate)
    magnitude[hz > 8000.0] = 0.0
    return float((hz * magnitude).sum() / magnitude.sum())


def decibels(power: float) -> float:
    """A power in dB."""
    return float(10.0 * np.log10(power))


def bouts(sounds: Iterable[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Recording and sounds of every bout."""
    sung = [sound for sound in sounds if sound["bout"] >= 0]
    for (recording, _), bout in groupby(sung, lambda sound: (sound["recording"], sound["bout"])):
        yield recording, list(bout)


def songs(sounds: Iterable[Row]) -> list[list[str]]:
    """Labels of the syllables of every bout."""
    return [
        [sound["label"] for sound in bout if sound["kind"] == "syllable"]
        for _, bout in bouts(sounds)
    ]


def entropy(counts: Floats) -> Floats:
    """Entropies along the last axis of counts, bits, with Miller's and Madow's correction."""
    total = np.maximum(counts.sum(axis=-1), 1e-9)
    p = counts / total[..., None]
    logs = np.log2(p, out=np.zeros_like(p), where=p > 0.0)
    seen = (counts > 0.0).sum(axis=-1)
    return -(p * logs).sum(axis=-1) + np.maximum(seen - 1, 0) / (2.0 * total * np.log(2.0))


def bootstrapped(of: Callable[[Floats], Any], parts: Floats) -> tuple[float, float]:
    """A statistic of sums over ``parts [n, ...]`` and its standard error."""
    rng = default_rng(0)
    flat = parts.reshape(len(parts), -1)
    weights = rng.multinomial(len(parts), np.full(len(parts), 1.0 / len(parts)), N_BOOTSTRAPS)
    again = [of(sums.reshape(parts.shape[1:])) for sums in weights @ flat]
    return float(of(parts.sum(axis=0))), float(np.std(again, ddof=1))


def entropy_findings(age: Row, sung: list[list[str]]) -> Iterator[Finding]:
    """Entropy rate of counted contexts, and the mean surprise by the probabilities planted."""
    probs, onward = np.array(age["context_probs"]), np.array(age["context_onward"])
    n_contexts, n_labels = probs.shape
    number = {label: i for i, label in enumerate(age["labels"])}
    counts = np.zeros((len(sung), n_contexts, n_labels))
    for i, labels in enumerate(sung):
        context = age["context_start"]
        for label in labels:
            counts[i, context, number[label]] += 1
            context = onward[context, number[label]]

    def rate(total: Floats) -> float:
        # Rows by counts, contexts as they would be in the long run and not from bouts' starts.
        rows = (total + 1e-6) / (total + 1e-6).sum(axis=1, keepdims=True)
        matrix = np.zeros((n_contexts, n_contexts))
        np.add.at(matrix, (np.arange(n_contexts)[:, None], onward), rows)
        steady = np.linalg.matrix_power((matrix + np.eye(n_contexts)) / 2.0, 4096)[0]
        return float(steady @ entropy(total))

    found, se = bootstrapped(rate, counts)
    yield Finding("entropy rate, bits", age["entropy_rate_bits"], found, se)

    surprises = -np.log2(np.maximum(probs, 1e-300))
    row_entropies = (probs * np.where(probs > 0.0, surprises, 0.0)).sum(axis=1)
    # In the contexts that were sung, since bouts begin in one.
    expected = float((counts.sum(axis=(0, 2)) * row_entropies).sum() / counts.sum())
    mean, _ = bootstrapped(lambda total: (total * surprises).sum() / total.sum(), counts)
    off = (counts * (surprises - row_entropies[:, None])).sum(axis=(1, 2))
    se = float(np.sqrt((off**2).sum()) / counts.sum())
    yield Finding("surprise by the chain, bits", expected, mean, se)


def order_findings(age: Row, bird: Row, sung: list[list[str]]) -> Iterator[Finding]:
    """Dependence on the syllable before the last, and runs of a repeated syllable."""
    number = {label: i for i, label in enumerate(age["labels"])}
    coded = [[number[label] for label in labels] for labels in sung]
    triples = count_triples(coded, len(number))
    if age["syntax"] == "repeats":
        repeated = number[bird["repeated_label"]]
        planted = 1.0 / (1.0 - age["transition_matrix"][repeated][repeated])
        found, se = bootstrapped(mean_run, np.array([runs(bout, repeated) for bout in coded]))
        yield Finding("mean run of the repeated", planted, found, se)
        return
    # Counts of little song seem to hold some dependence where there is none, and bouts begin in one
    # context. Song that is drawn from the table, in bouts of the same lengths, tells how much that
    # moves the value, and how far it spreads.
    rng = default_rng(0)
    drawn = [
        beyond_first_order(count_triples(redrawn(rng, age, coded), len(number)).sum(axis=0))
        for _ in range(30)
    ]
    planted = age["beyond_first_order_bits"]
    found = beyond_first_order(triples.sum(axis=0)) - (np.mean(drawn) - planted)
    name = f"beyond first order, {age['syntax'].replace('_', ' ')}"
    yield Finding(name, planted, found, np.std(drawn, ddof=1))


def runs(bout: list[int], repeated: int) -> Floats:
    """Runs that reached each length and went on or ended, and those that ended, ``[2, 30]``."""
    counts = np.zeros((2, 30))
    length = 0
    for label, following in zip(bout[:-1], bout[1:], strict=True):
        length = length + 1 if label == repeated else 0
        if length:
            counts[0, length] += 1
            counts[1, length] += following != repeated
    return counts


def mean_run(counts: Floats) -> float:
    """Mean length of runs, of which some are cut by the end of a bout (Kaplan & Meier 1958)."""
    goes_on = 1.0 - counts[1, 1:] / np.maximum(counts[0, 1:], 1.0)
    goes_on[counts[0, 1:] == 0.0] = 0.0
    return float(1.0 + np.cumprod(goes_on).sum())


def count_triples(coded: list[list[int]], n: int) -> Floats:
    """Numbers of label, next and next but one in every bout, ``[n_bouts, n, n, n]``."""
    triples = np.zeros((len(coded), n, n, n))
    for i, at in enumerate(coded):
        np.add.at(triples[i], (at[:-2], at[1:-1], at[2:]), 1)
    return triples


def beyond_first_order(triples: Floats) -> float:
    """H(next | last) - H(next | last two) of counts ``[before, last, next]``, bits."""
    p = triples / triples.sum()

    def bits(q: Floats) -> float:
        return float(-(q * np.log2(q, out=np.zeros_like(q), where=q > 0.0)).sum())

    return bits(p.sum(axis=0)) - bits(p.sum(axis=(0, 2))) - bits(p) + bits(p.sum(axis=2))


def redrawn(rng: np.random.Generator, age: Row, bouts: list[list[int]]) -> list[list[int]]:
    """Bouts of the same lengths, drawn from the probabilities in the table."""
    cumulative = np.cumsum(age["context_probs"], axis=1)
    again = []
    for bout in bouts:
        context, song = age["context_start"], []
        for draw in rng.uniform(size=len(bout)):
            label = min(int(np.searchsorted(cumulative[context], draw)), len(age["labels"]) - 1)
            song.append(label)
            context = age["context_onward"][context][label]
        again.append(song)
    return again


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


def duration_s(sound: Row) -> float:
    """Length of a sound."""
    return float(sound["offset_s"] - sound["onset_s"])


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
        yield Finding("silence share", age["silence_share"], heard.silence_share, tolerance=0.04)
        yield Finding("silence share, detector", age["silence_share"], heard.silence_by_detector,
                      tolerance=0.05)  # fmt: skip
        yield Finding("noise, dB", fact["noise_db"], heard.noise_db, tolerance=1.0)
        yield Finding("hum, dB", fact["hum_db"], heard.hum_db, tolerance=1.5)
        if bird["role"] in ("tutor", "unchanging") and age is not first_age:
            yield Finding("gain of a day, dB", fact["gain_db"] - first.recordings[0]["gain_db"],
                          heard.level_db - first.level_db, tolerance=1.0)  # fmt: skip

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
        yield Finding("noise step, dB", params.noise_step_db, found, tolerance=1.0)


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


def voices(heard: Heard) -> dict[str, Floats]:
    """Medians of log duration, mean frequency and pitch of every label; NaN where it has none."""
    found = defaultdict(list)
    for sound in heard.sounds:
        if sound["kind"] == "syllable":
            key = (sound["recording"], sound["index"])
            values = [duration_s(sound), heard.centre[key], heard.pitch[key]]
            found[sound["label"]].append(np.log(values))
    return {label: np.median(values, axis=0) for label, values in found.items()}


def copied_finding(pupil: Heard, tutor: Heard, planted: float) -> Finding:
    """The share of the tutor's syllables that a grown pupil has, told by ear and not by name."""
    mine, tutors = voices(pupil), voices(tutor)
    heard = {
        label
        for label, voice in tutors.items()
        if min(np.nanmax(np.abs(voice - other)) for other in mine.values()) < 0.12
    }
    return Finding("copied share, by sound", planted, len(heard) / len(tutors), tolerance=0.21)


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
    print(f"{'fact':34} {'planted':>8} {'found':>8} {'spread':>7} {'n':>5} {'within':>7}  verdict")
    missed = []
    for fact in FACTS:
        mine = [finding for finding in found if finding.fact == fact.name]
        planted, values = (
            np.array([getattr(f, key) for f in mine]) for key in ("planted", "found")
        )
        within = np.mean([finding.is_near for finding in mine])
        off, spread = (values - planted).mean(), (values - planted).std()
        good = within >= LEAST_SHARE and abs(off) <= fact.most_off
        if fact.is_effect:
            good &= abs(values.mean()) > 5.0 * values.std() / np.sqrt(len(values))
        if not good:
            missed.append(fact.name)
        print(f"{fact.name:34} {planted.mean():8.3f} {values.mean():8.3f} {spread:7.3f} "
              f"{len(mine):5} {within:7.1%}  {'found' if good else 'NOT FOUND'}")  # fmt: skip
    return missed


def main(arguments: list[str] | None = None) -> int:
    """Print the table; return 1 where a fact is not found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=4.0, help="of each bird and age")
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
