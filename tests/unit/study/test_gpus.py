"""How much of a GPU a trial gets. No GPU is used: measurements are given, devices declared."""

import dataclasses
import os
import typing
from types import SimpleNamespace

import pytest
import ray
import torch

from models.mdgan.params import MdganParams
from models.mdgan.training import TrainingFailedError
from study.cluster import gpu_memory, gpus
from study.cluster.connection import ResourceError
from study.cluster.gpu_facts import Card, GpuFacts
from study.cluster.gpu_memory import Measured, largest_params, train_briefly
from study.cluster.gpus import GpuKind, UnusableGpuError, gpus_per_trial, wait_for_memory
from study.cluster.nodes import Node
from study.config.reader import load_config
from study.config.space import SpaceEntry
from study.config.tree import ResourcesConfig, StudyConfig

GB = 10**9
AUTO = StudyConfig(resources=ResourcesConfig(gpus_per_trial="auto"))


def measured(need_gb, total_gb=24.0, gpu="A10G"):
    return Measured(gpu, round(total_gb * GB), round(need_gb * GB))


def share(monkeypatch, need_gb, total_gb=24.0, cpus_per_gpu=64.0, cpus=1):
    monkeypatch.setattr(gpus, "gpu_kinds", lambda: [GpuKind("A10G", "id", cpus_per_gpu)])
    resources = ResourcesConfig(gpus_per_trial="auto", cpus_per_trial=cpus)
    config = StudyConfig(resources=resources)
    return gpus_per_trial(config, lambda *_: measured(need_gb, total_gb))


# The rule


@pytest.mark.parametrize(
    ("need_gb", "n"),
    [(21.7, 1), (10.8, 2), (10.81, 1), (7.2, 3), (3.0, 7), (0.3, 64), (24.0, 1), (23.0, 1)],
)
def test_as_many_trials_share_a_gpu_as_nine_tenths_of_its_memory_hold(monkeypatch, need_gb, n):
    found = share(monkeypatch, need_gb)
    assert found.gpus == int(10_000 / n) / 10_000
    assert n * found.gpus <= 1
    assert f"{n} at once on each" in found.sentence


def test_the_sentence_names_what_was_measured_and_what_limits(monkeypatch):
    sentence = share(monkeypatch, 3.14, cpus_per_gpu=8, cpus=2).sentence
    assert sentence == (
        "A trial takes up to 3.1 of 24.0 GB of a GPU (A10G), measured: 4 at once on each, as there "
        "are CPUs for (resources.cpus_per_trial=2, 8 for each GPU); its memory would hold 6"
    )
    assert "CPUs" not in share(monkeypatch, 3.14).sentence
    assert share(monkeypatch, 3.14, cpus_per_gpu=2, cpus=4).gpus == 1  # few CPUs: a GPU each


def test_a_network_that_does_not_fit_is_refused_with_a_remedy(monkeypatch):
    with pytest.raises(ResourceError) as caught:
        share(monkeypatch, 24.1)
    assert "A10G): it needs 24.1 of 24.0 GB" in str(caught.value)
    assert "Lower mdgan.batch_size" in str(caught.value)


def test_every_kind_of_gpu_is_measured_and_the_smallest_decides(monkeypatch):
    kinds = [GpuKind("A100", "a", 16), GpuKind("T4", "b", 16), GpuKind("A10G", "c", 16)]
    monkeypatch.setattr(gpus, "gpu_kinds", lambda: kinds)
    totals = {"A100": 80, "T4": 16, "A10G": 24}
    asked = []

    def measure(config, kind):
        asked.append(kind)
        return measured(4, totals[kind.accelerator], kind.accelerator)

    found = gpus_per_trial(AUTO, measure)
    assert asked == kinds
    assert found.gpus == 0.3333
    assert "of 16.0 GB of a GPU (T4)" in found.sentence


@pytest.mark.parametrize("asked", [0, 0.25, 2])
def test_a_number_that_was_asked_for_is_not_measured(asked):
    config = StudyConfig(resources=ResourcesConfig(gpus_per_trial=asked))
    assert gpus_per_trial(config, None) == gpus.GpuShare(asked, "")


