"""The plan in the terminal: what a person reads about the recordings before anything is read."""

import io

import pytest

from data_io.names.listing import survey
from models.metrics.evaluation import OBJECTIVES
from study.base.console import Console
from study.config.tree import StudyConfig
from study.plan import OBJECTIVES_IN_WORDS, ages_in_words, show_data


def plan_of(root):
    stream = io.StringIO()
    show_data(StudyConfig(), survey(root), Console(stream))
    return stream.getvalue()


@pytest.fixture
def season(tmp_path):
    """Two birds with dates in the names of their files, one of them excluded."""
    for bird in ("G402", "B17"):
        (tmp_path / bird).mkdir()
        for day in (43332, 43342):
            for ms in (22080042, 22090042):
                month, of_month = (8, 20) if day == 43332 else (8, 30)
                name = f"{bird}_{day}.{ms}_{month}_{of_month}_6_8_{ms // 1000 % 60}.wav"
                (tmp_path / bird / name).touch()
    (tmp_path / "birds.csv").write_text(
        "bird,hatch_date,tutor,sex,exclude\nG402,2018-07-01,Y12,m,\nB17,2018-06-25,,m,yes\n"
    )
    return tmp_path


def test_the_plan_counts_the_recordings_that_a_study_would_read(season):
    (season / "G402" / "G402_43332.22100042_8_20_6_8_20.mp3").touch()
    plan = plan_of(season)
    assert f"4 recordings of 2 birds and ages in {season}" in plan
    assert "Left out: 4 files: excluded in birds.csv" in plan
    assert "Left out: 1 file: .mp3 files are not read" in plan


def test_the_plan_shows_birds_with_what_birds_csv_says_of_them(season):
    assert "G402 (hatched 2018-07-01, tutor Y12): 50, 60 dph" in plan_of(season)


def test_one_is_not_many(tmp_path):
    (tmp_path / "G402" / "45").mkdir(parents=True)
    (tmp_path / "G402" / "45" / "a.wav").touch()
    assert f"1 recording of 1 bird and age in {tmp_path}" in plan_of(tmp_path)


def test_many_reasons_are_cut_and_their_files_still_counted(season):
    for suffix in ("mp3", "ogg", "m4a", "wma", "aac", "opus"):
        (season / "G402" / f"G402_43332.22110042_8_20_6_8_30.{suffix}").touch()
    left_out = [line for line in plan_of(season).splitlines() if "Left out" in line]
    n_files = [int(line.split("Left out: ")[1].split()[0]) for line in left_out]
    assert sum(n_files) == 4 + 6
    assert "for other reasons" in left_out[-1]


def test_ages_are_listed_as_a_person_reads_them():
    assert ages_in_words(["60", "45", "2018-09-19", "post"]) == (
        "45, 60 dph; 2018-09-19; post (neither an age nor a date)"
    )
    assert ages_in_words([str(n) for n in range(40, 60)]) == (
        "40, 41, 42, 43, 44, 45, 46 ... 59 dph (20 ages)"
    )


def test_every_objective_has_words_of_its_own():
    assert set(OBJECTIVES_IN_WORDS) == set(OBJECTIVES)
    assert len(set(OBJECTIVES_IN_WORDS.values())) == len(OBJECTIVES)
