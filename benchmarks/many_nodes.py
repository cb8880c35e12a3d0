"""Many nodes on one machine: do the driver and Ray keep up where the cluster grows?

    python -m benchmarks.many_nodes
    python -m benchmarks.many_nodes --nodes 10 50 --fits 5000

Ray's test cluster starts a whole node (raylet, object store, agents, a worker) per simulated
machine, each with one CPU to offer. The HMM stage itself runs on them
(`study.hmms.stage.find_n_states`: tasks, journal, tables, models), once per number of nodes. The
machine's cores stay the same, so that fits per second cannot grow with the nodes: what is looked
for is whether they fall, and what the driver and Ray's control store (GCS) take for each.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is loaded

import argparse
import dataclasses
import json
import math
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import ray
from ray.cluster_utils import Cluster

from benchmarks.hmm_fan_out import WARM, Case, run
from study.base.paths import ROOT

NUMBERS, N_RESTARTS = (2, 3, 4, 5, 6), 2  # ten fits per bird and age
N_SNIPPETS, LATENT_DIM = 300, 4
STORE_BYTES = 80 * 1024**2  # Ray's smallest object store is 75 MB
MB, GB = 1024**2, 1024**3


class Watch:
    """Most memory that the driver, Ray's control store and all of it had, asked twice a second.

    Attributes:
        most: MB of this process and of the store, GB of all beyond what was taken before.
    """

    def __init__(self) -> None:
        self.most = {"driver_mb": 0.0, "gcs_mb": 0.0, "machine_gb": 0.0}
        self._taken_before = psutil.virtual_memory().used
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        """Begin; the cluster is up."""
        children = psutil.Process().children()
        self._gcs = next(one for one in children if one.name() == "gcs_server")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._is_over.set()
        self._thread.join()

    def gcs_cpu_s(self) -> float:
        """CPU seconds of the control store so far."""
        times = self._gcs.cpu_times()
        return float(times.user + times.system)

    def _look(self) -> None:
        own = psutil.Process()
        while not self._is_over.wait(0.5):
            now = {
                "driver_mb": own.memory_info().rss / MB,
                "gcs_mb": self._gcs.memory_info().rss / MB,
                "machine_gb": (psutil.virtual_memory().used - self._taken_before) / GB,
            }
            self.most = {name: max(self.most[name], value) for name, value in now.items()}


def child(n_nodes: int, n_fits: int) -> None:
    """Run the stage on so many nodes; print what was measured as JSON."""
    started = time.perf_counter()
    # Agents and workers of one machine share its memory: Ray would see it full and kill some.
    os.environ["RAY_memory_monitor_refresh_ms"] = "0"  # noqa: SIM112
    watch = Watch()
    cluster = Cluster()
    cluster.add_node(num_cpus=0, include_dashboard=False, object_store_memory=4 * STORE_BYTES)
    for _ in range(n_nodes):
        cluster.add_node(wait=False, num_cpus=1, object_store_memory=STORE_BYTES)
    cluster.wait_for_nodes(timeout=600)
    env = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR",
             runtime_env={"env_vars": env})  # fmt: skip
    try:
        with tempfile.TemporaryDirectory() as folder, watch:
            # Until every node has a worker that has imported and compiled what it needs.
            warm = dataclasses.replace(WARM, n_birds=2 * n_nodes)
            run(warm, Path(folder) / "warm")
            up_s, gcs_cpu = time.perf_counter() - started, watch.gcs_cpu_s()
            n_birds = math.ceil(n_fits / (len(NUMBERS) * N_RESTARTS))
            case = Case("fits", n_birds, N_SNIPPETS, LATENT_DIM, NUMBERS, N_RESTARTS)
            stage = run(case, Path(folder) / "fits")
            measured = {
                "fits": stage["n_fits"], "seconds": stage["wall_s"], "up_s": up_s,
                "driver_cpu_s": stage["driver_cpu_s"], "gcs_cpu_s": watch.gcs_cpu_s() - gcs_cpu,
            }  # fmt: skip
        print(json.dumps({**measured, **watch.most}))
    finally:
        ray.shutdown()
        cluster.shutdown()


def main() -> None:
    """Print one row per number of nodes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[10, 20, 50])
    parser.add_argument("--fits", type=int, default=5000, help="at least so many")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.fits)
        return
    print(f"load average at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(
        "nodes  up in   fits  seconds  fits/s  driver MB  driver ms/fit  GCS MB  GCS ms/fit  all GB"
    )
    for n_nodes in options.nodes:
        options_of_child = ["--child", str(n_nodes), "--fits", str(options.fits)]
        command = [sys.executable, "-m", "benchmarks.many_nodes", *options_of_child]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{n_nodes} nodes: {done.stderr[-3000:]}")
        one = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{n_nodes:5} {one['up_s']:5.0f} s {one['fits']:6,} {one['seconds']:8.0f} "
            f"{one['fits'] / one['seconds']:7.1f} {one['driver_mb']:10.0f} "
            f"{1000 * one['driver_cpu_s'] / one['fits']:14.2f} {one['gcs_mb']:7.0f} "
            f"{1000 * one['gcs_cpu_s'] / one['fits']:11.2f} {one['machine_gb']:7.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
