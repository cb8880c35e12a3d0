"""The report's section on ages: no number of states without its N, and no growth that is none."""

import math

import jinja2
import matplotlib.pyplot as plt
import pytest

from data_io.store import write_rows
from models.hmm.ages import Interval, change
from study.base.paths import ROOT, RunPaths
from study.hmms.ages import AGES
from study.hmms.shared import SHARED, SharedRow
from study.report import ages_section as section
from study.report.ages_section import ages_figure, changes, interval_of


def row(age, n_states=8, order=(1.0, 0.9, 1.1), in_use=(5.0, 4.8, 5.2), states="shared", **others):
    found = {"bird": "b", "age": age, "dph": int(age), "n_snippets": 1000 * n_states,
             "n_states": n_states, "n_states_low": n_states - 1, "n_states_high": n_states + 2,
             "matched_n_snippets": 4000, "matched_n_states": 6, "states": states}  # fmt: skip
    for name, values in (
        ("predictive_information_bits", order), ("states_in_use", in_use),
        ("sounding_states_in_use", in_use),
    ):  # fmt: skip
        found |= {name + end: one for end, one in zip(("", "_low", "_high"), values, strict=True)}
    return {**found, **others}


def test_more_states_by_bic_are_never_called_growth():
    text = changes("b", [row("45", n_states=8), row("90", n_states=30)])
    assert text == ("b, from 45 to 90: what order tells (bits per snippet) shows no change; "
                    "sounding states in use shows no change.")  # fmt: skip


def test_a_change_is_named_where_the_intervals_lie_apart():
    later = row("90", order=(2.0, 1.8, 2.2), in_use=(3.0, 2.5, 3.5))
    text = changes("b", [row("45"), row("60"), later])
    assert "what order tells (bits per snippet) rises; sounding states in use falls" in text


def test_ages_with_states_of_their_own_are_not_compared():
    later = row("90", order=(2.0, 1.8, 2.2), in_use=(9.0, 8.0, 9.5), states="own")
    assert changes("b", [row("45", states="own"), later]) == ""


def test_one_age_and_unknown_intervals_have_no_sentence():
    assert changes("b", [row("45")]) == ""
    unknown = row("90", order=(None,) * 3, in_use=(None,) * 3)
    assert changes("b", [row("45"), unknown]) == ""
    assert math.isnan(interval_of(unknown, "states_in_use").low)


@pytest.mark.parametrize(
    ("last", "word"),
    [((3, 2.5, 3.5), "rises"), ((2, 1.5, 2.5), "shows no change"), ((0, -1, 0.4), "falls")],
)
def test_a_change_is_one_of_intervals_that_do_not_overlap(last, word):
    assert change(Interval(1, 0.5, 1.5), Interval(*last)) == word


def test_the_figure_has_n_below_every_age_and_ages_at_their_dph():
    figure = ages_figure([row("45", 8), row("60", 9), row("120", 12)], "b")
    for ax in figure.axes:
        assert list(ax.get_xticks()) == [45, 60, 120]
        labels = [text.get_text() for text in ax.get_xticklabels()]
        assert labels == ["45\n8,000", "60\n9,000", "120\n12,000"]
    states = figure.axes[0]
    assert [list(line.get_ydata()) for line in states.get_lines()] == [[8, 9, 12], [6, 6, 6]]
    (bars,) = states.collections
    assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [
        [7, 10],
        [8, 11],
        [11, 14],
    ]
    assert "4,000 snippets each" in states.get_legend().get_texts()[1].get_text()


def test_ages_without_dph_lie_in_equal_steps_and_sixty_have_room():
    rows = [row(str(40 + i), dph=None) for i in range(60)]
    figure = ages_figure(rows, "b")
    assert len(figure.axes[0].get_xticks()) <= 8
    assert figure.axes[0].get_lines()[0].get_xdata()[-1] == 59


def test_of_many_birds_few_are_shown_and_it_says_how_many_are_left(monkeypatch, tmp_path):
    paths, drawn = RunPaths(tmp_path), []

    def figure(rows, bird):
        drawn.append(bird)
        return ages_figure(rows, bird)

    monkeypatch.setattr(section, "ages_figure", figure)
    monkeypatch.setattr(section, "MAX_FIGURES", 2)
    monkeypatch.setattr(section, "MAX_ROWS", 3)
    empty = dict.fromkeys(AGES.names) | {"n_sounding": 5, "n_silent": 3, "matched_n_songs": 9}
    rows = [empty | row(age, bird=f"b{i}") for i in range(5) for age in ("45", "90")]
    write_rows(paths.hmm_ages, rows, AGES)
    shared = [vars(SharedRow(bird=f"b{i}", n_ages=2, status="failed", reason="")) for i in range(7)]
    write_rows(paths.hmm_shared, shared, SHARED)
    plt.close("all")
    content = section.ages_section(paths, is_shared=True)
    assert drawn == ["b0", "b1"]
    assert not plt.get_fignums()
    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROOT / "study" / "report"), autoescape=True
    ).get_template("ages.html.j2").render(ages=content)  # fmt: skip
    assert page.count("what order tells (bits per snippet) shows no change") == 3
    assert "2 more birds can be compared in <code>hmm_ages.parquet</code>" in page
    assert page.count("<td>b0</td>") == 3  # two ages, and once among shared states
    assert "4 more birds are in <code>hmm_shared.parquet</code>" in page
    assert "b3</td>" not in page
