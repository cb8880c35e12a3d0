"""Which work fits on which nodes, what a share of a GPU wastes, and what may yet be started."""

import os
from types import SimpleNamespace

import pytest
from ray.core.generated import autoscaler_pb2

from study.cluster import nodes
from study.cluster.nodes import Node, kinds_in_file, kinds_reported
from study.config.tree import ResourcesConfig, StudyConfig
from study.preflight import capacity
from study.preflight.capacity import check_before_start, check_resources
from study.preflight.check import PreflightError
from study.search import launch

CPUS_ONLY = Node("small", 8, 0)
GPU_NODE = Node("big", 4, 2)
TO_COME = Node("spot", 8, 1, count=6, is_there=False)


def asks(**resources):
    return StudyConfig(resources=ResourcesConfig(**resources))


def test_auto_wants_no_gpu_and_a_trial_is_counted_on_each_node():
    check = check_resources(
        asks(gpus_per_trial="auto", cpus_per_trial=3), [CPUS_ONLY, GPU_NODE], "X"
    )
    assert check.is_ok
    assert check.text == "3 trials at once (cpus_per_trial=3)"


@pytest.mark.parametrize(
    ("cpus", "gpus", "expected"),
    [(1, 0.5, 4), (2, 0.5, 2), (1, 1, 2), (1, 2, 1), (1, 3, 0), (5, 1, 0), (4, 0, 1), (1, 0.1, 4)],
)
def test_trials_at_once_on_a_node_with_four_cpus_and_two_gpus(cpus, gpus, expected):
    assert GPU_NODE.n_at_once(cpus, gpus) == expected


@pytest.mark.parametrize("n", range(1, 101))
def test_a_whole_number_of_decimal_shares_fills_a_gpu(n):
    assert Node("x", 1000, 1).n_at_once(1, 1 / n) == n


@pytest.mark.parametrize(
    ("resources", "nodes", "phrases"),
    [
        (
            {"gpus_per_trial": 1}, [CPUS_ONLY],
            ("resources.gpus_per_trial is 1", "no node of X has more than 0 GPUs (1 nodes)",
             "Set resources.gpus_per_trial=0", "--preset demo"),
        ),
        (
            {"gpus_per_trial": 3}, [CPUS_ONLY, GPU_NODE],
            ("gpus_per_trial is 3", "more than 2 GPUs (2 nodes)", "resources.gpus_per_trial=2"),
        ),
        (
            {"cpus_per_trial": 9}, [CPUS_ONLY, GPU_NODE],
            ("cpus_per_trial is 9", "more than 8 CPUs", "Set resources.cpus_per_trial=8"),
        ),
        ({}, [Node("head", 0, 0)], ("more than 0 CPUs", "Start a node that offers CPUs")),
        ({}, [], ("no node of X has more than 0 CPUs (0 nodes)",)),
        (
            {"gpus_per_encode": 0.25}, [CPUS_ONLY],
            ("resources.gpus_per_encode is 0.25", "Set resources.gpus_per_encode=0"),
        ),
        # Each is there, but not on one node.
        (
            {"cpus_per_trial": 6, "gpus_per_trial": 1}, [CPUS_ONLY, GPU_NODE],
            ("A trial takes 6 CPUs and 1 GPUs together", "big has the most CPUs, 4",
             "Set resources.cpus_per_trial=4"),
        ),
        (
            {"gpus_per_encode": 1}, [CPUS_ONLY, Node("gpus", 0, 4)],
            ("An encoding task takes 1 CPUs and 1 GPUs together", "ray start --num-cpus",
             "resources.gpus_per_encode=0"),
        ),
        # Nor is it on any that may come.
        (
            {"gpus_per_trial": 4}, [CPUS_ONLY, TO_COME],
            ("no node of X, nor any that its autoscaler may start, has more than 1 GPUs",),
        ),
    ],
)  # fmt: skip
def test_what_fits_on_no_node_is_named_with_a_remedy(resources, nodes, phrases):
    check = check_resources(asks(**resources), nodes, "X")
    assert not check.is_ok
    for phrase in phrases:
        assert phrase in check.in_words, check.in_words


