"""The stage that gathers the labels that people put beside their recordings.

No other stage depends on it: a new or altered label file makes this stage alone run again.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import ray

from data_io.files import FOR_NOW, digest
from data_io.labels.files import LabelFiles, Part, Problem, label_files
from data_io.labels.table import (
    Labels,
    read_label_problems,
    read_labels_of,
    write_label_problems,
    write_labels,
)
from data_io.recordings.table import Recordings
from study.base.console import Progress
from study.base.ledger import StageResult
from study.context import Stage, Study

FILES_PER_TASK = 500  # some seconds: a file of text takes about 5 ms
PROBLEMS_SHOWN = 5


def list_label_files(study: Study) -> tuple[list[LabelFiles], list[Problem]]:
    """List the files that may hold labels of the recordings that are used, a bird at a time."""
    files: list[LabelFiles] = []
    problems: list[Problem] = []
    used = study.recordings.used
    birds = used.column("bird")
    for bird in dict.fromkeys(birds):
        of_bird = used.where(birds == bird).table.select(Part._fields)
        parts = zip(*of_bird.to_pydict().values(), strict=True)
        found, unseen = label_files(study.data_dir, parts)
        files += found
        problems += unseen
    return files, problems


@ray.remote
def _read(data_dir: Path, files: list[LabelFiles]) -> Labels:
    return read_labels_of(data_dir, files)


def _needs(study: Study) -> dict[str, Any]:
    study.label_files = list_label_files(study)
    files, problems = study.label_files
    listed = digest([[each.parts, each.files] for each in files])
    return study.depends_on("recordings", files=listed, unseen=digest(problems))


def _run(study: Study) -> StageResult:
    paths, console = study.paths, study.console
    files, problems = study.label_files
    starts = range(0, len(files), FILES_PER_TASK)
    progress = Progress(
        console, sum(len(each.files) for each in files), "files that may hold labels"
    )
    found: dict[int, Labels] = {}

    def keep(start: int, labels: Labels) -> None:
        found[start] = labels
        progress.advance(sum(len(each.files) for each in files[start : start + FILES_PER_TASK]))

    study.tasks.run(
        lambda start: _read.remote(study.data_dir, files[start : start + FILES_PER_TASK]),
        starts,
        keep,
        lambda start: f"Reading the labels from {files[start].files[0][0]} on",
    )
    labels = Labels.joined(found[start] for start in starts)
    problems = [*problems, *labels.problems]
    write_labels(paths.labels, labels.rows)
    write_label_problems(paths.label_problems, problems)
    labelled = set(pc.unique(labels.rows["recording"]).to_pylist())
    facts = {
        "n_labels": labels.rows.num_rows,
        "n_recordings": len(labelled),
        "n_birds": _n_birds(study.recordings, labels),
        "n_problems": len(problems),
    }
    outputs = [paths.labels, paths.label_problems]
    is_final = not any(reason.startswith(FOR_NOW) for _, reason in problems)
    return StageResult(outputs, digest(facts), facts, is_final)


def _n_birds(recordings: Recordings, labels: Labels) -> int:
    is_labelled = pc.is_in(recordings.table["path"], pc.unique(labels.rows["recording"]))
    return len(pc.unique(recordings.table["bird"].filter(is_labelled)))


def in_words(facts: dict[str, Any]) -> str:
    """One line with the numbers of labels, and of the recordings and birds that have them."""

    def counted(name: str, noun: str) -> str:
        n = facts[name]
        return f"{n:,} {noun}{'' if n == 1 else 's'}"

    if not facts["n_labels"]:
        return "no labels beside the recordings"
    return (
        f"{counted('n_labels', 'label')} of {counted('n_recordings', 'recording')} "
        f"of {counted('n_birds', 'bird')}"
    )


def _problem_lines(study: Study) -> Iterator[str]:
    """The first problems with label files, and where the others are."""
    problems = read_label_problems(study.paths.label_problems)
    yield from (f"{file}: {reason}" for file, reason in problems[:PROBLEMS_SHOWN])
    if len(problems) > PROBLEMS_SHOWN:
        n_more = len(problems) - PROBLEMS_SHOWN
        yield f"and {n_more:,} more files; {study.paths.label_problems.name} has them all"


def _show(study: Study) -> None:
    study.console.note(in_words(study.ledger.done[LABELS.name].facts))
    for line in _problem_lines(study):
        study.console.note(line)


LABELS = Stage(
    "labels",
    needs=_needs,
    run=_run,
    is_wanted=lambda config: config.data.dir is not None,
    then=_show,
)
