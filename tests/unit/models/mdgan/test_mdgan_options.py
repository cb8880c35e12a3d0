"""Averaged weights, limits of gradients, precision, memory format and compilation."""

import copy
from functools import partial

import pytest
import torch

from tests.helpers.tiny_mdgan import (
    DATA,
    DISCS,
    KINDS,
    assert_equal,
    build,
    parameters,
    steps,
    weights,
)

each_kind = pytest.mark.parametrize("kind", KINDS)

# Averaged weights


def averages(model):
    return {
        (name, key): value.clone()
        for name in ("encoder", "generator")
        for key, value in model.kept(name).state_dict().items()
    }


@pytest.mark.parametrize("normalisation", ["layer", "batch"])
@each_kind
def test_what_is_kept_is_the_average_of_weights_with_its_decay(kind, normalisation):
    # Batch norm's running statistics are averaged as weights are.
    model = build(kind, ema_decay=0.7, normalisation=normalisation)
    expected = None
    for _ in range(4):
        steps(model, 1)
        now = weights(model, "encoder", "generator")
        # The first weights are random: the average begins with those of the first step.
        expected = expected or now
        expected = {key: 0.7 * expected[key] + 0.3 * value for key, value in now.items()}
    found = averages(model)
    assert found.keys() == expected.keys()
    for key, value in found.items():
        torch.testing.assert_close(value, expected[key], atol=1e-6, rtol=1e-5)
    assert any(not torch.equal(found[key], value) for key, value in now.items())


@each_kind
def test_the_averaged_networks_are_those_that_encode_and_decode(kind):
    model = build(kind, ema_decay=0.7)
    steps(model, 3)
    encoder, generator = model.kept("encoder"), model.kept("generator")
    assert encoder is not model.encoder
    with torch.no_grad():
        z = encoder.eval()(DATA[:8])
        assert torch.equal(model.encode(DATA[:8]), z)
        assert torch.equal(model.decode(z), generator.eval()(z))
        assert not torch.equal(model.encoder.eval()(DATA[:8]), z)
        assert not torch.equal(model.generator.eval()(z), model.decode(z))


def test_without_a_decay_the_last_weights_are_kept():
    model = build("dense")
    assert model.kept("encoder") is model.encoder
    assert model.kept("generator") is model.generator
    assert model.averaged == {}


def test_averages_have_no_effect_on_the_training():
    with_them, without = build("both", ema_decay=0.7), build("both")
    assert steps(with_them) == steps(without)
    assert_equal(weights(with_them), weights(without))


def test_averages_round_trip_and_go_on():
    model, other = build("dense", ema_decay=0.7), build("dense", seed=4, ema_decay=0.7)
    steps(model, 3)
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    assert_equal(averages(other), averages(model))
    # Not as if they began anew.
    steps(model, 1), steps(other, 1)
    assert_equal(averages(other), averages(model))


# Limits of gradients


def norms(model):
    """Adam's gradients at each step: their norm over the networks that step together."""
    found = []
    for name, optimizer in model.optimizers.items():

        def step(name=name, step=optimizer.step):
            squares = [p.grad.square().sum() for p in model.nets[name].parameters()]
            found.append((name, float(sum(squares))))
            step()

        optimizer.step = step
    model.train_step(DATA[:4])
    together = {}
    for name, square in found:
        group = name if name in DISCS else "encoder and generator"
        together[group] = together.get(group, 0.0) + square
    return {group: square**0.5 for group, square in together.items()}


@each_kind
def test_no_gradient_is_longer_than_the_limit_and_shorter_ones_stay(kind):
    free = norms(build(kind, order="joint"))
    assert set(free) == {"encoder and generator", *DISCS}
    for share in (0.1, 0.9, 1.1):
        limit = share * free["encoder and generator"]
        found = norms(build(kind, order="joint", max_grad_norm=limit))
        group = "encoder and generator"
        assert found[group] == pytest.approx(min(limit, free[group]), rel=1e-4)
        # A discriminator's own length counts, not that of others.
        assert found["manifold_disc"] == pytest.approx(min(limit, free["manifold_disc"]), rel=1e-4)
    limit = 0.5 * free["manifold_disc"]
    assert norms(build(kind, max_grad_norm=limit))["manifold_disc"] == pytest.approx(limit)


def test_a_gradient_that_is_cut_keeps_its_direction():
    free, cut = (build("dense", max_grad_norm=limit) for limit in (0.0, 0.01))
    for model in (free, cut):
        model.train_step(DATA[:4])
    one, other = (torch.cat([p.grad.flatten() for p in m.generator.parameters()])
                  for m in (free, cut))  # fmt: skip
    assert torch.cosine_similarity(one, other, dim=0) > 0.9999
    assert other.norm() < 0.01 < one.norm()


# Precision, memory format, compilation: other ways to the same numbers


def compared(found, expected, **tolerance):
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert value == pytest.approx(other[name], **tolerance), name


@pytest.mark.parametrize("order", ["alternating", "joint"])
@each_kind
def test_bfloat16_gives_nearly_the_same_losses_and_keeps_weights_in_float32(kind, order):
    model = build(kind, precision="bfloat16", order=order, lr=1e-4)
    found = steps(model, 4)
    expected = steps(build(kind, order=order, lr=1e-4), 4)
    compared(found, expected, rel=0.05)
    assert found[0] != expected[0]
    assert all(p.dtype == torch.float32 for p in parameters(model).values())
    for optimizer in model.optimizers.values():
        for moments in optimizer.state_dict()["state"].values():
            assert moments["exp_avg"].dtype == torch.float32
    assert model.encode(DATA[:4]).dtype == model.decode(torch.zeros(4, 3)).dtype == torch.float32


@pytest.mark.parametrize("order", ["alternating", "joint"])
@each_kind
def test_channels_last_gives_the_same_losses(kind, order):
    model = build(kind, channels_last=True, order=order, lr=1e-4)
    compared(steps(model), steps(build(kind, order=order, lr=1e-4)), rel=1e-4)
    if kind != "dense":
        conv = model.encoder.convolutions.net[3]
        assert conv.weight.is_contiguous(memory_format=torch.channels_last)


# What dynamo itself warns of when it looks at a latent with a gradient behind it.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "both"])
def test_compiled_networks_give_the_same_losses(kind, monkeypatch):
    # The graphs are torch's own; the compiler behind them would take a minute.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    changes = {"order": "joint", "adversarial_from": 0.1}
    model, plain = (build(kind, compilation=c, **changes) for c in ("default", "off"))
    compared(steps(model), steps(plain), rel=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    torch.testing.assert_close(model.encode(DATA), plain.encode(DATA), atol=1e-4, rtol=1e-4)
    assert weights(model).keys() == weights(plain).keys()


def test_only_the_default_compilation_compiles_the_networks(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda net: compiled.append(net))
    build("dense", compilation="off")
    assert compiled == []
    model = build("dense", compilation="default")
    assert compiled == list(model.nets.values())
