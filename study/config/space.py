"""The search space: the values that each parameter may take."""

import dataclasses
import itertools
import math
import sys
import typing
from dataclasses import dataclass
from typing import Any, Literal

from models.mdgan.params import MdganParams

Role = Literal["scientific", "nuisance"]
# Not searched: the budget, and parameters whose values cannot be compared fairly.
NOT_SEARCHED = (
    "n_snippets", "n_reports", "monitor", "n_components", "collapse_after", "precision",
    "channels_last", "compilation",
)  # fmt: skip
MOST_POINTS = 100_000  # of a grid
_HINTS = typing.get_type_hints(MdganParams)
# A trial may be able to have each of two values, but not both.
_CHECKED_TOGETHER = ("latent_dim", "width", "dense_width", "batch_size")


@dataclass(frozen=True)
class SpaceEntry:
    """The values that one parameter may take; give exactly one of the first three.

    Attributes:
        choice: list of values.
        uniform: [low, high], drawn evenly.
        log_uniform: [low, high], drawn evenly in the logarithm.
        role: scientific (the study asks about it) or nuisance (it must be set well to be fair).
    """

    choice: tuple[Any, ...] | None = None
    uniform: tuple[float, ...] | None = None
    log_uniform: tuple[float, ...] | None = None
    role: Role = "nuisance"

    def __post_init__(self) -> None:
        given = [n for n in ("choice", "uniform", "log_uniform") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(
                f"{len(given)} of choice, uniform and log_uniform are given: give exactly one."
            )
        if self.choice is not None:
            object.__setattr__(self, "choice", tuple(self.choice))
            if not self.choice:
                raise ValueError("choice is empty: give at least one value.")
            return
        bounds = self.bounds
        if len(bounds) != 2 or not bounds[0] < bounds[1]:
            raise ValueError(f"{given[0]} is {list(bounds)}: give [low, high] with low < high.")
        if self.log_uniform is not None and bounds[0] <= 0:
            raise ValueError(f"log_uniform is {list(bounds)}: low must be above 0.")

    @property
    def bounds(self) -> tuple[float, ...]:
        """[low, high] of a range; empty for a choice."""
        return self.uniform or self.log_uniform or ()

    @property
    def is_ordered(self) -> bool:
        """Whether it is a choice of numbers, which have an order; true and false have none."""
        return self.choice is not None and all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in self.choice
        )

    @property
    def values(self) -> tuple[Any, ...]:
        """The values of a choice, numbers ascending; empty for a range."""
        return tuple(sorted(self.choice or ())) if self.is_ordered else self.choice or ()

    def to_dict(self) -> dict[str, Any]:
        """The entry as a configuration file has it, without empty fields."""
        kinds = ("choice", "uniform", "log_uniform")
        given = {n: list(getattr(self, n)) for n in kinds if getattr(self, n) is not None}
        return {**given, "role": self.role}

    def describe(self) -> str:
        """The values in words, for the plan."""
        if self.choice is not None:
            return "one of " + ", ".join(map(str, self.choice))
        low, high = self.bounds
        return f"{low:g} to {high:g}" + (" (log)" if self.log_uniform is not None else "")


DEFAULT_SPACE = {
    "latent_dim": SpaceEntry(choice=(8, 16, 32), role="scientific"),
    "lambda_recon": SpaceEntry(log_uniform=(100.0, 600.0), role="scientific"),
    "lambda_prior": SpaceEntry(log_uniform=(0.1, 10.0), role="scientific"),
    "lr": SpaceEntry(log_uniform=(3e-4, 2e-3)),
}


def check_space(space: dict[str, SpaceEntry]) -> None:
    """Check that every entry is an MDGAN parameter, with values of its kind, none twice.

    Raises:
        ValueError: names the entry.
    """
    known = {f.name for f in dataclasses.fields(MdganParams)} - set(NOT_SEARCHED)
    for name, entry in space.items():
        if name not in known:
            raise ValueError(
                f"space.{name} cannot be searched; known are {', '.join(sorted(known))}."
            )
        hint = _HINTS[name]
        if hint is not float and entry.choice is None:
            kind = "a whole number" if hint is int else "no number"
            raise ValueError(f"space.{name} is {kind}: give its values as choice.")
        values = entry.choice or entry.bounds
        for value in values:
            if wanted := _not_of(hint, value):
                raise ValueError(f"space.{name} holds {value!r}: {wanted} is wanted.")
            if values.count(value) > 1:
                raise ValueError(f"space.{name} holds {value!r} twice: give each value once.")


