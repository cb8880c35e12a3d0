"""A step as a GPU wants it: one copy of random numbers, no waits, and recorded as a graph."""

import copy
import dataclasses
import gc
import weakref
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from models.mdgan import model as model_module
from models.mdgan import step_numbers, training
from models.mdgan.average import Average
from models.mdgan.cuda_graph import WARM_UP, CudaRecorder
from models.mdgan.devices import full_precision, send, use_arithmetic
from models.mdgan.encoding import decode_latents, encode_spectrogram
from models.mdgan.frames import Frames
from models.mdgan.training import Evaluation, train
from tests.helpers.tiny_mdgan import (
    DATA,
    KINDS,
    assert_equal,
    build,
    sample_batch,
    steps,
    weights,
)
from tests.helpers.waits import counted_waits

each_kind = pytest.mark.parametrize("kind", KINDS)
each_order = pytest.mark.parametrize("order", ["alternating", "joint"])
CPU = torch.device("cpu")

# Random numbers


def rngs():
    return torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)


@each_order
@each_kind
def test_numbers_come_back_from_the_buffer_with_their_names_and_shapes(kind, order):
    p = build(kind, order=order, lambda_prior=1.0).params
    names = step_numbers.names_of(p, is_adversarial=True)
    drawn = step_numbers.draw(p, names, 4, *rngs())
    buffer = step_numbers.pack(drawn, pinned=False)
    assert buffer.ndim == 1
    found = step_numbers.unpack(buffer, drawn)
    assert list(found) == names
    for name in names:
        assert torch.equal(found[name], drawn[name])
        assert found[name].data_ptr() >= buffer.data_ptr()  # a view, not a copy
    assert drawn["prior"].shape == drawn["to_prior"].shape == (4, 3)
    assert drawn["manifold_disc_labels"].shape == (2, 4)


def test_what_a_step_does_not_need_is_not_drawn():
    p = build("dense").params
    assert step_numbers.names_of(p, is_adversarial=False) == ["to_prior", "directions"]
    without = dataclasses.replace(p, lambda_prior=0.0, lambda_latent=0.0, monitor=False)
    assert step_numbers.names_of(without, is_adversarial=False) == []
    for order in ("joint", "alternating"):
        names = step_numbers.names_of(dataclasses.replace(without, order=order), True)
        assert sorted(names) == ["diffusion_disc_labels", "manifold_disc_labels", "prior"]


def test_the_monitors_labels_are_of_its_own_numbers():
    p = build("dense", label_noise=0.4).params
    own, monitors = rngs()
    before = own.get_state()
    step_numbers.draw(p, ["monitor_disc_labels"], 50, own, monitors)
    assert torch.equal(own.get_state(), before)
    assert not torch.equal(monitors.get_state(), rngs()[1].get_state())


# Waits


@each_order
@each_kind
def test_a_step_sends_its_snippets_and_numbers_and_waits_for_nothing(kind, order):
    model = build(kind, order=order, ema_decay=0.9, max_grad_norm=1.0, adversarial_from=0.2)
    for _ in range(4):  # two before the adversarial terms begin, two after
        x = sample_batch(4, model.rng)
        with counted_waits() as found:
            model.train_step(x)
        assert (found.n_waits, found.n_sent) == (0, 2)


def test_a_training_waits_twice_at_each_check_and_not_between(monkeypatch):
    monkeypatch.setattr(training, "CHECK_EVERY", 5)
    model = build("dense", n_snippets=80, n_reports=1, collapse_after=5, lr=1e-4)
    frames = Frames(DATA[:, 0].transpose(1, 2).reshape(-1, 129).numpy(), np.arange(900), 16, CPU)
    with counted_waits() as found:
        train(model, frames, lambda m: Evaluation({}), lambda p: None)
    # 20 steps with 4 checks: are the losses numbers, and has the decoder collapsed?
    assert found.n_waits == 2 * 4


# Frames


@pytest.fixture
def sound():
    rng = np.random.default_rng(0)
    frames = rng.random((300, 129), dtype=np.float32)
    frames.setflags(write=False)  # as Ray gives them
    return frames, np.concatenate([np.arange(0, 85), np.arange(100, 285)])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n_frames", [8, 16])
