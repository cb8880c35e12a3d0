"""MLflow: the only file that imports it, used by the driver alone.

Runs are flat: one for the study, one per trial, one per bird and age. Their lineage is in tags.
While a study runs, no call waits for MLflow: what is recorded (run_recorder.py) goes to an
outbox on disk (outbox.py), and a thread (courier.py) delivers it when MLflow is there.
"""

import fcntl
import logging
import os
import re
import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Progress bars, addresses of runs and hints on upgrades are not for a log.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# The courier repeats. MLflow's client would also repeat the creation of a run, without looking
# whether the first one was made; and by default it blocks for four minutes.
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
# Longer than a server waits for its SQLite file (20 s): what it has given up is not done later.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

import mlflow  # noqa: E402  (reads these settings on import)

if getattr(mlflow, "__file__", None) is None:
    # Without the package, Python takes the folder mlflow/ for an empty package of that name.
    raise ImportError("mlflow is not installed: run pip install -r requirements.txt")

from mlflow.entities import Metric, Param, Run, RunTag, ViewType  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.tracking import MlflowClient  # noqa: E402

from data_io.files import read_json, write_json  # noqa: E402
from study.base.paths import (  # noqa: E402
    artifact_location,
    sqlite_file,
    without_password,  # noqa: E402
)
from study.tracking.courier import RefusedError  # noqa: E402
from study.tracking.errors import (  # noqa: E402
    TrackingError,
    deleted_experiment,
    is_forbidden,
    is_there_already,
    verdict,
)
from study.tracking.model_registry import register  # noqa: E402
from study.tracking.outbox import Operation  # noqa: E402
from study.tracking.run_recorder import RunRecorder, StudyRun  # noqa: E402
from study.tracking.run_records import STUDY, RunIdentity, now_ms, param_texts, tag_texts  # noqa: E402

__all__ = ["RunIdentity", "Tracker", "TrackingError", "answering_client"]

BEGUN_TWICE = "begun twice"  # stage of a run that stands for nothing
_PLAIN = re.compile(r"[\w.+-]*")  # values that a query can hold whatever its quotes

# Messages about the tables of a new database are not for the reader of a study; of a database that
# is locked one line tells, without a trace.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
logging.getLogger("alembic").setLevel(logging.WARNING)


@contextmanager
def answering_client(uri: str) -> Iterator[MlflowClient]:
    """A client whose errors inside the block become a `TrackingError`: for calls that wait."""
    try:
        # Registered models lie where the runs do, whatever MLFLOW_REGISTRY_URI says.
        yield MlflowClient(uri, registry_uri=uri)
    except MlflowException as error:
        raise TrackingError(
            f"MLflow at {without_password(uri)} cannot be used: {verdict(error)}. Start the "
            "server, or leave out --tracking-uri and MLFLOW_TRACKING_URI to write to SQLite in "
            "the project."
        ) from error


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Keep other studies out while a SQLite file is opened: two that make its tables break it."""
    named = sqlite_file(uri)
    if named is None:
        yield
        return
    path = named.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Tracker(RunRecorder):
    """Writes the runs of one study; after `start_study` no method waits for MLflow.

    Args:
        uri: tracking URI, absolute.
        experiment: name of the study.
        lineage: tags that every run gets (study, git_commit, data_hash, config_hash, ...).
        outbox: folder that this driver has for itself; what an earlier driver left there for the
            same URI is delivered as well.
        allowed_params: names of parameters that MLflow may be told.
        say: shows one line: when MLflow goes away and when it is back, what it refused.

    Raises:
        TrackingError: MLflow is not there, or its experiment cannot be used.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        lineage: Mapping[str, str],
        outbox: Path,
        allowed_params: Collection[str],
        say: Callable[[str], None] = lambda _: None,
    ):
        self.uri = uri
        with _alone(uri), answering_client(uri) as client:
            self._mlflow = _Mlflow(client, uri, say)
            self.experiment_id = self._mlflow.experiment_id(experiment)
        destination = {
            "uri": without_password(uri).rstrip("/"),
            "experiment": experiment,
            "experiment_id": self.experiment_id,
        }
        super().__init__(destination, lineage, outbox, allowed_params, self._mlflow.deliver, say)

    def start_study(
        self, known_run_id: str | None, run_name: str, params: Mapping[str, Any]
    ) -> str:
        """Go on with the study's run where it is known and still there, else begin one.

        This waits for MLflow. What other study runs in the outbox left open is ended as KILLED.

        Raises:
            TrackingError: MLflow does not answer.
            ValueError: a parameter is not among those allowed.
        """
        texts = param_texts(params, self._allowed)
        with answering_client(self.uri), self._mlflow.lock:
            if known_run_id is not None and self._mlflow.has_run(known_run_id, self.experiment_id):
                run_id, is_known = known_run_id, True
            else:
                run_id, is_known = self._begin_study(run_name, known_run_id is None), False
                self._mlflow.set_tags(run_id, {"study_run_id": run_id})
                self._mlflow.log_params(run_id, texts)
        self.record_under(run_id)
        if is_known:
            self._record(STUDY, "start", {"tags": tag_texts(self.lineage)})
        return run_id

    def _begin_study(self, run_name: str, may_adopt: bool) -> str:
        """Begin a run, or take the one that an earlier driver began but was killed before using.

        By a token that is on disk before the run is there.
        """
        path = self.folder / "study_run.json"
        wanted = {**self._destination, "name": run_name, "lineage": tag_texts(self.lineage)}
        last = read_json(path) or {}
        token = last.pop("token", None)
        if may_adopt and last == wanted:
            for run in self._mlflow.search(self.experiment_id, {"start_token": token}):
                if self.study_run(run.info.run_id).records.is_unused:
                    return str(run.info.run_id)
        token = uuid.uuid4().hex
        write_json(path, {**wanted, "token": token})
        tags = {**tag_texts(self.lineage), **STUDY.tags(), "start_token": token}
        content = {"name": run_name, "tags": tags, "time": now_ms()}
        return self._mlflow.create_run(self.experiment_id, content)


