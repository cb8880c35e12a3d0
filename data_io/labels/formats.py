"""Labels of one file, read by crowsetta in whichever format the file's content has.

crowsetta reads every format of text here by its `SimpleSeq`. Its own readers of Audacity and Raven
guess types: "01" becomes "1", a label "NA" is refused as missing, and so are times in whole
seconds (`AudSeq.from_file`, `Raven.from_file` of crowsetta 5.1).
"""

import csv
import math
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_io.labels.mat_check import BadMatError, check_mat

HEAD_BYTES = 65_536  # of a text, from which its format is judged
_LINE_END = re.compile(r"\r\n|\r|\n")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NO_HEADER = re.compile(r"\s*[0-9.]+\s*[ ,;]\s*[0-9.]+\s*[ ,;]\s*[^ ,;]+\s*")
# Columns that are seconds, in lower case: simple-seq, DAS, Raven.
_TIMES = {
    "onset_s": "onset_s", "start_seconds": "onset_s", "begin time (s)": "onset_s",
    "offset_s": "offset_s", "stop_seconds": "offset_s", "end time (s)": "offset_s",
}  # fmt: skip
_LABELS = ("label", "name", "annotation", "species")  # the first of them is the label
_NOT_LABELS = {"", "selection", "view", "channel", "begin file", "begin path", "duration"}
# Times in other columns, to tell a table of labels from another table.
_UNIT = r"s?([_ ]?times?)?([_ ]?\(?(s|secs?|seconds|ms|msecs?|milliseconds|samples?|frames?)\)?)?"
_OTHER_ONSET = re.compile(rf"(onset|start|begin){_UNIT}")
_OTHER_OFFSET = re.compile(rf"(offset|stop|end){_UNIT}")
_COLUMNS = ["onset_s", "offset_s", "label"]


class BadLabelsError(ValueError):
    """A file holds labels that cannot be read; the message says why and what to do."""


class UnreadableLabelsError(BadLabelsError):
    """The system does not give the file for now; of its content that says nothing."""


class RawLabels(NamedTuple):
    """What a label file says.

    Attributes:
        format: crowsetta's name of it: notmat, aud-seq, raven or simple-seq.
        onsets_s: [n], seconds from the start of the sound file; finite.
        offsets_s: [n].
        labels: [n].
    """

    format: str
    onsets_s: NDArray[np.float64]
    offsets_s: NDArray[np.float64]
    labels: list[str]


def read_label_file(path: Path) -> RawLabels | None:
    """Read a label file whole, or not at all.

    Args:
        path: of the file. Its name tells .not.mat from text; its content tells formats of text.

    Returns:
        Its labels; None for a text that holds no labels, for instance a note.

    Raises:
        BadLabelsError: the file holds labels, but they cannot be read.
        UnreadableLabelsError: the system does not give it for now.
    """
    try:
        if path.name.lower().endswith(".not.mat"):
            return _not_mat(path)
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        lines = _LINE_END.split(head.decode(encoding, "replace"))
        if len(head) == HEAD_BYTES:
            lines.pop()  # it may be half of a line
        lines = [line for line in lines if line.strip()]
        if not lines:
            return None
        table = _table_format(lines[0])
        if table is not None:
            return _text(path, *table, encoding=encoding)
        if _is_label_track(lines):
            whole = _LINE_END.split(path.read_bytes().decode(encoding))
            # Audacity writes the frequencies of a label into a line of their own.
            frequencies = [i for i, line in enumerate(whole) if line.startswith("\\\t")]
            options = {"sep": "\t", "header": None, "names": _COLUMNS, "skiprows": frequencies}
            return _text(path, "aud-seq", options, encoding=encoding)
    except OSError as error:
        kind = BadLabelsError if error.errno is None else UnreadableLabelsError
        raise kind(str(error.strerror or error)) from error
    except BadMatError as error:
        raise BadLabelsError(str(error)) from error
    except UnicodeError as error:
        raise BadLabelsError("the text is not UTF-8: save it as UTF-8") from error
    if all(map(_NO_HEADER.fullmatch, lines)):
        raise BadLabelsError(
            "no line names its columns: write onset_s,offset_s,label (in seconds) as the first line"
        )
    return None


