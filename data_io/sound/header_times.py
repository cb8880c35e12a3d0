"""When a recording was made, as the header of its file says it.

Times are those of the recorder's clock, as written; a time zone is not applied. A date without a
time of day gives nothing, and the time stamps of files are never asked: copying changes them.
Sources: EBU Tech 3285 (bext), Multimedia Programming Interface 1.0 (LIST INFO), the firmware of
AudioMoth (its comment), the GUANO specification 1.0, ``.rec`` files of evTAF.
"""

import datetime
import re
import struct
from collections.abc import Iterable

DATE_AND_TIME = re.compile(
    r"(\d{4})[-:_/. ](\d{1,2})[-:_/. ](\d{1,2})[T ]+(\d{1,2})[-:_. ](\d{2})[-:_. ](\d{2})(\.\d+)?"
)
AUDIOMOTH = re.compile(
    r"Recorded at (\d\d):(\d\d):(\d\d)(\.\d+)? (\d\d)/(\d\d)/(\d{4})"  # day, month, year
)
EVTAF = re.compile(r"File created:\D*?([A-Z][a-z]{2}) (\d{1,2}), (\d{4}), (\d+):(\d\d):(\d\d)")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def time_of_chunks(chunks: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Date and time of day from chunks of a WAV file.

    Args:
        chunks: name and body of chunks; of these, ``bext``, ``LIST`` and ``guan`` are looked at.

    Returns:
        For instance ``2018-09-19T06:28:42``; None where no chunk says it.
    """
    said: dict[str, str] = {}
    for name, body in chunks:
        if name == b"bext":  # description 256, originator 32, reference 32, date 10, time 8 bytes
            date, time = _text(body[320:330]), _text(body[330:338])
            said.setdefault("bext", f"{date} {time}")
        elif name == b"LIST" and body[:4] == b"INFO":
            said = _info(body[4:]) | said
        elif name == b"guan":
            said.setdefault("guan", _text(body).partition("Timestamp:")[2][:40])
    if found := AUDIOMOTH.search(said.get("ICMT", "")):
        hour, minute, second, fraction, day, month, year = found.groups()
        return _iso(year, month, day, hour, minute, second, fraction)
    for source in ("bext", "ICRD", "guan"):
        found = DATE_AND_TIME.search(said.get(source, ""))
        if found and (iso := _iso(*found.groups())):
            return iso
    return None


def time_of_rec(header: str) -> str | None:
    """Date and time of day from ``File created: Fri, Mar 23, 2012, 08:08:15`` of a ``.rec``."""
    found = EVTAF.search(header)
    if not found or found[1] not in MONTHS:
        return None
    _, day, year, hour, minute, second = found.groups()
    return _iso(year, MONTHS.index(found[1]) + 1, day, hour, minute, second, None)


def _info(body: bytes) -> dict[str, str]:
    """The texts of a LIST INFO chunk by their names."""
    texts, at = {}, 0
    while len(head := body[at : at + 8]) == 8:
        name, n_bytes = struct.unpack("<4sI", head)
        texts[_text(name)] = _text(body[at + 8 : at + 8 + n_bytes])
        at += 8 + n_bytes + n_bytes % 2
    return texts


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("latin-1").strip()


def _iso(
    year: str,
    month: str | int,
    day: str,
    hour: str,
    minute: str,
    second: str,
    fraction: str | None,
) -> str | None:
    """ISO form, with milliseconds where there are any; None for a date that does not exist."""
    date = f"{year}-{int(month):02}-{int(day):02}"
    try:
        time = datetime.datetime.fromisoformat(
            f"{date}T{int(hour):02}:{minute}:{second}{fraction or ''}"
        )
    except ValueError:
        return None
    return time.isoformat(timespec="milliseconds" if fraction else "seconds")
