"""What steers a training: the learning rate's formula, and that each parameter does something."""

import dataclasses
import math

import pytest

from models.mdgan.params import MdganParams, learning_rate
from tests.helpers.tiny_mdgan import (
    BOTH_TINY,
    DATA,
    DISCS,
    PAPER_TINY,
    build,
    moved,
    parameters,
    run_phase,
    steps,
)

# Learning rate


def by_hand(schedule, warmup, seen):
    """The formula for a rate of 5e-3, 40 snippets and batches of 4."""
    low, share = 0.05 * 5e-3, min(seen / 40, 1)
    rate = {
        "constant": 5e-3,
        "linear": 5e-3 - (5e-3 - low) * share,
        "cosine": low + (5e-3 - low) * math.cos(math.pi * share / 2) ** 2,
    }[schedule]
    if seen / 40 < warmup:
        rate *= (seen + 4) / (warmup * 40 + 4)
    return rate


@pytest.mark.parametrize("seen", [0, 1, 10, 19, 20, 21, 39, 40, 44])
@pytest.mark.parametrize("warmup", [0.0, 0.5])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_learning_rate_is_that_of_the_formula(schedule, warmup, seen):
    params = dataclasses.replace(PAPER_TINY, lr_schedule=schedule, lr_warmup=warmup)
    expected = by_hand(schedule, warmup, seen)
    assert learning_rate(params, seen) == pytest.approx(expected, rel=1e-12)


def test_a_warm_up_rises_evenly_to_the_rate_and_each_schedule_ends_at_a_twentieth():
    params = dataclasses.replace(PAPER_TINY, lr_schedule="constant", lr_warmup=0.5)
    rates = [learning_rate(params, seen) for seen in range(0, 40, 4)]
    assert rates == pytest.approx([5e-3 * min(k / 6, 1) for k in range(1, 11)])
    for schedule in ("linear", "cosine"):
        params = dataclasses.replace(PAPER_TINY, lr_schedule=schedule)
        rates = [learning_rate(params, seen) for seen in range(0, 41, 4)]
        assert rates[0] == 5e-3
        assert sorted(rates, reverse=True) == rates
        assert rates[-1] == pytest.approx(0.05 * 5e-3)


@pytest.mark.parametrize("is_disc_lr_constant", [False, True])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.2])
def test_optimizers_hold_the_rate_of_the_formula_at_each_step(
    schedule, warmup, is_disc_lr_constant
):
    model = build(
        "dense", lr_schedule=schedule, lr_warmup=warmup, disc_lr_ratio=0.3,
        is_disc_lr_constant=is_disc_lr_constant,
    )  # fmt: skip
    for step in range(4):
        steps(model, 1)
        rate = by_hand(schedule, warmup, 4 * step)
        held = {name: o.param_groups[0]["lr"] for name, o in model.optimizers.items()}
        of_discs = 0.3 * (5e-3 if is_disc_lr_constant else rate)
        expected = {"encoder": rate, "generator": rate, **dict.fromkeys(DISCS, of_discs)}
        assert held == pytest.approx(expected, rel=1e-12)


def test_the_first_step_is_as_long_as_the_rate_says():
    # Adam's first step is the rate times the gradient's sign.
    model = build(disc_lr_ratio=0.25)
    before = parameters(model)
    model._set_rates()
    for phase in ("manifold_discriminator", "latent"):
        run_phase(model, phase, DATA[:4])
    after = parameters(model)
    assert moved(model, before) == {"manifold_disc", "encoder", "generator"}
    length = {
        name: max(float((after[n, k] - before[n, k]).abs().max()) for n, k in after if n == name)
        for name in ("manifold_disc", "encoder", "generator")
    }
    expected = {"manifold_disc": 0.25 * 5e-3, "encoder": 5e-3, "generator": 5e-3}
    assert length == pytest.approx(expected, rel=1e-3)


# Each parameter

