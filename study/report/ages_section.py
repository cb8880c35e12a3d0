"""The report's section on ages: what can be compared, each figure beside the song it rests on."""

import math
from collections.abc import Sequence
from typing import Any

import jinja2
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data_io.names.ages import age_order
from data_io.store import read_table
from models.hmm.ages import Interval, change
from study.base.paths import RunPaths
from study.report.figures import MAX_LABELS, as_svg

Row = dict[str, Any]
MAX_ROWS = 60
MAX_FIGURES = 12
# Columns that are compared between ages, in words.
COMPARED = {
    "predictive_information_bits": "what order tells (bits per snippet)",
    "sounding_states_in_use": "sounding states in use",
}


def ages_section(paths: RunPaths, is_shared: bool) -> Row:
    """Content of ages.html.j2.

    Args:
        paths: of the run folder.
        is_shared: whether states were shared over ages.
    """
    of_bird: dict[str, list[Row]] = {}
    for row in read_table(paths.hmm_ages).to_pylist():
        of_bird.setdefault(row["bird"], []).append(row)
    for rows in of_bird.values():
        rows.sort(key=lambda row: age_order(row["age"]))
    known = {bird: [row for row in rows if row["n_states"] is not None]
             for bird, rows in of_bird.items()}  # fmt: skip
    # Sliced before they are drawn: a figure stays in memory until it is an SVG.
    drawn = [bird for bird, rows in known.items() if rows][:MAX_FIGURES]
    figures = [as_svg(ages_figure(known[bird], bird)) for bird in drawn]
    sentences = [text for bird, rows in known.items() if (text := changes(bird, rows))]
    cells = [_cells(row) for rows in known.values() for row in rows]
    shared = read_table(paths.hmm_shared).to_pylist() if is_shared else []
    return {
        "figures": [jinja2.filters.do_mark_safe(one) for one in figures],
        "rows": cells[:MAX_ROWS],
        "n_left": max(len(cells) - MAX_ROWS, 0),
        "changes": sentences[:MAX_ROWS],
        "n_changes_left": max(len(sentences) - MAX_ROWS, 0),
        "shared": [_shared_cells(row) for row in shared[:MAX_ROWS]],
        "n_shared_left": max(len(shared) - MAX_ROWS, 0),
    }


def changes(bird: str, rows: Sequence[Row]) -> str:
    """What changes from the first to the last age of a bird, in a sentence; "" with one age.

    Ages are compared only where both have the same states: what order tells and how many states
    are in use rise with the number of states, whatever the bird does.
    """
    if len(rows) < 2 or {rows[0]["states"], rows[-1]["states"]} != {"shared"}:
        return ""
    first, last = rows[0], rows[-1]
    parts = []
    for column, words in COMPARED.items():
        found = change(interval_of(first, column), interval_of(last, column))
        if found:
            parts.append(f"{words} {found}")
    if not parts:
        return ""
    return f"{bird}, from {first['age']} to {last['age']}: {'; '.join(parts)}."


def interval_of(row: Row, column: str) -> Interval:
    """A figure of hmm_ages.parquet and its interval; NaN where it is not known."""
    values = (row[column + end] for end in ("", "_low", "_high"))
    return Interval(*(math.nan if value is None else value for value in values))


def ages_figure(rows: Sequence[Row], bird: str) -> Figure:
    """States over age beside N, what order tells, and states in use.

    Ages lie at their dph; where one has none, in equal steps. The number of states is never drawn
    without N: filled dots are from all snippets, whose number stands below; rings are from as many
    snippets at every age.

    Args:
        rows: of hmm_ages.parquet of this bird, by age, with a model.
        bird: its name.
    """
    dph = [row["dph"] for row in rows]
    x = np.arange(len(rows), dtype=float) if None in dph else np.array(dph, dtype=float)
    figure: Figure = plt.figure(figsize=(10.5, 3.2))
    states, order, in_use = figure.subplots(1, 3)
    for ax in (states, in_use):
        ax.margins(y=0.2)  # from 0 on, the highest ring must not be cut
    k = np.array([row["n_states"] for row in rows], dtype=float)
    low, high = (
        [row[end] if row[end] is not None else row["n_states"] for row in rows]
        for end in ("n_states_low", "n_states_high")
    )
    states.vlines(x, low, high, color="C0", lw=1.5)
    states.plot(x, k, "o", ms=5, color="C0", label="all snippets, 95 % set")
    matched = [row["matched_n_states"] or math.nan for row in rows]
    n_matched = rows[0]["matched_n_snippets"]
    states.plot(x, matched, "o", ms=9, mfc="none", color="C3", label=f"{n_matched:,} snippets each")
    states.set(ylabel="states by BIC", ylim=(0, None))
    states.legend(fontsize=7)
    _interval_plot(order, x, rows, "predictive_information_bits", "C0", "held out")
    order.set(ylabel="what order tells, bits")
    _interval_plot(in_use, x, rows, "states_in_use", "0.6", "all")
    _interval_plot(in_use, x, rows, "sounding_states_in_use", "C0", "sounding")
    in_use.set(ylabel=f"states in use ({rows[0]['states']})", ylim=(0, None))
    in_use.legend(fontsize=7)
    shown = range(0, len(rows), -(-len(rows) // MAX_LABELS))
    for ax in (states, order, in_use):
        labels = [f"{rows[i]['age']}\n{rows[i]['n_snippets']:,}" for i in shown]
        ax.set_xticks(x[list(shown)], labels, fontsize=7)
        ax.set_xlabel("age; below, snippets of all recordings")
    figure.suptitle(bird, fontsize=10, parse_math=False)
    figure.tight_layout()
    return figure


def _interval_plot(
    ax: Axes, x: np.ndarray, rows: Sequence[Row], column: str, colour: str, label: str
) -> None:
    value, low, high = np.array([interval_of(row, column) for row in rows]).T
    ax.vlines(x, low, high, color=colour, lw=1.5)
    ax.plot(x, value, "o", ms=5, color=colour, label=label)


def _cells(row: Row) -> Row:
    spans = {name: _span(interval_of(row, name)) for name in (*COMPARED, "states_in_use")}
    low, high = row["n_states_low"], row["n_states_high"]
    of_set = "" if low is None else f" ({low} to {high})"
    counts = {name: f"{row[name]:,}" for name in ("n_snippets", "matched_n_snippets")}
    return {**row, **spans, **counts, "n_states": f"{row['n_states']}{of_set}"}


def _span(interval: Interval) -> str:
    if not math.isfinite(interval.value):
        return "-"
    value, low, high = (f"{one:.2f}" for one in interval)
    return f"{value} ({low} to {high})" if math.isfinite(interval.low) else value


def _shared_cells(row: Row) -> Row:
    if row["bic"] is None:
        return {**row, "difference": "-", "n": "-"}
    difference = row["bic"] - row["separate_bic"]
    return {**row, "difference": f"{difference:,.0f}", "n": f"{row['n_observations']:,.0f}"}