def node(name, cpus, n_gpus, *accelerators, alive=True):
    have = {"CPU": cpus, **({"GPU": n_gpus} if n_gpus else {}), **dict.fromkeys(accelerators, 1.0)}
    return {"Alive": alive, "NodeID": name, "Resources": have}


def test_kinds_of_gpus_are_those_of_the_nodes_with_fewest_cpus(monkeypatch):
    a10g, a100 = "accelerator_type:A10G", "accelerator_type:A100"
    nodes = [
        node("head", 8, 0), node("n1", 32, 4, a10g), node("n2", 8, 4, a10g),
        node("n3", 96, 8, a100),
        node("gone", 1, 8, "accelerator_type:H100", alive=False),
    ]  # fmt: skip
    monkeypatch.setattr(gpus.ray, "nodes", lambda: nodes)
    assert gpus.gpu_kinds() == [GpuKind(a10g, "n2", 2.0), GpuKind(a100, "n3", 12.0)]


def test_where_there_is_no_gpu_trials_run_on_cpus_unless_one_may_come(monkeypatch):
    monkeypatch.setattr(gpus.ray, "nodes", lambda: [node("head", 8, 0)])
    monkeypatch.setattr(gpus, "possible_nodes", lambda: [Node("cpu", 8, 0, 2, False)])
    found = gpus_per_trial(AUTO, pytest.fail)
    assert found.gpus == 0
    assert "no GPU: trials run on CPUs" in found.sentence
    coming = [Node("spot", 8, 4, 2, False), Node("more", 32, 1, 2, False)]
    monkeypatch.setattr(gpus, "possible_nodes", lambda: coming)
    assert gpus.gpu_kinds() == [GpuKind("", "", 2.0)]
    assert gpus_per_trial(AUTO, lambda *_: measured(4)).gpus == 0.5


# The largest network


def test_of_every_searched_parameter_the_one_that_takes_most_memory_is_measured():
    space = {
        "latent_dim": SpaceEntry(choice=(8, 64, 16)),
        "disc_width": SpaceEntry(choice=(8, 16)),
        "batch_size": SpaceEntry(choice=(256, 64)),
        "is_residual": SpaceEntry(choice=(True, False)),
        "normalisation": SpaceEntry(choice=("layer", "batch", "none")),
        "order": SpaceEntry(choice=("alternating", "joint")),
        "pool_weight": SpaceEntry(uniform=(0.0, 1.0)),
        "adversarial_from": SpaceEntry(choice=(1.0, 0.5)),
        "prior": SpaceEntry(choice=("normal", "uniform")),
    }
    base = MdganParams(width=16)
    assert largest_params(base, space) == dataclasses.replace(
        base, latent_dim=64, disc_width=16, batch_size=256, is_residual=True, normalisation="batch",
        order="joint", pool_weight=1.0, adversarial_from=0.5,
    )  # fmt: skip


def test_every_word_of_the_ordered_parameters_has_its_place():
    hints = typing.get_type_hints(MdganParams)
    for name, ordered in gpu_memory.HUNGRIEST_FIRST.items():
        assert sorted(ordered) == sorted(typing.get_args(hints[name]))


class Kept:
    """A tensor that is kept for a backward pass; counts the bytes of all that are at once."""

    users: dict = {}
    most = 0

    def __init__(self, tensor):
        self.tensor = tensor
        self.key = tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()
        Kept.users[self.key] = Kept.users.get(self.key, 0) + 1
        Kept.most = max(Kept.most, sum(n_bytes for _, n_bytes in Kept.users))

    def __del__(self):
        Kept.users[self.key] -= 1
        if not Kept.users[self.key]:
            del Kept.users[self.key]


def kept_bytes(**params):
    """The most that adversarial steps keep for their backward passes at a time."""
    small = {"width": 16, "disc_width": 16, "dense_width": 8, "n_components": 16, "batch_size": 4}
    plan = {"n_snippets": 64, "n_reports": 2, "adversarial_from": 0.0}
    Kept.users, Kept.most = {}, 0
    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        train_briefly(MdganParams(**{**small, **plan, **params}), 16, "cpu")
    return Kept.most


def test_the_order_of_words_is_that_of_the_memory_they_take(monkeypatch):
    monkeypatch.setattr(gpu_memory, "N_STEPS", 1)
    for name, ordered in gpu_memory.HUNGRIEST_FIRST.items():
        sizes = [kept_bytes(**{name: word}) for word in ordered]
        assert sizes == sorted(sizes, reverse=True), dict(zip(ordered, sizes, strict=True))


