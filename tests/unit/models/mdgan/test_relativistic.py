"""Relativistic discriminators: losses and penalties against formulas written out here."""

import copy
import dataclasses
from typing import get_args

import pytest
import torch

from models.mdgan import losses
from models.mdgan.params import Order
from models.mdgan.shape import Normalisation
from tests.helpers.tiny_mdgan import (
    DATA,
    DISCS,
    KINDS,
    assert_equal,
    build,
    draw_all,
    parameters,
    steps,
    trainable,
    weights,
)

each_kind = pytest.mark.parametrize("kind", KINDS)
each_order = pytest.mark.parametrize("order", get_args(Order))
RELATIVISTIC = {"gan_loss": "relativistic", "label_noise": 0.0}


def test_the_loss_is_small_where_the_better_of_each_pair_has_the_higher_logit():
    better, worse = torch.tensor([3.0, -1.0]), torch.tensor([1.0, 1.0])
    expected = -torch.log(torch.sigmoid(torch.tensor([2.0, -2.0]))).mean()
    assert float(losses.relativistic_loss(better, worse)) == pytest.approx(float(expected))
    assert losses.relativistic_loss(better + 5, worse + 5) == losses.relativistic_loss(
        better, worse
    )
    far = losses.relativistic_loss(torch.tensor([50.0]), torch.tensor([-50.0]))
    assert float(far) == pytest.approx(0.0, abs=1e-20)


def test_the_penalty_is_the_squared_length_of_the_gradient():
    x = torch.rand(5, 1, 3, 2, requires_grad=True)
    weight = torch.tensor([[1.0, 2.0], [0.0, -1.0], [3.0, 0.5]], requires_grad=True)
    logits = (weight * x[:, 0]).sum((1, 2)) + 0.5 * x.square().sum((1, 2, 3))
    found = losses.gradient_penalty(logits, x)
    expected = (weight + x[:, 0]).square().sum((1, 2)).mean()
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    (gradient,) = torch.autograd.grad(found, weight)
    torch.testing.assert_close(gradient, 2 * (weight + x[:, 0]).mean(0).detach())


def by_differences(disc, x, step=1e-6):
    """Squared length of the gradient of each logit, one input after the other, in float64."""
    total = 0.0
    for i in range(x[0].numel()):
        moved = x.clone().flatten(1)
        moved[:, i] += step
        up = disc(moved.view_as(x))
        moved[:, i] -= 2 * step
        total += ((up - disc(moved.view_as(x))) / (2 * step)).square().mean()
    return total


@pytest.mark.parametrize("first", [0, 1])
def test_the_penalty_of_a_discriminator_is_that_of_differences(first):
    disc = build("dense", disc_width=1).nets[DISCS[first]].double().requires_grad_(False)
    x = DATA[:2].double()
    given = x.clone().requires_grad_()
    found = losses.gradient_penalty(disc(given), given)
    expected = float(by_differences(disc, x))
    assert float(found.detach()) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("normalisation", get_args(Normalisation))
@pytest.mark.parametrize("r1_r2", [0.0, 3.0])
@pytest.mark.parametrize("disc", DISCS[:2])
def test_a_discriminator_learns_by_the_pairs_and_both_penalties(disc, r1_r2, normalisation):
    model = trainable("convolutions", normalisation, **RELATIVISTIC, r1_r2=r1_r2)
    first, second = DATA[:6], DATA[6:12].flip(2)
    net = copy.deepcopy(model.nets[disc]).requires_grad_(True)
    phase = f"{disc.removesuffix('_disc')}_discriminator_phase"
    out = {}
    getattr(model.phases, phase)(first, second, {}, out)

    given = [one.clone().requires_grad_() for one in (first, second)]
    logits = [net(one) for one in given]
    # R1 and R2 by one gradient each, of the plain sum.
    penalties = [
        torch.autograd.grad(of.sum(), one, create_graph=True)[0].square().sum() / 6
        for of, one in zip(logits, given, strict=True)
    ]
    loss = torch.log1p(torch.exp(-(logits[0] - logits[1]))).mean()
    (loss + r1_r2 / 2 * sum(penalties)).backward()
    for (name, found), expected in zip(
        model.nets[disc].named_parameters(), net.parameters(), strict=True
    ):
        # The last bias moves both logits alike.
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-3, atol=1e-6, msg=name)
    assert float(out[f"train/{disc}"].detach()) == pytest.approx(float(loss.detach()), rel=1e-5)
    if r1_r2:
        expected = float(sum(penalties).detach())
        assert float(out[f"train/{disc}_penalty"].detach()) == pytest.approx(expected, rel=1e-4)
    else:
        assert set(out) == {f"train/{disc}"}


@each_kind
def test_the_generator_is_pulled_to_pass_for_the_better_of_each_pair(kind):
    model = trainable(kind, **RELATIVISTIC)
    x, numbers = DATA[:16], draw_all(model, 16)
    generator, disc = copy.deepcopy((model.generator, model.nets["diffusion_disc"]))
    generator.requires_grad_(True)
    made = generator(numbers["prior"], "prior")
    torch.nn.functional.softplus(disc(x).detach() - disc(made)).mean().backward()
    sampled = model.generator(numbers["prior"], "prior")
    model.phases.diffusion_generator_phase(x, sampled, {})
    for found, expected in zip(model.generator.parameters(), generator.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-7)
    assert all(p.grad is None for p in model.nets["diffusion_disc"].parameters())


@each_order
@each_kind
def test_no_gradient_of_a_discriminator_or_of_real_snippets_reaches_the_encoder(kind, order):
    """Encoder and generator are moved by the same gradients whatever the penalty weighs."""
    found = []
    for r1_r2 in (0.0, 50.0):
        model = trainable(kind, order=order, **RELATIVISTIC, r1_r2=0.0, monitor=False)
        model.phases._params = dataclasses.replace(model.params, r1_r2=r1_r2)
        for name in DISCS:
            model.optimizers[name].step = lambda: None
        model.train_step(DATA[:16])
        found.append(
            {key: value for key, value in parameters(model).items() if key[0] not in DISCS}
        )
    assert_equal(*found)


@each_order
@each_kind
def test_a_relativistic_training_repeats_itself_and_goes_on_from_its_state(kind, order):
    changes = {**RELATIVISTIC, "order": order, "n_snippets": 80}
    whole, again, stopped = (build(kind, **changes) for _ in range(3))
    assert steps(whole, 6) == steps(again, 6)
    steps(stopped, 3)
    resumed = build(kind, seed=9, **changes)
    resumed.load_state_dict(stopped.state_dict())
    steps(resumed, 3)
    assert_equal(weights(resumed), weights(whole))


@each_order
def test_the_monitor_has_the_same_loss_in_all_trainings(order):
    one, other = (
        build("dense", order=order, gan_loss=loss, lambda_recon=0.0) for loss in ("paper",
        "relativistic")
    )  # fmt: skip
    # The monitor's labels come from a generator of their own.
    first = one.train_step(DATA[:4])["train/monitor_disc"]
    assert float(first) == pytest.approx(
        float(other.train_step(DATA[:4])["train/monitor_disc"]), rel=0.05
    )


@each_order
def test_relativistic_discriminators_learn_in_bfloat16_too(order):
    half, full = (
        build("both", order=order, precision=precision, **RELATIVISTIC, lr=1e-4)
        for precision in ("bfloat16", "float32")
    )
    for a, b in zip(steps(half, 3), steps(full, 3), strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            assert value == pytest.approx(b[name], rel=0.1, abs=1e-3), name
