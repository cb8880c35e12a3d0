"""Simulated recordings against their own truth, and against the reader of recordings."""

import dataclasses
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from scipy.signal import butter, sosfiltfilt

from data_io.aviary.__main__ import main
from data_io.aviary.birds import birds_and_ages, hatch
from data_io.aviary.params import AviaryParams
from data_io.aviary.truth import RECORDINGS_SCHEMA, SOUNDS_SCHEMA
from data_io.aviary.write import simulate_aviary, simulate_bird_age
from data_io.names.birds_table import read_birds
from data_io.recordings import survey

PARAMS = AviaryParams(n_birds=3, ages_dph=(45, 90), minutes=0.3, recording_s=(2.0, 6.0))
Row = dict[str, Any]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parent") / "aviary"
    simulate_aviary(folder, PARAMS, seed=1)
    return folder


def table(root: Path, name: str) -> list[Row]:
    path = root / f"truth_{name}.parquet"
    return pq.read_table(path, page_checksum_verification=True).to_pylist()


def sounds_of(root: Path) -> dict[str, list[Row]]:
    grouped = defaultdict(list)
    for row in table(root, "sounds"):
        grouped[row["recording"]].append(row)
    return grouped


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def recordings(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(folder).items() if name.endswith(".wav")}


def test_the_seed_fixes_every_byte_whatever_the_order_of_ages(root: Path, tmp_path: Path) -> None:
    other_order = dataclasses.replace(PARAMS, ages_dph=(90, 45))
    simulate_aviary(tmp_path / "again", other_order, seed=1)
    assert contents(tmp_path / "again") == contents(root)


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(root: Path, tmp_path: Path) -> None:
    simulate_aviary(tmp_path / "two", PARAMS, seed=1, jobs=2)
    assert contents(tmp_path / "two") == contents(root)


def test_another_seed_gives_other_birds_and_other_song(root: Path, tmp_path: Path) -> None:
    simulate_aviary(tmp_path / "other", PARAMS, seed=2)
    first, other = recordings(root), recordings(tmp_path / "other")
    assert len(set(first.values()) | set(other.values())) == len(first) + len(other)
    assert hatch(PARAMS, 1, "sim1").types != hatch(PARAMS, 2, "sim1").types


def test_a_bird_and_age_alone_equals_that_in_the_whole(root: Path, tmp_path: Path) -> None:
    other = dataclasses.replace(PARAMS, n_birds=2, ages_dph=(90, 45))
    day = simulate_bird_age(tmp_path, other, 1, "sim1", 90)
    alone, whole = recordings(tmp_path), recordings(root)
    assert alone
    assert alone == {name: whole[name] for name in whole if name.startswith("sim1/90/")}
    for part, name in ((day.sounds, "sounds"), (day.recordings, "recordings")):
        wanted = [row for row in table(root, name) if (row["bird"], row["dph"]) == ("sim1", 90)]
        assert part.to_pylist() == wanted


def test_files_are_in_the_layout_and_as_the_truth_says(root: Path) -> None:
    rows = table(root, "recordings")
    assert {row["recording"] for row in rows} == set(recordings(root))
    assert pq.read_schema(root / "truth_sounds.parquet").equals(SOUNDS_SCHEMA)
    assert pq.read_schema(root / "truth_recordings.parquet").equals(RECORDINGS_SCHEMA)
    for row in rows:
        assert row["recording"].startswith(f"{row['bird']}/{row['age']}/songs/{row['bird']}_")
        assert row["age"] == str(row["dph"])
        info = sf.info(root / row["recording"])
        assert (info.channels, info.subtype) == (1, "PCM_16")
        assert info.samplerate == row["sample_rate_hz"]
        assert info.duration == pytest.approx(row["seconds"], abs=1e-9)
    rates = {row["bird"]: row["sample_rate_hz"] for row in rows}
    assert rates == {"sim1": 44_100, "sim2": 32_000, "sim3": 22_050}
    minutes = defaultdict(float)
    for row in rows:
        minutes[row["bird"], row["dph"]] += row["seconds"] / 60.0
    assert minutes == pytest.approx(dict.fromkeys(birds_and_ages(PARAMS), 0.3))


