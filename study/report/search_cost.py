"""The cost of a search, by the outcome of its trials, and the trials without a decoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
GROUPS = {
    "completed": "trained to the end",
    "stopped": "stopped early",
    "collapsed": "collapsed",
    "failed": "failed",
}
REPEATED = "candidates again, with fresh seeds"


@dataclass(frozen=True)
class Cost:
    """The cost of a group of trainings.

    Attributes:
        group: their outcome.
        n: number of trainings.
        snippets: seen, up to the last report that counts.
        seconds: known training time; None if no time is known.
        n_untimed: trainings of unknown time, such as one that failed before its first report.
        share: of all known time, None if the group has no known time. If the search has none, share
            of the snippets.
    """

    group: str
    n: int
    snippets: int
    seconds: float | None
    n_untimed: int
    share: float | None


def costs(trials: Sequence[Row], repeats: Sequence[Row]) -> list[Cost]:
    """The cost of a search by the outcome of its trials; empty groups are left out.

    Args:
        trials: rows of trials.parquet; ``seconds`` may be missing.
        repeats: rows of repeats.parquet; rows that repeat the search's own seed count once.
    """
    again = _with_fresh_seeds(trials, repeats)
    groups = {
        words: [row for row in trials if row["status"] == status]
        for status, words in GROUPS.items()
    }
    groups[REPEATED] = again
    everything = [*trials, *again]
    is_timed = any(row.get("seconds") is not None for row in everything)
    measure = "seconds" if is_timed else "snippets_seen"
    total = sum(row.get(measure) or 0 for row in everything)
    found = []
    for words, rows in groups.items():
        if not rows:
            continue
        known = [row["seconds"] for row in rows if row.get("seconds") is not None]
        parts = known if is_timed else [row["snippets_seen"] for row in rows]
        found.append(
            Cost(
                words,
                len(rows),
                sum(row["snippets_seen"] for row in rows),
                sum(known) if known else None,
                len(rows) - len(known),
                sum(parts) / total if parts and total else None,
            )
        )
    return found


def unfinished(trials: Sequence[Row], repeats: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Name, status and reason of each training that collapsed or failed."""
    again = _with_fresh_seeds(trials, repeats)
    named = [(row["trial_id"], row) for row in trials]
    named += [(f"{row['trial_id']}, seed {row['seed']}", row) for row in again]
    return [
        (name, row["status"], row["reason"])
        for name, row in named
        if row["status"] in ("collapsed", "failed")
    ]


def _with_fresh_seeds(trials: Sequence[Row], repeats: Sequence[Row]) -> list[Row]:
    seeds = {row["trial_id"]: row["seed"] for row in trials}
    return [row for row in repeats if row["seed"] != seeds[row["trial_id"]]]
