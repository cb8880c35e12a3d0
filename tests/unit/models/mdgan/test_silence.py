"""Silent snippets of a minibatch: what sees them, what pulls at them, and what never does."""

from typing import get_args

import pytest
import torch

from models.mdgan.params import Order
from tests.helpers.tiny_mdgan import (
    DATA,
    DISCS,
    KINDS,
    Minibatches,
    assert_equal,
    build,
    steps,
    weights,
)

each_kind = pytest.mark.parametrize("kind", KINDS)
each_order = pytest.mark.parametrize("order", get_args(Order))
N, N_SOUNDING = 16, 11
# No loss but the one that a test names.
FREE = {"lambda_recon": 0.0, "lambda_prior": 0.0, "lambda_silence": 0.0, "monitor": False}


def silent(n, seed=5):
    """Snippets with nothing but a little noise."""
    return 0.01 * torch.rand(n, 1, 129, 16, generator=torch.Generator().manual_seed(seed))


def mixed():
    return torch.cat([DATA[:N_SOUNDING], silent(N - N_SOUNDING)])


def latent_gradient(model, x, n_sounding):
    """Gradient of the loss of encoder and generator at each latent of ``x``."""
    kept, encode = [], model.phases._reconstruction

    def reconstruction(x):
        z, x_hat = encode(x)
        z.retain_grad()
        kept.append(z)
        return z, x_hat

    model.phases._reconstruction = reconstruction
    model.train_step(x, n_sounding)
    return kept[0].grad


@each_kind
def test_the_pull_to_the_prior_reaches_sounding_latents_alone(kind):
    model = build(kind, **{**FREE, "lambda_prior": 1.0, "adversarial_from": 1.0})
    gradient = latent_gradient(model, mixed(), N_SOUNDING)
    assert (gradient[:N_SOUNDING].abs().sum(1) > 0).all()
    assert (gradient[N_SOUNDING:] == 0).all()


@each_kind
def test_silent_latents_are_pulled_to_their_own_mean_and_sounding_ones_are_not(kind):
    model = build(kind, **{**FREE, "lambda_silence": 2.0, "adversarial_from": 1.0})
    z = model.encoder(mixed()).detach()[N_SOUNDING:]
    gradient = latent_gradient(model, mixed(), N_SOUNDING)
    assert (gradient[:N_SOUNDING] == 0).all()
    expected = 2.0 * 2 * (z - z.mean(0)) / z.numel()
    # Alike latents differ in their last digits alone, and those are another processor's own.
    rounding = 4 * float(z.abs().max()) * 1e-6 / z.numel()
    assert rounding < 0.1 * float(expected.abs().max())
    torch.testing.assert_close(gradient[N_SOUNDING:], expected, rtol=1e-4, atol=rounding)


def test_the_spread_of_silent_latents_is_reported_unweighted():
    model = build("dense", lambda_silence=2.0)
    z = model.encoder(mixed()).detach()[N_SOUNDING:]
    found = model.train_step(mixed(), N_SOUNDING)["train/silent_spread"]
    assert float(found) == pytest.approx(float(z.var(0, unbiased=False).mean()), rel=1e-5)
    for changes, n in (({"lambda_silence": 0.0}, N_SOUNDING), ({}, N), ({}, None)):
        assert "train/silent_spread" not in build("dense", **changes).train_step(mixed(), n)


@each_order
@each_kind
def test_no_discriminator_ever_sees_silence(kind, order):
    model = build(kind, order=order)
    seen = []
    for name in DISCS:
        model.nets[name].register_forward_pre_hook(
            lambda _, given, name=name: seen.append((name, given[0]))
        )
    x = mixed()
    model.train_step(x, N_SOUNDING)
    assert {name for name, _ in seen} == set(DISCS)
    assert {len(given) for _, given in seen} == {N_SOUNDING}
    real = [given for name, given in seen if name in ("manifold_disc", "monitor_disc")]
    assert sum(torch.equal(given, x[:N_SOUNDING]) for given in real) == 2


@each_order
@each_kind
def test_silence_is_reconstructed_as_song_is(kind, order):
    for adversarial_from in (0.0, 1.0):
        changes = {"adversarial_from": adversarial_from, "pool_weight": 0.0, "mse_weight": 0.0}
        model, x = build(kind, order=order, **changes), mixed()
        with torch.no_grad():
            expected = (x - model.generator(model.encoder(x))).abs().mean()
        found = model.train_step(x, N_SOUNDING)["train/reconstruction"]
        assert float(found) == pytest.approx(float(expected), rel=1e-5)


@each_order
@each_kind
def test_a_minibatch_of_sound_alone_is_trained_on_as_ever(kind, order):
    one, other = (build(kind, order=order) for _ in range(2))
    for first in (0, 16, 32):
        found = one.train_step(DATA[first : first + 16], 16)
        expected = other.train_step(DATA[first : first + 16])
        assert_equal(found, expected)
    assert_equal(weights(one), weights(other))


@each_order
def test_a_training_with_silence_goes_on_as_if_it_had_never_stopped(order):
    def step(model):
        minibatches = Minibatches(torch.cat([DATA, silent(8)]), N_SOUNDING)
        return model.train_step(minibatches.sample(N, model.rng), minibatches.n_sounding(N))

    whole, stopped = (build("both", order=order, n_snippets=160) for _ in range(2))
    for _ in range(6):
        step(whole)
    for _ in range(3):
        step(stopped)
    resumed = build("both", seed=9, order=order, n_snippets=160)
    resumed.load_state_dict(stopped.state_dict())
    for _ in range(3):
        step(resumed)
    assert_equal(weights(resumed), weights(whole))
    assert steps(resumed, 1) == steps(whole, 1)
