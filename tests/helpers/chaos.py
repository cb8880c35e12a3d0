"""A study that is killed again and again, and a count of what is left."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from study.base.paths import ROOT

TRIAL_PROCESSES = ("ray::ImplicitFunc", "ray::run_trial")  # as Ray Tune names them
PATIENCE_S = 180.0


@dataclass
class Chaos:
    """A study that is killed.

    Args:
        folder: everything is below it.
        n_trials: of the search.
        overrides: of the configuration, key=value.
        rng: when to kill, and whom.
    """

    folder: Path
    n_trials: int
    overrides: list[str]
    rng: random.Random
    driver: subprocess.Popen | None = None
    progress: dict[str, int] = field(default_factory=dict)
    steps_back: list[int] = field(default_factory=list)
    after_worker: list[float] = field(default_factory=list)
    after_driver: list[float] = field(default_factory=list)

    @property
    def out(self) -> Path:
        """The run folder."""
        return self.folder / "run"

    @property
    def uri(self) -> str:
        """MLflow's database."""
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def start(self) -> None:
        """Start the command."""
        command = [sys.executable, str(ROOT / "study" / "run_tune.py"), "--preset", "smoke"]
        command += ["--out", str(self.out), "--tracking-uri", self.uri]
        command += [f"search.n_trials={self.n_trials}", *self.overrides]
        with (self.folder / "log").open("a") as log:
            # A group of its own: its Ray can be killed with it, and nobody else's.
            self.driver = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )

    def family(self) -> list[psutil.Process]:
        """The command and all below it."""
        assert self.driver is not None
        try:
            parent = psutil.Process(self.driver.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def trials_at_work(self) -> list[psutil.Process]:
        """Processes that train a trial now."""
        found = []
        for process in self.family():
            try:
                if " ".join(process.cmdline()).startswith(TRIAL_PROCESSES):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def is_running(self) -> bool:
        """Whether the command runs."""
        return self.driver is not None and self.driver.poll() is None

    def n_ended(self) -> int:
        """Trials and repeats that are over.

        Only their own folders are looked at: a checkpoint below may vanish under the look.
        """
        search = self.out / "search"
        folders = ("trial-*", "repeats/*")
        return sum(1 for folder in folders for _ in search.glob(f"{folder}/ended.json"))

    def note_progress(self) -> None:
        """How far each trial is, by its checkpoints: it may never go back by more than one."""
        for path in (self.out / "search").glob("trial-*"):
            reports = [int(p.name[11:]) for p in path.glob("checkpoint-????")]
            if (path / "ended.json").exists() or not reports:
                continue
            before = self.progress.get(path.name, 0)
            self.steps_back.append(before - max(reports))
            self.progress[path.name] = max(reports)

    def wait_for_work(self) -> float | None:
        """Seconds until a trial is at work; None where the study ended before."""
        started = time.monotonic()
        while time.monotonic() - started < PATIENCE_S:
            self.note_progress()
            if self.trials_at_work():
                return time.monotonic() - started
            if not self.is_running():
                return None
            time.sleep(0.2)
        raise TimeoutError(f"no trial at work after {PATIENCE_S:g} s; see {self.folder / 'log'}")

    def kill_worker(self) -> bool:
        """Kill one process of a trial; whether there was one."""
        known = {process.pid for process in self.trials_at_work()}
        if not known:
            return False
        victim = self.rng.choice(sorted(known))
        os.kill(victim, signal.SIGKILL)
        started = time.monotonic()
        while time.monotonic() - started < PATIENCE_S:
            self.note_progress()
            if any(process.pid not in known for process in self.trials_at_work()):
                self.after_worker.append(time.monotonic() - started)
                break
            if not self.is_running() or not (self.n_trials - self.n_ended()):
                break
            time.sleep(0.1)
        return True

    def kill_driver_only(self) -> None:
        """Kill the command and its Ray."""
        for process in self.family():
            try:
                process.kill()
            except psutil.Error:
                continue
        assert self.driver is not None
        self.driver.wait()
        self.note_progress()

    def kill_driver(self) -> None:
        """Kill the command and its Ray, and start it again."""
        self.kill_driver_only()
        self.start()
        seconds = self.wait_for_work()
        if seconds is not None:
            self.after_driver.append(seconds)

    def run(self, n_workers: int, n_drivers: int) -> int:
        """Kill at random, then let the study end; give its exit code."""
        self.start()
        self.wait_for_work()
        kills = ["worker"] * n_workers + ["driver"] * n_drivers
        self.rng.shuffle(kills)
        for i, kind in enumerate(kills, 1):
            time.sleep(self.rng.uniform(0.5, 4.0))
            if self.wait_for_work() is None:
                print(f"the study ended after {i - 1} of {len(kills)} kills")
                break
            if kind == "worker":
                self.kill_worker()
            else:
                self.kill_driver()
            times = self.after_worker if kind == "worker" else self.after_driver
            last = f"{times[-1]:.1f} s" if times else "-"
            print(f"kill {i:2} of {len(kills)} ({kind}): a trial at work again after {last}; "
                  f"{self.n_ended()} trials over", flush=True)  # fmt: skip
        assert self.driver is not None
        return self.driver.wait(timeout=1800)


def count(chaos: Chaos) -> dict[str, int]:
    """What is there at the end, in the folder, in Optuna's record and in MLflow."""
    import optuna
    from mlflow.tracking import MlflowClient
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    from data_io.store import read_table

    rows = read_table(chaos.out / "trials.parquet").to_pylist()
    storage = JournalStorage(JournalFileBackend(str(chaos.out / "search" / "optuna.log")))
    (summary,) = optuna.get_all_study_summaries(storage)
    client = MlflowClient(chaos.uri)
    experiment = client.get_experiment_by_name("smoke")
    runs = client.search_runs([experiment.experiment_id], max_results=5000)
    trials = [run for run in runs if run.data.tags.get("stage") == "trial"]
    lost = doubled = 0
    by_id = {row["mlflow_run_id"]: row for row in rows}
    for run in trials:
        row = by_id[run.info.run_id]
        history = client.get_metric_history(run.info.run_id, "valid/objective")
        steps = [metric.step for metric in history]
        doubled += len(steps) - len(set(steps))
        lost += row["reports"] - len(set(steps)) if row["status"] != "collapsed" else 0
    return {
        "trials in the folder": len(list((chaos.out / "search").glob("trial-*"))),
        "trials in the table": len(rows),
        "trials completed or stopped": sum(r["status"] in ("completed", "stopped") for r in rows),
        "trials in Optuna": summary.n_trials,
        "MLflow runs of trials": len(trials),
        "different trials among them": len({run.data.tags["trial_id"] for run in trials}),
        "MLflow runs still RUNNING": sum(run.info.status == "RUNNING" for run in runs),
        "reports missing in MLflow": lost,
        "reports twice in MLflow": doubled,
        "most checkpoints gone back": max([0, *chaos.steps_back]),
    }
