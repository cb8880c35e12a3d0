"""The curves as tables: means over subsamples with their standard errors."""

import csv
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_io.files import atomic_file
from data_io.recordings.table import BirdAge
from study.base.console import WIDTH, Console
from study.hmms.rows import Row
from study.hmms.tables import CRITERIA
from study.how_much.advice import Advice, Curve

# Columns whose mean over subsamples, and its standard error, the table holds.
AVERAGED = (
    "recorded_minutes", "sound_minutes", "n_recordings", "n_snippets", "n_states",
    *CRITERIA.values(), "held_out_log_likelihood", "predictive_information",
    "divergence_to_truth", "divergence_of_labels",
)  # fmt: skip
MAX_ROWS = 40


def by_amount(rows: Sequence[Row]) -> dict[BirdAge, list[list[Row]]]:
    """The rows of every bird and age: one list for each amount, from the smallest to all.

    An amount counts where every subsample has a model of it, so that all means are of the same
    subsamples.
    """
    n_subsamples = len({row["subsample"] for row in rows})
    groups: dict[BirdAge, dict[int, list[Row]]] = {}
    for row in rows:
        amounts = groups.setdefault((row["bird"], row["age"]), {})
        amounts.setdefault(row["halvings"], []).append(row)
    found = {}
    for bird_age, amounts in groups.items():
        found[bird_age] = [
            sorted(amounts[halvings], key=lambda row: int(row["subsample"]))
            for halvings in sorted(amounts, reverse=True)
            if sum(row["n_states"] is not None for row in amounts[halvings]) == n_subsamples
        ]
    return found


def curve_of(bird_age: BirdAge, amounts: Sequence[Sequence[Row]]) -> Curve:
    """The curve that the advice is taken from.

    Args:
        bird_age: bird and age.
        amounts: its rows, as `by_amount` gives them.
    """
    all_song = amounts[-1][0]
    return Curve(
        bird_age,
        minutes=_array(amounts, "sound_minutes"),
        nats=_array(amounts, "held_out_nats"),
        lengths=np.array(all_song["held_out_snippets"]),
        n_states=_array(amounts, "n_states"),
        recorded_share=all_song["recorded_minutes"] / all_song["sound_minutes"],
    )


def _array(amounts: Sequence[Sequence[Row]], name: str) -> np.ndarray:
    """Values of a column [n_subsamples, n_amounts, ...]."""
    return np.array([[row[name] for row in rows] for rows in amounts]).swapaxes(0, 1)


def mean_and_error(rows: Sequence[Row], name: str) -> tuple[float | None, float | None]:
    """Mean of a column over subsamples and its standard error; None where a value is missing."""
    values = [row[name] for row in rows]
    if None in values:
        return None, None
    if len(values) < 2:
        return float(np.mean(values)), None
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


def mean_rows(amounts: Sequence[Sequence[Row]], advice: Advice | None) -> list[Row]:
    """A row for each amount of one bird and age: means, standard errors, and the next gain."""
    table = []
    for i, rows in enumerate(amounts):
        row: Row = {name: rows[0][name] for name in ("bird", "age", "dph")}
        row |= {"share": 2.0 ** -rows[0]["halvings"], "n_subsamples": len(rows)}
        row["n_held_out"] = len(rows[0]["held_out_snippets"])
        for name in AVERAGED:
            row[name], row[f"{name}_se"] = mean_and_error(rows, name)
        row["gain"] = row["gain_se"] = None
        if advice is not None and i < len(advice.gains):
            row |= {"gain": float(advice.gains[i]), "gain_se": float(advice.gain_errors[i])}
        table.append(row)
    return table


def write_csv(path: Path, table: Sequence[Row]) -> None:
    """Write the table, a line for each bird, age and amount; what is not known is empty."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)


def show_table(table: Sequence[Row], console: Console) -> None:
    """Print the most important columns."""
    has_truth = any(row["divergence_to_truth"] is not None for row in table)
    header = ["bird", "age", "sound", "rec.", "BIC", "eff.", "nats", "gain", "bits",
              *(["to truth"] if has_truth else [])]  # fmt: skip
    lines = [
        [row["bird"], row["age"], _short(row["sound_minutes"]), _short(row["recorded_minutes"]),
         _short(row["n_states"]), _short(row["bic_effective_n_states"]),
         _with_error(row, "held_out_log_likelihood"), _with_error(row, "gain"),
         _with_error(row, "predictive_information"),
         *([_with_error(row, "divergence_to_truth")] if has_truth else [])]
        for row in table[:MAX_ROWS]
    ]  # fmt: skip
    console.table(header, lines)
    if len(table) > MAX_ROWS:
        console.line(f"... and {len(table) - MAX_ROWS} more lines in the table")
    words = (
        "sound, rec.: minutes of sound, and recorded. BIC, eff.: states by BIC and by effective "
        "BIC. nats: held-out log-likelihood per snippet; gain: of the next doubling. bits: "
        "predictive information per snippet on held-out song, below 0 where the order that was "
        "learned does not hold there. +-: one standard error over subsamples; of the gain, over "
        "held-out recordings too. "
    )
    if has_truth:
        words += "to truth: divergence to the order of the simulated syllables, in bits, 0 to 1. "
    console.line(textwrap.fill(f"{words}All other columns are in the .csv file.", WIDTH))


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")


def _with_error(row: Row, name: str) -> str:
    value, error = row[name], row[f"{name}_se"]
    if value is None:
        return "-"
    return f"{value:.2f}" if error is None else f"{value:.2f}+-{error:.2f}"
