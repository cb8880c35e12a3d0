"""The runs of one study as its outbox knows them: what was told of them, and what may be told."""

import json
import math
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from study.tracking.outbox import Operation, Outbox

MAX_METRICS = 500  # in one operation; MLflow takes at most 1000 in a call
MAX_PARAM_CHARS = 500
MAX_TAG_CHARS = 5000


@dataclass(frozen=True)
class RunIdentity:
    """The tags by which a run is found again.

    Attributes:
        stage: study, trial, decoder or hmm.
        trial_id: of a trial.
        bird, age: of a decoder or HMM run.
        seed: of a repeat of a trial with another seed.
    """

    stage: str
    trial_id: str = ""
    bird: str = ""
    age: str = ""
    seed: str = ""

    def tags(self) -> dict[str, str]:
        """Only what is given."""
        return {name: value for name, value in vars(self).items() if value}

    def key(self) -> str:
        """The identity as one line of text."""
        return json.dumps(self.tags())

    @classmethod
    def of_key(cls, key: str) -> "RunIdentity":
        """The identity of which `key` made the text."""
        return cls(**json.loads(key))

    def in_words(self) -> str:
        """For a line that a person reads."""
        return " ".join(self.tags().values())


STUDY = RunIdentity("study")


@dataclass
class _Run:
    """What is known of a run.

    Attributes:
        run_id: MLflow's, once the run was begun there.
        is_open: begun and not ended.
        reported: metrics and steps that were logged.
    """

    run_id: str | None = None
    is_open: bool = True
    reported: set[tuple[str, int]] = field(default_factory=set)


class RunRecords:
    """The runs of one study run, and the operations on them.

    Args:
        outbox: of the study run; what it holds is taken in.
        study_run_id: MLflow's, of the study's own run, which was begun.

    Attributes:
        waiting: operations found in the outbox that were not delivered, in order.
        is_unused: there was never an operation.
    """

    def __init__(self, outbox: Outbox, study_run_id: str):
        self.outbox = outbox
        self.study_run_id = study_run_id
        self.waiting: list[Operation] = []
        self.is_unused = True
        self._runs = {STUDY: _Run(study_run_id)}
        last_done: dict[str, int] = {}
        for operation, result in outbox.replay():
            self._take_in(operation)
            if result is None:
                self.waiting.append(operation)
            else:
                last_done[operation.run] = operation.number
                if "run_id" in result:
                    self.note_run_id(operation, result["run_id"])
        # Those before one that was delivered were delivered as well, though the disk was too full
        # to say so. Beginning a run again that was ended later would leave it open.
        self.waiting = [o for o in self.waiting if o.number > last_done.get(o.run, 0)]

    def append(self, identity: RunIdentity, kind: str, content: dict[str, Any]) -> Operation:
        """Write an operation to the outbox.

        Raises:
            OSError: the disk is full or broken.
            ValueError: the run was not begun.
        """
        if kind != "start" and identity not in self._runs:
            raise ValueError(
                f"{kind} of the run {identity.in_words()!r}, which was not begun under this study "
                "run. Call start_run first."
            )
        operation = self.outbox.append(identity.key(), kind, content)
        self._take_in(operation)
        return operation

    def _take_in(self, operation: Operation) -> None:
        self.is_unused = False
        run = self._runs.setdefault(RunIdentity.of_key(operation.run), _Run())
        if operation.kind in ("start", "end"):
            run.is_open = operation.kind == "start"
        elif operation.kind == "metrics":
            run.reported.update((name, step) for name, _, step in operation.content["metrics"])
            run.reported.update((name, step) for name, step in operation.content["odd"])

    def knows(self, identity: RunIdentity) -> bool:
        """Whether the run was begun."""
        return identity in self._runs

    def run_id(self, identity: RunIdentity) -> str | None:
        """MLflow's id of a run; None before it was begun there."""
        run = self._runs.get(identity)
        return None if run is None else run.run_id

    def note_run_id(self, operation: Operation, run_id: str) -> None:
        """Keep the id that the run of an operation got."""
        self._runs[RunIdentity.of_key(operation.run)].run_id = run_id

    def open_runs(self) -> list[RunIdentity]:
        """Runs that were begun and not ended."""
        return [identity for identity, run in self._runs.items() if run.is_open]

    def new_metrics(
        self, identity: RunIdentity, rows: Mapping[int, Mapping[str, float]]
    ) -> Iterator[dict[str, Any]]:
        """Contents of operations for what of ``rows`` was not logged before, by step and name.

        What is no finite number is left out of the metrics and named in a tag.
        """
        run = self._runs.get(identity, _Run())
        new = [
            (name, float(value), int(step))
            for step, row in rows.items()
            for name, value in row.items()
            if (name, step) not in run.reported
        ]
        # Kept with the operation: sent twice, it is then the same metric to MLflow.
        now = now_ms()
        for i in range(0, len(new), MAX_METRICS):
            part = new[i : i + MAX_METRICS]
            odd = [one for one in part if not math.isfinite(one[1])]
            yield {
                "metrics": [one for one in part if math.isfinite(one[1])],
                "odd": [(name, step) for name, _, step in odd],
                "tags": {f"not_finite.{name}": f"{v} at step {step}" for name, v, step in odd},
                "time": now,
            }


def now_ms() -> int:
    """The time as MLflow counts it."""
    return round(1000 * time.time())


def param_texts(params: Mapping[str, Any], allowed: Collection[str]) -> dict[str, str]:
    """Values as text; long ones are cut, with a mark: MLflow would cut them without one.

    Raises:
        ValueError: a name is not among those allowed.
    """
    for name in params:
        if name not in allowed:
            raise ValueError(
                f"The parameter {name!r} is not on the list of those that MLflow may be told. Add "
                "it there if it holds nothing private."
            )
    return {name: _cut(str(value), MAX_PARAM_CHARS) for name, value in params.items()}


def tag_texts(tags: Mapping[str, Any]) -> dict[str, str]:
    """Values as text, long ones cut with a mark."""
    return {name: _cut(str(value), MAX_TAG_CHARS) for name, value in tags.items()}


def _cut(text: str, n_chars: int) -> str:
    return text if len(text) <= n_chars else text[: n_chars - 1] + "…"
