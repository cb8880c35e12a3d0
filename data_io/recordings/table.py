"""Recordings of birds: the facts about each, and a table that holds millions of them.

A recording is a sound file, or a piece of a long one. Nothing here opens a file.
"""

import datetime
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

BirdAge = tuple[str, str]
Status = Literal["ok", "flagged", "skipped"]
TRAINING, SELECTION, REPORT = SIDES = ("training", "selection", "report")

_WORD = pa.dictionary(pa.int32(), pa.string())  # a word that many recordings share
SCHEMA = pa.schema(
    [
        ("bird", _WORD),
        ("age", _WORD),
        ("dph", pa.int32()),
        ("date", _WORD),
        ("path", pa.string()),
        ("recorded_at", pa.timestamp("ms")),
        ("of_file", _WORD),
        ("start_s", pa.float64()),
        ("sha256", pa.string()),
        ("sample_rate_hz", pa.int32()),
        ("n_channels", pa.int32()),
        ("seconds", pa.float64()),
        ("status", _WORD),
        ("reason", _WORD),
        ("n_frames", pa.int32()),
        ("sound_s", pa.float32()),
        ("reference_level", pa.float32()),
        ("noise_floor_db", pa.float32()),
        ("split", _WORD),
        ("n_bytes", pa.int64()),
        ("mtime_ns", pa.int64()),
    ]
)
ROWS_AT_ONCE = 10_000
SAME_FILE = "same content as "
BETWEEN_REMARKS = " | "  # of several on one recording


@dataclass(frozen=True)
class Recording:
    """One sound file, or one piece of a long file, with the facts that are known about it.

    Attributes:
        bird: its name.
        age: "45" where the age in days post hatch is known, an ISO date where the date is, else
            the word that the folder gives.
        dph: age in days post hatch, if known.
        date: recording date (ISO), if known.
        path: the recording's name everywhere: the file's path relative to the data folder, with
            "/". A piece has ``#t=START,END`` behind it, in seconds (W3C Media Fragments URI 1.0).
        recorded_at: local date and time at which the file starts, if its name or header says so.
        of_file: path of the file, if the recording is a piece of it; else empty.
        start_s: second of the file at which the recording starts.
        sha256: of the file, for a .cbin together with its .rec; empty if it could not be read.
        sample_rate_hz: of the file.
        n_channels: of the file.
        seconds: length of the sound that could be read.
        status: ok, flagged (used, but look at ``reason``) or skipped (not used).
        reason: empty if ok.
        n_frames: spectrogram frames, 0 if skipped.
        sound_s: seconds of frames that hold sound.
        reference_level: of the bird and age; see data_io/sounding.py. 0 if skipped.
        noise_floor_db: of the bird and age.
        split: side of the split, one of `SIDES`; empty if skipped.
        n_bytes: size of the file; of a .cbin with its .rec.
        mtime_ns: when the file was last changed, only to know whether it was read before.
    """

    bird: str
    age: str
    dph: int | None
    date: str | None
    path: str
    recorded_at: datetime.datetime | None = None
    of_file: str = ""
    start_s: float = 0.0
    sha256: str = ""
    sample_rate_hz: int | None = None
    n_channels: int | None = None
    seconds: float = 0.0
    status: Status = "ok"
    reason: str = ""
    n_frames: int = 0
    sound_s: float = 0.0
    reference_level: float = 0.0
    noise_floor_db: float = 0.0
    split: str = ""
    n_bytes: int = 0
    mtime_ns: int = 0

    @property
    def is_used(self) -> bool:
        """True if the study uses the recording."""
        return self.status != "skipped"

    @property
    def file(self) -> str:
        """Path of the file that holds the recording."""
        return self.of_file or self.path

    def skipped(self, reason: str) -> "Recording":
        """The same recording, out of the study for ``reason``."""
        return replace(self, status="skipped", reason=reason, n_frames=0, sound_s=0.0, split="")

    def flagged(self, remarks: Iterable[str]) -> "Recording":
        """The same recording, used, with remarks for a person; ok without any."""
        reason = BETWEEN_REMARKS.join(filter(None, remarks))
        return replace(self, status="flagged" if reason else "ok", reason=reason)


_FIELDS = [field.name for field in fields(Recording)]


