"""The reasons why files are flagged or skipped, counted by kind."""

import re
from dataclasses import dataclass

from data_io.recordings.table import BETWEEN_REMARKS, Recordings

# What differs from file to file within a kind: numbers, and the names of other files.
_NUMBERS = re.compile(r"[-+]?\d[\d,.]*(e[-+]?\d+)?")
_OTHER_FILE = re.compile(r"((?:same content as|its sound lies in) ).*")
_REC = re.compile(r"[^:;]*\.rec\b")


@dataclass(frozen=True)
class Reason:
    """One kind of reason.

    Attributes:
        status: flagged or skipped.
        kind: the reason without its numbers.
        n: recordings.
        example: the first recording.
        whole: its reason.
    """

    status: str
    kind: str
    n: int
    example: str
    whole: str


def kind_of(reason: str) -> str:
    """A reason without what differs from file to file."""
    return _NUMBERS.sub("N", _REC.sub(" its .rec", _OTHER_FILE.sub(r"\1another file", reason)))


def reasons(recordings: Recordings) -> list[Reason]:
    """Every kind of reason, skipped before flagged, the most frequent first.

    A recording with several remarks counts for each of them.
    """
    found: dict[tuple[str, str], Reason] = {}
    for recording in recordings.where(recordings.column("status") != "ok"):
        for whole in recording.reason.split(BETWEEN_REMARKS):
            kind = kind_of(whole)
            key = (recording.status, kind)
            old = found.get(key, Reason(recording.status, kind, 0, recording.path, whole))
            found[key] = Reason(old.status, kind, old.n + 1, old.example, old.whole)
    return sorted(found.values(), key=lambda one: (one.status != "skipped", -one.n, one.kind))
