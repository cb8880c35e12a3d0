"""One study under way, and what a stage of it is."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_io.labels.files import LabelFiles, Problem
from data_io.names.listing import Survey
from data_io.recordings.table import SCHEMA, Recordings
from study.base.console import Console
from study.base.ledger import Ledger, StageResult
from study.base.paths import RunPaths, Where
from study.cluster.tasks import TaskRunner
from study.config.tree import StudyConfig
from study.tracking.tracker import Tracker


@dataclass
class Study:
    """One study under way.

    Attributes:
        config: decides every number.
        where: it runs and writes.
        paths: of the run folder.
        console: shows progress.
        tasks: runs Ray tasks.
        tracker: of MLflow.
        ledger: of the stages that are done.
        gpus: of a trial.
        survey: of the folder of recordings; None until simulated birds are made.
        recordings: every file found, with its use and split; empty before they are read.
        label_files: files that may hold labels, and what cannot be looked at; listed as the stage
            of the labels begins.
    """

    config: StudyConfig
    where: Where
    paths: RunPaths
    console: Console
    tasks: TaskRunner
    tracker: Tracker
    ledger: Ledger
    gpus: float
    survey: Survey | None
    recordings: Recordings = field(default_factory=lambda: Recordings(SCHEMA.empty_table()))
    label_files: tuple[list[LabelFiles], list[Problem]] = ([], [])

    @property
    def data_dir(self) -> Path:
        """Folder of the recordings."""
        return Path(self.config.data.dir or self.paths.simulated_birds)

    def depends_on(self, *stages: str, **parts: Any) -> dict[str, Any]:
        """Plain content that a stage depends on: earlier stages' results, configuration, seed."""
        digests = {stage: self.ledger.done[stage].digest for stage in stages}
        plain = {
            name: part if isinstance(part, str | int | float | dict) else dataclasses.asdict(part)
            for name, part in parts.items()
        }
        return {"after": digests, "seed": self.config.seed, **plain}


@dataclass(frozen=True)
class Stage:
    """One step of a study: it reads what earlier stages wrote and writes one artefact.

    Attributes:
        name: in the ledger, in study.json and in the terminal.
        needs: plain content that it depends on, as `Study.depends_on` gives it; a change of any
            part makes it run again.
        run: does it.
        is_wanted: whether a study has it.
        then: called whether it ran or was skipped.
    """

    name: str
    needs: Callable[[Study], dict[str, Any]]
    run: Callable[[Study], StageResult]
    is_wanted: Callable[[StudyConfig], bool] = lambda config: True
    then: Callable[[Study], None] = lambda study: None

    def do(self, study: Study) -> None:
        """Run the stage, or skip it where nothing that it depends on has changed."""
        study.ledger.run(self.name, self.needs(study), lambda: self.run(study))
        self.then(study)
