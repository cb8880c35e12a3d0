"""The six phases, what steers them, and that a training can be repeated and gone on with."""

import copy
import dataclasses
import math
from typing import get_args

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional

from models import losses
from models.checkpoints import load_training, save_training
from models.mdgan import Mdgan, MdganParams, learning_rate
from models.networks import Normalisation
from models.training import TrainingFailedError, train

NORMALISATIONS = get_args(Normalisation)
TINY = MdganParams(
    latent_dim=3, width=2, disc_width=2, batch_size=4, n_snippets=40, n_reports=2, lr=5e-3
)


def build(seed=0, **changes):
    return Mdgan(dataclasses.replace(TINY, **changes), n_frames=16, seed=seed)


def snippets(n, seed=0):
    """Bumps of random height and pitch: log1p spectra with something to learn."""
    rng = torch.Generator().manual_seed(seed)
    height, pitch = torch.rand(2, n, 1, 1, 1, generator=rng)
    frequencies = torch.linspace(0, 1, 129)[:, None].expand(129, 16)
    return 3 * height * torch.exp(-(((frequencies - pitch) / 0.1) ** 2))


DATA = snippets(64)


def sample_batch(n, rng):
    return DATA[torch.randint(len(DATA), (n,), generator=rng)]


def steps(model, n=3):
    """Losses of ``n`` steps."""
    return [model.train_step(sample_batch(model.params.batch_size, model.rng)) for _ in range(n)]


def weights(model, *names):
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


# Phases


def run_phase(model, phase, x):
    """One phase alone, on graphs as train_step makes them."""
    x_hat = model.generator(model.encoder(x))
    x_sampled = model.generator(model.sample_prior(len(x)))
    out = {}
    arguments = {
        "manifold_discriminator": (x, x_hat),
        "manifold_autoencoder": (x, x_hat),
        "diffusion_discriminator": (x_hat, x_sampled),
        "diffusion_generator": (x_sampled,),
        "latent": (len(x),),
        "monitor": (x, x_sampled),
    }[phase]
    getattr(model, f"{phase}_phase")(*arguments, out)
    return out


OWNERS = {
    "manifold_discriminator": {"manifold_disc"},
    "manifold_autoencoder": {"encoder", "generator"},
    "diffusion_discriminator": {"diffusion_disc"},
    "diffusion_generator": {"generator"},
    "latent": {"encoder", "generator"},
    "monitor": {"monitor_disc"},
}


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("phase", OWNERS)
def test_a_phase_moves_only_its_owners(phase, normalisation):
    model = build(normalisation=normalisation)
    before = parameters(model)
    run_phase(model, phase, DATA[:4])
    assert moved(model, before) == OWNERS[phase]
    with_gradients = {
        name for name, net in model.nets.items() for p in net.parameters() if p.grad is not None
    }
    assert with_gradients == OWNERS[phase]


def with_live_units(normalisation):
    """Weights with no unit that a ReLU keeps at 0 for a whole batch: those have no gradient."""
    return build(seed=1, normalisation=normalisation, width=4, batch_size=16)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_the_diffusion_step_trains_every_parameter_of_the_generator(normalisation):
    model = with_live_units(normalisation)
    before = parameters(model)
    run_phase(model, "diffusion_generator", DATA[:16])
    for name, parameter in model.generator.named_parameters():
        assert parameter.grad.abs().max() > 0, name
        assert not torch.equal(parameter, before["generator", name]), name


def test_within_a_step_the_generator_moves_in_three_phases_and_the_encoder_in_two():
    model = with_live_units("layer")
    found = {name: [] for name in model.nets}
    for name, optimizer in model.optimizers.items():

        def step(name=name, step=optimizer.step):
            gradients = [p.grad.abs().max() for p in model.nets[name].parameters()]
            found[name].append(bool(min(gradients) > 0))
            step()

        optimizer.step = step
    model.train_step(DATA[:16])
    assert found == {
        "encoder": [True] * 2,
        "generator": [True] * 3,
        "manifold_disc": [True],
        "diffusion_disc": [True],
        "monitor_disc": [True],
    }


def gradients(net):
    return {name: p.grad.clone() for name, p in net.named_parameters()}


def assert_same_gradients(net, fresh):
    expected = gradients(fresh)
    for name, found in gradients(net).items():
        torch.testing.assert_close(found, expected[name], msg=lambda m, n=name: f"{n}: {m}")
        assert expected[name].abs().max() > 0


