"""The folder of a trial on disk; a killed study goes on from it.

trial-000/
    trial.json          number, seed, parameters and search; written before its training begins
    begun.json          under which study run it began
    owner.json          the process that may write here
    checkpoint-0002/    training, decoder and all reports so far; the newest two are kept
    ended.json          how it ended
    decoder/            what is kept of the last checkpoint once it has ended; by_bird_age.json
                        holds what its report measured of each bird and age

Only JSON and safetensors: nothing in these files is ever run. JSON has a seal; a checkpoint is read
only where every file of it has the hash in its checkpoint.json, a decoder where its networks have
the hashes in its model.json.
"""

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_io.files import (
    BrokenSealError,
    atomic_dir,
    digest,
    file_sha256,
    found,
    naming,
    read_json,
    remove_folder,
    remove_leftovers,
    write_json,
)
from study.base.errors import AND_AGAIN, MOVE_AWAY, StudyError
from study.base.hashes import ALTERED, UNREADABLE, fault_of, read_sealed, unreadable

Report = dict[str, Any]
KEPT_CHECKPOINTS = 2
BY_BIRD_AGE = "by_bird_age.json"
CHECKPOINT = "checkpoint.json"
SEARCH = "search.json"  # beside the folders of the trials: the parts of their search
_ENDED_ENTRIES = (
    "reports",
    "reason",
    "may_go_on",
    "ended_at",
    "node",
    "n_retries",
    "mlflow_run_id",
)
_TRAINING_FILES = ("training.safetensors", "training.json", "reports.json", CHECKPOINT)


class BrokenRecordError(StudyError):
    """A file of a trial cannot be used; the message says which, why, and what to do."""


class UnreadableRecordError(StudyError):
    """A file of a trial cannot be read for now: it may be whole, and nothing is to be removed."""


def broken_record(fault: str, trial: Path) -> BrokenRecordError:
    """The error for a file of a trial's folder that cannot be used."""
    return BrokenRecordError(
        f"{fault}. Remove the folder {trial}: the same command then trains this trial anew, and "
        "keeps all others."
    )


def unreadable_record(fault: str) -> UnreadableRecordError:
    """The error for a file of a trial that cannot be read for now."""
    if MOVE_AWAY in fault:
        return UnreadableRecordError(f"{fault}{AND_AGAIN}")
    return UnreadableRecordError(
        f"{fault}. Remove nothing: see to the disk, then give the same command again."
    )


class NotOwnerError(RuntimeError):
    """Another process has taken over the trial."""


@dataclass(frozen=True)
class TrialSpec:
    """Number, seed and parameters of a trial.

    Attributes:
        name: of its folder, such as trial-003.
        number: from 0; trials are compared in this order.
        seed: of its training.
        params: sampled parameters by name.
        system_attrs: what Optuna's sampler noted beside them.
        search: hash of the parts of its search, see `study.search.search_folder.search_parts`.
    """

    name: str
    number: int
    seed: int
    params: dict[str, Any]
    system_attrs: dict[str, Any] = field(default_factory=dict)
    search: str = ""


def trial_name(number: int) -> str:
    """Name of a trial: trial-000 is the first."""
    return f"trial-{number:03d}"


def has_begun(path: Path) -> bool:
    """Whether a trial's folder holds more than what a power cut leaves of one that begins."""
    if not path.is_dir():
        return False
    names = [child.name for child in path.iterdir() if not child.name.startswith(".")]
    if names == ["trial.json"]:
        with naming(path / "trial.json"):
            return bool((path / "trial.json").read_bytes().strip(b"\0"))
    return bool(names)


