"""Labels that people gave to recordings: stretches of sound with a name, in one table.

Nothing of a study depends on labels; where they exist, it can be compared with them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_io.files import FOR_NOW
from data_io.labels.files import LabelFiles, Part, Problem, label_files
from data_io.labels.formats import (
    BadLabelsError,
    RawLabels,
    UnreadableLabelsError,
    read_label_file,
)
from data_io.store import read_table, write_table

TOLERANCE_S = 0.01  # by so much a label may pass the ends of its recording: times are rounded
SHORTEST_S = 0.001  # a shorter label is a point, or its times are in another unit

_ROWS = pa.schema(
    [
        ("recording", pa.string()),
        ("onset_s", pa.float64()),
        ("offset_s", pa.float64()),
        ("label", pa.string()),
        ("source", pa.string()),
        ("format", pa.string()),
    ]
)
_PROBLEMS = pa.schema([("file", pa.string()), ("reason", pa.string())])


@dataclass(frozen=True)
class Labels:
    """Labels of recordings.

    Attributes:
        rows: a row for each label, in order of time within a recording: recording (its path),
            onset_s and offset_s (seconds from the start of the recording), label, source (the
            file) and format (crowsetta's name). A label that lies in several pieces of a long
            file has a row in each.
        problems: (file, reason) of each file that could not be read, or not wholly.
    """

    rows: pa.Table
    problems: list[Problem]

    @classmethod
    def joined(cls, parts: "Iterable[Labels]") -> "Labels":
        """The labels and the problems of all parts, in order."""
        parts = list(parts)
        rows = pa.concat_tables([_ROWS.empty_table(), *(part.rows for part in parts)])
        return cls(rows, [problem for part in parts for problem in part.problems])


def find_labels(root: Path, recordings: Iterable[tuple[str, str, float, float]]) -> Labels:
    """Find and read the labels beside recordings; `data_io.labels.files` knows their names.

    Args:
        root: data folder.
        recordings: (path, file of which it is a piece or "", start in that file in s, seconds) of
            each recording that is used; all of a folder in one call.
    """
    files, problems = label_files(root, recordings)
    return Labels.joined([Labels(_ROWS.empty_table(), problems), read_labels_of(root, files)])


def read_labels_of(root: Path, files: Iterable[LabelFiles]) -> Labels:
    """Read files that may hold labels, as `label_files` lists them."""
    tables: list[pa.Table] = []
    problems: list[Problem] = []
    for each in files:
        source = ""
        for path, n_bytes, _ in each.files:
            try:
                found = read_label_file(root / path)
            except BadLabelsError as error:
                is_for_now = isinstance(error, UnreadableLabelsError)
                problems.append((path, f"{FOR_NOW if is_for_now else 'cannot be read: '}{error}"))
                continue
            if found is None:
                if n_bytes == 0 and each.parts:
                    problems.append((path, "is empty"))
            elif each.doubt:
                problems.append((path, each.doubt))
            elif source:
                problems.append((path, f"is not used: {source} holds labels of its recording"))
            else:
                source = path
                in_file, remarks = _placed(found, each.parts, source)
                tables += in_file
                if remarks:
                    problems.append((path, "; ".join(remarks)))
    return Labels(pa.concat_tables([_ROWS.empty_table(), *tables]), problems)


def _placed(
    found: RawLabels, parts: tuple[Part, ...], source: str
) -> tuple[list[pa.Table], list[str]]:
    """Tables of the labels of each recording in a file, and remarks on labels that are odd."""
    order = np.argsort(found.onsets_s, kind="stable")
    onsets, offsets = found.onsets_s[order], found.offsets_s[order]
    labels = np.array(found.labels, object)[order]
    if found.format == "raven":  # it writes a row for each view of a selection
        rows = dict.fromkeys(zip(onsets, offsets, labels, strict=True))
        keep = np.array([list(each) for each in rows], object).reshape(-1, 3)
        onsets, offsets, labels = keep[:, 0].astype(float), keep[:, 1].astype(float), keep[:, 2]
    is_possible, remarks = _check(onsets, offsets, labels, parts)
    onsets, offsets, labels = onsets[is_possible], offsets[is_possible], labels[is_possible]
    if not len(found.labels):
        remarks.append("holds no label")
    tables = []
    for part in parts:
        begin = np.maximum(onsets - part.start_s, 0.0)
        end = np.minimum(offsets - part.start_s, part.seconds)
        inside = end - begin >= SHORTEST_S
        n = int(inside.sum())
        columns = [[part.path] * n, begin[inside], end[inside], labels[inside], [source] * n,
                   [found.format] * n]  # fmt: skip
        tables.append(pa.table([pa.array(c, f.type) for c, f in zip(columns, _ROWS, strict=True)],
                               schema=_ROWS))  # fmt: skip
    return tables, remarks


def _check(
    onsets: NDArray[np.float64],
    offsets: NDArray[np.float64],
    labels: NDArray[np.object_],
    parts: tuple[Part, ...],
) -> tuple[NDArray[np.bool_], list[str]]:
    """Which labels can be true [n], and a remark for each kind of label that is odd."""
    end = max(part.start_s + part.seconds for part in parts)
    shared = np.zeros(len(onsets))  # longest stretch of each label in one recording, in s
    for part in parts:
        ends = np.minimum(offsets, part.start_s + part.seconds)
        shared = np.maximum(shared, ends - np.maximum(onsets, part.start_s))
    faults = {
        "begins before the recording": onsets < -TOLERANCE_S,
        "ends before it begins": offsets < onsets,
        "is shorter than 1 ms": offsets - onsets < SHORTEST_S,
        f"ends after the recording ({end:.3f} s)": offsets > end + TOLERANCE_S,
        "lies in a part of the recording that is not used": shared < SHORTEST_S,
    }
    is_possible = np.ones(len(onsets), bool)
    remarks = []
    for fault, with_fault in faults.items():
        has_it = with_fault & is_possible
        if has_it.any():
            at = int(np.argmax(has_it))
            remarks.append(
                f"{has_it.sum()} of {len(onsets)} labels left out: {labels[at]!r} from "
                f"{onsets[at]:.3f} to {offsets[at]:.3f} s {fault}"
            )
        is_possible &= ~has_it
    if len(onsets) and not is_possible.any():
        remarks.append("no label fits: are they of another recording, or in another unit of time?")
    ends_so_far = np.maximum.accumulate(offsets[is_possible])
    n_overlaps = int((onsets[is_possible][1:] < ends_so_far[:-1] - SHORTEST_S / 2).sum())
    if n_overlaps:
        remarks.append(f"{n_overlaps} labels begin before an earlier one ends; all are kept")
    return is_possible, remarks


def write_labels(path: Path, rows: pa.Table) -> None:
    """Write the rows of `Labels`, with page checksums; a reader never sees a part of the file."""
    write_table(path, rows)


def read_labels(path: Path) -> pa.Table:
    """Read what `write_labels` wrote.

    Raises:
        BrokenFileError: the file is missing, cut short or altered.
    """
    return read_table(path, schema=_ROWS)


def write_label_problems(path: Path, problems: list[Problem]) -> None:
    """Write a row (file, reason) for each problem."""
    columns = [[problem[i] for problem in problems] for i in range(2)]
    write_table(path, pa.table(columns, schema=_PROBLEMS))


def read_label_problems(path: Path) -> list[Problem]:
    """Read what `write_label_problems` wrote."""
    return [(row["file"], row["reason"]) for row in read_table(path, schema=_PROBLEMS).to_pylist()]
