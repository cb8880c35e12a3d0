"""Nodes of the cluster, and kinds of nodes that it may yet start.

Ray tells no driver which kinds it may start (ray-project/ray issue 52033). This module reads them
from the report that the cluster's manager gave to Ray, or else from the file that started the
head's autoscaler. It imports little, because it runs on nodes that a study waits for.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
import yaml
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

HEAD = "node:__internal_head__"  # only the head has this resource
TIMEOUT_S = 30.0
MANY = 1000  # nodes, if no limit is set
# For sums of decimal fractions: 10 * 0.1 is a whole GPU.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Node:
    """A node, or a kind of node that may yet be started.

    Attributes:
        name: of the host, or of the kind.
        cpus: cores that it offers.
        gpus: GPUs that it offers.
        count: for a kind, the most nodes of it that there may be.
        is_there: whether it runs.
    """

    name: str
    cpus: float
    gpus: float
    count: int = 1
    is_there: bool = True

    def holds(self, cpus: float, gpus: float) -> bool:
        """True if one task fits here."""
        return self.cpus >= cpus and self.gpus >= gpus

    def n_at_once(self, cpus: float, gpus: float) -> int:
        """Tasks that fit here at a time."""
        by_cpus = math.floor(self.cpus / cpus + ROUNDING)
        return min(by_cpus, self.n_on_gpus(gpus)) if gpus else by_cpus

    def n_on_gpus(self, gpus: float) -> int:
        """Tasks that its GPUs would hold at a time."""
        if gpus < 1:  # a share lies on one GPU
            return int(self.gpus) * math.floor(1 / gpus + ROUNDING)
        return math.floor(self.gpus / gpus)


def possible_nodes(timeout_s: float = TIMEOUT_S) -> list[Node]:
    """Kinds of nodes that the connected cluster may start; empty if it cannot grow.

    Raises:
        ray.exceptions.RayError: the head gave no answer.
    """
    head = next((n for n in ray.nodes() if n["Alive"] and is_head(n)), None)
    if head is None:
        return []
    on_head = NodeAffinitySchedulingStrategy(head["NodeID"], soft=False)
    # It asks for no CPU: a head often offers none, and this must not wait for running tasks.
    task = ray.remote(read_node_kinds).options(num_cpus=0, scheduling_strategy=on_head)
    kinds: list[Node] = ray.get(task.remote(), timeout=timeout_s)
    return kinds


def n_once_grown(cpus: float, gpus: float) -> int:
    """Tasks that fit at a time once every node that may be started is there; 0 if none may be.

    Args:
        cpus: of a task.
        gpus: of a task; 0 for none.
    """
    n_to_come = sum(kind.count * kind.n_at_once(cpus, gpus) for kind in possible_nodes())
    if not n_to_come:
        return 0
    # Running workers are of the kinds that may be started, and counted there.
    heads = [n["Resources"] for n in ray.nodes() if n["Alive"] and is_head(n)]
    here = [Node(HEAD, have.get("CPU", 0.0), have.get("GPU", 0.0)) for have in heads]
    return n_to_come + sum(node.n_at_once(cpus, gpus) for node in here)


def is_head(node: dict[str, Any]) -> bool:
    """True if an entry of ``ray.nodes()`` is the head."""
    return bool(node["Resources"].get(HEAD))


def read_node_kinds() -> list[Node]:
    """Kinds of nodes that the cluster may start, read on the head."""
    reported = ray._private.state.state.get_cluster_config()
    if reported is not None and reported.node_group_configs:
        return kinds_reported(reported)
    path = _autoscaler_file(ray.get_runtime_context().gcs_address)
    return kinds_in_file(yaml.safe_load(path.read_text("utf-8"))) if path else []


def kinds_reported(config: Any) -> list[Node]:
    """Kinds of nodes of a ``ray.core.generated.autoscaler_pb2.ClusterConfig``."""
    return [
        Node(
            group.name,
            float(group.resources.get("CPU", 0)),
            float(group.resources.get("GPU", 0)),
            MANY if group.max_count < 0 else group.max_count,
            is_there=False,
        )
        for group in config.node_group_configs
        if group.max_count
    ]


def kinds_in_file(config: dict[str, Any]) -> list[Node]:
    """Kinds of nodes of a cluster file as `ray up` completed it, such as ray_bootstrap_config.yaml.

    Ray learns the resources of some kinds only when a node runs; they count as having none.
    """
    limit = int(config.get("max_workers", MANY))
    kinds = []
    for name, kind in (config.get("available_node_types") or {}).items():
        count = min(int(kind.get("max_workers", limit)), limit)
        if name == config.get("head_node_type") or count < 1:
            continue
        have = kind.get("resources") or {}
        cpus, gpus = float(have.get("CPU", 0)), float(have.get("GPU", 0))
        kinds.append(Node(name, cpus, gpus, count, is_there=False))
    return kinds


def _autoscaler_file(gcs_address: str) -> Path | None:
    """The file that started this cluster's autoscaler, found in its command line."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if f"--gcs-address={gcs_address}" not in words:
            continue
        for word in words:
            if word.startswith("--autoscaling-config="):
                return Path(word.partition("=")[2]).expanduser()
    return None
