"""The split of recordings in three sides, by bout.

Songs of one bout are near copies of each other. Held out file by file, a decoder is measured on
copies of what it has learned from. So whole bouts go to one side: training, selection (what trials
are compared on) or report (looked at once, by the decoder that was chosen). A bird and age with too
few bouts for that has blocks of time instead, and `cuts_bouts` names it.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_io.names.ages import natural
from data_io.recordings.table import SIDES, BirdAge, Recordings

BOUT_GAP_S = 60.0  # a longer silence between two files ends a bout
# A longer bout is cut into blocks of time of this share, so that every side can have its part.
LARGEST_UNIT = 0.1


def assign_split(
    recordings: Recordings, selection_fraction: float, report_fraction: float, seed: int
) -> Recordings:
    """Put the recordings of each bird and age on three sides, bout by bout.

    Recordings are in order of time where all tell it, else of name; pieces of a file in order. A
    silence of more than `BOUT_GAP_S` ends a bout. Without times, and where a bout holds more than
    `LARGEST_UNIT` of the sound, blocks of neighbours take the place of bouts. The longest bout
    trains; a held-out side takes others, drawn by ``seed``, until it has its share of the seconds.
    With two bouts or blocks there is no report side, with one only training.

    Args:
        recordings: of a study, in any order.
        selection_fraction: share of the seconds of each bird and age on the selection side.
        report_fraction: the same for the report side.
        seed: draws the bouts; the names and contents of the recordings decide the rest.

    Returns:
        The same recordings with their side; skipped ones have none.
    """
    sides = np.zeros(len(recordings), np.int8)
    used = np.flatnonzero(recordings.is_used)
    table = recordings.table.select(_Group.columns).take(pa.array(used))
    for rows in recordings.taken(used).rows_by_bird_age().values():
        group = _Group(table.take(pa.array(rows)))
        sides[used[rows]] = 1 + _sides(group, (selection_fraction, report_fraction), seed)
    words = pa.DictionaryArray.from_arrays(pa.array(sides.astype(np.int32)), ["", *SIDES])
    return recordings.with_column("split", words)


class _Group:
    """What the split needs to know of the recordings of a bird and age, in order of time.

    Attributes:
        order: [n] places in the table.
        seconds: [n] of each.
        begins_bout: [n] whether a silence that ends a bout comes before each; never, unless all
            tell the time.
        keys: [n] tell each from all others, whatever the order of the list.
    """

    columns = ("path", "of_file", "start_s", "recorded_at", "seconds", "sha256")

    def __init__(self, table: pa.Table) -> None:
        files = [file or path for file, path in _pairs(table, "of_file", "path")]
        start_s = table["start_s"].to_numpy()
        starts_s = None
        if not table["recorded_at"].null_count:
            times = table["recorded_at"].to_numpy()
            starts_s = (times - times.min()) / np.timedelta64(1, "s") + start_s
        names = [natural(file) for file in files]
        when = start_s if starts_s is None else starts_s
        by = (names, when) if starts_s is None else (when, names)
        keys = list(zip(*by, strict=True))
        self.order = np.array(sorted(range(len(files)), key=keys.__getitem__))
        self.seconds = table["seconds"].to_numpy()[self.order]
        self.begins_bout = np.zeros(len(files), dtype=bool)
        if starts_s is not None:
            starts_s = starts_s[self.order]
            self.begins_bout[1:] = starts_s[1:] - (starts_s + self.seconds)[:-1] > BOUT_GAP_S
        tells = [f"{sha256}:{start}" for sha256, start in _pairs(table, "sha256", "start_s")]
        self.keys = [tells[i] for i in self.order]


def _pairs(table: pa.Table, first: str, second: str) -> Iterable[tuple[Any, Any]]:
    return zip(table[first].to_pylist(), table[second].to_pylist(), strict=True)


def _units(group: _Group) -> NDArray[np.int64]:
    """The number of the bout, or of the block of a long bout, of each recording [n], from 0."""
    seconds = group.seconds
    bouts = np.cumsum(group.begins_bout)
    largest = LARGEST_UNIT * seconds.sum()
    unit_of, next_unit = np.zeros(len(seconds), dtype=np.int64), 0
    for bout in range(bouts[-1] + 1):
        inside = bouts == bout
        until = np.cumsum(seconds[inside])
        n_blocks = max(1, round(until[-1] / largest)) if until[-1] > largest else 1
        middle = until - seconds[inside] / 2
        block = np.minimum((middle / until[-1] * n_blocks).astype(np.int64), n_blocks - 1)
        block = np.unique(block, return_inverse=True)[1]  # a long recording may leave one empty
        unit_of[inside] = next_unit + block
        next_unit += int(block[-1]) + 1
    return unit_of


def _sides(group: _Group, fractions: tuple[float, float], seed: int) -> NDArray[np.int8]:
    """The side of each recording of a bird and age [n], as its place in `SIDES`."""
    units = _units(group)
    n_units = int(units[-1]) + 1
    seconds = np.bincount(units, weights=group.seconds)
    first = [int(np.argmax(units == unit)) for unit in range(n_units)]
    longest = int(np.argmax(seconds))  # it always trains: held out, it could be most of the sound
    left = sorted(
        set(range(n_units)) - {longest}, key=lambda unit: _draw(group.keys[first[unit]], seed)
    )
    side_of = np.zeros(n_units, np.int8)
    for side, fraction in enumerate(fractions, 1):
        taken = 0.0
        n_to_leave = int(side == 1 and len(left) > 1)  # for the report side
        while len(left) > n_to_leave:
            if taken and taken + seconds[left[0]] / 2 > fraction * seconds.sum():
                break
            side_of[left[0]] = side
            taken += seconds[left.pop(0)]
    sides = np.zeros(len(units), np.int8)
    sides[group.order] = side_of[units]
    return sides


def _draw(key: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()


def without_side(recordings: Recordings) -> dict[BirdAge, list[str]]:
    """The sides that a bird and age lacks, because it has too few bouts or blocks of time."""
    lacking = {}
    for bird_age, group in recordings.used.by_bird_age().items():
        there = set(group.column("split"))
        if missing := [side for side in SIDES if side not in there]:
            lacking[bird_age] = missing
    return lacking


def cuts_bouts(recordings: Recordings) -> list[BirdAge]:
    """Birds and ages with neighbours on two sides that may be of one bout.

    They have too few bouts, or not all of their recordings tell the time.
    """
    found = []
    for bird_age, group in recordings.used.by_bird_age().items():
        in_time = _Group(group.table.select(_Group.columns))
        side = group.column("split")[in_time.order]
        is_cut = bool((~in_time.begins_bout[1:] & (side[1:] != side[:-1])).any())
        if is_cut:
            found.append(bird_age)
    return found
