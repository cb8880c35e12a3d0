"""A training step as one CUDA graph: the GPU gets hundreds of kernels by one call of the CPU.

Source: PyTorch, "CUDA semantics", section "CUDA Graphs", whole-network capture.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from torch import Tensor

from models.mdgan.phases import Losses

Run = Callable[[Tensor, Tensor], Losses]

WARM_UP = 3  # steps before the recording; libraries choose their algorithms in these


class Recorder(Protocol):
    """What `StepGraph` needs of CUDA."""

    def aside(self) -> AbstractContextManager[None]:
        """Steps within run on the stream of the recording, as CUDA wants it."""
        ...

    def record(self, run: Callable[[], Losses]) -> tuple[Callable[[], None], Losses]:
        """Record ``run`` without computing it.

        Returns:
            What computes it, and the tensors that then hold its losses.
        """
        ...


class StepGraph:
    """One kind of step: computed as it stands at first, then recorded and played.

    Every step computes what it would without a graph: a recording computes nothing.

    Args:
        recorder: of CUDA.
    """

    def __init__(self, recorder: Recorder):
        self._recorder = recorder
        self._n_steps = 0
        self._play: Callable[[], None] | None = None

    def __call__(self, run: Run, x: Tensor, numbers: Tensor) -> Losses:
        """Compute a step of ``x`` and ``numbers``, of the same shapes each time.

        ``run`` (x, numbers) gives its losses. It must not wait for the device, and must use the
        same tensors each time. It is not kept: it knows the model, which keeps this graph, and such
        a circle would hold the memory of both after their end.
        """
        self._n_steps += 1
        if self._n_steps <= WARM_UP:
            with self._recorder.aside():
                return run(x, numbers)
        if self._play is None:
            kept = self._x, self._numbers = x.clone(), numbers.clone()
            self._play, self._out = self._recorder.record(lambda: run(*kept))
        else:
            self._x.copy_(x)
            self._numbers.copy_(numbers)
        self._play()
        # The next step writes over these.
        return {name: value.clone() for name, value in self._out.items()}


class CudaRecorder:
    """A `Recorder` of the current GPU.

    Args:
        device: the GPU.

    Raises:
        ValueError: it is none.
    """

    def __init__(self, device: torch.device):
        if device.type != "cuda":
            raise ValueError(
                "compilation is 'cuda_graphs', and this training runs on a CPU: there are no CUDA "
                "graphs. Set mdgan.compilation=off, or give the trial a GPU."
            )
        self._stream = torch.cuda.Stream(device)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Run on the stream of the recording; the streams wait for each other, the CPU does not."""
        main = torch.cuda.current_stream()
        self._stream.wait_stream(main)
        with torch.cuda.stream(self._stream):
            yield
        main.wait_stream(self._stream)

    def record(self, run: Callable[[], Losses]) -> tuple[Callable[[], None], Losses]:
        """Record ``run`` as a graph.

        Raises:
            RuntimeError: torch or CUDA cannot record it.
        """
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                out = run()
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            # The recording that was broken off complains too.
            if isinstance(error.__context__, torch.cuda.OutOfMemoryError):
                raise error.__context__ from None
            raise RuntimeError(
                f"The training step cannot be recorded as a CUDA graph ({error}). Set "
                "mdgan.compilation=off."
            ) from error
        return graph.replay, out