CHANGES = {
    "latent_dim": 4, "width": 3, "dense_width": 9, "n_components": 5, "disc_width": 3,
    "normalisation": "none", "is_residual": True, "has_head": True, "initialisation": "normal",
    "prior": "uniform", "prior_scale": 1.5, "distance": "l2", "pool_weight": 0.3,
    "mse_weight": 0.5, "lambda_recon": 20.0, "lambda_latent": 3.0, "lambda_prior": 0.0,
    "adversarial_from": 0.1, "order": "alternating", "label_noise": 0.4, "lr": 1e-3,
    "disc_lr_ratio": 0.2, "lr_schedule": "constant", "lr_warmup": 0.2, "beta1": 0.9,
    "gan_loss": "relativistic", "is_disc_lr_constant": True,
    "max_grad_norm": 0.01, "batch_size": 5, "n_snippets": 80, "precision": "bfloat16",
}  # fmt: skip
# Of these the effect, or that there is none, has tests of its own.
ELSEWHERE = {
    "ema_decay", "collapse_after", "n_reports", "monitor", "channels_last", "compilation",
    "minibatch", "silent_share", "lambda_silence", "r1_r2",
}  # fmt: skip


@pytest.fixture(scope="module")
def losses_of_tiny():
    return steps(build("both"))


@pytest.mark.parametrize("name", CHANGES)
def test_every_parameter_changes_the_losses(name, losses_of_tiny):
    changed = steps(build("both", **{name: CHANGES[name]}))[-1]
    names = ("train/reconstruction", "train/diffusion_disc")
    assert any(changed[n] != losses_of_tiny[-1][n] for n in names)


def test_no_parameter_is_forgotten():
    assert set(CHANGES) | ELSEWHERE == {f.name for f in dataclasses.fields(MdganParams)}
    assert all(getattr(BOTH_TINY, name) != value for name, value in CHANGES.items())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": 0.0}, "lr is 0.0: it must be above 0"),
        ({"lr": math.nan}, "lr is nan"),
        ({"lambda_recon": -1.0}, "lambda_recon is -1.0: it must be 0 or more"),
        ({"lambda_prior": -1.0}, "lambda_prior is -1.0: it must be 0 or more"),
        ({"lambda_silence": -1.0}, "lambda_silence is -1.0: it must be 0 or more"),
        ({"r1_r2": -1.0}, "r1_r2 is -1.0: it must be 0 or more"),
        ({"gan_loss": "hinge"}, "gan_loss is 'hinge': choose one of paper, relativistic"),
        (
            {"gan_loss": "relativistic", "compilation": "default"},
            "compilation is 'default' and r1_r2 1.0: .* Set compilation=off",
        ),
        ({"silent_share": 1.0}, "silent_share is 1.0: .* below 1"),
        ({"minibatch": "even"}, "minibatch is 'even': choose one of balanced, uniform"),
        ({"mse_weight": -1.0}, "mse_weight is -1.0: it must be 0 or more"),
        ({"max_grad_norm": -1.0}, "max_grad_norm is -1.0: it must be 0 or more"),
        ({"collapse_after": -1}, "collapse_after is -1: it must be 0 or more"),
        ({"adversarial_from": 1.1}, "adversarial_from is 1.1: it must lie between 0 and 1"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0: .* below 1"),
        ({"lr_warmup": 1.0}, "lr_warmup is 1.0: .* below 1"),
        ({"beta1": 1.0}, "beta1 is 1.0: .* below 1"),
        ({"label_noise": 0.5}, "label_noise is 0.5: .* below 0.5"),
        ({"prior": "cauchy"}, "prior is 'cauchy': choose one of normal, uniform, student_t"),
        ({"distance": "l3"}, "distance is 'l3': choose one of l1, l2"),
        ({"lr_schedule": "cosin"}, "lr_schedule is 'cosin': choose one of constant, linear, cos"),
        ({"order": "both"}, "order is 'both': choose one of alternating, joint"),
        ({"precision": "half"}, "precision is 'half': choose one of float32, tf32, bfloat16"),
        ({"compilation": "on"}, "compilation is 'on': choose one of off, default, cuda_graphs"),
        ({"width": 0}, "width and dense_width are both 0"),
        ({"n_snippets": 7}, "n_snippets is 7: too few for 2 reports .* batch of 4. Raise"),
    ],
)
def test_errors_name_the_value_and_the_remedy(changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(PAPER_TINY, **changes)
