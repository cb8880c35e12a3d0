"""Simulated song of growing zebra finches, with its true syllables, for a study without recordings.

A bird has a fixed motif of syllables. A young bird sings it noisily, variably and out of order.
"""

import math
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile as sf
from numpy.random import Generator, default_rng
from scipy.signal import lfilter

from data_io.files import atomic_file

FloatArray = npt.NDArray[np.float64]

TRUTH_SCHEMA = pa.schema(
    [
        ("bird", pa.string()),
        ("age", pa.string()),  # the folder's name, as for real recordings
        ("dph", pa.int32()),
        ("recording", pa.string()),  # path relative to the root, with forward slashes
        ("index", pa.int32()),  # of the syllable in its recording, from 0
        ("syllable", pa.string()),  # 'a', 'b', ... in the motif's order; 'i' is introductory
        ("onset_s", pa.float64()),
        ("offset_s", pa.float64()),
    ]
)
INTRODUCTORY = "i"
_BACKGROUND_DB = -50.0  # RMS of the background against the song's peak
_LOWEST_HZ, _HIGHEST_HZ = 250.0, 12_000.0  # above 8 kHz the analysis has to filter it away


@dataclass(frozen=True)
class SimulationParams:
    """The amount of song to simulate.

    Attributes:
        n_birds: Number of birds, 1 to 1000.
        ages_dph: Ages in days post hatch, each 1 to 3650, none twice.
        n_recordings: Recordings per bird and age, 1 to 1000.
        seconds: Longest a recording may be, 1 to 600 s; most are up to 0.5 s shorter.
        sample_rate_hz: Sampling rate of the WAV files, 16000 to 192000 Hz.
    """

    n_birds: int = 3
    ages_dph: tuple[int, ...] = (45, 60, 75, 90)
    n_recordings: int = 12
    seconds: float = 4.0
    sample_rate_hz: int = 32_000

    def __post_init__(self) -> None:
        """Refuse values that cannot be simulated (ValueError)."""
        _require("n_birds", self.n_birds, 1, 1000, "there is no song without a bird")
        _require("n_recordings", self.n_recordings, 1, 1000, "files are numbered 000 to 999")
        _require("seconds", self.seconds, 1.0, 600.0, "silence and one syllable may take 0.95 s")
        _require("sample_rate_hz", self.sample_rate_hz, 16_000, 192_000, "song reaches 8 kHz")
        for dph in self.ages_dph:
            _require("ages_dph", dph, 1, 3650, "an age is counted in days from hatching")
        if not self.ages_dph or len(set(self.ages_dph)) < len(self.ages_dph):
            raise ValueError(
                f"ages_dph is {self.ages_dph}: each age has a folder of its own; "
                "give at least one age, and none twice"
            )


@dataclass(frozen=True)
class _Syllable:
    """A syllable type, or one rendition of it."""

    label: str
    duration_s: float
    f0_hz: float
    slope: float  # change of log frequency from start to end
    bend: float  # log frequency at the ends minus log frequency in the middle
    formant_hz: float
    formant_width_hz: float
    noisiness: float  # share of noise in the sound, 0 to 1
    level: float  # RMS before the song is scaled
    ramp_s: float  # length of the attack, and of the decay


@dataclass(frozen=True)
class _Bird:
    """The song of one bird when it is grown up."""

    motif: tuple[_Syllable, ...]
    gaps_s: tuple[float, ...]  # after each syllable; the last also after introductory notes
    introductory: _Syllable


def maturity(dph: float) -> float:
    """Return how stereotyped song is at an age: 0.10 at 45 days post hatch, 0.95 at 90."""
    return 1.0 / (1.0 + math.exp(-(dph - 64.2) / 8.75))


def bird_names(n_birds: int) -> list[str]:
    """Return the names of the first ``n_birds`` birds: "sim1", "sim2" and so on."""
    return [f"sim{number}" for number in range(1, n_birds + 1)]


