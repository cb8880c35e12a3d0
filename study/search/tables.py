"""The results of a search: tables of trials, reports and repeats, and the best trial's decoder."""

import shutil
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from data_io.files import atomic_dir
from data_io.store import write_rows
from models.mdgan.checkpoints import load_decoder, save_decoder_facts
from study.base.hashes import unreadable
from study.base.paths import RunPaths
from study.config.tree import StudyConfig
from study.search.selection import Selection
from study.search.state import SearchState, TrialState, counted
from study.search.trial import RANKED_BY
from study.search.trial_folder import TrialFolder, TrialSpec, broken_record, unreadable_record
from study.tracking.tracker import RunIdentity, Tracker

Row = dict[str, Any]
Identity = Callable[[TrialSpec], RunIdentity]


def trial_rows(
    config: StudyConfig, trials: SearchState, tracker: Tracker, identity: Identity
) -> list[Row]:
    """One row per trial, by number, with the metrics of its last report that counts."""
    return [
        _row(config, trials, trials.trials[number], tracker, identity)
        for number in sorted(trials.trials)
    ]


def repeat_rows(
    config: StudyConfig,
    chosen_from: list[Row],
    repeats: SearchState,
    tracker: Tracker,
    identity: Identity,
) -> list[Row]:
    """One row per candidate and seed, the search's own seed first."""
    rows = []
    for candidate in chosen_from:
        rows.append(dict(candidate))
        for number in sorted(repeats.trials):
            state = repeats.trials[number]
            if state.spec.name.startswith(f"{candidate['trial_id']}-seed"):
                row = _row(config, repeats, state, tracker, identity)
                same = {name: candidate[name] for name in ("trial_id", "number")}
                rows.append({**row, **same})
    return rows


def _row(
    config: StudyConfig,
    trials: SearchState,
    state: TrialState,
    tracker: Tracker,
    identity: Identity,
) -> Row:
    outcome = trials.outcome(state.spec.number)
    last = outcome.last
    params = state.spec.params
    # Its run is of the study run that it began under; this one may have an older one of it.
    begun = (state.ended or {}).get("begun") or {}
    run_id = tracker.run_id(identity(state.spec), begun.get("study_run_id", ""))
    if run_id is None and state.ended is not None:
        run_id = state.ended["mlflow_run_id"]
    return {
        "trial_id": state.spec.name,
        "number": state.spec.number,
        "status": outcome.status,
        "reason": outcome.reason,
        "is_best": False,
        **{name: params.get(name, getattr(config.mdgan, name)) for name in _shown(config)},
        "seed": state.spec.seed,
        "reports": 0 if last.get("reason") else last.get("report", 0),
        "snippets_seen": last.get("snippets_seen", 0),
        "seconds": max((r.get("time/seconds", 0.0) for r in state.reports.values()), default=None),
        "node": state.node,
        "n_retries": state.n_retries,
        "objective": last.get(RANKED_BY),
        **counted(last),
        "mlflow_run_id": run_id,
    }


def _shown(config: StudyConfig) -> list[str]:
    """Parameters that stand in the table whether searched or not, then all others searched."""
    always = ["latent_dim", "lambda_recon", "lambda_prior", "lambda_latent", "lr"]
    return always + [name for name in config.search.space if name not in always]


def write_tables(paths: RunPaths, rows: list[Row], repeats: list[Row], trials: SearchState) -> None:
    """Write trials.parquet, trial_reports.parquet, trial_by_bird_age.parquet, repeats.parquet."""
    reports, by_bird_age = [], []
    for number in sorted(trials.trials):
        name = trials.trials[number].spec.name
        for report in trials.outcome(number).reports:
            seen = {"report": report["report"], "snippets_seen": report["snippets_seen"]}
            reports.append({"trial_id": name, **seen, **counted(report)})
        measured = TrialFolder(paths.search / name).by_bird_age()
        by_bird_age += [{"trial_id": name, **row} for row in measured]
    tables = {
        paths.trials: rows, paths.trial_reports: reports, paths.trial_by_bird_age: by_bird_age,
        paths.repeats: repeats,
    }  # fmt: skip
    for path, content in tables.items():
        if content:
            write_rows(path, content, _schema(content))
        else:  # there may be one of an earlier search
            path.unlink(missing_ok=True)


def _schema(rows: list[Row]) -> pa.Schema:
    """Columns of all rows, since a failed trial has fewer."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    return pa.table(columns).schema


def keep_best(row: Row, selection: Selection, paths: RunPaths) -> None:
    """Copy the decoder of the best trial to best/, with what it was measured at.

    Raises:
        BrokenRecordError: the trial's decoder is missing, or is not what was written.
        UnreadableRecordError: it cannot be read for now.
    """
    kept = TrialFolder(paths.search / row["trial_id"]).decoder
    try:
        load_decoder(kept)
    except (FileNotFoundError, ValueError) as error:
        why = str(error).rstrip(".")  # another sentence follows
        fault = f"The decoder of {row['trial_id']} cannot be opened ({why})"
        raise broken_record(fault, kept.parent) from error
    except OSError as error:
        raise unreadable_record(f"{error.filename or kept} {unreadable(error)}") from error
    with atomic_dir(paths.best) as temporary:
        for name in ("encoder.safetensors", "generator.safetensors", "model.json"):
            shutil.copyfile(kept / name, temporary / name)
        metrics = {k: v for k, v in row.items() if k.startswith("valid/")}
        facts = {"trial_id": row["trial_id"], "metrics": metrics, "seed": row["seed"]}
        save_decoder_facts(temporary, {**facts, "chosen_because": selection.sentence})
        load_decoder(temporary)  # what is kept can be opened
