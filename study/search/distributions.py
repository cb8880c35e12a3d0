"""The search space as Optuna wants it.

A choice of numbers has an order, which a sampler can use: Optuna is given the place of a value
among the ascending values, from 0, as a whole number. Trials, tables and MLflow hold the values.
"""

import math
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from study.config.space import SpaceEntry


def distribution(entry: SpaceEntry) -> BaseDistribution:
    """One entry of the space for Optuna."""
    if entry.is_ordered:
        return IntDistribution(0, len(entry.values) - 1)
    if entry.choice is not None:
        return CategoricalDistribution(entry.choice)
    low, high = entry.bounds
    return FloatDistribution(low, high, log=entry.log_uniform is not None)


def to_optuna(entry: SpaceEntry, value: Any) -> Any:
    """A value as `distribution` has it."""
    if entry.is_ordered:
        return entry.values.index(value)
    return value if entry.choice is not None else float(value)


def from_optuna(entry: SpaceEntry, told: Any) -> Any:
    """The value that Optuna means: the reverse of `to_optuna`."""
    return entry.values[told] if entry.is_ordered else told


def at_share(entry: SpaceEntry, share: float) -> Any:
    """The value of an entry at ``share`` (0 to 1) of its range or choices."""
    if entry.choice is not None:
        return entry.values[min(int(share * len(entry.values)), len(entry.values) - 1)]
    low, high = entry.bounds
    if entry.log_uniform is not None:
        value = float(math.exp(math.log(low) + share * (math.log(high) - math.log(low))))
    else:
        value = low + share * (high - low)
    return min(max(value, low), high)
