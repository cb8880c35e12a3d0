"""A folder of recordings is understood as a laboratory has it, and no file in it is lost."""

import datetime
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from data_io.names import folders
from data_io.names.layouts import Layout
from data_io.names.listing import NoRecordingsError, Survey, scan, survey
from data_io.recordings.table import Recording

SAP = "G402_43362.23322048_9_19_6_28_42.wav"  # 2018-09-19


def put(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"RIFF")
    return root


def sap(bird: str, day: str, clock: str = "6:28:42") -> str:
    """The name that Sound Analysis Pro gives."""
    date = datetime.date.fromisoformat(day)
    h, m, s = map(int, clock.split(":"))
    serial = (date - datetime.date(1899, 12, 30)).days
    ms = 1000 * (3600 * h + 60 * m + s) + 48
    return f"{bird}_{serial}.{ms}_{date.month}_{date.day}_{h}_{m}_{s}.wav"


def understood(rows: Iterable[Recording]) -> list[tuple[str, str, int | None, str | None]]:
    return [(r.bird, r.age, r.dph, r.date) for r in rows]


def by_path(root: Path, layout: Layout = "auto") -> dict[str, Recording]:
    return {r.path: r for r in scan(root, layout)}


def said(found: Survey, *words: str) -> bool:
    return any(all(word in note for word in words) for note in found.notes)


# Layouts


def test_birds_with_folders_of_ages_with_and_without_songs(tmp_path: Path) -> None:
    put(tmp_path, "b2/90/x.wav", "b1/90/songs/x.WAV", "b1/2018-09-19/Songs/y.Wav", "b1/P9/z.flac")
    rows = scan(tmp_path)
    assert understood(rows) == [
        ("b1", "9", 9, None),
        ("b1", "90", 90, None),
        ("b1", "2018-09-19", None, "2018-09-19"),
        ("b2", "90", 90, None),
    ]
    assert rows[1].path == "b1/90/songs/x.WAV"
    assert all(r.status == "ok" and r.n_bytes == 4 and r.mtime_ns > 10**18 for r in rows)


def test_flat_folder_of_sound_analysis_pro_takes_dates_from_names(tmp_path: Path) -> None:
    put(tmp_path, f"G402/{sap('G402', '2018-09-20')}", f"G402/{SAP}", "G402/notes.txt")
    rows = scan(tmp_path)
    assert understood(rows) == [
        ("G402", "2018-09-19", None, "2018-09-19"),
        ("G402", "2018-09-20", None, "2018-09-20"),
    ]
    assert rows[0].recorded_at == datetime.datetime(2018, 9, 19, 6, 28, 42, 48000)
    assert survey(tmp_path).notes == []


def test_birds_csv_turns_dates_into_days_post_hatch(tmp_path: Path) -> None:
    put(tmp_path, f"G402/{SAP}", "b1/2018-09-19/x.wav", "b2/2018-09-19/x.wav")
    (tmp_path / "birds.csv").write_text("bird,hatch_date,tutor\nG402,5.8.2018,R1\nb1,2018-08-05,\n")
    found = survey(tmp_path, date_order="dmy")
    assert understood(found.recordings) == [
        ("G402", "45", 45, "2018-09-19"),
        ("b1", "45", 45, "2018-09-19"),
        ("b2", "2018-09-19", None, "2018-09-19"),
    ]
    assert found.birds["G402"].tutor == "R1"
    assert found.notes == ["b2 is not in birds.csv."]


def test_evtaf_folders_are_read_month_first_and_names_day_first(tmp_path: Path) -> None:
    put(
        tmp_path,
        "bl26lb16/041912/bl26lb16_190412_0725.20148.cbin",
        "bl26lb16/041912/bl26lb16_190412_0725.20155.cbin",
        "bl26lb16/042012/bl26lb16_200412_0726.32136.cbin",
    )
    found = survey(tmp_path)
    assert understood(found.recordings)[1:] == [
        ("bl26lb16", "2012-04-19", None, "2012-04-19"),
        ("bl26lb16", "2012-04-20", None, "2012-04-20"),
    ]
    assert [r.recorded_at for r in found.recordings][1] == datetime.datetime(2012, 4, 19, 7, 25)
    assert found.notes == []


