"""Figures of the search, for the report."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
)

from study.config.space import SpaceEntry
from study.report.decoder_figures import HELD_OUT_CURVES
from study.report.search_analysis import completed
from study.search.selection import Selection

Row = dict[str, Any]
BEST = "C3"
PANELS_IN_ROW = 4
# Room above the completed trials for stopped ones, as a multiple of the completed trials' range.
ROOM_ABOVE = 1.0
LOOKS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "completed": (("completed",), {"marker": "o", "ms": 4.5, "color": "C0", "alpha": 0.8}),
    "stopped early": (("stopped",), {"marker": "o", "ms": 4, "mfc": "none", "color": "0.6"}),
    "no decoder": (("collapsed", "failed"), {"marker": "x", "ms": 5, "color": "0.3"}),
}


def seeds_figure(selection: Selection) -> Figure:
    """Every candidate's metric with every seed, their means, and the highest mean allowed.

    A cross is the value in the search, which made it a candidate; it does not count.
    """
    candidates = selection.candidates
    fig = Figure(figsize=(max(4.6, 1.6 + 0.9 * len(candidates)), 3.4), layout="constrained")
    ax = fig.subplots()
    for i, one in enumerate(candidates):
        colour = BEST if one.trial_id == selection.chosen else "0.35"
        known = [value for value in one.values.values() if value is not None]
        shifts = np.linspace(-0.12, 0.12, len(known)) if len(known) > 1 else [0.0]
        ax.plot(i + np.array(shifts), known, "o", ms=5, mfc="none", color=colour)
        if one.in_search is not None:
            ax.plot(i, one.in_search, "x", ms=5, color=colour)
        if one.mean is not None:
            ax.plot([i - 0.26, i + 0.26], [one.mean] * 2, lw=2.4, color=colour)
        n_without = len(one.values) - len(known)
        if n_without:
            ax.annotate(
                f"{n_without} failed or\ncollapsed", (i, 0.98), fontsize=7, color=colour,
                xycoords=("data", "axes fraction"), ha="center", va="top",
            )  # fmt: skip
    if any(not one.is_sound for one in candidates):
        ax.margins(y=0.3)
    title = "Candidates: rings fresh seeds, bars means,\ncrosses the search, red chosen"
    if selection.rule == "one_standard_error" and selection.standard_error is not None:
        ax.axhline(selection.limit, ls="--", lw=1, color="0.5", zorder=0)
        title += "\ndashed: lowest mean + 1 standard error"
    names = [f"{one.trial_id}\nlatent {one.latent_dim}" for one in candidates]
    ax.set_xticks(range(len(names)), names, fontsize=8)
    ax.set(xlim=(-0.6, len(names) - 0.4), ylabel=metric_words(selection.metric))
    ax.set_title(title, fontsize=9)
    return fig


def front_figure(
    trials: Sequence[Row], metrics: Sequence[str], front: Sequence[str], best: str
) -> Figure:
    """Completed trials by two metrics at a time; a line joins the trials of the front.

    Args:
        trials: rows of trials.parquet.
        metrics: two or more, lower is better; the figure shows the first against each other one.
        front: ids of the trials that no other beats in all metrics.
        best: id of the best trial.
    """
    rows = completed(trials)
    n = len(metrics) - 1
    fig = Figure(figsize=(5.2 * min(n, 2), 3.6 * -(-n // 2)), layout="constrained")
    axes = fig.subplots(-(-n // 2), min(n, 2), squeeze=False).ravel()
    sizes = sorted({row["latent_dim"] for row in rows})
    shades = colormaps["viridis"](np.linspace(0, 0.9, max(len(sizes), 2)))
    for ax, other in zip(axes, metrics[1:], strict=False):
        for size, shade in zip(sizes, shades, strict=False):
            mine = [row for row in rows if row["latent_dim"] == size]
            xy = [[row[metrics[0]] for row in mine], [row[other] for row in mine]]
            ax.plot(*xy, "o", ms=5, color=shade, label=f"latent {size}")
        ends = sorted((r[metrics[0]], r[other]) for r in rows if r["trial_id"] in front)
        if n == 1:  # with more metrics, the front is not a line in a plane
            ax.plot(*zip(*ends, strict=True), "-", lw=1, color="0.6", zorder=0)
        else:
            ax.plot(*zip(*ends, strict=True), "o", ms=9, mfc="none", color="0.5", label="front")
        chosen = next(row for row in rows if row["trial_id"] == best)
        ax.plot(chosen[metrics[0]], chosen[other], "o", ms=11, mfc="none", mew=1.6, color=BEST,
                label="best trial")  # fmt: skip
        ax.set(xlabel=metric_words(metrics[0]), ylabel=metric_words(other))
        ax.xaxis.set_major_locator(MaxNLocator(5))  # labels of four decimals have to fit
    for ax in axes[n:]:
        ax.remove()
    axes[0].legend(fontsize=7)
    fig.suptitle("Trade-offs" + (", the front joined" if n == 1 else ""), fontsize=9)
    return fig


def slices_figure(
    trials: Sequence[Row], space: Mapping[str, SpaceEntry], objective: str, best: str
) -> Figure:
    """The objective over each searched parameter, one panel each.

    Hollow points are trials that were stopped early; crosses at the top are trials without decoder.
    """
    n = len(space)
    n_columns = min(n, PANELS_IN_ROW)
    n_rows = -(-n // n_columns)
    fig = Figure(figsize=(max(2.9 * n_columns, 4.6), 2.5 * n_rows + 0.3), layout="constrained")
    axes = fig.subplots(n_rows, n_columns, squeeze=False, sharey=True).ravel()
    top = _top(trials)
    for ax, (name, entry) in zip(axes, space.items(), strict=False):
        _slice(ax, trials, name, entry, top, best)
    for ax in axes[n:]:
        ax.remove()
    for ax in axes[:n:n_columns]:
        ax.set_ylabel(metric_words(objective))
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper left", ncols=5, fontsize=8, frameon=False)
    return fig


def _top(trials: Sequence[Row]) -> float:
    """The height at which all higher values are drawn, or one bad trial would flatten the rest."""
    values = [row["objective"] for row in completed(trials)]
    return float(max(values) + ROOM_ABOVE * max(max(values) - min(values), 0.05 * abs(max(values))))


def _height(row: Row, top: float) -> float:
    """The height at which a trial is drawn; above all others if it gave no decoder."""
    if row["status"] in ("completed", "stopped"):
        return min(float(row["objective"]), top)
    return top * 1.03


def _slice(
    ax: Axes, trials: Sequence[Row], name: str, entry: SpaceEntry, top: float, best: str
) -> None:
    place = {value: i for i, value in enumerate(entry.values)}

    def points(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
        x = [place[row[name]] if place else row[name] for row in rows]
        return x, [_height(row, top) for row in rows]

    for words, (statuses, look) in LOOKS.items():
        rows = [r for r in trials if r["status"] in statuses and r["trial_id"] != best]
        if rows:
            ax.plot(*points(rows), ls="", label=words, **look)
    chosen = [row for row in trials if row["trial_id"] == best]
    ax.plot(*points(chosen), "o", ms=7, color=BEST, label="best trial", zorder=3)
    ax.set_xlabel(name)
    if entry.choice is not None:
        names = [str(value) for value in entry.values]
        is_wide = max(map(len, names)) * len(names) > 24
        turned: dict[str, Any] = {"rotation": 30, "ha": "right"} if is_wide else {}
        ax.set_xticks(range(len(names)), names, **turned)
        ax.set_xlim(-0.5, len(names) - 0.5)
    elif entry.log_uniform is not None:
        _log_axis(ax, *entry.log_uniform)
    else:
        low, high = entry.bounds
        ax.set_xlim(low - 0.04 * (high - low), high + 0.04 * (high - low))
        ax.xaxis.set_major_locator(MaxNLocator(5))


def _log_axis(ax: Axes, low: float, high: float) -> None:
    ax.set_xscale("log")
    ax.set_xlim(low / (high / low) ** 0.04, high * (high / low) ** 0.04)
    # Two to five labels, whether the range is a factor of 2 or of a million.
    if high / low < 4:
        ax.xaxis.set_major_locator(MaxNLocator(4))
    else:
        subs = (1.0, 2.0, 5.0) if high / low <= 20 else (1.0, 3.0)
        ax.xaxis.set_major_locator(LogLocator(subs=subs if high / low <= 1000 else (1.0,)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def importances_figure(shares: Mapping[str, float]) -> Figure:
    """Bars with the share of each parameter, largest on top."""
    fig = Figure(figsize=(4.6, 0.8 + 0.28 * len(shares)), layout="constrained")
    ax = fig.subplots()
    names = list(shares)[::-1]
    bars = ax.barh(names, [shares[name] for name in names], color="C0", height=0.65)
    ax.bar_label(bars, [f"{shares[name]:.0%}" for name in names], padding=3, fontsize=8)
    ax.set_xlim(0, 1.12 * max(shares.values()))
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.tick_params(labelsize=8)
    ax.set_title("Share of the objective's variance", fontsize=9)
    return fig


def metric_words(metric: str) -> str:
    """The name of a metric on an axis."""
    return HELD_OUT_CURVES.get(metric, metric.removeprefix("valid/"))
