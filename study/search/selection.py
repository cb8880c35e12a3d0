"""The rule that picks the best trial; it is fixed in the configuration before the search begins."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from study.config.search import SelectionConfig

Row = dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A trial that may be best.

    Attributes:
        trial_id, number, latent_dim: of the trial.
        values: the metric by seed, as text (JSON has no other keys); null where that training
            failed or collapsed. Of fresh seeds; where none is wanted, of the search's own.
        mean: over the seeds that gave a value; null where none did.
        is_sound: whether every seed gave a value.
        is_within: whether the rule would allow it.
        in_search: the metric with the search's own seed, which made it a candidate.
    """

    trial_id: str
    number: int
    latent_dim: int
    values: dict[str, float | None]
    mean: float | None
    is_sound: bool
    is_within: bool
    in_search: float | None = None


@dataclass(frozen=True)
class Selection:
    """How the best trial was chosen.

    Attributes:
        rule, metric, n_seeds: of the configuration.
        chosen: trial id of the best trial.
        lowest: trial id of the lowest mean.
        standard_error: of a mean over ``n_seeds`` seeds; null where it cannot be told.
        limit: the highest mean that the rule allows.
        candidates: all, lowest mean first.
        sentence: the same in words.
    """

    rule: str
    metric: str
    n_seeds: int
    chosen: str
    lowest: str
    standard_error: float | None
    limit: float
    candidates: tuple[Candidate, ...]
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Plain content for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Selection":
        """The reverse of `to_dict`."""
        candidates = tuple(Candidate(**one) for one in content["candidates"])
        return cls(**{**content, "candidates": candidates})


def rule_in_words(selection: SelectionConfig) -> str:
    """What the rule takes."""
    if selection.n_seeds == 0:
        return "the lowest value in the search"
    if selection.rule == "lowest":
        return "the lowest mean over fresh seeds"
    return (
        "the smallest latent size whose mean over fresh seeds is within one standard error of the "
        "lowest mean"
    )


def candidates(trials: Sequence[Row], selection: SelectionConfig, metric: str) -> list[Row]:
    """Trials worth training again: the best of each latent size, then the next best.

    Args:
        trials: rows of trials.parquet.
        selection: how many.
        metric: lower is better; the lower number comes first where two are equal.

    Returns:
        Completed trials, at most ``n_candidates``; empty where none completed with a finite metric.
    """
    completed = [row for row in trials if _value(row, metric) is not None]
    ranked = sorted(completed, key=lambda row: (row[metric], row["number"]))
    seen: set[int] = set()
    first: list[Row] = []
    others: list[Row] = []
    for row in ranked:
        (others if row["latent_dim"] in seen else first).append(row)
        seen.add(row["latent_dim"])
    return (first + others)[: selection.n_candidates]


def choose(rows: Sequence[Row], selection: SelectionConfig, metric: str, seed: int) -> Selection:
    """The best of the candidates.

    Args:
        rows: one per candidate and seed, as in repeats.parquet; at least one candidate.
        selection: the rule.
        metric: lower is better.
        seed: of the search.

    Raises:
        ValueError: no row has a value.
    """
    found = [_candidate(group, metric, selection, seed) for group in _by_trial(rows)]
    if not any(one.mean is not None for one in found):
        raise ValueError(f"None of {len(found)} candidates has a value of {metric}.")
    # A configuration that fails with another seed is not one to trust.
    eligible = [one for one in found if one.is_sound] or found
    means = {one.trial_id: one.mean for one in eligible if one.mean is not None}
    ranked = sorted(
        (one for one in eligible if one.mean is not None), key=lambda one: (one.mean, one.number)
    )
    lowest = ranked[0]
    error = _standard_error(found, selection.n_seeds) if selection.n_seeds else None
    limit = means[lowest.trial_id]
    if selection.rule == "one_standard_error" and error is not None:
        limit += error
    within = [one for one in ranked if one.mean is not None and one.mean <= limit]
    chosen = min(within, key=lambda one: (one.latent_dim, one.mean, one.number))
    names = {one.trial_id for one in within}
    judged = [
        Candidate(**{**asdict(one), "is_within": one.trial_id in names})
        for one in sorted(found, key=lambda one: (one.mean is None, one.mean, one.number))
    ]
    sentence = _sentence(chosen, lowest, judged, selection, metric, error)
    return Selection(
        selection.rule, metric, selection.n_seeds, chosen.trial_id, lowest.trial_id, error, limit,
        tuple(judged), sentence,
    )  # fmt: skip