@pytest.mark.parametrize(
    ("folders", "names", "date"),
    [
        (["041012"], ["b_20120410_072500.wav"], "2012-04-10"),
        (["041012"], ["b_20121004_072500.wav"], "2012-10-04"),
        (["041012"], ["b_20041012_072500.wav"], "2004-10-12"),
        (["041012"], ["b_100412_0725.1.cbin"], "2012-04-10"),
        (["10.4.12", "11.4.12"], [sap("b", "2012-04-10"), sap("b", "2012-04-11")], "2012-04-10"),
    ],
)
def test_names_of_files_tell_the_order_of_dates_of_folders(
    tmp_path: Path, folders: list[str], names: list[str], date: str
) -> None:
    for folder, name in zip(folders, names, strict=True):
        put(tmp_path, f"b/{folder}/{name}")
    found = survey(tmp_path)
    first = next(iter(found.recordings))
    assert (first.age, str(first.recorded_at)[:10], first.status) == (date, date, "ok")
    assert found.notes == []


def test_name_in_another_order_agrees_with_its_folder(tmp_path: Path) -> None:
    put(tmp_path, "b1/2012-04-19/b1_190412_0725.1.cbin", "b1/2012-04-20/b1_200412_0725.1.cbin")
    put(tmp_path, "b2/2012-04-19/b2_120419_0725.wav")
    rows = scan(tmp_path)
    assert [r.status for r in rows] == ["ok"] * 3
    assert rows[2].recorded_at == datetime.datetime(2012, 4, 19, 7, 25)


def test_unclear_dates_are_read_month_first_and_named(tmp_path: Path) -> None:
    put(tmp_path, "b1/041012/x.wav")
    found = survey(tmp_path)
    assert understood(found.recordings) == [("b1", "2012-04-10", None, "2012-04-10")]
    assert said(found, "041012 is read as 2012-04-10", "2004-10-12", "2012-10-04", "date_order")
    stated = survey(tmp_path, date_order="dmy")
    assert understood(stated.recordings)[0][1] == "2012-10-04"
    assert stated.notes == []


def test_dates_that_fit_no_common_order_are_named(tmp_path: Path) -> None:
    put(tmp_path, "b1/041912/x.wav", "b1/200412/x.wav", "b1/991231/x.wav")
    assert said(survey(tmp_path), "No order of year, month and day fits", "041912")


def test_date_that_does_not_fit_the_stated_order_is_a_word(tmp_path: Path) -> None:
    put(tmp_path, "b1/041912/x.wav", "b1/2012-04-20/x.wav")
    found = survey(tmp_path, date_order="dmy")
    assert ("b1", "041912", None, None) in understood(found.recordings)
    assert said(found, "b1: 041912 is neither an age nor a date")


def test_folders_of_ages_of_one_bird_are_refused_or_taken_as_stated(tmp_path: Path) -> None:
    root = put(tmp_path / "finch", "45/songs/x.wav", "P60/y.wav", "2018-09-19/z.wav")
    with pytest.raises(NoRecordingsError, match=r"here perhaps .*set data\.layout=age"):
        survey(root)
    found = survey(root, layout="age")
    assert [(r.bird, r.age) for r in found.recordings] == [
        ("finch", "45"), ("finch", "60"), ("finch", "2018-09-19"),
    ]  # fmt: skip


def test_bird_called_by_a_number_is_a_bird_if_its_files_say_so(tmp_path: Path) -> None:
    put(tmp_path, f"402/{sap('402', '2018-09-19')}", f"45/{sap('402', '2018-09-20')}")
    rows = by_path(tmp_path)
    assert rows[f"402/{sap('402', '2018-09-19')}"].age == "2018-09-19"
    stray = rows[f"45/{sap('402', '2018-09-20')}"]
    assert stray.status == "skipped"
    assert "45 is an age, and no folder names the bird" in stray.reason
    assert len(survey(put(tmp_path, "45/a.wav"), layout="bird").recordings) == 3


def test_age_of_a_flat_bird_may_be_in_the_names(tmp_path: Path) -> None:
    put(tmp_path, "b1/b1_P45_001.wav", "b1/b1_P100_001.wav", "b1/b1_noage.wav")
    rows = scan(tmp_path)
    assert understood(rows)[:2] == [("b1", "45", 45, None), ("b1", "100", 100, None)]
    assert (rows[2].path, rows[2].age, rows[2].status) == ("b1/b1_noage.wav", "", "skipped")
    assert "neither its folder nor its name says an age or a date" in rows[2].reason


def test_birds_without_any_age_have_one(tmp_path: Path) -> None:
    put(tmp_path, "G17/0.wav", "R23/1.wav")
    found = survey(tmp_path)
    assert understood(found.recordings) == [
        ("G17", "undated", None, None), ("R23", "undated", None, None),
    ]  # fmt: skip
    assert said(found, "G17 and R23", "say an age or a date", "'undated'")
    put(tmp_path, "b1/45/x.wav")  # beside ages, a folder of tones is no bird
    assert [r.path for r in scan(tmp_path) if r.is_used] == ["b1/45/x.wav"]


