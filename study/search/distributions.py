"""The search space as Optuna wants it."""

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from study.config.space import SpaceEntry


def distribution(entry: SpaceEntry) -> BaseDistribution:
    """One entry of the space for Optuna."""
    if entry.choice is not None:
        return CategoricalDistribution(entry.choice)
    low, high = entry.bounds
    return FloatDistribution(low, high, log=entry.log_uniform is not None)
