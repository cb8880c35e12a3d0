"""Many studies that write to the server of a laboratory, which is killed in between."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.base.paths import ROOT
from study.tracking.picture import Measured
from study.tracking.tracker import RunIdentity, RunPicture, Tracker
from tests.helpers.lab_server import LabServer

N_TRIALS = 4  # runs of a client
N_NAMES = 10  # metrics of a step
STEPS_A_CALL = 5
AWAY_S = 5.0
KILL_AT = (0.25, 0.75)  # shares of all metrics
TIME_LIMIT_S = 1800.0
_COUNT = "SELECT count(*) FROM metrics WHERE key LIKE 'm%'"
_ALL = (
    "SELECT e.name, t.value, m.key, m.step, m.value FROM metrics m JOIN runs r USING (run_uuid) "
    "JOIN experiments e USING (experiment_id) JOIN tags t USING (run_uuid) "
    "WHERE t.key = 'trial_id' AND m.key LIKE 'm%'"
)


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        expected: metrics that were logged.
        found: of these, in the database with their value.
        duplicates: rows beyond one for each metric.
        n_kills: times that the server was killed while clients were writing.
        longest_call_s: longest that any call kept a client, but for the beginning of its study.
        seconds: from the start of the clients to the delivery of the last metric.
    """

    expected: int
    found: int
    duplicates: int
    n_kills: int
    longest_call_s: float
    seconds: float


def value(client: int, trial: int, name: int, step: int) -> float:
    """The value of a metric, which no other has."""
    return ((client * N_TRIALS + trial) * N_NAMES + name) * 1_000_000.0 + step


def n_steps(n_metrics: int) -> int:
    """Steps of a trial, so that a client logs ``n_metrics``."""
    if n_metrics % (N_TRIALS * N_NAMES):
        raise SystemExit(f"--metrics: a multiple of {N_TRIALS * N_NAMES}, not {n_metrics}")
    return n_metrics // (N_TRIALS * N_NAMES)


def write(client: int, n_metrics: int, folder: Path) -> None:
    """Be one client; prints its longest call."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    tracker = Tracker(uri, f"writers-{client}", {"study": f"writers-{client}"}, folder, ["client"])
    tracker.start_study({}, f"client {client}", {"client": client})
    longest = 0.0
    trials = [RunIdentity("trial", trial_id=f"{trial}") for trial in range(N_TRIALS)]

    def picture(trial: RunIdentity, **parts: Any) -> RunPicture:
        return RunPicture(trial, tracker.study_run_id, f"trial {trial.trial_id}", **parts)

    for first in range(0, n_steps(n_metrics), STEPS_A_CALL):
        for trial, identity in enumerate(trials):
            steps = range(first, min(first + STEPS_A_CALL, n_steps(n_metrics)))
            now = time.time()
            curve = {
                step: Measured(
                    now, {f"m{name}": value(client, trial, name, step) for name in range(N_NAMES)}
                )
                for step in steps
            }
            start = time.perf_counter()
            tracker.show(picture(identity, curve=curve))
            longest = max(longest, time.perf_counter() - start)
    tracker.show(*(picture(trial, status="FINISHED") for trial in trials))
    tracker.end_study("FINISHED")
    left = tracker.flush(TIME_LIMIT_S)
    tracker.close()
    if left:
        raise SystemExit(f"client {client}: {left} runs are not there")
    print(longest)


def run_writers(
    server: LabServer,
    n_clients: int,
    n_metrics: int,
    kill_at: tuple[float, ...] = KILL_AT,
    away_s: float = AWAY_S,
) -> Outcome:
    """Let clients write to a server that is killed and started again.

    Args:
        server: running.
        n_clients: processes.
        n_metrics: of each.
        kill_at: shares of all metrics at which the server is killed.
        away_s: seconds that the server is away, each time.
    """
    settings = server.client_settings("writers", server.add_user("writers", "writer"))
    expected = {
        (f"writers-{client}", str(trial), f"m{name}", step): value(client, trial, name, step)
        for client in range(n_clients)
        for trial in range(N_TRIALS)
        for name in range(N_NAMES)
        for step in range(n_steps(n_metrics))
    }
    start = time.monotonic()
    n_kills = 0
    with tempfile.TemporaryDirectory(prefix="writers-") as folders:
        command = [sys.executable, "-m", "benchmarks.mlflow_writers", f"--metrics={n_metrics}"]
        clients = [
            subprocess.Popen(
                [*command, f"--client={i}", f"--folder={folders}/{i}"],
                cwd=ROOT, env={**os.environ, **settings}, stdout=subprocess.PIPE, text=True,
            )
            for i in range(n_clients)
        ]  # fmt: skip
        try:
            for share in kill_at:
                if _wait_for(server, share * len(expected), clients):
                    server.stop("mlflow", signal.SIGKILL)
                    n_kills += 1
                    time.sleep(away_s)
                    server.start_mlflow()
            longest = [float(client.communicate(timeout=TIME_LIMIT_S)[0]) for client in clients]
        finally:
            for client in clients:
                client.kill()
                client.wait()
    seconds = time.monotonic() - start
    rows = Counter(
        (experiment, trial, key, int(step), float(number))
        for experiment, trial, key, step, number in server.query(_ALL)
    )
    found = sum((*key, number) in rows for key, number in expected.items())
    return Outcome(len(expected), found, sum(rows.values()) - found, n_kills, max(longest), seconds)


def _wait_for(server: LabServer, n_rows: float, clients: list[subprocess.Popen[str]]) -> bool:
    """Whether that many metrics came in before all clients were done."""
    while any(client.poll() is None for client in clients):
        if int(server.query(_COUNT)[0][0]) >= n_rows:
            return True
        time.sleep(0.2)
    return False
