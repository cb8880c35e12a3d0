"""Age, date and time of every file of a folder: by the folder, the names and the hatch date."""

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_io.names.ages import (
    DateOrder,
    has_own_order,
    likeliest_order,
    parse_age,
    possible_orders,
    readings,
)
from data_io.names.birds_table import Bird
from data_io.names.file_names import MS_PER_DAY, NAME_ORDERS, bird_in, date_of_digits
from data_io.names.folders import EPOCH_DAY, NONE, Folder
from data_io.names.layouts import Place

NO_TIME = np.iinfo(np.int64).min  # numpy's NaT
HOUR_MS = 3_600_000
FOLDER_SAYS, RECORDED_ON, NAME_SAYS = "the folder says ", "recorded on ", "the name says bird "
FLAGS = (FOLDER_SAYS, RECORDED_ON, NAME_SAYS)  # all that is flagged begins so
OTHER_DAY = "copying a file or changing the clock can move it to another day"


@dataclass(frozen=True)
class Orders:
    """The order of year, month and day in names.

    Attributes:
        folders: in names of folders that do not say it themselves.
        files: in six digits in names of files.
        notes: sentences on what was guessed.
    """

    folders: DateOrder
    files: str
    notes: list[str]


@dataclass(frozen=True)
class Dated:
    """Age, date and time of the files of a folder.

    Attributes:
        ages: the different ages, in one spelling each.
        age: which of them each file has [n].
        day: recording date in days since 1970 [n]; or `NONE`.
        at: when each file begins, in milliseconds since 1970, local [n]; or `NO_TIME`.
        flags: what a person should look at, and which files it concerns [n].
        undated: files of which nothing says the age [n].
        is_word: True if the folder says something that is neither an age nor a date.
    """

    ages: list[str]
    age: NDArray[np.int32]
    day: NDArray[np.int32]
    at: NDArray[np.int64]
    flags: list[tuple[str, NDArray[np.bool_]]]
    undated: NDArray[np.bool_]
    is_word: bool = False


def find_orders(
    folders: Sequence[Folder], places: Sequence[Place], date_order: DateOrder
) -> Orders:
    """Find out how dates are written, from all folders and files at once."""
    digits = {f"{number:06d}" for folder in folders for number in _unique(folder.digits)}
    files = likeliest_order(sorted(digits), NAME_ORDERS)
    unclear: dict[str, set[datetime.date]] = {}  # each with the dates that names below it say
    for folder, place in zip(folders, places, strict=True):
        if place.age and not place.misplaced and readings(place.age.strip()):
            text = place.age.strip()
            if not has_own_order(text):
                unclear.setdefault(text, set()).update(_days_said(folder, files))
    if date_order != "auto" or not unclear:
        return Orders(date_order, files, [])
    possible = possible_orders(unclear)
    if not possible:
        note = (
            f"No order of year, month and day fits all of {_some(sorted(unclear))}: each is read "
            "by itself; set data.date_order, or name the folders as 2018-09-19."
        )
        return Orders("auto", files, [note])
    n_agree = {
        order: sum(readings(text)[order] in said for text, said in unclear.items())
        for order in possible
    }
    best = [order for order in possible if n_agree[order] == max(n_agree.values())]
    order = likeliest_order(sorted(unclear), best)
    others = [o for o in best if any(readings(t)[o] != readings(t)[order] for t in unclear)]
    notes = [_guess(sorted(unclear), order, others)] if others else []
    return Orders(order, files, notes)  # type: ignore[arg-type]


def _guess(unclear: list[str], order: str, others: list[str]) -> str:
    text = next(t for t in unclear for o in others if readings(t)[o] != readings(t)[order])
    other = sorted({readings(text)[o].isoformat() for o in others} - {f"{readings(text)[order]}"})
    return (
        f"Folder {text} is read as {readings(text)[order]} (order {order}, for each of "
        f"{len(unclear):,} names written so); it could be {' or '.join(other)}: set "
        "data.date_order if it is."
    )


def _days_said(folder: Folder, order: str) -> set[datetime.date]:
    dates = {day_to_date(day) for day in _unique(folder.day)}
    return dates | {date_of_digits(f"{d:06d}", order) for d in _unique(folder.digits)}


def date_files(
    folder: Folder, place: Place, orders: Orders, bird: Bird | None, day_of_hatching: int
) -> Dated:
    """Find age, date and time of the files of one folder.

    Args:
        folder: with what the files' names say.
        place: its bird, and perhaps its age.
        orders: of year, month and day.
        bird: its line in birds.csv, if it has one.
        day_of_hatching: the dph that folders give the day of hatching: 0, or 1.
    """
    hatch = bird.hatch_date if bird else None
    if place.age is None:
        return _dated_by_names(folder, _days(folder, orders.files, None), hatch)
    dph, iso = parse_age(place.age, orders.folders)
    date = datetime.date.fromisoformat(iso) if iso else None
    age, says, flags = place.age, iso, []
    if date:
        age = str((date - hatch).days) if hatch and date >= hatch else date.isoformat()
    elif dph is not None:
        age = str(dph)
        if hatch:
            date = hatch + datetime.timedelta(days=dph - day_of_hatching)
            says = f"{dph} dph, which is {date} by hatch_date {hatch} in birds.csv"
    day = _days(folder, orders.files, date)
    at = _moments(folder, day)
    everywhere = np.ones(len(day), bool)
    if iso and date and hatch and date < hatch:
        flags.append((_before_hatching(date, hatch), everywhere))
    if date:
        flags += _contradictions(date, str(says), day, at)
    if iso and date:
        day = np.full(len(day), date.toordinal() - EPOCH_DAY, np.int32)
    is_word = dph is None and iso is None
    return Dated([age], np.zeros(len(day), np.int32), day, at, flags, ~everywhere, is_word)


