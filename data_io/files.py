"""Atomic files and folders, JSON, hashes of plain content."""

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

STORAGE_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to; rename it to ``path`` at the end.

    A reader sees the old content or the new content, never a part of one. After an error the
    temporary file is removed and ``path`` is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: some writers (numpy, soundfile) choose the format by it.
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path`` to fill; rename it to ``path`` at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    token = uuid.uuid4().hex[:8]
    temporary = path.with_name(f".{path.name}.{token}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            # Two renames, because one rename cannot replace a folder that is not empty.
            retired = path.with_name(f".{path.name}.{token}.old")
            path.replace(retired)
            temporary.replace(path)
            shutil.rmtree(retired)
        else:
            temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
    """Remove the half-written files of killed processes from ``folder``; nobody may write there."""
    for path in [*folder.glob(".*.tmp*"), *folder.glob(".*.old")]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` as indented JSON, atomically. NaN and infinities raise ValueError."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", "utf-8")


def digest(content: Any) -> str:
    """Hash of plain content; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_json(path: Path) -> dict[str, Any] | None:
    """Content of a record; None if it is missing or cut short, so that its work is done again."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):  # no JSON, or not even text
        return None
    return content if isinstance(content, dict) else None
