"""The page of a checked folder."""

import dataclasses

import numpy as np
import pytest
import soundfile as sf

from data_io.names.listing import survey
from data_io.recordings.reasons import reasons
from data_io.recordings.table import Recording, Recordings
from data_io.spectrogram import SpectrogramParams
from study.report.check_page import choose_doubtful, draw_thumbnail, write_check_page


def recording(path, status="ok", reason="", age="45"):
    return Recording("G17", age, None, None, path, status=status, reason=reason)


def named(kind, n, reason):
    return [
        recording(f"{kind}{i:03}.wav", "skipped", reason.replace("{}", str(i))) for i in range(n)
    ]


@pytest.mark.parametrize(
    "reason",
    [
        "same content as G17/45/a much longer name of another file, {}.wav",
        "cannot be read: bl{}lb16_190412_0725.20148.rec is missing",
        "cannot be read: my bird {} of May.rec does not say ADFREQ",
        "its sound lies in song_{}_of_long_names_of_files.wav from {} s on",
        "0.0{} s is shorter than one snippet (0.064 s)",
        "clipped: {} % of samples at full scale | sample rate {} Hz",
    ],
)
def test_a_rare_kind_is_shown_beside_three_hundred_of_another(reason):
    many = named("many", 300, reason)
    rare = named("rare", 1, "cannot be read: the file is empty (0 bytes)")
    shown = choose_doubtful(Recordings.from_rows([recording("fine.wav"), *many, *rare]), 5)
    assert shown.column("path").tolist() == [
        "many000.wav", "rare000.wav", "many001.wav", "many002.wav", "many003.wav"
    ]  # fmt: skip


def test_nothing_is_shown_where_nothing_is_doubtful():
    assert len(choose_doubtful(Recordings.from_rows([recording("fine.wav")]))) == 0


def test_every_remark_on_a_recording_counts_and_numbers_make_no_kinds():
    rows = [
        recording("a.wav", "flagged", "offset (DC) of +0.03 | clipped: 0.5 % of samples"),
        recording("b.wav", "flagged", "clipped: 12 % of samples"),
        recording("c.wav", "skipped", "same content as G17/a.wav"),
        recording("d.wav", "skipped", "same content as G17/b b.wav"),
    ]
    found = [(one.status, one.n, one.example) for one in reasons(Recordings.from_rows(rows))]
    assert found == [("skipped", 2, "c.wav"), ("flagged", 2, "a.wav"), ("flagged", 1, "a.wav")]


@pytest.fixture
def folder(tmp_path):
    rate = 32_000
    place = tmp_path / "G17" / "45"
    place.mkdir(parents=True)
    tone = 0.3 * np.sin(2 * np.pi * 3000 * np.arange(12 * rate) / rate)
    sf.write(place / "long.wav", tone, rate)
    sf.write(place / "short.wav", tone[:20], rate)
    tone[500] = np.nan
    sf.write(place / "hole.wav", tone[:rate], rate, subtype="FLOAT")
    (place / "empty.wav").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "seconds"), [("long", 10.0), ("hole", 1.0), ("short", 0.0), ("empty", 0.0)]
)
def test_a_picture_shows_the_first_ten_seconds_where_there_is_sound(folder, name, seconds):
    found = draw_thumbnail(folder, recording(f"G17/45/{name}.wav"), 1, SpectrogramParams())
    assert found.seconds == seconds
    assert found.png.startswith(b"\x89PNG") == bool(seconds)


def test_the_page_has_counts_names_as_text_and_the_upper_edge_of_its_pictures(folder):
    params = dataclasses.replace(SpectrogramParams(), sample_rate_hz=24_000)
    odd = "G17/45/<b>long</b>.wav"
    rows = [
        recording("G17/45/fine.wav"),
        recording(odd, "flagged", "clipped: 1 % of samples"),
        recording("G17/60/empty.wav", "skipped", "the file is empty", age="60"),
    ]
    pictures = [draw_thumbnail(folder, recording("G17/45/long.wav"), 1, params)]
    pictures = [dataclasses.replace(pictures[0], recording=rows[1])]
    page = folder / "check.html"
    write_check_page(page, survey(folder), Recordings.from_rows(rows), pictures, 12_000)
    text = page.read_text("utf-8")
    assert "3 files: 1 ok" in text
    assert '45<b>2</b><div class="doubt">1 flagged</div></div>' in text
    assert '60<b>1</b><div class="lost">1 skipped</div></div>' in text
    assert odd not in text
    assert "&lt;b&gt;long&lt;/b&gt;" in text
    assert "10 s of each, 0 to 12 kHz" in text
    assert text.count("data:image/png;base64,") == 1
