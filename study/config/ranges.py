"""Ranges of numbers in the configuration."""

from typing import Any

Range = tuple[float, float]


def check_ranges(config: Any, ranges: dict[str, Range]) -> None:
    """Check that every number of ``ranges`` lies in its own, ends included; None is no number.

    Raises:
        ValueError: names the first that does not.
    """
    for name, (least, most) in ranges.items():
        value = getattr(config, name)
        if value is not None and not least <= value <= most:
            cause = f"be {least:,} or more" if value < least else f"be {most:,} or less"
            null = ", or null" if _may_be_none(config, name) else ""
            raise ValueError(f"{name} is {value}: it must {cause}{null}.")


def _may_be_none(config: Any, name: str) -> bool:
    return "None" in str(type(config).__dataclass_fields__[name].type)
