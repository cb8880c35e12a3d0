"""All that a study needs, checked before it begins: it fails in seconds, not in the night."""

import fcntl
import secrets
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ray

from data_io.names.listing import Survey
from study.base.console import Console
from study.base.paths import RunPaths, Where, without_password
from study.cluster.nodes import Node
from study.cluster.surroundings import Surroundings
from study.config.tree import StudyConfig
from study.preflight import disk_need
from study.preflight.capacity import check_resources, demands
from study.preflight.check import Check, require
from study.preflight.mlflow_check import check_server
from study.preflight.node_checks import (
    Cluster,
    check_data,
    check_disks,
    check_folder,
    check_nodes,
    check_versions,
)
from study.preflight.node_probe import (
    DRIVER,
    Question,
    answers,
    ask,
    has_answered,
    sample,
    token_folder,
)


def preflight(
    config: StudyConfig,
    where: Where,
    found: Survey | None,
    here: Surroundings | None,
    console: Console,
) -> None:
    """Let a study go on where all is well, with one line; called once connected.

    Raises:
        PreflightError: it holds every cause with its remedy.
    """
    require(run_checks(config, where, found, here), console)


def run_checks(
    config: StudyConfig, where: Where, found: Survey | None, here: Surroundings | None = None
) -> list[Check]:
    """Look at all that a study needs; called once connected. Nothing is left of it anywhere.

    Args:
        config: of the study.
        where: it runs and writes.
        found: in the folder of recordings; None where birds are simulated.
        here: what Ray was given on this machine; None on a cluster.
    """
    paths = found.recordings.column("path").tolist() if found else []
    recordings = sample(found.root, paths) if found else None
    with ExitStack() as stack:
        tokens, folder_error, secret = None, "", secrets.token_hex(16)
        try:
            tokens = stack.enter_context(token_folder(where.out))
            (tokens / DRIVER).write_text(secret, "utf-8")
            folder_error = lock_fault(tokens / DRIVER)
        except OSError as error:
            folder_error = error.strerror or str(error)
        question = Question(tokens, secret, recordings, config.resources.wants_gpus)
        alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        refs = ask(question, alive.values())
        mlflow = _check_mlflow(where.tracking_uri, config.name)  # while the nodes look around
        reports, silent, unread = [], [], []
        for node_id, answer in answers(refs).items():
            if isinstance(answer, str):
                silent.append(f"{alive[node_id]['NodeManagerHostname']} {answer}")
                continue
            reports.append(answer)
            if tokens and not answer.folder_error and not has_answered(question, node_id):
                unread.append(answer.host)
    nodes = [_node(node) for node in alive.values()]
    nodes += [kind for report in reports for kind in report.kinds]
    cluster = Cluster(where.address, nodes, reports, silent)
    at = f"the cluster at {where.address}" if where.address else "this machine"
    stores = [node["Resources"].get("object_store_memory", 0) for node in alive.values()]
    return [
        check_nodes(cluster),
        *([check_surroundings(here)] if here else []),
        check_versions(config, cluster),
        check_resources(config, nodes, at),
        check_folder(where.out, folder_error, cluster, unread),
        check_disks(
            disk_need.free_bytes(where.out),
            _still_needed(config, where.out, found, cluster),
            disk_need.node_need(config, min(stores, default=0)),
            cluster,
        ),
        mlflow,
        check_data(config, found, cluster),
    ]


def check_surroundings(here: Surroundings) -> Check:
    """What Ray was given on this machine, with what was wrong as a hint."""
    text = f"Ray's files, sockets and locks in {here.folder}/ray"
    return Check("surroundings", True, text, " ".join(here.notes))


def lock_fault(path: Path) -> str:
    """Why a file cannot be locked; "" where it can. A study locks its run folder."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return f"its file system has no locks ({error.strerror or error})"
    return ""


def _node(node: dict[str, Any]) -> Node:
    have = node["Resources"]
    return Node(node["NodeManagerHostname"], have.get("CPU", 0.0), have.get("GPU", 0.0))


def _still_needed(config: StudyConfig, out: Path, found: Survey | None, cluster: Cluster) -> int:
    """Bytes that the study will yet write to its run folder."""
    trial = demands(config)[0]
    at_once = sum(node.n_at_once(trial.cpus, trial.gpus) for node in cluster.there)
    at_once = min(at_once, config.resources.max_concurrent_trials or at_once)
    needed = disk_need.run_folder_need(config, found.n_bytes if found else 0, max(at_once, 1))
    return max(0, needed - disk_need.already_written(RunPaths(out)))


def _check_mlflow(uri: str, experiment: str) -> Check:
    try:
        check_server(uri, experiment)
    except Exception as error:  # whatever is wrong with it, it belongs in the table
        return Check("MLflow", False, str(error) or type(error).__name__)
    return Check("MLflow", True, f"{without_password(uri)} can be written to")