def fresh_copies(model):
    """Encoder, generator and random numbers as they are now, apart from the model's."""
    rng = torch.Generator()
    rng.set_state(model.rng.get_state())
    encoder, generator = copy.deepcopy((model.encoder, model.generator))
    for net in (encoder, generator):
        net.requires_grad_(True).zero_grad()
    return encoder, generator, rng


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_gradients_of_the_latent_phase_are_those_of_a_fresh_graph(normalisation):
    model = build(seed=1, normalisation=normalisation, lambda_latent=2.5, width=4)
    model.train_step(DATA[:16])
    encoder, generator, rng = fresh_copies(model)
    z = torch.randn(16, 3, generator=rng)
    (2.5 * (encoder(generator(z)) - z).abs().mean()).backward()
    model.latent_phase(16, {})
    assert_same_gradients(model.encoder, encoder)
    assert_same_gradients(model.generator, generator)


def test_gradients_of_the_diffusion_phase_hold_nothing_of_the_phases_before():
    model = with_live_units("layer")
    x = DATA[:16]
    x_hat = model.generator(model.encoder(x))
    model.manifold_autoencoder_phase(x, x_hat, {})
    _, generator, rng = fresh_copies(model)
    disc = copy.deepcopy(model.nets["diffusion_disc"])
    functional.softplus(-disc(generator(torch.randn(16, 3, generator=rng)))).mean().backward()
    model._require_grad("generator")
    model.diffusion_generator_phase(model.generator(model.sample_prior(16)), {})
    assert_same_gradients(model.generator, generator)


def test_gradients_of_the_autoencoder_are_those_of_the_weighted_sum():
    model = build(seed=1, lambda_recon=40.0, pool_weight=0.5, distance="l2", width=4)
    x = DATA[:16]
    encoder, generator, _ = fresh_copies(model)
    x_hat = generator(encoder(x))
    pooled = functional.avg_pool2d(x - x_hat, 3, stride=4)
    recon = (x - x_hat).square().mean() + 0.5 * pooled.square().mean()
    adversarial = functional.softplus(-copy.deepcopy(model.nets["manifold_disc"])(x_hat)).mean()
    (adversarial + 40 * recon).backward()
    out = run_phase(model, "manifold_autoencoder", x)
    assert_same_gradients(model.encoder, encoder)
    assert_same_gradients(model.generator, generator)
    # What is reported is not weighted.
    assert out["train/reconstruction"].item() == pytest.approx(recon.item(), rel=1e-5)
    assert out["train/manifold_adversarial"].item() == pytest.approx(adversarial.item(), rel=1e-5)


def test_lambda_latent_0_leaves_the_phase_out():
    assert "train/latent_cycle" in steps(build(), 1)[0]
    model = build(lambda_latent=0.0)
    model.latent_phase = None
    assert "train/latent_cycle" not in steps(model, 1)[0]


def test_all_six_losses_are_reported_each_under_its_name():
    assert list(steps(build(), 1)[0]) == [
        "train/manifold_disc", "train/manifold_adversarial", "train/reconstruction",
        "train/diffusion_disc", "train/diffusion_adversarial", "train/latent_cycle",
        "train/monitor_disc",
    ]  # fmt: skip


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_the_monitor_has_no_effect_on_the_others(normalisation):
    others = ("encoder", "generator", "manifold_disc", "diffusion_disc")
    on, off = (build(monitor=m, normalisation=normalisation) for m in (True, False))
    before = weights(on, "monitor_disc")
    losses_on, losses_off = steps(on, 2), steps(off, 2)
    assert all(a.pop("train/monitor_disc") > 0 for a in losses_on)
    assert losses_on == losses_off
    assert_equal(weights(on, *others), weights(off, *others))
    assert torch.equal(on.rng.get_state(), off.rng.get_state())
    assert_equal(weights(off, "monitor_disc"), before)
    assert moved(on, parameters(off)) == {"monitor_disc"}


def test_the_discriminators_learn_which_is_which():
    model = build(lr=2e-2, label_noise=0.0, lr_schedule="constant")
    x, x_sampled = DATA[:16], torch.full((16, 1, 129, 16), 2.0)
    for name in ("manifold_discriminator", "diffusion_discriminator", "monitor"):
        for _ in range(12):
            getattr(model, f"{name}_phase")(x, x_sampled, {})
    with torch.no_grad():
        for name in ("manifold_disc", "diffusion_disc", "monitor_disc"):
            disc = model.nets[name]
            assert disc(x).mean() > 0 > disc(x_sampled).mean(), name