def test_the_measured_training_is_the_adversarial_end_of_one():
    params = MdganParams(
        dense_width=8, disc_width=1, n_snippets=2000, n_reports=2, batch_size=8,
        adversarial_from=0.9,
    )  # fmt: skip
    model = train_briefly(params, 16, "cpu")
    assert model.snippets_seen == params.n_snippets
    for name in ("encoder", "generator", "manifold_disc", "diffusion_disc"):
        assert model.optimizers[name].state, name  # Adam's numbers take memory too


def test_evaluation_and_frames_count_as_memory_of_a_trial(monkeypatch):
    calls = {
        "synchronize": lambda: None, "mem_get_info": lambda: (20 * 10**9, 24 * 10**9),
        "memory_reserved": lambda: 3 * 10**9, "max_memory_reserved": lambda: 4 * 10**9,
        "get_device_name": lambda: "made up",
    }  # fmt: skip
    for name, call in calls.items():
        monkeypatch.setattr(torch.cuda, name, call)
    evaluated = []
    monkeypatch.setattr(gpu_memory, "evaluate", lambda *args: evaluated.append(args[2]))
    overrides = ["search.n_eval_snippets=300", "mdgan.dense_width=8", "mdgan.disc_width=1"]
    # 129 numbers of 4 bytes for each of the 15,000 frames of a minute; 800 minutes stay on the CPU.
    for minutes, frames in ((10, 129 * 4 * 15_000 * 10), (800, 0)):
        config = load_config("smoke", None, [*overrides, f"snippets.max_minutes={minutes}"])
        measured = gpu_memory.measure_training(config, "cpu")
        songs = 12_000 * 129 * 16 * 4  # training song, of which each report samples songs
        assert measured == Measured("made up", 24 * 10**9, 4 * 10**9 + 10**9 + frames + songs)
    assert [songs[0].held_out.shape for songs in evaluated] == [(300, 1, 129, 16)] * 2


def test_frames_lie_on_the_gpu_where_they_leave_a_trial_and_its_neighbours_room(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1, 24 * 10**9))
    frames = 5 * 10**9
    assert [gpu_memory.frames_fit(frames, gpus) for gpus in (0, 0.2, 0.3, 1, 2)] == [
        False, False, True, True, True,
    ]  # fmt: skip
    assert not gpu_memory.frames_fit(7 * 10**9, 1)


def test_cuda_graphs_are_refused_where_trials_run_on_cpus(monkeypatch):
    monkeypatch.setattr(gpus, "gpu_kinds", lambda: [])
    for asked in ("auto", "0"):
        config = load_config(
            "smoke", None, ["mdgan.compilation=cuda_graphs", f"resources.gpus_per_trial={asked}"]
        )
        with pytest.raises(ResourceError, match="only a GPU has CUDA graphs. Set mdgan.comp"):
            gpus.gpus_per_trial(config)
    config = load_config(
        "smoke", None, ["mdgan.compilation=cuda_graphs", "resources.gpus_per_trial=1"]
    )
    assert gpus.gpus_per_trial(config).gpus == 1


# In a worker


def test_a_gpu_that_torch_does_not_find_is_named():
    assert gpus.device(False) == "cpu"
    with pytest.raises(UnusableGpuError) as caught:
        gpus.device(True, "gpus_per_encode")
    assert isinstance(caught.value, TrainingFailedError)
    assert f"torch {torch.__version__} finds none" in str(caught.value)
    assert "resources.gpus_per_encode=0" in str(caught.value)


@pytest.fixture
def given(monkeypatch):
    """A worker that was given a card of a node with two, an old one and a new one."""
    both = (Card("Tesla V100", 70), Card("NVIDIA A10G", 86))
    architectures = ("sm_75", "sm_80", "sm_86")
    facts = GpuFacts("2.13.0", "13.0", architectures, "580.65.06", "13.0", both)
    monkeypatch.setattr(gpus, "gpu_facts", lambda: facts)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def give(card):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: card.name)
        capability = divmod(card.capability, 10)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)

    return both, give


