"""A list of all that one MLflow was sent of a run folder: it may lag behind, never be ahead.

It is a small JSON file.

Everything in it can be found again: what was sent and not noted is sent again, and changes nothing.
"""

import hashlib
import json
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_io.files import BrokenSealError, read_json, write_json
from study.base.paths import without_password
from study.tracking.picture import STUDY, RunIdentity

WRITE_EVERY_S = 1.0  # at most; a large file less often: writing takes a twentieth of the time


@dataclass
class SentRun:
    """The part of a run that MLflow has.

    Attributes:
        run_id: MLflow's; "" for a run that could not be begun.
        status: "" where it is not known.
        step: last one whose metrics were sent.
        params: names of the parameters that were sent.
        tags: as they were sent.
        files: hashes of files by their place among the artefacts.
        model: hash of the model.json that was registered.
        refused: what MLflow would not take, and why.
        is_gone: MLflow has the run no more, or never had it: nothing is sent.
    """

    run_id: str = ""
    status: str = ""
    step: int | None = None
    params: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    model: str = ""
    refused: list[str] = field(default_factory=list)
    is_gone: bool = False


@dataclass
class SentStudy:
    """The part of a study run that MLflow has.

    Attributes:
        runs: by key of their identity; that of the study is among them.
        end: how the driver ended it (status, reason, ended_at); None while it is under way. The
            rest of the run folder does not say it.
        same: what makes it this study run; "" where an earlier version began it.
        shows: study runs of elsewhere that are the same study: what they say of the run folder is
            shown here.
    """

    runs: dict[str, SentRun] = field(default_factory=dict)
    end: dict[str, Any] | None = None
    same: str = ""
    shows: list[str] = field(default_factory=list)


class Sent:
    """The file of one destination. Any thread may use it.

    Args:
        folder: of such files; made where it is missing.
        uri: of MLflow; a password in it is left out.
        experiment: its name.

    Attributes:
        lock: held by who reads or changes several things at once.
        studies: by id of the study run.
        folder_id: a tag of the study runs of this folder, by which they are found again; the same
            at every destination.
        copied_from: the run folder that this one is a copy of, where that is found out now; the
            runs of before the copy are its runs.
    """

    def __init__(self, folder: Path, uri: str, experiment: str):
        destination = {"uri": without_password(uri).rstrip("/"), "experiment": experiment}
        name = hashlib.sha256(json.dumps(destination, sort_keys=True).encode()).hexdigest()[:16]
        self.path = folder / f"{name}.json"
        self.lock = threading.RLock()
        self.studies: dict[str, SentStudy] = {}
        self.folder_id = ""
        self.copied_from: Path | None = None
        self._elsewhere: dict[str, str] = {}  # study runs of other destinations, and what they are
        self._run_folder = folder.parent.resolve()
        self._destination = destination
        self._is_noted = False
        self._not_before = 0.0
        self._load()

    def _load(self) -> None:
        found = {path: read_json(path) or {} for path in sorted(self.path.parent.glob("*.json"))}
        content = found.pop(self.path, {})
        known = [content, *found.values()]
        origin = next(filter(None, (_origin(one, self._run_folder) for one in known)), None)
        if origin is None:
            ids = (one.get("folder_id") for one in known)
            self.folder_id = str(next(filter(None, ids), "")) or uuid.uuid4().hex
        else:
            self.copied_from, self.folder_id = origin, uuid.uuid4().hex
        try:
            for one in known:
                for run_id, study in one.get("study_runs", {}).items():
                    self._elsewhere[run_id] = study.get("same", "")
            for run_id, study in ({} if origin else content).get("study_runs", {}).items():
                runs = {key: SentRun(**run) for key, run in study["runs"].items()}
                # One that was deleted by hand while it was open is begun anew.
                runs = {key: run for key, run in runs.items() if not run.is_gone}
                self.studies[run_id] = SentStudy(**{**study, "runs": runs})
        except (AttributeError, KeyError, TypeError):  # of another version, or changed by hand
            self.studies = {}

    def shown_as(self, study_run_id: str) -> str:
        """The study run that shows here what belongs to ``study_run_id``; that one, where none."""
        with self.lock:
            if study_run_id not in self.studies:
                for run_id, study in self.studies.items():
                    if study_run_id in study.shows:
                        return run_id
            return study_run_id

    def run(self, study_run_id: str, identity: RunIdentity) -> SentRun | None:
        """The part of a run that was sent; None before it was begun."""
        with self.lock:
            study = self.studies.get(study_run_id)
            return None if study is None else study.runs.get(identity.key())

    def begin_study(self, run_id: str, same: str) -> None:
        """Know a study run, which begins or goes on now.

        Args:
            run_id: MLflow's.
            same: what makes it this study run; those of elsewhere that are the same show in it.
        """
        with self.lock:
            study = self.studies.setdefault(run_id, SentStudy())
            study.runs.setdefault(STUDY.key(), SentRun(run_id))
            study.end, study.same = None, same
            others = {one for one, of_it in self._elsewhere.items() if of_it == same}
            study.shows = sorted({*study.shows, *others} - self.studies.keys())
            self._is_noted = False

    def changed(self) -> None:
        """Something is to be written."""
        with self.lock:
            self._is_noted = False

    def write(self, at_once: bool = True) -> None:
        """Write what has changed; where not ``at_once``, only a while after the last time.

        Raises:
            OSError: that is not possible; what was written before stays.
        """
        with self.lock:
            started = time.monotonic()
            if self._is_noted or not (at_once or started >= self._not_before):
                return
            studies = {run_id: asdict(study) for run_id, study in self.studies.items()}
            content = {**self._destination, "folder_id": self.folder_id,
                       "run_folder": str(self._run_folder), "study_runs": studies}  # fmt: skip
            write_json(self.path, content)
            self._is_noted = True
            now = time.monotonic()
            self._not_before = now + max(WRITE_EVERY_S, 20 * (now - started))


def _origin(content: dict[str, Any], run_folder: Path) -> Path | None:
    """The run folder that ``run_folder`` is a copy of; None where it only has another name now.

    It is a copy where the folder that wrote ``content`` is still there, under the name of then and
    with the same id.
    """
    there = Path(content.get("run_folder", run_folder))
    if not there.is_dir() or there.samefile(run_folder):
        return None
    with suppress(BrokenSealError):
        for path in (there / ".tracking").glob("*.json"):
            if (read_json(path) or {}).get("folder_id") == content["folder_id"]:
                return there
    return None
