"""What the names of sound files say: when a file was recorded, of which bird.

Only names count. The times that a disk keeps of a file change when it is copied.
"""

import datetime
import re
from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

from data_io.names.ages import YEARS, DateOrder, parse_age, readings

NAME_ORDERS = ("dmy", "ymd", "mdy")  # of six digits in a name; evTAF's is the first
SAP_DAY_0 = datetime.date(1899, 12, 30)
MS_PER_DAY = 86_400_000

_MOMENT = re.compile(
    r"""(?<!\d)(?:
    (?P<sap> (?P<serial>\d{5})\.(?P<since>\d{1,8})
        (?:_(?P<s_month>\d{1,2})_(?P<s_day>\d{1,2})
            _(?P<s_h>\d{1,2})_(?P<s_m>\d{1,2})_(?P<s_s>\d{1,2}))? )
    |(?P<long> (?P<year>(?:19|20)\d\d)(?P<gap>[-_.]?)(?P<month>\d\d)(?P=gap)(?P<day>\d\d)
        (?:[-_ T$.]{0,3}(?P<h>\d\d)(?P<colon>[-_.:]?)(?P<m>\d\d)(?P=colon)(?P<s>\d\d)
            (?:[.,](?P<ms>\d\d\d))?)? )
    |(?P<six> (?P<date>\d{6})[-_](?P<e_h>\d\d)(?P<e_m>\d\d)(?P<e_s>\d\d)? )
    |(?P<twelve> (?P<t_date>\d{6})(?P<t_h>\d\d)(?P<t_m>\d\d)(?P<t_s>\d\d) )
    )(?!\d)""",
    re.VERBOSE | re.ASCII,
)
_GAP = re.compile(r"[-_\s]+")


class Moment(NamedTuple):
    """When a file was recorded, as its name says it.

    Attributes:
        start: place in the name where the date begins.
        date: of the recording; None if it is given by six digits in an unknown order.
        digits: the six digits; else empty.
        ms: milliseconds since midnight; None if the name gives a date alone.
    """

    start: int
    date: datetime.date | None
    digits: str
    ms: int | None


def moment(name: str) -> Moment | None:
    """Find date and time of day in a file's name; None if it gives no date."""
    for match in _MOMENT.finditer(name):
        if match["sap"]:
            found = _sap(match)
        elif match["long"]:
            date = _date(int(match["year"]), int(match["month"]), int(match["day"]))
            ms = _ms(match["h"], match["m"], match["s"]) if match["h"] else None
            if ms is not None and match["ms"]:
                ms += int(match["ms"])
            found = Moment(match.start(), date, "", ms) if date else None
        elif match["six"]:
            ms = _ms(match["e_h"], match["e_m"], match["e_s"] or "0")
            is_moment = ms is not None and _is_date(match["date"])
            found = Moment(match.start(), None, match["date"], ms) if is_moment else None
        else:  # SoundTrap and others that write year, month, day, hour, minute, second in one
            at, date = match["t_date"], None
            ms = _ms(match["t_h"], match["t_m"], match["t_s"])
            if ms is not None:
                date = _date(2000 + int(at[:2]), int(at[2:4]), int(at[4:]))
            found = Moment(match.start(), date, "", ms) if date else None
        if found:
            return found
    return None


def recorded_at(name: str, date_order: DateOrder = "dmy") -> datetime.datetime | None:
    """Local date and time of day at which a file was begun, as its name says it.

    Read are the names of Sound Analysis Pro (``G402_43362.23322048_9_19_6_28_42.wav``: serial day
    since 1899-12-30, milliseconds since midnight, then month, day, hour, minute, second), of evTAF
    (``bl26lb16_190412_0725.20148.cbin``: ddmmyy_HHMM or ddmmyy_HHMMSS), of AudioMoth and Song
    Meters (``20190508_043000.WAV``), and dates and times in ISO order with other separators.
    Names that give UTC as hexadecimal numbers (early AudioMoth) say no local time.

    Args:
        name: of the file, with or without its folder and suffix.
        date_order: how six digits are to be read; where that gives no date, or with ``auto``, the
            first of `NAME_ORDERS` that does.
    """
    found = moment(name.rpartition("/")[2])
    if found is None or found.ms is None:
        return None
    date = found.date or date_of_digits(found.digits, date_order)
    return datetime.datetime.combine(date, datetime.time()) + datetime.timedelta(
        milliseconds=found.ms
    )


def date_of_digits(digits: str, date_order: str) -> datetime.date:
    """The date that six digits of a name mean, which must be one in some order."""
    dates = readings(digits)
    return next(dates[order] for order in (date_order, *NAME_ORDERS) if order in dates)


def bird_in(name: str) -> str:
    """The bird in a name that begins with it: what stands before the date; empty if nothing."""
    found = moment(name)
    return name[: found.start].rstrip("-_. ") if found else ""


def dph_in(name: str, folders: Collection[str] = ()) -> int | None:
    """Days post hatch in a name (``blk12_P45_003.wav``).

    A number alone is no age, but a count, and the name of one of its ``folders`` is the bird.
    """
    for word in _GAP.split(name.partition(".")[0]):
        if not word.isdigit() and word not in folders:
            dph, _ = parse_age(word)
            if dph is not None:
                return dph
    return None


def _sap(match: re.Match[str]) -> Moment | None:
    """Date by the serial day, time by what a person can read in the name, to the millisecond."""
    date = SAP_DAY_0 + datetime.timedelta(days=int(match["serial"]))
    ms = int(match["since"])
    if date.year not in YEARS or ms >= MS_PER_DAY:
        return None
    if match["s_month"]:
        clock = _ms(match["s_h"], match["s_m"], match["s_s"])
        if clock is None or (date.month, date.day) != (int(match["s_month"]), int(match["s_day"])):
            return None  # the name contradicts itself
        # The count of milliseconds does not know when the clock was changed.
        ms = ms if abs(ms - clock) < 1_500 else clock
    return Moment(match.start(), date, "", ms)


@lru_cache(maxsize=4096)
def _is_date(digits: str) -> bool:
    return bool(readings(digits))


@lru_cache(maxsize=4096)
def _date(year: int, month: int, day: int) -> datetime.date | None:
    try:
        date = datetime.date(year, month, day)
    except ValueError:
        return None
    return date if date.year in YEARS else None


def _ms(hour: str, minute: str, second: str) -> int | None:
    """Milliseconds since midnight; None if these are no time of day."""
    h, m, s = int(hour), int(minute), int(second)
    return 1000 * (3600 * h + 60 * m + s) if h < 24 and m < 60 and s < 60 else None
