"""MLflow in the memory of this process, with the calls that a study makes."""

import pickle
import threading
import uuid
from dataclasses import dataclass, field
from types import SimpleNamespace

from study.tracking.client import Mlflow
from study.tracking.model_registry import MODEL_TAG
from study.tracking.picture import odd_tags


@dataclass
class MemoryRun:
    """One run."""

    run_id: str
    name: str
    tags: dict = field(default_factory=dict)
    params: dict = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)  # name: [(step, value)]
    status: str = "RUNNING"
    rows: set = field(default_factory=set)  # with their times
    files: set = field(default_factory=set)
    models: set = field(default_factory=set)

    @property
    def info(self):
        return SimpleNamespace(run_id=self.run_id, lifecycle_stage="active", status=self.status)

    @property
    def data(self):
        return SimpleNamespace(tags=self.tags, params=self.params)


class MemoryMlflow(Mlflow):
    """Keeps runs by id in ``runs``; knows no other experiment, and one registered model."""

    def __init__(self):
        self.experiment_id = "1"
        self.runs: dict[str, MemoryRun] = {}
        self.best = ""  # the model that the registry calls the best
        self.lock = threading.Lock()

    def pickled(self):
        """The runs as they are now."""
        with self.lock:
            return pickle.dumps(self.runs)

    def has_run(self, run_id):
        return run_id in self.runs

    def knows(self, run_id):
        return run_id in self.runs

    def search(self, tags, also_deleted=False):
        with self.lock:
            runs = list(self.runs.values())
        return [run for run in runs if all(run.tags.get(k, "") == v for k, v in tags.items())]

    def open_runs(self):
        with self.lock:
            return [run for run in self.runs.values() if run.status == "RUNNING"]

    def put_away(self, run_id):
        with self.lock:
            del self.runs[run_id]

    def create_run(self, tags, name, time_ms):
        with self.lock:
            run_id = uuid.uuid4().hex
            self.runs[run_id] = MemoryRun(run_id, name, dict(tags))
        return run_id

    def log_params(self, run_id, params):
        with self.lock:
            run = self.runs[run_id]
            if any(run.params.get(name, value) != value for name, value in params.items()):
                return False
            run.params = {**params, **run.params}
            return True

    def log_metrics(self, run_id, batch):
        with self.lock:
            run = self.runs[run_id]
            for step, measured in batch.items():
                for name, value in measured.metrics.items():
                    row = (name, step, value, measured.at)
                    if row not in run.rows:  # the same row sent twice is one row to MLflow
                        run.metrics.setdefault(name, []).append((step, value))
                    run.rows.add(row)
            run.tags.update(odd_tags(batch))

    def last_step(self, run_id, batch):
        rows = self.runs[run_id].metrics.get(next(iter(next(iter(batch.values())).metrics)), [])
        return max((step for step, _ in rows), default=None)

    def set_tags(self, run_id, tags):
        with self.lock:
            self.runs[run_id].tags.update(tags)

    def set_status(self, run_id, status, time_ms):
        self.runs[run_id].status = status

    def log_file(self, run_id, path, folder):
        path.read_bytes()
        with self.lock:
            self.runs[run_id].files.add(f"{folder}/{path.name}".lstrip("/"))

    def register(self, run_id, model):
        with self.lock:
            self.runs[run_id].models.add(model.tags[MODEL_TAG])
            self.best = model.tags[MODEL_TAG]
        return True
