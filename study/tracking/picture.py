"""Pictures of MLflow runs: what the run folder says of a trial, a decoder, an HMM or the study."""

import dataclasses
import json
import math
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

MAX_METRICS = 500  # in one call; MLflow takes at most 1000
MAX_PARAM_CHARS = 500
MAX_TAG_CHARS = 5000

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class RunIdentity:
    """The tags by which a run is found again.

    Attributes:
        stage: study, trial, repeat, decoder or hmm.
        trial_id: of a trial, or of the trial whose decoder was used.
        bird, age: of a decoder or HMM run.
        seed: of a repeat of a trial with another seed.
    """

    stage: str
    trial_id: str = ""
    bird: str = ""
    age: str = ""
    seed: str = ""

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> "RunIdentity":
        """The identity of a run with these tags."""
        return cls(**{one.name: tags.get(one.name, "") for one in dataclasses.fields(cls)})

    def tags(self) -> dict[str, str]:
        """Only what is given."""
        return {name: value for name, value in vars(self).items() if value}

    def key(self) -> str:
        """The identity as one line of text."""
        return json.dumps(self.tags())

    def in_words(self) -> str:
        """For a line that a person reads."""
        return " ".join(self.tags().values())


STUDY = RunIdentity("study")


@dataclass(frozen=True)
class Measured:
    """The metrics of one step.

    Attributes:
        at: seconds of `time.time`. A metric sent twice is one metric to MLflow only where its time
            is the same both times, so this comes from the run folder, never from the clock.
        metrics: by name.
    """

    at: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Model:
    """A model to register.

    Attributes:
        folder: holds model.json and safetensors.
        name: that it is registered under.
        tags: of the version; the hash of model.json among them.
    """

    folder: Path
    name: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class RunPicture:
    """A run as it is to look, or a part of it: the other parts stay as they are.

    Attributes:
        identity: of the run.
        study_run_id: of the study run that it belongs to.
        name: shown by MLflow.
        lineage: tags that it gets once, when it is begun.
        params: logged once.
        curve: metrics by step; a step is sent once.
        last_step: the run may hold no step beyond it; None where that is not known yet.
        tags: set when they change.
        files: folder among the run's artefacts ("" for the top) by path; sent when they change.
        model: to register.
        status: None leaves it as it is.
        began_at, ended_at: seconds of `time.time`; now where None.
    """

    identity: RunIdentity
    study_run_id: str = ""
    name: str = ""
    lineage: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    curve: Mapping[int, Measured] = field(default_factory=dict)
    last_step: int | None = None
    tags: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[Path, str] = field(default_factory=dict)
    model: Model | None = None
    status: Status | None = None
    began_at: float | None = None
    ended_at: float | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Study run and identity."""
        return self.study_run_id, self.identity.key()

    @property
    def is_end(self) -> bool:
        """Whether it says how the run ended."""
        return self.status not in (None, "RUNNING")

    def end(self) -> "RunPicture":
        """The end alone, and of the study its reason; a run that MLflow has not is not begun."""
        tags = self.tags if self.identity == STUDY else {}
        return RunPicture(self.identity, self.study_run_id, tags=tags, status=self.status,
                          ended_at=self.ended_at)  # fmt: skip

    def with_newer(self, newer: "RunPicture") -> "RunPicture":
        """Both pictures in one; where they differ the newer one counts, but for the beginning."""
        merged: dict[str, Any] = {}
        for one in dataclasses.fields(self):
            before, after = getattr(self, one.name), getattr(newer, one.name)
            if one.name in ("lineage", "began_at"):
                before, after = after, before
            if isinstance(before, Mapping):
                merged[one.name] = {**before, **after}
            else:
                merged[one.name] = before if after in (None, "") else after
        return RunPicture(**merged)

    def batches(self, after: int | None) -> Iterator[dict[int, Measured]]:
        """The steps beyond ``after``, in order, as many at a time as one call takes."""
        batch: dict[int, Measured] = {}
        n = 0
        for step in sorted(self.curve):
            if after is not None and step <= after:
                continue
            measured = self.curve[step]
            if batch and n + len(measured.metrics) > MAX_METRICS:
                yield batch
                batch, n = {}, 0
            batch[step] = measured
            n += len(measured.metrics)
        if batch:
            yield batch


def stamped(stamp: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of a picture by what `study.tracking.tracker.Tracker.stamp` said of its beginning."""
    own = ("study_run_id", "began_at")
    lineage = {name: value for name, value in stamp.items() if name not in own}
    return {**{name: stamp[name] for name in own}, "lineage": lineage}


def odd_tags(batch: Mapping[int, Measured]) -> dict[str, str]:
    """Tags that name the values which MLflow cannot take: NaN and infinities."""
    return {
        f"not_finite.{name}": f"{value} at step {step}"
        for step, measured in batch.items()
        for name, value in measured.metrics.items()
        if not math.isfinite(value)
    }


def now_ms() -> int:
    """The time as MLflow counts it."""
    return to_ms(time.time())


def to_ms(seconds: float) -> int:
    """Seconds of `time.time` as MLflow counts them."""
    return round(1000 * seconds)


def check_allowed(params: Collection[str], allowed: Collection[str]) -> None:
    """Raise ValueError where a parameter is not among those allowed."""
    for name in params:
        if name not in allowed:
            raise ValueError(
                f"The parameter {name!r} is not on the list of those that MLflow may be told. Add "
                "it there if it holds nothing private."
            )


def param_texts(params: Mapping[str, Any]) -> dict[str, str]:
    """Values as text; long ones are cut, with a mark: MLflow would cut them without one."""
    return {name: _cut(str(value), MAX_PARAM_CHARS) for name, value in params.items()}


def tag_texts(tags: Mapping[str, Any]) -> dict[str, str]:
    """Values as text, long ones cut with a mark."""
    return {name: _cut(str(value), MAX_TAG_CHARS) for name, value in tags.items()}


def _cut(text: str, n_chars: int) -> str:
    return text if len(text) <= n_chars else text[: n_chars - 1] + "…"
