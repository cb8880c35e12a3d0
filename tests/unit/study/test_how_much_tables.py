"""The curves as tables and as a figure."""

import csv
import math
from io import StringIO

import matplotlib.pyplot as plt
import numpy as np
import pytest

from study.base.console import Console
from study.how_much.advice import advise
from study.how_much.figure import PANELS, curves_figure
from study.how_much.tables import by_amount, curve_of, mean_rows, show_table, write_csv

BIRD_AGE = ("G402", "2018-09-19")
LENGTHS = [100, 50]


def row(subsample, halvings, bird_age=BIRD_AGE, **others):
    level = -10.0 - halvings + 0.1 * subsample
    minutes = 3.2 / 2**halvings
    return {
        "bird": bird_age[0], "age": bird_age[1], "dph": None, "subsample": subsample,
        "halvings": halvings, "n_recordings": 40 // 2**halvings, "sound_minutes": minutes,
        "recorded_minutes": 2 * minutes, "n_snippets": 6000 // 2**halvings,
        "n_states": 40 - subsample,
        "aic_n_states": 50, "icl_n_states": 38, "bic_effective_n_states": 22,
        "held_out_n_states": 60, "held_out_log_likelihood": level,
        "predictive_information": 2.0 - halvings, "divergence_to_truth": None,
        "divergence_of_labels": None, "reason": "", "held_out_snippets": LENGTHS,
        "held_out_nats": [level * n for n in LENGTHS], **others,
    }  # fmt: skip


@pytest.fixture
def rows():
    return [row(subsample, halvings) for halvings in range(4) for subsample in range(3)]


def test_amounts_go_from_the_smallest_to_all_and_an_amount_without_a_model_is_left_out(rows):
    assert [[one["halvings"] for one in of] for of in by_amount(rows)[BIRD_AGE]] == [
        [3] * 3, [2] * 3, [1] * 3, [0] * 3,
    ]  # fmt: skip
    rows[-1] |= {"n_states": None}
    found = by_amount(rows)[BIRD_AGE]
    assert [of[0]["halvings"] for of in found] == [2, 1, 0]
    assert [one["subsample"] for one in found[0]] == [0, 1, 2]


def test_means_have_the_standard_error_over_subsamples_and_the_gain_of_the_next_doubling(rows):
    amounts = by_amount(rows)[BIRD_AGE]
    advice = advise(curve_of(BIRD_AGE, amounts))
    table = mean_rows(amounts, advice)
    assert [one["share"] for one in table] == [0.125, 0.25, 0.5, 1]
    assert table[-1]["held_out_log_likelihood"] == pytest.approx(-9.9)
    assert table[-1]["held_out_log_likelihood_se"] == pytest.approx(0.1 / math.sqrt(3))
    assert table[-1]["n_states"] == 39
    assert [one["gain"] for one in table[:-1]] == pytest.approx([1, 1, 1])
    assert table[-1]["gain"] is None
    assert table[0]["divergence_to_truth"] is None
    assert advice.recorded_share == 2


def test_the_file_has_a_line_for_each_amount_and_the_terminal_a_table_of_100_columns(
    rows, tmp_path
):
    for one in rows:
        one |= {"divergence_to_truth": 0.123, "divergence_of_labels": 0.045}
    amounts = by_amount(rows)[BIRD_AGE]
    table = mean_rows(amounts, advise(curve_of(BIRD_AGE, amounts)))
    write_csv(tmp_path / "table.csv", table)
    with (tmp_path / "table.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [float(one["sound_minutes"]) for one in read] == pytest.approx([0.4, 0.8, 1.6, 3.2])
    assert read[-1]["gain"] == ""
    text = StringIO()
    show_table(table, Console(text))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    assert "…" not in text.getvalue()
    assert lines[2].split() == [
        "G402", "2018-09-19", "0.4", "0.8", "39", "22", "-12.90+-0.06", "1.00+-0.00",
        "-1.00+-0.00", "0.12+-0.00",
    ]  # fmt: skip


def test_every_panel_shows_its_column_over_minutes_of_sound(rows):
    other = [row(subsample, halvings, ("b", "60")) for halvings in range(3)
             for subsample in range(3)]  # fmt: skip
    groups = by_amount(rows + other)
    advices = [advise(curve_of(bird_age, amounts)) for bird_age, amounts in groups.items()]
    tables = [mean_rows(of, advice) for of, advice in zip(groups.values(), advices, strict=True)]
    figure = curves_figure(tables, advices)
    for ax, (name, _) in zip(figure.axes, PANELS, strict=True):
        if name == "divergence_to_truth":
            assert ax.get_title() == "no truth is known"
            assert [text.get_text() for text in ax.get_legend().get_texts()] == [
                "G402 2018-09-19", "b 60",
            ]  # fmt: skip
            continue
        for bars, table in zip(ax.containers, tables, strict=True):
            known = [one for one in table if one[name] is not None]
            x, y = bars.lines[0].get_data(orig=False)
            np.testing.assert_allclose(x, [one["sound_minutes"] for one in known])
            np.testing.assert_allclose(y, [one[name] for one in known])
    plt.close(figure)