@pytest.mark.parametrize(
    "name", ["x.wav", "b1/x.wav", "b1/43/calls/x.wav", "b1/43/songs/more/x.wav"]
)
def test_file_outside_of_the_layout_is_listed_and_counted(tmp_path: Path, name: str) -> None:
    put(tmp_path, "b1/43/songs/good.wav", name)
    rows = by_path(tmp_path)
    assert rows["b1/43/songs/good.wav"].status == "ok"
    assert rows[name].status == "skipped"
    assert rows[name].reason.startswith("not in <bird>/<age>/songs/")
    assert said(survey(tmp_path), "1 file is outside of the layout and skipped", name)


@pytest.mark.parametrize(
    ("below", "given"),
    [
        ("{bird}/63/songs", "."), ("{bird}/63/songs", "birds/finch"),
        ("{bird}/63/songs", "birds/finch/63"), ("{bird}/63/songs", "birds/finch/63/songs"),
        ("{bird}/63", "."), ("{bird}/63", "birds/finch"), ("{bird}/63", "birds/finch/63"),
    ],
)  # fmt: skip
def test_folder_too_high_or_too_deep_is_refused_and_the_right_one_named(
    tmp_path: Path, below: str, given: str
) -> None:
    birds = tmp_path / "birds"
    put(birds, f"{below.format(bird='finch')}/x.wav")
    assert len(survey(birds).recordings) == 1
    with pytest.raises(NoRecordingsError) as caught:
        survey(tmp_path / given)
    assert f"here perhaps {birds}." in str(caught.value)


def test_deep_layout_is_refused_and_every_folder_of_birds_named(tmp_path: Path) -> None:
    put(tmp_path, "lab/2018/b1/45/songs/x.wav", "lab/2019/b2/P60/songs/x.wav")
    with pytest.raises(NoRecordingsError, match="lab/2018 or .*lab/2019"):
        survey(tmp_path)
    put(tmp_path, "flat/2020/G402/" + SAP, "b1/45/x.wav")
    assert said(survey(tmp_path), "3 files are outside", "perhaps in", "lab/2018", "flat/2020")


def test_folder_of_a_flat_bird_is_refused_and_the_one_above_named(tmp_path: Path) -> None:
    put(tmp_path, f"birds/G402/{SAP}")
    with pytest.raises(NoRecordingsError, match=f"here perhaps {tmp_path / 'birds'}"):
        survey(tmp_path / "birds" / "G402")


def test_clone_of_a_repository_shows_what_its_birds_became(tmp_path: Path) -> None:
    put(tmp_path, "samples/G17/0.wav", "samples/R23/0.wav", "LICENSE")
    found = survey(tmp_path)
    assert [(r.bird, r.age) for r in found.recordings] == [("samples", "G17"), ("samples", "R23")]
    assert said(found, "samples: G17 and R23 are neither ages nor dates", f"{tmp_path}/samples")
    assert {r.bird for r in survey(tmp_path / "samples").recordings} == {"G17", "R23"}


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("bird", "b1/45/x.wav"),
        ("age", "b1/45/x.wav"),
        ("bird/age", f"G402/{SAP}"),
        ("age", "x.wav"),
    ],
)
def test_stated_layout_that_does_not_fit_is_refused(
    tmp_path: Path, layout: Layout, name: str
) -> None:
    put(tmp_path, name)
    with pytest.raises(NoRecordingsError, match=f"data.layout={layout}"):
        survey(tmp_path, layout=layout)
    if name != "x.wav":
        with pytest.raises(NoRecordingsError, match=r"data\.layout=auto"):
            survey(tmp_path, layout=layout)


def test_unknown_layouts_and_orders_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "b1/45/x.wav")
    with pytest.raises(ValueError, match="no layout is called 'flat'"):
        survey(tmp_path, layout="flat")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no date order is called 'ydm'"):
        survey(tmp_path, date_order="ydm")  # type: ignore[arg-type]


# Order


def test_recordings_are_ordered_by_bird_age_time_and_name(tmp_path: Path) -> None:
    late, early = sap("b1", "2018-09-19", "10:00:00"), sap("b1", "2018-09-19", "9:59:59")
    in_order = [
        "b1/5/song1.wav", "b1/P20/song9.wav", "b1/P20/song10.wav", "b1/100/x.wav",
        f"b1/2018-09-19/{early}", f"b1/2018-09-19/{late}", "b1/2018-09-19/a.wav",
        "b1/week2/x.wav", "b1/week10/x.wav", "b10/5/x.wav", "b2/5/x.wav",
    ]  # fmt: skip
    put(tmp_path, *random.Random(0).sample(in_order, len(in_order)))
    assert [r.path for r in scan(tmp_path)] == in_order


