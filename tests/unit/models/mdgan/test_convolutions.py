"""Convolutions in every variant: shapes, gradients, statistics, first weights, and the disk."""

import itertools
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from models.mdgan.convolutions import ConvEncoder, ConvGenerator, Discriminator, ResidualBlock, plan
from models.mdgan.normalisation import NORMAL_STD, SourceBatchNorm
from models.mdgan.shape import N_FRAMES, N_FREQ, NetworkShape, Normalisation

NORMALISATIONS = get_args(Normalisation)
NETWORKS = (ConvGenerator, ConvEncoder, Discriminator)
NORMS = (nn.GroupNorm, nn.BatchNorm2d, nn.InstanceNorm2d, SourceBatchNorm)
ENCODERS = list(itertools.product(NORMALISATIONS, (False, True), (False, True)))
# Only the encoder has a head.
OTHERS = list(itertools.product(NORMALISATIONS, (False, True), (False,)))
CASES = [
    (network, *case)
    for network in NETWORKS
    for case in (ENCODERS if network is ConvEncoder else OTHERS)
]
each_encoder = pytest.mark.parametrize(("normalisation", "is_residual", "has_head"), ENCODERS)
each_network = pytest.mark.parametrize(
    ("network", "normalisation", "is_residual", "has_head"), CASES
)


def tiny(normalisation="layer", is_residual=False, has_head=False, **changes):
    numbers = {"latent_dim": 4, "width": 2, "disc_width": 2, "dense_width": 0, **changes}
    return NetworkShape(
        normalisation=normalisation, is_residual=is_residual, has_head=has_head, **numbers
    )


def snippets(n, n_frames=16):
    """Bumps of random height and pitch, with some noise: not negative, as log1p spectra are."""
    height, pitch = torch.rand(2, n, 1, 1, 1)
    frequencies = torch.linspace(0, 1, N_FREQ)[:, None].expand(N_FREQ, n_frames)
    bumps = 3 * height * torch.exp(-(((frequencies - pitch) / 0.1) ** 2))
    return bumps + 0.1 * torch.rand(n, 1, N_FREQ, n_frames)


def inputs(network, shape, n=8):
    return torch.randn(n, shape.latent_dim) if network is ConvGenerator else snippets(n)


def buffers(net, word=""):
    return {name: b.clone() for name, b in net.named_buffers() if word in name}


def unequal(a, b):
    assert a.keys() == b.keys()
    return {name for name in a if not torch.equal(a[name], b[name])}


@pytest.fixture(autouse=True)
def fixed_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


# Sizes


@pytest.mark.parametrize("n_frames", N_FRAMES)
@each_network
def test_all_networks_have_the_shapes_that_were_asked_for(
    network, normalisation, is_residual, has_head, n_frames
):
    for latent_dim in (1, 2, 8, 32) if network is not Discriminator else (4,):
        shape = tiny(normalisation, is_residual, has_head, n_frames=n_frames, latent_dim=latent_dim)
        net = network(shape)
        for n in (1, 3):
            x, expected = torch.rand(n, 1, 129, n_frames), (n,)
            if network is ConvGenerator:
                x, expected = torch.randn(n, latent_dim), (n, 1, 129, n_frames)
            elif network is ConvEncoder:
                expected = (n, latent_dim)
            assert net(x).shape == expected


@pytest.mark.parametrize("is_residual", [False, True])
@pytest.mark.parametrize("n_frames", N_FRAMES)
def test_feature_maps_are_those_of_the_plan_there_and_back(n_frames, is_residual):
    shape = tiny(n_frames=n_frames, is_residual=is_residual)
    frames = {16: (3, 4, 5, 8, 16), 8: (3, 4, 5, 4, 8)}[n_frames]
    sizes = list(zip((16, 8, 4, 2, 1), (3, 8, 31, 63, 129), frames, strict=True))
    z, maps = torch.randn(2, 4)[:, :, None, None], torch.rand(2, 1, 129, n_frames)
    for net, x, expected in (
        (ConvGenerator(shape).net, z, sizes),
        (ConvEncoder(shape).net, maps, [*sizes[-2::-1], (4, 1, 1)]),
    ):
        found = []
        for i, module in enumerate(net):
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                found.append(tuple(net[: i + 1](x).shape[1:]))
        assert found == expected


