"""birds.csv: what a laboratory knows about its birds and the folders of recordings do not say."""

import csv
import datetime
import io
import re
from dataclasses import dataclass
from pathlib import Path

from data_io.names.ages import (
    DateOrder,
    has_own_order,
    likeliest_order,
    possible_orders,
    readings,
)

BIRDS_CSV = "birds.csv"
COLUMNS = ("bird", "hatch_date", "tutor", "sex", "exclude")
YES = ("yes", "y", "true", "1", "x")
NO = ("", "no", "n", "false", "0")

_MIDNIGHT = re.compile(r"[ T]0{1,2}:00(:00(\.0+)?)?$")  # spreadsheets add it to dates


class BirdsTableError(ValueError):
    """birds.csv cannot be understood; the message names line and value."""


@dataclass(frozen=True)
class Bird:
    """One line of birds.csv.

    Attributes:
        name: as the folder of its recordings is called.
        hatch_date: day 0 of its age; None if not given.
        tutor: name of the bird that it learned from; empty if not given.
        sex: as it was typed.
        is_excluded: True if its recordings are to be left out.
    """

    name: str
    hatch_date: datetime.date | None = None
    tutor: str = ""
    sex: str = ""
    is_excluded: bool = False


def read_birds(root: Path, date_order: DateOrder = "auto") -> tuple[dict[str, Bird], list[str]]:
    """Read ``birds.csv`` in a folder of recordings, if there is one.

    The file is text in UTF-8, with columns separated by commas, semicolons or tabs, in any order,
    of which ``bird`` is needed and ``hatch_date``, ``tutor``, ``sex``, ``exclude`` are optional.
    A hatch date may be written as `ages.parse_age` reads dates; ``exclude`` is yes, no or empty.

    Returns:
        Every bird by its name, and sentences on what a person should look at.

    Raises:
        BirdsTableError: a column, date or answer is wrong, or a bird is there twice.
    """
    path = root / BIRDS_CSV
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return {}, []
    except OSError as error:
        raise BirdsTableError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise BirdsTableError(
            f"{path}, line {line}: the text is not UTF-8. Save the table as 'CSV UTF-8'."
        ) from None
    header, lines = _lines(path, text)
    columns, notes = _columns(path, header)
    cells = {number: _cells(path, number, line, columns) for number, line in lines}
    order, order_notes = _hatch_order([row["hatch_date"] for row in cells.values()], date_order)
    birds: dict[str, Bird] = {}
    line_of: dict[str, int] = {}
    for number, row in cells.items():
        bird = _bird(path, number, row, order)
        if bird.name in birds:
            raise BirdsTableError(
                f"{path}, line {number}: bird {bird.name!r} is in line {line_of[bird.name]} "
                "already. Keep one of the two."
            )
        birds[bird.name], line_of[bird.name] = bird, number
    notes += order_notes
    notes += [
        f"birds.csv names {bird.name} as its own tutor."
        for bird in birds.values()
        if bird.tutor == bird.name
    ]
    return birds, notes


def _lines(path: Path, text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and every other line that is not empty with its number."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    found: list[tuple[int, list[str]]] = []
    number = 1
    try:
        for line in reader:
            cells = [cell.strip() for cell in line]
            if any(cells):
                found.append((number, cells))
            number = reader.line_num + 1
    except csv.Error as error:
        raise BirdsTableError(
            f"{path}, line {reader.line_num}: {error}. Each quote that opens must be closed."
        ) from None
    if not found:
        raise BirdsTableError(f"{path} is empty. Write a table of birds, or remove the file.")
    return found[0][1], found[1:]


def _columns(path: Path, header: list[str]) -> tuple[list[str], list[str]]:
    """Names of the columns in lower case, and a sentence on those that are not read."""
    columns = [name.casefold() for name in header]
    known = [name for name in columns if name in COLUMNS]
    if twice := sorted({name for name in known if known.count(name) > 1}):
        raise BirdsTableError(f"{path}: two columns are called {twice[0]!r}. Keep one of them.")
    if "bird" not in known:
        raise BirdsTableError(
            f"{path}: no column is called 'bird'; the first line holds {', '.join(header)}. "
            f"The first line must name the columns: {', '.join(COLUMNS)}."
        )
    unread = [name for name in header if name and name.casefold() not in COLUMNS]
    if not unread:
        return columns, []
    note = (
        f"birds.csv: {', '.join(unread)} {'is' if len(unread) == 1 else 'are'} not read; "
        f"the columns that are read are {', '.join(COLUMNS)}."
    )
    return columns, [note]


def _cells(path: Path, number: int, line: list[str], columns: list[str]) -> dict[str, str]:
    if any(line[len(columns) :]):
        raise BirdsTableError(
            f"{path}, line {number}: {len(line)} cells, but {len(columns)} columns are named. "
            "Put a text that holds the separator into quotes."
        )
    filled = [*line, *[""] * (len(columns) - len(line))]
    return dict.fromkeys(COLUMNS, "") | dict(zip(columns, filled, strict=False))


def _hatch_order(texts: list[str], date_order: DateOrder) -> tuple[DateOrder, list[str]]:
    """The order of year, month and day in the hatch dates, and a sentence if it is a guess."""
    unclear = sorted({d for t in texts if readings(d := _day(t)) and not has_own_order(d)})
    if date_order != "auto" or not unclear:
        return date_order, []
    possible = possible_orders(unclear)
    if not possible:
        return "auto", [
            f"birds.csv: hatch dates are written in several orders, for instance {unclear[0]}; "
            "write them as 2018-09-19."
        ]
    order = likeliest_order(unclear, possible)
    note = (
        f"birds.csv: hatch date {unclear[0]} is read as {readings(unclear[0])[order]}; it could be "
        "another day: write it as 2018-09-19, or set data.date_order."
    )
    return order, [note] if len(possible) > 1 else []  # type: ignore[return-value]


def _day(text: str) -> str:
    return _MIDNIGHT.sub("", text)


def _bird(path: Path, number: int, row: dict[str, str], order: DateOrder) -> Bird:
    if not row["bird"]:
        raise BirdsTableError(
            f"{path}, line {number}: no bird is named. Name it, or empty the line."
        )
    hatch_date = None
    if row["hatch_date"]:
        dates = readings(_day(row["hatch_date"]))
        if order == "auto" or len(set(dates.values())) == 1:
            hatch_date = next(iter(dates.values()), None)
        else:
            hatch_date = dates.get(order)
        if hatch_date is None:
            raise BirdsTableError(
                f"{path}, line {number}: hatch_date {row['hatch_date']!r} of {row['bird']} is no "
                f"date{'' if order == 'auto' else f' in the order {order}'}. "
                "Write it as 2018-09-19."
            )
    answer = row["exclude"].casefold()
    if answer not in YES + NO:
        raise BirdsTableError(
            f"{path}, line {number}: exclude {row['exclude']!r} of {row['bird']} is neither yes "
            "nor no. Write yes, no or nothing."
        )
    return Bird(row["bird"], hatch_date, row["tutor"], row["sex"], answer in YES)
