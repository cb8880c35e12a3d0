"""The ledger of stages: which are done, and whether their results are still valid.

A stage is done if the record of its last run holds the same key (a hash of everything that it
depends on), and every file that it wrote is still there as it was written.
"""

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from data_io.files import BrokenSealError, digest, read_json, remove_leftovers, write_json
from study import __version__
from study.base import stopping
from study.base.console import Console, count
from study.base.errors import AND_AGAIN, MOVE_AWAY, REFUSED, StudyError
from study.base.hashes import ALTERED, MISSING, OUTSIDE, LeftFiles, compare, hashes_of

HASHED_BYTES = 2e9  # of a stage at a start; what is left is compared by size and seal
NAMED = 3  # files that a note names
_ENTRIES = {"key", "digest", "facts", "seconds", "files", "n_bytes"}  # of a record


class FolderInUseError(StudyError):
    """Another study is writing to the run folder."""

    exit_code = REFUSED


@dataclass(frozen=True)
class StageResult:
    """The result of a stage.

    Attributes:
        outputs: files and folders that it wrote.
        digest: hash of everything in it that later stages depend on.
        facts: for the record and for study.json.
        is_final: False where something could not be read for now: the next start tries it again.
    """

    outputs: list[Path]
    digest: str
    facts: dict[str, Any] = field(default_factory=dict)
    is_final: bool = True


@dataclass(frozen=True)
class StageRecord:
    """The record of a stage that is done; ``key`` is the hash of all that it depended on."""

    digest: str
    facts: dict[str, Any]
    seconds: float
    was_skipped: bool
    key: str


class Ledger:
    """The records of all stages of a run folder.

    Args:
        run_dir: the run folder.
        records: folder of the records.
        console: shows stages.
        n_stages: of the study.
        report: what a person opens; while a stage runs again, it is said that it is an old one.
    """

    def __init__(
        self, run_dir: Path, records: Path, console: Console, n_stages: int,
        report: Path | None = None,
    ):  # fmt: skip
        self._run_dir = run_dir
        self._records = records
        self._console = console
        self._n_stages = n_stages
        self._report = report
        self._left: list[LeftFiles] = []
        self.done: dict[str, StageRecord] = {}

    def run(
        self, name: str, depends_on: dict[str, Any], work: Callable[[], StageResult]
    ) -> StageRecord:
        """Run a stage, or skip it if its input has not changed and its result is final.

        Args:
            name: of the stage.
            depends_on: plain content; if any part changes, the stage runs again.
            work: does the stage's work.

        Raises:
            Stopped: a stop was asked for meanwhile; the stage has no record.
            StudyError: a file of an earlier stage was removed or altered meanwhile; as for a stop.
        """
        self._console.stage(len(self.done) + 1, self._n_stages, name)
        key = digest({"stage": name, "version": __version__, **depends_on})
        path = self._records / f"{name}.json"
        record = self._known(path)
        is_whole = record is not None and self._is_whole(record)
        is_final = record is None or record.get("is_final", True)
        if record is not None and record["key"] == key and is_whole and is_final:
            self._console.note("done before, its input has not changed: skipped")
            done = StageRecord(record["digest"], record["facts"], record["seconds"], True, key)
            files = record
        else:
            if is_final:
                self._name_old_report()
            else:
                self._console.note("what could not be read before is tried again")
            path.unlink(missing_ok=True)
            remove_leftovers(self._run_dir)
            started = time.monotonic()
            result = work()
            stopping.check()
            self._check_earlier(name)
            seconds = round(time.monotonic() - started, 3)
            content: dict[str, Any] = {"digest": result.digest, "facts": result.facts}
            if not result.is_final:
                content["is_final"] = False
            files = hashes_of(self._run_dir, result.outputs)
            write_json(path, {"key": key, **content, "seconds": seconds, **files})
            done = StageRecord(result.digest, result.facts, seconds, False, key)
        self.done[name] = done
        self._left.append(LeftFiles(self._run_dir, files))
        return done

    def _name_old_report(self) -> None:
        if self._report is not None and self._report.exists():
            self._console.note(
                f"{self._report.name} and the tables beside it are of the start before, until this "
                "one has come to its end"
            )
        self._report = None  # once is enough

    def _check_earlier(self, name: str) -> None:
        """Nothing is concluded from a file that was not there, or another one.

        A file that is missing has a meaning for some stages: a bird and age without a song model.
        """
        for left in self._left:
            if found := left.first_fault():
                file, fault = found
                raise StudyError(
                    f"{self._run_dir / file} {fault} since the stage of the {name} began, which "
                    "may have used it. Leave the run folder alone while a study runs. The same "
                    "command makes it anew and goes on from there."
                )

    def _known(self, path: Path) -> dict[str, Any] | None:
        """The record of the stage's last run; None where there is none, or a broken one."""
        try:
            return read_record(path)
        except BrokenSealError as error:
            self._console.note(f"{path} {error.in_short}: the stage runs again")
            return None

    def _is_whole(self, record: dict[str, Any]) -> bool:
        """Whether all files of a stage are as they were written; those that are not are removed.

        The stage may take over what it finds, and must not find them.
        """
        found = compare(self._run_dir, record, HASHED_BYTES)
        for name, fault in found.faults.items():
            if MOVE_AWAY in fault:
                raise StudyError(f"{self._run_dir / name} {fault}{AND_AGAIN}")
            if fault not in (MISSING, OUTSIDE, ALTERED):  # such as a disk that is away for a moment
                raise StudyError(
                    f"{self._run_dir / name} {fault}. Nothing was changed: when the disk can be "
                    "read again, the same command goes on from here."
                )
        if found.faults:
            named = [f"{name} {fault}" for name, fault in islice(found.faults.items(), NAMED)]
            n_more = len(found.faults) - len(named)
            are = "is not as it was" if n_more == 1 else "are not as they were"
            more = f" and {n_more:,} more {are} written" if n_more else ""
            self._console.note(f"{'; '.join(named)}{more}: the stage runs again")
        elif found.n_left:
            self._console.note(
                f"{count(found.n_left, 'large file')} ({found.bytes_left / 1e9:,.1f} GB) "
                f"{'was' if found.n_left == 1 else 'were'} compared by size and seal alone; "
                "--verify reads all whole"
            )
        for name, fault in found.faults.items():
            if fault == ALTERED:
                (self._run_dir / name).unlink()
        return not found.faults


