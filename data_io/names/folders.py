"""A folder of recordings, walked once: the name, size and time of every sound file in it.

No file is opened. Folders are listed by several threads: on a network disk each call waits.
"""

import errno
import os
import stat
from array import array
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_io.files import FOR_NOW, sound_state
from data_io.names.ages import natural
from data_io.names.file_names import dph_in, moment

READ = (".wav", ".wave", ".w64", ".rf64", ".bwf", ".aif", ".aiff", ".aifc", ".flac", ".cbin")
LOSSY = (".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".mp4", ".wma", ".amr", ".3gp", ".ac3")
LOSSLESS = (".caf", ".au", ".snd", ".wv", ".ape", ".alac", ".tta", ".wac", ".shn", ".voc", ".sph")
SYSTEM_FOLDERS = ("lost+found", "system volume information", "$recycle.bin")  # in small letters
RUN_FOLDER = ("study.json", ".stages")  # a folder with one of them is the result of a study

N_THREADS = 16  # waits of a network disk, not work of this machine
NONE = -(2**31)  # in the columns of `Folder`: not known
MANY_NAMES = 100  # so many names of birds in one folder are none
PATHS_AT_ONCE = 10_000
_ONE_AT_A_TIME = Lock()  # threads wait for disks together; their work on names would take memory
EPOCH_DAY = 719_163  # datetime.date(1970, 1, 1).toordinal()


@dataclass(frozen=True)
class Folder:
    """The sound files of one folder, in natural order of their names.

    Attributes:
        parts: names of the folders from the data folder down to this one.
        paths: of the files, relative to the data folder [n].
        n_bytes, mtime_ns: size, and time of the last change [n].
        day: recording date of each file by its name, in days since 1970 [n]; or `NONE`.
        digits: six digits in its name that are a date in an unknown order [n]; or `NONE`.
        ms: time of day by its name, in milliseconds [n]; or `NONE`.
        dph: days post hatch by its name [n]; or `NONE`.
        reasons: why a file cannot be used, by its place.
        birds_named: what stands before the date in names of files; empty if they are too many.
    """

    parts: tuple[str, ...]
    paths: pa.Array
    n_bytes: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]
    day: NDArray[np.int32]
    digits: NDArray[np.int32]
    ms: NDArray[np.int32]
    dph: NDArray[np.int32]
    reasons: dict[int, str]
    birds_named: frozenset[str]


@dataclass
class Found:
    """All that was found below a data folder.

    Attributes:
        folders: those that hold sound files, in natural order.
        unlisted: folders that could not be listed, with the cause.
        runs: folders of studies, which were left out.
    """

    folders: list[Folder] = field(default_factory=list)
    unlisted: list[tuple[str, str]] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)


@dataclass
class _Listing:
    """What one folder holds."""

    name: str
    identity: tuple[int, int] = (0, 0)
    files: list[str] = field(default_factory=list)
    packed: list[pa.Array] = field(default_factory=list)  # names that came before those in files
    n_bytes: "array[int]" = field(default_factory=lambda: array("q"))
    mtime_ns: "array[int]" = field(default_factory=lambda: array("q"))
    reasons: dict[str, str] = field(default_factory=dict)
    subfolders: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    folder: Folder | None = None
    error: str = ""
    is_run: bool = False


def walk(root: Path) -> Found:
    """Find every sound file below ``root``.

    Hidden files and folders are left out, folders of the system, and folders of studies. A folder
    that several paths reach is listed once, under its own name and not under the name of a link.
    What is called as a sound file and is none (a folder, a pipe, a link to nothing) is found with a
    reason.
    """
    found = Found()
    seen: set[tuple[int, int]] = set()
    links: list[str] = []
    tops = [""]  # then the links to folders, after all that is in a folder itself
    with ThreadPoolExecutor(N_THREADS) as pool:
        while tops:
            level = [tops.pop(0)]
            while level:
                listings = pool.map(lambda name: _list(root, name), level)
                level = []
                for listing in listings:
                    if listing.identity in seen:
                        continue
                    level += _keep(found, seen, links, listing)
            tops, links = sorted([*tops, *links], key=natural), []
    found.folders.sort(key=lambda folder: [natural(part) for part in folder.parts])
    found.unlisted.sort()
    return found


def _keep(
    found: Found, seen: set[tuple[int, int]], links: list[str], listing: _Listing
) -> Iterable[str]:
    """Take over what one folder holds; its subfolders come next."""
    if listing.error:
        found.unlisted.append((shown(listing.name), listing.error))
        return []
    seen.add(listing.identity)
    if listing.is_run and listing.name:
        found.runs.append(shown(listing.name))
        return []
    if listing.folder is not None:
        found.folders.append(listing.folder)
    links += listing.links
    return listing.subfolders