@pytest.mark.parametrize("width", [1, 3])
def test_width_scales_the_channels_of_each_network(width):
    shape = tiny(width=width, disc_width=2 * width)
    assert [layer.channels_out for layer in plan(shape)] == [
        8 * width,
        4 * width,
        2 * width,
        width,
        1,
    ]
    assert ConvGenerator(shape).net[0].weight.shape == (4, 8 * width, 3, 3)
    assert ConvEncoder(shape).net[0].weight.shape == (width, 1, 5, 4)
    convs = [m for m in Discriminator(shape).net if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convs] == [2 * width, 4 * width, 8 * width, 16 * width]


def test_without_convolutions_there_is_no_plan():
    with pytest.raises(ValueError, match=r"width is 0: .* Raise width"):
        plan(NetworkShape(4, width=0))


@pytest.mark.parametrize("n_frames", N_FRAMES)
def test_fan_in_is_the_mean_number_of_inputs_behind_an_output(n_frames):
    x = torch.ones(1, 4, 1, 1)
    for layer in plan(tiny(n_frames=n_frames)):
        conv = nn.ConvTranspose2d(
            layer.channels_in, 1, layer.kernel, layer.stride, layer.padding, bias=False
        )
        nn.init.ones_(conv.weight)
        counts = conv(x)
        assert layer.fan_in == pytest.approx(float(counts.mean().detach()))
        x = torch.ones(1, layer.channels_out, *counts.shape[2:])


@pytest.mark.parametrize("network", NETWORKS)
def test_residual_blocks_that_add_nothing_leave_the_network_without_them(network):
    shape, plain = tiny(is_residual=True), tiny()
    net, other = network(shape), network(plain)
    blocks = [m for m in net.modules() if isinstance(m, ResidualBlock)]
    assert len(blocks) == 4
    for block in blocks:
        for parameter in block.net[-1].parameters():
            nn.init.zeros_(parameter)
    rest = (m for m in net.net if not isinstance(m, ResidualBlock))
    for module, same in zip(other.net, rest, strict=True):
        module.load_state_dict(same.state_dict())
    x = inputs(network, shape)
    assert torch.equal(net(x), other(x))


# Gradients


@each_network
def test_every_parameter_has_an_effect(network, normalisation, is_residual, has_head):
    # A bias before a batch norm has none: Adam would move it at full speed by rounding errors.
    shape = tiny(normalisation, is_residual, has_head, width=4, disc_width=4)
    net = network(shape).double()
    out = net(inputs(network, shape).double())
    (out * torch.randn_like(out)).sum().backward()
    scale = max(float(p.grad.abs().max()) for p in net.parameters())
    for name, parameter in net.named_parameters():
        assert parameter.grad.abs().max() > 1e-9 * scale, name


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_a_discriminator_can_be_frozen_and_still_steer_the_generator(normalisation):
    shape = tiny(normalisation, is_residual=True)
    generator, disc = ConvGenerator(shape), Discriminator(shape).requires_grad_(False)
    disc(generator(torch.randn(4, 4), "prior")).sum().backward()
    assert all(p.grad is None for p in disc.parameters())
    assert all(p.grad.abs().max() > 0 for p in generator.parameters())


# What a latent depends on


