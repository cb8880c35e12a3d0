"""Ray Tune: trials as processes on the cluster, started again from their checkpoints."""

import fcntl
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from data_io.files import STORAGE_FULL
from study.cluster.nodes import n_once_grown
from study.config.tree import StudyConfig
from study.search.trial import TrialJob, run_trial
from study.search.trial_folder import TrialSpec
from study.search.watcher import StopOnFault, TrialWatcher
from study.training.data import TrialData

# Tune's own loggers would write each report three more times.
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
# Progress is ours to show, and Tune would print at each end of a search.
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
# Tune's record of a search is not used: the folders of the trials are the record.
os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1000000"
# Tune would catch Ctrl-C and come back as if the search were over.
os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"

# How the names of Tune's folders begin. Machines may share the temporary folder, and not the locks.
SCRATCH = f"birdsong-tune-{socket.gethostname()}-"
NEW_S = 60.0  # such a folder may not be locked yet

# Tune reads it at each start: trials that may wait for resources.
N_WAITING = "TUNE_MAX_PENDING_TRIALS_PG"


def launch(
    config: StudyConfig,
    data: TrialData,
    job: TrialJob,
    watcher: TrialWatcher,
    work: Searcher | list[TrialSpec],
    n_trials: int,
    scheduler: TrialScheduler | None = None,
) -> None:
    """Run trials until all are over.

    Args:
        config: of the study.
        data: what trials train on; one copy per node, which their processes read in place.
        job: what trials have in common.
        watcher: told of everything.
        work: who proposes trials, or the trials themselves.
        n_trials: at most, where ``work`` proposes.
        scheduler: who stops weak trials early; None for nobody.

    Raises:
        StorageFullError: nothing more can be written.
        UnusableFileError: the disk failed a trial at each retry.
    """
    search = config.search
    trainable = tune.with_parameters(run_trial, data=data, job=job)
    trainable = tune.with_resources(trainable, {"cpu": job.n_threads, "gpu": job.gpus})
    is_list = isinstance(work, list)
    n_at_once, n_waiting = limits(config, job)
    os.environ[N_WAITING] = str(n_trials if is_list else n_waiting)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    with _scratch() as scratch:
        tuner = tune.Tuner(
            trainable,
            param_space={"spec": tune.grid_search([vars(s) for s in work])} if is_list else {},
            tune_config=tune.TuneConfig(
                num_samples=1 if is_list else n_trials,
                max_concurrent_trials=n_at_once,
                search_alg=None if is_list else work,
                scheduler=scheduler,
                # Memory of a GPU is given back for sure only when a process ends.
                reuse_actors=job.gpus == 0,
                trial_name_creator=_name,
                trial_dirname_creator=_name,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=str(scratch),
                stop=StopOnFault(watcher),
                callbacks=[watcher],
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=search.max_retries),
            ),
        )
        try:
            tuner.fit()
        except Exception as error:
            if isinstance(error, OSError) and error.errno in STORAGE_FULL:
                watcher.stop_for(str(error))
            if watcher.fault is None:
                raise
    if watcher.fault is not None:
        raise watcher.fault


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for the block; those of processes that were killed are removed.

    Tune pickles errors of trials and reads them again: not in a folder that others can write to. It
    is locked while its process lives, whatever ends that.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*"):
        with suppress(OSError), _locked(left):  # in use, or not ours
            if time.time() - left.stat().st_mtime > NEW_S:
                shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=SCRATCH))
    with _locked(folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    opened = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(opened)


def limits(config: StudyConfig, job: TrialJob) -> tuple[int | None, int]:
    """Trials at once (None for as many as fit), and proposed trials that may wait for a node.

    A cluster starts nodes for trials that wait; with one, it would start them one after another.
    So as many wait as the sampler draws at random, since these learn nothing from results. Once
    the cluster has grown, none waits: a trial is proposed when there is room for it. A cluster that
    does not grow starts nothing for trials that wait.
    """
    at_most = config.resources.max_concurrent_trials
    grown = n_once_grown(job.n_threads, job.gpus)
    if not grown:
        return at_most, 1
    return min(grown, at_most or grown), config.search.n_startup_trials


def _name(trial: Trial) -> str:
    return str(trial.config["spec"]["name"])
