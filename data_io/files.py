"""Files and folders that survive a power cut, sealed JSON, hashes of plain content.

Everything that a study writes goes through here, or ends here: first the content is on the disk,
then the name; first the new, then the old goes. So at any moment a reader, or the next start after
a power cut, finds the old content or the new one.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import Any

STORAGE_FULL = (errno.ENOSPC, errno.EDQUOT)
# Begins a verdict on a file that comes of the system, not of its bytes. It is never taken over.
FOR_NOW = "cannot be read for now: "
# Of file systems on which a folder cannot be synced, since its entries are never held back.
_NO_SYNC_OF_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES)
_UNSEALED = "has no seal (an earlier version wrote it, or it was altered)"
_LEFT = re.compile(r"\.(.+)\.[0-9a-f]{8}\.(old|tmp)")  # names of `atomic_dir`
_BLOCK_BYTES = 1 << 20
SEAL = "seal"  # entry of sealed JSON: the hash of all others


class BrokenSealError(ValueError):
    """The file is not as it was written; the message names it, and says how it was noticed.

    Attributes:
        why: how it was noticed, for a message with another remedy.
    """

    def __init__(self, text: str, why: str = ""):
        super().__init__(text)
        self.why = why or text

    @property
    def in_short(self) -> str:
        """What is wrong with it, for a line: after an update nothing of before has a seal."""
        return _UNSEALED if self.why == _UNSEALED else "was altered"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the name of a file into the system's errors: opening it names it, reading does not.

    Raises:
        OSError: as the block raised it.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to; rename it to ``path`` at the end.

    A reader sees the old content or the new content, never a part of one, and so it is after a
    power cut. After an error the temporary file is removed and ``path`` is unchanged.
    """
    make_folder(path.parent)
    # The suffix stays last: some writers (numpy, soundfile) choose the format by it.
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}")
    try:
        with naming(path):
            yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path`` to fill; rename it to ``path`` at the end.

    Where there is one of that name, it goes only when the new one is on the disk. A process that is
    ended between the two renames leaves both beside ``path``; `remove_leftovers` puts the old one
    back. A link stays: all this is done where the folder lies that it leads to.

    Raises:
        NotADirectoryError: there is a file of that name.
        OSError: ``path`` is a link, and what it leads to is away.
    """
    path = content_of(path)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    make_folder(path.parent)
    token = uuid.uuid4().hex[:8]
    temporary = path.with_name(f".{path.name}.{token}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        sync_tree(temporary)
        if path.exists():
            # Two renames, because one rename cannot replace a folder that is not empty.
            retired = path.with_name(f".{path.name}.{token}.old")
            path.replace(retired)
            temporary.replace(path)
            sync(path.parent)
            shutil.rmtree(retired)
        else:
            temporary.replace(path)
            sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def content_of(path: Path) -> Path:
    """Where the content of ``path`` lies: ``path`` itself, or what it is a link to.

    Raises:
        OSError: it is a link, and what it leads to is away for now.
    """
    if not path.is_symlink():
        return path
    content = Path(os.path.realpath(path))
    if not content.exists():
        raise OSError(errno.ENXIO, f"a link to {content}, which is not there", str(path))
    return content


def found(folder: Path, pattern: str = "*") -> list[Path]:
    """What lies in a folder, by a pattern of names and in their order; nothing where it is missing.

    `Path.glob` finds nothing in a folder that cannot be listed, and says nothing of it.

    Raises:
        OSError: the folder cannot be listed.
    """
    try:
        return sorted(path for path in folder.iterdir() if fnmatchcase(path.name, pattern))
    except FileNotFoundError:
        content_of(folder)
        return []


def remove_folder(path: Path) -> None:
    """Remove a folder; where it is a link, the link, and then the folder that it leads to.

    Raises:
        OSError: that is not possible, or it is a link to what is away.
    """
    content = content_of(path)
    if content != path:
        path.unlink()
    shutil.rmtree(content)


def kept_for(folder: Path, key: str) -> Path:
    """Folder ``key`` in ``folder``, for what is kept of a stage under way; other keys go.

    Half-written files of ended processes in it are removed; nobody may write there.
    """
    kept = folder / key
    make_folder(kept)
    for other in folder.iterdir():
        if other.is_dir() and other != kept:
            remove_folder(other)
    for half in kept.rglob(".*.tmp*"):
        half.unlink()
    return kept


def sync(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk."""
    is_folder = path.is_dir()
    try:
        descriptor = os.open(path, os.O_RDONLY)  # of a folder that one may not list it fails
        try:
            with naming(path):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if not is_folder or error.errno not in _NO_SYNC_OF_FOLDERS:
            raise


