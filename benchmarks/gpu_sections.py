"""The measurements of benchmarks/gpu.py: each section gives rows, as they come."""

import dataclasses
import hashlib
import itertools
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.gpu_bench import RECIPES, WAYS, Batch, Bench, kinds_of_step, ms_per_step
from models.mdgan.checkpoints import save_decoder, save_training
from models.mdgan.devices import send
from models.mdgan.model import Mdgan
from models.mdgan.params import MdganParams
from models.metrics.evaluation import evaluate
from models.metrics.reference import Reference, fit_reference
from models.metrics.songs import Songs, gather_songs

Row = dict[str, Any]

N_EVALUATED = 4000
LOSS_STEPS = 300
TOLERANCE = 1e-3  # relative difference of losses between CPU and GPU after `AGREE_STEPS`
AGREE_STEPS = 20


def facts(bench: Bench) -> Iterator[Row]:
    """Card, driver, versions, cold start, and what a process holds before it computes."""
    row: Row = {"torch": torch.__version__, "cuda": torch.version.cuda, "numpy": np.__version__}
    began = time.perf_counter()
    if bench.device == "cuda":
        torch.zeros(1, device="cuda")
        bench.wait()
        free, total = torch.cuda.mem_get_info()
        row |= {
            "card": torch.cuda.get_device_name(),
            "capability": torch.cuda.get_device_capability(),
            "architectures": torch.cuda.get_arch_list(),
            "driver": _driver(),
            "total_gb": total / 1e9,
            "used_with_one_context_gb": (total - free) / 1e9,
            "cudnn": torch.backends.cudnn.version(),
        }
    row["first_tensor_s"] = time.perf_counter() - began
    params = bench.params("full")
    batch = bench.batches(params)()
    began = time.perf_counter()
    Mdgan(params, 16, 0, bench.device).train_step(*batch)
    bench.wait()
    yield {**row, "first_step_s": time.perf_counter() - began}


def _driver() -> str:
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"not known ({error})"


def steps(bench: Bench) -> Iterator[Row]:
    """Milliseconds of a step, share in which the GPU computes, launches and waits."""
    for recipe, compilation in itertools.product(RECIPES, ("off", "cuda_graphs")):
        for kind, params in kinds_of_step(bench.params(recipe, compilation=compilation)):
            row = {"recipe": recipe, "kind": kind, "compilation": compilation}
            yield {**row, **_step(bench, params)}


def _step(bench: Bench, params: MdganParams) -> Row:
    bench.forget()
    model, batch = Mdgan(params, 16, 0, bench.device), bench.batches(params)
    ms = ms_per_step(bench, model, batch, bench.n(50))
    launches, busy_ms = _launches(bench, model, batch)
    return {
        "ms": ms, "launches": launches, "busy": busy_ms / ms if busy_ms else None,
        "waits": _waits(bench, model, batch), "snippets_per_s": 1000 * params.batch_size / ms,
    }  # fmt: skip


def _launches(bench: Bench, model: Mdgan, batch: Batch) -> tuple[float | None, float | None]:
    """Kernels and copies of a step, and the milliseconds they take; operations on a CPU."""
    n, kind = bench.n(5), torch.profiler.ProfilerActivity
    on_gpu = bench.device == "cuda"
    with torch.profiler.profile(activities=[kind.CPU, kind.CUDA] if on_gpu else [kind.CPU]) as seen:
        for _ in range(n):
            model.train_step(*batch())
        bench.wait()
    events = seen.events() or []
    if not on_gpu:
        return sum(event.name.startswith("aten::") for event in events) / n, None
    kernels = _kernels(events)
    if not kernels:  # the profiler saw nothing: it may lack a right
        return None, None
    return len(kernels) / n, sum(e.time_range.elapsed_us() for e in kernels) / 1000 / n


def _kernels(events: Iterable[Any]) -> list[Any]:
    """What the GPU did. The profiler also marks there from when to when an optimizer stepped."""
    cuda = torch.autograd.DeviceType.CUDA
    return [e for e in events if e.device_type == cuda and not e.is_user_annotation]