def test_listing_does_not_depend_on_the_order_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bird in "ab":
        for age in ("100", "5", "2018-09-19", "adult"):
            put(tmp_path, *(f"{bird}/{age}/songs/{name}.wav" for name in "edcba"))
    (tmp_path / "c").symlink_to("b/100")
    plain = survey(tmp_path)
    real, rng = os.scandir, random.Random(0)

    class Shuffled:
        def __init__(self, path: str) -> None:
            with real(path) as entries:
                self.entries = list(entries)
            rng.shuffle(self.entries)

        def __enter__(self) -> Iterator[os.DirEntry[str]]:
            return iter(self.entries)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Shuffled)
    for _ in range(3):
        again = survey(tmp_path)
        assert [r.path for r in again.recordings] == [r.path for r in plain.recordings]
        assert again.fingerprint == plain.fingerprint


# What is named


def test_words_are_named_once_for_a_bird_or_a_word(tmp_path: Path) -> None:
    for i in range(12):
        put(tmp_path, f"b{i:02d}/adult/x.wav", f"b{i:02d}/45/x.wav")
    put(tmp_path, *(f"b00/{word}/{i}.wav" for word in ("201905 8", "P4S", "45 dhp") for i in "12"))
    notes = survey(tmp_path).notes
    assert len(notes) == 2
    assert notes[0].startswith("adult (b00, b01, b02, b03 and 8 more) is neither an age nor a date")
    assert notes[1].startswith("b00: '45 dhp', '201905 8' and P4S are neither ages nor dates")
    assert "--data" not in notes[1]


def test_several_spellings_of_an_age_are_taken_together_and_named(tmp_path: Path) -> None:
    put(tmp_path, "b1/45/x.wav", "b1/P45/y.wav", "b1/045/z.wav", "b1/46/x.wav")
    found = survey(tmp_path)
    assert found.recordings.birds_and_ages() == [("b1", "45"), ("b1", "46")]
    assert found.notes == [
        "b1: 045, 45 and P45 are one age, 45: their recordings are taken together."
    ]


@pytest.mark.parametrize(
    ("one", "other"), [("G402", "g402"), ("G402", "G402 "), ("vögel", "vo\u0308gel"), ("b 1", "b1")]
)
def test_birds_that_differ_in_writing_alone_are_kept_apart_and_named(
    tmp_path: Path, one: str, other: str
) -> None:
    put(tmp_path, f"{one}/45/x.wav", f"{other}/45/x.wav")
    found = survey(tmp_path)
    assert {r.bird for r in found.recordings} == {one, other}
    assert said(found, ascii(one), ascii(other), "different birds")
    put(tmp_path, "c/Adult/x.wav", "c/adult/x.wav")
    assert said(survey(tmp_path), "'Adult' and 'adult'", "different ages of c")


def test_age_that_looks_like_a_year_is_named(tmp_path: Path) -> None:
    put(tmp_path, "lab/2019/x.wav", "lab/45/x.wav")
    assert said(survey(tmp_path), "2019 is read as days post hatch")


def test_birds_csv_and_folders_that_do_not_meet_are_named(tmp_path: Path) -> None:
    put(tmp_path, "G402/45/x.wav", "b1/45/x.wav", "b2/45/x.wav")
    (tmp_path / "birds.csv").write_text("bird,exclude,nest\ng402,,1\nb1,yes,2\nb9,,3\n")
    found = survey(tmp_path)
    assert [(r.bird, r.status, r.reason) for r in found.recordings] == [
        ("G402", "ok", ""), ("b1", "skipped", "excluded in birds.csv"), ("b2", "ok", ""),
    ]  # fmt: skip
    assert said(found, "nest is not read")
    assert said(found, "'g402' has no recordings, 'G402' has")
    assert said(found, "b9 has no recordings here")
    assert said(found, "G402 and b2 are not in birds.csv")
    assert said(found, "b1 is excluded in birds.csv")


def test_recording_before_hatching_is_flagged_with_both_dates(tmp_path: Path) -> None:
    put(tmp_path, f"G402/{SAP}", "b1/2018-09-19/x.wav", "b1/2018-12-01/x.wav")
    (tmp_path / "birds.csv").write_text("bird,hatch_date\nG402,2018-10-01\nb1,2018-10-01\n")
    found = survey(tmp_path)
    assert understood(found.recordings) == [
        ("G402", "2018-09-19", None, "2018-09-19"), ("b1", "61", 61, "2018-12-01"),
        ("b1", "2018-09-19", None, "2018-09-19"),
    ]  # fmt: skip
    flagged = [r for r in found.recordings if r.status == "flagged"]
    assert [r.bird for r in flagged] == ["G402", "b1"]
    assert all("2018-09-19, before the bird's hatch_date 2018-10-01" in r.reason for r in flagged)
    assert said(found, "b1: 1 file is flagged", "2018-10-01")


