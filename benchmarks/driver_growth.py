"""What the driver of a study takes, and how it grows with trials, birds and ages, recordings.

    python -m benchmarks.driver_growth
    python -m benchmarks.driver_growth trials --trials 10 100 1000
    python -m benchmarks.driver_growth trials --trials 10 100 --sampler gp

Nothing is trained: made-up trials report made-up metrics, eight at once, to the code that the
driver of a study runs. Each number is CPU time of this process per unit, and the last column is the
largest study over the smallest: 1 where the time for one does not grow with the number of all.
Optuna's own sampler is shown apart: its TPE fits a density to all trials at each ask, and its
Gaussian process (gp), which studies have by default, a matrix of all pairs of trials. MLflow is
left out (see tracking_outage.py, mlflow_writers.py), and so is the stage of the HMMs: its tasks and
its journal are measured in hmm_fan_out.py and many_nodes.py.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is loaded

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent

import numpy as np
import optuna

from data_io.names.listing import survey
from data_io.recordings.split import assign_split
from data_io.recordings.table import (
    REPORT,
    SELECTION,
    Recording,
    Recordings,
    data_hash,
    skip_duplicates,
)
from data_io.store import read_recordings, write_recordings, write_rows
from models.checks.compare import LIKE, Check
from models.checks.songs import sound_statistics
from models.hmm import HmmFit
from study.base.console import Console
from study.base.paths import RunPaths
from study.checks import CHECKED, KINDS, QUANTILES, SHARES
from study.config.reader import load_config
from study.config.tree import StudyConfig
from study.hmms.ages import AGES, age_row
from study.hmms.rows import row_of
from study.hmms.tables import GRID, SELECTED, Selected
from study.ingest import count_recordings
from study.report.page import write_report
from study.search import proposals
from study.search.proposals import StudySearch
from study.search.report_side import write_figures
from study.search.search import load_trials, new_state, trial_identity
from study.search.selection import candidates
from study.search.tables import trial_rows, write_tables
from study.search.trial import RANKED_BY
from study.search.tune_adapters import OrderedASHA
from study.search.watcher import TrialWatcher
from tests.helpers.no_mlflow import NoMlflow

N_REPORTS, AT_ONCE = 10, 8
HEARD = [statistic.name for statistic, _ in sound_statistics(4.0)]
Times = dict[str, float]  # seconds of CPU by what was done


class Clock:
    """CPU seconds by what they went to."""

    def __init__(self) -> None:
        self.seconds: Times = {}

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        """Count what the block takes."""
        started = time.process_time()
        try:
            yield
        finally:
            spent = time.process_time() - started
            self.seconds[what] = self.seconds.get(what, 0.0) + spent

    def counted(self, what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose time is counted too."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self(what):
                return function(*args, **kwargs)

        return wrapped


def study_config(n_trials: int, sampler: str = "tpe") -> StudyConfig:
    """A search with early stopping at reports 2 and 6."""
    return load_config("smoke", None, [
        f"search.n_trials={n_trials}", f"mdgan.n_reports={N_REPORTS}", "mdgan.adversarial_from=0",
        "search.grace_reports=2", f"search.sampler={sampler}",
    ])  # fmt: skip


def made_up(number: int, report: int, params: dict[str, Any]) -> dict[str, Any]:
    """What a trial reports: an objective that falls, and as many metrics as a real one has."""
    level = abs(np.log(params["lr"] / 1e-3)) + 1 / params["latent_dim"]
    rng = np.random.default_rng([number, report])
    value = float(0.5 + level + 1 / report + 0.1 * rng.random())
    names = (
        "objective", "recon_l1", "recon_l1_vs_pca", "recon_l2", "recon_l2_vs_pca", "frechet_recon",
        "frechet_sample", "frechet_sample_vs_pca", "latent_frechet", "spread",
    )  # fmt: skip
    return {
        RANKED_BY: value, "report": report, "snippets_seen": 64 * report, "reason": "", "note": "",
        **{f"valid/{name}": value for name in names}, "valid/collapsed": 0.0,
        **{f"train/{i}": value for i in range(8)}, "time/seconds": 3.0 * report,
        **{f"system/{i}": value for i in range(4)}, "hostname": "node",
    }  # fmt: skip


def run_search(config: StudyConfig, folder: Path, clock: Clock) -> None:
    """Ask, report and tell all trials of a search as Tune would, ``AT_ONCE`` at a time."""
    n = config.search.n_trials
    state = new_state(config)
    searcher = StudySearch(config, state, folder)
    base, tracker, console = config.mdgan, NoMlflow(), Console(StringIO())
    watcher = TrialWatcher(state, folder, base, tracker, trial_identity, console, n)
    scheduler = OrderedASHA(state)
    running: dict[int, Any] = {}
    rng = np.random.default_rng(0)
    n_asked = 0
    while n_asked < n or running:
        while n_asked < n and len(running) < AT_ONCE:
            with clock("ask"):
                trial = SimpleNamespace(trial_id=str(n_asked), n_reports=0)
                trial.config = searcher.suggest(trial.trial_id)
            running[n_asked] = trial
            watcher.on_trial_start(0, [], trial)
            n_asked += 1
        trial = running[int(rng.choice(list(running)))]
        spec = trial.config["spec"]
        trial.n_reports += 1
        result = made_up(spec["number"], trial.n_reports, spec["params"])
        clock.seconds["reports"] = clock.seconds.get("reports", 0) + 1
        with clock("report"):
            action = scheduler.on_trial_result(None, trial, result)
            watcher.on_trial_result(0, [], trial, result)
        if action == "STOP" or trial.n_reports == N_REPORTS:
            with clock("tell"):
                scheduler.on_trial_complete(None, trial, result)
                searcher.on_trial_complete(trial.trial_id, result)
                watcher.on_trial_complete(0, [], trial)
            del running[spec["number"]]


@contextmanager
def samplers_counted(clock: Clock) -> Iterator[None]:
    """In the block, what Optuna's samplers take is counted as "sampler" too."""
    tpe = optuna.samplers.TPESampler
    of_tpe = ("sample_relative", "sample_independent", "infer_relative_search_space")
    with ExitStack() as stack:
        for owner, names in ((tpe, of_tpe), (proposals, ("propose_by_gp",))):
            for name in names:
                counted = clock.counted("sampler", getattr(owner, name))
                stack.enter_context(mock.patch.object(owner, name, counted))
        yield


