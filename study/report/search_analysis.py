"""What a search tells beside its best trial: what mattered, where it was too narrow, trade-offs.

All of it is worked out from the rows of trials.parquet, so that a report can be written again.
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
from study.search.distributions import distribution

optuna.logging.set_verbosity(optuna.logging.WARNING)

Row = dict[str, Any]
Side = Literal["lower", "upper"]
MIN_FOR_IMPORTANCES = 10  # completed trials; a forest over fewer tells chance from chance
EDGE_SHARE = 0.05  # of a range, at either end
# Where the search lowers one number, the two that it is made of.
RECONSTRUCTION_AND_SAMPLES = ("valid/recon_l1_vs_pca", "valid/frechet_sample")


@dataclass(frozen=True)
class Importances:
    """How much each searched parameter decided of the objective.

    Attributes:
        shares: by parameter, of the variance that single parameters make; largest first, sum 1.
            Empty where it cannot be told.
        sentence: what they rest on, or why there are none.
    """

    shares: dict[str, float]
    sentence: str


@dataclass(frozen=True)
class Edge:
    """A searched parameter whose best value lies at the edge of what was searched.

    Attributes:
        name: of the parameter.
        side: the edge.
        advice: what to widen, in words.
    """

    name: str
    side: Side
    advice: str


def completed(trials: Sequence[Row]) -> list[Row]:
    """Trials that were trained to the end."""
    return [row for row in trials if row["status"] == "completed"]


def importances(search: SearchConfig, trials: Sequence[Row]) -> Importances:
    """Share of each searched parameter in the variance of the objective, by fANOVA.

    Source: Hutter et al. 2014, as in Optuna: a random forest over completed trials, and how much of
    its variance each parameter makes alone. Optuna's forest averages over the values as they stand,
    so parameters that are searched in the logarithm enter as logarithms.
    """
    rows = completed(trials)
    if not search.space:
        return Importances({}, "Nothing was searched.")
    if len(rows) < MIN_FOR_IMPORTANCES:
        return Importances(
            {},
            f"At least {MIN_FOR_IMPORTANCES} completed trials are wanted; there are {len(rows)}.",
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
        f"By fANOVA over {len(rows)} completed trials, each parameter alone: what only several of "
        "them do together is left out, and what matters little here may matter elsewhere.",
    )


def _distribution(entry: SpaceEntry) -> BaseDistribution:
    if entry.log_uniform is None:
        return distribution(entry)
    low, high = entry.log_uniform
    return FloatDistribution(math.log(low), math.log(high))


def _position(entry: SpaceEntry, value: Any) -> Any:
    """A parameter's value as `_distribution` has it, inside its bounds whatever was rounded."""
    if entry.choice is not None:
        return value
    low, high = entry.bounds
    inside = min(max(value, low), high)
    return inside if entry.log_uniform is None else math.log(inside)


def edges(config: StudyConfig, best: Row) -> list[Edge]:
    """Parameters whose best value lies at an edge beyond which the search could be widened.

    That is, in the outer 5 % of a range (in the logarithm where it is searched so), or the smallest
    or largest of several numbers. Values without order have no edge, and neither has a parameter
    that can take no value beyond, such as a share of 0.

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
        if len(set(entry.choice)) < 2 or not all(_is_number(one) for one in entry.choice):
            return None
        if value == min(entry.choice):
            return "lower"
        return "upper" if value == max(entry.choice) else None
    low, high = entry.bounds
    if entry.log_uniform is not None:
        value, low, high = math.log(value), math.log(low), math.log(high)
    share = (value - low) / (high - low)
    if share <= EDGE_SHARE:
        return "lower"
    return "upper" if share >= 1 - EDGE_SHARE else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _can_widen(config: StudyConfig, best: Row, name: str, entry: SpaceEntry, side: Side) -> bool:
    """Whether the parameter can take a value a little beyond the edge."""
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


def front_metrics(search: SearchConfig) -> tuple[str, ...]:
    """Metrics whose best trade-offs are shown: the objectives, or reconstruction and samples."""
    return search.objectives if len(search.objectives) > 1 else RECONSTRUCTION_AND_SAMPLES


def front(search: SearchConfig, trials: Sequence[Row]) -> list[str]:
    """Completed trials than which no other is better in one of `front_metrics`, as good in all.

    Returns:
        Trial ids, in the order of the rows.
    """
    metrics = front_metrics(search)
    study = optuna.create_study(directions=["minimize"] * len(metrics))
    for row in completed(trials):
        values = [row[metric] for metric in metrics]
        if all(map(math.isfinite, values)):
            study.add_trial(
                optuna.trial.create_trial(values=values, user_attrs={"trial_id": row["trial_id"]})
            )
    best = {trial.user_attrs["trial_id"] for trial in study.best_trials}
    return [row["trial_id"] for row in trials if row["trial_id"] in best]
