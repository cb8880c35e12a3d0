"""What a preflight check found, as a table, as one line, or as an error."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from study.base.console import WIDTH, Console
from study.cluster.connection import ResourceError

CLUSTER = "nodes"  # name of the check whose text describes the cluster


class PreflightError(ResourceError):
    """A study cannot run as configured; the message holds every cause with its remedy."""


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
        """What was found, and what to do."""
        return f"{self.text} {self.remedy}".rstrip()


def show_checks(checks: Sequence[Check], console: Console) -> None:
    """A table of all checks, with remedies and hints below what they belong to."""
    header = ["check", "ok", "found"]
    name_width = max(len(check.name) for check in checks)
    width = WIDTH - name_width - len("  yes  ")
    rows = []
    for check in checks:
        lines = _wrapped(check.text, width)
        if check.remedy:
            lines += _wrapped(f"-> {check.remedy}", width)
        rows.append([check.name, "yes" if check.is_ok else "NO", lines[0]])
        rows += [["", "", line] for line in lines[1:]]
    console.table(header, rows)
    console.line()
    failed = [check.name for check in checks if not check.is_ok]
    if failed:
        console.line(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")
    else:
        console.line(f"All {len(checks)} checks are ok")


def require(checks: Sequence[Check], console: Console) -> None:
    """Go on where all checks are ok, with one line and the hints.

    Raises:
        PreflightError: a check failed; the message holds all that failed.
    """
    failed = [check for check in checks if not check.is_ok]
    if failed:
        names = ", ".join(check.name for check in failed)
        console.line(f"Preflight: {len(failed)} of {len(checks)} checks failed: {names}")
        raise refusal(failed)
    cluster = next((check.text for check in checks if check.name == CLUSTER), "")
    console.line(f"Preflight: {len(checks)} checks ok; {cluster}")
    for check in checks:
        if check.remedy:
            console.line(textwrap.fill(f"hint: {check.in_words}", WIDTH))


def refusal(failed: Sequence[Check]) -> PreflightError:
    """The error for checks that failed."""
    return PreflightError("\n       ".join(check.in_words for check in failed))


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="   " if text.startswith("->") else "")
