"""What MLflow is told of the decoders and HMMs of birds and ages: one run each."""

import math
from typing import Any

from models.hmm import HmmFit
from models.hmm.records import best_fits
from study.config import DecoderScope
from study.decoder_training import Trained
from study.hmm_tables import fit_of
from study.tracking import RunIdentity, Tracker


def track_decoder(tracker: Tracker, scope: DecoderScope, trained: Trained) -> None:
    """One MLflow run per decoder; step is the number of snippets seen, as for trials."""
    row = trained.row
    bird, age = row["bird"], row["age"]
    identity = RunIdentity("decoder", tracker.lineage["best_trial_id"], bird, age)
    run_id = tracker.start_run(identity, f"decoder-{bird}-{age}".rstrip("-"))
    keys = ("started_from", "n_recordings", "n_snippets")
    tracker.log_params(run_id, {"scope": scope, **{key: row[key] for key in keys}})
    tracker.log_metrics(run_id, trained.reports)
    tags = {name: row[name] for name in ("status", "reason")}
    tracker.end_run(run_id, trained.is_sound, tags)


def track_hmms(
    tracker: Tracker, grid: list[dict[str, Any]], selected: list[dict[str, Any]]
) -> None:
    """One MLflow run per bird and age; step is the number of states, so the UI draws the curve."""
    fits: dict[tuple[str, str], list[HmmFit]] = {}
    for row in grid:
        fits.setdefault((row["bird"], row["age"]), []).append(fit_of(row))
    for row in selected:
        bird, age = row["bird"], row["age"]
        run_id = hmm_run(tracker, bird, age)
        keys = ("n_states", "covariance_type", "n_observations", "n_recordings", "dph")
        tracker.log_params(run_id, {k: row.get(k) for k in keys if row.get(k) is not None})
        names = ("bic", "aic", "icl", "bic_effective", "held_out_log_likelihood", "log_likelihood")
        curve: dict[int, dict[str, float]] = {}
        for n_states, fit in sorted(best_fits(fits.get((bird, age), [])).items()):
            values = {name: getattr(fit, name) for name in names}
            curve[n_states] = {f"hmm/{k}": v for k, v in values.items() if math.isfinite(v)}
        if row.get("n_states") is not None:
            curve.setdefault(0, {})["hmm/selected_n_states"] = row["n_states"]
        tracker.log_metrics(run_id, curve)
        tags = {
            name: row.get(name, "") for name in ("status", "reason", "reached_by", "fit_status")
        }
        tags["edge"] = row["edge_side"]
        tracker.end_run(run_id, row["status"] != "failed", tags)


def hmm_run(tracker: Tracker, bird: str, age: str) -> str:
    """The MLflow run of a bird and age, begun where it is not there yet."""
    identity = RunIdentity("hmm", tracker.lineage["best_trial_id"], bird, age)
    return tracker.start_run(identity, f"hmm-{bird}-{age}")
