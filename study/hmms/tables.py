"""The rows of hmm_grid.parquet and hmm_selected.parquet.

hmm_grid.parquet holds every fit of a search, also where the search merges states and is no grid:
it keeps its name for those who read it.
"""

import math
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from data_io.names.ages import parse_age
from data_io.recordings.table import BirdAge
from data_io.song_models import SongModel
from models.hmm import HmmFit, StatesFound
from models.hmm.contexts import Remembered
from study.hmms.rows import Row, from_row, row_of, schema_of

# Column of the number of states that a criterion would choose, by the criterion's name.
CRITERIA = {
    "aic": "aic_n_states",
    "icl": "icl_n_states",
    "bic_effective": "bic_effective_n_states",
    "held_out_log_likelihood": "held_out_n_states",
}


@dataclass(frozen=True, kw_only=True)
class Selected:
    """The number of states of one bird and age: a row of hmm_selected.parquet.

    Fields that are not described here say of the chosen fit what they say in `models.hmm.HmmFit`,
    or of the search what they say in `models.hmm.StatesFound`. Without a model they are None.

    Attributes:
        dph: age in days post hatch where the folder's name is a number.
        status: ok, too_few_snippets, failed or no_decoder.
        reason: why, where not ok; a remark on the choice where it is.
        n_snippets: of all recordings.
        n_observations: the N of BIC: snippets times the share of each that the one before does not
            hold.
        n_recordings: recordings that were fitted.
        runner_up_n_states: the best number of states but one.
        runner_up_bic_distance: its BIC above the best.
        edge: BIC is lowest at the highest number of states that may be tried.
        edge_side: "" or "highest".
        aic_n_states: the number of states that AIC would choose; likewise the other criteria.
        fit_status: status of the chosen fit.
        at_limit: criteria that may choose more states than were tried, comma-separated.
        n_sounding, n_silent: states most of whose snippets hold sound, and the others.
        song_model: whose states the song model in hmm/ has: "own", those of this row; "shared",
            those of all ages of the bird, which hmm_shared.parquet tells of; "" without a model.
        memory: none, context or autoregressive: what the song model remembers.
            Where song_model is "shared", this and the next are of that model.
        n_contexts: copies of states that remember what came before; n_states where none do.
        memory_bic, memory_held_out_log_likelihood: of these states with their memory, and
            memory_plain_*: without; as `models.hmm.contexts.Remembered` counts, not as bic.
        node: host that searched.
    """

    bird: str
    age: str
    dph: int | None
    status: str
    reason: str
    n_states: int | None = None
    restart: int | None = None
    bic: float | None = None
    aic: float | None = None
    log_likelihood: float | None = None
    n_free_params: int | None = None
    n_snippets: int
    n_observations: float
    n_recordings: int
    runner_up_n_states: int | None = None
    runner_up_bic_distance: float | None = None
    edge: bool = False
    edge_side: str = ""
    covariance_type: str | None = None
    converged: bool | None = None
    reached_by: str | None = None
    start: str | None = None
    icl: float | None = None
    bic_effective: float | None = None
    held_out_log_likelihood: float | None = None
    n_effective: float | None = None
    aic_n_states: int | None = None
    icl_n_states: int | None = None
    bic_effective_n_states: int | None = None
    held_out_n_states: int | None = None
    restart_spread: float | None = None
    n_agreeing: int | None = None
    n_restarts: int | None = None
    at_limit: str = ""
    rival_covariance_type: str = ""
    rival_n_states: int | None = None
    rival_bic_distance: float | None = None
    rival_held_out_log_likelihood: float | None = None
    held_out_se_n_states: int | None = None
    n_states_low: int | None = None
    n_states_high: int | None = None
    is_monotone: bool | None = None
    n_dead: int | None = None
    n_singleton: int | None = None
    n_floored: int | None = None
    n_repairs: int | None = None
    fit_status: str | None = None
    n_sounding: int | None = None
    n_silent: int | None = None
    song_model: str = ""
    memory: str | None = None
    n_contexts: int | None = None
    memory_bic: float | None = None
    memory_plain_bic: float | None = None
    memory_held_out_log_likelihood: float | None = None
    memory_plain_held_out_log_likelihood: float | None = None
    node: str | None = None