@pytest.mark.parametrize(
    ("folder", "day", "clock", "is_flagged"),
    [
        ("2018-09-19", "2018-09-19", "12:00:00", False),
        ("2018-09-19", "2018-09-20", "12:00:00", True),
        ("2018-09-19", "2018-09-20", "0:59:59", False),
        ("2018-09-19", "2018-09-20", "1:00:00", True),
        ("2018-09-19", "2018-09-18", "23:00:00", False),
        ("2018-09-19", "2018-09-18", "22:59:59", True),
        ("2018-09-19", "2018-09-21", "0:10:00", True),
        ("45", "2018-09-19", "12:00:00", False),
        ("P45", "2018-09-20", "12:00:00", True),
        ("P45", "2018-09-20", "0:10:00", False),
        ("adult", "2018-09-20", "12:00:00", False),
    ],
)
def test_name_that_contradicts_its_folder_is_flagged_with_both_days(
    tmp_path: Path, folder: str, day: str, clock: str, is_flagged: bool
) -> None:
    name = f"b1/{folder}/{sap('b1', day, clock)}"
    put(tmp_path, name, f"b1/{folder}/plain.wav")
    (tmp_path / "birds.csv").write_text("bird,hatch_date\nb1,2018-08-05\n")
    rows = by_path(tmp_path)
    assert rows[f"b1/{folder}/plain.wav"].status == "ok"
    assert rows[name].status == ("flagged" if is_flagged else "ok")
    if is_flagged:
        assert "2018-09-19" in rows[name].reason
        assert day in rows[name].reason
        assert "changing the clock" in rows[name].reason
        assert rows[name].dph == 45  # the folder is believed


def test_bird_whose_folders_count_from_1_is_named_and_not_flagged(tmp_path: Path) -> None:
    days = {46: "2018-09-19", 47: "2018-09-20", 50: "2018-09-23"}
    put(tmp_path, *(f"b1/{dph}/{sap('b1', day)}" for dph, day in days.items()))
    (tmp_path / "birds.csv").write_text("bird,hatch_date\nb1,2018-08-05\n")
    found = survey(tmp_path)
    assert {r.status for r in found.recordings} == {"ok"}
    assert said(found, "b1: every folder says one day more", "counted from 1")
    put(tmp_path, f"b1/51/{sap('b1', '2018-09-30')}")
    assert sum(r.status == "flagged" for r in survey(tmp_path).recordings) == 4


def test_file_named_after_another_bird_is_flagged(tmp_path: Path) -> None:
    put(tmp_path, f"G402/2018-09-19/{SAP}", f"R1/2018-09-19/{SAP}", f"R1/{sap('R1', '2018-09-19')}")
    rows = by_path(tmp_path)
    assert rows[f"G402/2018-09-19/{SAP}"].status == "ok"
    assert rows[f"R1/2018-09-19/{SAP}"].status == "flagged"
    assert "the name says bird G402, but the file lies in the folder of R1" in (
        rows[f"R1/2018-09-19/{SAP}"].reason
    )


def test_two_flags_of_a_file_are_both_told(tmp_path: Path) -> None:
    put(tmp_path, f"G402/2018-09-19/{SAP}", f"R1/2018-09-29/{SAP}")
    (flagged,) = (r for r in scan(tmp_path) if r.status == "flagged")
    assert "changing the clock" in flagged.reason
    assert " | the name says bird G402" in flagged.reason


def test_many_notes_are_shortened(tmp_path: Path) -> None:
    put(tmp_path, *(f"b{i}/45/x.wav" for i in range(30)), *(f"b{i}/P45/x.wav" for i in range(30)))
    notes = survey(tmp_path).notes
    assert len(notes) == 21
    assert notes[-1] == "And 10 more."


# Files that are none, or not read


@pytest.mark.parametrize(
    "suffix", [".mp3", ".OGG", ".m4a", ".wma", ".opus", ".aac", ".caf", ".wac"]
)
def test_sound_file_of_a_kind_that_is_not_read_is_listed_with_the_remedy(
    tmp_path: Path, suffix: str
) -> None:
    put(tmp_path, "b1/45/good.wav", f"b1/45/bad{suffix}")
    bad = by_path(tmp_path)[f"b1/45/bad{suffix}"]
    assert (bad.bird, bad.age, bad.status) == ("b1", "45", "skipped")
    assert f"{suffix.lower()} files are not read" in bad.reason
    assert "to WAV" in bad.reason


