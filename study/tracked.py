"""What is written down of a whole study, in MLflow and in study.json."""

import dataclasses
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from data_io.files import digest, read_json, write_json
from data_io.store import read_table
from models.hmm import HmmFit
from models.hmm.choice import best_fits
from models.mdgan.params import MdganParams
from study.base.ledger import StageResult
from study.base.paths import RunPaths, without_password
from study.base.provenance import versions
from study.config.tree import DecoderScope, StudyConfig
from study.context import Study
from study.decoders.one_decoder import Trained
from study.hmms.tables import fit_of
from study.tracking.tracker import RunIdentity, Tracker


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


def write_study_json(study: Study) -> None:
    """Write study.json: configuration, data, code and what each stage found."""
    config, tracker = study.config, study.tracker
    done = study.ledger.done
    content = {
        "name": config.name,
        "seed": config.seed,
        "config": config.to_dict(),
        "config_hash": config.sha256,
        "data_dir": str(study.data_dir.resolve()),
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
    write_json(study.paths.study, content)


DECODER_PARAMS = ("scope", "started_from", "n_recordings", "n_snippets")
HMM_PARAMS = ("n_states", "covariance_type", "n_observations", "n_recordings", "dph")
# A parameter of an MLflow run cannot change, and these may while the study stays the same one.
_MAY_CHANGE = ("search.n_trials", "search.max_retries", "resources.")


def study_params(config: StudyConfig) -> dict[str, Any]:
    """The configuration as parameters of the study's run, flat, without what may change."""
    params = flat(config.to_dict())
    return {name: value for name, value in params.items() if not name.startswith(_MAY_CHANGE)}


def allowed_params(config: StudyConfig) -> set[str]:
    """Every parameter that MLflow may be told; anything else is refused by the tracker."""
    trial = {field.name for field in dataclasses.fields(MdganParams)}
    return {*study_params(config), *trial, *DECODER_PARAMS, *HMM_PARAMS}


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree of dictionaries as one, with dots in its keys."""
    result: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result


def track_decoder(tracker: Tracker, scope: DecoderScope, trained: Trained) -> None:
    """One MLflow run per decoder; step is the number of snippets seen, as for trials."""
    row = trained.row
    bird, age = row["bird"], row["age"]
    identity = RunIdentity("decoder", tracker.lineage["best_trial_id"], bird, age)
    tracker.start_run(identity, f"decoder-{bird}-{age}".rstrip("-"))
    known = {"scope": scope, **row}
    tracker.log_params(identity, {key: known[key] for key in DECODER_PARAMS})
    tracker.log_metrics(identity, trained.reports)
    tags = {name: row[name] for name in ("status", "reason")}
    tracker.end_run(identity, trained.is_sound, tags)


def track_hmms(
    tracker: Tracker, grid: list[dict[str, Any]], selected: list[dict[str, Any]]
) -> None:
    """One MLflow run per bird and age; step is the number of states, so the UI draws the curve."""
    fits: dict[tuple[str, str], list[HmmFit]] = {}
    for row in grid:
        fits.setdefault((row["bird"], row["age"]), []).append(fit_of(row))
    for row in selected:
        bird, age = row["bird"], row["age"]
        identity = hmm_run(tracker, bird, age)
        params = {k: row.get(k) for k in HMM_PARAMS if row.get(k) is not None}
        tracker.log_params(identity, params)
        names = ("bic", "aic", "icl", "bic_effective", "held_out_log_likelihood", "log_likelihood")
        curve: dict[int, dict[str, float]] = {}
        for n_states, fit in sorted(best_fits(fits.get((bird, age), [])).items()):
            values = {name: getattr(fit, name) for name in names}
            curve[n_states] = {f"hmm/{k}": v for k, v in values.items() if math.isfinite(v)}
        if row.get("n_states") is not None:
            curve.setdefault(0, {})["hmm/selected_n_states"] = row["n_states"]
        tracker.log_metrics(identity, curve)
        tags = {
            name: row.get(name, "") for name in ("status", "reason", "reached_by", "fit_status")
        }
        tags["edge"] = row["edge_side"]
        tracker.end_run(identity, row["status"] != "failed", tags)


def hmm_run(tracker: Tracker, bird: str, age: str) -> RunIdentity:
    """The MLflow run of a bird and age, begun where it is not there yet."""
    identity = RunIdentity("hmm", tracker.lineage["best_trial_id"], bird, age)
    tracker.start_run(identity, f"hmm-{bird}-{age}")
    return identity


def _track_trials(study: Study, result: StageResult) -> None:
    selection = result.to_track
    tags = {
        "sha256": result.digest, "trial_id": selection.chosen, "selection": selection.sentence,
    }  # fmt: skip
    name = f"{study.config.name}-decoder"
    study.tracker.register_model(RunIdentity("study"), study.paths.best, name, tags)


def _track_figures(study: Study, result: StageResult) -> None:
    for trial_id in result.to_track:
        identity = RunIdentity("trial", trial_id=trial_id)
        # Not where the trials are runs of another study, or of another MLflow.
        if study.tracker.knows(identity):
            study.tracker.log_artifact(identity, study.paths.trial_figure(trial_id))


def _track_decoders(study: Study, result: StageResult) -> None:
    for one in result.to_track:
        track_decoder(study.tracker, study.config.decoders.scope, one)


def _track_hmms(study: Study, result: StageResult) -> None:
    track_hmms(study.tracker, read_table(study.paths.hmm_grid).to_pylist(), result.to_track)


def _track_songs(study: Study, result: StageResult) -> None:
    for row in read_table(study.paths.hmm_selected).to_pylist():
        folder = study.paths.songs / row["bird"] / row["age"]
        if not folder.exists():
            continue  # it has no decoder
        identity = hmm_run(study.tracker, row["bird"], row["age"])
        study.tracker.log_artifacts(identity, folder, "songs")
        study.tracker.end_run(identity, row["status"] != "failed")


def _track_report(study: Study, result: StageResult) -> None:
    study.tracker.log_artifact(RunIdentity("study"), study.paths.report)


TRACK = {
    "trials": _track_trials,
    "trial figures": _track_figures,
    "decoders": _track_decoders,
    "hmm": _track_hmms,
    "songs": _track_songs,
    "report": _track_report,
}