SELECTED = schema_of(Selected)
# Columns that tell of the song model's memory.
MEMORY = (
    "memory", "n_contexts", "memory_bic", "memory_plain_bic", "memory_held_out_log_likelihood",
    "memory_plain_held_out_log_likelihood",
)  # fmt: skip
GRID = pa.unify_schemas(
    [pa.schema([("bird", pa.string()), ("age", pa.string())]), schema_of(HmmFit)]
)


@dataclass(frozen=True)
class Searched:
    """The finished search of one bird and age, as a task returns it and the journal keeps it.

    Attributes:
        fits: every fit as a row, without bird and age.
        selected: the row of hmm_selected.parquet.
        model: of the chosen fit; None where there is none.
    """

    fits: list[Row]
    selected: Row
    model: SongModel | None


def selected_row(
    bird_age: BirdAge,
    found: StatesFound,
    remembered: Remembered | None,
    n_silent: int | None,
    lengths: list[int],
    new_share: float,
    node: str,
) -> Row:
    """A row of hmm_selected.parquet.

    Args:
        bird_age: bird and age.
        found: by the search.
        remembered: the model with its memory; None where there is no model.
        n_silent: its silent states.
        lengths: snippets of every recording.
        new_share: share of a snippet that the one before does not hold.
        node: host that searched.
    """
    bird, age = bird_age
    known: dict[str, Any] = {
        "bird": bird,
        "age": age,
        "dph": parse_age(age)[0],
        "status": found.status,
        "reason": found.reason,
        "n_snippets": sum(lengths),
        "n_observations": sum(lengths) * new_share,
        "n_recordings": len(lengths),
        "edge": bool(found.edge),
        "edge_side": found.edge,
        "node": node,
    }
    if found.selection is not None and remembered is not None and n_silent is not None:
        known |= {"n_silent": n_silent, "n_sounding": remembered.song.n_states - n_silent}
        known |= {"song_model": "own", **remembered_columns(remembered)}
        known["runner_up_n_states"] = found.selection.runner_up
        known["runner_up_bic_distance"] = found.selection.runner_up_distance
        known["fit_status"] = found.selection.best.status
        known |= {column: found.chosen_by.get(name) for name, column in CRITERIA.items()}
        known["at_limit"] = ", ".join(found.at_limit)
        # All other columns have the name of what they repeat.
        for source in (found, found.selection.best):
            names = [n for n in SELECTED.names if n not in known and hasattr(source, n)]
            known |= {name: getattr(source, name) for name in names}
    return row_of(Selected(**known))


def remembered_columns(remembered: Remembered) -> Row:
    """The columns MEMORY."""
    found: Row = {"memory": remembered.memory, "n_contexts": remembered.song.n_contexts}
    for name in ("bic", "held_out_log_likelihood"):
        for kind in ("", "plain_"):
            value = getattr(remembered, kind + name)
            found[f"memory_{kind}{name}"] = value if math.isfinite(value) else None
    return found


def no_decoder_row(bird_age: BirdAge, reason: str) -> Row:
    """A row of hmm_selected.parquet for a bird and age that could not be encoded."""
    bird, age = bird_age
    row = Selected(bird=bird, age=age, dph=parse_age(age)[0], status="no_decoder", reason=reason,
                   n_snippets=0, n_observations=0, n_recordings=0)  # fmt: skip
    return row_of(row)


def fit_of(row: Row) -> HmmFit:
    """The fit, without its model, in a row of hmm_grid.parquet or of a search."""
    return from_row(HmmFit, row)


def grid_table(bird_age: BirdAge, rows: list[Row]) -> pa.Table:
    """All fits of a bird and age, by number of states and restart, then in order of the search."""
    bird, age = bird_age
    in_order = sorted(rows, key=lambda row: (row["n_states"], row["restart"]))
    return pa.Table.from_pylist([{"bird": bird, "age": age, **row} for row in in_order], GRID)
