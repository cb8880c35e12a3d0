"""The checks before a study, by the command and on two nodes: nothing is left of them."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster as RayCluster

from data_io.names.listing import survey
from study.base.console import WIDTH
from study.base.paths import Where
from study.cluster.connection import connected
from study.config.tree import DataConfig, ResourcesConfig, StudyConfig
from study.preflight.run import run_checks
from tests.helpers.growing_cluster import cluster_file

pytestmark = pytest.mark.integration
CONFIG = StudyConfig()


# The command; before this process connects to the cluster below


@pytest.fixture
def doctor(tmp_path, monkeypatch, capsys):
    """The command in this process, in an empty folder; gives exit code and what was printed."""
    monkeypatch.setattr(sys, "path", list(sys.path))  # the command puts the project's root first
    monkeypatch.chdir(tmp_path)
    from study.run_tune import main

    def run(*words):
        code = main(["--preset", "smoke", "--doctor", "--out", "run", *words])
        assert not list(tmp_path.iterdir())
        return code, capsys.readouterr().out

    return run


def test_the_doctor_says_that_all_is_well_and_leaves_nothing(doctor):
    code, text = doctor("--tracking-uri", "sqlite:///mlflow.db")
    assert code == 0, text
    assert "All 8 checks are ok" in text
    table = text[text.index("check  ") :]  # above it stand paths, however long
    assert max(map(len, table.splitlines())) <= WIDTH


def test_the_doctor_shows_each_remedy_and_ends_with_code_2(doctor):
    code, text = doctor("--tracking-uri", "http://127.0.0.1:1", "resources.gpus_per_trial=9")
    assert code == 2, text
    assert "2 of 8 checks failed: resources, MLflow" in text
    assert "-> Set resources.gpus_per_trial=" in text


# A cluster of two nodes, one of which sees another file system where the tests want it


def has_mount_namespaces():
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    tried = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


SPOT = {"resources": {"CPU": 4, "GPU": 1}, "node_config": {}, "max_workers": 3}


@dataclasses.dataclass(frozen=True)
class TwoNodes:
    address: str
    shared: Path
    hidden: Path


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory):
    if not has_mount_namespaces():
        pytest.skip("hiding a folder from a node takes root and mount namespaces (unshare -m)")
    folder = tmp_path_factory.mktemp("two")
    shared, hidden = folder / "shared", folder / "hidden"
    shared.mkdir()
    hidden.mkdir()
    file = folder / "cluster.yaml"
    file.write_text(json.dumps(cluster_file(SPOT)))
    temp = Path("/tmp") / f"ray{os.getpid()}"  # sockets below it have short names only
    os.environ["RAY_FAKE_CLUSTER"] = "1"
    head = RayCluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "temp_dir": str(temp), "include_dashboard": False,
                        "autoscaling_config": str(file)},
    )  # fmt: skip
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1",
             f"--address={head.address}", "--disable-usage-stats"]  # fmt: skip
    hide = f'mount -t tmpfs none {hidden} && exec "$@"'
    second = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", hide, "sh", *start],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        yield TwoNodes(head.address, shared, hidden)
    finally:
        ray.shutdown()
        os.killpg(second.pid, signal.SIGTERM)
        second.wait(60)
        head.shutdown()
        del os.environ["RAY_FAKE_CLUSTER"]
        shutil.rmtree(temp, ignore_errors=True)


@pytest.fixture(scope="module")
def connection(two_nodes):
    with connected(two_nodes.address):
        deadline = time.monotonic() + 60
        while sum(node["Alive"] for node in ray.nodes()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield two_nodes


def found(config, two_nodes, out):
    where = Where(out, two_nodes.address, f"sqlite:///{two_nodes.shared / 'mlflow.db'}")
    there = survey(Path(config.data.dir)) if config.data.dir else None
    checks = {check.name: check for check in run_checks(config, where, there)}
    assert not list(two_nodes.shared.rglob(".preflight*"))
    return checks


def test_on_two_nodes_all_is_well_and_nothing_is_left(connection):
    config = StudyConfig(resources=ResourcesConfig(gpus_per_trial=1.0))
    checks = found(config, connection, connection.shared / "runs" / "finch")
    assert [check.in_words for check in checks.values() if not check.is_ok] == []
    assert checks["nodes"].text.startswith("2 nodes, 2 CPUs, 0 GPUs")
    assert checks["run folder"].text.endswith("read and written by all 2 nodes")
    # No node has a GPU yet: those of the cluster file count.
    assert "no node holds a trial yet" in checks["resources"].text
    assert "may add up to 3 that do" in checks["resources"].text
    assert not list(connection.shared.iterdir())


def test_a_run_folder_that_another_node_does_not_see_is_refused(connection):
    checks = found(CONFIG, connection, connection.hidden / "run")
    assert [check.name for check in checks.values() if not check.is_ok] == ["run folder"]
    assert "does not see it" in checks["run folder"].text
    assert "does not see it" not in checks["run folder"].text.partition(";")[2]  # one of the two
    assert not list(connection.hidden.iterdir())


@pytest.mark.parametrize("where", ["shared", "hidden"])
def test_recordings_that_another_node_does_not_see_are_refused(connection, where):
    data = getattr(connection, where) / "data"
    song = data / "bird1" / "45" / "songs" / "1.wav"
    song.parent.mkdir(parents=True)
    song.write_bytes(b"RIFF")
    config = StudyConfig(data=DataConfig(dir=str(data)))
    try:
        checks = found(config, connection, connection.shared / "run")
    finally:
        shutil.rmtree(data)
    bad = [check.name for check in checks.values() if not check.is_ok]
    assert bad == (["data"] if where == "hidden" else [])
    if where == "hidden":
        assert "does not see the folder" in checks["data"].text
    else:
        assert checks["data"].text.startswith("1 recordings of 1 birds and ages, hash ")


def test_what_asks_for_more_than_there_is_or_may_come_is_refused(connection):
    config = StudyConfig(resources=ResourcesConfig(gpus_per_trial=2.0))
    checks = found(config, connection, connection.shared / "run")
    assert [check.name for check in checks.values() if not check.is_ok] == ["resources"]
    assert "nor any that its autoscaler may start, has more than 1 GPUs" in checks["resources"].text
