"""What the driver records of its runs: written to outboxes on disk, delivered by a courier.

There is one outbox for each place that records go to, experiment and study run, in a folder whose
name is a hash of these.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_io.files import read_json, write_json
from study.tracking.courier import Courier
from study.tracking.model_registry import MODEL_TAG, model_hash
from study.tracking.outbox import Operation, Outbox
from study.tracking.run_records import (
    STUDY,
    RunIdentity,
    RunRecords,
    now_ms,
    param_texts,
    tag_texts,
)


@dataclass(frozen=True)
class StudyRun:
    """A study run with its outbox: a `study.tracking.courier.Box`.

    Attributes:
        records: of its runs.
        experiment_id: where new runs are begun.
        carry: delivers one of its operations, and gives what is to be noted of it.
    """

    records: RunRecords
    experiment_id: str
    carry: "Carry"

    def deliver(self, operation: Operation) -> Mapping[str, Any]:
        """Deliver one operation."""
        return self.carry(self, operation)

    def done(self, operation: Operation, result: Mapping[str, Any]) -> None:
        """Note that it was delivered."""
        self.records.outbox.done(operation, result)

    def refuse(self, operation: Operation, reason: str) -> str:
        """Set it aside."""
        outbox, run = self.records.outbox, RunIdentity.of_key(operation.run).in_words()
        outbox.refuse(operation, reason)
        return f"{operation.kind} of {run} (kept in {outbox.refused_path})"


Carry = Callable[[StudyRun, Operation], Mapping[str, Any]]


class RunRecorder:
    """Records runs; no method waits for anything but the disk.

    Each raises OSError where the disk is full or broken, what was recorded before stays valid; and
    ValueError for a run that was not begun under the current study run.

    Args:
        destination: uri, experiment and experiment_id of all that is recorded.
        lineage: tags that every run gets.
        outbox: folder that this driver has for itself; what an earlier driver left there for the
            same URI is delivered as well.
        allowed_params: names of parameters that may be recorded.
        carry: delivers an operation.
        say: shows one line.
    """

    def __init__(
        self,
        destination: Mapping[str, str],
        lineage: Mapping[str, str],
        outbox: Path,
        allowed_params: Collection[str],
        carry: Carry,
        say: Callable[[str], None],
    ):
        self.lineage = dict(lineage)
        self.study_run_id = ""
        self.folder = outbox
        self._destination = dict(destination)
        self._allowed = frozenset(allowed_params)
        self._carry = carry
        self._say = say
        # Operations are handed to the courier in the order in which they were appended.
        self._order = threading.Lock()
        self._current: StudyRun | None = None
        self._study_runs: dict[str, StudyRun] = {}
        self._courier = Courier(f"MLflow at {destination['uri']}", say)
        for path in sorted(outbox.glob("*/destination.json")):
            self._load(path)

    def _load(self, path: Path) -> None:
        """Take over an outbox that has something left to send or to end."""
        where = read_json(path)
        if where is None:
            return  # killed before the first operation
        outbox = Outbox(path.parent)
        records = RunRecords(outbox, where["study_run_id"])
        if outbox.n_broken:
            self._say(f"{outbox.n_broken} lines of {outbox.folder} cannot be read: left out")
        is_ours = where["uri"] == self._destination["uri"]
        if is_ours and (records.waiting or records.open_runs()):
            self._take(StudyRun(records, where["experiment_id"], self._carry))
            return
        if records.waiting:
            self._say(f"{len(records.waiting)} records in {outbox.folder} are for MLflow at "
                      f"{where['uri']}: a study that records there sends them")  # fmt: skip

    def _take(self, study_run: StudyRun) -> None:
        self._study_runs[study_run.records.study_run_id] = study_run
        for operation in study_run.records.waiting:
            self._courier.add(study_run, operation)
        study_run.records.waiting.clear()

    def study_run(self, run_id: str) -> StudyRun:
        """The study run of that id, with its outbox."""
        if run_id not in self._study_runs:
            where = {**self._destination, "study_run_id": run_id}
            text = json.dumps(where, sort_keys=True)
            folder = self.folder / hashlib.sha256(text.encode()).hexdigest()[:16]
            outbox = Outbox(folder)
            write_json(folder / "destination.json", where)
            experiment_id = self._destination["experiment_id"]
            self._take(StudyRun(RunRecords(outbox, run_id), experiment_id, self._carry))
        return self._study_runs[run_id]

    def record_under(self, run_id: str) -> None:
        """Record under a study run from now on; end what other study runs left open as KILLED."""
        self._current = self.study_run(run_id)
        self.study_run_id = run_id
        for study_run in self._study_runs.values():
            if study_run is not self._current:
                for identity in study_run.records.open_runs():
                    self._end(study_run, identity, "KILLED", {}, now_ms())

    def start_run(self, identity: RunIdentity, run_name: str) -> None:
        """Begin a run of this study, or go on with the one of the same identity."""
        tags = {**self.lineage, **identity.tags(), "study_run_id": self.study_run_id}
        content = {"name": run_name, "tags": tag_texts(tags), "time": now_ms()}
        self._record(identity, "start", content)

    def log_params(self, identity: RunIdentity, params: Mapping[str, Any]) -> None:
        """Log parameters once; those that the run has already stay as they are.

        Raises:
            ValueError: a parameter is not among those allowed.
        """
        self._record(identity, "params", {"params": param_texts(params, self._allowed)})

    def log_metrics(self, identity: RunIdentity, rows: Mapping[int, Mapping[str, float]]) -> None:
        """Log metrics by step, each metric of a step once: what comes again is left out.

        What is no finite number is not logged but named in a tag.
        """
        for content in self._now().records.new_metrics(identity, rows):
            self._record(identity, "metrics", content)

    def set_tags(self, identity: RunIdentity, tags: Mapping[str, Any]) -> None:
        """Set tags of a run."""
        self._record(identity, "tags", {"tags": tag_texts(tags)})

    def log_artifact(self, identity: RunIdentity, file: Path, to: str | None = None) -> None:
        """Copy a file, as it is when it is delivered, to the run's artefacts."""
        self._record(identity, "artifact", {"path": str(file.absolute()), "to": to})

    def log_artifacts(self, identity: RunIdentity, folder: Path, to: str | None = None) -> None:
        """Copy a folder's content, as it is when it is delivered, to the run's artefacts."""
        self._record(identity, "artifacts", {"path": str(folder.absolute()), "to": to})

    def end_run(
        self,
        identity: RunIdentity,
        succeeded: bool,
        tags: Mapping[str, Any] | None = None,
        ended_at: float | None = None,
    ) -> None:
        """Close a run as FINISHED or FAILED, at ``ended_at`` (seconds of `time.time`) or now.

        The end of the study's own run closes those that are still open as KILLED.
        """
        study_run = self._now()
        if identity == STUDY:
            for other in study_run.records.open_runs():
                if other != STUDY:
                    self._end(study_run, other, "KILLED", {}, now_ms())
        status = "FINISHED" if succeeded else "FAILED"
        end_ms = now_ms() if ended_at is None else round(1000 * ended_at)
        self._end(study_run, identity, status, tags or {}, end_ms)

    def register_model(
        self, identity: RunIdentity, folder: Path, name: str, tags: Mapping[str, Any]
    ) -> None:
        """Copy the model in ``folder`` to the run's artefacts, and register it as a version.

        The version gets ``tags``, and model_json_sha256, by which `study.fetch_model` checks it. A
        run never registers the same model twice: one with this hash, or with the same tag sha256.
        Of the folder, *.safetensors and *.json are taken, as they are when it is delivered.

        Raises:
            FileNotFoundError: there is no model.json.
        """
        tags = {**tag_texts(tags), MODEL_TAG: model_hash(folder)}
        content = {"path": str(folder.absolute()), "name": name, "tags": tags}
        self._record(identity, "model", content)

    def knows(self, identity: RunIdentity) -> bool:
        """Whether the run was begun under the current study run."""
        return self._current is not None and self._current.records.knows(identity)

    def run_id(self, identity: RunIdentity) -> str | None:
        """MLflow's id of a run; None until its beginning is delivered."""
        return self._now().records.run_id(identity)

    def flush(self, timeout_s: float) -> int:
        """Wait until all is delivered; give the number of operations that still wait."""
        return self._courier.flush(timeout_s)

    def close(self, timeout_s: float = 5.0) -> int:
        """Flush and stop; give the number of operations that are left to the next driver."""
        return self._courier.close(timeout_s)

    def _now(self) -> StudyRun:
        if self._current is None:
            raise RuntimeError("The study has no run yet: call start_study first.")
        return self._current

    def _end(
        self,
        study_run: StudyRun,
        identity: RunIdentity,
        status: str,
        tags: Mapping[str, Any],
        end_ms: int,
    ) -> None:
        content = {"status": status, "tags": tag_texts(tags), "time": end_ms}
        self._append(study_run, identity, "end", content)

    def _record(self, identity: RunIdentity, kind: str, content: dict[str, Any]) -> None:
        self._append(self._now(), identity, kind, content)

    def _append(
        self, study_run: StudyRun, identity: RunIdentity, kind: str, content: dict[str, Any]
    ) -> None:
        with self._order:
            operation = study_run.records.append(identity, kind, content)
            self._courier.add(study_run, operation)
