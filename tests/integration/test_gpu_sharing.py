"""GPUs of a real Ray, declared where there are none: who holds them, and who asks for them."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import ray
from ray.cluster_utils import Cluster as RayCluster

from data_io.recordings.table import Recording, Recordings
from models.mdgan.checkpoints import save_decoder
from models.mdgan.model import Mdgan
from models.mdgan.params import MdganParams
from study.base.console import Console
from study.base.paths import ROOT, RunPaths, Where
from study.cluster.gpus import gpus_per_trial
from study.cluster.tasks import TaskRunner, gpu_task
from study.config.reader import load_config
from study.config.tree import ResourcesConfig, StudyConfig
from study.encode import encode
from study.preflight.run import run_checks
from study.search import launch
from study.search.proposals import StudySearch
from study.search.rungs import Rungs
from study.search.search import trial_identity
from study.search.state import SearchState
from study.search.watcher import TrialWatcher
from tests.helpers import pretend_gpu
from tests.helpers.growing_cluster import cluster_file
from tests.helpers.no_mlflow import NoMlflow
from tests.helpers.stored import write_levelled

N_FRAMES = 16
PATIENCE_S = 90.0


class SmallSearch:
    """A search whose trials end at once."""

    def __init__(self, folder, monkeypatch, *overrides):
        self.config = load_config("smoke", None, list(overrides))
        self.state = SearchState(Rungs([], 2), 2)
        self._folder = folder
        monkeypatch.setattr(launch, "run_trial", pretend_gpu.trial)

    def run(self, gpus):
        """Run all trials, each with so many GPUs."""
        n = self.config.search.n_trials
        base, console = self.config.mdgan, Console(StringIO())
        search = StudySearch(self.config, self.state, self._folder)
        self.watcher = TrialWatcher(
            self.state, self._folder, base, NoMlflow(), trial_identity, console, n
        )
        job = SimpleNamespace(n_threads=1, gpus=gpus)
        launch.launch(self.config, None, job, self.watcher, search, n)


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


# Who holds a GPU


@pytest.fixture
def one_gpu(tmp_path):
    """A Ray with a GPU that is declared; gives the folder of what its users say."""
    folder = tmp_path / "users"
    folder.mkdir()
    variables = {"PYTHONPATH": str(ROOT), pretend_gpu.FOLDER: str(folder)}
    hook = "tests.helpers.pretend_gpu.pretend"
    ray.init(
        address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": variables, "worker_process_setup_hook": hook},
    )  # fmt: skip
    yield folder
    ray.shutdown()


def test_the_process_that_measured_is_gone_when_the_first_trial_begins(
    one_gpu, tmp_path, monkeypatch
):
    config = StudyConfig(resources=ResourcesConfig(gpus_per_trial="auto"))
    share = gpus_per_trial(config)
    measured = list(pretend_gpu.users(one_gpu))
    assert share.gpus == 0.5  # as there are two CPUs
    assert len(measured) == 1
    assert not psutil.pid_exists(measured[0])
    # The first trial takes the whole of it, so it must be free.
    SmallSearch(tmp_path / "search", monkeypatch, "search.n_trials=1").run(1)
    found = pretend_gpu.users(one_gpu)
    assert len(found) == 2
    assert found[measured[0]] == []
    assert [alive for pid, alive in found.items() if pid not in measured] == [[]]


def test_a_process_ends_with_its_task_where_it_has_a_gpu_and_is_used_again_where_not(one_gpu):
    def processes(gpus):
        task = gpu_task(lambda: os.getpid(), gpus, num_cpus=2)
        return [ray.get(task.remote()) for _ in range(3)]

    assert len(set(processes(0.5))) == 3
    assert len(set(processes(0))) == 1


def test_encoding_keeps_no_gpu(one_gpu, tmp_path):
    recordings = [Recording("a", age, int(age), None, f"a/{age}/songs/1.wav", n_frames=160,
                            split="training") for age in ("20", "60", "90")]  # fmt: skip
    paths = RunPaths(tmp_path / "run")
    for one in recordings:
        sound = np.ones((129, 160), np.float32)
        write_levelled(paths.spectrograms, one.bird, one.age, [(one.path, sound)])
    params = MdganParams(latent_dim=2, dense_width=8, n_components=8, disc_width=2)
    paths.best.mkdir()
    save_decoder(Mdgan(params, N_FRAMES, 0), paths.best, {"params": dataclasses.asdict(params)})
    config = StudyConfig(resources=ResourcesConfig(gpus_per_encode=1))
    assert (
        encode(config, Recordings.from_rows(recordings), paths, TaskRunner(), Console(StringIO()))
        == 3 * 37  # of 160 frames, one every 4
    )
    used = pretend_gpu.users(one_gpu)
    assert len(used) == 3
    wait_until(lambda: not any(map(psutil.pid_exists, used)))


@pytest.mark.parametrize("gpus", [1.0, 0.0])
def test_a_driver_that_is_too_old_is_refused_before_trials_start_where_gpus_are_asked_for(
    one_gpu, tmp_path, gpus
):
    config = StudyConfig(resources=ResourcesConfig(gpus_per_trial=gpus))
    where = Where(tmp_path / "run", None, f"sqlite:///{tmp_path / 'mlflow.db'}")
    bad = [check for check in run_checks(config, where, None) if not check.is_ok]
    assert [check.name for check in bad] == (["versions"] if gpus else [])
    for check in bad:
        assert "the driver is too old for torch's CUDA 13.0 (driver 535.183.01" in check.text
        assert "Install driver 580 or newer" in check.remedy


# Who asks for GPUs


@dataclasses.dataclass
class GrowingCluster:
    """A Ray without GPUs; ``grow`` adds a node with eight."""

    head: RayCluster
    new: subprocess.Popen | None = None

    def grow(self):
        start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block",
                 f"--address={self.head.address}", "--num-cpus=8", "--num-gpus=8",
                 "--disable-usage-stats"]  # fmt: skip
        quiet = subprocess.DEVNULL
        self.new = subprocess.Popen(start, stdout=quiet, stderr=quiet, start_new_session=True)


@pytest.fixture
def cluster_without_gpus(tmp_path, monkeypatch, request):
    """A Ray that says that it may start nodes with eight GPUs in all, or no nodes."""
    temp = Path(tempfile.mkdtemp(prefix="gpus", dir="/tmp"))  # sockets need short names
    monkeypatch.setenv("RAY_FAKE_CLUSTER", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv(pretend_gpu.FOLDER, str(tmp_path))
    head = {"num_cpus": 1, "temp_dir": str(temp), "include_dashboard": False}
    if request.param:
        file = tmp_path / "cluster.yaml"
        spot = {"resources": {"CPU": 1, "GPU": 1}, "node_config": {}, "max_workers": 8}
        file.write_text(json.dumps(cluster_file(spot)))
        head["autoscaling_config"] = str(file)
    cluster = GrowingCluster(RayCluster(initialize_head=True, head_node_args=head))
    ray.init(cluster.head.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    if cluster.new is not None:
        os.killpg(cluster.new.pid, signal.SIGTERM)
        cluster.new.wait(60)
    cluster.head.shutdown()
    shutil.rmtree(temp, ignore_errors=True)


def n_waiting():
    return sum(group["state"] == "PENDING" for group in ray.util.placement_group_table().values())


@pytest.mark.parametrize(
    ("cluster_without_gpus", "n_trials", "expected"),
    [(True, 9, 8), (False, 3, 1)],
    indirect=["cluster_without_gpus"],
)
def test_a_cluster_that_may_grow_is_asked_for_all_trials_that_it_can_run_at_once(
    cluster_without_gpus, tmp_path, monkeypatch, n_trials, expected
):
    counts = f"search.n_trials={n_trials}", "search.n_startup_trials=10"
    search = SmallSearch(tmp_path / "search", monkeypatch, *counts)
    waiting = []

    def look_then_grow():
        try:
            wait_until(lambda: n_waiting() > 0)
            for _ in range(20):
                waiting.append(n_waiting())
                time.sleep(0.1)
            cluster_without_gpus.grow()
            wait_until(lambda: search.state.n_ended == n_trials)
        except BaseException as error:
            search.watcher.stop_for(repr(error))

    watching = threading.Thread(target=look_then_grow, daemon=True)
    watching.start()
    search.run(1)
    watching.join()
    assert max(waiting) == expected
    assert search.state.n_ended == n_trials
