"""The report's section on the checks of song models."""

import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa

from data_io.song_measures import SongMeasures
from data_io.store import write_rows
from study.base.paths import RunPaths
from study.checks import CHECKED, QUANTILES, quantile_rows
from study.report import checks_section as checks
from study.report.checks_section import (
    MAX_ROWS,
    checks_section,
    durations_figure,
    in_words,
    worst_first,
)


def row(check, verdict, distance=1.0, halves=1.0, bird="b1"):
    numbers = {name: 1.0 for name in CHECKED.names}
    return {
        **numbers, "bird": bird, "age": "45", "check": check, "unit": "ms", "n_songs": 5,
        "n_replicas": 10, "distance": distance, "halves": halves, "verdict": verdict, "reason": "",
    }  # fmt: skip


def test_the_worst_verdicts_come_first_and_of_these_the_largest_distance_by_halves():
    rows = [
        row("order", "like the bird", 5.0),
        row("gaps", "unlike the bird", 2.0, halves=1.0),
        row("dwell", "unlike the bird", 1.5, halves=0.25),
        row("pitch", "cannot tell", None, halves=None),
        row("sounds", "close", 1.0),
    ]
    found = [one["check"] for one in worst_first(rows)]
    assert found == ["dwell", "gaps", "sounds", "pitch", "order"]


def test_the_sentence_counts_verdicts_and_names_the_checks_that_fail():
    rows = [row("order", "unlike the bird")] * 2 + [row("gaps", "like the bird")]
    words = "3 checks: 2 unlike the bird, 1 like the bird. Unlike the bird by check: order 2."
    assert in_words(rows) == words
    assert "No bird and age" in in_words([])


def test_of_many_checks_the_section_shows_the_worst_and_says_how_many_are_left(tmp_path):
    paths = RunPaths(tmp_path)
    rows = [row("gaps", "like the bird", bird=f"b{i}") for i in range(MAX_ROWS + 3)]
    rows[-1]["verdict"] = "unlike the bird"
    write_rows(paths.hmm_checks, rows, CHECKED)
    write_rows(paths.hmm_check_quantiles, [], QUANTILES)
    section = checks_section(paths)
    assert len(section["rows"]) == MAX_ROWS
    assert section["n_left"] == 3
    assert section["rows"][0]["bird"] == f"b{MAX_ROWS + 2}"


def heard(sounds_ms):
    """A song of which only sounds were heard."""
    none = np.zeros(0)
    return SongMeasures(np.array(sounds_ms, float), none, none, none)


def test_the_figure_shows_medians_of_every_kind_of_song_and_nothing_where_there_is_none():
    songs = ([heard([80, 100, 120])], [heard([90, 110, 130])], [heard([60, 70]), heard([80])])
    rows = [{"bird": "b1", "age": "45", **one} for one in quantile_rows(songs, 4.0)]
    pa.Table.from_pylist(rows, schema=QUANTILES)
    sounds, gaps = durations_figure(rows, "b$1$").axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in sounds.get_lines()}
    assert drawn == {"real": [100.0], "reconstruction": [110.0], "sampled": [70.0]}
    assert all(len(line.get_ydata()) == 0 for line in gaps.get_lines())


def test_of_many_birds_no_more_figures_are_drawn_than_shown_and_all_are_closed(
    monkeypatch, tmp_path
):
    paths, drawn = RunPaths(tmp_path), []

    def figure(of_bird, bird):
        drawn.append(bird)
        return durations_figure(of_bird, bird)

    monkeypatch.setattr(checks, "durations_figure", figure)
    monkeypatch.setattr(checks, "MAX_FIGURES", 2)
    songs = ([heard([80, 100])], [heard([90, 110])], [heard([60, 70])])
    rows = [{"bird": f"b{i}", "age": "45", **one} for i in range(5)
            for one in quantile_rows(songs, 4.0)]  # fmt: skip
    write_rows(paths.hmm_checks, [], CHECKED)
    write_rows(paths.hmm_check_quantiles, rows, QUANTILES)
    plt.close("all")
    assert len(checks_section(paths)["figures"]) == 2
    assert drawn == ["b0", "b1"]
    assert not plt.get_fignums()