def test_training_reconstructs_better_and_leaves_no_latent_dead():
    model = build(latent_dim=6, width=4, batch_size=8, n_snippets=400, lr=1e-2, monitor=False)
    history = steps(model, 30)
    first, last = (
        sum(h["train/reconstruction"] for h in part) for part in (history[:5], history[-5:])
    )
    assert last < 0.7 * first
    with torch.no_grad():
        z = model.encoder.eval()(DATA)
    assert (z.std(0) > 0.05).all()
    assert (z < 0).any()


# Learning rate


@pytest.mark.parametrize("seen", [0, 1, 10, 20, 39, 40, 44])
def test_the_learning_rate_is_that_of_the_formula(seen):
    assert learning_rate(dataclasses.replace(TINY, lr_schedule="constant"), seen) == 5e-3
    low, share = 0.05 * 5e-3, min(seen / 40, 1)
    expected = low + (5e-3 - low) * math.cos(math.pi * share / 2) ** 2
    assert learning_rate(TINY, seen) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_optimizers_hold_the_rate_of_the_formula(schedule):
    model = build(lr_schedule=schedule, disc_lr_ratio=0.3)
    for step in range(4):
        steps(model, 1)
        rate = 5e-3
        if schedule == "cosine":
            rate *= 0.05 + 0.95 * (1 + math.cos(math.pi * 4 * step / 40)) / 2
        held = {name: o.param_groups[0]["lr"] for name, o in model.optimizers.items()}
        discs = ("manifold_disc", "diffusion_disc", "monitor_disc")
        expected = {"encoder": rate, "generator": rate, **dict.fromkeys(discs, 0.3 * rate)}
        assert held == pytest.approx(expected, rel=1e-12)


def test_the_first_step_is_as_long_as_the_rate_says():
    # Adam's first step is the rate times the gradient's sign.
    model = build(disc_lr_ratio=0.25)
    before = parameters(model)
    model._set_rates()
    for phase in ("manifold_discriminator", "latent"):
        run_phase(model, phase, DATA[:4])
    after = parameters(model)
    length = {
        name: max(float((after[n, k] - before[n, k]).abs().max()) for n, k in after if n == name)
        for name in ("manifold_disc", "encoder", "generator")
    }
    expected = {"manifold_disc": 0.25 * 5e-3, "encoder": 5e-3, "generator": 5e-3}
    assert length == pytest.approx(expected, rel=1e-3)


# Losses, labels, prior


