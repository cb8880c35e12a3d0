"""The six phases of a step: who moves, in which order, from when on, and what comes of it."""

from contextlib import contextmanager
from typing import get_args

import pytest
import torch

from models.mdgan.params import Order
from tests.helpers.tiny_mdgan import (
    DATA,
    DISCS,
    KINDS,
    VARIANTS,
    build,
    draw_all,
    moved,
    parameters,
    run_phase,
    snippets,
    steps,
    trainable,
    weights,
)

each_variant = pytest.mark.parametrize(("kind", "normalisation"), VARIANTS)
each_kind = pytest.mark.parametrize("kind", KINDS)
each_order = pytest.mark.parametrize("order", get_args(Order))
OWNERS = {
    "manifold_discriminator": {"manifold_disc"},
    "manifold_autoencoder": {"encoder", "generator"},
    "diffusion_discriminator": {"diffusion_disc"},
    "diffusion_generator": {"generator"},
    "latent": {"encoder", "generator"},
    "monitor": {"monitor_disc"},
}
ADVERSARIAL = {
    "train/manifold_disc", "train/manifold_adversarial", "train/diffusion_disc",
    "train/diffusion_adversarial", "train/latent_cycle", "train/monitor_disc",
}  # fmt: skip


# Who moves


@each_variant
@pytest.mark.parametrize("phase", OWNERS)
def test_a_phase_moves_only_its_owners(phase, kind, normalisation):
    model = build(kind, normalisation=normalisation)
    before = parameters(model)
    run_phase(model, phase, DATA[:4])
    assert moved(model, before) == OWNERS[phase]
    with_gradients = {
        name for name, net in model.nets.items() for p in net.parameters() if p.grad is not None
    }
    assert with_gradients == OWNERS[phase]


@each_order
@each_kind
def test_within_a_step_each_phase_moves_its_owners_and_nothing_else_moves(kind, order):
    model = trainable(kind, order=order, width=0 if kind == "dense" else 4)
    original, found, last = model.phases._phase, [], parameters(model)

    @contextmanager
    def watched(*owners):
        nonlocal last
        assert moved(model, last) == set()
        with original(*owners):
            yield
        assert moved(model, last) == set(owners)
        assert all(p.grad.abs().max() > 0 for n in owners for p in model.nets[n].parameters())
        found.append(set(owners))
        last = parameters(model)

    model.phases._phase = watched
    model.train_step(DATA[:16])
    assert moved(model, last) == set()
    alternating = [OWNERS[phase] for phase in OWNERS]
    assert (
        found
        == {
            "alternating": alternating,
            "joint": [
                {"manifold_disc"},
                {"diffusion_disc"},
                {"encoder", "generator"},
                {"monitor_disc"},
            ],
        }[order]
    )


@each_order
@each_variant
def test_the_monitor_has_no_effect_on_the_others(kind, normalisation, order):
    others = ("encoder", "generator", "manifold_disc", "diffusion_disc")
    on, off = (
        build(kind, monitor=m, normalisation=normalisation, order=order) for m in (True, False)
    )
    before = weights(on, "monitor_disc")
    losses_on, losses_off = steps(on, 2), steps(off, 2)
    assert all(a.pop("train/monitor_disc") > 0 for a in losses_on)
    assert losses_on == losses_off
    assert weights(on, *others).keys() == weights(off, *others).keys()
    assert moved(on, parameters(off)) == {"monitor_disc"}
    assert torch.equal(on.rng.get_state(), off.rng.get_state())
    assert all(torch.equal(v, before[k]) for k, v in weights(off, "monitor_disc").items())


# From when on


@each_order
@each_kind
def test_until_its_share_of_the_training_only_encoder_and_generator_learn(kind, order):
    for lambda_prior, extra in ((0.0, set()), (1.0, {"train/latent_to_prior"})):
        model = build(kind, order=order, adversarial_from=0.2, lambda_prior=lambda_prior)
        alone = {"train/reconstruction"} | extra
        found = []
        for _ in range(4):
            before = parameters(model)
            found.append((set(steps(model, 1)[0]), moved(model, before)))
        # Steps 1 and 2 of 10 are its first fifth.
        assert (
            found
            == [(alone, {"encoder", "generator"})] * 2
            + [(alone | ADVERSARIAL, set(model.nets))] * 2
        )


def test_the_adversarial_terms_of_an_autoencoder_never_come_in():
    model = build("dense", adversarial_from=1.0)
    before = parameters(model)
    found = steps(model, 10)
    assert model.snippets_seen == model.params.n_snippets
    assert all(set(step) == {"train/reconstruction", "train/latent_to_prior"} for step in found)
    assert moved(model, before) == {"encoder", "generator"}


@each_order
def test_a_weight_of_0_leaves_its_term_out(order):
    model = build("dense", order=order)
    assert set(steps(model, 1)[0]) >= {"train/latent_cycle", "train/latent_to_prior"}
    model = build("dense", order=order, lambda_latent=0.0, lambda_prior=0.0)
    model.phases._cycle_loss = None
    assert not set(steps(model, 1)[0]) & {"train/latent_cycle", "train/latent_to_prior"}


@each_kind
def test_losses_are_reported_unweighted_and_without_gradient(kind):
    out = build(kind).train_step(DATA[:4])
    extra = {"train/latent_to_prior"} if kind != "convolutions" else set()
    assert set(out) == ADVERSARIAL | {"train/reconstruction"} | extra
    assert not any(value.requires_grad for value in out.values())


@each_order
@each_kind
def test_a_batch_smaller_than_the_others_is_trained_on_as_it_is(kind, order):
    model = build(kind, order=order)
    n_sampled, sample = [], model.phases._sample
    model.phases._sample = lambda prior: n_sampled.append(len(prior)) or sample(prior)
    for n in (4, 3, 1):
        n_sampled.clear()
        before = parameters(model)
        out = model.train_step(DATA[:n])
        assert moved(model, before) == set(model.nets)
        assert all(torch.isfinite(value) for value in out.values())
        assert set(n_sampled) == {n}
    assert model.snippets_seen == 8


# What comes of it


def test_the_discriminators_learn_which_is_which():
    model = build(lr=2e-2, label_noise=0.0, lr_schedule="constant")
    x, x_sampled = DATA[:16], torch.full((16, 1, 129, 16), 2.0)
    model._set_rates()
    for name in ("manifold_discriminator", "diffusion_discriminator", "monitor"):
        for _ in range(12):
            getattr(model.phases, f"{name}_phase")(x, x_sampled, draw_all(model, 16), {})
    with torch.no_grad():
        for name in DISCS:
            disc = model.nets[name]
            assert disc(x).mean() > 0 > disc(x_sampled).mean(), name


@each_kind
def test_training_reconstructs_better_and_leaves_no_latent_dead(kind):
    model = build(
        kind, latent_dim=6, width=0 if kind == "dense" else 4, batch_size=8, n_snippets=400,
        lr=1e-2 if kind == "convolutions" else 1e-3, monitor=False,
    )  # fmt: skip
    history = steps(model, 30)
    first, last = (
        sum(h["train/reconstruction"] for h in part) for part in (history[:5], history[-5:])
    )
    assert last < 0.7 * first
    z = model.encode(snippets(64, seed=3))
    assert (z.std(0) > 0.05).all()
    assert (z < 0).any()
