"""The search: Ray Tune runs trials, Optuna proposes them, the best one is kept."""

import dataclasses
import logging
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pyarrow as pa
import ray
from optuna.distributions import CategoricalDistribution
from ray import tune
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.search.optuna import OptunaSearch

from data_io.atomic import atomic_dir
from data_io.store import write_rows
from models.checkpoints import load_decoder, save_decoder_facts
from study.config import StudyConfig
from study.console import Console
from study.early_stopping import OrderedASHA, Rungs, rung_reports
from study.paths import RunPaths
from study.tracking import RunIdentity, Tracker
from study.trial import RANKED_BY, TrialData, run_trial, too_like, trial_name, trial_params

COUNTED_IN_RESULTS = ("train/", "valid/", "time/")


class NoTrialError(RuntimeError):
    """No trial ended with a decoder that can be used."""


class StudySearch(OptunaSearch):
    """OptunaSearch whose suggestions carry their number, and which tells failures as such."""

    def __init__(self, config: StudyConfig, study_name: str):
        space = {name: entry.distribution() for name, entry in config.search.space.items()}
        if not space:  # Ray takes an empty space for one that is still to come
            space = {"latent_dim": CategoricalDistribution((config.mdgan.latent_dim,))}
        n_startup = config.search.n_startup_trials
        sampler = optuna.samplers.TPESampler(
            seed=config.seed, n_startup_trials=n_startup, constant_liar=True
        )
        super().__init__(space, RANKED_BY, "min", sampler=sampler,
                         study_name=study_name)  # fmt: skip
        self._n_suggested = 0

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Parameters of the next trial, and its number."""
        params = super().suggest(trial_id)
        if params is None:
            return None
        number = self._n_suggested
        self._n_suggested += 1
        return {**params, "trial_number": number}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A trial whose training failed is a failure to Optuna, not a result."""
        if result and result.get("reason"):
            super().on_trial_complete(trial_id, None, error=True)
        else:
            super().on_trial_complete(trial_id, result, error)


@dataclass
class TrialState:
    """What the driver knows of a trial."""

    number: int
    config: dict[str, Any]
    run_id: str
    reports: dict[int, dict[str, Any]] = dataclasses.field(default_factory=dict)
    n_logged: int = 0
    error: str = ""
    ended_at: float | None = None
    checkpoint: Path | None = None