def _moments(folder: Folder, day: NDArray[np.int32]) -> NDArray[np.int64]:
    is_timed = (day != NONE) & (folder.ms != NONE)
    return np.where(is_timed, day.astype(np.int64) * MS_PER_DAY + folder.ms, NO_TIME)


def _dated_by_names(folder: Folder, day: NDArray[np.int32], hatch: datetime.date | None) -> Dated:
    """The ages of a bird without folders of ages: dates or days post hatch in names of files."""
    ages = [""]
    age = np.zeros(len(day), np.int32)
    flags = []
    for number in _unique(day):
        date, here = day_to_date(number), day == number
        age[here] = len(ages)
        ages.append(str((date - hatch).days) if hatch and date >= hatch else date.isoformat())
        if hatch and date < hatch:
            flags.append((_before_hatching(date, hatch), here))
    for dph in _unique(folder.dph):
        age[folder.dph == dph] = len(ages)
        ages.append(str(dph))
    return Dated(ages, age, day, _moments(folder, day), flags, age == 0)


def _before_hatching(date: datetime.date, hatch: datetime.date) -> str:
    return f"{RECORDED_ON}{date}, before the bird's hatch_date {hatch} in birds.csv"


def _contradictions(
    date: datetime.date, folder_says: str, day: NDArray[np.int32], at: NDArray[np.int64]
) -> list[tuple[str, NDArray[np.bool_]]]:
    """Files whose names say another day than their folder, unless it is an hour from there."""
    expected = date.toordinal() - EPOCH_DAY
    is_other = (day != NONE) & (day != expected)
    if not is_other.any():
        return []
    timed = at != NO_TIME
    for shift in (-HOUR_MS, HOUR_MS):  # summer time
        is_other &= ~(timed & (np.where(timed, at + shift, 0) // MS_PER_DAY == expected))
    return [
        (f"{FOLDER_SAYS}{folder_says}, the name {day_to_date(number)}: {OTHER_DAY}",
         is_other & (day == number))
        for number in _unique(day[is_other])
    ]  # fmt: skip


def _days(folder: Folder, order: str, date: datetime.date | None) -> NDArray[np.int32]:
    """Days that the names say [n]; six digits that can be the folder's date are that date."""
    day = folder.day.copy()
    for number in _unique(folder.digits):
        digits = f"{number:06d}"
        is_folders = date is not None and date in readings(digits).values()
        found = date if date is not None and is_folders else date_of_digits(digits, order)
        day[folder.digits == number] = found.toordinal() - EPOCH_DAY
    return day


def days_of_hatching(
    folders: Sequence[Folder], places: Sequence[Place], orders: Orders, birds: dict[str, Bird]
) -> dict[str, int]:
    """Birds whose folders count days from 1, by birds.csv and the dates in names of files.

    A bird is among them if each of its folders, two or more, says one day more than the dates.
    """
    more: dict[str, list[int]] = {}
    for folder, place in zip(folders, places, strict=True):
        hatch = birds[place.bird].hatch_date if place.bird in birds else None
        dph = parse_age(place.age, orders.folders)[0] if place.age else None
        if hatch is None or dph is None or place.misplaced:
            continue
        days = _days(folder, orders.files, hatch + datetime.timedelta(days=dph - 1))
        more.setdefault(place.bird, []).extend(
            dph - (day_to_date(number) - hatch).days for number in _unique(days)
        )
    return {bird: 1 for bird, found in more.items() if len(found) > 1 and set(found) == {1}}


def other_birds(folder: Folder, bird: str, known: set[str]) -> list[tuple[str, NDArray[np.bool_]]]:
    """Files that are named after another bird of the data."""
    others = sorted((folder.birds_named & known) - {bird})
    if not others:
        return []
    named = np.array([bird_in(path.rpartition("/")[2]) for path in folder.paths.to_pylist()])
    return [
        (f"{NAME_SAYS}{other}, but the file lies in the folder of {bird}", named == other)
        for other in others
    ]


def day_to_date(day: int) -> datetime.date:
    """The date of a number of days since 1970."""
    return datetime.date.fromordinal(day + EPOCH_DAY)


def _unique(column: NDArray[np.int32]) -> list[int]:
    return [int(value) for value in np.unique(column) if value != NONE]


def _some(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - 3:,} more" if len(shown) > 3 else ""
    return ", ".join(shown[:3]) + more
