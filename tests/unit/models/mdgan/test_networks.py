"""Encoder and generator: the sum of their paths, the output, and what a latent depends on."""

import pytest
import torch
from torch.nn import functional

from models.mdgan.convolutions import Discriminator
from models.mdgan.networks import Encoder, Generator, NetworkShape
from models.mdgan.shape import N_FRAMES
from tests.helpers.tiny_mdgan import KINDS, build, snippets, steps

each_kind = pytest.mark.parametrize("kind", KINDS)


def shape_of(kind, **changes):
    numbers = {
        "convolutions": {"width": 2, "dense_width": 0},
        "dense": {"width": 0, "dense_width": 8, "n_components": 64},
        "both": {"width": 2, "dense_width": 8, "n_components": 64},
    }[kind]
    return NetworkShape(**{"latent_dim": 4, "disc_width": 2, **numbers, **changes})


@pytest.fixture(autouse=True)
def fixed_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@each_kind
@pytest.mark.parametrize("n_frames", N_FRAMES)
@pytest.mark.parametrize("latent_dim", [1, 2, 16, 64])
def test_encoder_and_generator_have_the_shapes_that_were_asked_for(latent_dim, n_frames, kind):
    shape = shape_of(kind, latent_dim=latent_dim, n_frames=n_frames)
    x = Generator(shape)(torch.randn(3, latent_dim))
    assert x.shape == (3, 1, 129, n_frames)
    assert Encoder(shape)(x).shape == (3, latent_dim)


def test_only_the_paths_of_the_shape_are_there():
    for network in (Encoder, Generator):
        found = {kind: network(shape_of(kind)) for kind in KINDS}
        assert found["convolutions"].dense is None
        assert found["dense"].convolutions is None
        assert None not in (found["both"].dense, found["both"].convolutions)


def test_both_paths_are_added():
    encoder, generator = Encoder(shape_of("both")), Generator(shape_of("both"))
    x, z = snippets(5), torch.randn(5, 4)
    # Beside a dense path the convolutions begin at 0.
    assert torch.equal(encoder(x), encoder.dense(x))
    assert not encoder.convolutions(x).any()
    assert not generator.convolutions(z).any()
    for net in (encoder, generator):
        torch.nn.init.normal_(net.convolutions.net[-1].weight)
    torch.testing.assert_close(encoder(x), encoder.convolutions(x) + encoder.dense(x))
    raw = generator.convolutions(z) + generator.dense(z)
    torch.testing.assert_close(generator(z), functional.softplus(raw, beta=20))
    assert (encoder(x) - encoder.dense(x)).abs().max() > 1e-3


@pytest.mark.parametrize(("kind", "sharpness"), [("convolutions", 1), ("dense", 20), ("both", 20)])
def test_the_output_is_the_softplus_of_its_sharpness(kind, sharpness):
    generator, z = Generator(shape_of(kind)), torch.randn(5, 4)
    path = generator.convolutions if kind == "convolutions" else generator.dense
    expected = torch.log1p(torch.exp(sharpness * path(z))) / sharpness
    torch.testing.assert_close(generator(z), expected, atol=1e-5, rtol=1e-5)


@each_kind
@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_the_generator_gives_nothing_negative(scale, kind):
    x = Generator(shape_of(kind))(scale * torch.randn(8, 4))
    assert x.min() >= 0
    assert x.std() > 0


@each_kind
def test_latents_take_both_signs(kind):
    # A ReLU at the bottleneck would keep them at 0 or above.
    z = Encoder(shape_of(kind, latent_dim=16))(snippets(64))
    assert (z < 0).any()
    assert (z > 0).any()


def test_logits_take_both_signs():
    logits = [Discriminator(shape_of("dense"))(snippets(64)).mean() for _ in range(12)]
    assert min(logits) < 0 < max(logits)


@pytest.mark.parametrize("normalisation", ["layer", "batch", "spectral"])
@each_kind
def test_in_evaluation_a_latent_does_not_depend_on_its_batch(kind, normalisation):
    model = build(kind, normalisation=normalisation)
    steps(model, 2)
    x = snippets(6, seed=3)
    for net in model.nets.values():
        net.train()  # as a training leaves them
    z = model.encode(x)
    for batch in (x[:1], x[:2], torch.cat([x[:1], 9 + 9 * x[1:]])):
        model.nets["encoder"].train()
        torch.testing.assert_close(model.encode(batch)[0], z[0], atol=1e-5, rtol=1e-5)
    decoded = model.decode(z)
    model.nets["generator"].train()
    torch.testing.assert_close(model.decode(z[:1])[0], decoded[0], atol=1e-5, rtol=1e-5)
    # They differ, so that the comparison says something.
    assert z.std(0).min() > 1e-4 > (model.encode(x[:1])[0] - z[0]).abs().max()


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"latent_dim": 0}, "latent_dim is 0: it must be 1 or more"),
        ({"width": -1}, "width is -1: it must be 0 or more"),
        ({"dense_width": -1}, "dense_width is -1: it must be 0 or more"),
        ({"disc_width": 0}, "disc_width is 0: it must be 1 or more"),
        ({"n_components": 0}, "n_components is 0: it must be 1 or more"),
        ({"width": 0, "dense_width": 0}, "width and dense_width are both 0: .* Raise one"),
        ({"latent_dim": 300}, "latent_dim is 300 and n_components 256: .* Raise n_components"),
        ({"n_frames": 12}, "n_frames is 12: .* 8 or 16 frames. Choose one of these"),
        ({"normalisation": "lair"}, "normalisation is 'lair': choose one of layer, batch, "),
        ({"initialisation": "zero"}, "initialisation is 'zero': choose one of default, normal"),
    ],
)
def test_errors_name_the_value_and_the_remedy(numbers, words):
    with pytest.raises(ValueError, match=words):
        NetworkShape(**{"latent_dim": 4, **numbers})


def test_a_latent_longer_than_the_components_is_sound_without_a_dense_path():
    assert NetworkShape(300, width=2, dense_width=0, n_components=6).latent_dim == 300
