"""Shapes of encoder, generator and discriminators, and what their errors say."""

from typing import get_args

import pytest
import torch

from models.networks import Discriminator, Encoder, Generator, NetworkShape, Normalisation

NORMALISATIONS = get_args(Normalisation)


def tiny(latent_dim=4, n_frames=16, normalisation="layer", width=2):
    return NetworkShape(latent_dim, n_frames, width, 2, normalisation)


@pytest.fixture(autouse=True)
def fixed_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("n_frames", [8, 16])
@pytest.mark.parametrize("latent_dim", [1, 2, 16, 64])
def test_encoder_and_generator_have_the_shapes_that_were_asked_for(
    latent_dim, n_frames, normalisation
):
    shape = tiny(latent_dim, n_frames, normalisation)
    snippets = Generator(shape)(torch.randn(3, latent_dim))
    assert snippets.shape == (3, 1, 129, n_frames)
    assert Encoder(shape)(snippets).shape == (3, latent_dim)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("n_frames", [8, 16])
def test_a_discriminator_gives_one_logit_a_snippet(n_frames, normalisation):
    disc = Discriminator(tiny(n_frames=n_frames, normalisation=normalisation))
    assert disc(torch.rand(3, 1, 129, n_frames)).shape == (3,)
    assert disc(torch.rand(1, 1, 129, n_frames)).shape == (1,)


@pytest.mark.parametrize("n_frames", [8, 16])
def test_feature_maps_of_the_generator_are_those_of_the_plan(n_frames):
    sizes = []
    generator = Generator(tiny(n_frames=n_frames))
    for layer in generator.net:
        if isinstance(layer, torch.nn.ConvTranspose2d):
            layer.register_forward_hook(lambda _m, _i, out: sizes.append(tuple(out.shape[1:])))
    generator(torch.randn(2, 4))
    frames = {16: (3, 4, 5, 8, 16), 8: (3, 4, 5, 4, 8)}[n_frames]
    assert sizes == list(zip((16, 8, 4, 2, 1), (3, 8, 31, 63, 129), frames, strict=True))


def test_width_scales_the_channels():
    narrow, wide = Generator(tiny(width=2)), Generator(tiny(width=3))
    assert narrow.net[0].weight.shape == (4, 16, 3, 3)
    assert wide.net[0].weight.shape == (4, 24, 3, 3)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_the_generator_gives_nothing_negative(scale):
    for normalisation in NORMALISATIONS:
        generator = Generator(tiny(normalisation=normalisation))
        torch.nn.init.constant_(generator.net[-2].bias, -0.5)
        snippets = generator(scale * torch.randn(8, 4))
        assert snippets.min() >= 0
        assert snippets.std() > 0


def test_latents_and_logits_take_both_signs():
    snippets = torch.rand(64, 1, 129, 16) * torch.rand(64, 1, 1, 1) * 4
    z = Encoder(tiny(latent_dim=16))(snippets)
    assert (z < 0).any()
    assert (z > 0).any()
    logits = [Discriminator(tiny())(snippets).mean() for _ in range(12)]
    assert min(logits) < 0 < max(logits)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("network", [Generator, Encoder, Discriminator])
def test_every_parameter_has_an_effect(network, normalisation):
    # A bias before a batch norm has none: Adam would move it at full speed by rounding errors.
    net = network(tiny(latent_dim=4, normalisation=normalisation, width=4))
    out = net(torch.randn(8, 4) if network is Generator else torch.rand(8, 1, 129, 16))
    (out * torch.randn_like(out)).sum().backward()
    scale = max(float(p.grad.abs().max()) for p in net.parameters())
    for name, parameter in net.named_parameters():
        assert parameter.grad.abs().max() > 1e-4 * scale, name


@pytest.mark.parametrize("normalisation", [n for n in NORMALISATIONS if n != "batch"])
def test_in_training_mode_only_batch_norm_mixes_a_batch(normalisation):
    encoder = Encoder(tiny(normalisation=normalisation)).train()
    x = torch.rand(5, 1, 129, 16)
    torch.testing.assert_close(encoder(x)[:1], encoder(x[:1]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"latent_dim": 0}, "latent_dim is 0: it must be 1 or more"),
        ({"width": -1}, "width is -1: it must be 1 or more"),
        ({"disc_width": 0}, "disc_width is 0: it must be 1 or more"),
        ({"n_frames": 12}, "n_frames is 12: .* 8 or 16 frames. Choose one of these"),
        ({"normalisation": "lair"}, "'lair': choose one of layer, batch, instance, none"),
    ],
)
def test_errors_name_the_value_and_the_remedy(numbers, words):
    with pytest.raises(ValueError, match=words):
        NetworkShape(**{"latent_dim": 4, **numbers})
