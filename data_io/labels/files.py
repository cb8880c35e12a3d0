"""Which files beside the recordings may hold labels that a person gave; nothing is opened here.

A label file has the name of its recording, with or without the recording's own suffix, and one of
these endings: ``.not.mat`` (evsonganaly), ``.txt`` (a label track of Audacity),
``.Table.1.selections.txt`` or ``.selections.txt`` (Raven), ``.csv`` or ``_annotations.csv``
(simple-seq of crowsetta, DAS). Of ``x.wav`` these are ``x.wav.not.mat``, ``x.txt``, ...
"""

import os
import re
import stat
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from data_io.names.folders import READ

_LABEL_FILE = re.compile(
    r"(?P<base>[^.].*?)(?P<ending>\.not\.mat|(_annotations)?\.csv"
    r"|(\.Table\.\d+)?\.selections\.txt|\.txt)",
    re.IGNORECASE,
)
_ENDINGS = (".not.mat", ".csv", ".selections.txt", ".txt")  # the first that holds labels is taken
# x.cbin.not.mat may lie beside an x.wav that was made from x.cbin.
_SOUND_SUFFIX = re.compile("|".join(map(re.escape, READ)), re.IGNORECASE)
Problem = tuple[str, str]  # (path of a file relative to the data folder, what is wrong with it)


class Part(NamedTuple):
    """A recording: a whole file, or a piece of a long one.

    Attributes:
        path: name of the recording.
        of_file: path of the file, if the recording is a piece of it; else empty.
        start_s: second of the file at which the recording starts.
        seconds: length of the recording.
    """

    path: str
    of_file: str
    start_s: float
    seconds: float


@dataclass(frozen=True)
class LabelFiles:
    """Files that may hold the labels of one sound file.

    Attributes:
        parts: the recordings in the sound file: one, or several pieces.
        files: (path relative to the data folder, bytes, time of the last change in ns); the
            labels are taken from the first that holds any.
        doubt: why ``parts`` is empty; empty where the sound file is known.
    """

    parts: tuple[Part, ...]
    files: tuple[tuple[str, int, int], ...]
    doubt: str = ""


def label_files(
    root: Path, recordings: Iterable[tuple[str, str, float, float]]
) -> tuple[list[LabelFiles], list[Problem]]:
    """List the files beside the recordings that may hold labels, each folder once.

    Args:
        root: data folder.
        recordings: those that are used, as the fields of a `Part`; all of a folder in one call.

    Returns:
        The files in the order of the recordings, then those of no recording; and what cannot be
        looked at.
    """
    folders: dict[str, dict[str, list[Part]]] = {}
    for part in map(Part._make, recordings):
        folder, _, name = (part.of_file or part.path).rpartition("/")
        folders.setdefault(folder, {}).setdefault(name, []).append(part)
    found: list[LabelFiles] = []
    problems: list[Problem] = []
    for folder, sounds in folders.items():
        try:
            with os.scandir(root / folder) as entries:
                listed = {entry.name: entry for entry in entries}
        except OSError as error:
            problems.append((folder, f"the folder cannot be listed: {error.strerror}"))
            continue
        found += _in_folder(f"{folder}/" if folder else "", sounds, listed, problems)
    return found, problems


def _in_folder(
    prefix: str,
    sounds: dict[str, list[Part]],
    listed: dict[str, os.DirEntry[str]],
    problems: list[Problem],
) -> list[LabelFiles]:
    by_stem: dict[str, list[str]] = {}
    for name in sounds:
        by_stem.setdefault(_stem(name), []).append(name)
    of_sound: dict[str, list[tuple[str, int, int]]] = {name: [] for name in sounds}
    doubtful: list[LabelFiles] = []
    for name in sorted(listed, key=_preference):
        match = _LABEL_FILE.fullmatch(name)
        if match is None:
            continue
        owners = _owners(match["base"], sounds, by_stem, listed)
        try:
            file = _checked(prefix + name, listed[name])
        except OSError as error:
            if owners or match["ending"].lower() == ".not.mat":
                reason = f"cannot be read: {error.strerror}"
                problems.append(
                    (prefix + name.encode("utf-8", "backslashreplace").decode(), reason)
                )
            continue
        if file is None:
            continue
        if len(owners) == 1:
            of_sound[owners[0]].append(file)
        else:
            doubtful.append(LabelFiles((), (file,), _doubt(match, owners, listed)))
    return [
        LabelFiles(tuple(sounds[name]), tuple(files)) for name, files in of_sound.items() if files
    ] + doubtful


def _preference(name: str) -> tuple[int, str]:
    lower = name.lower()
    return next((i for i, end in enumerate(_ENDINGS) if lower.endswith(end)), len(_ENDINGS)), name


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _owners(
    base: str,
    sounds: dict[str, list[Part]],
    by_stem: dict[str, list[str]],
    listed: dict[str, os.DirEntry[str]],
) -> list[str]:
    """Sound files whose labels a file may hold: by its whole name, else by the name's stem."""
    if base in sounds:
        return [base]
    owners = by_stem.get(base, [])
    stem = _stem(base)
    if not owners and base not in listed and _SOUND_SUFFIX.fullmatch(base[len(stem) :]):
        owners = by_stem.get(stem, [])
    return owners


def _doubt(match: re.Match[str], owners: list[str], listed: Container[str]) -> str:
    """Why the labels in a file are nobody's, to be said if it holds any."""
    if owners:
        return (
            f"may belong to {' or '.join(sorted(owners))}: rename it, for instance to "
            f"{owners[0]}{match['ending']}"
        )
    base = match["base"]
    if sound := next(
        (name for name in (base, *(base + end for end in READ)) if name in listed), ""
    ):
        return f"holds labels of {sound}, which is not used: recordings.parquet says why"
    return (
        "holds labels, but no recording that is used has its name: rename it after its recording, "
        f"for instance x.wav{match['ending']} for x.wav"
    )


def _checked(path: str, entry: os.DirEntry[str]) -> tuple[str, int, int] | None:
    """(path, bytes, time of the last change) of a file; None for a folder."""
    facts = entry.stat()
    if stat.S_ISDIR(facts.st_mode):
        return None
    if not stat.S_ISREG(facts.st_mode):  # to open a named pipe would wait for ever
        raise OSError(0, "not a regular file")
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise OSError(0, "the name is not valid UTF-8: rename the file") from error
    return path, facts.st_size, facts.st_mtime_ns