def test_snippets_are_cut_where_the_seeds_numbers_say(sound, n_frames):
    frames, starts = sound
    found = Frames(frames, starts, n_frames, CPU).sample(50, torch.Generator().manual_seed(3))
    choice = torch.randint(len(starts), (50,), generator=torch.Generator().manual_seed(3))
    expected = np.stack([frames[first : first + n_frames].T for first in starts[choice]])
    assert found.shape == (50, 1, 129, n_frames)
    assert np.array_equal(found[:, 0].numpy(), expected)
    assert found.is_contiguous()


# Averages


def test_an_average_is_torchs_own():
    net, other = torch.nn.BatchNorm1d(3), None
    ours = Average(net, 0.8)
    torchs = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.8), use_buffers=True
    )
    for seed in range(4):
        other = torch.randn(10, 3, generator=torch.Generator().manual_seed(seed))
        net(other)
        with torch.no_grad():
            net.weight.add_(0.1)
        ours.update_parameters(net)
        torchs.update_parameters(net)
        assert_equal(dict(ours.state_dict()), dict(torchs.state_dict()))


# Arithmetic


class Flags:
    """Stands in for a module of torch.backends."""

    def __init__(self):
        self.allow_tf32 = self.benchmark = self.deterministic = None


@pytest.mark.parametrize(
    ("precision", "tf32"), [("float32", False), ("tf32", True), ("bfloat16", False)]
)
def test_on_a_gpu_only_tf32_rounds_and_cudnn_repeats_itself(precision, tf32, monkeypatch):
    cudnn, matmul = Flags(), Flags()
    monkeypatch.setattr(torch.backends, "cudnn", cudnn)
    monkeypatch.setattr(torch.backends.cuda, "matmul", matmul)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    use_arithmetic(CPU, precision)
    assert cudnn.allow_tf32 is None
    use_arithmetic(torch.device("cuda"), precision)
    assert (cudnn.allow_tf32, matmul.allow_tf32) == (tf32, False)
    assert (cudnn.benchmark, cudnn.deterministic) == (False, True)
    with full_precision():
        assert cudnn.allow_tf32 is False
    assert cudnn.allow_tf32 is tf32


def test_a_decoder_is_used_in_full_precision(monkeypatch):
    model, seen = build("convolutions"), []
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    for net in (model.encoder, model.generator):
        net.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    spectrogram = DATA[0, 0].numpy()
    z = encode_spectrogram(model.encoder, spectrogram, 16)
    decode_latents(model.generator, z)
    model.decode(model.encode(DATA[:2]))
    assert seen == [False] * 4
    model.train_step(DATA[:4])
    assert set(seen[4:]) == {True}


def test_the_dense_path_computes_in_float32_also_where_convolutions_do_not():
    half, full = build("both", precision="bfloat16"), build("both")
    for model in (half, full):
        # At first the convolutions' last layer is 0: what is left is the dense path.
        z = model.phases._pass("encoder", DATA[:8])
        assert torch.equal(z, full.encoder.dense(DATA[:8]))
        assert z.dtype == torch.float32


def test_a_step_casts_the_weights_of_a_network_once_until_they_move(monkeypatch):
    model = build("convolutions", precision="bfloat16", order="joint")
    cast, original = [], torch.clear_autocast_cache
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: cast.append(1) or original())
    kept = []

    class Kept(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            kwargs = kwargs or {}
            if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") is torch.bfloat16:
                kept.append((len(cast), args[0].data_ptr()))
            return func(*args, **kwargs)

    parameters = {p.data_ptr() for net in model.nets.values() for p in net.parameters()}
    with Kept():
        model.train_step(DATA[:4])
    of_weights = [one for one in kept if one[1] in parameters]
    assert of_weights
    assert len(of_weights) == len(set(of_weights))
    # Both discriminators, encoder and generator, monitor; and torch at the end of the step.
    assert len(cast) == 5


def test_a_copy_to_a_gpu_is_pinned(monkeypatch):
    done = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: done.append("pin") or t)
    monkeypatch.setattr(
        torch.Tensor, "to", lambda t, where, **kw: done.append((where.type, kw)) or t
    )
    send(torch.zeros(3), torch.device("cuda"))
    assert done == ["pin", ("cuda", {"non_blocking": True})]


# Recording