@contextmanager
def _crowsetta_errors_named() -> Iterator[None]:
    """Give every fault that crowsetta finds in a file as BadLabelsError.

    The parsers below it fail in ways of their own over altered bytes.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # pandas would drop fields and only warn.
            warnings.filterwarnings("error", "Length of header or names", Warning)
            yield
    except (BadLabelsError, OSError, UnicodeError):
        raise
    except Warning as error:
        raise BadLabelsError("a line has more fields than there are columns") from error
    except Exception as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadLabelsError(first_line) from error


@contextmanager
def _small_letters(path: Path) -> Iterator[Path]:
    """Give a name of the file that ends in small letters: crowsetta refuses X.TXT and x.NOT.MAT."""
    ending = "".join(path.suffixes[-2:])
    if ending == ending.lower():
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"labels{ending.lower()}"
        link.symlink_to(path.absolute())
        yield link


def _not_mat(path: Path) -> RawLabels:
    from crowsetta.formats.seq import NotMat  # here: it takes half a second

    check_mat(path.read_bytes())
    with _crowsetta_errors_named():
        try:
            with _small_letters(path) as readable:
                found = NotMat.from_file(readable)
        except KeyError as error:
            raise BadLabelsError(f"it has no variable {error}; evsonganaly writes one") from error
        labels = [str(label) for label in found.labels]
    return _raw("notmat", found.onsets, found.offsets, labels)


def _table_format(header: str) -> tuple[str, dict[str, Any]] | None:
    """Format and options of `pandas.read_csv` of a text whose first line names columns."""
    sep = next((mark for mark in "\t;," if mark in header), ",")
    columns = [field.strip().strip('"').lower() for field in header.split(sep)]
    names = [_TIMES.get(name, name) for name in columns]
    if "onset_s" not in names and "offset_s" not in names:
        if not all(any(map(time.fullmatch, columns)) for time in (_OTHER_ONSET, _OTHER_OFFSET)):
            return None
        raise BadLabelsError(
            f"its columns are {', '.join(columns)}; onset_s, offset_s (in seconds) and label are "
            "wanted"
        )
    label = next((name for name in _LABELS if name in names), None)
    if label is not None:
        names[names.index(label)] = "label"
    for name in ("onset_s", "offset_s"):
        if names.count(name) != 1:
            raise BadLabelsError(f"{names.count(name)} columns are {name}: {', '.join(columns)}")
    strange = [name for name in names if name not in _NOT_LABELS | {*_COLUMNS} and "(" not in name]
    if label is None and strange:
        raise BadLabelsError(f"none of its columns is called label: {', '.join(columns)}")
    unique = [name if name in _COLUMNS else f"{i}: {name}" for i, name in enumerate(names)]
    options = {"sep": sep, "header": 0, "names": unique}
    return ("raven" if "begin time (s)" in columns else "simple-seq"), options


def _is_label_track(lines: list[str]) -> bool:
    """Whether lines are onset, offset and label between tabs, as Audacity writes them."""
    fields = [line.split("\t") for line in lines if not line.startswith("\\\t")]
    n_numbers = [sum(map(_is_number, each[:2])) for each in fields]
    return 2 in n_numbers or (
        all(len(each) == 3 for each in fields) and len(fields) > 0 and min(n_numbers) == 1
    )


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _seconds(text: str) -> float:
    # Programs of other languages write a comma; between tabs or semicolons it can be nothing else.
    plain = text.strip().replace(",", ".")
    if not _NUMBER.fullmatch(plain) or not math.isfinite(float(plain)):
        raise BadLabelsError(f"{text!r} is no time in seconds")
    return float(plain)


def _text(path: Path, format_name: str, options: dict[str, Any], encoding: str) -> RawLabels:
    from crowsetta.formats.seq import SimpleSeq  # here: it takes half a second

    read_csv_kwargs = {
        "encoding": encoding,
        "index_col": False,
        "converters": {"onset_s": _seconds, "offset_s": _seconds, "label": str},
        "na_filter": False,
        "skipinitialspace": True,
        "quoting": csv.QUOTE_NONE if options["sep"] == "\t" else csv.QUOTE_MINIMAL,
        **options,
    }
    with _crowsetta_errors_named(), _small_letters(path) as readable:
        found = SimpleSeq.from_file(readable, read_csv_kwargs=read_csv_kwargs)
    return _raw(format_name, found.onsets_s, found.offsets_s, list(found.labels))


def _raw(format_name: str, onsets: Any, offsets: Any, labels: list[str]) -> RawLabels:
    """The labels, if there is an onset, an offset and a label for each."""
    for times in (onsets, offsets):
        if np.ndim(times) != 1 or not np.isrealobj(times):
            raise BadLabelsError("its onsets or offsets are not a list of real numbers")
    if not len(onsets) == len(offsets) == len(labels):
        raise BadLabelsError(
            f"it has {len(onsets)} onsets, {len(offsets)} offsets and {len(labels)} labels"
        )
    both = np.asarray([onsets, offsets], np.float64)
    if not np.isfinite(both).all():
        raise BadLabelsError(f"{int((~np.isfinite(both)).sum())} of its times are no numbers")
    return RawLabels(format_name, both[0], both[1], [label.strip() or label for label in labels])