class TrialWatcher(Callback):
    """Shows progress and writes to MLflow, in the driver, what trials report."""

    def __init__(self, config: StudyConfig, tracker: Tracker, console: Console, rungs: Rungs):
        self.config = config
        self.tracker = tracker
        self.console = console
        self.rungs = rungs
        self.trials: dict[int, TrialState] = {}
        self._n_ended = 0

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Begin the trial's MLflow run, unless it was begun before."""
        number = trial.config["trial_number"]
        if number in self.trials:
            return
        name = trial_name(number)
        run_id = self.tracker.start_run(RunIdentity("trial", trial_id=name), name)
        params = trial_params(self.config.mdgan, trial.config)
        self.tracker.log_params(run_id, dataclasses.asdict(params))
        self.trials[number] = TrialState(number, dict(trial.config), run_id)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Keep a report; log what surely counts."""
        state = self.trials[trial.config["trial_number"]]
        state.reports[result["report"]] = dict(result)
        for known in self.trials.values():
            self.log_what_counts(known)
        n_reports = self.config.mdgan.n_reports
        done = sum(len(t.reports) for t in self.trials.values())
        self.console.progress(
            f"{self._n_ended} of {self.config.search.n_trials} trials done; "
            f"{trial_name(state.number)} report {result['report']}/{n_reports}, objective "
            f"{result[RANKED_BY]:.3f}; {done} reports so far"
        )

    def log_what_counts(self, state: TrialState) -> None:
        """Write to MLflow the reports that no early stop can take back."""
        last, _ = self.rungs.counts_up_to(state.number)
        rows = {}
        for report, result in sorted(state.reports.items()):
            if report > state.n_logged and (last is None or report <= last):
                row = counted(result)
                if row.get("valid/collapsed"):
                    # The penalty stands for no measurement, and would hide all others in a chart.
                    row.pop("valid/objective")
                rows[result["snippets_seen"]] = row
                state.n_logged = report
        if rows:
            self.tracker.log_metrics(state.run_id, rows)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Count the trial as done."""
        self._n_ended += 1
        self.trials[trial.config["trial_number"]].ended_at = time.time()

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Name the trial that could not be finished."""
        self._n_ended += 1
        state = self.trials.get(trial.config["trial_number"])
        if state is not None:
            state.error = f"the trial's process failed; see {trial.error_file}"
            self.console.line(f"      {trial_name(state.number)}: {state.error}")


def counted(result: dict[str, Any]) -> dict[str, float]:
    """The metrics of a report, without Tune's own entries.

    The objective comes first: MLflow's page compares runs by the first metric.
    """
    names = sorted(result, key=lambda name: (name != "valid/objective", name))
    return {k: float(result[k]) for k in names if k.startswith(COUNTED_IN_RESULTS)}


def run_search(
    config: StudyConfig, data: TrialData, paths: RunPaths, tracker: Tracker, console: Console
) -> list[dict[str, Any]]:
    """Run all trials; write trials.parquet, trial_reports.parquet and best/.

    Returns:
        One row per trial, by number.
    """
    search, mdgan = config.search, config.mdgan
    rungs = Rungs(
        rung_reports(search.grace_reports, search.reduction_factor, mdgan.n_reports),
        search.reduction_factor,
    )
    watcher = TrialWatcher(config, tracker, console, rungs)
    shutil.rmtree(paths.tune, ignore_errors=True)  # of a search that was cut off or is outdated
    results = _tuner(config, data, paths, rungs, watcher).fit()
    for result in results:
        if result.config and result.config["trial_number"] in watcher.trials:
            state = watcher.trials[result.config["trial_number"]]
            state.checkpoint = Path(result.checkpoint.path) if result.checkpoint else None
    states = [watcher.trials[number] for number in sorted(watcher.trials)]
    rows = [_row(state, config, rungs) for state in states]
    best = _choose_best(rows)
    for state, row in zip(states, rows, strict=True):
        row["is_best"] = row is best
        watcher.log_what_counts(state)
        tags = {"status": row["status"], "reason": row["reason"], "is_best": str(row["is_best"])}
        is_sound = row["status"] in ("completed", "stopped")
        tracker.end_run(state.run_id, is_sound, tags, state.ended_at)
    _write(rows, states, paths, rungs)
    if best is None:
        raise NoTrialError(
            f"None of {len(rows)} trials gave a decoder that can be used: "
            + "; ".join(f"{row['trial_id']} {row['status']}" for row in rows[:5])
            + ". Lower mdgan.lr, or raise mdgan.n_snippets."
        )
    _keep_best(states[best["number"]], best, paths)
    return rows


def _tuner(
    config: StudyConfig, data: TrialData, paths: RunPaths, rungs: Rungs, watcher: TrialWatcher
) -> tune.Tuner:
    resources = config.resources
    trainable = tune.with_parameters(
        run_trial,
        data=data,
        base=config.mdgan,
        seed=config.seed,
        n_threads=resources.cpus_per_trial,
        use_gpu=resources.gpus_per_trial > 0,
        objective=config.search.objective,
    )
    trainable = tune.with_resources(
        trainable, {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}
    )
    # Tune's own loggers would write each report three more times.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    # Progress is ours to show, and Tune would print at each end of a search.
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            num_samples=config.search.n_trials,
            max_concurrent_trials=resources.max_concurrent_trials,
            search_alg=StudySearch(config, study_name=f"{config.name}-{config.sha256[:12]}"),
            scheduler=OrderedASHA(RANKED_BY, rungs, config.mdgan.n_reports),
            reuse_actors=True,
            trial_name_creator=_tune_trial_name,
            trial_dirname_creator=_tune_trial_name,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=str(paths.tune),
            callbacks=[watcher],
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            failure_config=tune.FailureConfig(max_failures=config.search.max_retries),
        ),
    )


def _tune_trial_name(trial: Trial) -> str:
    return trial_name(trial.config["trial_number"])


def _row(state: TrialState, config: StudyConfig, rungs: Rungs) -> dict[str, Any]:
    """The trial's row: metrics of its last report that counts."""
    last, is_stopped = rungs.counts_up_to(state.number)
    count = [r for r in sorted(state.reports) if last is None or r <= last]
    result = state.reports[count[-1]] if count else {}
    if state.error:
        status, reason = "failed", state.error
    elif result.get("reason"):
        status, reason = result["ended"], result["reason"]
    elif result.get("valid/collapsed"):
        status = "collapsed"
        reason = too_like(result)
    elif is_stopped:
        status, reason = "stopped", f"stopped early at report {last}"
    elif not count or count[-1] < config.mdgan.n_reports:
        status, reason = "failed", f"ended after report {count[-1] if count else 0}"
    else:
        status, reason = "completed", ""
    searched = {name: state.config[name] for name in config.search.space}
    return {
        "trial_id": trial_name(state.number),
        "number": state.number,
        "status": status,
        "reason": reason,
        "is_best": False,
        **{name: searched.get(name, getattr(config.mdgan, name)) for name in _shown(config)},
        "seed": config.seed,
        "reports": count[-1] if count else 0,
        "snippets_seen": result.get("snippets_seen", 0),
        "objective": result.get(RANKED_BY),
        **counted(result),
        "mlflow_run_id": state.run_id,
    }


