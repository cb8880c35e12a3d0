"""The dense path: a PCA before training, against scikit-learn's, and what it becomes."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch.nn import functional

from models.mdgan.dense import DenseEncoder, DenseGenerator, _mlp
from models.mdgan.model import Mdgan
from models.mdgan.networks import Encoder, Generator
from models.mdgan.pca import Pca, fit_pca
from models.mdgan.shape import NetworkShape
from tests.helpers.tiny_mdgan import DATA, PCA_DATA, PCA_OF_DATA, build, steps, weights

SHAPE = NetworkShape(3, width=0, dense_width=8, n_components=6)
WITH_PCA = ("dense", "both")


@pytest.fixture
def sklearn_pca():
    return PCA(6, svd_solver="full").fit(PCA_DATA.flatten(1).double().numpy())


@pytest.mark.parametrize("kind", WITH_PCA)
def test_before_training_a_latent_is_the_scores_of_scikit_learns_pca(kind, sklearn_pca):
    scores = sklearn_pca.transform(DATA.flatten(1).double().numpy())[:, :3]
    expected = scores / np.sqrt(sklearn_pca.explained_variance_[:3])
    z = build(kind).encode(DATA).double().numpy()
    # A component may point either way.
    signs = np.sign((z * expected).sum(0))
    np.testing.assert_allclose(z, signs * expected, atol=2e-3)
    assert z.std(0) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("kind", WITH_PCA)
def test_before_training_a_snippet_is_scikit_learns_reconstruction(kind, sklearn_pca):
    sklearn_pca.components_[3:] = 0
    linear = sklearn_pca.inverse_transform(
        sklearn_pca.transform(DATA.flatten(1).double().numpy())
    ).reshape(-1, 1, 129, 16)
    model = build(kind)
    x_hat = model.decode(model.encode(DATA)).double()
    expected = functional.softplus(torch.from_numpy(linear), beta=20)
    torch.testing.assert_close(x_hat, expected, atol=2e-3, rtol=0)
    assert linear.min() < 0 <= float(x_hat.min())


def test_what_samples_begin_as_is_the_pcas_gaussian():
    model = build("dense")
    z = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -2.0]])
    mean, components, std = (torch.from_numpy(a) for a in (
        PCA_OF_DATA.mean, PCA_OF_DATA.components, PCA_OF_DATA.std
    ))  # fmt: skip
    flat = torch.stack([mean, mean + std[0] * components[0], mean - 2 * std[2] * components[2]])
    expected = functional.softplus(flat, beta=20).view(3, 1, 129, 16).float()
    torch.testing.assert_close(model.decode(z, "prior"), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("network", [DenseEncoder, DenseGenerator])
def test_a_pca_of_too_few_components_is_refused(network):
    net = network(NetworkShape(3, width=0, dense_width=8, n_components=7))
    with pytest.raises(
        ValueError, match="PCA has 6 components and the dense path 7: fit more .* n_components"
    ):
        net.start_as(PCA_OF_DATA)


def test_of_more_components_than_wanted_the_first_are_taken():
    few = NetworkShape(3, width=0, dense_width=8, n_components=4)
    encoder, generator = Encoder(few), Generator(few)
    encoder.start_as(PCA_OF_DATA)
    generator.start_as(PCA_OF_DATA)
    whole = build("dense")
    torch.testing.assert_close(encoder(DATA), whole.encode(DATA))
    torch.testing.assert_close(generator(encoder(DATA)), whole.decode(whole.encode(DATA)))


def test_a_component_that_hardly_varies_does_not_become_noise():
    still = Pca(PCA_OF_DATA.mean, PCA_OF_DATA.components, PCA_OF_DATA.std * [1, 1, 0, 0, 0, 0])
    encoder, generator = DenseEncoder(SHAPE), DenseGenerator(SHAPE)
    encoder.start_as(still)
    generator.start_as(still)
    z = encoder(DATA)
    assert torch.isfinite(z).all()
    scores = (DATA.flatten(1).double().numpy() - still.mean) @ still.components[2]
    np.testing.assert_allclose(z[:, 2].detach(), scores / (0.01 * still.std[0]), atol=1e-3)
    # What is divided by is multiplied by again.
    np.testing.assert_allclose(
        generator(z).flatten(1).detach(), _projected(DATA, still, 3), atol=1e-3
    )


def _projected(snippets, pca, n):
    flat = snippets.flatten(1).double().numpy() - pca.mean
    return flat @ pca.components[:n].T @ pca.components[:n] + pca.mean


def test_the_mlps_give_0_before_training_and_learn():
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    mlp = _mlp(6, 4, 8)
    assert torch.equal(mlp(x), torch.zeros(5, 4))
    mlp(x).sum().backward()
    assert all(p.grad.abs().max() > 0 for p in mlp[-1].parameters())
    with torch.no_grad():
        mlp[-1].weight.fill_(1.0)
    assert mlp(x).abs().max() > 0


@pytest.mark.parametrize("kind", WITH_PCA)
def test_every_weight_of_the_path_is_trained(kind):
    # In the first step only the last layers of the MLPs have a gradient.
    model = build(kind)
    before = weights(model, "encoder", "generator")
    steps(model, 2)
    after = weights(model, "encoder", "generator")
    names = [key for key in after if key[1].startswith("dense.")]
    assert len(names) == 2 * 12
    assert [key for key in names if torch.equal(after[key], before[key])] == []


def test_components_behind_the_latents_are_heard_and_spoken():
    """The MLPs see all scores, and add to all, not only to the first ``latent_dim``."""
    encoder, generator = DenseEncoder(SHAPE), DenseGenerator(SHAPE)
    for net in (encoder, generator):
        net.start_as(PCA_OF_DATA)
        torch.nn.init.normal_(net.correct[-1].weight, generator=torch.Generator().manual_seed(0))
    fifth = torch.from_numpy(PCA_OF_DATA.components[4]).float().view(1, 1, 129, 16)
    assert (encoder(DATA + fifth) - encoder(DATA)).abs().max() > 1e-3
    z = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    assert (generator(z).flatten(1) @ fifth.flatten()).std() > 1e-3


def test_without_a_pca_the_path_begins_at_random_by_the_seed():
    params = build("dense").params
    one, same, other = (Mdgan(params, 16, seed=s) for s in (3, 3, 4))
    assert torch.equal(one.encode(DATA), same.encode(DATA))
    assert not torch.equal(one.encode(DATA), other.encode(DATA))


def test_the_pca_is_scikit_learns_and_follows_from_its_seed(sklearn_pca):
    expected = np.sqrt(sklearn_pca.explained_variance_)
    np.testing.assert_allclose(PCA_OF_DATA.std, expected, rtol=1e-3)
    again = fit_pca(PCA_DATA, 6, seed=0)
    assert np.array_equal(again.components, PCA_OF_DATA.components)


@pytest.mark.parametrize(
    ("snippets", "words"),
    [
        (PCA_DATA[:6], "6 snippets are too few for 6 principal components. Give more"),
        (torch.ones(20, 1, 129, 16), "All 20 snippets are equal"),
    ],
)
def test_snippets_without_components_are_refused(snippets, words):
    with pytest.raises(ValueError, match=words):
        fit_pca(snippets, 6, seed=0)