def sync_tree(folder: Path) -> None:
    """Wait until a folder with all that is in it is on the disk."""
    for root, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(root, name))
        sync(Path(root))


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing, so that a power cut leaves them."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def link(path: Path, to: Path) -> None:
    """Give a file a second name; copy it where the file system has no links."""
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        to.hardlink_to(path)
    except OSError:
        shutil.copy2(path, to)


def sound_state(path: str | os.PathLike[str], facts: os.stat_result) -> tuple[int, int]:
    """Size and time of change that tell whether a sound file is as it was.

    The samples of a ``.cbin`` mean what the ``.rec`` beside it says, so both count.
    """
    stem, suffix = os.path.splitext(path)  # noqa: PTH122
    n_bytes, mtime_ns = facts.st_size, facts.st_mtime_ns
    if suffix.lower() == ".cbin":
        with suppress(OSError):
            rec = os.stat(f"{stem}.rec")  # noqa: PTH116
            n_bytes, mtime_ns = n_bytes + rec.st_size, max(mtime_ns, rec.st_mtime_ns)
    return n_bytes, mtime_ns


def remove_leftovers(folder: Path) -> None:
    """Remove the half-written files of ended processes from ``folder``; nobody may write there.

    A folder that was to be replaced, and was not, gets its name back. Where a link in ``folder``
    leads to one, what lies beside that is looked at as well, if it has exactly its name.
    """
    for path in found(folder):
        if path.is_symlink():
            content, beside = Path(os.path.realpath(path)), []
            with suppress(OSError):  # not ours to list
                beside = found(content.parent, f".{escape(content.name)}.*")
            for left in beside:
                named = _LEFT.fullmatch(left.name)
                if named is not None and named[1] == content.name:
                    _clear(left, named)
    for path in found(folder, ".*"):
        named = _LEFT.fullmatch(path.name)
        if named is not None and named[2] == "old":
            _clear(path, named)
        elif fnmatchcase(path.name, ".*.tmp*"):
            _remove(path)


def _clear(left: Path, named: re.Match[str]) -> None:
    """Remove what an ended process left of a folder, or give it its name back."""
    path = left.with_name(named[1])
    if not (left.is_dir() or left.is_symlink()):
        return  # not ours
    if named[2] == "tmp" or path.exists() or path.is_symlink():
        _remove(left)
    else:
        left.replace(path)
        sync(left.parent)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` as indented JSON with a seal, atomically.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(sealed(content), "utf-8")


def sealed(content: dict[str, Any]) -> str:
    """Text of ``content`` as JSON, with a hash of it as its last entry."""
    plain = json.loads(json.dumps(content, allow_nan=False))  # keys are text, tuples are lists
    return json.dumps({**plain, SEAL: digest(plain)}, indent=2, allow_nan=False) + "\n"


def read_json(path: Path) -> dict[str, Any] | None:
    """Read what `write_json` wrote, without its seal; None where there is no such file.

    Raises:
        BrokenSealError: it was cut short or altered, or nothing of ours wrote it.
        OSError: it cannot be read; the error names it.
    """
    try:
        with naming(path):
            content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:  # no JSON, or not even text
        raise _broken(path, f"was cut short or altered (it is no JSON: {error})") from error
    if not isinstance(content, dict) or SEAL not in content:
        raise _broken(path, _UNSEALED)
    if content.pop(SEAL) != digest(content):
        raise _broken(path, "was altered (its content does not agree with its seal)")
    return content


def _broken(path: Path, fault: str) -> BrokenSealError:
    return BrokenSealError(
        f"{path} {fault}. Delete it and run the study's command again: what it held is done anew.",
        fault,
    )


def file_sha256(path: Path, at_block: Callable[[], None] = lambda: None) -> str:
    """Hash of a file's content.

    Args:
        path: of the file.
        at_block: called before each block of 1 MiB; what it raises ends the reading.
    """
    hashed, block = hashlib.sha256(), memoryview(bytearray(_BLOCK_BYTES))
    with naming(path), path.open("rb", buffering=0) as file:
        while True:
            at_block()
            n_bytes = file.readinto(block)
            if not n_bytes:
                return hashed.hexdigest()
            hashed.update(block[:n_bytes])


def sound_sha256(path: Path) -> str:
    """Hash of a sound file; of a ``.cbin`` together with the ``.rec`` that says what it means."""
    of_samples, rec = file_sha256(path), path.with_suffix(".rec")
    if path.suffix.lower() != ".cbin" or not rec.is_file():
        return of_samples
    return digest([of_samples, file_sha256(rec)])


def digest(content: Any) -> str:
    """Hash of plain content; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
