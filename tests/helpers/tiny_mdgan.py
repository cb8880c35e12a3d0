"""Tiny MDGANs of each kind of network, and snippets for them to learn."""

import dataclasses
from typing import get_args

import torch

from models.mdgan import step_numbers
from models.mdgan.model import Mdgan, MdganParams
from models.mdgan.pca import fit_pca
from models.mdgan.shape import Normalisation

# The recipe of the paper, with nothing of ours beside it.
PAPER_TINY = MdganParams(
    latent_dim=3, width=2, dense_width=0, n_components=6, disc_width=2, order="alternating",
    adversarial_from=0.0, lambda_recon=100.0, lambda_prior=0.0, mse_weight=0.0, pool_weight=1.0,
    lr=5e-3, lr_warmup=0.0, batch_size=4, n_snippets=40, n_reports=2,
)  # fmt: skip
# Our recipe: begins as a PCA, joint, with the distance to the prior.
DENSE_TINY = dataclasses.replace(
    PAPER_TINY, width=0, dense_width=8, order="joint", lambda_prior=1.0, mse_weight=2.0,
    pool_weight=0.0,
)  # fmt: skip
BOTH_TINY = dataclasses.replace(DENSE_TINY, width=2, pool_weight=1.0)
KINDS = {"convolutions": PAPER_TINY, "dense": DENSE_TINY, "both": BOTH_TINY}
# Each kind of network, and the convolutions with each normalisation.
VARIANTS = [("dense", "layer"), ("both", "layer")]
VARIANTS += [("convolutions", normalisation) for normalisation in get_args(Normalisation)]
DISCS = ("manifold_disc", "diffusion_disc", "monitor_disc")


def snippets(n, seed=0, n_frames=16):
    """Bumps of random height and pitch: log1p spectra with something to learn."""
    rng = torch.Generator().manual_seed(seed)
    height, pitch = torch.rand(2, n, 1, 1, 1, generator=rng)
    frequencies = torch.linspace(0, 1, 129)[:, None].expand(129, n_frames)
    return 3 * height * torch.exp(-(((frequencies - pitch) / 0.1) ** 2))


DATA = snippets(64)
# Bumps alone have fewer directions than a PCA is to find; real snippets have some noise in all.
PCA_DATA = DATA + 0.1 * torch.rand(DATA.shape, generator=torch.Generator().manual_seed(7))
PCA_OF_DATA = fit_pca(PCA_DATA, 6, seed=0)


def build(kind="convolutions", seed=0, **changes):
    """A new model, which begins as a PCA where it has a dense path."""
    params = dataclasses.replace(KINDS[kind], **changes)
    pca = PCA_OF_DATA if params.dense_width else None
    return Mdgan(params, n_frames=16, seed=seed, pca=pca)


def sample_batch(n, rng):
    return DATA[torch.randint(len(DATA), (n,), generator=rng)]


class Minibatches:
    """Snippets of ``data`` for `train`; those of a minibatch after the first ``n`` are silent."""

    def __init__(self, data, n=None):
        self.data, self.n = data, n

    def sample(self, n, rng):
        return self.data[torch.randint(len(self.data), (n,), generator=rng)]

    def n_sounding(self, n):
        return self.n or n


MINIBATCHES = Minibatches(DATA)


def steps(model, n=3):
    """Losses of ``n`` steps, as plain numbers."""
    return [
        {
            name: float(value)
            for name, value in model.train_step(
                sample_batch(model.params.batch_size, model.rng)
            ).items()
        }
        for _ in range(n)
    ]


def run_phase(model, phase, x):
    """One phase alone, on graphs as train_step makes them; all snippets are sounding."""
    numbers = draw_all(model, len(x))
    z = model.encoder(x)
    x_hat, x_sampled = model.generator(z), model.generator(numbers["prior"], "prior")
    out = {}
    arguments = {
        "manifold_discriminator": (x, x_hat, numbers),
        "manifold_autoencoder": (x, x_hat, z, len(x), numbers),
        "diffusion_discriminator": (x_hat, x_sampled, numbers),
        "diffusion_generator": (x_hat, x_sampled),
        "latent": (numbers,),
        "monitor": (x, x_sampled, numbers),
    }[phase]
    getattr(model.phases, f"{phase}_phase")(*arguments, out)
    return out


def draw_all(model, n):
    """Numbers for every phase of a step of ``n`` snippets, the prior's samples first."""
    names = ["prior", "to_prior", "directions", "cycle", *(f"{disc}_labels" for disc in DISCS)]
    return step_numbers.draw(model.params, names, n, model.rng, model.monitor_rng)


def trainable(kind, normalisation="layer", **changes):
    """Weights with no unit that a ReLU keeps at 0 for a whole batch: those have no gradient."""
    model = build(kind, seed=1, normalisation=normalisation, batch_size=16, **changes)
    if kind != "convolutions":
        steps(model, 1)  # behind a last layer of zeros nothing has a gradient yet
        for net in model.nets.values():
            net.requires_grad_(True).zero_grad()
    return model


def weights(model, *names):
    """Parameters and buffers of the networks called ``names``, of all if none is named."""
    return {
        (name, key): value.clone()
        for name in names or model.nets
        for key, value in model.nets[name].state_dict().items()
    }


def parameters(model):
    return {
        (name, key): value.detach().clone()
        for name, net in model.nets.items()
        for key, value in net.named_parameters()
    }


def moved(model, before):
    """Names of the networks of which a parameter is another than ``before``."""
    after = parameters(model)
    return {name for name, key in after if not torch.equal(after[name, key], before[name, key])}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    assert [key for key in a if not torch.equal(a[key], b[key])] == []
