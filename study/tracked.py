"""The record of a whole study: its run in MLflow, the pictures of its stages, study.json."""

import dataclasses
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_io.files import digest, read_json, write_json
from data_io.recordings.table import REPORT, SELECTION, BirdAge
from data_io.store import read_table
from models.hmm import HmmFit
from models.hmm.choice import best_fits
from models.mdgan.params import MdganParams
from study.base import stopping
from study.base.ledger import StageRecord, StageResult
from study.base.paths import RunPaths, without_password
from study.base.provenance import versions
from study.config.tree import StudyConfig
from study.context import Stage, Study
from study.hmms.tables import fit_of
from study.search.pictures import read_begun, search_pictures
from study.search.trial_folder import TrialFolder
from study.tracking.model_registry import model_of
from study.tracking.picture import STUDY, Measured, stamped
from study.tracking.tracker import RunIdentity, RunPicture, Tracker

Stamp = dict[str, Any]  # of `study.tracking.tracker.Tracker.stamp`


@contextmanager
def study_run(config: StudyConfig, tracker: Tracker, data_hash: str) -> Iterator[None]:
    """The study's MLflow run around the stages.

    It is the one of last time where data and configuration are the same, but for what may change:
    more trials, or other resources.
    """
    params = study_params(config)
    same = {"study_hash": digest(params), "data_hash": data_hash}
    run_name = f"{config.name}-seed{config.seed}-{same['study_hash'][:7]}"
    try:
        # MLflow says that it runs: from then on MLflow is told how it ends.
        with stopping.held():
            run_id = tracker.start_study(same, run_name, params)
        tags = {"n_trials": config.search.n_trials, "data_dir": config.data.dir or ""}
        tracker.show(RunPicture(STUDY, run_id, tags=tags))
        yield
    except BaseException as error:
        if tracker.study_run_id:  # else MLflow refused it
            if stop := stopping.cause(error):
                tracker.end_study("KILLED", stop.reason)
            else:
                tracker.end_study("FAILED", f"{type(error).__name__}: {error}"[:500])
        raise
    tracker.end_study("FINISHED")


def write_study_json(study: Study, wanted: list[str]) -> None:
    """Write study.json: configuration, data, code and what each stage found.

    Args:
        study: that ends here, finished or not.
        wanted: names of all its stages. Each is written with the key of its record, and None where
            this start did not reach it: what is found of it then is of an earlier start.
    """
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
        "wanted": {name: done[name].key if name in done else None for name in wanted},
        "stages": {
            name: {"seconds": record.seconds, "skipped_this_time": record.was_skipped,
                   **record.facts}
            for name, record in done.items()
        },
    }  # fmt: skip
    write_json(study.paths.study, content)


DECODER_PARAMS = ("scope", "started_from", "n_recordings", "n_snippets")
HMM_PARAMS = (
    "n_states", "covariance_type", "n_snippets", "n_observations", "n_recordings", "dph", "memory",
    "n_contexts", "n_sounding", "n_silent", "song_model",
)  # fmt: skip
HMM_METRICS = (
    "bic", "aic", "icl", "bic_effective", "held_out_log_likelihood", "log_likelihood",
)  # fmt: skip
# Columns of hmm_ages.parquet that are metrics of the HMM's run, as ages/<column>.
AGE_METRICS = (
    "matched_n_snippets", "matched_n_states", "predictive_information_bits",
    "predictive_information_bits_low", "predictive_information_bits_high", "states_in_use",
    "sounding_states_in_use",
)  # fmt: skip
# A parameter of an MLflow run cannot change, and these may while the study stays the same one.
# The recordings are the same wherever they lie: their hash says so.
_MAY_CHANGE = ("search.n_trials", "search.max_retries", "resources.", "data.dir")


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


def with_begin(stage: Stage) -> Stage:
    """The stage, which writes down by which code and study run it began, and is shown to MLflow."""
    if stage.name not in _PICTURES:
        return stage

    def run(study: Study) -> StageResult:
        begun = study.tracker.stamp()
        result = stage.run(study)
        return dataclasses.replace(result, facts={**result.facts, "begun": begun})

    def then(study: Study) -> None:
        stage.then(study)
        study.tracker.show(*stage_pictures(stage.name, study.ledger.done[stage.name], study))

    return dataclasses.replace(stage, run=run, then=then)


