"""MLflow: the only file that imports it, used by the driver alone.

Runs are flat: one for the study, one per trial, one per bird and age. Their lineage is in tags.
"""

import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Progress bars of artefact downloads and hints on upgrades are not for a log.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# By default a call to a server that is away blocks for four minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")

import mlflow  # noqa: E402  (reads these settings on import)

from study.paths import artifact_location  # noqa: E402

if getattr(mlflow, "__file__", None) is None:
    # Without the package, Python takes the folder mlflow/ for an empty package of that name.
    raise ImportError("mlflow is not installed: run pip install -r requirements.txt")

from mlflow.entities import Metric, Param, RunTag, ViewType  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.tracking import MlflowClient  # noqa: E402

MAX_BATCH = 500  # metrics in one call; MLflow takes at most 1000
MAX_PARAM_CHARS = 500


# Messages about the tables of a new database are not for the reader of a study.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)


class TrackingError(RuntimeError):
    """MLflow cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class RunIdentity:
    """The tags by which a run is found again.

    Attributes:
        stage: study, trial, decoder or hmm.
        trial_id: of a trial.
        bird, age: of a decoder or HMM run.
    """

    stage: str
    trial_id: str = ""
    bird: str = ""
    age: str = ""

    def tags(self) -> dict[str, str]:
        """Only what is given."""
        return {name: value for name, value in vars(self).items() if value}


class Tracker:
    """Writes the runs of one study.

    Args:
        uri: tracking URI, absolute.
        experiment: name of the study.
        lineage: tags that every run gets (study, git_commit, data_hash, config_hash, ...).
    """

    def __init__(self, uri: str, experiment: str, lineage: Mapping[str, str]):
        self.uri = uri
        self.lineage = dict(lineage)
        self.study_run_id = ""
        if uri.startswith("sqlite:///"):
            Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._client = MlflowClient(uri)
            self.experiment_id = self._experiment(experiment)
        except MlflowException as error:
            raise TrackingError(
                f"MLflow at {uri} cannot be used: {error}. Start the server, or leave out "
                "--tracking-uri and MLFLOW_TRACKING_URI to write to SQLite in the project."
            ) from error

    def _experiment(self, name: str) -> str:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            # A server knows where its artefacts go; beside a SQLite file they would go to the
            # current folder.
            is_file = self.uri.startswith("sqlite:///")
            location = artifact_location(self.uri, name) if is_file else None
            return str(self._client.create_experiment(name, artifact_location=location))
        if experiment.lifecycle_stage != "active":
            raise TrackingError(
                f"The MLflow experiment {name!r} was deleted. Restore it with `mlflow experiments "
                f"restore --experiment-id {experiment.experiment_id}`, or give another name=."
            )
        return str(experiment.experiment_id)

    def start_study(
        self, known_run_id: str | None, run_name: str, params: Mapping[str, Any]
    ) -> str:
        """Go on with the study's run where it is known and still there, else begin one."""
        if known_run_id is not None and self.has_run(known_run_id):
            self.study_run_id = known_run_id
            self._client.update_run(known_run_id, status="RUNNING")
            self._tag(known_run_id, self.lineage)
        else:
            self.study_run_id = self._create(RunIdentity("study"), run_name)
            self._client.set_tag(self.study_run_id, "study_run_id", self.study_run_id)
            self.log_params(self.study_run_id, params)
        return self.study_run_id

    def has_run(self, run_id: str) -> bool:
        """Whether the run is there, in this experiment."""
        try:
            run = self._client.get_run(run_id)
        except MlflowException:
            return False
        same_experiment = run.info.experiment_id == self.experiment_id
        return bool(same_experiment and run.info.lifecycle_stage == "active")

    def start_run(self, identity: RunIdentity, run_name: str) -> str:
        """Begin a run of this study, or go on with the one of the same identity."""
        tags = {**identity.tags(), "study_run_id": self.study_run_id}
        # A query has no way to write a quote inside a value: names with one are compared here.
        query = " and ".join(f"tags.{k} = '{v}'" for k, v in tags.items() if "'" not in v)
        for run in self._client.search_runs([self.experiment_id], query, ViewType.ACTIVE_ONLY):
            if tags.items() <= run.data.tags.items():
                self._client.update_run(run.info.run_id, status="RUNNING")
                return str(run.info.run_id)
        return self._create(identity, run_name)

    def _create(self, identity: RunIdentity, run_name: str) -> str:
        tags = {**self.lineage, **identity.tags()}
        if self.study_run_id:
            tags["study_run_id"] = self.study_run_id
        run = self._client.create_run(self.experiment_id, tags=tags, run_name=run_name)
        return str(run.info.run_id)

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Log parameters once; those that the run has already stay as they are."""
        known = self._client.get_run(run_id).data.params
        new = [
            Param(name, _param_text(value)) for name, value in params.items() if name not in known
        ]
        for i in range(0, len(new), 100):
            self._client.log_batch(run_id, params=new[i : i + 100])

    def log_metrics(self, run_id: str, rows: Mapping[int, Mapping[str, float]]) -> None:
        """Log metrics by step. What is no finite number is left out and named in a tag."""
        now = round(time.time() * 1000)
        metrics, odd = [], {}
        for step, row in rows.items():
            for name, value in row.items():
                if math.isfinite(value):
                    metrics.append(Metric(name, float(value), now, step))
                else:
                    odd[f"not_finite.{name}"] = f"{value} at step {step}"
        for i in range(0, len(metrics), MAX_BATCH):
            self._client.log_batch(run_id, metrics=metrics[i : i + MAX_BATCH])
        self._tag(run_id, odd)

    def log_artifacts(self, run_id: str, folder: Path, to: str | None = None) -> None:
        """Copy a folder's content to the run's artefacts."""
        self._client.log_artifacts(run_id, str(folder), to)

    def log_artifact(self, run_id: str, file: Path, to: str | None = None) -> None:
        """Copy a file to the run's artefacts."""
        self._client.log_artifact(run_id, str(file), to)

    def end_run(
        self,
        run_id: str,
        succeeded: bool,
        tags: Mapping[str, str] | None = None,
        ended_at: float | None = None,
    ) -> None:
        """Close a run as FINISHED or FAILED, at ``ended_at`` (seconds of `time.time`) or now."""
        self._tag(run_id, tags or {})
        end_time = None if ended_at is None else round(1000 * ended_at)
        self._client.set_terminated(run_id, "FINISHED" if succeeded else "FAILED", end_time)

    def _tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        if tags:
            self._client.log_batch(run_id, tags=[RunTag(k, str(v)) for k, v in tags.items()])


def _param_text(value: Any) -> str:
    text = str(value)
    # MLflow cuts long values without a word; so do it visibly.
    return text if len(text) <= MAX_PARAM_CHARS else text[: MAX_PARAM_CHARS - 1] + "…"
