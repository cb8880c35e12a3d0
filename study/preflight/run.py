"""What a study needs, looked at before it begins: so that it fails in seconds, not in the night."""

import dataclasses
import secrets
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ray

from data_io.files import digest
from data_io.recordings import Survey, birds_and_ages
from study.base.console import Console
from study.base.paths import RunPaths, Where, without_password
from study.cluster.nodes import Node
from study.config.tree import StudyConfig
from study.preflight import disk_need
from study.preflight.capacity import check_shares, check_work, kinds_of_work
from study.preflight.check import Check, require
from study.preflight.mlflow_check import check_server
from study.preflight.node_checks import (
    Cluster,
    check_disks,
    check_folder,
    check_nodes,
    check_recordings,
    check_versions,
)
from study.preflight.node_probe import (
    DRIVER,
    Listing,
    Question,
    answers,
    ask,
    has_answered,
    listing,
    token_folder,
)

HASH_CHARS = 12

CheckMlflow = Callable[[str, str], None]


def preflight(config: StudyConfig, where: Where, found: Survey | None, console: Console) -> None:
    """Let a study go on where all is well, with one line; called once connected.

    Raises:
        PreflightError: it holds every cause with its remedy.
    """
    require(run_checks(config, where, found), console)


def run_checks(
    config: StudyConfig,
    where: Where,
    found: Survey | None,
    check_mlflow: CheckMlflow = check_server,
) -> list[Check]:
    """Look at all that a study needs; called once connected. Nothing is left of it anywhere.

    Args:
        config: of the study.
        where: it runs and writes.
        found: in the folder of recordings; None where birds are simulated.
        check_mlflow: raises an error that says why where MLflow cannot be written to, by URI and
            name of the experiment.
    """
    data_dir = None if found is None else found.root
    with ExitStack() as stack:
        tokens, folder_error, secret = None, "", secrets.token_hex(16)
        try:
            tokens = stack.enter_context(token_folder(where.out))
            (tokens / DRIVER).write_text(secret, "utf-8")
        except OSError as error:
            folder_error = error.strerror or str(error)
        question = Question(tokens, secret, data_dir)
        alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        refs = ask(question, alive.values())
        # While the nodes look around:
        tracking = _check_tracking(where.tracking_uri, config.name, check_mlflow)
        here = listing(data_dir) if data_dir else Listing()
        reports, silent, unread = [], [], []
        for node_id, answer in answers(refs).items():
            host = alive[node_id]["NodeManagerHostname"]
            if isinstance(answer, str):
                silent.append(f"{host} {answer}")
                continue
            reports.append(dataclasses.replace(answer, host=host))
            if tokens and not answer.folder_error and not has_answered(question, node_id):
                unread.append(host)
    nodes = [_node(node) for node in alive.values()]
    nodes += [kind for report in reports for kind in report.kinds]
    cluster = Cluster(where.address, nodes, reports, silent)
    at = f"the cluster at {where.address}" if where.address else "this machine"
    return [
        check_nodes(cluster),
        check_versions(config, cluster),
        check_work(config, nodes, at),
        check_shares(config, nodes),
        check_folder(where.out, folder_error, cluster, unread),
        check_recordings(data_dir, here, cluster),
        _check_disks(config, where.out, found, cluster, list(alive.values())),
        tracking,
        _check_data(config, found),
    ]


def _node(node: dict[str, Any]) -> Node:
    have = node["Resources"]
    return Node(node["NodeManagerHostname"], have.get("CPU", 0.0), have.get("GPU", 0.0))


def _check_disks(
    config: StudyConfig,
    out: Path,
    found: Survey | None,
    cluster: Cluster,
    alive: list[dict[str, Any]],
) -> Check:
    trial = kinds_of_work(config)[0]
    at_once = sum(node.n_at_once(trial.cpus, trial.gpus) for node in cluster.there)
    at_once = min(at_once, config.resources.max_concurrent_trials or at_once)
    data_bytes = found.n_bytes if found is not None else 0
    needed = disk_need.run_folder_need(config, data_bytes, max(at_once, 1))
    needed = max(0, needed - disk_need.already_written(RunPaths(out)))
    on_node: dict[str, int] = {}
    for node in alive:
        host, store = node["NodeManagerHostname"], node["Resources"].get("object_store_memory", 0)
        on_node[host] = max(on_node.get(host, 0), disk_need.node_need(config, store))
    return check_disks(disk_need.free_bytes(out), needed, on_node, cluster)


def _check_tracking(uri: str, experiment: str, check_mlflow: CheckMlflow) -> Check:
    try:
        check_mlflow(uri, experiment)
    except Exception as error:  # whatever is wrong with it, it belongs in the table
        return Check("MLflow", False, str(error) or type(error).__name__)
    return Check("MLflow", True, f"{without_password(uri)} can be written to")


def _check_data(config: StudyConfig, found: Survey | None) -> Check:
    """Hash of what the study begins with."""
    if found is None:
        content = {"simulation": dataclasses.asdict(config.data.simulation), "seed": config.seed}
        return Check("data", True, f"simulation {digest(content)[:HASH_CHARS]}")
    n_bird_ages = len(birds_and_ages(found.recordings))
    n = len(found.recordings)
    if not n_bird_ages:
        text = f"none of {n:,} sound files lies in <bird>/<age>/songs/ or <bird>/<age>/."
        return Check("data", False, text, "Move them there.")
    n_used = sum(one.is_used for one in found.recordings)
    text = f"{n_used:,} recordings of {n_bird_ages} birds and ages"
    return Check("data", True, f"{text}, hash {found.fingerprint[:HASH_CHARS]}")
