"""Load and memory of a trial's process and its GPU, reported beside its metrics.

The names are those of MLflow's own system metrics, so that its page shows them under that heading.
"""

from contextlib import suppress

import psutil
import torch

_process = psutil.Process()


def system_metrics() -> dict[str, float]:
    """Memory of the process (MB), its share of one core since the last call (%), and of its GPU.

    GPU figures are there where the process uses one; its load where NVIDIA's library gives it.
    """
    metrics = {
        "system/process_memory_megabytes": _process.memory_info().rss / 1e6,
        "system/process_cpu_percentage": _process.cpu_percent(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        metrics["system/gpu_memory_peak_megabytes"] = torch.cuda.max_memory_reserved() / 1e6
        # A figure for the eye must not end a training. NVIDIA's library says "Not Supported" of
        # MIG and of some vGPUs, and its NVMLError derives from Exception.
        with suppress(Exception):
            metrics["system/gpu_utilization_percentage"] = float(torch.cuda.utilization())
    return metrics
