"""Connection to Ray: to a running cluster, or to one that this process starts here."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from study.base.errors import REFUSED, StudyError
from study.base.paths import ROOT
from study.cluster.tasks import MAX_RETRIES

# Workers need only the code of the project; the rest may be large or private.
_EXCLUDES = [
    ".git", ".venv", "runs", "mlflow", "tests", "benchmarks", "docs",
    ".mypy_cache", ".ruff_cache", ".pytest_cache",
]  # fmt: skip


class ResourceError(StudyError):
    """The cluster cannot give what the configuration asks for."""

    exit_code = REFUSED


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to Ray for the duration of the block.

    Args:
        address: of a running cluster, or "auto"; None starts Ray on this machine, for this
            process alone.

    Raises:
        ResourceError: there is no such cluster, or it refuses us.
    """
    _check_reachable(address)
    # One task, one core: numerical libraries must not start threads of their own.
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        runtime_env: dict[str, Any] = {"env_vars": {"PYTHONPATH": str(ROOT), **threads}}
        # Without "local", Ray would join any cluster that somebody runs on this machine.
        options |= {"address": "local", "include_dashboard": False, "num_cpus": os.cpu_count()}
    else:
        runtime_env = {"working_dir": str(ROOT), "excludes": _EXCLUDES, "env_vars": threads}
        options["address"] = address
    os.environ.setdefault("RAY_task_oom_retries", str(MAX_RETRIES))
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
    """Refuse an address where nothing listens; Ray itself would try for minutes."""
    if address is None or ":" not in address:
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise _unreachable(address, error) from error


def unused_gpus(gpus_per_trial: float) -> str:
    """A hint if the cluster has GPUs and trials get none of them; otherwise ""."""
    n_gpus = ray.cluster_resources().get("GPU", 0)
    if not n_gpus or gpus_per_trial:
        return ""
    return f"{n_gpus:g} GPUs are not used: resources.gpus_per_trial=auto shares them among trials"