def stage_pictures(name: str, record: StageRecord, study: Study) -> Iterator[RunPicture]:
    """Pictures of a finished stage, made from its files in the run folder."""
    begun = record.facts.get("begun")
    if begun is not None:
        yield from _PICTURES[name](study, begun)


def _trials(study: Study, begun: Stamp) -> Iterator[RunPicture]:
    config, paths = study.config, study.paths
    yield from search_pictures(paths, config.mdgan)
    selection = read_json(paths.selection) or {}
    tags = {
        "sha256": study.ledger.done["trials"].digest,
        "trial_id": selection["chosen"],
        "selection": selection["sentence"],
    }
    model = model_of(paths.best, f"{config.name}-decoder", tags)
    # A step is sent once, and a study that goes on with more trials may choose another decoder.
    curve = {config.search.n_trials: final_figures(paths)}
    yield RunPicture(STUDY, begun["study_run_id"], model=model, curve=curve)
    # A study of other song models has this decoder, too: its page says how good that is.
    yield RunPicture(STUDY, study.tracker.study_run_id, curve=curve)


def final_figures(paths: RunPaths) -> Measured:
    """The best decoder's figures: final/ of the report side, selection/ of those that chose it."""
    prefixes = {REPORT: "final", SELECTION: "selection"}
    figures = {
        f"{prefixes[side]}/{name.removeprefix('valid/')}": value
        for side, found in (read_json(paths.best_held_out) or {}).items()
        for name, value in found["metrics"].items()
    }
    return Measured(paths.best_held_out.stat().st_mtime, figures)


def _trial_figures(study: Study, begun: Stamp) -> Iterator[RunPicture]:
    for row in read_table(study.paths.trials, ["trial_id"]).to_pylist():
        name = row["trial_id"]
        figure = study.paths.trial_figure(name)
        trial_begun = read_begun(TrialFolder(study.paths.search / name))
        if figure.exists() and trial_begun is not None:
            yield RunPicture(
                RunIdentity("trial", name), name=name, files={figure: ""}, **stamped(trial_begun)
            )


def _decoders(study: Study, begun: Stamp) -> Iterator[RunPicture]:
    """One run per decoder; step is the number of snippets seen, as for trials."""
    paths = study.paths
    curves: dict[BirdAge, dict[int, Measured]] = {}
    for row in read_table(paths.decoder_reports).to_pylist():
        bird, age, step, at = (
            row.pop(name) for name in ("bird", "age", "snippets_seen", "reported_at")
        )
        metrics = {name: value for name, value in row.items() if value is not None}
        curves.setdefault((bird, age), {})[step] = Measured(at, metrics)
    for row in read_table(paths.decoder_table).to_pylist():
        bird, age = row["bird"], row["age"]
        known = {"scope": study.config.decoders.scope, **row}
        yield RunPicture(
            RunIdentity("decoder", begun["best_trial_id"], bird, age),
            name=f"decoder-{bird}-{age}".rstrip("-"),
            params={name: known[name] for name in DECODER_PARAMS},
            curve=curves.get((bird, age), {}),
            tags={name: row[name] for name in ("status", "reason")},
            status="FINISHED" if row["status"] == "ok" else "FAILED",
            ended_at=paths.decoder_table.stat().st_mtime,
            **stamped(begun),
        )