def shown(name: str) -> str:
    """A name as it is shown and stored: Parquet, JSON and MLflow take UTF-8 only."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "backslashreplace")


def _list(root: Path, name: str) -> _Listing:
    """List one folder; errors are told in the result."""
    listing = _Listing(name)
    at = os.path.join(root, name) if name else os.fspath(root)  # noqa: PTH118
    try:
        facts = os.stat(at)  # noqa: PTH116
        listing.identity = (facts.st_dev, facts.st_ino)
        with os.scandir(at) as entries:
            for entry in entries:
                _add(listing, entry)
    except OSError as error:
        return _Listing(name, error=error.strerror or str(error))
    listing.subfolders.sort(key=natural)
    if listing.n_bytes and not (listing.is_run and name):
        with _ONE_AT_A_TIME:
            listing.folder = _columns(listing)
    listing.files, listing.packed = [], []
    return listing


def _add(listing: _Listing, entry: os.DirEntry[str]) -> None:
    name = entry.name
    if name in RUN_FOLDER:
        listing.is_run = True
    if name.startswith(".") or name.lower() in SYSTEM_FOLDERS:
        return
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
    is_sound = suffix in READ or suffix in LOSSY or suffix in LOSSLESS
    try:
        is_folder = entry.is_dir()
    except OSError:  # a link to itself
        is_folder = False
    if is_folder:
        below = f"{listing.name}/{name}" if listing.name else name
        (listing.links if entry.is_symlink() else listing.subfolders).append(below)
        if suffix not in READ:
            return
    if not is_sound:
        return
    reason, n_bytes, mtime_ns = "", 0, 0
    try:
        facts = entry.stat()
        n_bytes, mtime_ns = sound_state(entry.path, facts)
        if is_folder:
            reason, n_bytes = "a folder, not a sound file", 0
        elif not stat.S_ISREG(facts.st_mode):  # to open a named pipe would wait for ever
            reason = "cannot be read: not a regular file"
    except OSError as error:
        is_link_to_nothing = error.errno in (errno.ENOENT, errno.ELOOP)
        reason = f"{'cannot be read: ' if is_link_to_nothing else FOR_NOW}{error.strerror}"
    if not reason:
        reason = _why_not_read(suffix)
    if not (name.isascii() and listing.name.isascii()) and not _is_utf8(name, listing.name):
        reason = "the name is not valid UTF-8: rename the file or folder"
    if reason:
        listing.reasons[name] = reason
    listing.files.append(name)
    if len(listing.files) == PATHS_AT_ONCE:
        listing.packed.append(pa.array(map(os.fsencode, listing.files), pa.binary()))
        listing.files = []
    listing.n_bytes.append(n_bytes)
    listing.mtime_ns.append(mtime_ns)


def _is_utf8(*names: str) -> bool:
    return all(shown(name) == name for name in names)


def _why_not_read(suffix: str) -> str:
    if suffix in LOSSY:
        return (
            f"{suffix} files are not read: their coding changes the sound; take the original "
            "recording if there is one, else convert this one to WAV"
        )
    return f"{suffix} files are not read: convert it to WAV or FLAC" if suffix in LOSSLESS else ""


def _columns(listing: _Listing) -> Folder:
    """Put the files of a folder into columns: a list of names takes ten times the memory."""
    files = [os.fsdecode(name) for part in listing.packed for name in part.to_pylist()]
    files += listing.files
    keys = [natural(name) for name in files]
    order = sorted(range(len(files)), key=files.__getitem__)
    order.sort(key=keys.__getitem__)
    keys.clear()
    said = array("i")
    birds: set[str] = set()
    parts = listing.name.split("/")
    for i in order:
        said.extend(_said(files[i], parts, birds))
    times = np.frombuffer(said, np.int32).reshape(-1, 4).T.copy()
    start = f"{shown(listing.name)}/" if listing.name else ""
    parts = [
        pa.array([start + shown(files[i]) for i in rows], pa.string()) for rows in _batches(order)
    ]
    places = {files[i]: row for row, i in enumerate(order)} if listing.reasons else {}
    return Folder(
        parts=tuple(shown(listing.name).split("/")) if listing.name else (),
        paths=pa.concat_arrays(parts),
        n_bytes=np.frombuffer(listing.n_bytes, np.int64)[order],
        mtime_ns=np.frombuffer(listing.mtime_ns, np.int64)[order],
        day=times[0],
        digits=times[1],
        ms=times[2],
        dph=times[3],
        reasons={places[name]: reason for name, reason in listing.reasons.items()},
        birds_named=frozenset(birds) if len(birds) < MANY_NAMES else frozenset(),
    )


def _said(name: str, parts: list[str], birds: set[str]) -> tuple[int, int, int, int]:
    """Day, digits, milliseconds and dph that the name of a file says; adds the bird it names."""
    found = moment(name)
    if found is None:
        dph = dph_in(name, parts)
        return NONE, NONE, NONE, NONE if dph is None else dph
    if len(birds) < MANY_NAMES:
        birds.add(name[: found.start].rstrip("-_. "))
    day = NONE if found.date is None else found.date.toordinal() - EPOCH_DAY
    digits = int(found.digits) if found.digits else NONE
    return day, digits, NONE if found.ms is None else found.ms, NONE


def _batches(order: list[int]) -> Iterator[list[int]]:
    return (order[i : i + PATHS_AT_ONCE] for i in range(0, len(order), PATHS_AT_ONCE))
