"""What a search cost, by what became of its trials, and which of them came to nothing."""

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
REPEATED = "candidates again, with other seeds"


@dataclass(frozen=True)
class Cost:
    """What a group of trainings took.

    Attributes:
        group: what became of them.
        n: trainings.
        snippets: seen, up to the last report that counts.
        seconds: of training, as far as known; null where none is.
        n_untimed: trainings whose time is not known, such as one that failed before it reported.
        share: of all known time, null where the group has none; of the snippets where no time at
            all is known.
    """

    group: str
    n: int
    snippets: int
    seconds: float | None
    n_untimed: int
    share: float | None


def costs(trials: Sequence[Row], repeats: Sequence[Row]) -> list[Cost]:
    """What the search took, by what became of its trials; groups without any are left out.

    Args:
        trials: rows of trials.parquet; ``seconds`` may be missing.
        repeats: rows of repeats.parquet; those of the search itself count once.
    """
    again = _with_other_seeds(trials, repeats)
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
    again = _with_other_seeds(trials, repeats)
    named = [(row["trial_id"], row) for row in trials]
    named += [(f"{row['trial_id']}, seed {row['seed']}", row) for row in again]
    return [
        (name, row["status"], row["reason"])
        for name, row in named
        if row["status"] in ("collapsed", "failed")
    ]


def _with_other_seeds(trials: Sequence[Row], repeats: Sequence[Row]) -> list[Row]:
    seeds = {row["trial_id"]: row["seed"] for row in trials}
    return [row for row in repeats if row["seed"] != seeds[row["trial_id"]]]
