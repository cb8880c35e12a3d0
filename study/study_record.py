"""What is written down of a whole study: its run in MLflow, and study.json."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_io.atomic import write_json
from study.config import StudyConfig, digest
from study.json_files import read_json
from study.paths import RunPaths
from study.provenance import versions
from study.stages import Ledger
from study.tracked_runs import study_params
from study.tracking import RunIdentity, Tracker
from study.tracking_errors import without_password


@contextmanager
def study_run(
    config: StudyConfig, paths: RunPaths, tracker: Tracker, data_hash: str
) -> Iterator[None]:
    """The study's MLflow run around the stages.

    It is the one of last time where data and configuration are the same, but for what may change:
    more trials, or other resources.
    """
    path = paths.stages / "mlflow.json"
    params = study_params(config)
    identity = {
        "tracking_uri": without_password(tracker.uri),
        "study_hash": digest(params),
        "data_hash": data_hash,
    }
    known = read_json(path) or {}
    is_same = all(known.get(name) == value for name, value in identity.items())
    run_name = f"{config.name}-seed{config.seed}-{identity['study_hash'][:7]}"
    run_id = tracker.start_study(known.get("study_run_id") if is_same else None, run_name, params)
    write_json(path, {**identity, "experiment_id": tracker.experiment_id, "study_run_id": run_id})
    study = RunIdentity("study")
    tracker.set_tags(study, {"n_trials": str(config.search.n_trials)})
    try:
        yield
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"[:500]
        if isinstance(error, KeyboardInterrupt):
            reason = "interrupted"
        tracker.end_run(study, False, {"reason": reason})
        raise
    tracker.end_run(study, True, {"reason": ""})


def write_study_json(
    config: StudyConfig, paths: RunPaths, data_dir: Path, tracker: Tracker, ledger: Ledger
) -> None:
    """Write study.json: configuration, data, code and what each stage found."""
    done = ledger.done
    content = {
        "name": config.name,
        "seed": config.seed,
        "config": config.to_dict(),
        "config_hash": config.sha256,
        "data_dir": str(data_dir.resolve()),
        "data_hash": done["recordings"].digest if "recordings" in done else None,
        "git_commit": tracker.lineage["git_commit"],
        "code_hash": tracker.lineage["code_hash"],
        "versions": versions(),
        "command": [without_password(word) for word in sys.argv],
        "mlflow": {
            "tracking_uri": without_password(tracker.uri),
            "experiment_id": tracker.experiment_id,
            "study_run_id": tracker.study_run_id or None,
        },
        "stages": {
            name: {"seconds": record.seconds, "skipped_this_time": record.was_skipped,
                   **record.facts}
            for name, record in done.items()
        },
    }  # fmt: skip
    write_json(paths.study, content)
