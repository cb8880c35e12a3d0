"""The split of recordings in three sides that share no bout.

Songs of one bout are near copies of each other. Held out file by file, a decoder is measured on
copies of what it has learned from. So whole bouts go to one side: training, selection (what trials
are compared on) or report (looked at once, by the decoder that was chosen).
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from data_io.names import natural_order
from data_io.recordings import (
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
    `LARGEST_UNIT` of the sound, blocks of neighbours take the place of bouts. A side takes
    bouts, drawn by ``seed``, until it has its share of the seconds. With two bouts or blocks there
    is no report side, with one only training.

    Args:
        recordings: of a study, in any order.
        selection_fraction: share of the seconds of each bird and age on the selection side.
        report_fraction: the same for the report side.
        seed: draws the bouts; the names and contents of the recordings decide the rest.

    Returns:
        The same recordings with their side; skipped ones have none.
    """
    sides = np.full(len(recordings), "", dtype=object)
    rows_of: dict[str, int] = {path: i for i, path in enumerate(recordings.column("path"))}
    for group in recordings.used.by_bird_age().values():
        rows = _in_time(list(group))
        units = _units(rows)
        for row, side in zip(
            rows, _sides(rows, units, selection_fraction, report_fraction, seed), strict=True
        ):
            sides[rows_of[row.path]] = side
    return recordings.with_column("split", sides)


def _in_time(rows: list[Recording]) -> list[Recording]:
    """Recordings in order of time; of name, unless all tell the time."""
    by_name = sorted(rows, key=lambda row: (natural_order(row.file), row.start_s))
    if _starts_s(rows) is None:
        return by_name
    return sorted(by_name, key=lambda row: (row.recorded_at, row.start_s))


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


def _sides(
    rows: list[Recording], units: NDArray[np.int64], selection: float, report: float, seed: int
) -> list[str]:
    n_units = int(units[-1]) + 1
    seconds = np.bincount(units, weights=[row.seconds for row in rows])
    first = [rows[int(np.argmax(units == unit))] for unit in range(n_units)]
    drawn = sorted(range(n_units), key=lambda unit: _draw(first[unit], seed))
    side_of = dict.fromkeys(range(n_units), TRAINING)
    wanted = [(SELECTION, selection)] if n_units < 3 else [(SELECTION, selection), (REPORT, report)]
    for side, fraction in wanted if n_units > 1 else []:
        aim, taken = fraction * seconds.sum(), 0.0
        left = [unit for unit in drawn if side_of[unit] == TRAINING]
        n_to_leave = 1 if side == wanted[-1][0] else 2
        for unit in left[: len(left) - n_to_leave]:
            if taken and taken + seconds[unit] / 2 > aim:
                break
            side_of[unit] = side
            taken += seconds[unit]
    return [side_of[int(unit)] for unit in units]


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
