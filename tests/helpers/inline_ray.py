"""A whole study inside this process, without Ray: every stage in seconds, and nothing in parallel.

Ray's tasks run when somebody waits for them; trials run one after the other, and the watcher, the
scheduler and the searcher are told what Ray Tune would tell them. MLflow is one in memory. All else
is the study's own code. Before it computes, a process that forks must set one thread: `forked`.
"""

import copy
import io
import os
import platform
import tempfile
import traceback
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from types import SimpleNamespace
from unittest import mock

import ray
import torch
from ray.remote_function import RemoteFunction
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from study.search.trial import run_trial
from tests.helpers.memory_mlflow import MemoryMlflow

N_CPUS = 2.0
NODE = {
    "NodeID": 28 * "00",
    "Alive": True,
    "NodeManagerHostname": "here",
    "Resources": {"CPU": N_CPUS, "node:__internal_head__": 1.0, "object_store_memory": 2e9},
}


def inline_command(words, mlflow=None):
    """Run the command with these words; give its exit code and what it printed."""
    from study.run_tune import main

    text = io.StringIO()
    with inline_ray(mlflow), redirect_stdout(text), redirect_stderr(text):
        code = main([str(word) for word in words])
    return code, text.getvalue()


def forked(work):
    """Run ``work`` in a child process; give its exit code, 1 where it raised anything.

    This process must not have used PyArrow's threads or more than one of torch's.
    """
    torch.set_num_threads(1)
    if (pid := os.fork()) == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Ref:
    """A task that runs once somebody waits for it, or a value."""

    def __init__(self, work):
        self._work = work
        self._error = None
        self.is_done = False

    def run(self):
        if self.is_done:
            return
        self.is_done = True
        work, self._work = self._work, None
        try:
            self._value = work()
        except Exception as error:
            self._error = ray.exceptions.RayTaskError("inline", traceback.format_exc(), error)

    def get(self):
        self.run()
        if self._error is not None:
            raise self._error
        return self._value


def _submit(function, args, kwargs, **options):
    def work():
        values = [one.get() if isinstance(one, Ref) else one for one in args]
        named = {k: one.get() if isinstance(one, Ref) else one for k, one in kwargs.items()}
        return function._function(*values, **named)

    return Ref(work)


def _get(refs, timeout=None):
    return [ref.get() for ref in refs] if isinstance(refs, list) else refs.get()


def _wait(refs, num_returns=1, timeout=None):
    ready = [ref for ref in refs if ref.is_done][:num_returns]
    if timeout != 0:
        for ref in [ref for ref in refs if not ref.is_done][: num_returns - len(ready)]:
            ref.run()
            ready.append(ref)
    return ready, [ref for ref in refs if ref not in ready]


@contextmanager
def inline_ray(mlflow=None):
    """For the block, Ray is this process, and MLflow one in memory."""
    memory = MemoryMlflow() if mlflow is None else mlflow
    torch.set_num_threads(1)
    node = SimpleNamespace(get_temp_dir_path=tempfile.gettempdir, node_ip_address="127.0.0.1")
    with ExitStack() as stack:
        for name, value in {
            "ray.init": lambda **options: None,
            "ray.shutdown": lambda: None,
            "ray.put": lambda value: Ref(lambda: value),
            "ray.get": _get,
            "ray.wait": _wait,
            "ray.cancel": lambda ref, force=False: None,
            "ray.nodes": lambda: [NODE],
            "ray.cluster_resources": lambda: dict(NODE["Resources"]),
            "ray._private.worker._global_node": node,
            "study.cluster.nodes.read_node_kinds": lambda: [],
            "study.preflight.node_probe.read_node_kinds": lambda: [],
            "study.preflight.run.check_server": lambda uri, experiment: None,
            "study.tracking.tracker.answering_client": nullcontext,
            "study.tracking.tracker.Mlflow": lambda uri, experiment: memory,
            "study.search.search.launch": inline_launch,
            "study.search.watcher.last_words": _Trial.last_words,
        }.items():
            stack.enter_context(mock.patch(name, value))
        stack.enter_context(mock.patch.object(RemoteFunction, "_remote", _submit))
        yield


class _Over(BaseException):  # noqa: N818
    """Ends the function of a trial, as Tune does between two reports."""


class _Trial:
    def __init__(self, trial_id, config):
        self.trial_id, self.config = trial_id, copy.deepcopy(config)
        self.last, self.error = {}, None

    def last_words(self):
        return f"{type(self.error).__name__}: {self.error}"


def inline_launch(config, data, job, watcher, work, n_trials, scheduler=None):
    """As `study.search.launch.launch`: one trial after the other."""
    searcher = None if isinstance(work, list) else work
    for i in range(n_trials):
        trial_id = f"inline-{i}"
        told = {"spec": vars(work[i])} if searcher is None else searcher.suggest(trial_id)
        if told == Searcher.FINISHED:
            break
        trial = _Trial(trial_id, told)
        _run_to_its_end(trial, data, job, watcher, searcher, scheduler, config.search.max_retries)
        if watcher.fault is not None:
            raise watcher.fault


def _run_to_its_end(trial, data, job, watcher, searcher, scheduler, max_retries):
    about = {"iteration": 0, "trials": [trial], "trial": trial}
    for n_failed in range(max_retries + 1):
        watcher.on_trial_start(**about)
        trial.error = _run_once(trial, data, job, watcher, searcher, scheduler, about)
        if trial.error is not None:
            if scheduler is not None:
                scheduler.on_trial_error(None, trial)
            if n_failed < max_retries:
                watcher.on_trial_recover(**about)
            continue
        if watcher.fault is None:
            if scheduler is not None:
                scheduler.on_trial_complete(None, trial, trial.last)
            if searcher is not None:
                searcher.on_trial_complete(trial.trial_id, result=trial.last)
        watcher.on_trial_complete(**about)
        return
    if searcher is not None:
        searcher.on_trial_complete(trial.trial_id, error=True)
    watcher.on_trial_error(**about)


def _run_once(trial, data, job, watcher, searcher, scheduler, about):
    """The function of a trial, up to its end or the scheduler's word; give what it raised."""
    driver_errors = []

    def report(result):
        try:
            is_over = _take_in(dict(result), trial, watcher, searcher, scheduler, about)
        except Exception as error:  # the driver's own: no failure of the trial
            driver_errors.append(error)
            raise _Over from error
        if is_over:
            raise _Over

    with mock.patch("ray.tune.report", report):
        try:
            run_trial(copy.deepcopy(trial.config), data, job)
        except _Over:
            if driver_errors:
                raise driver_errors[0] from None
        except Exception as error:
            return error
    return None


def _take_in(result, trial, watcher, searcher, scheduler, about):
    """Tell everybody of a report, in Tune's order; give whether the trial is over."""
    result["hostname"] = platform.node()
    decision = TrialScheduler.CONTINUE
    if scheduler is not None:
        decision = scheduler.on_trial_result(None, trial, result)
    if searcher is not None and decision != TrialScheduler.STOP:
        searcher.on_trial_result(trial.trial_id, result)
    watcher.on_trial_result(**about, result=result)
    trial.last = result
    return decision == TrialScheduler.STOP or watcher.fault is not None
