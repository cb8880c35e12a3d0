"""Figures of trials and of numbers of states, as SVG for the report."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

mpl.use("Agg")  # no screen on a cluster's nodes

Row = dict[str, Any]
MAX_LABELS = 8


def bic_figure(grid: Sequence[Row], selected: Sequence[Row], bird: str, ages: list[str]) -> Figure:
    """BIC per snippet over number of states, one curve per age, a ring at the selected number.

    It shows differences to the lowest BIC of each age; levels of BIC cannot be compared between
    ages. Covariances that were not chosen have a dashed curve.

    Args:
        grid: rows of hmm_grid.parquet of this bird.
        selected: rows of hmm_selected.parquet of this bird.
        bird: its name.
        ages: in order.
    """
    fig, ax = _axes(4.6)
    chosen = {row["age"]: (row["covariance_type"], row["n_states"]) for row in selected}
    curves: dict[tuple[str, str], dict[int, float]] = {}  # by age and covariances
    n_snippets: dict[str, int] = {}
    for row in grid:
        if row["bic"] is not None:
            curve = curves.setdefault((row["age"], row["covariance_type"]), {})
            curve[row["n_states"]] = min(row["bic"], curve.get(row["n_states"], np.inf))
            n_snippets[row["age"]] = row["n_snippets"]
    colours = dict(zip(ages, plt.get_cmap("viridis")(np.linspace(0, 0.9, max(len(ages), 2))),
                       strict=False))  # fmt: skip
    labelled = ages[:: -(-len(ages) // MAX_LABELS)]  # more would not fit beside the curves
    lowest = {age: min(min(curve.values()) for (of, _), curve in curves.items() if of == age)
              for age in n_snippets}  # fmt: skip
    for (age, kind), curve in sorted(curves.items(), key=lambda one: ages.index(one[0][0])):
        k = sorted(curve)
        y = (np.array([curve[i] for i in k]) - lowest[age]) / n_snippets[age]
        kind_chosen, n_states = chosen[age]
        if kind != kind_chosen:
            ax.plot(k, y, "--", lw=0.8, color=colours[age])
            continue
        ax.plot(k, y, "o-", ms=3, lw=1.2, color=colours[age],
                label=age if age in labelled else None)  # fmt: skip
        ax.plot(n_states, y[k.index(n_states)], "o", ms=10, mfc="none", color=colours[age])
    ax.set(title=bird, xlabel="states", ylabel="BIC above its lowest, per snippet")
    ax.legend(title="age", fontsize=7, title_fontsize=7)
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