def test_a_study_may_begin_before_the_nodes_that_it_needs_are_started():
    check = check_resources(
        asks(gpus_per_trial=1, cpus_per_trial=8), [Node("head", 0, 0), TO_COME], "X"
    )
    assert check.is_ok
    assert "no node holds a trial yet" in check.text
    assert "the autoscaler may add up to 6 that do" in check.text
    check = check_resources(asks(gpus_per_trial=1), [GPU_NODE, TO_COME], "X")
    assert check.text.startswith("2 trials at once")
    assert "may go up to 6 nodes" in check.text


@pytest.mark.parametrize(
    "share",
    [1, 2, 0.5, 0.33, 0.3333, 0.25, 0.2, 0.19, 0.1, 0.125, 0.16, 0.95, 1 / 3, 1 / 7, 0.0001],
)
def test_a_share_that_fills_a_gpu_is_accepted(share):
    assert check_resources(asks(gpus_per_trial=share), [GPU_NODE], "X").is_ok


@pytest.mark.parametrize(
    ("share", "holds", "idle", "better"),
    [
        (0.6, "one such piece", "40%", "0.5 or 1"),
        (0.94, "one such piece", "6%", "0.5 or 1"),
        (0.4, "2 such pieces", "20%", "0.3333 or 0.5"),
        (0.3, "3 such pieces", "10%", "0.25 or 0.3333"),
    ],
)
@pytest.mark.parametrize("setting", ["gpus_per_trial", "gpus_per_encode"])
def test_a_share_that_leaves_much_of_a_gpu_idle_is_refused(setting, share, holds, idle, better):
    check = check_resources(asks(**{setting: share}), [GPU_NODE], "X")
    assert not check.is_ok
    assert f"resources.{setting} is {share}: a GPU would hold {holds} of work" in check.text
    assert f"and {idle} of it would lie idle" in check.text
    assert check.remedy == f"Set resources.{setting} to {better}."


def test_a_share_below_what_ray_counts_is_refused():
    check = check_resources(asks(gpus_per_trial=0.00005), [GPU_NODE], "X")
    assert not check.is_ok
    assert "Set resources.gpus_per_trial=0.0001 or more" in check.remedy


def test_a_hint_where_cpus_leave_gpus_idle():
    wide = Node("wide", 8, 2)

    def hint(**resources):
        check = check_resources(asks(**resources), [wide], "X")
        assert check.is_ok
        return check.remedy

    # 8 CPUs for two trials of 4, whose GPUs would hold four.
    text = hint(gpus_per_trial=0.5, cpus_per_trial=4)
    assert "wide has CPUs for 2 trials at once and GPUs for 4" in text
    assert "lower resources.cpus_per_trial" in text
    assert "CPUs for 8 trials at once and GPUs for 20" in hint(gpus_per_trial=0.1)
    assert hint(gpus_per_trial=0.5, cpus_per_trial=2) == ""
    assert hint() == hint(gpus_per_trial="auto") == ""


def test_this_machine_has_the_cpus_and_visible_gpus_that_ray_will_find(monkeypatch):
    class Two:
        visible = None

        def get_current_node_num_accelerators(self):
            return 2

        def get_current_process_visible_accelerator_ids(self):
            return self.visible

    assert capacity.this_machine().cpus == os.cpu_count()
    manager = Two()
    monkeypatch.setattr(
        capacity.accelerators, "get_accelerator_manager_for_resource", lambda kind: manager
    )
    assert capacity.this_machine().gpus == 2
    manager.visible = ["1"]  # CUDA_VISIBLE_DEVICES
    assert capacity.this_machine().gpus == 1


