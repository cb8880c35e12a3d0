"""Held-out metrics against scipy, scikit-learn and hand-made decoders."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from sklearn.decomposition import PCA

from models.evaluation import (
    COLLAPSED_OBJECTIVE,
    MAX_PCA_DIM,
    N_PCA_FEATURES,
    OBJECTIVES,
    Reference,
    evaluate,
    fit_reference,
    frechet_distance,
    objective,
)
from models.mdgan import Mdgan, MdganParams
from models.training import TrainingFailedError, train

PARAMS = MdganParams(latent_dim=3, width=2, disc_width=2, batch_size=8, n_snippets=16, n_reports=2)


def snippets(n, seed):
    """Two narrow bumps of random height, mostly of low pitch, and a little noise."""
    rng = np.random.default_rng(seed)
    f = np.linspace(0, 1, 129)[:, None]
    t = np.linspace(-0.5, 0.5, 16)[None]
    x = 0.02 * rng.random((n, 129, 16))
    for _ in range(2):
        height, pitch, slope = rng.random((3, n, 1, 1))
        x += 2 * height * np.exp(-(((f - pitch**2 - 0.5 * (slope - 0.5) * t) / 0.04) ** 2))
    return torch.from_numpy(x[:, None].astype(np.float32))


TRAIN, VALID = snippets(300, 1), snippets(200, 2)


@pytest.fixture(scope="module")
def reference():
    return fit_reference(TRAIN, VALID, seed=0)


class FixedGenerator(torch.nn.Module):
    """Gives the same snippets whatever it is asked for."""

    def __init__(self, snippets):
        super().__init__()
        self.snippets = snippets

    def forward(self, z):
        return self.snippets[torch.arange(len(z)) % len(self.snippets)]


def with_generator(snippets):
    model = Mdgan(PARAMS, 16, seed=0)
    model.generator = model.nets["generator"] = FixedGenerator(snippets)
    return model


def metrics_of(snippets, reference):
    return evaluate(with_generator(snippets), reference, VALID, seed=0)


# Frechet distance


def gaussian(d, rank, seed):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((d, rank))
    return rng.standard_normal(d), a @ a.T


@pytest.mark.parametrize("d", [1, 5, 40])
def test_the_frechet_distance_is_that_of_the_formula(d):
    (mean_a, a), (mean_b, b) = gaussian(d, d + 3, 1), gaussian(d, d + 3, 2)
    expected = np.sum((mean_a - mean_b) ** 2) + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real)
    assert frechet_distance(mean_a, a, mean_b, b) == pytest.approx(expected, rel=1e-7)
    assert frechet_distance(mean_b, b, mean_a, a) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("rank", [3, 20, 60])
def test_the_frechet_distance_of_equal_gaussians_is_0(rank):
    mean, cov = gaussian(40, rank, 1)
    assert frechet_distance(mean, cov, mean, cov) == pytest.approx(0, abs=1e-5 * np.trace(cov))


def test_the_frechet_distance_of_commuting_covariances_is_that_of_standard_deviations():
    a, b = np.array([1.0, 4.0, 9.0]), np.array([4.0, 0.0, 1.0])
    expected = 3 * 0.5**2 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    found = frechet_distance(np.zeros(3), np.diag(a), np.full(3, 0.5), np.diag(b))
    assert found == pytest.approx(expected, rel=1e-12)


# Reference


def test_the_reference_has_one_hash_before_and_after_a_file(reference, tmp_path):
    path = tmp_path / "reference.npz"
    reference.save(path)
    loaded = Reference.load(path)
    assert loaded.sha256 == reference.sha256
    assert loaded.frechet(TRAIN) == reference.frechet(TRAIN)


def test_the_same_seed_gives_the_same_reference_and_another_seed_another(reference):
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    assert fit_reference(TRAIN, VALID, seed=0).sha256 == reference.sha256
    other = fit_reference(TRAIN, VALID, seed=1)
    assert other.sha256 != reference.sha256
    assert not np.array_equal(other.conv_kernels_1, reference.conv_kernels_1)
    assert fit_reference(TRAIN, VALID[:-1], seed=0).sha256 != reference.sha256


def test_every_array_counts_in_the_hash(reference):
    for field in dataclasses.fields(reference):
        array = getattr(reference, field.name).copy()
        array.flat[-1] += 1e-9
        changed = dataclasses.replace(reference, **{field.name: array})
        assert changed.sha256 != reference.sha256, field.name


def test_too_few_snippets_for_a_reference_are_an_error():
    with pytest.raises(ValueError, match="32 training snippets are too few .* 32 principal.*Give"):
        fit_reference(TRAIN[:32], VALID, seed=0)
    assert len(fit_reference(TRAIN[:33], VALID, seed=0).pca_l1) == 32


@pytest.mark.parametrize("n_components", [1, 5, 32, 128])
def test_pca_errors_are_those_of_scikit_learn(reference, n_components):
    train, valid = (x.flatten(1).double().numpy() for x in (TRAIN, VALID))
    pca = PCA(n_components, svd_solver="full").fit(train)
    error = valid - pca.inverse_transform(pca.transform(valid))
    at = n_components - 1
    assert len(reference.pca_l1) == len(reference.pca_l2) == MAX_PCA_DIM
    # The reference's solver is a randomised one: the last components are not quite exact.
    assert reference.pca_l1[at] == pytest.approx(np.abs(error).mean(), rel=0.01)
    assert reference.pca_l2[at] == pytest.approx(np.square(error).mean(), rel=0.01)
    centred = valid - reference.pca_mean
    basis = reference.pca_components[:n_components]
    exact = centred - centred @ basis.T @ basis
    assert reference.pca_l1[at] == pytest.approx(np.abs(exact).mean(), rel=1e-5)
    assert reference.pca_l2[at] == pytest.approx(np.square(exact).mean(), rel=1e-5)


def test_features_are_pca_scores_then_bands_of_a_fixed_convolution(reference):
    features = reference.features(VALID[:7])
    assert features.shape == (7, N_PCA_FEATURES + 64)
    scores = (
        VALID[:7].flatten(1).double().numpy() - reference.pca_mean
    ) @ reference.pca_components.T
    np.testing.assert_allclose(features[:, :N_PCA_FEATURES], scores[:, :N_PCA_FEATURES])
    np.testing.assert_allclose(reference.features(VALID[3:4]), features[3:4], atol=1e-5)
    assert (reference.features(VALID).std(0) > 0).mean() > 0.9


# Frechet distance of snippets


def test_held_out_snippets_themselves_have_distance_0(reference):
    assert reference.frechet(VALID) == pytest.approx(0, abs=1e-6)
    assert reference.frechet(VALID.flip(0)) == pytest.approx(0, abs=1e-6)


def test_a_decoder_of_the_mean_snippet_has_distance_1(reference):
    mean = VALID.mean(0, keepdim=True).expand(len(VALID), -1, -1, -1)
    assert reference.frechet(mean) == pytest.approx(1, abs=0.1)


def test_both_kinds_of_features_count_alike_each_by_its_own_spread(reference):
    real, other = reference.features(VALID), reference.features(TRAIN)
    parts = []
    for part in (slice(None, N_PCA_FEATURES), slice(N_PCA_FEATURES, None)):
        covs = [np.cov(f[:, part].T) for f in (other, real)]
        means = [f[:, part].mean(0) for f in (other, real)]
        d = frechet_distance(means[0], covs[0], means[1], covs[1])
        parts.append(d / np.trace(covs[1]))
    assert parts[0] != pytest.approx(parts[1], rel=0.1)
    assert reference.frechet(TRAIN) == pytest.approx(np.mean(parts), rel=1e-9)


def test_the_further_from_song_the_greater_the_distance(reference):
    noise = torch.rand(VALID.shape, generator=torch.Generator().manual_seed(0))
    distances = [reference.frechet(VALID + level * noise) for level in (0, 0.1, 0.3, 1.0)]
    assert distances == sorted(distances)
    assert reference.frechet(TRAIN) < 0.2 < distances[-1]
    assert reference.frechet(0.5 * VALID) > 0.2  # too quiet
    assert reference.frechet(VALID.flip(2)) > 0.2  # upside down


def test_blur_is_seen(reference):
    blurred = torch.nn.functional.avg_pool2d(VALID, (21, 1), stride=1, padding=(10, 0))
    assert reference.frechet(blurred) > 2 * reference.frechet(TRAIN)


# Evaluation


def test_errors_are_those_of_the_snippets_in_unweighted_units(reference):
    found = metrics_of(VALID + 0.25, reference)
    assert found["valid/recon_l1"] == pytest.approx(0.25, rel=1e-5)
    assert found["valid/recon_l2"] == pytest.approx(0.25**2, rel=1e-5)
    assert found["valid/recon_l1_vs_pca"] == pytest.approx(0.25 / reference.pca_l1[2], rel=1e-5)
    assert found["valid/recon_l2_vs_pca"] == pytest.approx(0.0625 / reference.pca_l2[2], rel=1e-5)
    expected = found["valid/recon_l1_vs_pca"] + found["valid/frechet_sample"]
    assert found["valid/objective"] == pytest.approx(expected)


def test_a_perfect_decoder_scores_0_and_is_not_collapsed(reference):
    found = metrics_of(VALID, reference)
    assert found["valid/recon_l1"] == found["valid/recon_l2"] == 0
    assert found["valid/frechet_recon"] == pytest.approx(0, abs=1e-6)
    assert found["valid/frechet_sample"] == pytest.approx(0, abs=1e-6)
    assert found["valid/spread"] == pytest.approx(1)
    assert found["valid/collapsed"] == 0
    assert set(OBJECTIVES) <= set(found)


@pytest.mark.parametrize("level", [0.0, 0.02])
def test_a_collapsed_decoder_ranks_below_any_sound_one(reference, level):
    mean = VALID.mean(0, keepdim=True)
    collapsed = metrics_of(mean + level * (VALID - mean), reference)
    assert collapsed["valid/collapsed"] == 1
    assert collapsed["valid/objective"] == COLLAPSED_OBJECTIVE
    sound = [
        metrics_of(x, reference)
        for x in (mean + 0.1 * (VALID - mean), TRAIN[:200], 3 * TRAIN[:200], 1000 * VALID)
    ]
    assert [s["valid/collapsed"] for s in sound] == [0, 0, 0, 0]
    assert all(s["valid/objective"] < COLLAPSED_OBJECTIVE for s in sound)
    assert sound[0]["valid/frechet_sample"] > metrics_of(VALID, reference)["valid/frechet_sample"]


def test_samples_alone_can_be_collapsed(reference):
    model = with_generator(VALID)
    constant = VALID[:1].expand(len(VALID), -1, -1, -1)
    answers = iter([VALID, constant])
    model.generator.forward = lambda z: next(answers)
    found = evaluate(model, reference, VALID, seed=0)
    assert found["valid/recon_l1"] == 0
    assert found["valid/objective"] == COLLAPSED_OBJECTIVE


def test_no_trial_is_worse_than_a_collapsed_one():
    metrics = {"valid/recon_l1_vs_pca": 1e9, "valid/frechet_sample": 1e9, "valid/collapsed": 0.0}
    assert objective(metrics) < COLLAPSED_OBJECTIVE
    assert objective({**metrics, "valid/collapsed": 1.0}) == COLLAPSED_OBJECTIVE


class FixedEncoder(torch.nn.Module):
    def __init__(self, z):
        super().__init__()
        self.z = z

    def forward(self, x):
        return self.z[: len(x)]


def latent_metrics(z, reference):
    model = with_generator(VALID)
    model.encoder = model.nets["encoder"] = FixedEncoder(z)
    found = evaluate(model, reference, VALID, seed=0)
    return {k.removeprefix("valid/latent_"): v for k, v in found.items() if "latent" in k}


def test_latents_are_compared_with_the_prior_they_are_sampled_from(reference):
    z = torch.randn(200, 3, generator=torch.Generator().manual_seed(7))
    prior = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    found = latent_metrics(z, reference)
    expected = frechet_distance(
        z.mean(0).double().numpy(), np.cov(z.T), prior.mean(0).double().numpy(), np.cov(prior.T)
    )
    assert found["frechet"] == pytest.approx(expected / 3, rel=1e-4)
    ks = [stats.ks_2samp(z[:, i].numpy(), prior[:, i].numpy()).statistic for i in range(3)]
    assert found["ks"] == pytest.approx(np.mean(ks), rel=1e-6)
    assert found["dead"] == 0
    assert latent_metrics(prior, reference)["frechet"] == pytest.approx(0, abs=1e-6)
    far = latent_metrics(3 * z + 2, reference)
    assert far["frechet"] > 5 > 1 > far["ks"] > 0.3
    assert latent_metrics(z * torch.tensor([1.0, 0.0, 1e-3]), reference)["dead"] == 2


def test_one_latent_dimension_can_be_evaluated(reference):
    model = Mdgan(dataclasses.replace(PARAMS, latent_dim=1), 16, seed=0)
    found = evaluate(model, reference, VALID, seed=0)
    assert all(np.isfinite(list(found.values())))
    expected = found["valid/recon_l1"] / reference.pca_l1[0]
    assert found["valid/recon_l1_vs_pca"] == pytest.approx(expected)


def test_the_evaluation_depends_on_its_seed_alone(reference):
    model = Mdgan(PARAMS, 16, seed=0)
    state = model.rng.get_state()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    found = evaluate(model, reference, VALID, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(model.rng.get_state(), state)
    torch.manual_seed(2)
    assert evaluate(model, reference, VALID, seed=0) == found
    other = evaluate(model, reference, VALID, seed=1)
    assert other["valid/frechet_sample"] != found["valid/frechet_sample"]
    assert other["valid/recon_l1"] == found["valid/recon_l1"]


def test_the_evaluation_leaves_no_gradient_and_changes_nothing(reference):
    model = Mdgan(dataclasses.replace(PARAMS, normalisation="batch"), 16, seed=0)
    model.train_step(TRAIN[:8])
    before = [v.clone() for net in model.nets.values() for v in net.state_dict().values()]
    for net in model.nets.values():
        net.requires_grad_(True).zero_grad()
        net.train()
    found = evaluate(model, reference, VALID, seed=0)
    after = [v for net in model.nets.values() for v in net.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert all(p.grad is None for net in model.nets.values() for p in net.parameters())
    assert all(type(value) is float for value in found.values())


def test_the_evaluation_uses_the_statistics_of_the_training_in_a_batch_norm(reference):
    model = Mdgan(dataclasses.replace(PARAMS, normalisation="batch"), 16, seed=0)
    model.train_step(TRAIN[:8])
    whole = evaluate(model, reference, VALID, seed=0)
    halves = [evaluate(model, reference, half, seed=0) for half in VALID.chunk(2)]
    expected = np.mean([half["valid/recon_l1"] for half in halves])
    assert whole["valid/recon_l1"] == pytest.approx(expected, rel=1e-5)
    assert not any(module.training for net in model.nets.values() for module in net.modules())


def test_training_goes_on_the_same_with_and_without_an_evaluation(reference):
    def run(metrics):
        model = Mdgan(dataclasses.replace(PARAMS, normalisation="batch"), 16, seed=0)
        train(
            model,
            lambda n, rng: TRAIN[torch.randint(len(TRAIN), (n,), generator=rng)],
            metrics,
            lambda progress: None,
        )
        return model.state_dict()["nets"]

    with_it = run(lambda model: evaluate(model, reference, VALID[:40], seed=0))
    without = run(lambda model: {})
    for name, state in with_it.items():
        assert all(torch.equal(value, without[name][key]) for key, value in state.items()), name


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_decoder_that_gives_no_numbers_has_failed(reference, bad):
    broken = VALID.clone()
    broken[0, 0, 0, 0] = bad
    with pytest.raises(TrainingFailedError, match="not finite after 0 snippets.*Lower lr"):
        metrics_of(broken, reference)
