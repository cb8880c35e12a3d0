"""What a training needs of its device: arithmetic that can be repeated, and copies without waiting.

None of this changes a number on a CPU.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

Precision = Literal["float32", "tf32", "bfloat16"]


def use_arithmetic(device: torch.device, precision: Precision) -> None:
    """Set the arithmetic of this process on ``device``; nothing is to be set on a CPU.

    Torch's own choice differs: float32 convolutions are computed in TF32, matrix products are not,
    and cuDNN may take another algorithm each time.

    Args:
        device: of the networks.
        precision: "tf32" rounds the factors of convolutions to 10 bits; matrix products, and with
            "float32" and "bfloat16" all of float32, are computed as it is.
    """
    if device.type != "cuda":
        return
    # cuBLAS repeats its sums only with a workspace of fixed size; it reads this when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    # These two names, because torch.compile reads them; it fails where the newer ones were set.
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = False


@contextmanager
def full_precision() -> Iterator[None]:
    """Convolutions within are computed in float32 as it is, also in a training in TF32."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``, without waiting for what the device still has to do."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor if tensor.is_pinned() else tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