@pytest.mark.parametrize("source", ["encoded", "prior"])
@each_encoder
def test_a_latent_does_not_depend_on_its_batch(normalisation, is_residual, has_head, source):
    shape = tiny(normalisation, is_residual, has_head)
    encoder = ConvEncoder(shape).train()
    for _ in range(3):
        encoder(snippets(16), source)
    encoder.eval()
    x = snippets(6)
    z = encoder(x, source)
    for part in (x[:1], x[:2], torch.cat([x[:1], 9 + 9 * x[1:]])):
        torch.testing.assert_close(encoder(part, source)[0], z[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("is_residual", [False, True])
@pytest.mark.parametrize("normalisation", [n for n in NORMALISATIONS if "batch" not in n])
def test_in_training_mode_only_batch_norm_mixes_a_batch(normalisation, is_residual):
    encoder = ConvEncoder(tiny(normalisation, is_residual)).train()
    x = snippets(5)
    torch.testing.assert_close(encoder(x)[:1], encoder(x[:1]), atol=1e-5, rtol=1e-5)


@each_encoder
def test_every_latent_dimension_varies_over_data(normalisation, is_residual, has_head):
    # Without a norm the bias of a new head outweighs the data by far: small, but not dead.
    x = snippets(16).double()
    for latent_dim in (1, 2, 8):
        shape = tiny(normalisation, is_residual, has_head, latent_dim=latent_dim, width=4)
        for _ in range(4):
            z = ConvEncoder(shape).double()(x)
            assert (z.std(0) > 1e-7 * z.abs().max()).all()


# Batch norm


@pytest.mark.parametrize("is_residual", [False, True])
@pytest.mark.parametrize("network", [ConvGenerator, ConvEncoder])
@pytest.mark.parametrize("normalisation", ["batch", "batch_no_affine"])
def test_each_source_moves_its_own_statistics_alone(normalisation, network, is_residual):
    shape = tiny(normalisation, is_residual)
    net = network(shape).train()
    n_norms = 12 if is_residual else 4  # after each of 4 convolutions, and two in each block
    for source, other in (("encoded", "prior"), ("prior", "encoded")):
        own, others = buffers(net, source), buffers(net, other)
        assert len(own) == len(others) == 2 * n_norms
        net(inputs(network, shape), source)
        assert unequal(own, buffers(net, source)) == set(own)
        assert unequal(others, buffers(net, other)) == set()


def test_in_evaluation_each_source_uses_its_own_statistics():
    net = SourceBatchNorm(3).train()
    encoded, prior = torch.randn(8, 3, 5, 5), 4 + 2 * torch.randn(8, 3, 5, 5)
    for _ in range(100):
        net(encoded, "encoded"), net(prior, "prior")
    net.eval()
    for x, source in ((encoded, "encoded"), (prior, "prior")):
        reference = nn.BatchNorm2d(3, affine=False, momentum=None)
        reference(x)
        torch.testing.assert_close(net(x, source), reference.eval()(x), atol=1e-3, rtol=1e-3)
    assert (net(prior, "encoded") - net(prior, "prior")).abs().min() > 0.1


def test_scale_and_shift_of_batch_norm_are_shared_or_left_out():
    with_affine, without = (ConvGenerator(tiny(n)) for n in ("batch", "batch_no_affine"))
    norms = [m for m in with_affine.modules() if isinstance(m, SourceBatchNorm)]
    assert [len(list(m.parameters())) for m in norms] == [2] * 4
    assert [name for name, _ in without.named_parameters()][-1].endswith("bias")
    assert len(list(without.parameters())) == 5 + 1  # five weights and the last bias
    disc = Discriminator(tiny("batch_no_affine"))
    assert [m.affine for m in disc.modules() if isinstance(m, nn.BatchNorm2d)] == [False] * 3


# The other kinds


@pytest.mark.parametrize("initialisation", ["default", "normal"])
@pytest.mark.parametrize("is_residual", [False, True])
def test_spectral_norm_holds_every_weight_of_a_discriminator_at_1(is_residual, initialisation):
    shape = tiny("spectral", is_residual, disc_width=4, initialisation=initialisation)
    disc = Discriminator(shape).train()
    with torch.no_grad():
        for parameter in disc.parameters():
            parameter.mul_(7.0).add_(0.05 * torch.randn_like(parameter))
    for _ in range(30):
        disc(snippets(1))
    weighted = [m for m in disc.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weighted) == (13 if is_residual else 5)
    for module in weighted:
        largest = torch.linalg.matrix_norm(module.weight.flatten(1), ord=2)
        assert float(largest.detach()) == pytest.approx(1.0, abs=0.02)
    assert not [m for m in disc.modules() if isinstance(m, NORMS)]
    norms = [m for m in ConvEncoder(shape).modules() if isinstance(m, NORMS)]
    assert {type(m) for m in norms} == {nn.GroupNorm}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", ["selu", "none"])
def test_selu_and_none_have_no_norm(kind, network):
    modules = list(network(tiny(kind, is_residual=True, has_head=True)).modules())
    assert not [m for m in modules if isinstance(m, NORMS)]
    other_activations = [m for m in modules if isinstance(m, nn.ReLU | nn.LeakyReLU)]
    selus = [m for m in modules if isinstance(m, nn.SELU)]
    assert bool(selus) == (kind == "selu")
    assert bool(other_activations) == (kind == "none")


@pytest.mark.parametrize("n_frames", N_FRAMES)
def test_selu_keeps_mean_0_and_variance_1_through_all_layers(n_frames):
    shape = tiny("selu", latent_dim=16, n_frames=n_frames, width=8)
    for net, x in (
        (ConvGenerator(shape).net, torch.randn(64, 16, 1, 1)),
        (ConvEncoder(shape).net, torch.randn(64, 1, N_FREQ, n_frames)),
    ):
        for i in range(len(net)):
            maps = net[: i + 1](x).detach()
            assert abs(float(maps.mean())) < 0.2
            # Zeros beyond the edge take some of the encoder's variance.
            assert 0.6 < float(maps.std()) < 1.25


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_normal_weights_have_their_standard_deviation(normalisation, network):
    shape = tiny(
        normalisation, True, True, latent_dim=32, width=8, disc_width=8, initialisation="normal"
    )
    net = network(shape)
    state = net.state_dict()
    # Spectral norm keeps the weight that it divides under another name.
    drawn = {k: v for k, v in state.items() if v.ndim > 1}
    assert len(drawn) >= 13
    for name, weight in drawn.items():
        assert float(weight.std()) == pytest.approx(NORMAL_STD, rel=6 / weight.numel() ** 0.5), name
        assert abs(float(weight.mean())) < 5 * NORMAL_STD / weight.numel() ** 0.5, name
    for name, parameter in net.named_parameters():
        if parameter.ndim == 1:
            expected = 0.0 if name.endswith("bias") else 1.0
            assert torch.equal(parameter, torch.full_like(parameter, expected)), name


@pytest.mark.parametrize(
    ("network", "normalisation", "is_residual", "has_head"),
    [case for case in CASES if case[0] is not Discriminator],
)
def test_a_zeroed_last_layer_gives_0_and_learns(network, normalisation, is_residual, has_head):
    shape = tiny(normalisation, is_residual, has_head)
    net, x = network(shape), inputs(network, shape)
    assert net(x).abs().max() > 0
    net.zero_last_layer()
    out = net(x)
    assert torch.equal(out, torch.zeros_like(out))
    out.sum().backward()
    assert sum(int(bool(p.grad.any())) for p in net.parameters()) == 2  # its weight and bias


# States


@each_network
def test_a_state_saved_to_disk_gives_the_same_network(
    network, normalisation, is_residual, has_head, tmp_path
):
    shape = tiny(normalisation, is_residual, has_head)
    net = network(shape).train()
    x = inputs(network, shape)
    sources = () if network is Discriminator else ("prior",)
    for _ in range(3):
        net(x), net(0.5 * x, *sources)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    other = network(shape)
    other.load_state_dict(load_file(tmp_path / "net.safetensors"))
    assert unequal(buffers(net), buffers(other)) == set()
    net.eval(), other.eval()
    assert torch.equal(net(x), other(x))
    assert torch.equal(net(x, *sources), other(x, *sources))
    if normalisation == "spectral" and network is Discriminator:
        assert [name for name in buffers(other) if name.endswith("._u")]
