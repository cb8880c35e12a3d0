"""GPUs: choice of the device, share of a GPU per trial, and waiting for its memory.

Ray's fractions are bookkeeping and do not limit memory: trials that share a GPU must fit together.
"""

import dataclasses
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import psutil
import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from models.mdgan.training import TrainingFailedError
from study.cluster.gpu_facts import Card, gpu_facts, gpu_fault
from study.cluster.gpu_memory import Measured, measure_training
from study.cluster.nodes import possible_nodes
from study.cluster.surroundings import ResourceError
from study.cluster.tasks import gpu_task
from study.config.tree import StudyConfig

USED = 0.9  # share of a GPU's memory to give out; the rest covers what was not measured
GRANULARITY = 10_000  # Ray counts GPUs in ten-thousandths
WAIT_S = 120.0  # for memory of a process that ended; a driver gives it back within seconds
# Share of a trial's part that must be free before it begins: a screen may hold some of the memory.
FREE_AT_START = 0.75
BUSY_TIMEOUT_S = 600.0  # for a GPU that other work holds
NEW_NODE_TIMEOUT_S = 1800.0  # for a node that has yet to be started


class UnusableGpuError(TrainingFailedError):
    """A GPU that was given cannot be used; the training itself is not to blame."""


def device(use_gpu: bool, setting: str = "gpus_per_trial") -> str:
    """The device to compute on: "cuda" or "cpu".

    Args:
        use_gpu: whether Ray gave (part of) a GPU.
        setting: of ``resources``, which asked for the GPU.

    Raises:
        UnusableGpuError: torch finds no GPU, or was not built for it.
    """
    if not use_gpu:
        return "cpu"
    facts, none = gpu_facts(), f"or set resources.{setting}=0"
    is_available = torch.cuda.is_available()
    if is_available:  # of the cards of this node, Ray gave this one
        major, minor = torch.cuda.get_device_capability()
        given = Card(torch.cuda.get_device_name(), 10 * major + minor)
        facts = dataclasses.replace(facts, cards=(given,))
    if fault := gpu_fault(facts, 1):
        cause, remedy = fault
        raise UnusableGpuError(f"Ray gave a GPU, but {cause}. {remedy}, {none}.")
    if not is_available:
        raise UnusableGpuError(
            f"Ray gave a GPU, but torch {torch.__version__} finds none ({facts.in_words}): install "
            f"a build of torch for GPUs, {none}."
        )
    return "cuda"


def _free_and_total() -> tuple[int, int]:
    return torch.cuda.mem_get_info()