def simulate_birds(root: Path, params: SimulationParams, seed: int) -> None:
    """Write all birds at all ages, then ``truth.parquet``, under a fresh folder.

    Args:
        root: Folder to write to; receives ``<bird>/<dph>/songs/<bird>_<dph>_<nnn>.wav``.
        params: How much to simulate.
        seed: Not negative; on one kind of machine it fixes the files, byte for byte.
    """
    rows = []
    for bird in bird_names(params.n_birds):
        for dph in params.ages_dph:
            rows += simulate_bird_age(root, params, seed, bird, dph)
    write_truth(root, rows)


def simulate_bird_age(
    root: Path, params: SimulationParams, seed: int, bird: str, dph: int
) -> list[dict[str, Any]]:
    """Write the recordings of one bird at one age; may run beside others, in any order.

    Args:
        root: Folder that holds all birds.
        params: How much to simulate.
        seed: Not negative; with bird, age and recording number it fixes every sample.
        bird: One of ``bird_names(params.n_birds)``.
        dph: Age in days post hatch, one of ``params.ages_dph``.

    Returns:
        One row per syllable, in order, with the columns of ``TRUTH_SCHEMA``; times in seconds.
    """
    birds = bird_names(params.n_birds)
    if bird not in birds:
        raise ValueError(f"bird is {bird!r}: not simulated; choose from {', '.join(birds)}")
    if dph not in params.ages_dph:
        raise ValueError(f"dph is {dph}: not simulated; choose from {params.ages_dph}")
    if seed < 0:
        raise ValueError(f"seed is {seed}: random numbers need 0 or more; choose such a seed")
    # Ages start at 1, so the bird itself can never share its random numbers with a recording.
    singer = _hatch(default_rng([seed, birds.index(bird), 0, 0]))
    folder = root / bird / str(dph) / "songs"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(params.n_recordings):
        rng = default_rng([seed, birds.index(bird), dph, number])
        samples, syllables = _record(rng, singer, 1.0 - maturity(dph), params)
        path = folder / f"{bird}_{dph}_{number:03d}.wav"
        sf.write(path, samples, params.sample_rate_hz, subtype="PCM_16")
        common = {"bird": bird, "age": str(dph), "dph": dph}
        common["recording"] = path.relative_to(root).as_posix()
        rows += [common | {"index": i} | syllable for i, syllable in enumerate(syllables)]
    return rows


