"""Ray tasks over a list of work, with a limit on tasks at a time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import ray

from study.base import stopping
from study.base.errors import StudyError

# Ray starts a task again this many times when its worker dies. It is Ray's own default. If memory
# runs out, Ray would start it again for ever; `connected` sets the same limit for that case.
MAX_RETRIES = 3


class TaskError(StudyError):
    """A task failed; the message names it, the cause and the remedy."""


def n_cores() -> int:
    """Number of cores of the connected cluster now."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def gpu_task(function: Callable[..., Any], gpus: float, **options: Any) -> Any:
    """Make a Ray task whose process ends with it where it has (part of) a GPU.

    A process that has used a GPU keeps memory there, and keeps to that GPU: another task in it
    would not see the GPU that Ray gives it. Ray ends such processes (``max_calls=1``) only where it
    hears of the GPU here; ``.options(num_gpus=...)`` comes too late
    (ray-project/ray issue 29624).

    Args:
        function: of the task.
        gpus: GPUs that it takes; 0 for none.
        options: others of ``ray.remote``.
    """
    return ray.remote(num_gpus=gpus, **options)(function)


class TaskRunner:
    """Runs tasks on the connected cluster, with a limit on tasks at a time.

    Args:
        max_tasks: that may run at once (``resources.max_tasks``); None for as many as there are
            cores.
    """

    def __init__(self, max_tasks: int | None = None):
        self._max_tasks = max_tasks

    def run(
        self,
        submit: Callable[[Any], ray.ObjectRef],
        work: Sequence[Any],
        on_result: Callable[[Any, Any], Iterable[Any] | None],
        describe: Callable[[Any], str],
    ) -> None:
        """Run a task for every item of ``work``, in order.

        Args:
            submit: starts the task of an item.
            work: the items; give the longest first.
            on_result: called in the driver with an item and its result, in order of completion. It
                returns more items, which come before the waiting ones, or None.
            describe: names an item, for an error.

        Raises:
            TaskError: a task failed, or its worker died again at every retry.
            Stopped: a stop was asked for.
        """
        under_way: dict[ray.ObjectRef, Any] = {}
        waiting = list(reversed(work))
        while waiting or under_way:
            # Two tasks per core, one that runs and one that waits; the cluster may have grown.
            limit = min(2 * n_cores(), self._max_tasks or sys.maxsize)
            while waiting and len(under_way) < limit:
                item = waiting.pop()
                under_way[submit(item)] = item
            ready, _ = ray.wait(list(under_way), num_returns=1)
            item = under_way.pop(ready[0])
            try:
                result = ray.get(ready[0])
            except ray.exceptions.RayError as error:
                _keep_finished(under_way, on_result)
                if stop := stopping.cause(error):  # the task's process was told to stop as well
                    raise stop from error
                raise _task_error(describe(item), error) from error
            waiting += reversed(list(on_result(item, result) or ()))
        stopping.check()


def _keep_finished(
    under_way: dict[ray.ObjectRef, Any], on_result: Callable[[Any, Any], Any]
) -> None:
    """Keep the results of other finished tasks after a failure, so that none runs again."""
    finished, _ = ray.wait(list(under_way), num_returns=max(1, len(under_way)), timeout=0)
    for ref in finished:
        with suppress(ray.exceptions.RayError):
            on_result(under_way[ref], ray.get(ref))


def _task_error(what: str, error: ray.exceptions.RayError) -> TaskError:
    if isinstance(error, ray.exceptions.RayTaskError):
        cause = error.cause or error
        return TaskError(
            f"{what} failed: {type(cause).__name__}: {cause}. What was done before is kept: once "
            "you remove the cause, the same command goes on from there."
        )
    cause_line = str(error).strip().splitlines()[0]
    return TaskError(
        f"{what} failed: its worker process died, and again at each of {MAX_RETRIES} retries "
        f"({type(error).__name__}: {cause_line}). What was done before is kept: the same command "
        "goes on from there. If memory ran out, let fewer tasks run at once: "
        f"resources.max_tasks=1. Ray's logs are in {_logs()}, on the machine of the process."
    )


def _logs() -> str:
    """Folder of the logs of this session of Ray; nodes may keep theirs elsewhere."""
    session = ray.get_runtime_context()
    try:
        return f"{session.get_temp_dir()}/{session.get_session_name()}/logs"
    except AttributeError:  # a client of a cluster (ray://) does not know it
        return "session_latest/logs of its folder, by default /tmp/ray"
