"""A study on a Ray cluster that runs already, here with a GPU that is declared but not there."""

import pytest
from ray.cluster_utils import Cluster
from test_study import run

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def address():
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 1})
    yield cluster.address
    cluster.shutdown()


def test_more_gpus_than_a_node_has_are_refused(address, tmp_path):
    done = run(tmp_path, tmp_path / "run", "--address", address, "resources.gpus_per_trial=2")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "resources.gpus_per_trial is 2" in done.stderr
    assert "has more than 1 GPUs (1 nodes)" in done.stderr
    assert not list(tmp_path.iterdir())


def test_gpus_that_torch_cannot_use_are_refused(address, tmp_path):
    # Two trials would share the GPU, which is there as far as Ray goes; torch is built for CPUs.
    done = run(tmp_path, tmp_path / "run", "--address", address, "resources.gpus_per_trial=0.5")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "GPUs are asked for, but torch was built for CPUs" in done.stderr
    assert "has 2.13.0" in done.stderr
    assert not list(tmp_path.iterdir())
