"""Load and memory of a trial, where a GPU is pretended."""

import pytest
import torch

from study.search.system_metrics import system_metrics


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 3 * 10**9)
    return monkeypatch


class NVMLErrorNotSupported(Exception):  # noqa: N818  it derives from Exception, as NVIDIA's does
    """As on MIG, and on some vGPUs."""


@pytest.mark.parametrize("error", [NVMLErrorNotSupported, ModuleNotFoundError, RuntimeError])
def test_a_gpu_that_does_not_tell_its_load_ends_no_trial(gpu, error):
    def fails():
        raise error("Not Supported")

    gpu.setattr(torch.cuda, "utilization", fails)
    found = system_metrics()
    assert "system/gpu_utilization_percentage" not in found
    assert found["system/gpu_memory_peak_megabytes"] == 3000
    assert found["system/process_memory_megabytes"] > 0


def test_the_load_of_a_gpu_is_told_where_it_is_known(gpu):
    gpu.setattr(torch.cuda, "utilization", lambda: 37)
    assert system_metrics()["system/gpu_utilization_percentage"] == 37