class TrialFolder:
    """The folder of one trial.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path):
        self.path = path
        self._token = ""

    @property
    def decoder(self) -> Path:
        """The decoder that is kept of a trial that has ended."""
        return self.path / "decoder"

    def by_bird_age(self) -> list[dict[str, Any]]:
        """What was measured of each bird and age for the kept decoder, with ``report``.

        Empty where there is no such decoder.

        Raises:
            BrokenRecordError: the file is missing or altered.
        """
        if not self.decoder.is_dir():
            return []
        content = self._record(self.decoder / BY_BIRD_AGE)
        return [{"report": content["report"], **row} for row in content["rows"]]

    def _record(self, path: Path) -> dict[str, Any]:
        """Read a record without which there is no trial."""
        try:
            content = read_json(path)
        except BrokenSealError as error:
            raise broken_record(f"{path} {error.why}", self.path) from error
        except OSError as error:
            raise unreadable_record(f"{path} {unreadable(error)}") from error
        if content is None:
            raise broken_record(f"{path} is missing", self.path)
        return content

    def begin(self, spec: TrialSpec) -> None:
        """Write trial.json."""
        write_json(self.path / "trial.json", asdict(spec))

    def spec(self) -> TrialSpec:
        """Read trial.json.

        Raises:
            BrokenRecordError: it is not what `begin` wrote, or is of another trial.
        """
        path = self.path / "trial.json"
        try:
            spec = TrialSpec(**self._record(path))
        except TypeError as error:
            raise broken_record(f"{path} is of another version ({error})", self.path) from error
        if spec.name != self.path.name:
            raise BrokenRecordError(
                f"{self.path} holds {spec.name}: the folder was renamed or copied. Give it its "
                "name back, or move it to another place."
            )
        return spec

    def spec_of(self, search: str) -> TrialSpec:
        """Read trial.json of a trial of the search of this hash.

        Raises:
            BrokenRecordError: as `spec`, or it is of another search.
        """
        spec = self.spec()
        if spec.search != search:
            raise BrokenRecordError(
                f"{self.path} is of another search than the others: it was copied here from "
                f"another study, or {self.path.with_name(SEARCH)} was. Move it to another place."
            )
        return spec

    def check_is(self, spec: TrialSpec) -> None:
        """Refuse a folder whose trial is another one by now, as after a search with another seed.

        Raises:
            NotOwnerError: a process of an earlier search, on a node cut off, is not to write here.
        """
        # Not its number: a repeat has the place that it has among the candidates of now.
        found = self.spec()
        if (found.name, found.seed, found.search) != (spec.name, spec.seed, spec.search) or (
            digest(found.params) != digest(spec.params)
        ):
            raise NotOwnerError(f"{self.path} holds a trial of another search by now.")

    def own(self) -> None:
        """Take the trial over: a process that had it before, on a node cut off, writes no more."""
        self._token = uuid.uuid4().hex
        write_json(self.path / "owner.json", {"token": self._token})

    def save(
        self, report: int, reports: list[Report], fill: Callable[[Path], dict[str, str]]
    ) -> None:
        """Write checkpoint-<report>, whole or not at all, and remove old ones.

        Args:
            report: number of the last report, from 1.
            reports: all so far, that one included.
            fill: writes training and decoder to a folder, and gives the hashes that it knows by the
                names of the files; the others are computed.

        Raises:
            NotOwnerError: another process has called `own` since.
        """
        self._check_owner()
        with atomic_dir(self.path / f"checkpoint-{report:04d}") as folder:
            hashes = fill(folder)
            (folder / "reports.json").write_text(json.dumps(reports), "utf-8")
            for path in folder.iterdir():
                if path.name not in hashes:
                    hashes[path.name] = file_sha256(path)
            write_json(folder / CHECKPOINT, {"report": report, "sha256": hashes})
            self._check_owner()  # writing takes a while
        for old in self.checkpoints()[:-KEPT_CHECKPOINTS]:
            remove_folder(old)

    def _check_owner(self) -> None:
        owner = read_json(self.path / "owner.json")
        if owner is None or owner["token"] != self._token:
            raise NotOwnerError(f"{self.path} was taken over by another process of its trial.")

    def newest_checkpoint(self) -> tuple[Path | None, list[str]]:
        """The newest checkpoint whose files are all as written, and a line on each broken one.

        A broken checkpoint is set aside: its name gets .broken.

        Raises:
            UnreadableRecordError: a file of it cannot be read for now.
        """
        broken: list[str] = []
        for path in reversed(self.checkpoints()):
            faults = hashed_files(path / CHECKPOINT)
            why = next((f"{file.name} {fault}" for file, fault in faults if fault), "")
            if UNREADABLE in why:
                raise unreadable_record(f"{path}/{why}")
            if not why:
                return path, broken
            aside = path.with_name(path.name + ".broken")
            if aside.exists():
                remove_folder(aside)
            path.replace(aside)
            broken.append(f"{self.path.name}: {path.name} is broken ({why}); set aside")
        return None, broken

    def sound_reports(self, say: Callable[[str], None]) -> list[Report]:
        """All reports up to the newest sound checkpoint; ``say`` is told of broken ones."""
        checkpoint, broken = self.newest_checkpoint()
        for line in broken:
            say(f"{line}; {checkpoint.name if checkpoint else 'the beginning'} is used")
        return read_reports(checkpoint)

    def checkpoints(self) -> list[Path]:
        """Folders of the checkpoints, the oldest first; none that was set aside."""
        every = found(self.path, "checkpoint-*")
        return [path for path in every if path.name.removeprefix("checkpoint-").isdecimal()]

    def end(self, ended: dict[str, Any]) -> None:
        """Write ended.json, and keep of the newest checkpoint the decoder alone.

        Where the checkpoint of the last report is broken, no decoder is kept.

        Args:
            ended: reports (all), reason (why the process ended before its time, or ""), may_go_on
                (whether that had nothing to do with the trial itself), ended_at (s), node,
                n_retries, mlflow_run_id and begun (content of begun.json, or None).
        """
        self.own()
        write_json(self.path / "ended.json", ended)
        self.tidy()

    def ended(self) -> dict[str, Any] | None:
        """How the trial ended; None while it has not.

        Raises:
            BrokenRecordError: ended.json is not what was written.
        """
        path = self.path / "ended.json"
        if not path.exists():
            return None
        content = self._record(path)
        for name in _ENDED_ENTRIES:
            if name not in content:
                raise broken_record(f"{path} has no {name}", self.path)
        return content

    def reopen(self) -> None:
        """Let a trial that ended for want of something, such as memory, be tried again."""
        (self.path / "ended.json").unlink()

    def tidy(self) -> None:
        """Remove what a killed process left, and of an ended trial all but its decoder."""
        remove_leftovers(self.path)
        ended = self.ended()
        if ended is None or ended["may_go_on"]:
            return
        # Checkpoints beside a decoder are halfway removed: nobody needs them.
        checkpoint = None if self.decoder.exists() else self.newest_checkpoint()[0]
        last = max((r["report"] for r in ended["reports"] if not r.get("reason")), default=0)
        # The decoder of an earlier report is not the one that was measured.
        if checkpoint is not None and int(checkpoint.name.removeprefix("checkpoint-")) >= last:
            with atomic_dir(self.decoder) as folder:
                for path in checkpoint.iterdir():
                    if path.name not in _TRAINING_FILES:
                        shutil.copyfile(path, folder / path.name)
        for path in found(self.path, "checkpoint-*"):  # those set aside, too
            remove_folder(path)


def read_reports(checkpoint: Path | None) -> list[Report]:
    """All reports up to a checkpoint; none where there is no checkpoint."""
    if checkpoint is None:
        return []
    reports: list[Report] = json.loads((checkpoint / "reports.json").read_text("utf-8"))
    return reports


def hashed_files(path: Path) -> Iterator[tuple[Path, str]]:
    """Sealed JSON, then the files beside it whose hashes it holds; each with its fault, or ""."""
    content, fault = read_sealed(path)
    hashes = (content or {}).get("sha256", {})
    yield path, fault or ("" if hashes else ALTERED)  # without hashes nothing can be compared
    for name, sha256 in hashes.items():
        yield path.with_name(name), fault_of(path.with_name(name), sha256)
