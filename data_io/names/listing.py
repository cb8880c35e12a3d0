"""A folder of recordings as it is understood: birds, ages and times, before any file is opened.

Layouts: ``<bird>/<age>/[songs/]``, or ``<bird>/[songs/]`` with files whose names say the date
(Sound Analysis Pro, evTAF, AudioMoth) or the age. ``<age>`` is an age in days post hatch, a date,
or any other word. An optional ``birds.csv`` beside the birds turns dates into days post hatch.
Nothing here writes to a recording, and no file is lost: what is not used is listed with the reason.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_io.names.ages import ORDERS, DateOrder, age_order, parse_age
from data_io.names.birds_table import Bird, read_birds
from data_io.names.dating import (
    NO_TIME,
    Orders,
    date_files,
    day_to_date,
    days_of_hatching,
    find_orders,
    other_birds,
)
from data_io.names.folders import NONE, READ, Found, walk
from data_io.names.layouts import (
    LAYOUTS,
    UNDATED,
    Layout,
    Place,
    place_all,
    refusal,
    unlisted_place,
)
from data_io.names.listing_notes import PlacedFolder, notes_on, shortened
from data_io.recordings.table import BETWEEN_REMARKS, SCHEMA, Recording, Recordings

NO_AGE = "neither its folder nor its name says an age or a date: move it to <bird>/<age>/"
NOT_LISTED = "the folder cannot be listed"
EXCLUDED = "excluded in birds.csv"
STATUSES = ("ok", "flagged", "skipped")
_HASHED = ("path", "bird", "age", "recorded_at", "n_bytes", "mtime_ns", "status")


class NoRecordingsError(ValueError):
    """No recording was found; the message says where the search looked."""


@dataclass(frozen=True)
class Survey:
    """The files in a folder of recordings, found once, before any file is opened.

    Attributes:
        root: the folder.
        recordings: every sound file found, by bird, age, time of recording and name.
        fingerprint: hash of names, sizes and times of all files, and of how they are understood.
        n_bytes: size of all files.
        notes: sentences on what a person should look at.
        birds: the lines of birds.csv, by name.
        unlisted: folders that cannot be listed, where recordings of a bird may be, with the cause.
    """

    root: Path
    recordings: Recordings
    fingerprint: str
    n_bytes: int
    notes: list[str]
    birds: dict[str, Bird]
    unlisted: list[tuple[str, str]] = field(default_factory=list)


def survey(root: str | Path, layout: Layout = "auto", date_order: DateOrder = "auto") -> Survey:
    """List a folder of recordings, with the size and time of each file.

    Args:
        root: the folder.
        layout: where the birds and ages are; see `layouts.place_all`.
        date_order: of year, month and day in folders' names; ``auto`` finds it out.

    Raises:
        NoRecordingsError: ``root`` is no folder, or no sound file in it has a bird and an age.
        BirdsTableError: birds.csv is wrong.
    """
    return _survey(Path(root), layout, date_order, must_use=True)


def scan(
    root: str | Path, layout: Layout = "auto", date_order: DateOrder = "auto"
) -> list[Recording]:
    """List the recordings of a small folder one by one, as `survey` does, even if none is usable.

    Raises:
        NoRecordingsError: ``root`` is no folder or holds no sound file.
        BirdsTableError: birds.csv is wrong.
    """
    return list(_survey(Path(root), layout, date_order, must_use=False).recordings)


def _survey(root: Path, layout: Layout, date_order: DateOrder, must_use: bool) -> Survey:
    if layout not in LAYOUTS:
        raise ValueError(f"no layout is called {layout!r}; there are {', '.join(LAYOUTS)}")
    if date_order not in ("auto", *ORDERS):
        raise ValueError(f"no date order is called {date_order!r}; there are auto, ymd, mdy, dmy")
    if not root.is_dir():
        raise NoRecordingsError(
            f"{root} is not a folder. Give the folder that holds <bird>/<age>/songs/*.wav."
        )
    found = walk(root)
    _refuse_nothing(root, found)
    birds, notes = read_birds(root, date_order)
    places = place_all(root, found.folders, layout)
    if must_use and all(place.misplaced for place in places):
        raise NoRecordingsError(refusal(root, found.folders, places, layout))
    orders = find_orders(found.folders, places, date_order)
    unlisted = [(name, why, unlisted_place(root, name, layout)) for name, why in found.unlisted]
    rows, placed = _rows(found, places, orders, birds)
    _add_unlisted(rows, unlisted, birds)
    notes += orders.notes + notes_on(root, found, placed, birds, rows.counts_from_1)
    excluded = {name for name, bird in birds.items() if bird.is_excluded}
    unlisted = [one for one in unlisted if one[2].bird not in excluded]
    notes += [f"{name} cannot be listed: {why}." for name, why, _ in unlisted]
    table = _table(rows, found)
    recordings = Recordings(table)
    del table
    if must_use and not recordings.is_used.any():
        raise NoRecordingsError(_none_usable(root, recordings))
    n_bytes = int(recordings.column("n_bytes").sum())
    return Survey(
        root, recordings, _fingerprint(recordings), n_bytes, shortened(notes), birds,
        [(name, why) for name, why, place in unlisted if not place.misplaced],
    )  # fmt: skip


def _refuse_nothing(root: Path, found: Found) -> None:
    n_files = sum(len(folder.paths) for folder in found.folders)
    n_unread = sum("files are not read" in r for f in found.folders for r in f.reasons.values())
    if n_files > n_unread:
        return
    unread = f" ({n_unread:,} sound files are in formats that are not read)" if n_unread else ""
    causes = "".join(f"; {name or root} cannot be listed: {why}" for name, why in found.unlisted)
    raise NoRecordingsError(
        f"{root} holds no .wav file, nor any other of {', '.join(READ[1:])}{unread}{causes}. "
        "Recordings are looked for in <bird>/<age>/songs/, <bird>/<age>/ and <bird>/; check the "
        "path, or convert the recordings to WAV."
    )


@dataclass
class _Rows:
    """The columns of all files while they are collected; words are numbers."""

    birds: dict[str, int] = field(default_factory=dict)
    ages: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=lambda: {"": 0})
    parts: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    counts_from_1: list[str] = field(default_factory=list)

    def add(self, **columns: NDArray[Any]) -> None:
        for name, column in columns.items():
            self.parts.setdefault(name, []).append(column)

    def taken(self, name: str) -> NDArray[Any]:
        return np.concatenate(self.parts.pop(name))


def _number(words: dict[str, int], word: str) -> int:
    return words.setdefault(word, len(words))


def _rows(
    found: Found, places: Sequence[Place], orders: Orders, birds: dict[str, Bird]
) -> tuple[_Rows, list[PlacedFolder]]:
    """Every file in columns, in the order of the folders, and what each folder turned out to be."""
    rows = _Rows()
    hatching = days_of_hatching(found.folders, places, orders, birds)
    rows.counts_from_1 = sorted(hatching)
    known = {place.bird for place in places if not place.misplaced}
    placed = []
    for folder, place in zip(found.folders, places, strict=True):
        bird = birds.get(place.bird)
        dated = date_files(folder, place, orders, bird, hatching.get(place.bird, 0))
        status, reason = np.zeros(len(folder.paths), np.int8), np.zeros(len(folder.paths), np.int32)
        ages = dated.ages
        if place.misplaced:
            ages = [place.age or ""] * len(ages)
            status[:], reason[:] = 2, _number(rows.reasons, place.misplaced)
        else:
            flags = dated.flags + other_birds(folder, place.bird, known)
            _flag(rows, status, reason, flags)
            if dated.undated.any():
                status[dated.undated], reason[dated.undated] = 2, _number(rows.reasons, NO_AGE)
        if bird and bird.is_excluded:
            status[:], reason[:] = 2, _number(rows.reasons, EXCLUDED)
        for row, why in folder.reasons.items():
            status[row], reason[row] = 2, _number(rows.reasons, why)
        numbers = np.array([_number(rows.ages, age) for age in ages], np.int32)
        rows.add(
            bird=np.full(len(status), _number(rows.birds, place.bird), np.int32),
            age=numbers[dated.age],
            day=dated.day,
            at=dated.at,
            status=status,
            reason=reason,
            n_bytes=folder.n_bytes,
            mtime_ns=folder.mtime_ns,
        )
        flagged = {text: int(mask.sum()) for text, mask in dated.flags}
        used_ages = [ages[i] for i in np.unique(dated.age) if ages[i]]
        is_word = dated.is_word and place.age != UNDATED
        placed.append(PlacedFolder(folder.parts, place, used_ages, len(status), is_word, flagged))
    return rows, placed


def _add_unlisted(
    rows: _Rows, unlisted: Sequence[tuple[str, str, Place]], birds: dict[str, Bird]
) -> None:
    """A row for each folder that cannot be listed, behind those of all files."""
    for _, why, place in unlisted:
        bird = birds.get(place.bird)
        reason = EXCLUDED if bird and bird.is_excluded else f"{NOT_LISTED}: {why}"
        rows.add(
            bird=np.array([_number(rows.birds, place.bird)], np.int32),
            age=np.array([_number(rows.ages, place.age or "")], np.int32),
            day=np.array([NONE], np.int32),
            at=np.array([NO_TIME], np.int64),
            status=np.array([2], np.int8),
            reason=np.array([_number(rows.reasons, reason)], np.int32),
            n_bytes=np.zeros(1, np.int64),
            mtime_ns=np.zeros(1, np.int64),
        )


def _flag(
    rows: _Rows,
    status: NDArray[np.int8],
    reason: NDArray[np.int32],
    flags: list[tuple[str, NDArray[np.bool_]]],
) -> None:
    """Write flags into the columns; several flags of a file are joined."""
    for text, mask in flags:
        words = list(rows.reasons)
        for before in np.unique(reason[mask]):
            here = mask & (reason == before)
            joined = BETWEEN_REMARKS.join(part for part in (words[before], text) if part)
            reason[here] = _number(rows.reasons, joined)
        status[mask] = 1


def _table(rows: _Rows, found: Found) -> pa.Table:
    """Sort the columns and make them a table; column by column, so that none is held twice."""
    bird, age, at = rows.taken("bird"), rows.taken("age"), rows.taken("at")
    birds, ages = list(rows.birds), list(rows.ages)
    order = np.lexsort((
        np.where(at == NO_TIME, np.iinfo(np.int64).max, at),
        _ranks(ages, sorted(ages, key=age_order))[age],
        _ranks(birds, sorted(birds))[bird],
    ))  # fmt: skip
    n = len(order)
    paths = [folder.paths for folder in found.folders]
    found.folders.clear()
    paths.append(pa.array([name for name, _ in found.unlisted], pa.string()))
    whole = pa.concat_arrays(paths)
    del paths
    columns: dict[str, Any] = {"path": whole.take(pa.array(order))}
    del whole
    dph = np.array([NONE if (d := parse_age(a)[0]) is None else d for a in ages], np.int32)[age]
    columns["bird"] = _words(bird[order], birds)
    columns["age"] = _words(age[order], ages)
    columns["dph"] = pa.array(dph[order], mask=dph[order] == NONE)
    columns["date"] = _dates(rows.taken("day")[order])
    columns["recorded_at"] = pa.array(at[order], mask=at[order] == NO_TIME).cast(pa.timestamp("ms"))
    columns["status"] = _words(rows.taken("status")[order].astype(np.int32), list(STATUSES))
    columns["reason"] = _words(rows.taken("reason")[order], list(rows.reasons))
    columns["n_bytes"] = pa.array(rows.taken("n_bytes")[order])
    columns["mtime_ns"] = pa.array(rows.taken("mtime_ns")[order])
    columns |= {f.name: _default(f, n) for f in SCHEMA if f.name not in columns}
    return pa.table(columns).select(SCHEMA.names)


def _ranks(words: list[str], in_order: list[str]) -> NDArray[np.int32]:
    place = {word: i for i, word in enumerate(in_order)}
    return np.array([place[word] for word in words], np.int32)


def _words(numbers: NDArray[np.int32], words: list[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(numbers), pa.array(words, pa.string()))


def _dates(day: NDArray[np.int32]) -> pa.DictionaryArray:
    days, which = np.unique(day, return_inverse=True)
    words = [None if d == NONE else day_to_date(int(d)).isoformat() for d in days]
    known = [word for word in words if word]
    first = len(words) - len(known)  # NONE is the smallest number
    numbers = which.astype(np.int32) - first
    indices = pa.array(numbers, mask=numbers < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(known, pa.string()))


def _default(of: pa.Field, n: int) -> pa.Array:
    """The column of a fact that nobody knows before the files are opened."""
    value: Any = Recording.__dataclass_fields__[of.name].default
    if pa.types.is_dictionary(of.type):
        return _words(np.zeros(n, np.int32), [value])
    return pa.nulls(n, of.type) if value is None else pa.repeat(pa.scalar(value, of.type), n)


def _fingerprint(recordings: Recordings) -> str:
    hashed = hashlib.sha256()
    for name in _HASHED:
        column = recordings.table[name].combine_chunks()
        if pa.types.is_dictionary(column.type):
            hashed.update("\n".join(column.dictionary.to_pylist()).encode() + b"\0")
            column = column.indices
        for buffer in column.buffers():
            if buffer is not None:
                hashed.update(buffer)
    return hashed.hexdigest()


def _none_usable(root: Path, recordings: Recordings) -> str:
    reasons = recordings.table["reason"].unique().to_pylist()
    more = f", and {len(reasons) - 3:,} more reasons" if len(reasons) > 3 else ""
    return (
        f"None of the sound files in {root} can be used: {'; '.join(reasons[:3])}{more}. "
        "Mend this, or give another folder."
    )