def read_record(path: Path) -> dict[str, Any] | None:
    """The record of a stage; None where there is none.

    Raises:
        BrokenSealError: it was altered, or is no record of a stage.
    """
    record = read_json(path)
    if record is not None and not record.keys() >= _ENTRIES:
        raise BrokenSealError(f"{path} is no record of a stage")
    return record


def not_done(wanted: dict[str, str | None], keys: dict[str, str]) -> list[str]:
    """Stages that are not done as the last start of the study wanted them, in order.

    A start that was stopped leaves the records of an earlier one behind it. Those may be of other
    settings, so that a record alone does not say that a stage is done.

    Args:
        wanted: ``wanted`` of study.json: the key of every stage; None where it was not reached.
        keys: of the records that there are, by name of the stage.
    """
    return [name for name, key in wanted.items() if key is None or keys.get(name) != key]


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Lock the run folder against other studies.

    Raises:
        FolderInUseError: another process uses it.
    """
    with (run_dir / ".lock").open("a+") as file:
        _lock(run_dir, file, fcntl.LOCK_EX, ", or give another folder with --out")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


@contextmanager
def undisturbed(run_dir: Path) -> Iterator[None]:
    """Keep studies out of the run folder while it is looked at; nothing is written to it.

    Raises:
        FolderInUseError: a study is writing to it.
    """
    path = run_dir / ".lock"
    if not path.exists():  # no study ever ran in this copy
        yield
        return
    with path.open() as file:
        _lock(run_dir, file, fcntl.LOCK_SH, ", then give the command again")
        yield


def _lock(run_dir: Path, file: TextIO, kind: int, or_else: str) -> None:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FolderInUseError(
            f"{run_dir} is in use by {_user(file)}. Wait for it{or_else}."
        ) from error


def _user(file: TextIO) -> str:
    """Who holds the lock. A check does not write its name there: the text is of a study before."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # a study would not share it
    except BlockingIOError:
        file.seek(0)
        return file.read().strip() or "another process"
    return "a check of its files (verify)"
