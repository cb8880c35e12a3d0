"""An MLflow in memory: its client below `study.tracking.client.Mlflow`, whose replies may be lost.

It keeps what a server keeps: a metric is known by name, step, value and time, so that the same one
sent twice is one row; a parameter of a run never changes.
"""

from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace

from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST

EXPERIMENT = SimpleNamespace(experiment_id="1", lifecycle_stage="active")


@dataclass
class Run:
    """A run as the server has it; `info` and `data` are what MLflow's client gives."""

    run_id: str
    start_time: int
    tags: dict[str, str]
    status: str = "RUNNING"
    is_active: bool = True
    params: dict[str, str] = field(default_factory=dict)
    rows: Counter = field(default_factory=Counter)  # (name, step, value, time) of metrics

    @property
    def info(self):
        stage = "active" if self.is_active else "deleted"
        return SimpleNamespace(
            run_id=self.run_id, experiment_id="1", lifecycle_stage=stage, status=self.status
        )

    @property
    def data(self):
        return SimpleNamespace(tags=self.tags, params=self.params)


class _Page(list):
    token = None


class PretendMlflow:
    """The server, and the client of it.

    Args:
        name: that the ids of its runs begin with.

    Attributes:
        runs: by id.
        is_away: it answers nobody.
        faults: what happens to the next calls, in order: ``unheard`` (it did not reach the server),
            ``unanswered`` (it took effect, the reply was lost), ``late`` (as unanswered, but a
            run that it was to begin is there only after the next look), or "" (nothing).
    """

    def __init__(self, name="run"):
        self._name = name
        self.runs: dict[str, Run] = {}
        self.is_away = False
        self.faults: list[str] = []
        self._late: list[Run] = []

    def active(self):
        """Runs that were not deleted."""
        return [run for run in self.runs.values() if run.is_active]

    def get_experiment_by_name(self, name):
        return self._answer(lambda: EXPERIMENT)

    def search_runs(self, experiment_ids, query, view, order_by, page_token):
        def search():
            # The caller compares the tags of what is found: a query of tags only makes it shorter.
            runs = self.runs.values() if view == ViewType.ALL else self.active()
            found = [run for run in runs
                     if "RUNNING" not in query or run.status == "RUNNING"]  # fmt: skip
            return _Page(sorted(found, key=lambda run: run.start_time))

        return self._answer(search)

    def create_run(self, experiment_id, start_time, tags, name):
        run = Run(f"{self._name}-{len(self.runs) + len(self._late)}", start_time, dict(tags))
        if self.faults[:1] == ["late"] and not self.is_away:
            self.faults.pop(0)
            self._late.append(run)
            raise _no_answer()
        self._arrive()
        return self._answer(lambda: self.runs.setdefault(run.run_id, run))

    def _arrive(self):
        for run in self._late:
            self.runs[run.run_id] = run
        self._late = []

    def delete_run(self, run_id):
        self._answer(lambda: setattr(self.runs[run_id], "is_active", False))

    def get_run(self, run_id):
        return self._answer(lambda: self._known(run_id))

    def _known(self, run_id):
        if run_id not in self.runs:
            raise MlflowException(f"Run {run_id} not found", RESOURCE_DOES_NOT_EXIST)
        return self.runs[run_id]

    def log_batch(self, run_id, metrics=(), params=(), tags=()):
        def log():
            run = self._known(run_id)
            for param in params:
                if run.params.get(param.key, param.value) != param.value:
                    raise MlflowException(f"{param.key} changes", INVALID_PARAMETER_VALUE)
            run.params |= {param.key: param.value for param in params}
            run.tags |= {tag.key: tag.value for tag in tags}
            for metric in metrics:
                row = (metric.key, metric.step, metric.value, metric.timestamp)
                run.rows[row] = 1

        self._answer(log)

    def get_metric_history(self, run_id, name):
        rows = self._answer(lambda: list(self._known(run_id).rows))
        return [SimpleNamespace(step=step) for key, step, _, _ in rows if key == name]

    def set_tag(self, run_id, name, value):
        self._answer(lambda: self._known(run_id).tags.update({name: value}))

    def set_terminated(self, run_id, status, end_time=None):
        self._answer(lambda: setattr(self._known(run_id), "status", status))

    def update_run(self, run_id, status):
        self._answer(lambda: setattr(self._known(run_id), "status", status))

    def _answer(self, work):
        """Do ``work`` as a server does it that may be away, or whose reply may be lost."""
        if self.is_away:
            raise _no_answer()
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "unheard":
            raise _no_answer()
        found = work()
        if fault:
            raise _no_answer()
        return found


def _no_answer():
    return MlflowException("API request to http://mlflow failed: Connection refused")