def test_sounds_are_in_order_and_inside_the_recording(root: Path) -> None:
    seconds = {row["recording"]: row["seconds"] for row in table(root, "recordings")}
    found = sounds_of(root)
    assert set(found) == set(seconds)
    for name, rows in found.items():
        times = np.array([[row["onset_s"], row["offset_s"]] for row in rows])
        assert (np.diff(times.ravel()) > 0).all(), name
        assert [row["index"] for row in rows] == list(range(len(rows)))
        assert times[0, 0] > 0
        assert times[-1, 1] < seconds[name]


def test_sound_is_where_the_truth_says(root: Path) -> None:
    facts = {row["recording"]: row for row in table(root, "recordings")}
    above_db = []
    for name, rows in sounds_of(root).items():
        samples, rate = sf.read(root / name)
        samples = sosfiltfilt(butter(6, 500.0, "high", fs=rate, output="sos"), samples)
        edges = [round(time * rate) for row in rows for time in (row["onset_s"], row["offset_s"])]
        parts = np.split(samples, edges)
        # The filter rings beside a few loud sounds; the median does not mind.
        noise_db = 20.0 * np.log10(np.median([part.std() for part in parts[0::2]]))
        assert noise_db == pytest.approx(facts[name]["noise_db"], abs=0.6), name
        silent = sum(len(part) for part in parts[0::2]) / len(samples)
        assert silent == pytest.approx(facts[name]["silence_share"], abs=1e-4)
        above_db += [20.0 * np.log10(part.std()) - noise_db for part in parts[1::2]]
    # Young birds sing softly at times; but what the truth calls a sound stands out of the noise.
    assert np.percentile(above_db, 1) > 5.0
    assert np.median(above_db) > 20.0


def test_sounds_are_those_of_the_bird_at_this_age(root: Path) -> None:
    for row in table(root, "sounds"):
        bird = hatch(PARAMS, 1, row["bird"])
        allowed = {
            "syllable": bird.repertoire(row["dph"]),
            "introductory": ("i",),
            "call": ("distance", "tet"),
            "cage_noise": ("click", "wing_flaps", "thump"),
        }
        assert row["label"] in allowed[row["kind"]]


def test_the_reader_finds_birds_ages_tutors_and_times_without_a_remark(root: Path) -> None:
    found = survey(root)
    assert found.notes == []
    assert [row.status for row in found.recordings] == ["ok"] * len(recordings(root))
    wanted = {(name, str(dph)) for name, dph in birds_and_ages(PARAMS)}
    assert set(found.recordings.by_bird_age()) == wanted
    at = {row["recording"]: row["recorded_at"] for row in table(root, "recordings")}
    assert {row.path: row.recorded_at for row in found.recordings} == at
    for name, bird in read_birds(root)[0].items():
        assert bird.tutor == ("sim2" if name == "sim1" else "")
        assert bird.hatch_date == hatch(PARAMS, 1, name).hatched


def test_a_tutor_that_is_not_recorded_is_not_named_in_birds_csv(tmp_path: Path) -> None:
    simulate_aviary(tmp_path / "one", dataclasses.replace(PARAMS, n_birds=1), seed=1)
    assert read_birds(tmp_path / "one")[0]["sim1"].tutor == ""


