"""Pictures of trials for MLflow, made from their folders."""

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from data_io.files import BrokenSealError, found, read_json, write_json
from data_io.store import read_table
from models.mdgan.params import MdganParams
from study.base.paths import RunPaths
from study.search.state import counted
from study.search.trial_folder import BrokenRecordError, Report, TrialFolder, TrialSpec
from study.tracking.picture import Measured, Status, stamped
from study.tracking.tracker import RunIdentity, RunPicture, Tracker
from study.training.train import trial_params

BEGUN = "begun.json"  # in a trial's folder: under which study run it began, and by which code


def begin_trial(folder: TrialFolder, tracker: Tracker) -> dict[str, Any]:
    """Write down under which study run a trial begins, unless it is this one already."""
    stamp = read_begun(folder)
    if stamp is None or stamp.get("study_run_id") != tracker.study_run_id:
        stamp = tracker.stamp()
        write_json(folder.path / BEGUN, stamp)
    return stamp


def read_begun(folder: TrialFolder) -> dict[str, Any] | None:
    """Under which study run a trial began; None before it has.

    Where begun.json was altered or is missing, ended.json says it, too. A trial that has not ended
    begins again: MLflow finds its run by the trial's name and the study's run.

    Raises:
        UnreadableRecordError: ended.json cannot be read for now.
        OSError: begun.json cannot.
    """
    begun: dict[str, Any] | None = None
    with suppress(BrokenSealError):
        begun = read_json(folder.path / BEGUN)
    with suppress(BrokenRecordError):
        begun = begun or (folder.ended() or {}).get("begun")
    return begun


def trial_picture(
    identity: RunIdentity, spec: TrialSpec, base: MdganParams, stamp: dict[str, Any]
) -> RunPicture:
    """The run of a trial at its beginning.

    Args:
        identity: of the run.
        spec: of the trial.
        base: parameters that are not searched.
        stamp: content of begun.json.
    """
    params = dataclasses.asdict(trial_params(base, spec.params))
    return RunPicture(identity, name=spec.name, params=params, **stamped(stamp))


def curve(reports: Iterable[Report]) -> dict[int, Measured]:
    """Metrics by snippets seen, of reports that count."""
    steps = {}
    for report in reports:
        metrics = counted(report)
        if metrics.get("valid/collapsed"):
            # The penalty stands for no measurement, and would hide all others in a chart.
            metrics.pop("valid/objective", None)
        if metrics:
            steps[report["snippets_seen"]] = Measured(report.get("reported_at", 0.0), metrics)
    return steps


def run_status(status: str) -> Status:
    """How MLflow's run of a trial ends that ended with ``status``."""
    return "FINISHED" if status in ("completed", "stopped") else "FAILED"


def search_pictures(paths: RunPaths, base: MdganParams) -> Iterator[RunPicture]:
    """The runs of all trials and repeats of a search that is done."""
    n_counted: dict[str, int] = {}
    for row in read_table(paths.trial_reports, ["trial_id", "report"]).to_pylist():
        n_counted[row["trial_id"]] = max(row["report"], n_counted.get(row["trial_id"], 0))
    counted_names = set()
    for row in read_table(paths.trials).to_pylist():
        name = row["trial_id"]
        counted_names.add(name)
        identity = RunIdentity("trial", name)
        tags = {"is_best": str(row["is_best"])}
        yield from _ended(paths.search / name, identity, base, row, tags, n_counted.get(name, 0))
    # Of trials beyond the number wanted now, one may have been the best.
    for path in found(paths.search, "trial-*"):
        stamp = None if path.name in counted_names else read_begun(TrialFolder(path))
        if stamp is not None:
            identity = RunIdentity("trial", path.name)
            yield RunPicture(identity, stamp["study_run_id"], tags={"is_best": "False"})
    for row in read_table(paths.repeats).to_pylist() if paths.repeats.exists() else ():
        folder = paths.repeats_folder / f"{row['trial_id']}-seed{row['seed']}"
        identity = RunIdentity("repeat", row["trial_id"], seed=str(row["seed"]))
        yield from _ended(folder, identity, base, row, {}, None)


def _ended(
    path: Path,
    identity: RunIdentity,
    base: MdganParams,
    row: dict[str, Any],
    tags: dict[str, str],
    n_counted: int | None,
) -> Iterator[RunPicture]:
    """The run of a trial that ended, where one was begun; all reports count where that is None."""
    folder = TrialFolder(path)
    stamp = read_begun(folder)
    try:
        ended = folder.ended()
        if stamp is None or ended is None:
            return
        begun = trial_picture(identity, folder.spec(), base, stamp)
    except BrokenRecordError:
        return  # the tables have what counts
    reports = [r for r in ended["reports"] if n_counted is None or r["report"] <= n_counted]
    steps = curve(reports)
    yield dataclasses.replace(
        begun,
        curve=steps,
        last_step=max(steps, default=0),
        tags={**{name: row[name] for name in ("status", "reason", "node")}, **tags},
        status=run_status(row["status"]),
        ended_at=ended["ended_at"],
    )