@pytest.mark.parametrize(
    "suffix", [".wav", ".WAVE", ".w64", ".rf64", ".bwf", ".aif", ".AIFF", ".aifc", ".flac", ".cbin"]
)
def test_sound_files_of_every_kind_are_found(tmp_path: Path, suffix: str) -> None:
    put(tmp_path, f"b1/45/x{suffix}", "b1/45/x.rec", "b1/45/x.wav.not.mat", "b1/45/x.txt")
    assert [(r.path, r.status) for r in scan(tmp_path)] == [(f"b1/45/x{suffix}", "ok")]


def test_hidden_files_and_folders_and_other_files_are_left_out(tmp_path: Path) -> None:
    put(
        tmp_path,
        *(f"b1/43/songs/{name}" for name in ("._x.wav", ".x.wav", "x.txt", "wav", "x.wav")),
    )
    put(tmp_path, ".cache/43/x.wav", "b1/.trash/songs/x.wav")
    assert [r.path for r in scan(tmp_path)] == ["b1/43/songs/x.wav"]


def test_folder_of_a_study_is_left_out_and_named(tmp_path: Path) -> None:
    put(tmp_path, "b1/45/x.wav", "runs/demo/songs/y.wav", "runs/demo/study.json")
    put(tmp_path, "b1/46/songs/z.wav", "b1/46/.stages/one.json")
    found = survey(tmp_path)
    assert [r.path for r in found.recordings] == ["b1/45/x.wav"]
    assert said(found, "runs/demo is the folder of a study and is left out")
    assert said(found, "b1/46 is the folder of a study")


@pytest.mark.parametrize(
    "raw", [b"b1/43/songs/n\xe4me.wav", b"b1/j\xfcng/x.wav", b"v\xf6gel/43/x.wav"]
)
def test_name_that_is_no_utf8_is_named(tmp_path: Path, raw: bytes) -> None:
    put(tmp_path, os.fsdecode(raw), "b1/43/songs/näme.wav")
    rows = by_path(tmp_path)
    assert rows.pop("b1/43/songs/näme.wav").status == "ok"
    (bad,) = rows.values()
    assert (bad.status, bad.reason[:26]) == ("skipped", "the name is not valid UTF-")
    assert bad.path == raw.decode("utf-8", "backslashreplace")
    assert survey(tmp_path).fingerprint


def test_links_to_nothing_and_to_themselves_are_named(tmp_path: Path) -> None:
    songs = put(tmp_path, "b1/43/songs/good.wav") / "b1/43/songs"
    (songs / "dangling.wav").symlink_to("nothing.wav")
    (songs / "self.wav").symlink_to("self.wav")
    (songs / "up").symlink_to("..")
    (songs / "loop").symlink_to("loop")
    (songs / "linked.wav").symlink_to("good.wav")
    rows = {Path(r.path).stem: r for r in scan(tmp_path)}
    assert {name: r.status for name, r in rows.items()} == {
        "dangling": "skipped", "good": "ok", "linked": "ok", "self": "skipped",
    }  # fmt: skip
    assert "No such file" in rows["dangling"].reason
    assert "symbolic links" in rows["self"].reason


def test_linked_folder_is_listed_once_and_by_its_own_name(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    put(root, "b1/43/songs/x.wav")
    put(elsewhere, "90/songs/y.wav")
    (root / "all").symlink_to("b1/43")
    (root / "b1" / "1st").symlink_to("43")
    (root / "b2").symlink_to(elsewhere)
    (root / "b3").symlink_to(elsewhere)
    (elsewhere / "90" / "back").symlink_to(root)
    facts = [(r.bird, r.age, r.path, r.status) for r in scan(root)]
    assert facts == [
        ("b1", "43", "b1/43/songs/x.wav", "ok"),
        ("b2", "90", "b2/90/songs/y.wav", "ok"),
    ]


def test_folder_named_wav_is_named_and_looked_into(tmp_path: Path) -> None:
    put(tmp_path, "b1/43/songs/good.wav", "b1/43/songs/x.wav/inside.wav")
    rows = by_path(tmp_path)
    assert {path: r.status for path, r in rows.items()} == {
        "b1/43/songs/good.wav": "ok",
        "b1/43/songs/x.wav": "skipped",
        "b1/43/songs/x.wav/inside.wav": "skipped",
    }
    assert rows["b1/43/songs/x.wav"].reason == "a folder, not a sound file"


@pytest.fixture
def alarm() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise TimeoutError("waited for 5 s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(5)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm")
def test_named_pipe_is_named_and_not_waited_for(tmp_path: Path) -> None:
    put(tmp_path, "b1/43/songs/good.wav")
    os.mkfifo(tmp_path / "b1/43/songs/pipe.wav")
    assert by_path(tmp_path)["b1/43/songs/pipe.wav"].reason == "cannot be read: not a regular file"


def test_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "b1/43/songs/good.wav", "b2/43/songs/lost.wav")
    real = os.scandir

    def guarded(path: str) -> object:
        if Path(path).name == "b2":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", guarded)
    good, bad = scan(tmp_path)
    assert (good.path, good.status) == ("b1/43/songs/good.wav", "ok")
    assert (bad.path, bad.bird, bad.status) == ("b2", "b2", "skipped")
    assert bad.reason == "the folder cannot be listed: Permission denied"
    assert said(survey(tmp_path), "b2 cannot be listed: Permission denied")