def _waits(bench: Bench, model: Mdgan, batch: Batch) -> float | None:
    """How often a step waits for the GPU, by torch's own count; None on a CPU."""
    if bench.device != "cuda":
        return None
    n = bench.n(5)
    bench.wait()
    torch.set_warn_always(True)
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(n):
            model.train_step(*batch())
    torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(one.message) for one in caught) / n


def inputs(bench: Bench) -> Iterator[Row]:
    """Three ways to bring a minibatch to the device; all give the same snippets."""
    device, n = torch.device(bench.device), bench.params("full").batch_size
    recorded = bench.frames()
    began = time.perf_counter()
    on_device = recorded.on(device, bench.params("full"))
    bench.wait()
    load_s = time.perf_counter() - began
    on_cpu = recorded.on(torch.device("cpu"), bench.params("full"))
    ways: dict[str, Callable[[torch.Generator], Tensor]] = {
        "cut on the CPU, copied as it is": lambda rng: on_cpu.sample(n, rng).to(device),
        "cut on the CPU, pinned": lambda rng: send(on_cpu.sample(n, rng), device),
        "cut on the device": lambda rng: on_device.sample(n, rng),
    }
    first = on_cpu.sample(n, torch.Generator().manual_seed(0))
    for name, way in ways.items():
        rng = torch.Generator().manual_seed(0)
        is_equal = torch.equal(way(rng).cpu(), first)
        bench.wait()
        began, rounds = time.perf_counter(), bench.n(100)
        for _ in range(rounds):
            way(rng)
        bench.wait()
        ms = 1000 * (time.perf_counter() - began) / rounds
        yield {
            "way": name, "ms": ms, "is_equal": is_equal,
            "frames_gb": recorded.frames.nbytes / 1e9,
            "load_s": load_s if way is ways["cut on the device"] else None,
        }  # fmt: skip


def ways(bench: Bench) -> Iterator[Row]:
    """Snippets a second, memory and loss of each way to compute a step."""
    # Compiling comes last for both networks: it may use up the time.
    for (name, changes), recipe in itertools.product(WAYS.items(), ("full", "dense")):
        try:
            yield {"recipe": recipe, "way": name, **_way(bench, recipe, name, changes)}
        except (RuntimeError, ValueError) as error:
            yield {"recipe": recipe, "way": name, "error": f"{type(error).__name__}: {error}"}


def _way(bench: Bench, recipe: str, name: str, changes: dict[str, Any]) -> Row:
    row: Row = {"peak_gb": None}
    for kind, params in kinds_of_step(bench.params(recipe, **changes)):
        row[f"{kind}_snippets_per_s"], peak_gb = _speed(bench, name, params)
        if peak_gb is not None:
            row["peak_gb"] = max(peak_gb, row["peak_gb"] or 0.0)
    bench.forget()
    n_steps = bench.n(LOSS_STEPS)
    model = _trained(bench, bench.params(recipe, **changes), n_steps)
    valid = bench.snippets(1000).to(bench.device)
    row["loss"] = float((model.decode(model.encode(valid)) - valid).abs().mean())
    return row


def _speed(bench: Bench, way: str, params: MdganParams) -> tuple[float, float | None]:
    """Snippets a second of one kind of step, and most memory, of which frames are a part."""
    bench.forget()
    model, batch = Mdgan(params, 16, 0, bench.device), bench.batches(params)
    if "free to choose" in way:
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = True, False
    ms = ms_per_step(bench, model, batch, bench.n(40))
    return 1000 * params.batch_size / ms, bench.peak_gb()


def _trained(bench: Bench, params: MdganParams, n_steps: int) -> Mdgan:
    """A model after a whole training of ``n_steps``, by one seed."""
    shortened = dataclasses.replace(
        params, n_snippets=n_steps * params.batch_size, n_reports=1, adversarial_from=0.8
    )
    model, batch = Mdgan(shortened, 16, 0, bench.device), bench.batches(shortened)
    for _ in range(n_steps):
        model.train_step(*batch())
    return model