def _hmms(study: Study, begun: Stamp) -> Iterator[RunPicture]:
    """One run per bird and age; step is the number of states, so that MLflow draws the curve.

    Stages after it show the whole run as well: where it was skipped, theirs is another study run.
    """
    grid = study.paths.hmm_grid
    written = grid.stat().st_mtime
    fits: dict[BirdAge, list[HmmFit]] = {}
    for row in read_table(grid).to_pylist():
        fits.setdefault((row["bird"], row["age"]), []).append(fit_of(row))
    ages = {(row["bird"], row["age"]): row for row in read_table(study.paths.hmm_ages).to_pylist()}
    for row in read_table(study.paths.hmm_selected).to_pylist():
        curve: dict[int, dict[str, float]] = {}
        of_kind = [fit for fit in fits.get((row["bird"], row["age"]), [])
                   if fit.covariance_type == row["covariance_type"]]  # fmt: skip
        for n_states, fit in best_fits(of_kind).items():
            values = {name: getattr(fit, name) for name in HMM_METRICS}
            curve[n_states] = {f"hmm/{k}": v for k, v in values.items() if math.isfinite(v)}
        if row["n_states"] is not None:
            curve.setdefault(0, {})["hmm/selected_n_states"] = row["n_states"]
            age = ages[row["bird"], row["age"]]
            curve[0] |= {f"ages/{name}": age[name] for name in AGE_METRICS
                         if age[name] is not None}  # fmt: skip
        tags = {name: row[name] or "" for name in ("status", "reason", "reached_by", "fit_status")}
        yield dataclasses.replace(
            _hmm_run(row, begun),
            params={name: row[name] for name in HMM_PARAMS if row[name] is not None},
            curve={step: Measured(written, metrics) for step, metrics in curve.items()},
            tags={**tags, "edge": row["edge_side"]},
            ended_at=written,
        )


def _hmm_run(row: dict[str, Any], begun: Stamp) -> RunPicture:
    """The run of a row of hmm_selected.parquet."""
    bird, age = row["bird"], row["age"]
    return RunPicture(
        RunIdentity("hmm", begun["best_trial_id"], bird, age),
        name=f"hmm-{bird}-{age}",
        status="FAILED" if row["status"] == "failed" else "FINISHED",
        **stamped(begun),
    )


# Behind every number of states: a step is sent once, and those of the fits went before.
CHECK_STEP = 1_000_000
# Columns of hmm_checks.parquet that are metrics of the HMM's run, as checks/<check>/<column>.
CHECK_METRICS = ("real", "replicas", "distance", "outside_above", "halves", "decoder")


def _checks(study: Study, begun: Stamp) -> Iterator[RunPicture]:
    """What the checks found, with the run of the HMM; verdicts are tags."""
    written = study.paths.hmm_checks.stat().st_mtime
    of: dict[BirdAge, list[dict[str, Any]]] = {}
    for row in read_table(study.paths.hmm_checks).to_pylist():
        of.setdefault((row["bird"], row["age"]), []).append(row)
    for run in _hmms(study, begun):
        checks = of.get((run.identity.bird, run.identity.age), [])
        metrics = {
            f"checks/{check['check']}/{name}": check[name]
            for check in checks for name in CHECK_METRICS if check[name] is not None
        }  # fmt: skip
        curve = {**run.curve, CHECK_STEP: Measured(written, metrics)} if metrics else run.curve
        tags = {f"checks.{check['check']}": check["verdict"] for check in checks}
        yield dataclasses.replace(run, curve=curve, tags={**run.tags, **tags})


def _songs(study: Study, begun: Stamp) -> Iterator[RunPicture]:
    """Songs, with the run of the HMM that sang them."""
    for run in _checks(study, begun):
        folder = study.paths.songs / run.identity.bird / run.identity.age
        files = {
            path: (Path("songs") / path.parent.relative_to(folder)).as_posix()
            for path in sorted(folder.rglob("*")) if path.is_file()
        }  # fmt: skip
        if files:  # else it has no decoder
            yield dataclasses.replace(run, files=files)


def _report(study: Study, begun: Stamp) -> Iterator[RunPicture]:
    yield RunPicture(STUDY, begun["study_run_id"], files={study.paths.report: ""})


_PICTURES: dict[str, Callable[[Study, Stamp], Iterator[RunPicture]]] = {
    "trials": _trials,
    "trial figures": _trial_figures,
    "decoders": _decoders,
    "hmm": _hmms,
    "checks": _checks,
    "songs": _songs,
    "report": _report,
}
