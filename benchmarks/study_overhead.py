"""How much of a study's time its cores spend on the work itself.

    python -m benchmarks.study_overhead
    python -m benchmarks.study_overhead --preset smoke search.n_trials=6

It runs a study on simulated birds, asks every half second what its processes have computed since,
and prints for each stage its seconds and the share of all cores that Ray's workers kept busy: in
the stage of trials those that train, elsewhere those that run tasks. What is left is start-up,
waiting for the last of several, and the driver.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import threading
import time

import psutil

from study.base.paths import ROOT

EVERY_S = 0.5
STAGE = re.compile(r"^\[(\d+)/(\d+)\] (.+)$")
WORKER = "ray::"
NOT_WORK = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::look_around")


class Meter:
    """CPU seconds of the workers of a command, by stage."""

    def __init__(self, command: subprocess.Popen):
        self._root = psutil.Process(command.pid)
        self._cpu: dict[int, float] = {}
        self.stage = "start-up"
        self.wall: dict[str, float] = {}
        self.busy: dict[str, float] = {}
        self.both: dict[str, float] = {}
        self.first_work: dict[str, float] = {}

    def sample(self, seconds: float, n_cores: int) -> None:
        """Count what was computed since the last call, ``seconds`` ago."""
        used = 0.0
        for process in self._root.children(recursive=True):
            try:
                name = " ".join(process.cmdline())
                times = process.cpu_times()
            except psutil.Error:
                continue
            total = times.user + times.system
            before = self._cpu.get(process.pid, total)
            self._cpu[process.pid] = total
            if name.startswith(WORKER) and not name.startswith(NOT_WORK):
                used += total - before
        stage = self.stage
        self.wall[stage] = self.wall.get(stage, 0.0) + seconds
        if used > 0.5 * seconds:
            self.first_work.setdefault(stage, self.wall[stage])
        self.busy[stage] = self.busy.get(stage, 0.0) + min(used, n_cores * seconds)
        if used > 0.75 * n_cores * seconds:
            self.both[stage] = self.both.get(stage, 0.0) + seconds


def main() -> None:
    """Run a study and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="demo")
    parser.add_argument("overrides", nargs="*", help="key=value")
    options = parser.parse_args()
    n_cores = psutil.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="overhead-") as name:
        command = [sys.executable, str(ROOT / "study" / "run_tune.py"), "--preset", options.preset]
        command += ["--out", f"{name}/run", "--tracking-uri", f"sqlite:///{name}/mlflow.db"]
        study = subprocess.Popen(
            [*command, *options.overrides], cwd=name, stdout=subprocess.PIPE, text=True
        )
        meter = Meter(study)
        reader = threading.Thread(target=_follow, args=(study, meter), daemon=True)
        reader.start()
        last = time.monotonic()
        while study.poll() is None:
            time.sleep(EVERY_S)
            now = time.monotonic()
            meter.sample(now - last, n_cores)
            last = now
        reader.join()
    if study.returncode:
        sys.exit(f"the study failed with exit code {study.returncode}")
    if meter.stage == "start-up" or not any(meter.busy.values()):
        sys.exit("no stage, or none of Ray's workers, was known by its name: this measured nothing")
    _show(meter, n_cores)


def _follow(study: subprocess.Popen, meter: Meter) -> None:
    assert study.stdout is not None
    for line in study.stdout:
        print(line, end="", flush=True)
        if match := STAGE.match(line):
            meter.stage = match[3]
        elif line.startswith("Report "):
            meter.stage = "end"


def _show(meter: Meter, n_cores: int) -> None:
    print(f"\n{'stage':16} {'seconds':>8} {'to first work':>14} {'all cores busy':>15} "
          f"{'work of all cores':>18}")  # fmt: skip
    for stage, wall in meter.wall.items():
        first = meter.first_work.get(stage)
        both = 100 * meter.both.get(stage, 0.0) / wall
        busy = 100 * meter.busy[stage] / wall / n_cores
        begun = "-" if first is None else f"{first:.1f}"
        print(f"{stage:16} {wall:8.1f} {begun:>14} {both:14.0f}% {busy:17.0f}%")
    wall = meter.wall.get("trials", 0.0) - meter.first_work.get("trials", 0.0)
    if wall > 0:
        share = 100 * meter.both.get("trials", 0.0) / wall
        print(f"\ntrials, from the first that computed: all {n_cores} cores at trial work for "
              f"{share:.0f} % of {wall:.0f} s")  # fmt: skip


if __name__ == "__main__":
    main()
