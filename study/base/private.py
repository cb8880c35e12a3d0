"""Folders for what programs keep between their starts, where the home folder cannot hold it."""

import os
import tempfile
from pathlib import Path


def can_write(folder: Path) -> bool:
    """Whether a file can be made in a folder, or in the one in which it would be made."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def home() -> Path | None:
    """The home folder as the environment names it; None where it is missing or read-only."""
    named = os.environ.get("HOME", "")
    is_usable = named.startswith("/") and Path(named).is_dir() and can_write(Path(named))
    return Path(named) if is_usable else None


def private_folder(parent: Path) -> Path:
    """A folder below ``parent`` in which nobody else can write.

    Raises:
        OSError: it cannot be made, or belongs to somebody else.
    """
    folder = parent / f"ray-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if folder.is_symlink() or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise PermissionError(f"{folder} is not of this user alone")
    return folder


def keep_compiled_code() -> None:
    """Give numba a folder for compiled code; it refuses to be imported without one.

    By itself it takes that of the source, else the home folder. A laboratory's installation may be
    read-only, and a job's home folder as well. Call this before numba is imported.
    """
    if "NUMBA_CACHE_DIR" in os.environ or home() is not None:
        return
    try:
        # Not a folder that others can write to: what lies there is run.
        folder = private_folder(Path(tempfile.gettempdir()))
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="numba-"))
    os.environ["NUMBA_CACHE_DIR"] = str(folder / "numba")