def _not_of(hint: Any, value: Any) -> str:
    """What is wanted instead of a value that is not of the type ``hint``; "" where it is."""
    is_bool = isinstance(value, bool)
    if hint is bool:
        return "" if is_bool else "true or false"
    if hint is int:
        return "" if isinstance(value, int) and not is_bool else "a whole number"
    if hint is float:
        is_number = isinstance(value, int | float) and not is_bool
        return "" if is_number and abs(value) <= sys.float_info.max else "a finite number"
    return "" if isinstance(value, str) else f"one of {', '.join(typing.get_args(hint))}"


def check_values(space: dict[str, SpaceEntry], base: MdganParams) -> None:
    """Check that a trial can have every value, beside those that are not searched.

    Args:
        space: that `check_space` has passed.
        base: the parameters of a study.

    Raises:
        ValueError: names the value, or the values that do not go together.
    """
    together = {n: space[n].choice or () for n in _CHECKED_TOGETHER if n in space}
    points: list[dict[str, Any]]
    points = [{name: value} for name, entry in space.items() if name not in together
              for value in entry.choice or entry.bounds]  # fmt: skip
    points += _combined(together)
    for point in points:
        try:
            dataclasses.replace(base, **point)
        except (ValueError, TypeError) as error:
            words = " with ".join(f"{name}={value!r}" for name, value in point.items())
            raise ValueError(f"space holds {words}: {error}") from error


def check_first(space: dict[str, SpaceEntry], first: tuple[dict[str, Any], ...]) -> None:
    """Check that every point to try first lies in the space; it may name fixed parameters.

    Raises:
        ValueError: names point and parameter.
    """
    known = {f.name for f in dataclasses.fields(MdganParams)}
    for i, point in enumerate(first):
        for name, value in point.items():
            if name not in known:
                raise ValueError(f"first[{i}] holds {name}, which is no mdgan parameter.")
            entry = space.get(name)
            if entry is None:
                continue  # the study fixes it
            if wanted := _not_of(_HINTS[name], value):
                raise ValueError(f"first[{i}] holds {name}={value!r}: {wanted} is wanted.")
            inside = (
                value in entry.choice
                if entry.choice is not None
                else entry.bounds[0] <= value <= entry.bounds[1]
            )
            if not inside:
                raise ValueError(
                    f"first[{i}] holds {name}={value!r}, which lies outside the space "
                    f"({entry.describe()}): widen search.space.{name}, or set search.first=[]."
                )


def check_grid(space: dict[str, SpaceEntry]) -> None:
    """Check that the scientific entries can form a grid.

    Raises:
        ValueError: names the entry that has no values to combine.
    """
    scientific = {n: entry for n, entry in space.items() if entry.role == "scientific"}
    if not scientific:
        raise ValueError("sampler is grid, but no entry of space has the role scientific.")
    for name, entry in scientific.items():
        if entry.choice is None:
            raise ValueError(
                f"sampler is grid, but space.{name} is a range: give its values as choice, or "
                "its role as nuisance."
            )
    n_points = math.prod(len(entry.choice or ()) for entry in scientific.values())
    if n_points > MOST_POINTS:
        raise ValueError(
            f"sampler is grid, and the scientific entries of space combine to {n_points:,} points: "
            f"{MOST_POINTS:,} are the most. Take values out, or set sampler=quasi_random."
        )


def grid_points(space: dict[str, SpaceEntry]) -> list[dict[str, Any]]:
    """All combinations of the scientific choices."""
    return _combined({n: e.choice or () for n, e in space.items() if e.role == "scientific"})


def _combined(choices: dict[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    return [dict(zip(choices, one, strict=True)) for one in itertools.product(*choices.values())]
