"""Reads a small folder of recordings again and again, killed at every change of the disk.

Usage: python -m tests.helpers.killed_ingest FOLDER. Prints one JSON line per kill: at which event,
whether each file is then that of the old or of the new state, whether a second start gives the new
state, and whether bytes, mode and time of every recording are what they were. Each start is a fork
of this process, which itself never uses PyArrow's threads.
"""

import hashlib
import json
import os
import shutil
import sys
from io import StringIO
from pathlib import Path

from data_io.names.listing import survey
from study import ingest as stage
from study.base.console import Console
from study.base.paths import RunPaths
from study.config.tree import DataConfig, StudyConfig
from tests.helpers.tasks import InTurn

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "shutil.rmtree")
KILLED = 77


def start(data: Path, out: Path, kill_at: int | None = None) -> int:
    """Read the recordings in a child process; give its exit code."""
    if (pid := os.fork()) == 0:
        code = 1
        try:
            if kill_at is not None:
                die_at(kill_at)
            stage._ingest_bird_age = Here
            config = StudyConfig(data=DataConfig(dir=str(data)))
            stage.ingest(config, survey(data), RunPaths(out), InTurn(), Console(StringIO()))
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Here:
    """`_ingest_bird_age` in this process."""

    @staticmethod
    def remote(root, listed, params, folder, before):  # type: ignore[no-untyped-def]
        """Do it."""
        return stage.read_bird_age(root, listed, params, folder, before)


def die_at(n: int) -> None:
    """End this process at its n-th change of the disk, as a kill would."""
    seen = 0

    def hook(event: str, args: tuple) -> None:
        nonlocal seen
        is_written = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
        if event in CHANGES or is_written:
            seen += 1
            if seen == n:
                os._exit(KILLED)

    sys.addaudithook(hook)


def state(out: Path) -> dict[str, str]:
    """Hash of every file of the store."""
    files = [out / "recordings.parquet", *(out / "spectrograms").rglob("*.parquet")]
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file() and not any(part.startswith(".") for part in path.parts)
    }


def sources(data: Path) -> dict[str, tuple[str, int, int]]:
    """Hash, mode and time of change of everything in the folder of recordings."""
    return {
        path.relative_to(data).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            path.stat().st_mode,
            path.stat().st_mtime_ns,
        )
        for path in [data, *data.rglob("*")]
    }


def main(folder: Path) -> None:
    """Kill at every event until a start comes through."""
    old_data, new_data = folder / "old", folder / "new"
    out = folder / "out"
    shutil.copytree(old_data, folder / "data")
    assert start(folder / "data", out) == 0
    old = state(out)
    shutil.rmtree(folder / "data")
    shutil.copytree(new_data, folder / "data")
    recordings = sources(folder / "data")
    shutil.copytree(out, folder / "kept")
    assert start(folder / "data", out) == 0
    new = state(out)
    for n in range(1, 1000):
        shutil.rmtree(out)
        shutil.copytree(folder / "kept", out)
        code = start(folder / "data", out, kill_at=n)
        if code == 0:
            return
        assert code == KILLED, code
        there = state(out)
        whole = all(value in (old.get(name), new.get(name)) for name, value in there.items())
        again = start(folder / "data", out)
        left = [path.name for path in out.rglob(".*tmp*")]
        found = {"n": n, "whole": whole, "again": again == 0 and state(out) == new, "left": left,
                 "untouched": sources(folder / "data") == recordings}  # fmt: skip
        print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
