"""Figures of trials and of numbers of states, as SVG for the report."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from data_io.names.ages import age_order  # noqa: E402
from study.hmms.tables import CRITERIA

mpl.use("Agg")  # no screen on a cluster's nodes

Row = dict[str, Any]
MAX_LABELS = 8


def bic_figure(grid: Sequence[Row], selected: Sequence[Row], bird: str, ages: list[str]) -> Figure:
    """BIC per snippet over number of states, one curve per age, a ring at the selected number.

    It shows differences to the lowest BIC of each curve; levels of BIC cannot be compared between
    ages.

    Args:
        grid: rows of hmm_grid.parquet of this bird.
        selected: rows of hmm_selected.parquet of this bird.
        bird: its name.
        ages: in order.
    """
    fig, ax = _axes(4.6)
    chosen = {row["age"]: row["n_states"] for row in selected}
    fits: dict[str, list[Row]] = {age: [] for age in ages}
    for row in grid:
        if row["bic"] is not None:
            fits[row["age"]].append(row)
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, max(len(ages), 2)))
    labelled = ages[:: -(-len(ages) // MAX_LABELS)]  # more would not fit beside the curves
    for age, colour in zip(ages, colours, strict=False):
        best: dict[int, float] = {}
        n = 1
        for row in fits[age]:
            best[row["n_states"]] = min(row["bic"], best.get(row["n_states"], np.inf))
            n = row["n_observations"]
        if not best:
            continue
        k = sorted(best)
        y = (np.array([best[i] for i in k]) - min(best.values())) / n
        ax.plot(k, y, "o-", ms=3, lw=1.2, color=colour,
                label=age if age in labelled else None)  # fmt: skip
        if chosen.get(age) is not None:
            ax.plot(chosen[age], y[k.index(chosen[age])], "o", ms=10, mfc="none", color=colour)
    ax.set(title=bird, xlabel="states", ylabel="BIC above its lowest, per snippet")
    ax.legend(title="age", fontsize=7, title_fontsize=7)
    fig.tight_layout()
    return fig


def states_figure(selected: Sequence[Row]) -> Figure:
    """Selected number of states over age, one line per bird.

    A bar spans the numbers that other criteria would choose. A cross marks the limit of states.
    """
    ages = sorted({row["age"] for row in selected}, key=age_order)
    position = {age: i for i, age in enumerate(ages)}
    birds = list(dict.fromkeys(row["bird"] for row in selected))
    fig, ax = _axes(max(4.6, 1.5 + 0.55 * len(ages)))
    of_bird: dict[str, list[Row]] = {bird: [] for bird in birds}
    for row in selected:
        if row["n_states"] is not None:
            of_bird[row["bird"]].append(row)
    for i, (bird, rows) in enumerate(of_bird.items()):
        rows.sort(key=lambda r: position[r["age"]])
        x = [position[r["age"]] for r in rows]
        y = [r["n_states"] for r in rows]
        ax.plot(x, y, "o-", ms=4, color=f"C{i % 10}", label=bird)
        shift = 0.06 * (i - (len(birds) - 1) / 2)  # bars of several birds must not overlap
        for xi, row in zip(x, rows, strict=True):
            others = [row[column] for column in CRITERIA.values()]
            span = [k for k in [row["n_states"], *others] if k is not None]
            ax.plot([xi + shift] * 2, [min(span), max(span)], lw=1, alpha=0.6, color=f"C{i % 10}")
            if row["edge"]:
                ax.plot(xi, row["n_states"], "x", ms=11, color=f"C{i % 10}")
    ax.set_xticks(range(len(ages)), ages, rotation=45 if len(ages) > 5 else 0, ha="center")
    ax.set(xlabel="age (dph where a number)", ylabel="states with the lowest BIC", ylim=(0, None))
    ax.legend(fontsize=7)
    fig.tight_layout()
    return fig


def trials_figure(reports: Sequence[Row], objective: str, best: str) -> Figure:
    """Objective over snippets seen, one line per trial, a thick line for the best trial."""
    fig, ax = _axes(5.6)
    of_trial: dict[str, list[Row]] = {row["trial_id"]: [] for row in reports}
    for row in reports:
        if row.get(objective) is not None:
            of_trial[row["trial_id"]].append(row)
    for trial, rows in of_trial.items():
        is_best = trial == best
        ax.plot(
            [r["snippets_seen"] for r in rows], [r[objective] for r in rows], "o-", ms=3,
            lw=2.2 if is_best else 1, color="C3" if is_best else "0.6",
            label=f"{trial} (best)" if is_best else None, zorder=3 if is_best else 2,
        )  # fmt: skip
    values = [r[objective] for r in reports if r.get(objective) is not None and r[objective] < 100]
    if values:
        ax.set_ylim(0, 1.1 * max(values))  # collapsed trials lie far above
    ax.set(xlabel="snippets seen", ylabel=objective.removeprefix("valid/"))
    ax.legend(fontsize=8)
    fig.tight_layout()
    return fig


def _axes(width: float) -> tuple[Figure, Any]:
    fig, ax = plt.subplots(figsize=(width, 3.2))
    return fig, ax


def as_svg(figure: Figure) -> str:
    """Close the figure and return it as an <svg> element for a page."""
    buffer = io.StringIO()
    # Without a fixed salt and date, the same study would give another page each time.
    with mpl.rc_context({"svg.hashsalt": "birdsong"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
