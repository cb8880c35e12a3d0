"""MLflow's server is killed while a study records: how long a call takes, what arrives.

python -m benchmarks.tracking_outage [--away 180] [--trials 8] [--every 0.5]

Trials report four metrics at each step, before, while and after the server is away; then it is
counted what the server has. Nothing may be missing, nothing be there twice, and no call may take
more than 5 s.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

from study.tracking.picture import Measured
from study.tracking.tracker import RunIdentity, RunPicture, Tracker
from tests.helpers.mlflow_server import MlflowServer

METRICS = ("a", "b", "c", "d")
AROUND_S = 10.0  # seconds of recording before and after


def main(away_s: float, n_trials: int, every_s: float) -> bool:
    """Run it; whether all arrived once, and no call took long."""
    with tempfile.TemporaryDirectory() as folder:
        server = MlflowServer(Path(folder))
        server.start()
        try:
            return measured(server, Path(folder), away_s, n_trials, every_s)
        finally:
            server.kill()


def measured(
    server: MlflowServer, folder: Path, away_s: float, n_trials: int, every_s: float
) -> bool:
    """The same with a server that runs."""
    tracker = Tracker(server.uri, "outage", {}, folder / "sent", [], print)
    tracker.start_study({}, "study", {})
    trials = [RunIdentity("trial", f"trial-{i:03}") for i in range(n_trials)]
    longest = 0.0
    step = 0

    def picture(trial: RunIdentity, **parts: Any) -> RunPicture:
        return RunPicture(trial, tracker.study_run_id, trial.trial_id, **parts)

    def record(seconds: float) -> None:
        nonlocal longest, step
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for trial in trials:
                started = time.monotonic()
                measured = Measured(time.time(), {name: float(step) for name in METRICS})
                tracker.show(picture(trial, curve={step: measured}))
                longest = max(longest, time.monotonic() - started)
            step += 1
            time.sleep(every_s)

    record(AROUND_S)
    server.kill()
    killed = time.monotonic()
    record(away_s)
    server.start()
    away = time.monotonic() - killed
    record(AROUND_S)
    tracker.show(*(picture(trial, status="FINISHED") for trial in trials))
    tracker.end_study("FINISHED")
    started = time.monotonic()
    n_waiting = tracker.close(600)
    sent_in = time.monotonic() - started

    client = MlflowClient(server.uri)
    found: Counter[tuple[str, str, int]] = Counter()
    for trial in trials:
        for name in METRICS:
            for metric in client.get_metric_history(str(tracker.run_id(trial)), name):
                found[trial.trial_id, name, metric.step] += 1
    n_logged = step * n_trials * len(METRICS)
    n_twice = found.total() - len(found)
    runs = client.search_runs([tracker.experiment_id])
    n_open = sum(run.info.status != "FINISHED" for run in runs)
    print(f"server away            {away:.0f} s")
    print(f"longest call           {1000 * longest:.1f} ms")
    print(f"sent after the end in  {sent_in:.1f} s, {n_waiting} runs left")
    print(f"metrics recorded       {n_logged}")
    print(f"metrics found          {len(found)}")
    print(f"found twice            {n_twice}")
    print(f"runs                   {len(runs)} of {n_trials + 1}, {n_open} not finished")
    return (len(found), n_twice, len(runs), n_open) == (n_logged, 0, n_trials + 1, 0) and (
        longest < 5
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--away", type=float, default=180, metavar="S", help="seconds")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--every", type=float, default=0.5, metavar="S", help="between two steps")
    args = parser.parse_args()
    sys.exit(not main(args.away, args.trials, args.every))
