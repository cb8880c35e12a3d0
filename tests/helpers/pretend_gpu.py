"""Ray's processes on declared GPUs, where there are none: each says who used a GPU before it."""

import atexit
import json
import os
import time
from pathlib import Path

import psutil
from ray import tune

FOLDER = "GPU_USERS"  # variable that names the folder of what they say
LINGER_S = 1.0  # a driver takes its time with the memory of a process that ends


def use_gpu(*_):
    """Note this process, and the processes that used a GPU before and are still there."""
    folder = Path(os.environ[FOLDER])
    before = [int(file.stem) for file in folder.glob("*.json")]
    alive = [pid for pid in before if psutil.pid_exists(pid)]
    (folder / f"{os.getpid()}.json").write_text(json.dumps(alive))
    atexit.register(time.sleep, LINGER_S)
    return "cpu"


def users(folder):
    """The processes that used a GPU, each with those that were still there when it began."""
    return {int(file.stem): json.loads(file.read_text()) for file in folder.glob("*.json")}


def pretend():
    """Called in each process of Ray, before its first task."""
    from study.cluster import gpus
    from study.cluster.gpu_facts import Card, GpuFacts
    from study.preflight import node_probe

    card = Card("made up", 86)
    old = GpuFacts("2.13.0", "13.0", ("sm_86",), "535.183.01", "12.2", (card,))
    node_probe.torch_build = lambda: ("2.13.0", True)
    node_probe.gpu_facts = lambda: old
    gpus.device = use_gpu
    gpus.wait_for_memory = lambda share: None
    gpus.measure_training = lambda config, where: gpus.Measured("made up", 24 * 10**9, 6 * 10**9)


def trial(config, data, job):
    """A trial that has come to its end; its process need not load torch."""
    if job.gpus:
        use_gpu()
    tune.report(
        {"objective": 1.0, "valid/objective": 1.0, "valid/collapsed": 0.0, "report": 2,
         "snippets_seen": 1, "reason": ""}
    )  # fmt: skip