def of_trials(n: int, clock: Clock, sampler: str) -> Times:
    """CPU s per report, per trial asked and told, and per trial of what comes after them."""
    with samplers_counted(clock), tempfile.TemporaryDirectory() as name:
        paths, config = RunPaths(Path(name)), study_config(n, sampler)
        run_search(config, paths.search, clock)
        before = dict(clock.seconds)
        with clock("taken up"):
            state = new_state(config)
            load_trials(state, paths.search, n, Console(StringIO()))
            StudySearch(config, state, paths.search)
        with clock("tables"):
            rows = trial_rows(config, state, NoMlflow(), trial_identity)
            candidates(rows, config.search.selection, config.search.compared)
            write_tables(paths, rows, [], state)
        rows[0]["is_best"] = True
        write_tables(paths, rows, [], state)
        made_up_hmms(paths, made_up_recordings(4, 12))
        made_up_best(paths, made_up_recordings(4, 12))
        with clock("page"):
            write_report(config, made_up_recordings(4, 12), paths, LINEAGE)
        print(f"    page {paths.report.stat().st_size / 1e6:.1f} MB", flush=True)
    s = clock.seconds
    return {
        "a report": s["report"] / s["reports"],
        "a trial asked, without the sampler": (s["ask"] - before["sampler"]) / n,
        "a trial asked, Optuna's sampler": before["sampler"] / n,
        "a trial told": s["tell"] / n,
        "a trial taken up after a kill": s["taken up"] / n,
        "a trial in the tables": s["tables"] / n,
        "a trial in the report page": s["page"] / n,
    }


LINEAGE = dict.fromkeys(("git_commit", "code_hash", "config_hash", "data_hash"), "0")


