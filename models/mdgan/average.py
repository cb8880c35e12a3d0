"""Averaged weights of a network, as a training keeps them beside the last ones."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Average(AveragedModel):
    """Exponential average of a network's weights and buffers; it begins with those of step 1.

    torch's own update asks the device at each step how many steps it has averaged, and waits for
    the answer. Here the CPU counts.

    Args:
        net: to be averaged; ``module`` is the copy that holds the average.
        decay: per step.
    """

    def __init__(self, net: nn.Module, decay: float):
        super().__init__(net, use_buffers=True)
        self._move = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take the weights of ``model`` after one more step into the average."""
        averaged, latest = _tensors(self.module), _tensors(model)
        if self.n_averaged == 0:
            torch._foreach_copy_(averaged, latest)
        else:
            # One type of numbers at a time: counts of batches are whole numbers.
            for kind in {tensor.dtype for tensor in averaged}:
                chosen = [i for i, tensor in enumerate(averaged) if tensor.dtype is kind]
                self._move([averaged[i] for i in chosen], [latest[i] for i in chosen], 0)
        self.n_averaged += 1


def _tensors(net: nn.Module) -> list[Tensor]:
    return [*net.parameters(), *net.buffers()]
