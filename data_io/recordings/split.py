"""The split of recordings in three sides, by bout.

Songs of one bout are near copies of each other. Held out file by file, a decoder is measured on
copies of what it has learned from. So whole bouts go to one side: training, selection (what trials
are compared on) or report (looked at once, by the decoder that was chosen). A bird and age with too
few bouts for that has blocks of time instead, and `cuts_bouts` names it.
"""

import hashlib

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_io.names.ages import natural
from data_io.recordings.table import (
    REPORT,
    SELECTION,
    SIDES,
    TRAINING,
    BirdAge,
    Recording,
    Recordings,
)

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
    words = ["", *SIDES]
    used = np.flatnonzero(recordings.is_used)
    for rows in recordings.taken(used).rows_by_bird_age().values():
        group = recordings.taken(used[rows])
        for row, side in _sides(list(group), selection_fraction, report_fraction, seed).items():
            sides[used[rows[row]]] = words.index(side)
    column = pa.DictionaryArray.from_arrays(pa.array(sides.astype(np.int32)), words)
    return recordings.with_column("split", column)


def _in_time(rows: list[Recording]) -> list[int]:
    """Places of the recordings in order of time; of name, unless all tell the time."""
    by_name = sorted(range(len(rows)), key=lambda i: (natural(rows[i].file), rows[i].start_s))
    starts = _starts_s(rows)
    return by_name if starts is None else sorted(by_name, key=lambda i: starts[i])


def _starts_s(rows: list[Recording]) -> NDArray[np.float64] | None:
    """Seconds from the first file to the start of each recording [n]; None unless all tell."""
    times = [row.recorded_at for row in rows if row.recorded_at is not None]
    if len(times) < len(rows):
        return None
    since = [(time - min(times)).total_seconds() for time in times]
    return np.array(since) + [row.start_s for row in rows]


def _units(rows: list[Recording]) -> NDArray[np.int64]:
    """The number of the bout, or of the block of a long bout, of each recording [n], from 0."""
    seconds = np.array([row.seconds for row in rows])
    breaks = np.zeros(len(rows), dtype=bool)
    if (starts := _starts_s(rows)) is not None:
        breaks[1:] = starts[1:] - (starts + seconds)[:-1] > BOUT_GAP_S
    bouts = np.cumsum(breaks)
    largest = LARGEST_UNIT * seconds.sum()
    unit_of, next_unit = np.zeros(len(rows), dtype=np.int64), 0
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


def _sides(group: list[Recording], selection: float, report: float, seed: int) -> dict[int, str]:
    """The side of each recording of a bird and age, by its place in the list."""
    order = _in_time(group)
    rows = [group[i] for i in order]
    units = _units(rows)
    n_units = int(units[-1]) + 1
    seconds = np.bincount(units, weights=[row.seconds for row in rows])
    first = [rows[int(np.argmax(units == unit))] for unit in range(n_units)]
    longest = int(np.argmax(seconds))  # it always trains: held out, it could be most of the sound
    left = sorted(set(range(n_units)) - {longest}, key=lambda unit: _draw(first[unit], seed))
    side_of = dict.fromkeys(range(n_units), TRAINING)
    for side, fraction in ((SELECTION, selection), (REPORT, report)):
        taken = 0.0
        n_to_leave = int(side == SELECTION and len(left) > 1)  # for the report side
        while len(left) > n_to_leave:
            if taken and taken + seconds[left[0]] / 2 > fraction * seconds.sum():
                break
            side_of[left[0]] = side
            taken += seconds[left.pop(0)]
    return {i: side_of[int(unit)] for i, unit in zip(order, units, strict=True)}


def _draw(recording: Recording, seed: int) -> str:
    key = f"{seed}:{recording.sha256}:{recording.start_s}"
    return hashlib.sha256(key.encode()).hexdigest()


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
        side, time = group.column("split"), group.column("recorded_at")
        if np.isnat(time).any():
            is_cut = len(set(side)) > 1
        else:
            start = time.astype("datetime64[ms]").astype(np.int64) / 1000 + group.column("start_s")
            order = np.argsort(start, kind="stable")
            end = (start + group.column("seconds"))[order]
            is_near = start[order][1:] - end[:-1] <= BOUT_GAP_S
            is_cut = bool((is_near & (side[order][1:] != side[order][:-1])).any())
        if is_cut:
            found.append(bird_age)
    return found
