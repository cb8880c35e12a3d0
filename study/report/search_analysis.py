"""Analysis of a search: importance of parameters, edges of the space, trade-offs.

It needs only the rows of trials.parquet, so that a report can be written again.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from study.config.search import SearchConfig
from study.config.space import SpaceEntry
from study.config.tree import StudyConfig
from study.search.distributions import distribution, to_optuna

optuna.logging.set_verbosity(optuna.logging.WARNING)

Row = dict[str, Any]
Side = Literal["lower", "upper"]
MIN_FOR_IMPORTANCES = 10  # completed trials; a forest over fewer shows chance only
EDGE_SHARE = 0.05  # of a range, at either end
# For searches that lower one number. Samples of the prior where nobody sang enough for songs.
RECONSTRUCTION_AND_SONG = ("valid/recon_l1_vs_pca", "valid/frechet_song")
RECONSTRUCTION_AND_SAMPLES = ("valid/recon_l1_vs_pca", "valid/frechet_sample")


@dataclass(frozen=True)
class Importances:
    """The importance of each searched parameter for the objective.

    Attributes:
        shares: by parameter, its share of the variance that single parameters make; largest first,
            sum 1. Empty if unknown.
        sentence: their basis, or the reason why there are none.
    """

    shares: dict[str, float]
    sentence: str


@dataclass(frozen=True)
class Edge:
    """A searched parameter whose best value lies at the edge of what was searched.

    Attributes:
        name: of the parameter.
        side: the edge.
        advice: a sentence on what to widen.
    """

    name: str
    side: Side
    advice: str


def completed(trials: Sequence[Row]) -> list[Row]:
    """The trials that were trained to the end."""
    return [row for row in trials if row["status"] == "completed"]


def importances(search: SearchConfig, trials: Sequence[Row]) -> Importances:
    """Share of each searched parameter in the variance of the objective, by fANOVA.

    Source: Hutter et al. 2014, as in Optuna: a random forest over completed trials, and the share
    of its variance that each parameter makes alone. Optuna's forest averages over plain values, so
    parameters that are searched in the logarithm enter as logarithms.
    """
    rows = completed(trials)
    if not search.space:
        return Importances({}, "Nothing was searched.")
    if len(rows) < MIN_FOR_IMPORTANCES:
        return Importances(
            {},
            f"At least {MIN_FOR_IMPORTANCES} completed trials are needed; there are {len(rows)}.",
        )
    if len({row["objective"] for row in rows}) == 1:
        return Importances({}, "All completed trials have the same objective: nothing mattered.")
    study = optuna.create_study(direction="minimize")
    space = {name: _distribution(entry) for name, entry in search.space.items()}
    for row in rows:
        params = {name: _position(entry, row[name]) for name, entry in search.space.items()}
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=space, value=row["objective"])
        )
    found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return Importances(
        {name: float(share) for name, share in found.items()},
        f"By fANOVA over {len(rows)} completed trials, each parameter alone. Effects of several "
        "parameters together are left out. What matters little here may matter elsewhere.",
    )


def _distribution(entry: SpaceEntry) -> BaseDistribution:
    if entry.log_uniform is None:
        return distribution(entry)
    low, high = entry.log_uniform
    return FloatDistribution(math.log(low), math.log(high))


def _position(entry: SpaceEntry, value: Any) -> Any:
    """A parameter's value on the scale of `_distribution`, inside its bounds after rounding."""
    if entry.choice is not None:
        return to_optuna(entry, value)
    low, high = entry.bounds
    inside = min(max(value, low), high)
    return inside if entry.log_uniform is None else math.log(inside)


def edges(config: StudyConfig, best: Row) -> list[Edge]:
    """Parameters whose best value lies at an edge, if the search can be widened there.

    An edge is the outer 5 % of a range (in the logarithm if it is searched so), or the smallest or
    largest of several numbers. Values without order have no edge. A parameter that can take no
    value beyond, such as a share of 0, has none either.

    Args:
        config: of the study.
        best: row of the best trial.
    """
    found = []
    for name, entry in config.search.space.items():
        side = _side(entry, best[name])
        if side is not None and _can_widen(config, best, name, entry, side):
            found.append(Edge(name, side, _advice(name, entry, best[name], side)))
    return found


def _side(entry: SpaceEntry, value: Any) -> Side | None:
    if entry.choice is not None:
        if len(entry.choice) < 2 or not entry.is_ordered:
            return None
        if value == entry.values[0]:
            return "lower"
        return "upper" if value == entry.values[-1] else None
    low, high = entry.bounds
    if entry.log_uniform is not None:
        value, low, high = math.log(value), math.log(low), math.log(high)
    share = (value - low) / (high - low)
    if share <= EDGE_SHARE:
        return "lower"
    return "upper" if share >= 1 - EDGE_SHARE else None


def _can_widen(config: StudyConfig, best: Row, name: str, entry: SpaceEntry, side: Side) -> bool:
    """True if the parameter can take a value a little beyond the edge."""
    low, high = min(entry.choice or entry.bounds), max(entry.choice or entry.bounds)
    edge, sign = (low, -1) if side == "lower" else (high, 1)
    if entry.log_uniform is not None:
        beyond: float = edge * (high / low) ** (sign * 0.01)
    else:
        beyond = edge + sign * (
            1 if isinstance(edge, int) and entry.choice else 0.01 * (high - low)
        )
    params = {one: best[one] for one in config.search.space} | {name: beyond}
    try:
        dataclasses.replace(config.mdgan, **params)
    except ValueError:
        return False
    return True


def _advice(name: str, entry: SpaceEntry, value: Any, side: Side) -> str:
    if entry.choice is not None:
        words = ("smallest", "smaller") if side == "lower" else ("largest", "larger")
        known = ", ".join(f"{one:g}" for one in sorted(entry.choice))
        return (
            f"The best {name} is {value:g}, the {words[0]} of {known}: add {words[1]} values to "
            f"search.space.{name}."
        )
    where = f"below {entry.bounds[0]:g}" if side == "lower" else f"above {entry.bounds[1]:g}"
    return (
        f"The best {name} is {value:.3g}, at the {side} edge of {entry.describe()}: widen "
        f"search.space.{name} {where}."
    )


def front_metrics(search: SearchConfig, trials: Sequence[Row]) -> tuple[str, ...]:
    """Metrics for the trade-offs: the objectives, or reconstruction and song."""
    if len(search.objectives) > 1:
        return search.objectives
    song = RECONSTRUCTION_AND_SONG[-1]
    has_song = any(row.get(song) is not None for row in completed(trials))
    return RECONSTRUCTION_AND_SONG if has_song else RECONSTRUCTION_AND_SAMPLES


def front(search: SearchConfig, trials: Sequence[Row]) -> list[str]:
    """Completed trials on the front: no other is better in a metric and as good in all others.

    The metrics are those of `front_metrics`.

    Returns:
        Trial ids, in the order of the rows.
    """
    metrics = front_metrics(search, trials)
    study = optuna.create_study(directions=["minimize"] * len(metrics))
    for row in completed(trials):
        values = [row[metric] for metric in metrics]
        if all(map(math.isfinite, values)):
            study.add_trial(
                optuna.trial.create_trial(values=values, user_attrs={"trial_id": row["trial_id"]})
            )
    best = {trial.user_attrs["trial_id"] for trial in study.best_trials}
    return [row["trial_id"] for row in trials if row["trial_id"] in best]
