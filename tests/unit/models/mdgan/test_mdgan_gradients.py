"""Gradients of each phase and of the joint order against those of graphs written out here."""

import copy

import pytest
import torch
from torch.nn import functional

from models.mdgan import losses
from tests.helpers.tiny_mdgan import DATA, DISCS, KINDS, VARIANTS, parameters, run_phase, trainable

each_kind = pytest.mark.parametrize("kind", KINDS)
each_variant = pytest.mark.parametrize(("kind", "normalisation"), VARIANTS)


def fresh_copies(model):
    """Encoder, generator and random numbers as they are now, apart from the model's."""
    rng = torch.Generator()
    rng.set_state(model.rng.get_state())
    encoder, generator = copy.deepcopy((model.encoder, model.generator))
    for net in (encoder, generator):
        net.train().requires_grad_(True).zero_grad()
    return encoder, generator, rng


def assert_same_gradients(net, fresh):
    for (name, found), expected in zip(net.named_parameters(), fresh.parameters(), strict=True):
        largest = float(expected.grad.abs().max())
        assert largest > 0, name
        difference = float((found.grad - expected.grad).abs().max())
        assert difference < 1e-4 * largest, name


@each_variant
def test_the_diffusion_step_trains_every_parameter_of_the_generator(kind, normalisation):
    model = trainable(kind, normalisation, width=0 if kind == "dense" else 4)
    before = parameters(model)
    run_phase(model, "diffusion_generator", DATA[:16])
    for name, parameter in model.generator.named_parameters():
        assert parameter.grad.abs().max() > 0, name
        assert not torch.equal(parameter, before["generator", name]), name


@each_variant
def test_gradients_of_the_latent_phase_are_those_of_a_fresh_graph(kind, normalisation):
    model = trainable(
        kind, normalisation, lambda_latent=2.5, width=0 if kind == "dense" else 4
    )  # fmt: skip
    model.train_step(DATA[:16])
    encoder, generator, rng = fresh_copies(model)
    z = torch.randn(16, 3, generator=rng)
    (2.5 * (encoder(generator(z, "prior"), "prior") - z).abs().mean()).backward()
    model.phases.latent_phase({"cycle": model.sample_prior(16)}, {})
    assert_same_gradients(model.encoder, encoder)
    assert_same_gradients(model.generator, generator)


@each_kind
def test_gradients_of_the_diffusion_phase_hold_nothing_of_the_phases_before(kind):
    model = trainable(kind)
    run_phase(model, "manifold_autoencoder", DATA[:16])
    _, generator, rng = fresh_copies(model)
    disc = copy.deepcopy(model.nets["diffusion_disc"])
    z = torch.randn(16, 3, generator=rng)
    functional.softplus(-disc(generator(z, "prior"))).mean().backward()
    model.phases._require_grad("generator")
    sampled = model.generator(model.sample_prior(16), "prior")
    model.phases.diffusion_generator_phase(DATA[:16], sampled, {})
    assert_same_gradients(model.generator, generator)


@each_kind
def test_gradients_of_the_autoencoder_are_those_of_the_weighted_sum(kind):
    model = trainable(
        kind, lambda_recon=40.0, pool_weight=0.5, mse_weight=0.0, distance="l2", lambda_prior=3.0,
        width=0 if kind == "dense" else 4,
    )  # fmt: skip
    x = DATA[:16]
    encoder, generator, rng = fresh_copies(model)
    z = encoder(x)
    x_hat = generator(z)
    pooled = functional.avg_pool2d(x - x_hat, 3, stride=4)
    recon = (x - x_hat).square().mean() + 0.5 * pooled.square().mean()
    adversarial = functional.softplus(-copy.deepcopy(model.nets["manifold_disc"])(x_hat)).mean()
    torch.randn(16, 3, generator=rng)  # what run_phase's samples are drawn from
    prior = torch.randn(16, 3, generator=rng)
    to_prior = losses.sliced_wasserstein(z, prior, losses.random_directions(3, rng))
    (adversarial + 40 * recon + 3 * to_prior).backward()
    out = run_phase(model, "manifold_autoencoder", x)
    assert_same_gradients(model.encoder, encoder)
    assert_same_gradients(model.generator, generator)
    # What is reported is not weighted.
    assert out["train/reconstruction"].item() == pytest.approx(recon.item(), rel=1e-5)
    assert out["train/manifold_adversarial"].item() == pytest.approx(adversarial.item(), rel=1e-5)
    assert out["train/latent_to_prior"].item() == pytest.approx(to_prior.item(), rel=1e-5)


@pytest.mark.parametrize("lambda_latent", [0.0, 2.5])
@each_kind
def test_gradients_of_the_joint_order_are_those_of_the_sum_on_graphs_apart(kind, lambda_latent):
    model = trainable(
        kind, order="joint", lambda_recon=40.0, lambda_latent=lambda_latent, lambda_prior=3.0,
        width=0 if kind == "dense" else 4, monitor=False,
    )  # fmt: skip
    for name in DISCS:  # stay as they are, so that their copies judge the same
        model.optimizers[name].step = lambda: None
    x, p = DATA[:16], model.params
    manifold, diffusion = (copy.deepcopy(model.nets[name]) for name in DISCS[:2])
    encoder, generator, rng = fresh_copies(model)
    drawn = torch.randn(16, 3, generator=rng)
    torch.rand(4, 16, generator=rng)  # labels
    prior = torch.randn(16, 3, generator=rng)
    z = encoder(x)
    x_hat = generator(z)
    (40 * losses.reconstruction(x, x_hat, "l1", p.pool_weight, p.mse_weight)).backward()
    directions = losses.random_directions(3, rng)
    (3 * losses.sliced_wasserstein(encoder(x), prior, directions)).backward()
    losses.adversarial_loss(manifold(generator(encoder(x)))).backward()
    losses.adversarial_loss(diffusion(generator(drawn, "prior"))).backward()
    if lambda_latent:
        cycle = (encoder(generator(drawn, "prior"), "prior") - drawn).abs().mean()
        (lambda_latent * cycle).backward()
    out = model.train_step(x)
    assert_same_gradients(model.encoder, encoder)
    assert_same_gradients(model.generator, generator)
    assert ("train/latent_cycle" in out) == bool(lambda_latent)
