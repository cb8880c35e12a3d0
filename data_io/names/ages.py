"""Ages as people write them: days post hatch, dates in many spellings, and other words."""

import datetime
import re
from collections.abc import Collection, Iterable
from typing import Literal

DateOrder = Literal["auto", "ymd", "mdy", "dmy"]
ORDERS = ("mdy", "ymd", "dmy")  # the first is preferred in folders' names: evTAF's habit

OLDEST_DPH = 9_999  # 27 years: a larger number is not the age of a songbird
YEARS = range(1969, 2069)  # those that two digits can mean, as POSIX reads them

_MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august",
           "september", "october", "november", "december")  # fmt: skip
_GAP = r"[-_. ]*"
_POST_HATCH = rf"post{_GAP}hatch(?:ing)?"
_BEFORE = rf"(?:p|d|days?|dph|dah|pd|phd|pnd|age|{_POST_HATCH}{_GAP}days?){_GAP}"
_AFTER = rf"{_GAP}(?:d|dph|dah|phd|pnd|days?(?:{_GAP}(?:old|{_POST_HATCH}))?)"
_DPH = re.compile(rf"(?:{_BEFORE})?(\d{{1,5}})(?:{_AFTER})?", re.ASCII | re.IGNORECASE)
_YEAR_FIRST = re.compile(r"(\d{4})([-_. /])(\d{1,2})\2(\d{1,2})|(\d{4})()(\d\d)(\d\d)", re.ASCII)
_NUMBERS = re.compile(
    r"(\d{1,2})([-_. /])(\d{1,2})\2(\d{4}|\d{1,2})|(\d\d)()(\d\d)(\d{4}|\d\d)", re.ASCII
)
_MONTH_INSIDE = re.compile(rf"(\d{{1,4}}){_GAP}([a-z]{{3,9}}){_GAP}(\d{{1,4}})", re.ASCII | re.I)
_MONTH_FIRST = re.compile(rf"([a-z]{{3,9}}){_GAP}(\d{{1,2}})[-_. ,]*(\d{{4}})", re.ASCII | re.I)
_DIGITS = re.compile(r"\d+", re.ASCII)


def parse_age(text: str, date_order: DateOrder = "auto") -> tuple[int | None, str | None]:
    """Read an age.

    Args:
        text: "45", "P45", "day 45", "45dph", ..., or a date, for instance "2018-09-19",
            "20180919", "19.9.2018", "2018Sep19", "041912".
        date_order: order of year, month and day where a date does not say it itself; ``auto``
            takes the first of `ORDERS` that gives a date.

    Returns:
        Days post hatch or ISO date; the other one is None, and both are for any other word.
    """
    text = text.strip()
    dates = readings(text)
    orders = ORDERS if date_order == "auto" else (date_order,)
    for order in orders:
        if order in dates:
            return None, dates[order].isoformat()
    match = _DPH.fullmatch(text)
    if match and int(match[1]) <= OLDEST_DPH:
        return int(match[1]), None
    return None, None


def canonical_age(text: str, date_order: DateOrder = "auto") -> str:
    """One spelling for each age: "45", an ISO date, or the word as it was typed."""
    dph, date = parse_age(text, date_order)
    return str(dph) if dph is not None else date or text


def age_order(text: str) -> tuple[int, int, str, str]:
    """Sort key of ages: days post hatch by value, then dates, then words (week2, week10)."""
    dph, date = parse_age(text)
    if dph is not None:
        return (0, dph, "", text)
    return (1, 0, date, text) if date else (2, 0, natural(text.casefold()), text)


def natural(text: str) -> str:
    """Sort key that orders the numbers in names by value: song9 before song10."""
    return _DIGITS.sub(lambda digits: digits[0].zfill(20), text)


def readings(text: str) -> dict[str, datetime.date]:
    """The date that ``text`` is in each order of `ORDERS`; only orders that give a date."""
    if match := _YEAR_FIRST.fullmatch(text):
        year, _, month, day = (part for part in match.groups() if part is not None)
        found = _date(year, month, day)
        if found:
            return dict.fromkeys(ORDERS, found)
    if match := _NUMBERS.fullmatch(text):
        first, _, second, third = (part for part in match.groups() if part is not None)
        return _known(
            mdy=_date(third, first, second),
            ymd=_date(first, second, third),
            dmy=_date(third, second, first),
        )
    if match := _MONTH_INSIDE.fullmatch(text):
        first, month, third = match.groups()
        # 19Sep18 is written day first, unless somebody says otherwise.
        day_first = _date(third, month, first)
        year_first = _date(first, month, third)
        return _known(
            mdy=day_first or year_first, ymd=year_first or day_first, dmy=day_first or year_first
        )
    if match := _MONTH_FIRST.fullmatch(text):
        month, day, year = match.groups()
        found = _date(year, month, day)
        return dict.fromkeys(ORDERS, found) if found else {}
    return {}


def has_own_order(text: str) -> bool:
    """True if a date says itself which part of it is the year, the month and the day."""
    dates = readings(text)
    return len(dates) == len(ORDERS) and len(set(dates.values())) == 1


def possible_orders(texts: Collection[str]) -> list[str]:
    """The orders of `ORDERS` in which every one of ``texts`` is a date."""
    dates = [readings(text) for text in texts]
    return [order for order in ORDERS if all(order in found for found in dates)]


def likeliest_order(texts: Collection[str], preferred: Iterable[str] = ORDERS) -> str:
    """The order in which most of ``texts`` are dates, and these lie in the fewest months.

    Recordings are made on many days of few months. Read in a wrong order, days become months or
    years: 190412, 200412, 210412 are three days of April 2012, or one day in each of three years.

    Args:
        texts: dates whose order is not known.
        preferred: orders to take where several are equal, the best one first.
    """
    dates = [readings(text) for text in texts]

    def unlikely(order: str) -> tuple[int, int]:
        found = [date[order] for date in dates if order in date]
        return -len(found), len({(date.year, date.month) for date in found})

    return min(preferred, key=unlikely)  # the first of equals


def _known(**dates: datetime.date | None) -> dict[str, datetime.date]:
    return {order: date for order, date in dates.items() if date}


def _date(year: str, month: str, day: str) -> datetime.date | None:
    """The date of three parts, if it is one; the month is a number or a word."""
    if len(year) not in (2, 4) or len(day) > 2:
        return None
    whole_year = int(year)
    if len(year) == 2:
        whole_year += 1900 if whole_year >= YEARS.start % 100 else 2000
    if month.isdigit():
        number = int(month)
    else:
        number = next((i for i, m in enumerate(_MONTHS, 1) if m.startswith(month.lower())), 0)
    try:
        found = datetime.date(whole_year, number, int(day))
    except ValueError:
        return None
    return found if found.year in YEARS else None
