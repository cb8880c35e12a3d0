"""What Ray needs of this machine, tried before it starts: files, sockets, locks, memory, a token.

Where Ray's own choice does not work and another does, Ray is given the other.
"""

import fcntl
import mmap
import os
import resource
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from study.base.errors import REFUSED, StudyError
from study.base.private import home, private_folder

# Ray names its longest socket so below <folder>/ray; the number is that of the process.
_SOCKET = "session_2026-01-01_00-00-00_000000_{pid}/sockets/plasma_store"
_SOCKET_BYTES = 103 if sys.platform == "darwin" else 107  # of a socket's name
LEAST_FREE = 100_000_000  # bytes for Ray's files
LEAST_FILES = 512  # open at a time: Ray's own processes take some hundreds
_SHARED = Path("/dev/shm")
_FEW_SHARED = 500_000_000


class ResourceError(StudyError):
    """The cluster cannot give what the configuration asks for."""

    exit_code = REFUSED


@dataclass(frozen=True)
class Surroundings:
    """What Ray is given on this machine.

    Attributes:
        folder: of its files, in ``folder``/ray.
        shared: folder for memory that processes share; None for Ray's own choice.
        notes: what was wrong, and what is done instead.
    """

    folder: Path
    shared: Path | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def options(self) -> dict[str, Any]:
        """For ``ray.init``."""
        shared = {} if self.shared is None else {"_plasma_directory": str(self.shared)}
        return {"_temp_dir": str(self.folder / "ray"), **shared}


def surroundings() -> Surroundings:
    """Find what Ray can use here, and set the environment of its processes to it.

    Raises:
        ResourceError: there is no folder that Ray can use, or too few files may be open.
    """
    _check_open_files()
    tried: list[str] = []
    for name, folder in _folders():
        fault = folder_fault(folder)
        if not fault:
            break
        tried.append(f"{name} ({folder}) {fault}")
    else:
        raise ResourceError(
            f"Ray finds no folder for its files: {'; '.join(tried)}. Set RAY_TMPDIR to a folder "
            f"with a short name on a local disk, with {LEAST_FREE // 10**6} MB free."
        )
    notes = [f"{one}: Ray's files are in {folder}/ray." for one in tried]
    if tried:
        os.environ["RAY_TMPDIR"] = str(folder)  # also for the locks of Ray Tune
    shared = None
    if sys.platform == "linux" and (fault := _shared_fault()):
        shared = folder / "ray"
        shared.mkdir(exist_ok=True)
        notes.append(f"{_SHARED} {fault}: what processes share is in {shared}, which is slower.")
    if note := _give_token():
        notes.append(note)
    return Surroundings(folder, shared, notes)


def _folders() -> Iterator[tuple[str, Path]]:
    """Folders for Ray's files, Ray's own choice first, each with where its name comes from."""
    for name in ("RAY_TMPDIR", "TMPDIR"):
        if os.environ.get(name):
            yield name, Path(os.environ[name])
    yield "the usual folder", Path("/tmp")
    for parent in (Path("/tmp"), Path("/var/tmp"), _SHARED):
        try:  # where /tmp/ray belongs to somebody else
            yield "a folder of our own", private_folder(parent)
        except OSError:
            continue


def folder_fault(folder: Path) -> str:
    """Why Ray cannot keep its files in ``folder``/ray; "" where it can."""
    if not folder.is_absolute():
        return "is not an absolute path"
    if not folder.is_dir():
        return "is not a folder" if folder.exists() else "does not exist"
    longest = folder / "ray" / _SOCKET.format(pid=os.getpid())
    n_bytes = len(os.fsencode(longest))
    if n_bytes > _SOCKET_BYTES:
        return (
            f"is {n_bytes - _SOCKET_BYTES} bytes too long: a socket of Ray would have a name of "
            f"{n_bytes} bytes there, and {_SOCKET_BYTES} are the most"
        )
    below = folder / "ray"
    what = "cannot be written to"
    try:
        at = below if below.exists() else folder
        with tempfile.TemporaryDirectory(prefix=".try", dir=at) as made:
            path = Path(made) / "file"
            path.write_bytes(bytes(2**20))
            what = "has no locks"
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            what = "has no sockets"
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(str(path.with_name("s")))
            free = shutil.disk_usage(made).free
    except OSError as error:
        return f"{what} ({error.strerror or error})"
    return "" if free >= LEAST_FREE else f"has {free // 10**6} MB free"


def _shared_fault() -> str:
    """Why processes cannot share memory in /dev/shm; "" where they can."""
    try:
        with tempfile.TemporaryFile(dir=_SHARED) as file:
            file.write(bytes(2**20))
            file.flush()
            mmap.mmap(file.fileno(), 2**20).close()
        free = shutil.disk_usage(_SHARED).free
    except OSError as error:
        return f"cannot be used ({error.strerror or error})"
    few = f"has {free // 10**6} MB free (in a container, --shm-size=2gb gives more)"
    return few if free < _FEW_SHARED else ""


def _give_token() -> str:
    """Let Ray have a token where it can write none; say so, or "" where it needs nothing.

    Ray keeps it in the home folder, and its processes show it to each other.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return ""
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return ""
    named = os.environ.get("HOME", "")
    folder = Path(named) / ".ray"
    if home() is not None and not (folder.exists() and not os.access(folder, os.W_OK | os.X_OK)):
        return ""
    if named and os.access(folder / "auth_token", os.R_OK):
        return ""
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    return f"HOME ({named or 'not set'}) cannot be written to: Ray's token is in no file."


def _check_open_files() -> None:
    """Refuse a limit that Ray's processes would soon reach; Ray raises the soft one itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < LEAST_FILES:
        raise ResourceError(
            f"{hard} files may be open at a time (ulimit -Hn), and Ray needs {LEAST_FILES} or "
            "more: ask for more where the job or the session is set up; 8192 is a good number."
        )