def rng_of(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_noisy_labels_are_flipped_per_sample(label):
    rng = rng_of()
    shares = [
        float((losses.noisy_labels(50, label, 0.1, rng) != label).float().mean())
        for _ in range(200)
    ]
    assert np.mean(shares) == pytest.approx(0.1, abs=0.01)
    # Flips of a whole batch would give 0 or 1.
    assert np.std(shares) == pytest.approx(math.sqrt(0.1 * 0.9 / 50), rel=0.2)
    assert set(losses.noisy_labels(500, label, 0.1, rng).tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_flip_probability_0_gives_exact_labels(label):
    assert losses.noisy_labels(1000, label, 0.0, rng_of()).tolist() == [label] * 1000


def bce_by_hand(logits, labels):
    p = 1 / (1 + np.exp(-logits))
    return float(np.mean(-labels * np.log(p) - (1 - labels) * np.log(1 - p)))


@pytest.mark.parametrize("flip_probability", [0.0, 0.3])
def test_the_discriminator_loss_is_that_of_the_paper(flip_probability):
    first, second = 3 * torch.randn(2, 20, generator=rng_of(1), dtype=torch.float64)
    rng = rng_of(5)
    ones = losses.noisy_labels(20, 1.0, flip_probability, rng).numpy()
    zeros = losses.noisy_labels(20, 0.0, flip_probability, rng).numpy()
    assert (ones.min() < 1) == (zeros.max() > 0) == (flip_probability > 0)
    expected = bce_by_hand(first.numpy(), ones) + bce_by_hand(second.numpy(), zeros)
    found = losses.discriminator_loss(first, second, flip_probability, rng_of(5))
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_the_adversarial_loss_does_not_saturate():
    logits = torch.tensor([-800.0, -2.0, 0.0, 3.0], dtype=torch.float64, requires_grad=True)
    loss = losses.adversarial_loss(logits)
    expected = (800 + math.log1p(math.exp(2)) + math.log(2) + math.log1p(math.exp(-3))) / 4
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    loss.backward()
    assert logits.grad[0].item() == pytest.approx(-1 / 4)  # strong where the fake is found out


def test_distances_and_the_pooled_reconstruction_by_hand():
    x, y = torch.rand(2, 2, 1, 7, 8, generator=rng_of(), dtype=torch.float64)
    difference = (x - y).numpy()
    # 3 x 3 windows at rows 0 and 4, columns 0 and 4.
    pooled = np.array(
        [d[0, r : r + 3, c : c + 3].mean() for d in difference for r in (0, 4) for c in (0, 4)]
    )
    l1 = np.abs(difference).mean() + 0.7 * np.abs(pooled).mean()
    l2 = np.square(difference).mean() + 0.7 * np.square(pooled).mean()
    assert losses.reconstruction(x, y, "l1", 0.7).item() == pytest.approx(l1, rel=1e-12)
    assert losses.reconstruction(x, y, "l2", 0.7).item() == pytest.approx(l2, rel=1e-12)
    fine = np.abs(difference).mean()
    assert losses.reconstruction(x, y, "l1", 0.0).item() == pytest.approx(fine, rel=1e-12)


PRIORS = {
    "normal": (stats.norm(), 1.0),
    "uniform": (stats.uniform(-1, 2), 1 / 3),
    "student_t": (stats.t(10), 10 / 8),
}


@pytest.mark.parametrize("prior", PRIORS)
def test_a_prior_is_the_distribution_of_its_name(prior):
    distribution, variance = PRIORS[prior]
    z = losses.sample_prior(20_000, 3, prior, 2.0, rng_of()).double().numpy()
    assert z.shape == (20_000, 3)
    assert np.var(z) == pytest.approx(4 * variance, rel=0.03)
    assert stats.kstest(z.ravel() / 2, distribution.cdf).pvalue > 0.01
    assert np.abs(np.corrcoef(z.T) - np.eye(3)).max() < 0.03
    others = [d for name, (d, _) in PRIORS.items() if name != prior]
    assert all(stats.kstest(z.ravel() / 2, other.cdf).pvalue < 0.01 for other in others)


def test_components_of_a_students_t_latent_do_not_share_their_spread():
    z = losses.sample_prior(20_000, 2, "student_t", 1.0, rng_of())
    assert abs(np.corrcoef(z.abs().T.numpy())[0, 1]) < 0.03


# Repeating and going on


def test_the_same_seed_gives_the_same_training_bit_for_bit():
    one = build(seed=3)
    torch.manual_seed(99)  # numbers of others
    two = build(seed=3)
    torch.rand(7)
    assert steps(one) == steps(two)
    assert_equal(weights(one), weights(two))


def test_another_seed_gives_another_training():
    one, two = build(seed=3), build(seed=4)
    assert moved(one, parameters(two)) == set(one.nets)
    assert steps(one, 1)[0] != steps(two, 1)[0]
    same_start = build(seed=3)
    same_start.rng.manual_seed(4)
    assert steps(build(seed=3), 1)[0] != steps(same_start, 1)[0]


def test_training_leaves_global_random_numbers_alone():
    before = torch.get_rng_state()
    steps(build(), 1)
    assert torch.equal(torch.get_rng_state(), before)


CHANGES = {
    "latent_dim": 4, "width": 3, "disc_width": 3, "normalisation": "none", "prior": "uniform",
    "prior_scale": 1.5, "distance": "l2", "pool_weight": 0.3, "lambda_recon": 20.0,
    "lambda_latent": 3.0, "label_noise": 0.4, "lr": 1e-3, "disc_lr_ratio": 0.2,
    "lr_schedule": "constant", "beta1": 0.9, "batch_size": 5, "n_snippets": 80,
}  # fmt: skip
NO_EFFECT = {"n_reports", "monitor"}


@pytest.fixture(scope="module")
def losses_of_tiny():
    return steps(build())


@pytest.mark.parametrize("name", sorted({f.name for f in dataclasses.fields(TINY)} - NO_EFFECT))
def test_every_parameter_changes_the_losses(name, losses_of_tiny):
    names = ("train/reconstruction", "train/diffusion_disc")
    changed = steps(build(**{name: CHANGES[name]}))[-1]
    assert any(changed[n] != losses_of_tiny[-1][n] for n in names)


def history_of(model):
    """Reports of a training to its end."""
    reports = []
    train(model, sample_batch, lambda m: {"valid/x": float(m.snippets_seen)}, reports.append)
    return reports


@pytest.mark.parametrize("normalisation", ["layer", "batch"])
def test_a_training_gone_on_with_equals_one_never_stopped(tmp_path, normalisation):
    class Stop(Exception):  # noqa: N818
        pass

    def stop_at_first(progress):
        save_training(stopped, tmp_path)
        raise Stop

    changes = {"normalisation": normalisation, "prior": "student_t", "n_snippets": 24}
    whole, stopped = build(seed=3, **changes), build(seed=3, **changes)
    reports = history_of(whole)
    with pytest.raises(Stop):
        train(stopped, sample_batch, lambda m: {}, stop_at_first)
    resumed = build(seed=8, **changes)
    load_training(resumed, tmp_path)
    assert resumed.snippets_seen == 12
    assert history_of(resumed) == reports[1:]
    assert_equal(weights(resumed), weights(whole))
    assert torch.equal(resumed.rng.get_state(), whole.rng.get_state())
    assert torch.equal(resumed.monitor_rng.get_state(), whole.monitor_rng.get_state())
    assert steps(resumed, 1) == steps(whole, 1)


# The loop


class Counter:
    """Stands in for Mdgan where only the loop is at stake."""

    def __init__(self, seen=0, losses=(), **params):
        self.params = MdganParams(**{"batch_size": 8, "n_snippets": 100, **params})
        self.rng = torch.Generator()
        self.snippets_seen = seen
        self.losses = iter(losses)

    def train_step(self, x):
        self.snippets_seen += len(x)
        return {"train/fine": 1.0, "train/loss": next(self.losses, float(self.snippets_seen))}


def run(model):
    reports = []
    train(model, lambda n, rng: torch.zeros(n), lambda m: {}, reports.append)
    return reports


@pytest.mark.parametrize("batch_size", [1, 7, 8, 10, 12])
@pytest.mark.parametrize("n_reports", [1, 3, 7, 8])
def test_reports_are_as_many_as_asked_for_and_the_last_is_at_the_end(n_reports, batch_size):
    reports = run(Counter(batch_size=batch_size, n_reports=n_reports))
    assert [r.report for r in reports] == list(range(1, n_reports + 1))
    seen = [r.snippets_seen for r in reports]
    assert 100 <= seen[-1] < 100 + batch_size
    wanted = [100 // n_reports * k for k in range(1, n_reports)]
    assert all(w <= s < w + batch_size for w, s in zip(wanted, seen[:-1], strict=True))


@pytest.mark.parametrize("seen", [0, 11, 33, 44, 66, 88, 99])
def test_wherever_a_training_is_gone_on_with_its_last_report_has_the_last_number(seen):
    reports = run(Counter(seen=seen, batch_size=11, n_reports=3))
    assert [(r.report, r.snippets_seen) for r in reports] == [
        (report, at) for report, at in ((1, 33), (2, 66), (3, 110)) if at > seen
    ]


def test_a_finished_training_does_nothing():
    assert run(Counter(seen=100, n_reports=2)) == []


def test_reported_losses_are_means_since_the_last_report():
    reports = run(Counter(batch_size=10, n_reports=2))
    assert [r.metrics["train/loss"] for r in reports] == [30.0, 80.0]
    assert [r.metrics["train/fine"] for r in reports] == [1.0, 1.0]


def test_metrics_of_the_evaluation_are_reported_with_the_losses():
    report = history_of(build(n_snippets=8, n_reports=1))[0]
    assert report.metrics["valid/x"] == 8.0
    assert report.metrics["train/reconstruction"] > 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_training_and_is_named(bad):
    model = Counter(losses=[1.0, bad], n_reports=1)
    with pytest.raises(TrainingFailedError, match=f"train/loss is {bad} after 16 snippets.*Lower"):
        run(model)
    assert model.snippets_seen == 16


def test_a_nan_in_the_data_ends_the_training():
    with pytest.raises(TrainingFailedError, match="train/manifold_disc is nan after 4 snippets"):
        train(
            build(),
            lambda n, rng: torch.full((n, 1, 129, 16), math.nan),
            lambda m: {},
            lambda p: None,
        )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": 0.0}, "lr is 0.0: it must be above 0"),
        ({"lr": math.nan}, "lr is nan"),
        ({"lambda_recon": -1.0}, "lambda_recon is -1.0: it must be 0 or more"),
        ({"label_noise": 0.5}, "label_noise is 0.5: .* below 0.5"),
        ({"beta1": 1.0}, "beta1 is 1.0: .* below 1"),
        ({"prior": "cauchy"}, "prior is 'cauchy': choose one of normal, uniform, student_t"),
        ({"distance": "l3"}, "distance is 'l3': choose one of l1, l2"),
        ({"lr_schedule": "cosin"}, "lr_schedule is 'cosin': choose one of constant, cosine"),
        ({"n_snippets": 7}, "n_snippets is 7: too few for 2 reports .* batch of 4. Raise"),
    ],
)
def test_errors_name_the_value_and_the_remedy(changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(TINY, **changes)