def unlisted(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let nobody list folders called so."""
    real = os.scandir

    def guarded(path: str) -> object:
        if Path(path).name in names:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", guarded)


def test_folders_of_the_system_are_left_out_and_need_not_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = ("lost+found", "System Volume Information", "$RECYCLE.BIN", ".Trashes", ".Trash-1000")
    put(tmp_path, "b1/43/songs/good.wav", *(f"{name}/45/x.wav" for name in system))
    before = survey(tmp_path)
    unlisted(monkeypatch, *system)
    now = survey(tmp_path)
    assert [r.path for r in now.recordings] == ["b1/43/songs/good.wav"]
    assert (now.notes, now.unlisted) == ([], [])
    assert now.fingerprint == before.fingerprint


@pytest.mark.parametrize(
    ("layout", "folder", "is_meant"),
    [
        ("auto", "b2", True),
        ("auto", "b1/44", True),
        ("auto", "b1/44/songs", True),
        ("auto", "b1/44/notes", False),
        ("bird/age", "b1/44/songs", True),
        ("bird", "b2/songs", True),
        ("bird", "b2/notes", False),
    ],
)
def test_folder_that_cannot_be_listed_matters_where_recordings_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Layout, folder: str, is_meant: bool
) -> None:
    put(tmp_path, "b1/b1_2018-09-19.wav" if layout == "bird" else "b1/43/x.wav", f"{folder}/y.wav")
    unlisted(monkeypatch, Path(folder).name)
    found = survey(tmp_path, layout=layout)
    assert found.unlisted == ([(folder, "Permission denied")] if is_meant else [])
    assert said(found, f"{folder} cannot be listed")


def test_folder_of_an_excluded_bird_need_not_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "b1/43/x.wav", "b2/43/y.wav")
    (tmp_path / "birds.csv").write_text("bird,exclude\nb1,\nb2,yes\n")
    unlisted(monkeypatch, "b2")
    found = survey(tmp_path)
    assert found.unlisted == []
    assert not said(found, "cannot be listed")
    assert [r.reason for r in found.recordings] == ["", "excluded in birds.csv"]


def test_folder_of_an_age_that_cannot_be_listed_is_of_the_one_bird(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "44/x.wav", "45/y.wav")
    unlisted(monkeypatch, "45")
    found = survey(tmp_path, layout="age")
    assert found.unlisted == [("45", "Permission denied")]
    assert [(r.bird, r.age) for r in found.recordings] == [
        (tmp_path.name, "44"), (tmp_path.name, "45"),
    ]  # fmt: skip


def test_an_excluded_bird_needs_no_look(tmp_path: Path) -> None:
    put(tmp_path, "b1/43/x.wav", "b2/adult/y.wav", "b2/1999/y.wav", "b2/P45/y.wav", "B2/45/y.wav")
    put(tmp_path, "b2/45/y.wav", "b2/45/deep/notes/y.wav", "b2/2018-07-01/b_2018-07-02.wav")
    (tmp_path / "birds.csv").write_text("bird,exclude\nb1,\nb2,yes\nB2,\n")
    assert survey(tmp_path).notes == ["b2 is excluded in birds.csv."]


def test_nothing_to_read_says_where_it_looked(tmp_path: Path) -> None:
    put(tmp_path, "b1/43/songs/x.mp3", "b1/43/songs/y.txt")
    for look in (scan, survey):
        with pytest.raises(
            NoRecordingsError, match=r"holds no \.wav file.*1 sound file.*<bird>/<age>"
        ):
            look(tmp_path)
        with pytest.raises(NoRecordingsError, match="nowhere is not a folder"):
            look(tmp_path / "nowhere")


def test_data_of_which_nothing_can_be_used_is_refused_with_the_reasons(tmp_path: Path) -> None:
    put(tmp_path, "b1/43/songs/x.wav")
    (tmp_path / "birds.csv").write_text("bird,exclude\nb1,yes\n")
    with pytest.raises(NoRecordingsError, match=r"can be used: excluded in birds\.csv"):
        survey(tmp_path)
    assert [r.reason for r in scan(tmp_path)] == ["excluded in birds.csv"]


# The fingerprint


def test_fingerprint_changes_with_names_sizes_times_and_ages_alone(tmp_path: Path) -> None:
    put(tmp_path, "b1/2018-09-19/x.wav", "b1/2018-09-19/y.wav", "b1/2018-09-19/notes.txt")
    seen = [survey(tmp_path).fingerprint]
    put(tmp_path, "b1/2018-09-19/more.txt")
    assert survey(tmp_path).fingerprint == seen[0]
    x = tmp_path / "b1/2018-09-19/x.wav"
    before = x.stat().st_mtime_ns
    x.write_bytes(b"RIFFX")
    os.utime(x, ns=(before, before))
    seen.append(survey(tmp_path).fingerprint)
    os.utime(x, ns=(10**18, 10**18))
    seen.append(survey(tmp_path).fingerprint)
    x.rename(tmp_path / "b1/2018-09-19/z.wav")
    seen.append(survey(tmp_path).fingerprint)
    (tmp_path / "birds.csv").write_text("bird,hatch_date\nb1,2018-08-05\n")
    seen.append(survey(tmp_path).fingerprint)
    assert len(set(seen)) == 5


def test_size_of_all_files_is_told(tmp_path: Path) -> None:
    put(tmp_path, *(f"b1/45/{i}.wav" for i in range(7)), "b1/45/x.mp3", "b1/45/x.txt")
    assert survey(tmp_path).n_bytes == 8 * 4


def test_many_recordings_take_little_memory(tmp_path: Path) -> None:
    put(
        tmp_path,
        *(f"G402/{sap('G402', '2018-09-19', f'7:{i // 60}:{i % 60}')}" for i in range(2000)),
    )
    recordings = survey(tmp_path).recordings
    assert recordings.table.get_total_buffer_size() < 300 * len(recordings)


def test_folder_of_more_names_than_are_packed_at_once_is_whole_and_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"b1/45/song{i}.wav" for i in range(25)]
    put(tmp_path, *random.Random(0).sample(names, 25))
    os.mkfifo(tmp_path / "b1/45/song25.wav")
    monkeypatch.setattr(folders, "PATHS_AT_ONCE", 4)
    rows = scan(tmp_path)
    assert [r.path for r in rows] == [*names, "b1/45/song25.wav"]
    assert [r.n_bytes for r in rows] == [4] * 25 + [0]
    assert [r.status for r in rows] == ["ok"] * 25 + ["skipped"]


def test_flat_bird_with_a_folder_of_another_kind_is_not_taken_for_a_level_too_high(
    tmp_path: Path,
) -> None:
    put(tmp_path, f"G402/{SAP}", "G402/syllables/a.wav")
    notes = survey(tmp_path).notes
    assert len(notes) == 1
    assert notes[0].startswith("G402: syllables is neither an age nor a date")
    assert "--data" not in notes[0]


def test_listing_loads_nothing_that_is_slow_to_import() -> None:
    code = "import sys, data_io.names.listing; print([m for m in sys.modules if '.' not in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {"scipy", "soundfile", "librosa", "numba", "soxr", "pandas", "torch", "ray", "mlflow"}
    assert not {name for name in loaded if f"'{name}'" in done.stdout}


@pytest.mark.parametrize("between", ["wav", "audio", "raw"])
def test_a_folder_of_another_name_below_the_age_is_named_and_no_wrong_folder_is_proposed(
    tmp_path, between
):
    put(tmp_path, f"G1/45/{between}/a.wav", f"R2/P60/{between}/b.wav")
    with pytest.raises(NoRecordingsError, match=f"rename {between} to songs") as caught:
        survey(tmp_path)
    assert "perhaps" not in str(caught.value)
    put(tmp_path, "G1/50/c.wav")
    found = survey(tmp_path)
    assert said(found, "2 files are outside") and not said(found, "birds are perhaps in")
    assert f"rename {between} to songs" in next(r for r in found.recordings if r.reason).reason


def test_songs_below_another_folder_are_not_to_be_renamed(tmp_path):
    put(tmp_path, "G1/45/audio/songs/a.wav", "G1/50/b.wav")
    (reason,) = (r.reason for r in scan(tmp_path) if r.reason)
    assert reason.endswith("no folder but songs is read; move its files up")


@pytest.mark.parametrize(
    ("first", "second"), [("P45", "P60"), ("45", "day 9"), ("2018-09-19", "5")]
)
def test_birds_and_ages_in_each_others_place_are_named(tmp_path, first, second):
    put(tmp_path, f"{first}/G1/songs/a.wav", f"{second}/G1/b.wav", f"{second}/R2/c.wav")
    assert said(survey(tmp_path), "seem to be <age>/<bird>", first, second, "G1 and R2")
    put(tmp_path, "G1/45/c.wav")
    assert not said(survey(tmp_path), "seem to be <age>/<bird>")
