"""MLflow's client: the only file that imports it, used by the driver alone."""

import fcntl
import logging
import math
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# Progress bars, addresses of runs and hints on upgrades are not for a log.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# The sender repeats. MLflow's client would also repeat the creation of a run, without looking
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

from study.base.paths import (  # noqa: E402
    artifact_location,
    sqlite_file,
    uri_for_mlflow,
    without_password,
)
from study.tracking.errors import (  # noqa: E402
    RefusedError,
    TrackingError,
    deleted_experiment,
    is_forbidden,
    is_missing,
    is_there_already,
    verdict,
)
from study.tracking.model_registry import register  # noqa: E402
from study.tracking.picture import Measured, Model, Status, odd_tags, to_ms  # noqa: E402

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
        known = uri_for_mlflow(uri)
        yield MlflowClient(known, registry_uri=known)
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


class Mlflow:
    """The calls of MLflow's client, each of which may be made twice; one thread at a time.

    Args:
        uri: tracking URI, absolute.
        experiment: name of the study; made where it is missing.

    Raises:
        TrackingError: MLflow is not there, or its experiment cannot be used.
    """

    def __init__(self, uri: str, experiment: str):
        self._uri = uri
        with _alone(uri), answering_client(uri) as client:
            self._client = client
            self.experiment_id = self._experiment_id(experiment)

    def _experiment_id(self, name: str) -> str:
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

    def has_run(self, run_id: str) -> bool:
        """Whether the run is there, in this experiment; whether MLflow is, is another question."""
        try:
            info = self._client.get_run(run_id).info
        except MlflowException as error:
            if isinstance(verdict(error), RefusedError):
                return False
            raise
        return bool(info.experiment_id == self.experiment_id and info.lifecycle_stage == "active")

    def knows(self, run_id: str) -> bool:
        """Whether MLflow has the run, be it as one that was deleted."""
        try:
            self._client.get_run(run_id)
        except MlflowException as error:
            # A server with users says of a run that is missing that we may not read it.
            if is_missing(error) or is_forbidden(error):
                return False
            raise
        return True

    def search(self, tags: Mapping[str, str], also_deleted: bool = False) -> list[Run]:
        """Runs with all these tags, the oldest first; "" is a tag that a run has not."""
        # Names of birds may hold what a query cannot: these tags are compared here.
        plain = {name: value for name, value in tags.items() if _PLAIN.fullmatch(value)}
        query = " and ".join(f"tags.{name} = '{value}'" for name, value in plain.items() if value)
        found = self._runs(query, ViewType.ALL if also_deleted else ViewType.ACTIVE_ONLY)
        return [r for r in found if all(r.data.tags.get(k, "") == v for k, v in tags.items())]

    def open_runs(self) -> list[Run]:
        """All runs of the experiment that have not ended."""
        return self._runs("attributes.status = 'RUNNING'")

    def _runs(self, query: str, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
        runs: list[Run] = []
        token: str | None = None
        while token is None or token:
            page = self._client.search_runs(
                [self.experiment_id], query, view,
                order_by=["attributes.start_time"], page_token=token,
            )  # fmt: skip
            runs += page
            token = page.token or ""
        return runs

    def create_run(self, tags: Mapping[str, str], name: str, time_ms: int) -> str:
        """Begin a run."""
        run = self._client.create_run(self.experiment_id, time_ms, dict(tags), name)
        return str(run.info.run_id)

    def begin_run(
        self,
        identity_tags: Mapping[str, str],
        tags: Mapping[str, str],
        name: str,
        time_ms: int,
        known: Collection[str] = (),
    ) -> str:
        """Find the run of these tags, or begin it, though an earlier try may take effect late.

        Of several one is kept: one of the ``known``, else the oldest.
        """
        found = self.search(identity_tags)
        if not found:
            made = self.create_run(tags, name, time_ms)
            # An earlier try that got no answer may have taken effect only now.
            found = self.search(identity_tags)
            if not found:
                return made
        found.sort(key=lambda run: run.info.run_id not in known)
        # Those that an earlier try found as well: its removal may not have come through.
        for other in found[1:]:
            self.put_away(str(other.info.run_id))
        return str(found[0].info.run_id)

    def put_away(self, run_id: str) -> None:
        """Delete a run that was begun twice; where that is not ours to do, let it count as none."""
        try:
            self._client.delete_run(run_id)
        except MlflowException as error:
            if not is_forbidden(error):
                raise
            self._client.set_tag(run_id, "stage", BEGUN_TWICE)
            self._client.set_terminated(run_id, "KILLED")

    def log_params(self, run_id: str, params: Mapping[str, str]) -> bool:
        """Log what the run has not; False, and nothing, where it has another value of one."""
        known = self._client.get_run(run_id).data.params
        if any(known.get(name, value) != value for name, value in params.items()):
            return False  # none is changed there
        new = [Param(name, value) for name, value in params.items() if name not in known]
        self._client.log_batch(run_id, params=new)
        return True

    def log_metrics(self, run_id: str, batch: Mapping[int, Measured]) -> None:
        """Log metrics by step; what is no finite number is named in a tag."""
        # The last step first: the page compares runs by their first metric, and step 0 is special.
        rows = [
            Metric(name, value, to_ms(batch[step].at), step)
            for step in sorted(batch, reverse=True)
            for name, value in batch[step].metrics.items()
            if math.isfinite(value)
        ]
        self._client.log_batch(run_id, rows, tags=_run_tags(odd_tags(batch)))

    def last_step(self, run_id: str, batch: Mapping[int, Measured]) -> int | None:
        """Find the last step of a run that has a metric of the batch; None where none has.

        Two metrics are asked for: the first one, the objective, is missing at a step whose decoder
        has collapsed.
        """
        names = [
            name
            for step in sorted(batch)
            for name, value in batch[step].metrics.items()
            if math.isfinite(value)
        ]
        both = {*names[:1], *names[-1:]}
        histories = [self._client.get_metric_history(run_id, name) for name in sorted(both)]
        return max((int(metric.step) for found in histories for metric in found), default=None)

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run."""
        self._client.log_batch(run_id, tags=_run_tags(tags))

    def set_status(self, run_id: str, status: Status, time_ms: int) -> None:
        """Open a run, or end it at ``time_ms``."""
        if status == "RUNNING":
            self._client.update_run(run_id, status)
        else:
            self._client.set_terminated(run_id, status, time_ms)

    def log_file(self, run_id: str, path: Path, folder: str) -> None:
        """Copy a file to the run's artefacts."""
        self._client.log_artifact(run_id, str(path), folder or None)

    def register(self, run_id: str, model: Model) -> bool:
        """Register a model; False where its folder holds another one by now."""
        return register(self._client, run_id, model)


def _run_tags(tags: Mapping[str, str]) -> list[RunTag]:
    return [RunTag(name, value) for name, value in tags.items()]
