"""Simulated and real birds side by side: spectrograms in one picture, and a table of both.

    python -m benchmarks.aviary_looks [--data DIR] [--out DIR]

DIR holds real recordings, `<bird>/<age>/songs/*.wav`; birds that it lacks are left out. Sound is
told from silence by the reader (`data_io.sounding`), for real and simulated birds alike.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import librosa
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from data_io.aviary.params import AviaryParams
from data_io.aviary.write import simulate_bird_age
from data_io.recordings import Recordings, read, survey
from data_io.sounding import frame_energy_db, has_sound, noise_floor_db, reference_level
from data_io.spectrogram import MagnitudeStream, SpectrogramParams, resample

REAL = [("G402", "2018-09-19"), ("R3625", "45"), ("R3549", "43")]
AGES = (43, 60, 90)
# A pupil at three ages, its tutor, and the bird that repeats a syllable.
SIMULATED = [("sim1", 43), ("sim1", 60), ("sim1", 90), ("sim2", 90 + 365), ("sim4", 90)]
SHOWN_S = 5.0
AT_MOST = 40  # recordings of a bird and age that are measured
WHOLE = SpectrogramParams(highpass_hz=0.0)  # silence is measured below 250 Hz too
READ = SpectrogramParams()
LONGEST_GAP_S = 0.3  # a longer one ends a bout

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Heard:
    """A recording: waveform at 16 kHz [n_samples], |STFT| [129, n_frames], energies [n_frames]."""

    waveform: NDArray[np.float32]
    magnitude: NDArray[np.float32]
    energy_db: NDArray[np.float32]


def hear(root: Path, recordings: Recordings) -> list[Heard]:
    """Read the recordings of a bird and age."""
    found = []
    for listed in list(recordings)[:AT_MOST]:
        recording, waveform = read(root, listed, min_seconds=0.5)
        if waveform is None:
            continue
        stream = MagnitudeStream(recording.sample_rate_hz, WHOLE)
        magnitude = np.concatenate([stream.push(waveform), stream.finish()], axis=1)
        at_16k = resample(waveform, recording.sample_rate_hz, WHOLE)
        found.append(Heard(at_16k, magnitude, frame_energy_db(magnitude, WHOLE)))
    return found


def measure(heard: list[Heard]) -> dict[str, str]:
    """The row of a bird and age in the table."""
    energy_db = np.concatenate([one.energy_db for one in heard])
    floor_db = noise_floor_db(energy_db)
    masks = [has_sound(one.energy_db, floor_db, WHOLE.frame_s) for one in heard]
    sounding = np.concatenate(masks)
    magnitude = np.concatenate([one.magnitude for one in heard], axis=1)
    level_db = 20 * np.log10(reference_level(energy_db, sounding) or np.nan)
    silence, sound = magnitude[:, ~sounding], magnitude[:, sounding]
    gain = 0.05 / 10 ** (level_db / 20)
    spread = np.log1p(gain * silence).var(axis=1)
    low = WHOLE.frequencies_hz < 250.0
    power = (silence**2).mean(axis=1)
    syllables, gaps = durations(masks)
    pitch, flatness = pitch_and_flatness(heard, masks, sound)
    return {
        "minutes": f"{len(energy_db) * WHOLE.frame_s / 60:.1f}",
        "level, dBFS": f"{level_db:.0f}",
        "silence, %": f"{100 * np.mean(~sounding):.0f}",
        "floor below level, dB": f"{level_db - np.median(energy_db[~sounding]):.0f}",
        "silence < 250 Hz: % of variance": f"{100 * spread[low].sum() / spread.sum():.0f}",
        "% of power": f"{100 * power[low].sum() / power.sum():.0f}",
        "slope of silence, dB/octave": f"{slope(silence):.1f}",
        "of sound": f"{slope(sound):.1f}",
        "syllables, ms": quartiles(1000 * syllables),
        "gaps < 300 ms, ms": quartiles(1000 * gaps),
        "sounds/s of sound": f"{len(syllables) / (sounding.sum() * WHOLE.frame_s):.1f}",
        "pitch, Hz": quartiles(pitch),
        "flatness, dB": quartiles(flatness),
        "loudness 5 to 95 %, dB": f"{np.ptp(np.percentile(energy_db[sounding], [5, 95])):.0f}",
    }


def slope(magnitude: Floats) -> float:
    """Slope of mean power from 0.5 to 7.5 kHz in dB per octave; 0 for white noise."""
    band = (WHOLE.frequencies_hz >= 500.0) & (WHOLE.frequencies_hz <= 7500.0)
    power_db = 10 * np.log10((magnitude[band] ** 2).mean(axis=1))
    return float(np.polyfit(np.log2(WHOLE.frequencies_hz[band]), power_db, 1)[0])


def durations(masks: list[NDArray[np.bool_]]) -> tuple[Floats, Floats]:
    """Seconds of every sound, and of every gap within bouts."""
    sounds, gaps = [], []
    for mask in masks:
        steps = np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8))
        starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
        sounds.append((ends - starts) * WHOLE.frame_s)
        gaps.append((starts[1:] - ends[:-1]) * WHOLE.frame_s)
    between = np.concatenate(gaps)
    return np.concatenate(sounds), between[between < LONGEST_GAP_S]


def pitch_and_flatness(
    heard: list[Heard], masks: list[NDArray[np.bool_]], sound: Floats
) -> tuple[Floats, Floats]:
    """Pitch of tonal frames (YIN, 250 to 4,000 Hz) in Hz, and Wiener entropy of sounding ones."""
    power = sound[WHOLE.frequencies_hz >= 500.0] ** 2 + 1e-20
    flatness = 10 * (np.log10(power).mean(axis=0) - np.log10(power.mean(axis=0)))
    pitches = []
    for one, mask in zip(heard, masks, strict=True):
        found = librosa.yin(one.waveform, fmin=250, fmax=4000, sr=WHOLE.sample_rate_hz,
                            frame_length=512, hop_length=WHOLE.hop_length)  # fmt: skip
        n = min(len(found), len(mask))
        pitches.append(found[:n][mask[:n]])
    return np.concatenate(pitches)[flatness < np.median(flatness)], flatness


def quartiles(values: Floats) -> str:
    """The three quartiles."""
    return " ".join(f"{value:.0f}" for value in np.percentile(values, [25, 50, 75]))


def pictures(birds: dict[str, list[Heard]], path: Path) -> None:
    """Draw stretches with much sound of two recordings of each bird and age."""
    mpl.use("Agg")
    figure, axes = plt.subplots(len(birds), 2, figsize=(20, 2.1 * len(birds)), sharey=True)
    n_shown = round(SHOWN_S / READ.frame_s)
    weights = np.minimum(READ.frequencies_hz / READ.highpass_hz, 1.0)[:, None] ** 4
    for row, (name, heard) in zip(axes, birds.items(), strict=True):
        energy_db = np.concatenate([one.energy_db for one in heard])
        floor_db = noise_floor_db(energy_db)
        sounding = np.concatenate([has_sound(h.energy_db, floor_db, READ.frame_s) for h in heard])
        gain = 0.05 / (reference_level(energy_db, sounding) or 1.0)
        for ax, one in zip(row, heard[len(heard) // 3 :: max(len(heard) // 3, 1)], strict=False):
            mask = has_sound(one.energy_db, floor_db, READ.frame_s)
            filled = np.convolve(mask, np.ones(n_shown), "valid")
            start = int(np.argmax(filled)) if len(filled) > 1 else 0
            shown = slice(start, start + n_shown)
            image = np.log1p(gain * weights * one.magnitude[:, shown])
            ax.imshow(image, origin="lower", aspect="auto", cmap="magma", vmin=0, vmax=1.5,
                      extent=(0, image.shape[1] * READ.frame_s, 0, 8))  # fmt: skip
            ax.fill_between(np.arange(len(mask[shown])) * READ.frame_s, 0, 0.25 * mask[shown],
                            color="cyan", step="post")  # fmt: skip
            ax.set_title(name, fontsize=9, loc="left", pad=2)
    axes[-1, 0].set_xlabel("s; cyan: the reader finds sound")
    axes[-1, 0].set_ylabel("kHz")
    figure.tight_layout()
    figure.savefig(path, dpi=70)


def real_birds(root: Path) -> dict[str, list[Heard]]:
    """The real birds that a folder holds."""
    groups = survey(root).recordings.used.by_bird_age().items()
    named = {(bird, age): (f"{bird} {age}", listed) for (bird, age), listed in groups}
    return {named[key][0]: hear(root, named[key][1]) for key in REAL if key in named}


def simulated_birds(seed: int) -> dict[str, list[Heard]]:
    """The simulated birds, 3 minutes of each."""
    params = AviaryParams(n_birds=5, ages_dph=AGES, minutes=3.0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for bird, dph in SIMULATED:
            simulate_bird_age(root, params, seed, bird, dph)
        groups = survey(root).recordings.used.by_bird_age()
        return {f"{bird} {dph}": hear(root, groups[bird, str(dph)]) for bird, dph in SIMULATED}


def main() -> None:
    """Print the table and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="real recordings; without: simulated alone")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for aviary_looks.png")
    parser.add_argument("--seed", type=int, default=1, help="of the simulated birds")
    options = parser.parse_args()
    birds = real_birds(options.data) if options.data else {}
    missing = [f"{bird} {age}" for bird, age in REAL if f"{bird} {age}" not in birds]
    if options.data and missing:
        print(f"{options.data} holds no {', no '.join(missing)}.")
    birds |= simulated_birds(options.seed)
    rows = {name: measure(heard) for name, heard in birds.items()}
    print(f"{'':32}", *(f"{name:>16}" for name in rows))
    for column in next(iter(rows.values())):
        print(f"{column:32}", *(f"{row[column]:>16}" for row in rows.values()))
    options.out.mkdir(parents=True, exist_ok=True)
    pictures(birds, options.out / "aviary_looks.png")
    print(f"{options.out / 'aviary_looks.png'}")


if __name__ == "__main__":
    main()
