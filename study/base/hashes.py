"""Hashes of a stage's files: taken when the stage is done, compared before its files are used."""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from data_io.files import BrokenSealError, content_of, file_sha256, read_json
from data_io.seal import check_seal, read_seal
from study.base import stopping
from study.base.errors import A_FILE, A_FOLDER

N_THREADS = min(8, 2 * (os.cpu_count() or 1))  # a file on another machine is waited for
MISSING, ALTERED = "is missing", "was altered"
OUTSIDE = "does not lie in the run folder"
UNREADABLE = "cannot be read"  # for now, as on a disk that is away: it may be whole
T = TypeVar("T")


def hashes_of(root: Path, outputs: list[Path]) -> dict[str, dict[str, Any]]:
    """Hash and size of every file of a stage, for its record.

    Args:
        root: the run folder.
        outputs: files and folders in it.

    Returns:
        ``files``, hashes by name (the path below ``root``), and ``n_bytes``, sizes by name. The
        hash of a sealed Parquet file is that in its seal: it was made when the file was written.
    """
    paths = [
        path
        for output in outputs
        for path in (sorted(walk(output, _raise)) if output.is_dir() else [output])
        if path.is_file()
    ]
    names = [path.relative_to(root).as_posix() for path in paths]
    return {
        "files": dict(zip(names, _in_threads(_hash_of, paths), strict=True)),
        "n_bytes": {name: path.stat().st_size for name, path in zip(names, paths, strict=True)},
    }


class LeftFiles:
    """The files of a stage as it left them, or as they were found whole.

    Args:
        root: the run folder.
        record: of the stage, as `hashes_of` gives it.
    """

    def __init__(self, root: Path, record: dict[str, Any]):
        self._root = root
        self._record = record
        self._states = {name: _state(root / name) for name in record["files"]}

    def first_fault(self) -> tuple[str, str] | None:
        """A file that is not as it was, and what is wrong; only those that changed are read."""
        for name, before in self._states.items():
            now = _state(self._root / name)
            if now != before:
                sha256, n_bytes = (self._record[entry][name] for entry in ("files", "n_bytes"))
                if fault := _fault(self._root / name, sha256, n_bytes, True):
                    return name, fault
                self._states[name] = now
        return None


def _state(path: Path) -> tuple[int, int, int] | None:
    """Which file it is, its size and its time; None where it is not there."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


@dataclass(frozen=True)
class Compared:
    """Files beside their record.

    Attributes:
        faults: what is wrong, by name: `MISSING`, `ALTERED`, `OUTSIDE`, or why it cannot be read.
        n_left: files of which only the size (and of Parquet the seal) was compared.
        bytes_left: in them.
    """

    faults: dict[str, str]
    n_left: int
    bytes_left: int


def compare(
    root: Path,
    record: dict[str, Any],
    most_bytes: float = math.inf,
    then: Callable[[str], None] = lambda name: None,
) -> Compared:
    """Compare the files of a stage with its record.

    Args:
        root: the run folder.
        record: of the stage, as `hashes_of` gives it.
        most_bytes: to read and hash, the smallest files first.
        then: called with the name of each file that was looked at.
    """
    files, n_bytes = record["files"], record["n_bytes"]
    names = sorted(files, key=lambda name: n_bytes[name])
    n_read, end = 0, 0
    while end < len(names) and n_read + n_bytes[names[end]] <= most_bytes:
        n_read += n_bytes[names[end]]
        end += 1
    is_read = set(names[:end])

    def fault_of(name: str) -> str:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            return OUTSIDE  # nobody of ours wrote this record
        return _fault(root / name, files[name], n_bytes[name], name in is_read)

    faults = {}
    for name, fault in zip(names, _in_threads(fault_of, names), strict=True):
        if fault:
            faults[name] = fault
        then(name)
    return Compared(faults, len(names) - end, sum(n_bytes[name] for name in names[end:]))


def read_sealed(
    path: Path, read: Callable[[Path], dict[str, Any] | None] = read_json
) -> tuple[dict[str, Any] | None, str]:
    """Content of sealed JSON, None where it cannot be used; and its fault, "" where it is whole.

    Args:
        path: of the file.
        read: gives the content, or raises an error as `read_json` does.
    """
    try:
        content = read(path)
    except BrokenSealError as error:
        return None, error.in_short
    except OSError as error:
        return None, unreadable(error)
    return content, "" if content is not None else MISSING


def _raise(error: OSError) -> None:
    raise error


def fault_of(path: Path, sha256: str) -> str:
    """What is wrong with a file that should have this hash; "" where it is as it was written."""
    try:
        return "" if file_sha256(path) == sha256 else ALTERED
    except FileNotFoundError:
        return MISSING
    except OSError as error:
        return unreadable(error)


def walk(folder: Path, then: Callable[[OSError], None]) -> Iterator[Path]:
    """All files in a folder and those below it, by name; ``then`` is told of those not listed."""
    for root, folders, names in os.walk(folder, onerror=then):
        folders.sort()
        yield from (Path(root, name) for name in sorted(names) if Path(root, name).is_file())


def unreadable(error: OSError) -> str:
    """The fault of a file, or a folder, that cannot be read, or that something else lies for."""
    if isinstance(error, IsADirectoryError):
        return A_FOLDER
    if isinstance(error, NotADirectoryError):
        return _absent(Path(error.filename))
    return f"{UNREADABLE} ({error.strerror or error})"


def _fault(path: Path, sha256: str, n_bytes: int, is_read: bool) -> str:
    """What is wrong with a file; empty where it is as it was written."""
    try:
        if not path.is_file():
            return _absent(path)
        is_same = path.stat().st_size == n_bytes
        # One whose seal cannot be read is read whole: it may be plain Parquet.
        if is_same and (is_read or path.suffix == ".parquet"):
            is_same = _hash_of(path, _checked if is_read else read_seal) == sha256
    except OSError as error:
        return unreadable(error)
    return "" if is_same else ALTERED


def _absent(path: Path) -> str:
    """Why there is no file of that name."""
    if path.is_dir():
        return A_FOLDER
    for one in (path, *path.parents):
        content_of(one)  # where it is away for now, nothing is missing
        if one.is_file():
            return f"{MISSING}: {one} {A_FILE}"
    return MISSING


def _hash_of(path: Path, of_seal: Callable[[Path], str] = read_seal) -> str:
    """Hash of a file; that of its seal, where it has one."""
    if path.suffix == ".parquet":
        with suppress(BrokenSealError):  # the truth about simulated birds is plain Parquet
            return of_seal(path)
    return file_sha256(path, _go_on)


def _checked(path: Path) -> str:
    return check_seal(path, _go_on)


def _go_on() -> None:
    """Leave a large file at a stop: the end of the command waits for every thread."""
    if stopping.is_stopping():
        raise CancelledError


def _in_threads(work: Callable[[T], str], items: Iterable[T]) -> Iterator[str]:
    """Results in the order of ``items``; hashing a file lets other threads run.

    Raises:
        Stopped: a stop was asked for meanwhile.
    """
    pool = ThreadPoolExecutor(N_THREADS)
    try:
        yield from pool.map(work, items)
    except CancelledError:
        stopping.check()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
