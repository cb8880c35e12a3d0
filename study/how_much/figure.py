"""The figure: every curve over minutes of sound."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from study.hmms.rows import Row
from study.how_much.advice import LEAST_GAIN, Advice

mpl.use("Agg")  # no screen on a cluster's nodes

PANELS = (
    ("held_out_log_likelihood", "held-out log-likelihood\nnats per snippet"),
    ("gain", "gain of a doubling\nnats per snippet"),
    ("predictive_information", "predictive information, held out\nbits per snippet"),
    ("n_states", "states by BIC"),
    ("aic_n_states", "states by AIC"),
    ("icl_n_states", "states by ICL"),
    ("bic_effective_n_states", "states by effective BIC"),
    ("held_out_n_states", "states by held-out likelihood"),
    ("divergence_to_truth", "divergence to the truth\nbits (dashed: of the labels)"),
)
MAX_IN_LEGEND = 12


def curves_figure(tables: Sequence[Sequence[Row]], advices: Sequence[Advice | None]) -> Figure:
    """Nine panels, in each a line for every bird and age; bars are standard errors.

    Args:
        tables: rows of means of each bird and age, from the smallest amount to all.
        advices: of each; None where there is none.
    """
    axes: Any
    fig: Figure
    fig, axes = plt.subplots(3, 3, figsize=(11, 8.5), sharex=True)
    cycle = plt.get_cmap("tab10" if len(tables) <= 10 else "viridis")
    colours = [cycle(i if len(tables) <= 10 else i / (len(tables) - 1)) for i in range(len(tables))]
    minutes = [row["sound_minutes"] for table in tables for row in table]
    # Of few doublings, powers of 2 alone would be one tick or two.
    ticks = (1.0, 1.5) if max(minutes) < 8 * min(minutes) else (1.0,)
    for ax, (name, title) in zip(axes.flat, PANELS, strict=True):
        for table, colour in zip(tables, colours, strict=True):
            _line(ax, table, name, colour)
        ax.set_title(title, fontsize=9)
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_locator(LogLocator(base=2, subs=ticks))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.2g}"))
        if "states" in name:
            ax.set_ylim(0, None)
    _advice(axes[0, 1], advices, colours)
    _legend(axes[2, 2], tables, colours)
    for ax in axes[2]:
        ax.set_xlabel("minutes of sound")
    fig.tight_layout()
    return fig


def _line(ax: Any, table: Sequence[Row], name: str, colour: Any) -> None:
    known = [row for row in table if row[name] is not None]
    if not known:
        return
    x = [row["sound_minutes"] for row in known]
    errors = [row[f"{name}_se"] or 0.0 for row in known]
    ax.errorbar(x, [row[name] for row in known], errors, fmt="o-", ms=3, lw=1.2, capsize=2,
                color=colour)  # fmt: skip
    if name == "divergence_to_truth":
        ax.plot(x, [row["divergence_of_labels"] for row in known], "--", lw=1, color=colour)
        ax.set_ylim(0, None)


def _advice(ax: Any, advices: Sequence[Advice | None], colours: Sequence[Any]) -> None:
    """The threshold, and where each curve of gains falls below it."""
    ax.axhline(LEAST_GAIN, color="0.5", lw=1, ls=":")
    ax.axhline(0, color="0.8", lw=0.8)
    for advice, colour in zip(advices, colours, strict=True):
        if advice is not None and advice.minutes is not None:
            high = min(advice.high, advice.largest)
            ax.plot([advice.low, high], [LEAST_GAIN] * 2, lw=4, alpha=0.4, color=colour)
            ax.plot(advice.minutes, LEAST_GAIN, "D", ms=7, mfc="none", color=colour)


def _legend(ax: Any, tables: Sequence[Sequence[Row]], colours: Sequence[Any]) -> None:
    """Names of birds and ages, in the last panel; it is empty where no truth is known."""
    step = -(-len(tables) // MAX_IN_LEGEND)
    for table, colour in list(zip(tables, colours, strict=True))[::step]:
        ax.plot([], [], "o-", ms=3, color=colour, label=f"{table[0]['bird']} {table[0]['age']}")
    ax.legend(fontsize=7)
    if all(row["divergence_to_truth"] is None for table in tables for row in table):
        ax.set_title("no truth is known", fontsize=9)
        ax.set_yticks([])
    else:
        low, high = ax.get_ylim()
        ax.set_ylim(low, high * (1 + 0.1 * min(len(tables), MAX_IN_LEGEND)))
