"""The report's section on the checks of song models: verdicts, worst first, and durations."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import jinja2
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from data_io.names.ages import age_order
from data_io.store import read_table
from models.checks.compare import CANNOT_TELL, CLOSE, LIKE, UNLIKE
from study.base.paths import RunPaths
from study.checks import KINDS
from study.report.figures import as_svg

Row = dict[str, Any]
MAX_ROWS = 40
MAX_FIGURES = 12
VERDICTS = (UNLIKE, CLOSE, CANNOT_TELL, LIKE)  # worst first
COLUMNS = ("real", "replicas", "distance", "outside_above", "halves", "decoder")
COLOURS = {"real": "black", "reconstruction": "C0", "sampled": "C3"}


def checks_section(paths: RunPaths) -> Row:
    """Content of checks.html.j2."""
    rows = worst_first(read_table(paths.hmm_checks).to_pylist())
    quantiles: dict[str, list[Row]] = {}
    for row in read_table(paths.hmm_check_quantiles).to_pylist():
        quantiles.setdefault(row["bird"], []).append(row)
    # Sliced before they are drawn: a figure stays in memory until it is an SVG.
    figures = [
        as_svg(durations_figure(quantiles[bird], bird)) for bird in list(quantiles)[:MAX_FIGURES]
    ]
    return {
        "sentence": in_words(rows),
        "rows": [
            {**row, "values": [_text(row[name]) for name in COLUMNS]} for row in rows[:MAX_ROWS]
        ],
        "n_left": max(len(rows) - MAX_ROWS, 0),
        "figures": [jinja2.filters.do_mark_safe(one) for one in figures],
    }


def in_words(rows: Sequence[Row]) -> str:
    """How often each verdict was given, by check, in a sentence."""
    if not rows:
        return "No bird and age has a song model that could be checked."
    counts = Counter(row["verdict"] for row in rows)
    of_all = ", ".join(f"{counts[one]:,} {one}" for one in VERDICTS if counts[one])
    failed = Counter(row["check"] for row in rows if row["verdict"] == UNLIKE)
    most = ", ".join(f"{check} {n}" for check, n in failed.most_common())
    ending = f" Unlike the bird by check: {most}." if most else ""
    return f"{len(rows):,} checks: {of_all}.{ending}"


def worst_first(rows: Sequence[Row]) -> list[Row]:
    """Rows by verdict; those of one verdict by distance in distances between real halves."""

    def badness(row: Row) -> tuple[int, float]:
        distance, halves = row["distance"] or 0.0, row["halves"] or 0.0
        return VERDICTS.index(row["verdict"]), -distance / max(halves, 1e-6)

    return sorted(rows, key=badness)


def durations_figure(quantiles: Sequence[Row], bird: str) -> Figure:
    """Durations of sounds and gaps over age: real, reconstructed and sampled.

    Args:
        quantiles: rows of hmm_check_quantiles.parquet of this bird.
        bird: its name.
    """
    ages = sorted({row["age"] for row in quantiles}, key=age_order)
    figure: Figure = plt.figure(figsize=(max(5.6, 2 + 0.9 * len(ages)), 3.0))
    axes = figure.subplots(1, 2)
    for ax, check in zip(axes, ("sounds", "gaps"), strict=True):
        ax.margins(y=0.3)  # room above the bars for the legend
        for shift, kind in zip((-0.2, 0.0, 0.2), KINDS, strict=True):
            of = {
                (row["age"], round(row["share"], 2)): row["value"]
                for row in quantiles
                if row["check"] == check and row["songs"] == kind
            }
            known = [i for i, age in enumerate(ages) if (age, 0.5) in of]
            x = [i + shift for i in known]
            low, middle, high = ([of[ages[i], share] for i in known] for share in (0.1, 0.5, 0.9))
            ax.vlines(x, low, high, lw=1, color=COLOURS[kind])
            ax.plot(x, middle, "o", ms=4, color=COLOURS[kind], label=kind)
        ax.set_xticks(range(len(ages)), ages, rotation=45 if len(ages) > 5 else 0)
        ax.set(title=check, xlabel="age", ylabel="ms", ylim=(0, None))
    axes[0].legend(fontsize=7)
    figure.suptitle(bird, fontsize=10, parse_math=False)
    figure.tight_layout()
    return figure


def _text(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