class Recordings:
    """Many recordings, in columns: about 200 bytes each, where a `Recording` takes 2.5 kB.

    Attributes:
        table: one row per recording, of `SCHEMA`.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table.cast(SCHEMA).unify_dictionaries().combine_chunks()

    @classmethod
    def from_rows(cls, rows: Iterable[Recording]) -> "Recordings":
        """Put recordings into columns, a batch in memory at a time."""
        batches, batch = [], []
        for row in rows:
            batch.append(row)
            if len(batch) == ROWS_AT_ONCE:
                batches.append(_table(batch))
                batch = []
        return cls(pa.concat_tables([*batches, _table(batch)]))

    @classmethod
    def joined(cls, parts: "Iterable[Recordings]") -> "Recordings":
        """The recordings of all parts, in order."""
        return cls(pa.concat_tables([SCHEMA.empty_table(), *(part.table for part in parts)]))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[Recording]:
        """Each recording in order; only some of them are in memory as `Recording` at a time."""
        for batch in self.table.to_batches(max_chunksize=ROWS_AT_ONCE):
            for row in batch.to_pylist():
                yield Recording(**row)

    def column(self, name: str) -> NDArray[Any]:
        """One column as an array; words are objects of type str."""
        column: NDArray[Any] = self.table[name].to_numpy()
        return column

    def with_column(self, name: str, values: Any) -> "Recordings":
        """The same recordings with other values in one column."""
        at = SCHEMA.get_field_index(name)
        column = pa.array(values, SCHEMA.field(at).type.value_type if _is_word(name) else None)
        return Recordings(self.table.set_column(at, name, column))

    def where(self, mask: NDArray[np.bool_]) -> "Recordings":
        """The recordings for which ``mask`` [n] is true."""
        return Recordings(self.table.filter(pa.array(mask)))

    def taken(self, rows: NDArray[np.int64]) -> "Recordings":
        """The recordings at ``rows``, in that order."""
        return Recordings(self.table.take(pa.array(rows)))

    def replaced(self, rows: dict[int, Recording]) -> "Recordings":
        """The same recordings with others in some rows."""
        if not rows:
            return self
        order = np.arange(len(self))
        order[list(rows)] = len(self) + np.arange(len(rows))
        return Recordings.joined([self, Recordings.from_rows(rows.values())]).taken(order)

    @property
    def is_used(self) -> NDArray[np.bool_]:
        """Which recordings the study uses [n]."""
        is_used = pc.not_equal(self.table["status"].cast(pa.string()), "skipped")
        used: NDArray[np.bool_] = is_used.to_numpy()
        return used

    @property
    def used(self) -> "Recordings":
        """The recordings that the study uses."""
        return self.where(self.is_used)

    def on(self, side: str) -> "Recordings":
        """The recordings on one side of the split."""
        return self.where(pc.equal(self.table["split"].cast(pa.string()), side).to_numpy())

    def by_bird_age(self) -> "dict[BirdAge, Recordings]":
        """The recordings of every bird and age, in the order of the table."""
        return {bird_age: self.taken(rows) for bird_age, rows in self.rows_by_bird_age().items()}

    def rows_by_bird_age(self) -> dict[BirdAge, NDArray[np.int64]]:
        """The rows of every bird and age, in the order of the table."""
        codes, names = self._bird_age_codes()
        order = np.argsort(codes, kind="stable")
        ends = np.flatnonzero(np.diff(codes[order], append=-1)) + 1
        groups = np.split(order, ends[:-1]) if len(order) else []
        return {names[codes[rows[0]]]: rows for rows in sorted(groups, key=lambda rows: rows[0])}

    def birds_and_ages(self) -> list[BirdAge]:
        """Every bird and age, in the order of the table."""
        codes, names = self._bird_age_codes()
        found, first = np.unique(codes, return_index=True)
        return [names[code] for _, code in sorted(zip(first, found, strict=True))]

    def _bird_age_codes(self) -> tuple[NDArray[np.int64], dict[int, BirdAge]]:
        """A number for the bird and age of each recording [n], and what each number means."""
        bird, age = (self.table[name].combine_chunks() for name in ("bird", "age"))
        birds, ages = bird.dictionary.to_pylist(), age.dictionary.to_pylist()
        n_ages = max(len(ages), 1)
        codes = bird.indices.to_numpy().astype(np.int64) * n_ages + age.indices.to_numpy()
        return codes, {
            int(code): (birds[code // n_ages], ages[code % n_ages]) for code in np.unique(codes)
        }


def _is_word(name: str) -> bool:
    return bool(pa.types.is_dictionary(SCHEMA.field(name).type))


def _table(rows: list[Recording]) -> pa.Table:
    columns = {name: [getattr(row, name) for row in rows] for name in _FIELDS}
    return pa.table(columns, schema=SCHEMA)


def data_hash(recordings: Recordings) -> str:
    """Hash of all that a study takes from its recordings; skipped ones change nothing."""
    names = ["path", "bird", "age", "sha256", "split", "n_frames", "reference_level",
             "noise_floor_db"]  # fmt: skip
    used = recordings.table.select(names).filter(pa.array(recordings.is_used))
    hashed = hashlib.sha256()
    order = pc.sort_indices(used["path"])
    for start in range(0, len(order), ROWS_AT_ONCE):
        batch = used.take(order[start : start + ROWS_AT_ONCE])
        for column in batch.columns:
            hashed.update("\0".join(map(str, column.to_pylist())).encode() + b"\n")
    return hashed.hexdigest()


def skip_duplicates(recordings: Recordings) -> Recordings:
    """Skip recordings whose file was seen before, so that none is on two sides of the split."""
    used = np.flatnonzero(recordings.is_used)
    table = recordings.table.select(["path", "of_file", "sha256"]).take(pa.array(used))
    is_whole = pc.equal(table["of_file"].cast(pa.string()), "")
    files = pc.if_else(is_whole, table["path"], table["of_file"].cast(pa.string()))
    hashes, names = _codes(table["sha256"]), _codes(files)
    _, first, which = np.unique(hashes, return_index=True, return_inverse=True)
    original = first[which]
    copies = np.flatnonzero(names[original] != names)
    rows = {}
    for row, copy in zip(copies, recordings.taken(used[copies]), strict=True):
        rows[int(used[row])] = copy.skipped(SAME_FILE + files[int(original[row])].as_py())
    return recordings.replaced(rows)


def _codes(column: pa.ChunkedArray) -> NDArray[np.int32]:
    """A number for each distinct value."""
    encoded = column.combine_chunks().dictionary_encode()
    codes: NDArray[np.int32] = encoded.indices.to_numpy()
    return codes