def _by_trial(rows: Sequence[Row]) -> list[list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["trial_id"], []).append(row)
    return list(groups.values())


def _candidate(group: list[Row], metric: str, selection: SelectionConfig, seed: int) -> Candidate:
    every = {str(row["seed"]): _value(row, metric) for row in group}
    own = str(seed)
    fresh = {name: value for name, value in every.items() if name != own}
    values = fresh if selection.n_seeds else every
    known = [value for value in values.values() if value is not None]
    mean = float(np.mean(known)) if known else None
    first = group[0]
    return Candidate(
        first["trial_id"], first["number"], first["latent_dim"], values, mean,
        len(known) == len(values), False, every.get(own),
    )  # fmt: skip


def _value(row: Row, metric: str) -> float | None:
    """Of a training that completed; None where it did not, or has no finite value."""
    if row["status"] != "completed" or row[metric] is None or not math.isfinite(row[metric]):
        return None
    return float(row[metric])


def _standard_error(found: Sequence[Candidate], n_seeds: int) -> float | None:
    """Of a mean over ``n_seeds`` seeds, by the spread of all candidates around their own means.

    Two or three seeds tell little of a spread; pooled over candidates there are more of them. It
    takes the spread to be the same for all.
    """
    squares, freedom = 0.0, 0
    for one in found:
        known = [value for value in one.values.values() if value is not None]
        squares += float(np.sum((np.array(known) - np.mean(known)) ** 2)) if known else 0.0
        freedom += max(len(known) - 1, 0)
    return float(math.sqrt(squares / freedom / n_seeds)) if freedom else None


def _sentence(
    chosen: Candidate,
    lowest: Candidate,
    judged: Sequence[Candidate],
    selection: SelectionConfig,
    metric: str,
    error: float | None,
) -> str:
    name = f"Best: {chosen.trial_id} (latent_dim {chosen.latent_dim})"
    n = selection.n_seeds
    seeds = f"{n} fresh seed{'s' * (n != 1)}"
    if chosen != lowest and error is None:
        text = f"{name}, the smallest of those with the lowest {metric}, {chosen.mean:.4g}"
    elif chosen != lowest:
        text = (
            f"{name}, the smallest within one standard error ({error:.2g}, {seeds}) of the "
            f"lowest mean of {metric}, {lowest.trial_id}'s {lowest.mean:.4g}; its own is "
            f"{chosen.mean:.4g}"
        )
    else:
        # One that is not eligible may lie lower: it is not among those that are counted.
        n_eligible = sum(one.is_sound for one in judged) or len(judged)
        if len(judged) == 1:
            why = f"the only candidate; {metric}"
        elif n_eligible == 1:
            why = f"the only candidate that completed with every seed; {metric}"
        elif n == 0:
            why = f"the lowest {metric} of {n_eligible} candidates in the search,"
        else:
            why = f"the lowest mean of {metric} of {n_eligible} candidates,"
        text = f"{name}, {why} {chosen.mean:.4g}"
        if error is not None:
            text += f" (standard error {error:.2g}, {seeds})"
        elif n == 1:
            text += f" ({seeds})"
    if n == 0:
        return f"{text}; no other seed was tried"
    if chosen.in_search is not None:
        text += f"; the search itself saw {chosen.in_search:.4g}"
    unsound = [one.trial_id for one in judged if not one.is_sound]
    if len(unsound) == len(judged):
        return f"{text}; but no candidate completed with every seed: trust none of them"
    if unsound:
        return f"{text}; not eligible, as another seed failed or collapsed: {', '.join(unsound)}"
    return text