def determinism(bench: Bench) -> Iterator[Row]:
    """Are weights equal when a training is repeated, recorded, or gone on with; CPU against GPU."""
    n = bench.n(60)
    params = bench.params("full")
    first = _weights(_trained(bench, params, n))
    yield {
        "question": "the same seed again",
        "is_equal": _weights(_trained(bench, params, n)) == first,
    }
    graphs = bench.params("full", compilation="cuda_graphs")
    yield {"question": "as a CUDA graph", "is_equal": _weights(_trained(bench, graphs, n)) == first}
    yield {"question": "gone on with from a state", "is_equal": _goes_on(bench, params, n) == first}
    torch.use_deterministic_algorithms(True, warn_only=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _trained(bench, params, 5)
    torch.use_deterministic_algorithms(False)
    named = sorted({str(w.message)[:120] for w in caught if "deterministic" in str(w.message)})
    yield {"question": "what torch does not promise to repeat", "named": named}
    small = dataclasses.replace(bench.params("full"), width=8, disc_width=8, batch_size=32, lr=5e-5)
    here, there = (
        _losses(dataclasses.replace(bench, device=device), small)
        for device in ("cpu", bench.device)
    )
    worst = max(abs(a - b) / abs(a) for a, b in zip(here, there, strict=True))
    yield {"question": f"losses of CPU and {bench.device} after {AGREE_STEPS} steps",
           "largest_difference": worst, "is_equal": worst < TOLERANCE}  # fmt: skip


def _goes_on(bench: Bench, params: MdganParams, n_steps: int) -> str:
    shortened = dataclasses.replace(
        params, n_snippets=n_steps * params.batch_size, n_reports=1, adversarial_from=0.8
    )
    batch = bench.batches(shortened)
    before, after = (Mdgan(shortened, 16, seed, bench.device) for seed in (0, 1))
    for step in range(n_steps):
        if step == n_steps // 2:
            after.load_state_dict(before.state_dict())
        (before if step < n_steps // 2 else after).train_step(*batch())
    return _weights(after)


def _losses(bench: Bench, params: MdganParams) -> list[float]:
    params = dataclasses.replace(params, n_snippets=AGREE_STEPS * params.batch_size, n_reports=1)
    model, batch = Mdgan(params, 16, 0, bench.device), bench.batches(params)
    for _ in range(AGREE_STEPS):
        out = model.train_step(*batch())
    return [float(value) for value in out.values()]


def _weights(model: Mdgan) -> str:
    digest = hashlib.sha256()
    for net in model.nets.values():
        for tensor in net.state_dict().values():
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def reports(bench: Bench) -> Iterator[Row]:
    """Seconds of an evaluation and of a checkpoint; sizes of its files."""
    songs = gather_songs(
        *({("", ""): [_in_a_row(bench.snippets(n))]} for n in (2000, N_EVALUATED)),
        16, N_EVALUATED, 0,
    )  # fmt: skip
    reference = fit_reference(bench.snippets(2000), songs, 0, 128)
    params = bench.params("full")
    model = Mdgan(params, 16, 0, bench.device)
    yield _evaluation(model, reference, songs)
    model.train_step(*bench.batches(params)())
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        save_training(model, Path(folder))
        save_decoder(model, Path(folder), {})
        seconds = time.perf_counter() - began
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
    yield {"what": "checkpoint", "s": seconds, "mb": size / 1e6}
    if bench.device != "cpu":  # last: it takes longest, and is there to compare with
        yield _evaluation(Mdgan(params, 16, 0), reference, songs)


def _in_a_row(snippets: Tensor) -> NDArray[np.float32]:
    """Frames [n * n_frames, n_freq] of snippets [n, 1, n_freq, n_frames], one after the other."""
    frames: NDArray[np.float32] = snippets[:, 0].transpose(1, 2).flatten(0, 1).numpy()
    return frames


def _evaluation(model: Mdgan, reference: Reference, songs: tuple[Songs, ...]) -> Row:
    evaluate(model, reference, songs, 0)
    began = time.perf_counter()
    evaluate(model, reference, songs, 0)
    seconds = time.perf_counter() - began
    return {"what": f"evaluation on {model.device}", "n": N_EVALUATED, "s": seconds}