def write_truth(root: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows of ``simulate_bird_age`` as ``<root>/truth.parquet``, one row per syllable."""
    table = pa.Table.from_pylist(list(rows), schema=TRUTH_SCHEMA)
    with atomic_file(root / "truth.parquet") as temporary:
        # Without checksums nearly every flipped bit is read as a wrong value.
        pq.write_table(table, temporary, write_page_checksum=True)


def _require(name: str, value: float, low: float, high: float, cause: str) -> None:
    """Raise ValueError unless ``low <= value <= high`` (NaN is refused too)."""
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}: {cause}; choose a value from {low} to {high}")


def _hatch(rng: Generator) -> _Bird:
    """Draw the 4 to 7 syllable types of a bird, its motif and its gaps."""
    n_types = int(rng.integers(4, 8))
    # One value from each of n equal parts of a range, shuffled: types that can be told apart.
    durations, pitches = (
        (rng.permutation(n_types) + rng.uniform(0.2, 0.8, n_types)) / n_types for _ in range(2)
    )
    n_noisy = int(rng.integers(1, n_types // 2 + 1))
    n_high = int(rng.integers(0, 2))
    kinds = rng.permutation((["noisy"] * n_noisy + ["high"] * n_high + ["stack"] * 7)[:n_types])
    motif = tuple(
        _draw_type(rng, string.ascii_lowercase[i], str(kinds[i]), durations[i], pitches[i])
        for i in range(n_types)
    )
    gaps_s = (*rng.uniform(0.02, 0.06, n_types - 1).tolist(), rng.uniform(0.06, 0.15))
    introductory = _draw_type(rng, INTRODUCTORY, "stack", rng.uniform(0.05, 0.3), rng.uniform())
    return _Bird(motif, gaps_s, replace(introductory, level=0.5))


def _draw_type(rng: Generator, label: str, kind: str, duration: float, pitch: float) -> _Syllable:
    """Draw a syllable type; ``duration`` and ``pitch`` in [0, 1] span their ranges."""
    lowest_hz, octaves = (2000.0, 1.0) if kind == "high" else (400.0, 1.58)
    return _Syllable(
        label=label,
        duration_s=0.04 * 5.0**duration,
        f0_hz=lowest_hz * 2.0 ** (octaves * pitch),
        slope=rng.uniform(-0.5, 0.3),
        bend=rng.uniform(-0.3, 0.1),
        formant_hz=rng.uniform(2000.0, 5000.0),
        formant_width_hz=rng.uniform(900.0, 1800.0),
        noisiness=rng.uniform(0.75, 0.95) if kind == "noisy" else rng.uniform(0.0, 0.08),
        level=rng.uniform(0.6, 1.0),
        ramp_s=rng.uniform(0.005, 0.015),
    )


def _record(
    rng: Generator, bird: _Bird, spread: float, params: SimulationParams
) -> tuple[npt.NDArray[np.int16], list[dict[str, Any]]]:
    """Return a recording, int16 ``(n_samples,)``, and label, onset and offset of its syllables."""
    rate = params.sample_rate_hz
    start = round(rng.uniform(0.1, 0.3) * rate)
    tail = round(rng.uniform(0.1, 0.3) * rate)
    parts, rows = [np.zeros(start)], []
    for syllable, gap_s in _sequence(rng, bird, spread):
        sound = _synthesise(rng, _vary(rng, syllable, spread), spread, rate)
        end = start + len(sound)
        if end + tail > params.seconds * rate:
            break
        longer = (1.0 + spread) * math.exp((0.03 + 0.5 * spread) * rng.standard_normal())
        gap = np.zeros(round(gap_s * max(longer, 0.25) * rate))
        rows.append({"syllable": syllable.label, "onset_s": start / rate, "offset_s": end / rate})
        parts += [sound, gap]
        start = end + len(gap)
    song = np.concatenate([*parts[:-1], np.zeros(tail)])  # the tail stands for the last gap
    song *= rng.uniform(0.3, 0.5) / np.abs(song).max()
    # Cage and room are louder at low frequencies.
    background = lfilter([1.0], [1.0, -0.7], rng.standard_normal(len(song)))
    background *= np.abs(song).max() * 10.0 ** (_BACKGROUND_DB / 20.0) / background.std()
    return np.round((song + background) * 32767.0).astype(np.int16), rows


def _sequence(rng: Generator, bird: _Bird, spread: float) -> Iterator[tuple[_Syllable, float]]:
    """Give syllables, each with a grown bird's gap after it in seconds, without end."""
    for _ in range(int(rng.integers(1, 5))):
        yield bird.introductory, bird.gaps_s[-1]
    n_types = len(bird.motif)
    position = -1
    while True:
        wrong = rng.uniform() < spread
        position = int(rng.integers(n_types)) if wrong else (position + 1) % n_types
        yield bird.motif[position], bird.gaps_s[position]


def _vary(rng: Generator, syllable: _Syllable, spread: float) -> _Syllable:
    """Draw one rendition of a syllable type; ``spread`` (1 - maturity) sets how far from it."""
    duration, pitch, slope, bend, formant, level = rng.standard_normal(6).tolist()
    duration_s = syllable.duration_s * math.exp((0.02 + 0.45 * spread) * duration)
    added_noise = spread * rng.uniform(0.3, 1.0)
    return replace(
        syllable,
        duration_s=min(max(duration_s, 0.025), 0.35),
        f0_hz=syllable.f0_hz * math.exp((0.01 + 0.25 * spread) * pitch),
        slope=syllable.slope + (0.02 + 0.5 * spread) * slope,
        bend=syllable.bend + (0.01 + 0.3 * spread) * bend,
        formant_hz=syllable.formant_hz * math.exp((0.02 + 0.2 * spread) * formant),
        formant_width_hz=syllable.formant_width_hz * (1.0 + spread),
        noisiness=syllable.noisiness + (1.0 - syllable.noisiness) * added_noise,
        level=syllable.level * math.exp((0.05 + 0.35 * spread) * level),
    )


def _synthesise(rng: Generator, syllable: _Syllable, spread: float, rate: int) -> FloatArray:
    """Return the sound of one rendition, ``(n_samples,)`` at ``rate`` Hz: source, then filter."""
    n_samples = round(syllable.duration_s * rate)
    tone = _harmonics(syllable, _wobble(rng, n_samples, rate, 0.005 + 0.1 * spread), rate)
    share = syllable.noisiness
    source = (1.0 - share) * tone / tone.std() + share * rng.standard_normal(n_samples)
    distance_hz = np.fft.rfftfreq(n_samples, 1.0 / rate) - syllable.formant_hz
    # The floor keeps low harmonics, which real song has too.
    gain = 0.1 + np.exp(-0.5 * (distance_hz / syllable.formant_width_hz) ** 2)
    sound = np.fft.irfft(np.fft.rfft(source) * gain, n_samples)
    loudness = np.exp(_wobble(rng, n_samples, rate, 0.05 + 0.4 * spread))
    shape = loudness * _envelope(n_samples, syllable.ramp_s, rate)
    return np.asarray(syllable.level / sound.std() * sound * shape)


def _harmonics(syllable: _Syllable, wobble: FloatArray, rate: int) -> FloatArray:
    """Return a modulated harmonic stack as long as ``wobble``, deviations of log frequency."""
    u = np.linspace(-1.0, 1.0, len(wobble))
    log_ratio = syllable.slope * u / 2.0 + syllable.bend * (u**2 - 1.0 / 3.0) + wobble
    highest_hz = min(_HIGHEST_HZ, 0.45 * rate)
    f0_hz = np.clip(syllable.f0_hz * np.exp(log_ratio), _LOWEST_HZ, highest_hz)
    # Single precision is twice as quick; phases stay below one turn to keep it exact.
    phase = (2.0 * np.pi * (np.cumsum(f0_hz) / rate % 1.0)).astype(np.float32)
    # As many harmonics as never pass the highest frequency: none is cut short, none aliases.
    k = np.arange(1, int(highest_hz / f0_hz.max()) + 1, dtype=np.float32)[:, np.newaxis]
    return np.asarray((np.sin(k * phase) / k).sum(axis=0), dtype=np.float64)


def _wobble(rng: Generator, n_samples: int, rate: int, sd: float) -> FloatArray:
    """Return slow random deviations ``(n_samples,)``: a new value each 15 ms, curves between."""
    n_nodes = 2 + int(n_samples / rate / 0.015)
    whole, part = np.divmod(np.linspace(0.0, n_nodes - 1.0, n_samples), 1.0)
    eased = whole + part**2 * (3.0 - 2.0 * part)  # straight lines would give kinks
    return np.interp(eased, np.arange(n_nodes), rng.normal(0.0, sd, n_nodes))


def _envelope(n_samples: int, ramp_s: float, rate: int) -> FloatArray:
    """Return raised-cosine attack and decay about a plateau of 1, ``(n_samples,)``."""
    from_start = (np.arange(n_samples) + 0.5) / rate
    rise = np.minimum(np.minimum(from_start, from_start[::-1]) / ramp_s, 1.0)
    return 0.5 - 0.5 * np.cos(np.pi * rise)
