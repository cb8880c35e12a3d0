"""Connection to Ray: to a running cluster, or to one that this process starts here."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray

from study.base import stopping
from study.base.paths import ROOT
from study.base.processes import end_processes, is_dead
from study.cluster.surroundings import ResourceError, Surroundings, surroundings
from study.cluster.tasks import MAX_RETRIES

# Workers need only the code of the project; the rest may be large or private.
_EXCLUDES = [
    ".git", ".venv", "runs", "mlflow", "tests", "benchmarks", "docs",
    ".mypy_cache", ".ruff_cache", ".pytest_cache",
]  # fmt: skip

_KEPT_FROM_RAY = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
# Without one of these Ray ends the driver after up to a minute, in C++ and without a word of ours.
_NEEDED = ("raylet", "gcs_server")
_LOOK_S = 0.5


@contextmanager
def connected(address: str | None) -> Iterator[Surroundings | None]:
    """Connect to Ray for the duration of the block.

    Args:
        address: of a running cluster, or "auto"; None starts Ray on this machine, for this
            process alone.

    Yields:
        What Ray was given on this machine; None for a cluster, whose nodes have their own.

    Raises:
        ResourceError: there is no such cluster, or it refuses us; or Ray cannot start here.
    """
    _check_reachable(address)
    here = surroundings() if address is None else None
    is_over = threading.Event()
    try:
        _start(address, here)
        stopping.reclaim()
        if here is not None:
            needed = {process: process.name() for process in stopping.started()}
            needed = {process: name for process, name in needed.items() if name in _NEEDED}
            watch = threading.Thread(target=_watch, args=(needed, is_over), daemon=True)
            watch.start()
        yield here
    except BaseException as error:
        # Ray's processes may have got a signal before us: what failed then is the stop.
        stop = stopping.cause(error)
        if stop is None or stop is error:
            raise
        raise stop from error
    finally:
        is_over.set()
        # A Ray of our own that is to go is ended with the command: without its processes, which may
        # have got the signal too, it would take many seconds to close.
        if here is None:
            with stopping.held():
                ray.shutdown()
        elif not stopping.ends_process():
            with stopping.held(), _ended_when_told():
                ray.shutdown()


def _watch(needed: dict[psutil.Process, str], is_over: threading.Event) -> None:
    """Stop the command when a process of Ray has died without which nothing goes on."""
    while not is_over.wait(_LOOK_S):
        for process, name in needed.items():
            # After a signal to every process it is the signal that stops the command.
            if is_dead(process) and not is_over.wait(stopping.SETTLE_S):
                end_processes(_workers_of(process.pid))
                stopping.give_up(
                    f"Ray's {name} on this machine has died, perhaps for want of memory"
                )
                return


def _workers_of(raylet: int) -> Iterator[psutil.Process]:
    """Processes that a raylet started: when it is dead they are nobody's children."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("RAY_RAYLET_PID") == str(raylet):
                yield process


def _start(address: str | None, here: Surroundings | None) -> None:
    # One task, one core: numerical libraries must not start threads of their own.
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if here is not None:
        runtime_env: dict[str, Any] = {"env_vars": {"PYTHONPATH": str(ROOT), **threads}}
        # Without "local", Ray would join any cluster that somebody runs on this machine.
        options |= {"address": "local", "include_dashboard": False, "num_cpus": os.cpu_count()}
        options |= here.options
    else:
        runtime_env = {"working_dir": str(ROOT), "excludes": _EXCLUDES, "env_vars": threads}
        options["address"] = address
    os.environ.setdefault("RAY_task_oom_retries", str(MAX_RETRIES))
    # Ray warns of a default that we do not rely on.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Its handler would end the command on SIGTERM, with a trace of C++ and nothing closed.
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
    # A signal to every process would take Ray's from under a study that is still closing, and with
    # its raylet Ray ends the driver, too. So they have these signals blocked, as Ray itself blocks
    # SIGINT for them. Here another thread takes them meanwhile.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _KEPT_FROM_RAY if here else ())
    try:
        ray.init(runtime_env=runtime_env, **options)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise _unstarted(here, error) if here else _unreachable(address, error) from error
    except Exception as error:  # a process of Ray that does not come up is an Exception, no more
        if type(error) is not Exception or here is None:
            raise
        raise _unstarted(here, error) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@contextmanager
def _ended_when_told() -> Iterator[None]:
    """End Ray's processes as soon as Ray tells them to end in the block.

    They do not hear it, and Ray would wait a second for each before it kills it.
    """
    started = stopping.started()
    is_over = threading.Event()

    def end() -> None:
        while not any(_is_told(process) for process in started):
            if is_over.wait(0.02):
                return
        end_processes(started)

    thread = threading.Thread(target=end, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _is_told(process: psutil.Process) -> bool:
    """Whether SIGTERM waits for a process (Linux tells)."""
    try:
        text = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return False
    waiting = int(text.partition("ShdPnd:")[2].split()[0], 16)
    return bool(waiting >> (signal.SIGTERM - 1) & 1)


def _unstarted(here: Surroundings, error: Exception) -> ResourceError:
    return ResourceError(
        f"Ray cannot start on this machine: {str(error).strip() or type(error).__name__}. Its logs "
        f"in {here.folder}/ray/session_latest/logs may say more; --address takes a cluster instead."
    )


def _unreachable(address: str | None, error: Exception) -> ResourceError:
    return ResourceError(
        f"Ray at {address} cannot be reached: {error}. Start the cluster "
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
