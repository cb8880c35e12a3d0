"""The result of a check: as a row of a table, as one line, or as an error."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from study.base.console import WIDTH, Console
from study.cluster.surroundings import ResourceError

CLUSTER = "nodes"  # name of the check whose text describes the cluster


@dataclass(frozen=True)
class Check:
    """One thing that a study needs.

    Attributes:
        name: a word or two.
        is_ok: whether the study can run as far as this goes.
        text: what was found.
        remedy: what to change; where the check is ok, a hint.
    """

    name: str
    is_ok: bool
    text: str
    remedy: str = ""

    @property
    def in_words(self) -> str:
        """The finding, and the remedy."""
        return f"{self.text} {self.remedy}".rstrip()


class PreflightError(ResourceError):
    """A study cannot run as configured.

    Args:
        failed: checks; the message holds every cause with its remedy.
    """

    def __init__(self, failed: Sequence[Check]):
        super().__init__("\n       ".join(check.in_words for check in failed))


def show_checks(checks: Sequence[Check], console: Console) -> None:
    """Print a table of all checks; remedies and hints are below what they belong to."""
    header = ["check", "ok", "found"]
    name_width = max(len(check.name) for check in checks)
    width = WIDTH - name_width - len("  yes  ")
    rows = []
    for check in checks:
        lines = textwrap.wrap(check.text, width)
        if check.remedy:
            lines += textwrap.wrap(f"-> {check.remedy}", width, subsequent_indent="   ")
        rows.append([check.name, "yes" if check.is_ok else "NO", lines[0]])
        rows += [["", "", line] for line in lines[1:]]
    console.table(header, rows)
    console.line()
    if failed := _failed(checks):
        console.line(_count_failed(checks, failed))
    else:
        console.line(f"All {len(checks)} checks are ok")


def require(checks: Sequence[Check], console: Console) -> None:
    """Print one line and the hints where all checks are ok.

    Raises:
        PreflightError: a check failed; the message holds all that failed.
    """
    if failed := _failed(checks):
        console.line(f"Preflight: {_count_failed(checks, failed)}")
        raise PreflightError(failed)
    cluster = next((check.text for check in checks if check.name == CLUSTER), "")
    console.line(f"Preflight: {len(checks)} checks ok; {cluster}")
    for check in checks:
        if check.remedy:
            console.line(textwrap.fill(f"hint: {check.in_words}", WIDTH))


def _failed(checks: Sequence[Check]) -> list[Check]:
    return [check for check in checks if not check.is_ok]


def _count_failed(checks: Sequence[Check], failed: Sequence[Check]) -> str:
    names = ", ".join(check.name for check in failed)
    return f"{len(failed)} of {len(checks)} checks failed: {names}"