def wait_for_memory(
    gpus: float,
    timeout_s: float = WAIT_S,
    free_and_total: Callable[[], tuple[int, int]] = _free_and_total,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until the GPU has room for a trial's share; a dead process may still hold memory.

    Args:
        gpus: GPUs of the trial; 0 returns at once.
        timeout_s: longest time to wait.
        free_and_total: gives free and total bytes of the GPU's memory.
        sleep: waits for a number of seconds.

    Raises:
        UnusableGpuError: torch finds no GPU, or its memory did not become free.
    """
    if not gpus:
        return
    if free_and_total is _free_and_total:
        device(True)
    share = min(gpus, 1.0)
    waited, pause = 0.0, 0.5
    while True:
        free, total = free_and_total()
        if free >= FREE_AT_START * share * total:
            return
        if waited >= timeout_s:
            raise UnusableGpuError(
                f"After {waited:.0f} s only {free / 1e9:.1f} of {total / 1e9:.1f} GB of the GPU "
                f"are free; a trial's share (resources.gpus_per_trial={gpus:g}) is "
                f"{share * total / 1e9:.1f} GB. Another process holds the memory: end it "
                "(nvidia-smi lists them), or set a smaller share."
            )
        sleep(pause)
        waited += pause
        pause = min(2 * pause, 5.0)


@dataclass(frozen=True)
class GpuKind:
    """GPU nodes that are alike.

    Attributes:
        accelerator: Ray's name of the GPU; "" if Ray does not know it.
        node_id: one of these nodes; "" if none has started yet.
        cpus_per_gpu: fewest CPUs per GPU among these nodes.
    """

    accelerator: str
    node_id: str
    cpus_per_gpu: float


@dataclass(frozen=True)
class GpuShare:
    """GPUs of a trial, and a sentence for the console, or an empty one."""

    gpus: float
    sentence: str = ""


Measure = Callable[[StudyConfig, GpuKind], Measured]


def gpus_per_trial(config: StudyConfig, measure: Measure | None = None) -> GpuShare:
    """GPUs of a trial: as configured or, for "auto", as few as a trial needs.

    Connect to Ray first. For "auto" the largest network of the search trains for a few steps on one
    GPU of each kind; it must fit on all kinds.

    Raises:
        ResourceError: a trial does not fit on a GPU, or no GPU became free for the measurement.
    """
    asked = config.resources.gpus_per_trial
    kinds = gpu_kinds() if asked == "auto" else []
    on_cpus = not kinds if asked == "auto" else not asked
    if on_cpus and config.mdgan.compilation == "cuda_graphs":
        raise ResourceError(
            f"mdgan.compilation is cuda_graphs, and trials run on CPUs (resources.gpus_per_trial="
            f"{asked}): only a GPU has CUDA graphs. Set mdgan.compilation=off, or give trials GPUs."
        )
    if asked != "auto":
        return GpuShare(float(asked))
    if not kinds:
        return GpuShare(0.0, "resources.gpus_per_trial is auto; no GPU: trials run on CPUs")
    cpus = config.resources.cpus_per_trial
    fewest, sentence = 0, ""
    for kind in kinds:
        measured = (measure or measure_on_cluster)(config, kind)
        n, limit = trials_per_gpu(measured, kind.cpus_per_gpu, cpus)
        if not fewest or n < fewest:
            fewest = n
            sentence = (
                f"A trial takes up to {measured.trial_bytes / 1e9:.1f} of "
                f"{measured.total_bytes / 1e9:.1f} GB of a GPU ({measured.gpu}), measured: "
                f"{n} at once on each{limit}"
            )
    return GpuShare(math.floor(GRANULARITY / fewest) / GRANULARITY, sentence)


def trials_per_gpu(measured: Measured, cpus_per_gpu: float, cpus_per_trial: int) -> tuple[int, str]:
    """Number of trials that share a GPU, and a remark if CPUs limit it and not memory.

    Raises:
        ResourceError: not even one trial fits.
    """
    total, need = measured.total_bytes, measured.trial_bytes
    if need > total:
        raise _does_not_fit(measured.gpu, f"it needs {need / 1e9:.1f} of {total / 1e9:.1f} GB")
    by_memory = max(1, math.floor(USED * total / need))
    by_cpus = max(1, math.floor(cpus_per_gpu / cpus_per_trial))
    if by_cpus < by_memory:
        return by_cpus, (
            f", as there are CPUs for (resources.cpus_per_trial={cpus_per_trial}, "
            f"{cpus_per_gpu:g} for each GPU); its memory would hold {by_memory}"
        )
    return by_memory, ""


def _does_not_fit(gpu: str, why: str) -> ResourceError:
    return ResourceError(
        f"The largest network of the search does not fit on a GPU ({gpu}): {why}. Lower "
        "mdgan.batch_size or the widths, in search.space too, or set resources.gpus_per_trial=0 "
        "to train on CPUs."
    )


def gpu_kinds() -> list[GpuKind]:
    """The kinds of GPU nodes of the connected cluster; if none runs, the kinds it may start."""
    kinds: dict[str, GpuKind] = {}
    for node in ray.nodes():
        have = node["Resources"] if node["Alive"] else {}
        if not have.get("GPU"):
            continue
        name = next((key for key in sorted(have) if key.startswith("accelerator_type:")), "")
        kind = GpuKind(name, node["NodeID"], have.get("CPU", 0.0) / have["GPU"])
        known = kinds.setdefault(name, kind)
        if kind.cpus_per_gpu < known.cpus_per_gpu:
            kinds[name] = kind
    if kinds:
        return list(kinds.values())
    later = [node.cpus / node.gpus for node in possible_nodes() if node.gpus]
    return [GpuKind("", "", min(later))] if later else []


def measure_on_cluster(config: StudyConfig, kind: GpuKind) -> Measured:
    """Measure in a Ray task that has a whole GPU of ``kind`` to itself; come back once it is gone.

    Raises:
        ResourceError: no GPU became free, the measurement failed, or its process does not end.
    """
    options: dict[str, Any] = {"num_cpus": 1, "max_retries": 1}
    timeout_s = NEW_NODE_TIMEOUT_S
    if kind.node_id:
        timeout_s = BUSY_TIMEOUT_S
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(kind.node_id, soft=False)
    ref = gpu_task(_measure, 1, **options).remote(config)
    try:
        measured, process = ray.get(ref, timeout=timeout_s)
    except ray.exceptions.GetTimeoutError as error:
        ray.cancel(ref, force=True)
        raise ResourceError(
            f"No GPU became free within {timeout_s / 60:.0f} minutes to measure how much of one a "
            "trial needs. End what holds the GPUs (ray status shows it), or set "
            "resources.gpus_per_trial yourself, for instance to 1."
        ) from error
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, torch.cuda.OutOfMemoryError):
            raise _does_not_fit(kind.accelerator or "its kind is not known", str(cause)) from error
        raise ResourceError(
            "How much of a GPU a trial needs (resources.gpus_per_trial=auto) could not be "
            f"measured: {type(cause).__name__}: {cause}"
        ) from error
    _wait_for_end(process)
    return cast(Measured, measured)


@dataclass(frozen=True)
class _Process:
    node_id: str
    host: str
    pid: int


def _measure(config: StudyConfig) -> tuple[Measured, _Process]:
    node_id = ray.get_runtime_context().get_node_id()
    process = _Process(node_id, platform.node(), os.getpid())
    return measure_training(config, device(True)), process


def _wait_for_end(process: _Process) -> None:
    """Wait until a process is gone: Ray gives its GPU to others before its memory is free."""
    there = NodeAffinitySchedulingStrategy(process.node_id, soft=False)
    task = ray.remote(num_cpus=0, scheduling_strategy=there)(_is_gone)
    if not ray.get(task.remote(process.pid, WAIT_S)):
        raise ResourceError(
            f"Process {process.pid} on {process.host}, which measured how much of a GPU a trial "
            f"needs, has not ended after {WAIT_S:.0f} s and holds memory of the GPU. End it "
            f"(kill -9 {process.pid}), then give the same command again."
        )


def _is_gone(pid: int, timeout_s: float) -> bool:
    try:
        psutil.Process(pid).wait(timeout_s)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True
