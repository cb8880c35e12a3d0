"""Connection to Ray: one that runs, or one of our own on this machine."""

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray

from study.config import StudyConfig
from study.paths import ROOT

# What workers need of the project is code; the rest may be large or private.
_EXCLUDES = [
    ".git", ".venv", "runs", "mlflow", "tests", "benchmarks", "docs",
    ".mypy_cache", ".ruff_cache", ".pytest_cache",
]  # fmt: skip


class ResourceError(RuntimeError):
    """The cluster cannot give what the configuration asks for."""


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to Ray for the time of the block.

    Args:
        address: of a running cluster, or "auto"; None starts Ray on this machine, for this
            process alone.

    Raises:
        ResourceError: there is no such cluster, or it does not let us in.
    """
    _check_reachable(address)
    # One task, one core: numerical libraries must not start threads of their own beside it.
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        runtime_env: dict[str, Any] = {"env_vars": {"PYTHONPATH": str(ROOT), **threads}}
        options |= {"include_dashboard": False, "num_cpus": os.cpu_count()}
    else:
        runtime_env = {"working_dir": str(ROOT), "excludes": _EXCLUDES, "env_vars": threads}
        options["address"] = address
    # Ray warns of a default that we do not rely on.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray.init(runtime_env=runtime_env, **options)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise _unreachable(address, error) from error
    try:
        yield
    finally:
        ray.shutdown()


def _unreachable(address: str | None, error: Exception) -> ResourceError:
    return ResourceError(
        f"Ray at {address or 'this machine'} cannot be reached: {error}. Start the cluster "
        "(ray up cluster.yaml), or leave out --address and RAY_ADDRESS to use this machine."
    )


def _check_reachable(address: str | None) -> None:
    """Refuse an address where nothing listens: Ray itself would try for minutes."""
    if address is None or ":" not in address:
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise _unreachable(address, error) from error


def check_resources(config: StudyConfig, address: str | None) -> None:
    """Check that every piece of work can run somewhere; called once connected.

    Raises:
        ResourceError: names what is asked for, what there is, and what to change.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = {
        "cpus_per_trial": ("CPU", float(config.resources.cpus_per_trial)),
        "gpus_per_trial": ("GPU", config.resources.gpus_per_trial),
        "gpus_per_encode": ("GPU", config.resources.gpus_per_encode),
    }
    where = f"the cluster at {address}" if address else "this machine"
    for key, (kind, amount) in wanted.items():
        largest = max((node.get(kind, 0.0) for node in nodes), default=0.0)
        if amount > largest:
            remedy = (
                f"Set resources.{key}={int(largest)}, or connect to a cluster that has them "
                "(--address)."
            )
            if kind == "GPU" and largest == 0:
                remedy += " A study on CPUs wants small nets: --preset demo."
            raise ResourceError(
                f"resources.{key} is {amount:g}, but no node of {where} has more than "
                f"{largest:g} {kind}s ({len(nodes)} nodes). {remedy}"
            )


def unused_gpus(config: StudyConfig) -> str:
    """A hint where there are GPUs and trials do not ask for them; "" where there is none."""
    n_gpus = ray.cluster_resources().get("GPU", 0)
    if not n_gpus or config.resources.gpus_per_trial:
        return ""
    return f"{n_gpus:g} GPUs are not used: resources.gpus_per_trial=1 gives one to each trial"


def n_cores() -> int:
    """Cores of the connected cluster as it is now."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def run_tasks(
    submit: Callable[[Any], ray.ObjectRef],
    work: Sequence[Any],
    on_result: Callable[[Any, Any], None],
    describe: Callable[[Any], str],
) -> None:
    """Run a task for every piece of ``work``, in order, with bounded numbers under way.

    Args:
        submit: starts the task of a piece.
        work: the pieces; give the longest first.
        on_result: called in the driver with a piece and its result, in order of completion.
        describe: a piece in words, for an error.
    """
    under_way: dict[ray.ObjectRef, Any] = {}
    waiting = list(reversed(work))
    while waiting or under_way:
        # Two for each core, one that runs and one that waits for it; a cluster may have grown.
        limit = 2 * n_cores()
        while waiting and len(under_way) < limit:
            piece = waiting.pop()
            under_way[submit(piece)] = piece
        ready, _ = ray.wait(list(under_way), num_returns=1)
        piece = under_way.pop(ready[0])
        try:
            result = ray.get(ready[0])
        except ray.exceptions.RayTaskError as error:
            raise RuntimeError(f"{describe(piece)} failed: {error.cause or error}") from error
        except ray.exceptions.RayError as error:
            raise RuntimeError(
                f"{describe(piece)} failed: {error}. If memory ran out, give fewer CPUs "
                "to Ray; then run the same command again."
            ) from error
        on_result(piece, result)