def test_a_study_on_this_machine_is_refused_before_ray_is_started(monkeypatch):
    monkeypatch.setattr(capacity, "this_machine", lambda: Node("this machine", 2, 0))
    with pytest.raises(PreflightError) as caught:
        check_before_start(asks(gpus_per_trial=0.6, gpus_per_encode=1, cpus_per_trial=3), None)
    # All causes at once.
    for phrase in (
        "Set resources.gpus_per_trial to 0.5 or 1",
        "resources.cpus_per_trial is 3",
        "resources.gpus_per_encode is 1",
    ):
        assert phrase in str(caught.value)
    # What a cluster has is seen once connected; a share that fills no GPU is wrong anywhere.
    check_before_start(asks(gpus_per_trial=8, cpus_per_trial=64), "10.0.0.1:6379")
    with pytest.raises(PreflightError, match="0.6: a GPU would hold one"):
        check_before_start(asks(gpus_per_trial=0.6), "10.0.0.1:6379")


def test_kinds_of_nodes_are_read_from_a_cluster_file():
    kinds = kinds_in_file(
        {
            "max_workers": 8,
            "head_node_type": "head",
            "available_node_types": {
                "head": {"resources": {"CPU": 16}},
                "spot": {"resources": {"CPU": 8, "GPU": 1, "memory": 1e9}, "max_workers": 20},
                "off": {"resources": {"CPU": 8}, "max_workers": 0},
                "unbounded": {"resources": {"CPU": 2}},
                "unknown": {"resources": {}, "max_workers": 2},
            },
        }
    )
    assert kinds == [
        Node("spot", 8, 1, 8, False),
        Node("unbounded", 2, 0, 8, False),
        Node("unknown", 0, 0, 2, False),
    ]
    assert kinds_in_file({}) == []


def test_kinds_of_nodes_are_read_from_what_was_reported_to_ray():
    config = autoscaler_pb2.ClusterConfig()
    for name, count in (("gpu", 3), ("any", -1), ("none", 0)):
        group = config.node_group_configs.add(name=name, max_count=count)
        group.resources["CPU"] = 4
        group.resources["GPU"] = 2
    assert kinds_reported(config) == [Node("gpu", 4, 2, 3, False), Node("any", 4, 2, 1000, False)]


# Trials that a cluster is asked for


def limits(monkeypatch, kinds, gpus=0.5, **settings):
    """Trials at once, and waiting, of 2 CPUs each, with a head of 8 CPUs and one busy worker."""
    head = {"CPU": 8.0, "node:__internal_head__": 1.0}
    alive = [{"Alive": True, "Resources": have} for have in (head, {"CPU": 8.0, "GPU": 1.0})]
    monkeypatch.setattr(nodes.ray, "nodes", lambda: alive)
    monkeypatch.setattr(nodes, "possible_nodes", lambda: kinds)
    config = StudyConfig(resources=ResourcesConfig(**settings))
    return launch.limits(config, SimpleNamespace(n_threads=2, gpus=gpus))


def test_a_cluster_that_may_grow_is_asked_for_what_it_holds_then_but_for_random_trials_only(
    monkeypatch,
):
    assert limits(monkeypatch, [TO_COME]) == (12, 4)
    assert limits(monkeypatch, [TO_COME], max_concurrent_trials=5) == (5, 4)
    assert limits(monkeypatch, [TO_COME], max_concurrent_trials=50) == (12, 4)
    assert limits(monkeypatch, [TO_COME], gpus=0) == (28, 4)  # four on the head too


def test_a_cluster_that_does_not_grow_lets_one_trial_wait(monkeypatch):
    unknown = Node("later", 0, 0, 6, is_there=False)  # Ray does not say what it has
    for kinds in ([], [unknown], [Node("small", 8, 0, 2, is_there=False)]):
        assert limits(monkeypatch, kinds) == (None, 1)
        assert limits(monkeypatch, kinds, max_concurrent_trials=5) == (5, 1)