def test_a_gpu_is_used_where_torch_was_built_for_it(given):
    (old, new), give = given
    give(new)
    assert (gpus.device(True), gpus.device(False)) == ("cuda", "cpu")
    give(old)
    with pytest.raises(UnusableGpuError) as caught:
        gpus.device(True)
    assert "torch was not built for Tesla V100 (7.0) (driver 580.65.06" in str(caught.value)
    assert "/whl/cu126), or set resources.gpus_per_trial=0." in str(caught.value)
    assert gpus.device(False) == "cpu"


def test_a_driver_that_torch_finds_no_gpu_with_is_named(given, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    old = dataclasses.replace(gpus.gpu_facts(), driver="535.183.01", driver_cuda="12.2")
    monkeypatch.setattr(gpus, "gpu_facts", lambda: old)
    with pytest.raises(UnusableGpuError, match=r"too old for torch's CUDA 13.0 .*535.183.01"):
        gpus.device(True)


def wait(free_gb, gpus_asked, timeout_s=120.0):
    """Seconds waited where each look finds the next of ``free_gb`` of 24 GB free."""
    looks = iter(free_gb)
    slept = []
    wait_for_memory(gpus_asked, timeout_s, lambda: (next(looks) * GB, 24 * GB), slept.append)
    return sum(slept)


def test_a_trial_waits_until_its_part_of_the_memory_is_free():
    assert wait([24], 1) == 0
    assert wait([9], 0.5) == 0  # three quarters of a half
    assert wait([8.9, 8.9, 9], 0.5) == 1.5
    assert wait([1, 2, 17, 18], 1) == 3.5
    assert wait([18], 2) == 0  # each of several is looked at as one
    wait_for_memory(0, free_and_total=pytest.fail)


def test_memory_that_never_becomes_free_is_named_after_two_minutes():
    with pytest.raises(UnusableGpuError) as caught:
        wait([2] * 1000, 0.5)
    waited = float(str(caught.value).split()[1])
    assert 120 <= waited <= 126
    assert "only 2.0 of 24.0 GB of the GPU are free" in str(caught.value)
    assert "resources.gpus_per_trial=0.5) is 12.0 GB" in str(caught.value)


def test_without_a_gpu_nobody_waits_for_its_memory():
    with pytest.raises(UnusableGpuError, match="finds none"):
        wait_for_memory(0.5)


# On a cluster


def test_a_measurement_says_why_it_failed(monkeypatch):
    kind = GpuKind("accelerator_type:A10G", "ab" * 28, 8)
    cancelled = []
    task = SimpleNamespace(remote=lambda config: "ref")
    monkeypatch.setattr(gpus, "gpu_task", lambda *_, **options: task)
    monkeypatch.setattr(gpus.ray, "cancel", lambda ref, force: cancelled.append(ref))

    def message(error):
        def get(ref, timeout):
            raise error

        monkeypatch.setattr(gpus.ray, "get", get)
        with pytest.raises(ResourceError) as caught:
            gpus.measure_on_cluster(AUTO, kind)
        return str(caught.value)

    text = message(ray.exceptions.GetTimeoutError())
    assert cancelled == ["ref"]
    assert "No GPU became free within 10 minutes" in text
    failed = ray.exceptions.RayTaskError("f", "trace", torch.cuda.OutOfMemoryError("40 GB"))
    assert "does not fit on a GPU (accelerator_type:A10G): 40 GB" in message(failed)
    failed = ray.exceptions.RayTaskError("f", "trace", UnusableGpuError("torch finds none"))
    assert "could not be measured: UnusableGpuError: torch finds none" in message(failed)
    assert "could not be measured: WorkerCrashedError" in message(
        ray.exceptions.WorkerCrashedError()
    )


def test_a_process_that_measured_and_does_not_end_is_named(monkeypatch):
    kept = gpus._Process("ab" * 28, "node-a", os.getpid())
    monkeypatch.setattr(gpus, "WAIT_S", 0.01)

    def remote(**_):
        return lambda function: SimpleNamespace(remote=function)

    monkeypatch.setattr(gpus.ray, "remote", remote)
    monkeypatch.setattr(gpus.ray, "get", lambda found: found)
    with pytest.raises(ResourceError, match=rf"Process {os.getpid()} on node-a.*kill -9"):
        gpus._wait_for_end(kept)