class FakeRecorder:
    """Records a step as CUDA does: nothing is computed until it is played."""

    def __init__(self, device=None):
        self.n_aside = self.n_recorded = self.n_played = 0

    @contextmanager
    def aside(self):
        self.n_aside += 1
        yield

    def record(self, run):
        self.n_recorded += 1
        out = {}

        def play():
            self.n_played += 1
            for name, value in run().items():
                out.setdefault(name, torch.empty_like(value)).copy_(value)

        return play, out


@pytest.fixture
def recorded(monkeypatch):
    def made(*args, **changes):
        monkeypatch.setattr(model_module, "CudaRecorder", FakeRecorder)
        return build(*args, compilation="cuda_graphs", **changes)

    return made


@each_order
@each_kind
def test_recorded_steps_give_what_steps_give(kind, order, recorded):
    changes = {
        "order": order, "adversarial_from": 0.5, "n_snippets": 80, "ema_decay": 0.5,
        "lr_warmup": 0.3, "max_grad_norm": 1.0,
    }  # fmt: skip
    graph, plain = recorded(kind, **changes), build(kind, **changes)
    losses = [steps(model, 20) for model in (graph, plain)]
    assert losses[0] == losses[1]
    assert_equal(weights(graph), weights(plain))
    assert torch.equal(graph.encode(DATA), plain.encode(DATA))
    recorder = graph._recorder
    # Ten steps of each kind; a recording is played in the same step.
    assert (recorder.n_aside, recorder.n_recorded, recorder.n_played) == (
        2 * WARM_UP, 2, 20 - 2 * WARM_UP,
    )  # fmt: skip


class Forgetful(FakeRecorder):
    """Keeps nothing of a step, as CUDA does."""

    def record(self, run):
        return lambda: None, run()


def test_memory_of_a_recorded_training_is_free_at_its_end(monkeypatch):
    monkeypatch.setattr(model_module, "CudaRecorder", Forgetful)
    model = build("dense", compilation="cuda_graphs")
    steps(model, WARM_UP + 2)
    held = weakref.ref(model), weakref.ref(model.generator)
    gc.disable()
    try:
        del model
        assert [one() for one in held] == [None, None]
    finally:
        gc.enable()


def test_losses_of_a_step_stay_when_the_next_one_is_played(recorded):
    model = recorded("dense", n_snippets=400)
    found = [model.train_step(DATA[:4])["train/reconstruction"] for _ in range(8)]
    again = recorded("dense", n_snippets=400)
    assert [float(value) for value in found] == [
        float(again.train_step(DATA[:4])["train/reconstruction"]) for _ in range(8)
    ]
    assert len({float(value) for value in found}) == 8


def test_a_recording_is_made_anew_for_another_batch_and_after_a_state_was_loaded(recorded):
    model, plain = recorded("dense", n_snippets=400), build("dense", n_snippets=400)
    for n in (4,) * 6 + (3,) * 6:
        for one in (model, plain):
            one.train_step(DATA[:n])
    assert model._recorder.n_recorded == 2
    for one in (model, plain):
        one.load_state_dict(copy.deepcopy(plain.state_dict()))
    assert steps(model, 6) == steps(plain, 6)
    assert model._recorder.n_recorded == 3
    assert_equal(weights(model), weights(plain))


@pytest.mark.parametrize("is_memory", [True, False])
def test_a_recording_that_fails_says_what_to_do(is_memory, monkeypatch):
    """Memory that is wanting is not taken for a step that cannot be recorded."""
    cause = torch.cuda.OutOfMemoryError("CUDA out of memory") if is_memory else ValueError("a wait")

    class Graph:
        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            pass

        def __exit__(self, *_):
            raise RuntimeError("the capture was invalidated")  # as CUDA says it then

    def run():
        raise cause

    for name in ("Stream", "CUDAGraph", "graph"):
        monkeypatch.setattr(torch.cuda, name, Graph)
    expected = (
        (torch.cuda.OutOfMemoryError, "CUDA out of memory")
        if is_memory
        else (RuntimeError, "cannot be recorded as a CUDA graph .* Set mdgan.compilation=off")
    )
    with pytest.raises(expected[0], match=expected[1]):
        CudaRecorder(torch.device("cuda")).record(run)


def test_without_a_gpu_there_are_no_cuda_graphs():
    with pytest.raises(ValueError, match="compilation is 'cuda_graphs', .* Set mdgan.compilation"):
        build("dense", compilation="cuda_graphs")