def made_up_recordings(n_each: int, n_birds_and_ages: int) -> Recordings:
    """Recordings of birds with up to 60 ages each."""
    n_ages = min(60, n_birds_and_ages // 3)
    found = []
    for i in range(n_birds_and_ages):
        bird, age = f"bird{i // n_ages}", str(40 + i % n_ages)
        for j in range(n_each):
            path = f"{bird}/{age}/songs/{j}.wav"
            one = Recording(bird, age, int(age), None, path, sha256=path, seconds=3.0)
            found.append(
                replace(one, n_frames=600 + j, split="selection" if j == 0 else "training")
            )
    return Recordings.from_rows(found)


def made_up_best(paths: RunPaths, recordings: Recordings) -> None:
    """Write what the best decoder did on both held-out sides, for every bird and age."""
    names = ("recon_l1", "recon_l1_vs_own_pca", "frechet_song", "frechet_real", "coverage_song")
    sides = (SELECTION, REPORT)
    rows = [
        {"side": side, "bird": bird, "age": age, "n_snippets": 50, **dict.fromkeys(names, 0.5)}
        for side in sides
        for bird, age in recordings.birds_and_ages()
    ]
    metrics = {f"valid/{name}": 0.5 for name in names}
    figures = {"metrics": metrics, "n_snippets": len(rows) * 25, "n_recordings": len(recordings)}
    write_figures(paths, dict.fromkeys(sides, figures), rows)


def made_up_hmms(paths: RunPaths, recordings: Recordings) -> None:
    """Write the tables of the HMMs and of their checks: ten fits of every bird and age."""
    grid, selected, checks, quantiles = [], [], [], []
    size: dict[str, Any] = {"n_snippets": 1000, "n_observations": 250.0, "log_likelihood": -1.0}
    for bird, age in recordings.birds_and_ages():
        named = {"bird": bird, "age": age}
        fits = [HmmFit(n_states=k, reached_by="grid", restart=0, start="k-means",
                       covariance_type="diag", n_free_params=k, bic=float((k - 5) ** 2),
                       status="ok", reason="", seconds=1.0, **size)
                for k in range(2, 12)]  # fmt: skip
        grid += [named | row_of(fit) for fit in fits]
        chosen = {name: 5 for name in SELECTED.names if name.endswith("n_states")}
        one = Selected(**named, dph=int(age), status="ok", reason="", n_recordings=4,
                       covariance_type="diag", fit_status="ok", n_agreeing=1, n_restarts=1,
                       n_effective=500.0, **size, **chosen)  # fmt: skip
        selected.append(row_of(one))
        known = [Check(check=name, unit="ms", n_songs=4, n_replicas=10, distance=1.0, halves=1.0,
                       verdict=LIKE) for name in HEARD]  # fmt: skip
        checks += [named | row_of(check) for check in known]
        quantiles += [{**named, "check": name, "unit": "ms", "songs": kind, "share": share,
                       "value": 100 * share}
                      for name in HEARD for kind in KINDS for share in SHARES]  # fmt: skip
    tables = (
        (paths.hmm_grid, grid, GRID),
        (paths.hmm_selected, selected, SELECTED),
        (paths.hmm_ages, [age_row(row, {"matched_n_snippets": 1000}) for row in selected], AGES),
        (paths.hmm_checks, checks, CHECKED),
        (paths.hmm_check_quantiles, quantiles, QUANTILES),
    )
    for path, rows, schema in tables:
        write_rows(path, rows, schema)


def of_birds_and_ages(n: int, clock: Clock) -> dict[str, float]:
    """CPU s per bird and age of the report page."""
    with tempfile.TemporaryDirectory() as name:
        paths, config = RunPaths(Path(name)), study_config(10)
        run_search(config, paths.search, Clock())
        state = new_state(config)
        load_trials(state, paths.search, 10, Console(StringIO()))
        rows = trial_rows(config, state, NoMlflow(), trial_identity)
        rows[0]["is_best"] = True
        write_tables(paths, rows, [], state)
        recordings = made_up_recordings(10, n)
        made_up_hmms(paths, recordings)
        made_up_best(paths, recordings)
        with clock("page"):
            write_report(config, recordings, paths, LINEAGE)
        print(f"    page {paths.report.stat().st_size / 1e6:.1f} MB", flush=True)
    return {"a bird and age in the report page": clock.seconds["page"] / n}


def of_recordings(n: int, clock: Clock) -> dict[str, float]:
    """CPU s per recording of listing, splitting, tables and counts; 100 to a bird and age."""
    with tempfile.TemporaryDirectory() as name:
        root, paths = Path(name) / "data", RunPaths(Path(name) / "run")
        listed = made_up_recordings(100, n // 100)
        for folder in {(root / r.path).parent for r in listed}:
            folder.mkdir(parents=True)
        for recording in listed:
            (root / recording.path).touch()
        with clock("listed, size and time asked"):
            found = survey(root).recordings
        known = found.with_column("sha256", found.column("path"))
        known = known.with_column("seconds", np.full(len(known), 3.0))
        with clock("split and hashed"):
            whole = assign_split(skip_duplicates(known), 0.15, 0.15, 0)
            data_hash(whole)
        with clock("in the table, read, counted"):
            write_recordings(paths.recordings, whole)
            count_recordings(read_recordings(paths.recordings))
        with clock("by bird and age"):
            whole.used.by_bird_age()
    return {f"a recording: {what}": seconds / n for what, seconds in clock.seconds.items()}


def print_table(measure: Callable[[int, Clock], Times], sizes: list[int]) -> None:
    """One row for each thing that is done, one column for each size of a study, in ms."""
    found = [measure(size, Clock()) for size in sizes]
    print(f"{'ms of CPU for':42}" + "".join(f"{size:>11,}" for size in sizes) + "  last/first")
    for what in found[0]:
        ms = [1000 * one[what] for one in found]
        print(f"{what:42}" + "".join(f"{one:11.3f}" for one in ms) + f"{ms[-1] / ms[0]:12.2f}")
    print(flush=True)


def main() -> None:
    """Print one table for trials, one for birds and ages, one for recordings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", default=["trials", "birds_and_ages", "recordings"])
    parser.add_argument("--trials", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--birds_and_ages", type=int, nargs="+", default=[12, 120, 1200])
    parser.add_argument("--recordings", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--sampler", choices=["tpe", "gp"], default="tpe", help="of the trials")
    options = parser.parse_args()
    measures = {
        "trials": partial(of_trials, sampler=options.sampler),
        "birds_and_ages": of_birds_and_ages,
        "recordings": of_recordings,
    }
    print(f"load average at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for name in options.tables:
        print_table(measures[name], getattr(options, name))


if __name__ == "__main__":
    main()
