"""The evaluation of a decoder against scipy, hand-made decoders and the models themselves."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from models.mdgan.model import Mdgan, MdganParams
from models.mdgan.training import Evaluation, TrainingFailedError, train
from models.metrics.distances import frechet_distance
from models.metrics.evaluation import (
    COLLAPSED_OBJECTIVE,
    OBJECTIVES,
    evaluate,
    latent_measures,
    objective,
)
from models.metrics.held_out import HeldOut
from models.metrics.reference import fit_reference
from tests.helpers.reference_snippets import SONGS, TRAIN, VALID, songs_of
from tests.helpers.tiny_mdgan import Minibatches

PARAMS = MdganParams(
    latent_dim=3, width=2, dense_width=0, disc_width=2, batch_size=8, n_snippets=16, n_reports=2
)


@pytest.fixture(scope="module")
def reference():
    return fit_reference(TRAIN, SONGS, seed=0)


@pytest.fixture(scope="module")
def held_out(reference):
    return HeldOut(reference, VALID)


class FixedDecoder:
    """Gives fixed snippets and latents, in order, whatever it is asked for."""

    device = torch.device("cpu")
    snippets_seen = 0

    def __init__(self, reconstructed, sampled=None, z=None):
        self.z = torch.randn(len(VALID), 3) if z is None else z
        self.params = SimpleNamespace(latent_dim=self.z.shape[1])
        self.answers = {
            "encoded": reconstructed,
            "prior": reconstructed if sampled is None else sampled,
        }
        self.given = {"encode": 0, "encoded": 0, "prior": 0}
        self.decoded = {"encoded": [], "prior": []}

    def encode(self, x):
        return self._next("encode", self.z, len(x))

    def decode(self, z, source="encoded"):
        self.decoded[source].append(z)
        return self._next(source, self.answers[source], len(z))

    def sample_prior(self, n, rng):
        return torch.randn(n, self.z.shape[1], generator=rng)

    def _next(self, name, answers, n):
        first = self.given[name]
        self.given[name] += n
        return answers[torch.arange(first, first + n) % len(answers)]


def metrics_of(snippets, reference, **others):
    return evaluate(FixedDecoder(snippets, **others), reference, SONGS, seed=0).metrics


def evaluated(model, reference, songs=SONGS, seed=0):
    return evaluate(model, reference, songs, seed).metrics


def test_errors_are_those_of_the_snippets_beside_those_of_one_pca_for_all_latent_sizes(
    reference, held_out
):
    x_hat = VALID + 0.25
    found = metrics_of(x_hat, reference)
    pca = {name: each.mean() for name, each in held_out.pca_errors_of_each.items()}
    assert found["valid/recon_l1"] == pytest.approx(0.25, rel=1e-5)
    assert found["valid/recon_l2"] == pytest.approx(0.25**2, rel=1e-5)
    assert found["valid/recon_lsd_db"] == held_out.errors(x_hat)["lsd_db"] > 1
    assert found["valid/recon_l1_vs_pca"] == pytest.approx(0.25 / pca["l1"], rel=1e-5)
    assert found["valid/recon_l2_vs_pca"] == pytest.approx(0.0625 / pca["l2"], rel=1e-5)
    expected = found["valid/recon_lsd_db"] / pca["lsd_db"]
    assert found["valid/recon_lsd_vs_pca"] == pytest.approx(expected)
    larger = metrics_of(x_hat, reference, z=torch.randn(200, 7))
    for name in ("recon_l1_vs_pca", "frechet_recon_vs_pca", "frechet_sample_vs_pca"):
        assert larger[f"valid/{name}"] == found[f"valid/{name}"]


def test_samples_and_reconstructions_are_measured_apart(reference, held_out):
    found = metrics_of(0.7 * VALID, reference, sampled=TRAIN[:200])
    pca = held_out.pca_figures(seed=0)
    features = [held_out.features_of(x) for x in (0.7 * VALID, TRAIN[:200])]
    frechet = [held_out.frechet(x) for x in features]
    assert found["valid/frechet_recon"] == frechet[0] > 2 * frechet[1]
    assert found["valid/frechet_sample"] == frechet[1]
    assert found["valid/frechet_recon_vs_pca"] == frechet[0] / pca["frechet_recon"]
    assert found["valid/frechet_sample_vs_pca"] == frechet[1] / pca["frechet_sample"]
    for name, value in held_out.neighbours(features[1]).items():
        assert found[f"valid/{name}"] == value


def test_a_pca_taken_for_a_decoder_is_as_good_as_pca(reference):
    scores = reference.pca_scores(VALID, 16)
    noise = np.random.default_rng(0).standard_normal((len(VALID), 16))
    found = metrics_of(
        reference.pca_decode(scores), reference,
        sampled=reference.pca_decode(noise * reference.pca_std[:16]),
    )  # fmt: skip
    names = [f"{name}_vs_pca" for name in (
        "recon_l1", "recon_l2", "recon_lsd", "frechet_recon", "frechet_sample"
    )]  # fmt: skip
    against = {name: found[f"valid/{name}"] for name in names}
    assert against == pytest.approx(dict.fromkeys(names, 1.0))


def test_latents_are_decoded_as_encoded_ones_and_samples_as_those_of_the_prior(reference):
    z = torch.randn(len(VALID), 3, generator=torch.Generator().manual_seed(1))
    decoder = FixedDecoder(VALID, z=z)
    evaluate(decoder, reference, SONGS, seed=5)
    decoded = torch.cat(decoder.decoded["encoded"])
    assert torch.equal(decoded[: len(z)], z)
    # Sampled songs of three sequence models are decoded as encoded ones.
    assert len(decoded) == len(z) + 3 * 1.5 * len(VALID)
    expected = torch.randn(len(VALID), 3, generator=torch.Generator().manual_seed(5))
    assert torch.equal(torch.cat(decoder.decoded["prior"]), expected)


def test_many_snippets_go_through_the_networks_in_batches_and_in_order(reference):
    many = torch.cat([VALID, TRAIN])
    decoder = FixedDecoder(many, z=torch.randn(len(many), 3))
    assert evaluated(decoder, reference, songs_of(many))["valid/recon_l1"] == 0
    assert [len(z) for z in decoder.decoded["prior"]] == [256, 244]


def test_a_perfect_decoder_scores_0_and_is_not_collapsed(reference):
    found = metrics_of(VALID, reference)
    assert found["valid/recon_l1"] == found["valid/recon_l2"] == 0
    assert found["valid/frechet_recon"] == pytest.approx(0, abs=1e-6)
    assert found["valid/frechet_sample"] == pytest.approx(0, abs=1e-6)
    assert found["valid/recon_lsd_db"] == 0
    assert found["valid/precision"] == found["valid/recall"] == found["valid/coverage"] == 1
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
    found = metrics_of(VALID, reference, sampled=VALID[:1].expand_as(VALID))
    assert found["valid/recon_l1"] == 0
    assert found["valid/objective"] == COLLAPSED_OBJECTIVE
    assert found["valid/coverage"] < 0.1


def test_no_trial_is_worse_than_a_collapsed_one():
    metrics = {"valid/frechet_song": 1e9, "valid/collapsed": 0.0}
    assert objective(metrics) < COLLAPSED_OBJECTIVE
    assert objective({**metrics, "valid/collapsed": 1.0}) == COLLAPSED_OBJECTIVE


def normal(n, d, seed):
    return np.random.default_rng(seed).standard_normal((n, d))


def test_latents_are_compared_with_the_prior_they_are_sampled_from(reference):
    z = torch.randn(200, 3, generator=torch.Generator().manual_seed(7)) + 0.3
    prior = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    found = metrics_of(VALID, reference, z=z)
    for name, value in latent_measures(z.double().numpy(), prior.double().numpy()).items():
        assert found[f"valid/{name}"] == pytest.approx(value), name
    expected = frechet_distance(
        z.mean(0).double().numpy(), np.cov(z.T), prior.mean(0).double().numpy(), np.cov(prior.T)
    )
    assert found["valid/latent_frechet"] == pytest.approx(expected / 3, rel=1e-4)
    ks = [stats.ks_2samp(z[:, i].numpy(), prior[:, i].numpy()).statistic for i in range(3)]
    assert found["valid/latent_ks"] == pytest.approx(np.mean(ks), rel=1e-6)
    largest = float(z.mean(0).abs().max() / prior.std())
    assert found["valid/latent_mean"] == pytest.approx(largest, rel=0.01)


def test_latents_that_match_the_prior_are_near_0_in_every_measure():
    found = latent_measures(normal(20_000, 4, 0), normal(20_000, 4, 1))
    assert max(found.values()) < 0.03
    found = latent_measures(3 * normal(20_000, 4, 0), 3 * normal(20_000, 4, 1))
    assert found["latent_mean"] < 0.03


def test_each_way_to_miss_the_prior_is_seen_by_its_measure():
    z, prior = normal(5000, 3, 0), normal(5000, 3, 1)
    shifted = latent_measures(2 * (z + [0.0, -0.5, 0.2]), 2 * prior)
    assert shifted["latent_mean"] == pytest.approx(0.5, abs=0.05)
    mixed = z.copy()
    mixed[:, 1] = 0.6 * z[:, 0] + 0.8 * z[:, 1]  # one of three pairs has a correlation of 0.6
    found = latent_measures(10 * mixed, prior)
    assert found["latent_cov"] == pytest.approx(np.sqrt(0.36 / 3), abs=0.02)
    assert latent_measures(mixed, prior)["latent_cov"] == pytest.approx(found["latent_cov"])
    far = latent_measures(3 * z + 2, prior)
    assert far["latent_frechet"] == pytest.approx(2**2 + (3 - 1) ** 2, rel=0.1)
    assert far["latent_ks"] > 0.5


def test_dead_dimensions_are_counted_and_have_no_correlation():
    found = latent_measures(normal(500, 3, 0) * [1.0, 0.0, 1e-3], normal(500, 3, 1))
    assert found["latent_dead"] == 2
    assert found["latent_cov"] == 0
    assert all(np.isfinite(list(found.values())))


def test_one_latent_dimension_can_be_evaluated(reference):
    found = metrics_of(TRAIN[:200], reference, z=torch.randn(200, 1))
    assert all(np.isfinite(list(found.values())))
    assert found["valid/latent_cov"] == 0


def test_a_decoder_far_too_loud_has_measures_that_are_numbers(reference):
    found = metrics_of(1000 * VALID, reference)
    assert all(np.isfinite(list(found.values())))
    assert all(type(value) is float for value in found.values())


def test_the_evaluation_depends_on_its_seed_alone(reference):
    model = Mdgan(PARAMS, 16, seed=0)
    state = model.rng.get_state()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    found = evaluated(model, reference)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(model.rng.get_state(), state)
    torch.manual_seed(2)
    assert evaluated(model, reference) == found
    other = evaluated(model, reference, seed=1)
    assert other["valid/frechet_sample"] != found["valid/frechet_sample"]
    assert other["valid/recon_l1"] == found["valid/recon_l1"]


def test_the_evaluation_leaves_no_gradient_and_changes_nothing(reference):
    model = Mdgan(dataclasses.replace(PARAMS, normalisation="batch"), 16, seed=0)
    model.train_step(TRAIN[:8])
    before = [v.clone() for net in model.nets.values() for v in net.state_dict().values()]
    for net in model.nets.values():
        net.requires_grad_(True).zero_grad()
        net.train()
    found = evaluated(model, reference)
    after = [v for net in model.nets.values() for v in net.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert all(p.grad is None for net in model.nets.values() for p in net.parameters())
    assert all(type(value) is float for value in found.values())


def test_reconstructions_do_not_depend_on_what_else_is_in_the_batch(reference):
    model = Mdgan(dataclasses.replace(PARAMS, normalisation="batch"), 16, seed=0)
    model.train_step(TRAIN[:8])
    whole = evaluated(model, reference)
    halves = [evaluated(model, reference, songs_of(half)) for half in VALID.chunk(2)]
    expected = np.mean([half["valid/recon_l1"] for half in halves])
    assert whole["valid/recon_l1"] == pytest.approx(expected, rel=1e-5)


def test_training_goes_on_the_same_with_and_without_an_evaluation(reference):
    def run(metrics):
        model = Mdgan(dataclasses.replace(PARAMS, normalisation="batch"), 16, seed=0)
        train(
            model,
            Minibatches(TRAIN),
            metrics,
            lambda progress: None,
        )
        return model.state_dict()["nets"]

    with_it = run(lambda model: evaluate(model, reference, SONGS, seed=0))
    without = run(lambda model: Evaluation({}))
    for name, state in with_it.items():
        assert all(torch.equal(value, without[name][key]) for key, value in state.items()), name


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_decoder_that_gives_no_numbers_has_failed(reference, bad):
    broken = VALID.clone()
    broken[0, 0, 0, 0] = bad
    with pytest.raises(TrainingFailedError, match="not finite.*Lower lr"):
        metrics_of(broken, reference)
