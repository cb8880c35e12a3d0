"""The view from one node of the cluster: the run folder, the recordings, its disk, its versions.

`look_around` runs on every node; it imports little, so that a bad node is named soon.
"""

import importlib.metadata
import importlib.util
import platform
import runpy
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.cluster.gpu_facts import GpuFacts, gpu_facts
from study.cluster.nodes import Node, is_head, read_node_kinds

PATIENCE_S = 3.0  # a file server may show a new file late
# For an answer; a node that still unpacks the project's code is slow, not bad.
NODE_TIMEOUT_S = 60.0
DRIVER = "driver"
N_SAMPLED = 100  # recordings that every node looks for: the time must not grow with their number


@dataclass(frozen=True)
class FileSizes:
    """Some files of a folder, and how large each is.

    Attributes:
        root: the folder.
        n_bytes: of each file, by its path below ``root``.
    """

    root: Path
    n_bytes: dict[str, int]


@dataclass(frozen=True)
class Question:
    """The question of the driver to every node.

    Attributes:
        tokens: folder in the run folder, made for this; None where the driver could not make it.
        secret: content of the driver's file in it.
        recordings: that the driver sees; None where birds are simulated.
        wants_gpus: whether the study asks for any.
    """

    tokens: Path | None
    secret: str
    recordings: FileSizes | None
    wants_gpus: bool = False


@dataclass(frozen=True)
class NodeReport:
    """The answer of a node.

    Attributes:
        host: name of the node.
        ray, python: versions.
        torch: version; empty where it is not installed.
        torch_has_gpus: whether that torch was built for GPUs.
        folder_error: why the run folder cannot be shared with this node; empty where it can.
        recordings_error: how the recordings differ from the driver's; empty where they do not.
        temp_dir: of Ray's own files.
        temp_free: bytes that are free there.
        kinds: of nodes that the cluster may yet start; the head alone knows them.
        gpus: what its GPUs, driver and torch are; None where none is asked for, or it has none.
    """

    host: str
    ray: str
    python: str
    torch: str
    torch_has_gpus: bool
    folder_error: str
    recordings_error: str
    temp_dir: Path
    temp_free: int
    kinds: tuple[Node, ...] = ()
    gpus: GpuFacts | None = None


@contextmanager
def token_folder(out: Path) -> Iterator[Path]:
    """Make a folder of our own in the run folder for the block; nothing is left of it afterwards.

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
        host = node["NodeManagerHostname"]
        has_gpus = bool(node["Resources"].get("GPU"))
        about = (question, node_id, host, is_head(node), has_gpus)
        refs[node_id] = task.options(**options).remote(*about)
    return refs


def answers(
    refs: dict[str, ray.ObjectRef], timeout_s: float = NODE_TIMEOUT_S
) -> dict[str, NodeReport | str]:
    """Give the report of every node, or why it gave none."""
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


def look_around(
    question: Question, node_id: str, host: str, is_head: bool, has_gpus: bool
) -> NodeReport:
    """Answer on a node."""
    temp_dir = Path(ray._private.worker._global_node.get_temp_dir_path())
    version, is_for_gpus = torch_build()
    return NodeReport(
        host=host,
        ray=ray.__version__,
        python=platform.python_version(),
        torch=version,
        torch_has_gpus=is_for_gpus,
        folder_error=answer_token(question, node_id),
        recordings_error=differences(question.recordings) if question.recordings else "",
        temp_dir=temp_dir,
        temp_free=shutil.disk_usage(temp_dir).free,
        kinds=tuple(read_node_kinds()) if is_head else (),
        gpus=gpu_facts() if question.wants_gpus and has_gpus and is_for_gpus else None,
    )


def answer_token(question: Question, node_id: str) -> str:
    """Read the driver's file and write one beside it; give "" or why that cannot be done."""
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
    if question.tokens is None:
        return False
    try:
        return _read_patiently(question.tokens / node_id) == question.secret
    except OSError:
        return False


def _read_patiently(path: Path) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return path.read_text("utf-8")


def sample(root: Path, paths: Sequence[str]) -> FileSizes:
    """Ask `N_SAMPLED` files for their size, evenly from the first path to the last."""
    n = min(N_SAMPLED, len(paths))
    chosen = {paths[i * (len(paths) - 1) // max(n - 1, 1)] for i in range(n)}
    return FileSizes(root, {path: _size(root / path) for path in sorted(chosen)})


def differences(expected: FileSizes) -> str:
    """Say how files here differ from those expected; "" where they do not."""
    if not expected.root.is_dir():
        return "does not see the folder"
    other = [path for path, size in expected.n_bytes.items() if _size(expected.root / path) != size]
    if not other:
        return ""
    return (
        f"{len(other)} of {len(expected.n_bytes)} files looked at are missing or have another size "
        f"({other[0]})"
    )


def _size(path: Path) -> int:
    """Bytes of a file; -1 where it cannot be asked."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def torch_build() -> tuple[str, bool]:
    """Give version and whether it was built for GPUs, without the seconds of importing torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return "", False
    facts = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    return importlib.metadata.version("torch"), bool(facts.get("cuda") or facts.get("hip"))
