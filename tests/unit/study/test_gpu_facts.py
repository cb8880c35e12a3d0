"""Whether torch can use the GPUs of a node. Drivers and cards are made up."""

import dataclasses

import pynvml
import pytest
import torch

from study.cluster import gpu_facts as facts_module
from study.cluster.gpu_facts import Card, GpuFacts, gpu_facts, gpu_fault

A10G, V100, P100 = Card("NVIDIA A10G", 86), Card("Tesla V100", 70), Card("Tesla P100", 60)
L4, H100, B300 = Card("NVIDIA L4", 89), Card("NVIDIA H100", 90), Card("NVIDIA B300", 103)
K80, RTX5090 = Card("Tesla K80", 37), Card("NVIDIA RTX 5090", 120)
DEFAULT = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
CU126 = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")
SOUND = GpuFacts("2.13.0+cu130", "13.0", DEFAULT, "580.65.06", "13.0", (A10G,))


def fault(n_gpus=1.0, **changes):
    return gpu_fault(dataclasses.replace(SOUND, **changes), n_gpus)


@pytest.mark.parametrize("card", [A10G, L4, H100, B300, RTX5090])
def test_a_card_runs_code_of_its_generation_that_is_not_newer(card):
    assert fault(cards=(card,)) is None
    assert fault(cards=(card,), architectures=("compute_75",)) is None  # compiled at the start


def test_code_for_one_card_runs_on_no_other():
    assert fault(cards=(H100,), architectures=("sm_90a",)) is None
    assert fault(cards=(B300,), architectures=("sm_100a",)) is not None
    assert fault(cards=(A10G,), architectures=("sm_89",)) is not None


def test_a_driver_that_is_too_old_is_named_with_two_remedies():
    cause, remedy = fault(driver="535.183.01", driver_cuda="12.2")
    assert cause == (
        "the driver is too old for torch's CUDA 13.0 (driver 535.183.01 (CUDA 12.2), torch "
        "2.13.0+cu130 for CUDA 13.0 and sm_75 sm_80 sm_86 sm_90 sm_100 sm_120, cards: NVIDIA A10G "
        "(8.6))"
    )
    assert remedy == (
        "Install driver 580 or newer, or install another build of torch on every node (pip install "
        "torch==2.13.0+cu126 --index-url https://download.pytorch.org/whl/cu126)"
    )
    # Any driver of the same major version will do.
    assert fault(cuda="12.9", driver="535.183.01", driver_cuda="12.2") is None
    _, remedy = fault(driver="470.82.01", driver_cuda="11.4")
    assert remedy.endswith("/whl/cu126) with driver 525 or newer")


@pytest.mark.parametrize("card", [V100, P100])
@pytest.mark.parametrize(("driver", "cuda"), [("580.65.06", "13.0"), ("535.183.01", "12.2")])
def test_a_card_that_cuda_13_knows_no_more_wants_another_torch_and_no_driver(card, driver, cuda):
    cause, remedy = fault(cards=(card,), driver=driver, driver_cuda=cuda)
    assert f"torch was not built for {card.name} ({card.capability / 10})" in cause
    assert remedy.startswith("Install another build of torch")
    assert remedy.endswith("/whl/cu126)")


def test_a_card_that_is_newer_than_torch_wants_a_newer_build():
    _, remedy = fault(cards=(RTX5090,), architectures=CU126, cuda="12.6")
    assert remedy.endswith("/whl/cu129)")


def test_a_card_that_no_build_is_for_is_to_be_taken_away():
    _, remedy = fault(cards=(K80,), driver="470.82.01", driver_cuda="11.4")
    assert remedy.startswith("Take the cards out of the cluster")


def test_a_card_that_ray_does_not_give_out_may_be_of_any_age():
    assert fault(1, cards=(A10G, K80)) is None
    cause, _ = fault(2, cards=(A10G, K80))
    assert "not built for Tesla K80 (3.7) (" in cause
    assert fault(8) is None  # more are declared than there are


def test_where_no_driver_is_loaded_or_does_not_answer_that_is_said():
    cause, remedy = fault(driver="", driver_cuda="", cards=(), error="Driver Not Loaded")
    assert cause.startswith("no NVIDIA driver is loaded: Driver Not Loaded (driver none (CUDA")
    assert remedy == "Install driver 580 or newer"
    cause, remedy = fault(driver_cuda="", cards=(), error="Driver/library version mismatch")
    assert "gives no answer: Driver/library version mismatch (driver 580.65.06" in cause
    assert "restart the machine" in remedy


def test_a_torch_that_was_not_built_for_cuda_is_for_others_to_judge():
    assert fault(cuda="", architectures=(), driver="", driver_cuda="", cards=()) is None


# What a node says


@pytest.mark.parametrize(
    "line",
    ["NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024",
     "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.183.01  Release Build"],
)  # fmt: skip
def test_the_driver_of_the_kernel_is_named_where_nvidias_library_gives_no_answer(
    tmp_path, monkeypatch, line
):
    def fails():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)

    monkeypatch.setattr(pynvml, "nvmlInit", fails)
    monkeypatch.setattr(facts_module, "DRIVER_FILE", tmp_path / "version")
    assert gpu_facts().driver == ""
    (tmp_path / "version").write_text(f"{line}\nGCC version:  gcc version 12.3.0\n")
    found = gpu_facts()
    assert (found.driver, found.driver_cuda, found.cards) == ("535.183.01", "", ())
    assert "RM has detected an NVML/RM version mismatch" in found.error


def test_cards_are_read_without_cuda(monkeypatch):
    answers = {
        "nvmlInit": None, "nvmlSystemGetDriverVersion": "535.183.01",
        "nvmlSystemGetCudaDriverVersion_v2": 12020, "nvmlDeviceGetCount": 2,
        "nvmlDeviceGetHandleByIndex": 0, "nvmlDeviceGetCudaComputeCapability": (8, 6),
        "nvmlDeviceGetName": "NVIDIA A10G",
    }  # fmt: skip
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80"])
    assert not torch.cuda.is_available()
    found = gpu_facts()
    assert found == GpuFacts(
        torch.__version__, "13.0", ("sm_75", "sm_80"), "535.183.01", "12.2", (A10G, A10G)
    )
