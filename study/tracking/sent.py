"""A list of all that one MLflow was sent of a run folder: it may lag behind, never be ahead.

It is a small JSON file. Everything in it can be found again: what was sent and not noted is sent
again, and changes nothing. But MLflow finds its runs by the id of the folder, so that stands in a
file of its own as well: an altered list begins no second run. What MLflow refused is
sent once more at most, and noted again. Of the ends only those are lost that MLflow has not heard
of: where the settings of such a run do not come back, it is KILLED at the next start.
"""

import hashlib
import json
import re
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_io.files import BrokenSealError, read_json, remove_leftovers, write_json
from study.base.paths import without_password
from study.tracking.picture import STUDY, RunIdentity

FOLDER = "folder.json"  # beside the lists: the id of the folder
_LIST = re.compile(r"[0-9a-f]{16}\.json")  # names of the lists: others' files are left alone
WRITE_EVERY_S = 1.0  # at most; a large file less often: writing takes a twentieth of the time


@dataclass
class SentRun:
    """The part of a run that MLflow has.

    Attributes:
        run_id: MLflow's; "" for a run that could not be begun.
        status: "" where it is not known.
        step: last one whose metrics were sent.
        params: as they were sent.
        tags: as they were sent.
        files: hashes of files by their place among the artefacts.
        model: hash of the model.json that was registered, where that is the best now.
        refused: what MLflow would not take, and why.
        is_gone: MLflow has the run no more, or never had it: nothing is sent.
    """

    run_id: str = ""
    status: str = ""
    step: int | None = None
    params: dict[str, str] = field(default_factory=dict)
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
        shows: study runs that this MLflow does not have: what the run folder says of them is shown
            in this one.
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
            for every MLflow.
        is_new: nothing is known of what any MLflow was sent: the folder got its id now.
        copied_from: the run folder that this one is found to be a copy of; what was sent is of its
            runs.
        altered: files that could not be used, and why; they are made anew.
    """

    def __init__(self, folder: Path, uri: str, experiment: str):
        destination = {"uri": without_password(uri).rstrip("/"), "experiment": experiment}
        name = hashlib.sha256(json.dumps(destination, sort_keys=True).encode()).hexdigest()[:16]
        self.path = folder / f"{name}.json"
        self._folder = folder / FOLDER
        self.is_new = False
        self.lock = threading.RLock()
        self.studies: dict[str, SentStudy] = {}
        self.copied_from: Path | None = None
        self.altered: dict[Path, str] = {}
        self._elsewhere: dict[str, str] = {}  # what other study runs of the folder are
        self._place = folder.resolve()
        self._destination = destination
        self._is_noted = False
        self._not_before = 0.0
        self._load()

    def _load(self) -> None:
        remove_leftovers(self._folder.parent)
        content = self._read(self.path) or {}
        noted = self._read(self._folder) or {}
        others = [path for path in sorted(self.path.parent.glob("*.json"))
                  if _LIST.fullmatch(path.name) and path != self.path]  # fmt: skip
        of_others = [self._read(path) or {} for path in others]
        if (origin := _origin(noted, self._place)) is not None:
            self.copied_from, self.folder_id = origin, uuid.uuid4().hex
        else:
            # Lists of a copy may be of several folders.
            ids = {one["folder_id"] for one in of_others if one.get("folder_id")}
            known = [
                noted.get("folder_id"),
                content.get("folder_id"),
                *(ids if len(ids) == 1 else ()),
            ]
            self.is_new = not any(known)
            self.folder_id = str(next(filter(None, known), None) or uuid.uuid4().hex)
        self._is_id_kept = noted == self._identity()
        # A list of another folder's came along with a copy, and what it names is not ours to end.
        is_ours = origin is None and content.get("folder_id", self.folder_id) == self.folder_id
        try:
            for of_one in (content, *of_others):
                self._elsewhere |= of_one.get("elsewhere", {})
                for run_id, one in of_one.get("study_runs", {}).items():
                    self._elsewhere[run_id] = one.get("same", "")
            for run_id, one in (content if is_ours else {}).get("study_runs", {}).items():
                for run in one["runs"].values():
                    run["params"] = {**run["params"]}  # 0.5.0 had their names alone: a TypeError
                runs = {key: SentRun(**run) for key, run in one["runs"].items()}
                # One that was deleted by hand while it was open is begun anew.
                runs = {key: run for key, run in runs.items() if not run.is_gone}
                self.studies[run_id] = SentStudy(**{**one, "runs": runs})
        except (AttributeError, KeyError, TypeError):  # of another version
            self.studies = {}

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            return read_json(path)
        except BrokenSealError as error:
            self.altered[path] = error.in_short
            path.unlink()
            return None

    def _identity(self) -> dict[str, str]:
        return {"folder_id": self.folder_id, "path": str(self._place)}

    def shown_as(self, study_run_id: str) -> str:
        """The study run that shows what is of ``study_run_id``; that one itself where none does."""
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

    def take_in(self, study_run_id: str, run_id: str) -> None:
        """From now on what is of ``study_run_id`` is shown in the study run ``run_id``.

        This is on disk before MLflow is told: with other settings it would begin there once more.

        Raises:
            OSError: the list cannot be written.
        """
        with self.lock:
            study = self.studies[run_id]
            study.shows = sorted({*study.shows, study_run_id})
            self._is_noted = False
            self.write()

    def learn_study(self, run_id: str, same: str, status: str) -> None:
        """Know a study run of other settings that MLflow has and the list had not.

        Args:
            run_id: MLflow's.
            same: what makes it this study run. Where one of the list is the same, this one was
                begun twice, and stays unknown.
            status: of the run.
        """
        with self.lock:
            if run_id not in self.studies and all(s.same != same for s in self.studies.values()):
                runs = {STUDY.key(): SentRun(run_id, status)}
                self.studies[run_id] = SentStudy(runs, same=same)
                self._is_noted = False

    def forget_study(self, run_id: str) -> None:
        """Know no more what MLflow was sent of a study run, nor what that shows."""
        with self.lock:
            del self.studies[run_id]
            self._is_noted = False

    def begin_study(self, run_id: str, same: str) -> None:
        """Know a study run, which begins or goes on now.

        Args:
            run_id: MLflow's.
            same: what makes it this study run; it shows those of elsewhere that are the same, and
                are shown in no other.
        """
        with self.lock:
            study = self.studies.setdefault(run_id, SentStudy())
            study.runs.setdefault(STUDY.key(), SentRun(run_id))
            study.end, study.same = None, same
            others = {one for one, of_it in self._elsewhere.items() if of_it == same}
            shown = {one for other in self.studies.values() for one in other.shows}
            study.shows = sorted({*study.shows, *(others - shown)} - self.studies.keys())
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
            if not self._is_id_kept:
                write_json(self._folder, self._identity())
                self._is_id_kept = True
            content = {
                **self._destination,
                "folder_id": self.folder_id,
                "study_runs": studies,
                "elsewhere": self._elsewhere,
            }
            write_json(self.path, content)
            self._is_noted = True
            now = time.monotonic()
            self._not_before = now + max(WRITE_EVERY_S, 20 * (now - started))


def _origin(noted: dict[str, Any], place: Path) -> Path | None:
    """The run folder that the one of ``place`` is a copy of; None where it was moved at most.

    It is a copy where the folder that ``noted`` names is still there, with the same id.
    """
    there = Path(noted.get("path", place))
    if not there.is_dir() or there.samefile(place):
        return None
    with suppress(BrokenSealError):
        if (read_json(there / FOLDER) or {}).get("folder_id") == noted["folder_id"]:
            return there.parent
    return None
