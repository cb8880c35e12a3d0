"""How often a training would wait for its device, counted on a CPU.

A wait is a number, or a list of them, that the CPU asks of a tensor, or a copy to the device that
is not `send`'s: only that one is pinned. On a GPU benchmarks/gpu.py lets torch count them.
"""

import sys
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from models.mdgan import collapse, frames, model

_ASKS = {torch.ops.aten._local_scalar_dense.default}
_COPIES = {torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda, torch.Tensor.tolist}
_TORCH = str(Path(torch.__file__).parent)
_HOLDERS = (collapse, frames, model)  # modules that call `send`


class _Waits:
    """Counts of one block.

    Attributes:
        n_waits: numbers asked for and copies that wait.
        n_sent: copies that do not wait.
    """

    def __init__(self):
        self.n_waits = 0
        self.n_sent = 0


@contextmanager
def counted_waits():
    """Count the waits of the block, and give the count."""
    found = _Waits()
    sending = False

    class Asks(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            # Whole numbers are counts, and lie on the CPU wherever the networks are.
            found.n_waits += func in _ASKS and args[0].is_floating_point()
            return func(*args, **(kwargs or {}))

    class Copies(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            # torch's own optimizers name the device that a tensor is on already.
            by_torch = sys._getframe(1).f_code.co_filename.startswith(_TORCH)
            found.n_waits += func in _COPIES and not sending and not by_torch
            return func(*args, **(kwargs or {}))

    def send(tensor, device, original=model.send):
        nonlocal sending
        found.n_sent += 1
        sending = True
        try:
            return original(tensor, device)
        finally:
            sending = False

    originals = [holder.send for holder in _HOLDERS]
    for holder in _HOLDERS:
        holder.send = send
    try:
        with Asks(), Copies():
            yield found
    finally:
        for holder, original in zip(_HOLDERS, originals, strict=True):
            holder.send = original