def test_the_gain_of_a_bird_in_the_truth_is_the_one_that_it_was_recorded_with(
    tmp_path: Path,
) -> None:
    # So loud that it must be lowered for the step.
    params = dataclasses.replace(
        PARAMS, n_birds=4, gain_db=(0.0, 0.0), gain_day_sd_db=0.0, minutes=0.1, recording_s=(2, 2)
    )
    simulate_aviary(tmp_path / "loud", params, seed=1)
    of_bird = {row["bird"]: row for row in table(tmp_path / "loud", "birds")}
    assert of_bird["sim1"]["gain_db"] == 0.0
    assert of_bird["sim4"]["gain_db"] < 0.0
    for row in table(tmp_path / "loud", "ages"):
        bird = of_bird[row["bird"]]
        step_dph = bird["gain_step_dph"]
        step_db = 12.0 if step_dph is not None and row["dph"] >= step_dph else 0.0
        assert row["gain_db"] == pytest.approx(bird["gain_db"] + step_db)


def test_song_of_the_morning_is_less_mature(tmp_path: Path) -> None:
    params = dataclasses.replace(PARAMS, n_birds=1, ages_dph=(60,), minutes=1.0)
    rows = simulate_bird_age(tmp_path, params, 1, "sim1", 60).recordings.to_pylist()
    curve = params.sound
    for row in rows:
        assert row["effective_dph"] == pytest.approx(60.0 - 3.0 * (1.0 - row["part_of_day"]))
        assert row["sound_variability"] == pytest.approx(curve.at(row["effective_dph"]))
    assert rows[0]["sound_variability"] > rows[-1]["sound_variability"]


def test_nothing_is_written_over_and_nothing_half_written_stays(root: Path, tmp_path: Path) -> None:
    before = contents(root)
    with pytest.raises(FileExistsError, match="is there already: .*name a folder"):
        simulate_aviary(root, PARAMS, seed=1)
    assert contents(root) == before

    def fail(bird: str, dph: int, day: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_aviary(tmp_path / "new", PARAMS, seed=1, progress=fail)
    assert list(tmp_path.iterdir()) == []


def test_unknown_bird_age_seed_or_number_of_jobs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bird is 'sim4': .*choose from sim1, sim2, sim3"):
        simulate_bird_age(tmp_path, PARAMS, 1, "sim4", 45)
    with pytest.raises(ValueError, match="dph is 46: .*choose from 45, 90"):
        simulate_bird_age(tmp_path, PARAMS, 1, "sim1", 46)
    with pytest.raises(ValueError, match="dph is 45: sim2 is .*choose from 410, 455"):
        simulate_bird_age(tmp_path, PARAMS, 1, "sim2", 45)
    with pytest.raises(ValueError, match="seed is -1: "):
        simulate_bird_age(tmp_path, PARAMS, -1, "sim1", 45)
    with pytest.raises(ValueError, match="jobs is 0: .*choose 1 or more"):
        simulate_aviary(tmp_path / "new", PARAMS, 1, jobs=0)
    assert not list(tmp_path.iterdir())


def test_the_command_writes_an_aviary_and_says_where_the_truth_is(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--birds", "3", "--ages", "90,45", "--minutes", "0.3", "--recording-s", "2,6"]
    assert main(["--out", str(tmp_path / "new"), "--seed", "1", *arguments]) == 0
    assert contents(tmp_path / "new") == contents(root)
    shown = capsys.readouterr().out
    assert "sim2 at 410 dph: " in shown
    assert "1.8 minutes of sound" in shown
    assert "truth_sounds.parquet" in shown


def test_the_command_refuses_in_one_sentence(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(root)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["--out", str(tmp_path / "new"), "--minutes", "0.1"]) == 2
    assert capsys.readouterr().err.startswith("error: minutes is 0.1: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--ages", "45,adult", "'45,adult' is no list of ages: give whole days and commas"),
        ("--recording-s", "2", "'2' is no range: give the shortest and the longest"),
    ],
)
def test_words_that_are_no_numbers_are_refused_with_an_example(
    option: str, value: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--out", "nowhere", option, value])
    assert words in capsys.readouterr().err


def test_an_interrupted_aviary_leaves_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("data_io.aviary.write.simulate_bird_age", interrupted)
    assert main(["--out", str(tmp_path / "new")]) == 130
    assert capsys.readouterr().err == "Interrupted. Nothing was kept.\n"
    assert list(tmp_path.iterdir()) == []
