"""What one node of the cluster sees: the run folder, the recordings, its disk, its versions.

`look_around` runs on every node; it imports little, so that a bad node is named soon.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import runpy
import shutil
import socket
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.cluster.nodes import Node, is_head, read_node_kinds

MAX_LISTED = 20_000  # sound files whose names are compared: a listing must not take minutes
PATIENCE_S = 3.0  # a file server may show a new file late
NODE_TIMEOUT_S = (
    60.0  # for an answer; a node that still unpacks the project's code is slow, not bad
)
DRIVER = "driver"


@dataclass(frozen=True)
class Question:
    """What the driver asks every node.

    Attributes:
        tokens: folder in the run folder, made for this; None where the driver could not make it.
        secret: content of the driver's file in it.
        data_dir: of the recordings; None where birds are simulated.
    """

    tokens: Path | None
    secret: str
    data_dir: Path | None


@dataclass(frozen=True)
class Listing:
    """Sound files below a folder, the first `MAX_LISTED` at most.

    Attributes:
        n: how many.
        sha256: hash of their names.
        error: why the folder cannot be listed.
    """

    n: int = 0
    sha256: str = ""
    error: str = ""


@dataclass(frozen=True)
class NodeReport:
    """The answer of a node.

    Attributes:
        host: name of the node.
        ray, python: versions.
        torch: version; empty where it is not installed.
        torch_has_gpus: whether that torch was built for GPUs.
        folder_error: why the run folder cannot be shared with this node; empty where it can.
        listing: of the recordings.
        temp_dir: of Ray's own files.
        temp_free: bytes that are free there.
        kinds: of nodes that the cluster may yet start; the head alone knows them.
    """

    host: str
    ray: str
    python: str
    torch: str
    torch_has_gpus: bool
    folder_error: str
    listing: Listing
    temp_dir: Path
    temp_free: int
    kinds: tuple[Node, ...] = ()


@contextmanager
def token_folder(out: Path) -> Iterator[Path]:
    """A folder of our own in the run folder for the block; nothing is left of it afterwards.

    Raises:
        OSError: it cannot be made.
    """
    made = [path for path in (out, *out.parents) if not path.exists()]
    # Were the command killed meanwhile, a study would remove what has such a name.
    tokens = out / f".preflight.{uuid.uuid4().hex[:8]}.tmp"
    try:
        tokens.mkdir(parents=True)
        yield tokens
    finally:
        shutil.rmtree(tokens, ignore_errors=True)
        for path in made:
            with suppress(OSError):  # somebody else may have begun to use it
                path.rmdir()


def ask(question: Question, nodes: Iterable[dict[str, Any]]) -> dict[str, ray.ObjectRef]:
    """Start `look_around` on nodes, as listed by ``ray.nodes()``; give the answers to come by id.

    No CPU is asked for, so that it does not wait for work under way.
    """
    task = ray.remote(look_around)
    refs = {}
    for node in nodes:
        node_id = node["NodeID"]
        there = NodeAffinitySchedulingStrategy(node_id, soft=False)
        options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}
        refs[node_id] = task.options(**options).remote(question, node_id, is_head(node))
    return refs


def answers(
    refs: dict[str, ray.ObjectRef], timeout_s: float = NODE_TIMEOUT_S
) -> dict[str, NodeReport | str]:
    """The report of every node, or why it gave none."""
    ray.wait(list(refs.values()), num_returns=len(refs), timeout=timeout_s)
    found: dict[str, NodeReport | str] = {}
    for node_id, ref in refs.items():
        try:
            found[node_id] = ray.get(ref, timeout=0)
        except ray.exceptions.GetTimeoutError:
            ray.cancel(ref, force=True)
            found[node_id] = f"gave no answer within {timeout_s:.0f} s"
        except ray.exceptions.RayError as error:
            found[node_id] = f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"
    return found


def look_around(question: Question, node_id: str, is_head: bool) -> NodeReport:
    """Answer on a node."""
    temp_dir = Path(ray._private.worker._global_node.get_temp_dir_path())
    version, has_gpus = torch_build()
    return NodeReport(
        host=socket.gethostname(),
        ray=ray.__version__,
        python=platform.python_version(),
        torch=version,
        torch_has_gpus=has_gpus,
        folder_error=_answer_token(question, node_id),
        listing=listing(question.data_dir) if question.data_dir else Listing(),
        temp_dir=temp_dir,
        temp_free=shutil.disk_usage(temp_dir).free,
        kinds=tuple(read_node_kinds()) if is_head else (),
    )


def _answer_token(question: Question, node_id: str) -> str:
    """Read the driver's file and write one beside it; "" or why that cannot be done."""
    if question.tokens is None:
        return ""
    try:
        if _read_patiently(question.tokens / DRIVER) != question.secret:
            return "holds another file than the driver wrote"
        (question.tokens / node_id).write_text(question.secret, "utf-8")
    except FileNotFoundError:
        return "does not see it: the folder is not on storage that it shares with the driver"
    except OSError as error:
        return f"cannot write to it: {error.strerror}"
    return ""


def has_answered(question: Question, node_id: str) -> bool:
    """Whether the driver can read what a node wrote."""
    try:
        return (
            question.tokens is not None
            and _read_patiently(question.tokens / node_id) == question.secret
        )
    except OSError:
        return False


def _read_patiently(path: Path) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return path.read_text("utf-8")


def listing(root: Path) -> Listing:
    """Names of sound files below ``root``, in an order that is the same on every node."""
    if not root.is_dir():
        return Listing(error="is not there")
    names, n = hashlib.sha256(), 0
    errors: list[OSError] = []
    seen = set()
    for folder, subfolders, files in os.walk(root, onerror=errors.append, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        inside = Path(folder).relative_to(root)
        for name in sorted(files):
            if name.lower().endswith(".wav") and not name.startswith("."):
                names.update(os.fsencode(inside / name) + b"\n")
                n += 1
        if n >= MAX_LISTED:
            break
    if not n and errors:
        return Listing(error=f"cannot be listed: {errors[0].strerror}")
    return Listing(n, names.hexdigest())


def torch_build() -> tuple[str, bool]:
    """Version of torch and whether it was built for GPUs, without the seconds of importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return "", False
    facts = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    return importlib.metadata.version("torch"), bool(facts.get("cuda") or facts.get("hip"))