class _Mlflow:
    """The calls of MLflow's client; one thread at a time, that of the courier or the driver's."""

    def __init__(self, client: MlflowClient, uri: str, say: Callable[[str], None]):
        self.lock = threading.Lock()
        self._client = client
        self._uri = uri
        self._say = say

    def experiment_id(self, name: str) -> str:
        """The id of an experiment, which is made where it is missing."""
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            location = artifact_location(self._uri, name)
            try:
                return str(self._client.create_experiment(name, artifact_location=location))
            except MlflowException as error:
                if is_there_already(error):  # another study of this name made it meanwhile
                    experiment = self._client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        if experiment.lifecycle_stage != "active":
            raise deleted_experiment(name, experiment.experiment_id)
        return str(experiment.experiment_id)

    def has_run(self, run_id: str, experiment_id: str) -> bool:
        """Whether the run is there, in this experiment; whether MLflow is, is another question."""
        try:
            info = self._client.get_run(run_id).info
        except MlflowException as error:
            if isinstance(verdict(error), RefusedError):
                return False
            raise
        return bool(info.experiment_id == experiment_id and info.lifecycle_stage == "active")

    def search(self, experiment_id: str, tags: Mapping[str, str]) -> list[Run]:
        """Runs with all these tags, the oldest first."""
        # Names of birds may hold what a query cannot: these tags are compared here.
        plain = {name: value for name, value in tags.items() if _PLAIN.fullmatch(value)}
        query = " and ".join(f"tags.{name} = '{value}'" for name, value in plain.items() if value)
        runs: list[Run] = []
        token: str | None = None
        while token is None or token:
            page = self._client.search_runs(
                [experiment_id], query, ViewType.ACTIVE_ONLY,
                order_by=["attributes.start_time"], page_token=token,
            )  # fmt: skip
            runs += page
            token = page.token or ""
        return [r for r in runs if all(r.data.tags.get(k, "") == v for k, v in tags.items())]

    def create_run(self, experiment_id: str, content: Mapping[str, Any]) -> str:
        """Begin a run with the name, the tags and the time of ``content``."""
        run = self._client.create_run(
            experiment_id, content["time"], content["tags"], content["name"]
        )
        return str(run.info.run_id)

    def deliver(self, study_run: StudyRun, operation: Operation) -> dict[str, Any]:
        """Carry out an operation; one that was carried out before changes nothing.

        Raises:
            AwayError: not now.
            RefusedError: never.
        """
        try:
            with self.lock:
                return {"run_id": self._deliver(study_run, operation)}
        except RefusedError:
            raise
        except Exception as error:
            raise verdict(error) from error

    def _deliver(self, study_run: StudyRun, operation: Operation) -> str:
        identity, content = RunIdentity.of_key(operation.run), operation.content
        run_id = study_run.records.run_id(identity)
        if operation.kind == "start":
            run_id = self._start(study_run, operation, run_id)
            study_run.records.note_run_id(operation, run_id)
            return run_id
        if run_id is None:
            raise RefusedError("its run could not be begun")
        match operation.kind:
            case "params":
                self.log_params(run_id, content["params"])
            case "metrics":
                rows = [
                    Metric(name, v, content["time"], step) for name, v, step in content["metrics"]
                ]
                self._client.log_batch(run_id, rows, tags=_run_tags(content["tags"]))
            case "tags":
                self.set_tags(run_id, content["tags"])
            case "artifact" | "artifacts":
                self._log_artifacts(run_id, identity, Path(content["path"]), content["to"])
            case "end":
                self.set_tags(run_id, content["tags"])
                self._client.set_terminated(run_id, content["status"], content["time"])
            case "model":
                if not register(self._client, run_id, content):
                    self._say(f"{content['path']} no longer holds the model of "
                              f"{identity.in_words()}: it is not registered")  # fmt: skip
            case other:
                raise RefusedError(f"this version does not know the operation {other!r}")
        return run_id

    def _start(self, study_run: StudyRun, operation: Operation, run_id: str | None) -> str:
        """Go on with a run: the one that the outbox knows, one of the same identity, a new one."""
        content, experiment_id = operation.content, study_run.experiment_id
        identity = RunIdentity.of_key(operation.run)
        if identity == STUDY and run_id is not None:
            self.set_tags(run_id, content["tags"])
            self._client.update_run(run_id, "RUNNING")
            return run_id
        if run_id is None or not self.has_run(run_id, experiment_id):
            # Tags that it has not are "" here: a repeat of a trial is not the trial.
            names = [*vars(identity), "study_run_id"]
            tags = {name: content["tags"].get(name, "") for name in names}
            same = self.search(experiment_id, tags)
            if not same:
                return self._create_once(experiment_id, content, tags)
            run_id = str(same[0].info.run_id)
        self._client.update_run(run_id, "RUNNING")
        return run_id

    def _create_once(
        self, experiment_id: str, content: Mapping[str, Any], tags: Mapping[str, str]
    ) -> str:
        """Begin a run, though an earlier try that got no answer may take effect only now."""
        made = self.create_run(experiment_id, content)
        run_id, *others = [r.info.run_id for r in self.search(experiment_id, tags)] or [made]
        for other in others:
            self._put_away(other)
        return str(run_id)

    def _put_away(self, run_id: str) -> None:
        """Delete a run that was begun twice; where that is not ours to do, let it count as none."""
        try:
            self._client.delete_run(run_id)
        except MlflowException as error:
            if not is_forbidden(error):
                raise
            self._client.set_tag(run_id, "stage", BEGUN_TWICE)
            self._client.set_terminated(run_id, "KILLED")

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Log those parameters that the run has not yet."""
        known = self._client.get_run(run_id).data.params
        new = [Param(name, value) for name, value in params.items() if name not in known]
        self._client.log_batch(run_id, params=new)

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run."""
        self._client.log_batch(run_id, tags=_run_tags(tags))

    def _log_artifacts(
        self, run_id: str, identity: RunIdentity, path: Path, to: str | None
    ) -> None:
        try:
            if path.is_dir():
                self._client.log_artifacts(run_id, str(path), to)
            else:
                path.open("rb").close()
                self._client.log_artifact(run_id, str(path), to)
        except (FileNotFoundError, PermissionError) as error:
            if not Path(error.filename or "").is_relative_to(path):
                raise  # not what is to be sent, but where it goes to
            self._say(f"{error.filename} cannot be sent to MLflow's run of {identity.in_words()}: "
                      f"{error.strerror}")  # fmt: skip


def _run_tags(tags: Mapping[str, str]) -> list[RunTag]:
    return [RunTag(name, value) for name, value in tags.items()]