def _shown(config: StudyConfig) -> list[str]:
    """Parameters that stand in the table whether searched or not, then all others searched."""
    always = ["latent_dim", "lambda_recon", "lambda_prior", "lambda_latent", "lr"]
    return always + [name for name in config.search.space if name not in always]


def _choose_best(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The completed trial with the lowest objective; the lower number where two are equal.

    Trials that were stopped early, collapsed or failed are never best.
    """
    completed = [row for row in rows if row["status"] == "completed"]
    return min(completed, key=lambda row: (row["objective"], row["number"]), default=None)


def _keep_best(state: TrialState, row: dict[str, Any], paths: RunPaths) -> None:
    if state.checkpoint is None:
        raise NoTrialError(f"{row['trial_id']} left no checkpoint: run the same command again.")
    with atomic_dir(paths.best) as temporary:
        for name in ("encoder.safetensors", "generator.safetensors", "model.json"):
            shutil.copyfile(state.checkpoint / name, temporary / name)
        metrics = {k: v for k, v in row.items() if k.startswith("valid/")}
        save_decoder_facts(temporary, {"trial_id": row["trial_id"], "metrics": metrics,
                                       "seed": row["seed"]})  # fmt: skip
        load_decoder(temporary)  # what is kept can be opened


def _write(
    rows: list[dict[str, Any]], states: list[TrialState], paths: RunPaths, rungs: Rungs
) -> None:
    reports = []
    for state in states:
        last, _ = rungs.counts_up_to(state.number)
        for report, result in sorted(state.reports.items()):
            if last is None or report <= last:
                position = {"trial_id": trial_name(state.number), "report": report}
                seen = {"snippets_seen": result["snippets_seen"]}
                reports.append({**position, **seen, **counted(result)})
    write_rows(paths.trials, rows, _schema(rows))
    write_rows(paths.trial_reports, reports, _schema(reports))


def _schema(rows: list[dict[str, Any]]) -> pa.Schema:
    """Columns of all rows, since a failed trial has fewer."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    return pa.table(columns).schema


def n_parallel(config: StudyConfig) -> int:
    """Trials that the connected cluster runs at once."""
    have = ray.cluster_resources()
    fits = int(have.get("CPU", 1) // config.resources.cpus_per_trial)
    if config.resources.gpus_per_trial:
        fits = min(fits, int(have.get("GPU", 0) / config.resources.gpus_per_trial))
    return max(1, min(fits, config.resources.max_concurrent_trials or fits))
