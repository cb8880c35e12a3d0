"""Rows of hmm_grid.parquet and hmm_selected.parquet, and the fits that they stand for."""

import dataclasses
import math
from typing import Any

import numpy as np
import pyarrow as pa

from data_io.recordings import BirdAge, parse_age
from models.hmm import HmmFit, StateSearch

Row = dict[str, Any]

GRID = pa.schema(
    [
        ("bird", pa.string()),
        ("age", pa.string()),
        ("n_states", pa.int32()),
        ("reached_by", pa.string()),
        ("restart", pa.int32()),
        ("start", pa.string()),
        ("covariance_type", pa.string()),
        ("log_likelihood", pa.float64()),
        ("n_free_params", pa.int64()),
        ("n_observations", pa.int64()),
        ("bic", pa.float64()),
        ("aic", pa.float64()),
        ("icl", pa.float64()),
        ("bic_effective", pa.float64()),
        ("held_out_log_likelihood", pa.float64()),
        ("n_iter", pa.int32()),
        ("converged", pa.bool_()),
        ("is_monotone", pa.bool_()),
        ("n_dead", pa.int32()),
        ("n_singleton", pa.int32()),
        ("n_floored", pa.int32()),
        ("n_repairs", pa.int32()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("seconds", pa.float64()),
    ]
)
SELECTED = pa.schema(
    [
        ("bird", pa.string()),
        ("age", pa.string()),
        ("dph", pa.int32()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("n_states", pa.int32()),
        ("restart", pa.int32()),
        ("bic", pa.float64()),
        ("aic", pa.float64()),
        ("log_likelihood", pa.float64()),
        ("n_free_params", pa.int64()),
        ("n_observations", pa.int64()),
        ("n_recordings", pa.int32()),
        ("runner_up_n_states", pa.int32()),
        ("runner_up_bic_distance", pa.float64()),
        ("edge", pa.bool_()),
        ("edge_side", pa.string()),
        ("covariance_type", pa.string()),
        ("converged", pa.bool_()),
        ("reached_by", pa.string()),
        ("start", pa.string()),
        ("icl", pa.float64()),
        ("bic_effective", pa.float64()),
        ("held_out_log_likelihood", pa.float64()),
        ("n_effective", pa.float64()),
        ("aic_n_states", pa.int32()),
        ("icl_n_states", pa.int32()),
        ("bic_effective_n_states", pa.int32()),
        ("held_out_n_states", pa.int32()),
        ("restart_spread", pa.float64()),
        ("n_agreeing", pa.int32()),
        ("n_restarts", pa.int32()),
        ("is_monotone", pa.bool_()),
        ("n_dead", pa.int32()),
        ("n_singleton", pa.int32()),
        ("n_floored", pa.int32()),
        ("n_repairs", pa.int32()),
        ("fit_status", pa.string()),
        ("node", pa.string()),
    ]
)

_FIT_FIELDS = [f for f in dataclasses.fields(HmmFit) if f.name != "model"]
# What hmm_selected.parquet says of the chosen fit in the fit's own words.
_COPIED = (
    "n_states", "restart", "bic", "aic", "log_likelihood", "n_free_params", "covariance_type",
    "converged", "reached_by", "start", "icl", "bic_effective", "held_out_log_likelihood",
    "is_monotone", "n_dead", "n_singleton", "n_floored", "n_repairs",
)  # fmt: skip
# Column of the number of states that a criterion would choose, by the criterion's name.
CRITERIA = {
    "aic": "aic_n_states",
    "icl": "icl_n_states",
    "bic_effective": "bic_effective_n_states",
    "held_out_log_likelihood": "held_out_n_states",
}


def fit_row(fit: HmmFit) -> Row:
    """A fit as plain values, without its model; None for what is no finite number."""
    return {field.name: _plain(getattr(fit, field.name)) for field in _FIT_FIELDS}


def fit_of(row: Row) -> HmmFit:
    """The fit, without its model, that a row of hmm_grid.parquet or of the journal stands for."""
    values = {field.name: row[field.name] for field in _FIT_FIELDS}
    for field in _FIT_FIELDS:
        if field.type is float and values[field.name] is None:
            values[field.name] = math.nan
    return HmmFit(**values)


def search_row(search: StateSearch) -> Row:
    """What a search of one bird and age found, as plain values: most of hmm_selected.parquet."""
    row: Row = {
        "status": search.status,
        "reason": search.reason,
        "edge": bool(search.edge),
        "edge_side": search.edge,
    }
    if search.selection is None:
        return row
    best = search.selection.best
    row |= {name: getattr(best, name) for name in _COPIED}
    row |= {column: search.chosen_by.get(name) for name, column in CRITERIA.items()}
    row |= {name: getattr(search, name)
            for name in ("n_effective", "restart_spread", "n_agreeing", "n_restarts")}  # fmt: skip
    row["fit_status"] = best.status
    row["runner_up_n_states"] = search.selection.runner_up
    row["runner_up_bic_distance"] = search.selection.runner_up_distance
    return {name: _plain(value) for name, value in row.items()}


def selected_row(piece: BirdAge, found: Row, lengths: list[int]) -> Row:
    """A row of hmm_selected.parquet.

    Args:
        piece: bird and age.
        found: as `search_row` gives it.
        lengths: snippets of every recording.
    """
    bird, age = piece
    return {
        "bird": bird,
        "age": age,
        "dph": parse_age(age)[0],
        "n_recordings": len(lengths),
        "n_observations": sum(lengths),
        **found,
    }


def no_decoder_row(piece: BirdAge, reason: str) -> Row:
    """A row of hmm_selected.parquet for a bird and age that could not be encoded."""
    found = {"status": "no_decoder", "reason": reason, "edge": False, "edge_side": ""}
    return selected_row(piece, found, [])


def grid_table(piece: BirdAge, rows: list[Row]) -> pa.Table:
    """All fits of a bird and age, by number of states and restart, then in order of the search."""
    bird, age = piece
    in_order = sorted(rows, key=lambda row: (row["n_states"], row["restart"]))
    return pa.Table.from_pylist([{"bird": bird, "age": age, **row} for row in in_order], GRID)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
