"""The folder of a trial on disk; a killed study goes on from it.

trial-000/
    trial.json          number, seed and parameters; written before its training begins
    checkpoint-0002/    training, decoder and all reports so far; the newest two are kept
    ended.json          how it ended
    decoder/            what is kept of the last checkpoint once it has ended; by_bird_age.json
                        holds what its report measured of each bird and age

Only JSON and safetensors: nothing in these files is ever run. A checkpoint is read only where every
file of it has the hash in its checkpoint.json.
"""

import json
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_io.files import atomic_dir, read_json, remove_leftovers, write_json
from models.mdgan.tensor_files import file_sha256
from study.base.errors import StudyError

Report = dict[str, Any]
KEPT_CHECKPOINTS = 2
BY_BIRD_AGE = "by_bird_age.json"
_ENDED_ENTRIES = (
    "reports",
    "reason",
    "may_go_on",
    "ended_at",
    "node",
    "n_retries",
    "mlflow_run_id",
)
_TRAINING_FILES = ("training.safetensors", "training.json", "reports.json", "checkpoint.json")


class BrokenRecordError(StudyError):
    """A file of a trial cannot be used; the message says which, why, and what to do."""


def broken_record(what: str, error: Exception, trial: Path) -> BrokenRecordError:
    """The error for a file of a trial's folder that cannot be used."""
    return BrokenRecordError(
        f"{what} ({error}). Remove the folder {trial}: the same command then trains this trial "
        "anew, and keeps all others."
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
    """

    name: str
    number: int
    seed: int
    params: dict[str, Any]
    system_attrs: dict[str, Any] = field(default_factory=dict)


def trial_name(number: int) -> str:
    """Name of a trial: trial-000 is the first."""
    return f"trial-{number:03d}"


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

        Empty where there is no such decoder, or it is from a version that did not write this down.
        """
        content = read_json(self.decoder / BY_BIRD_AGE) or {"report": 0, "rows": []}
        return [{"report": content["report"], **row} for row in content["rows"]]

    def begin(self, spec: TrialSpec) -> None:
        """Write trial.json."""
        write_json(self.path / "trial.json", asdict(spec))

    def spec(self) -> TrialSpec:
        """Read trial.json.

        Raises:
            BrokenRecordError: it is not what `begin` wrote.
        """
        path = self.path / "trial.json"
        try:
            return TrialSpec(**read_json(path))
        except (OSError, ValueError, TypeError) as error:
            raise broken_record(f"{path} cannot be read", error, self.path) from error

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
        owner = json.loads((self.path / "owner.json").read_text("utf-8"))
        if owner["token"] != self._token:
            raise NotOwnerError(f"{self.path} was taken over by another process of its trial.")
        with atomic_dir(self.path / f"checkpoint-{report:04d}") as folder:
            hashes = fill(folder)
            (folder / "reports.json").write_text(json.dumps(reports), "utf-8")
            for path in folder.iterdir():
                if path.name not in hashes:
                    hashes[path.name] = file_sha256(path)
            write_json(folder / "checkpoint.json", {"report": report, "sha256": hashes})
        for old in self._checkpoints()[:-KEPT_CHECKPOINTS]:
            shutil.rmtree(old)

    def newest_checkpoint(self) -> tuple[Path | None, list[str]]:
        """The newest checkpoint whose files are all as written, and a line on each broken one.

        A broken checkpoint is set aside: its name gets .broken.
        """
        broken: list[str] = []
        for path in reversed(self._checkpoints()):
            why = _why_broken(path)
            if not why:
                return path, broken
            aside = path.with_name(path.name + ".broken")
            shutil.rmtree(aside, ignore_errors=True)
            path.replace(aside)
            broken.append(f"{self.path.name}: {path.name} is broken ({why}); set aside")
        return None, broken

    def sound_reports(self, say: Callable[[str], None]) -> list[Report]:
        """All reports up to the newest sound checkpoint; ``say`` is told of broken ones."""
        checkpoint, broken = self.newest_checkpoint()
        for line in broken:
            say(f"{line}; {checkpoint.name if checkpoint else 'the beginning'} is used")
        return read_reports(checkpoint)

    def _checkpoints(self) -> list[Path]:
        found = self.path.glob("checkpoint-*")
        return sorted(path for path in found if path.name.removeprefix("checkpoint-").isdecimal())

    def end(self, ended: dict[str, Any]) -> None:
        """Write ended.json, and keep of the newest checkpoint the decoder alone.

        Args:
            ended: reports (all), reason (why the process ended before its time, or ""), may_go_on
                (whether that had nothing to do with the trial itself), ended_at (s), node,
                n_retries and mlflow_run_id.
        """
        write_json(self.path / "ended.json", ended)
        self.tidy()

    def ended(self) -> dict[str, Any] | None:
        """How the trial ended; None while it has not.

        Raises:
            BrokenRecordError: ended.json is not what was written.
        """
        path = self.path / "ended.json"
        try:
            content = read_json(path)
            if content is None:
                return None
            return {name: content[name] for name in _ENDED_ENTRIES}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise broken_record(f"{path} cannot be read", error, self.path) from error

    def reopen(self) -> None:
        """Let a trial that ended for want of something, such as memory, be tried again."""
        (self.path / "ended.json").unlink()

    def tidy(self) -> None:
        """Remove what a killed process left, and of an ended trial all but its decoder."""
        remove_leftovers(self.path)
        ended = self.ended()
        if ended is None or ended["may_go_on"]:
            return
        checkpoint, _ = self.newest_checkpoint()
        if checkpoint is not None and not self.decoder.exists():
            with atomic_dir(self.decoder) as folder:
                for path in checkpoint.iterdir():
                    if path.name not in _TRAINING_FILES:
                        shutil.copyfile(path, folder / path.name)
        for path in self._checkpoints():
            shutil.rmtree(path)


def read_reports(checkpoint: Path | None) -> list[Report]:
    """All reports up to a checkpoint; none where there is no checkpoint."""
    if checkpoint is None:
        return []
    reports: list[Report] = json.loads((checkpoint / "reports.json").read_text("utf-8"))
    return reports


def _why_broken(checkpoint: Path) -> str:
    """The fault of a checkpoint; empty where every file has the hash written down."""
    try:
        content = json.loads((checkpoint / "checkpoint.json").read_text("utf-8"))
        for name, sha256 in content["sha256"].items():
            if file_sha256(checkpoint / name) != sha256:
                return f"{name} is not as it was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""
