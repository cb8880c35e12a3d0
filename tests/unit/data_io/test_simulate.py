"""The simulated song against its own truth, and against what development should look like."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile as sf

from data_io.simulate import (
    TRUTH_SCHEMA,
    SimulationParams,
    bird_names,
    maturity,
    simulate_bird_age,
    simulate_birds,
    write_truth,
)

PARAMS = SimulationParams(n_birds=2, ages_dph=(45, 90), n_recordings=6, seconds=3.0)
SMALL = SimulationParams(n_birds=2, ages_dph=(45, 90), n_recordings=2, seconds=1.0)
Row = dict[str, Any]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    simulate_birds(folder, PARAMS, seed=1)
    return folder


@pytest.fixture(scope="module")
def truth(root: Path) -> list[Row]:
    return pq.read_table(root / "truth.parquet", page_checksum_verification=True).to_pylist()


def by_recording(truth: list[Row], dph: int | None = None) -> dict[str, list[Row]]:
    grouped = defaultdict(list)
    for row in truth:
        if dph is None or row["dph"] == dph:
            grouped[row["recording"]].append(row)
    return grouped


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(folder.rglob("*.wav"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_seed_fixes_every_byte(tmp_path: Path) -> None:
    for name, seed in (("first", 7), ("second", 7), ("other", 8)):
        simulate_birds(tmp_path / name, SMALL, seed)
    first, second, other = (contents(tmp_path / name) for name in ("first", "second", "other"))
    assert len(first) == 8
    assert first == second
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)
    assert len(set(first.values())) == len(first), "two recordings are the same"
    one, two, three = (
        pq.read_table(tmp_path / name / "truth.parquet") for name in ("first", "second", "other")
    )
    assert one.equals(two)
    # Not only the birds but also what they do in each recording follows from the seed.
    assert one["onset_s"][0] != three["onset_s"][0]


def test_a_bird_age_alone_equals_that_in_the_whole(tmp_path: Path, root: Path) -> None:
    fewer = SimulationParams(n_birds=3, ages_dph=(90, 120), n_recordings=2, seconds=3.0)
    rows = simulate_bird_age(tmp_path, fewer, 1, "sim2", 90)
    alone, whole = contents(tmp_path), contents(root)
    assert sorted(alone) == ["sim2/90/songs/sim2_90_000.wav", "sim2/90/songs/sim2_90_001.wav"]
    assert all(alone[name] == whole[name] for name in alone)
    write_truth(tmp_path, rows)
    written = pq.read_table(tmp_path / "truth.parquet").to_pylist()
    in_whole = pq.read_table(root / "truth.parquet").to_pylist()
    assert written == [row for row in in_whole if row["recording"] in alone]


def test_layout_and_format(root: Path, truth: list[Row]) -> None:
    expected = {
        f"{bird}/{dph}/songs/{bird}_{dph}_{number:03d}.wav"
        for bird in ("sim1", "sim2")
        for dph in (45, 90)
        for number in range(6)
    }
    assert {p.relative_to(root).as_posix() for p in root.rglob("*.wav")} == expected
    assert pq.read_schema(root / "truth.parquet").equals(TRUTH_SCHEMA)
    assert set(by_recording(truth)) == expected
    for row in truth:
        assert row["recording"].startswith(f"{row['bird']}/{row['age']}/songs/")
        assert row["age"] == str(row["dph"])
    for name in expected:
        info = sf.info(root / name)
        assert (info.samplerate, info.channels, info.subtype) == (32_000, 1, "PCM_16")
        assert 2.0 < info.duration <= 3.0
        samples, _ = sf.read(root / name)
        assert 0.28 < np.abs(samples).max() < 0.52


def test_truth_is_ordered_and_inside_the_recording(root: Path, truth: list[Row]) -> None:
    for name, rows in by_recording(truth).items():
        times = np.array([[row["onset_s"], row["offset_s"]] for row in rows])
        assert (np.diff(times.ravel()) > 0).all(), name
        assert [row["index"] for row in rows] == list(range(len(rows)))
        assert 0.1 <= times[0, 0] <= 0.3
        assert 0.0999 <= sf.info(root / name).duration - times[-1, 1] <= 0.3001
        labels = "".join(row["syllable"] for row in rows)
        n_introductory = len(labels) - len(labels.lstrip("i"))
        assert 1 <= n_introductory <= 4
        assert "i" not in labels[n_introductory:]


def test_sound_is_where_the_truth_says(root: Path, truth: list[Row]) -> None:
    for name, rows in by_recording(truth).items():
        samples, rate = sf.read(root / name)
        times = [time for row in rows for time in (row["onset_s"], row["offset_s"])]
        parts = np.split(samples, [round(time * rate) for time in times])
        rms = np.array([np.sqrt(np.mean(part**2)) for part in parts])
        gaps, syllables = rms[0::2], rms[1::2]
        assert syllables.min() > 3.0 * gaps.max(), name
        edge = round(0.01 * rate)
        edges = [side for part in parts[1::2] for side in (part[:edge], part[-edge:])]
        assert np.std(edges, axis=1).min() > 1.5 * gaps.max(), f"{name}: silence in a syllable"
        # Background of -50 dB against the peak; were gaps empty, no noise would be learned.
        level_db = 20.0 * np.log10(gaps / np.abs(samples).max())
        assert ((level_db > -53.0) & (level_db < -47.0)).all(), name


def duration_variation(truth: list[Row], dph: int) -> float:
    durations = defaultdict(list)
    for row in truth:
        if row["dph"] == dph and row["syllable"] != "i":
            durations[row["bird"], row["syllable"]].append(row["offset_s"] - row["onset_s"])
    return float(np.mean([np.std(d) / np.mean(d) for d in durations.values() if len(d) > 4]))


def share_in_motif_order(truth: list[Row], dph: int) -> float:
    n_types = {
        bird: len({row["syllable"] for row in truth if row["bird"] == bird} - {"i"})
        for bird in ("sim1", "sim2")
    }
    follows = []
    for rows in by_recording(truth, dph).values():
        order = [ord(row["syllable"]) - ord("a") for row in rows if row["syllable"] != "i"]
        n = n_types[rows[0]["bird"]]
        follows += [(a + 1) % n == b for a, b in zip(order[:-1], order[1:], strict=True)]
    return float(np.mean(follows))


def test_durations_and_order_settle_with_age(truth: list[Row]) -> None:
    assert duration_variation(truth, 45) > 0.25
    assert 0.0 < duration_variation(truth, 90) < 0.1
    assert share_in_motif_order(truth, 45) < 0.5
    assert share_in_motif_order(truth, 90) > 0.85


def test_gaps_are_longer_and_more_variable_in_the_young(truth: list[Row]) -> None:
    def gaps(dph: int) -> np.ndarray:
        pairs = [
            rows[i + 1]["onset_s"] - rows[i]["offset_s"]
            for rows in by_recording(truth, dph).values()
            for i in range(len(rows) - 1)
        ]
        return np.array(pairs)

    assert gaps(45).mean() > 1.3 * gaps(90).mean()
    assert gaps(45).std() > 1.5 * gaps(90).std()


def flatness(root: Path, row: Row) -> float:
    """Return geometric over arithmetic mean of the power from 0.5 to 8 kHz: 1 for white noise."""
    with sf.SoundFile(root / row["recording"]) as sound:
        sound.seek(round(row["onset_s"] * sound.samplerate))
        part = sound.read(round((row["offset_s"] - row["onset_s"]) * sound.samplerate))
        power = np.abs(np.fft.rfft(part * np.hanning(len(part)))) ** 2
        hz = np.fft.rfftfreq(len(part), 1.0 / sound.samplerate)
    band = power[(hz > 500.0) & (hz < 8000.0)]
    return float(np.exp(np.mean(np.log(band))) / np.mean(band))


def test_babble_is_noisier(root: Path, truth: list[Row]) -> None:
    young, old = (
        np.median([flatness(root, row) for row in truth if row["dph"] == dph]) for dph in (45, 90)
    )
    assert young > 2.0 * old


def test_birds_differ_and_each_has_four_to_seven_syllables(truth: list[Row]) -> None:
    means = []
    for bird in ("sim1", "sim2"):
        old = [row for row in truth if row["bird"] == bird and row["dph"] == 90]
        assert 4 <= len({row["syllable"] for row in old} - {"i"}) <= 7
        means.append(
            np.mean([row["offset_s"] - row["onset_s"] for row in old if row["syllable"] == "a"])
        )
    assert abs(means[0] - means[1]) > 0.01


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_shortest_recordings_hold_song_at_any_rate(tmp_path: Path, rate: int) -> None:
    params = SimulationParams(1, (45,), n_recordings=20, seconds=1.0, sample_rate_hz=rate)
    rows = simulate_bird_age(tmp_path, params, 3, "sim1", 45)
    assert len(by_recording(rows)) == 20
    for path in tmp_path.rglob("*.wav"):
        assert sf.info(path).samplerate == rate
        assert sf.info(path).duration <= 1.0


def test_a_flipped_bit_in_the_truth_is_noticed(tmp_path: Path) -> None:
    write_truth(tmp_path, simulate_bird_age(tmp_path, SMALL, 1, "sim1", 45))
    path = tmp_path / "truth.parquet"
    column = pq.read_metadata(path).row_group(0).column(TRUTH_SCHEMA.get_field_index("onset_s"))
    content = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    content[start + column.total_compressed_size - 1] ^= 1  # in the last page, behind its header
    path.write_bytes(content)
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(path, page_checksum_verification=True)


def test_maturity_and_names() -> None:
    assert maturity(45) == pytest.approx(0.1, abs=0.01)
    assert maturity(90) == pytest.approx(0.95, abs=0.01)
    assert (np.diff([maturity(dph) for dph in range(1, 200)]) > 0).all()
    assert bird_names(3) == ["sim1", "sim2", "sim3"]


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("n_birds", 0, "0"),
        ("ages_dph", (), r"\(\)"),
        ("ages_dph", (45, 0), "0"),
        ("ages_dph", (45, 60, 45), r"\(45, 60, 45\)"),
        ("n_recordings", 1001, "1001"),
        ("seconds", 0.9, "0.9"),
        ("seconds", float("nan"), "nan"),
        ("sample_rate_hz", 8000, "8000"),
    ],
)
def test_params_out_of_range_are_refused(name: str, value: Any, shown: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} is {shown}: .*; (choose|give) "):
        SimulationParams(**{name: value})


def test_unknown_bird_age_or_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bird is 'sim3': .*choose from sim1, sim2"):
        simulate_bird_age(tmp_path, SMALL, 1, "sim3", 45)
    with pytest.raises(ValueError, match=r"dph is 46: .*choose from \(45, 90\)"):
        simulate_bird_age(tmp_path, SMALL, 1, "sim1", 46)
    with pytest.raises(ValueError, match="seed is -1: "):
        simulate_bird_age(tmp_path, SMALL, -1, "sim1", 45)
    assert not list(tmp_path.iterdir())
