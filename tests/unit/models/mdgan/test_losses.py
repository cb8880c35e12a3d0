"""Loss terms, labels and priors against formulas by hand, numpy and scipy."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import linear_sum_assignment

from models.mdgan import losses


def rng_of(seed=0):
    return torch.Generator().manual_seed(seed)


# Labels


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


# Adversarial terms


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
    labels = torch.tensor(np.stack([ones, zeros])).double()
    found = losses.discriminator_loss(first, second, labels)
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_the_adversarial_loss_does_not_saturate():
    logits = torch.tensor([-800.0, -2.0, 0.0, 3.0], dtype=torch.float64, requires_grad=True)
    loss = losses.adversarial_loss(logits)
    expected = (800 + math.log1p(math.exp(2)) + math.log(2) + math.log1p(math.exp(-3))) / 4
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    loss.backward()
    assert logits.grad[0].item() == pytest.approx(-1 / 4)  # strong where the fake is found out


# Reconstruction


@pytest.mark.parametrize("mse_weight", [0.0, 0.4])
@pytest.mark.parametrize("pool_weight", [0.0, 0.7])
def test_the_reconstruction_by_hand(pool_weight, mse_weight):
    x, y = torch.rand(2, 2, 1, 7, 8, generator=rng_of(), dtype=torch.float64)
    difference = (x - y).numpy()
    # 3 x 3 windows at rows 0 and 4, columns 0 and 4.
    pooled = np.array(
        [d[0, r : r + 3, c : c + 3].mean() for d in difference for r in (0, 4) for c in (0, 4)]
    )
    for kind, size in (("l1", np.abs), ("l2", np.square)):
        expected = size(difference).mean() + pool_weight * size(pooled).mean()
        expected += mse_weight * np.square(difference).mean()
        found = losses.reconstruction(x, y, kind, pool_weight, mse_weight)
        assert found.item() == pytest.approx(expected, rel=1e-12)


def test_an_unknown_distance_is_named():
    with pytest.raises(ValueError, match="distance is 'l3': choose one of l1, l2"):
        losses.distance(torch.zeros(1), torch.zeros(1), "l3")


# Distance of latents to the prior


def sliced_wasserstein(a, b, rng):
    directions = losses.random_directions(a.shape[1], rng)
    return losses.sliced_wasserstein(a, b, directions.to(a.dtype))


def latents(n, d, seed):
    return torch.randn(n, d, generator=rng_of(seed), dtype=torch.float64)


def test_equal_sets_in_another_order_are_at_distance_0():
    a = latents(50, 4, 0)
    shuffled = a[torch.randperm(50, generator=rng_of(1))]
    assert sliced_wasserstein(a, shuffled, rng_of()).item() == pytest.approx(0, abs=1e-25)
    assert sliced_wasserstein(a, a + 1, rng_of()).item() > 0.5


@pytest.mark.parametrize("d", [1, 2, 7])
def test_a_shifted_set_is_as_far_as_the_square_of_its_shift_for_each_dimension(d):
    a, shift = latents(40, d, 0), latents(1, d, 1)
    rng = rng_of()
    found = [sliced_wasserstein(a, a + shift, rng).item() for _ in range(200)]
    # Of a random direction's squared cosine the mean is 1 / d.
    assert np.mean(found) == pytest.approx(shift.square().sum().item() / d, rel=0.03)


def test_along_a_line_it_is_the_best_transport():
    a, b = latents(30, 1, 0), 0.5 + 2 * latents(30, 1, 1)
    costs = (a - b.T).square().numpy()
    best = costs[linear_sum_assignment(costs)].mean()
    assert sliced_wasserstein(a, b, rng_of()).item() == pytest.approx(best, rel=1e-9)


def test_it_sees_what_each_dimension_alone_does_not():
    """Correlated latents have the prior's marginals, and are not the prior."""
    first, second = latents(4000, 2, 0).T
    correlated = torch.stack([first, 0.9 * first + math.sqrt(1 - 0.81) * second], 1)
    independent = latents(4000, 2, 1)
    far = sliced_wasserstein(correlated, independent, rng_of())
    assert far > 10 * sliced_wasserstein(latents(4000, 2, 2), independent, rng_of())


def test_its_gradient_pulls_latents_to_the_prior():
    prior, z, rng = latents(60, 3, 0), 3 + 0.2 * latents(60, 3, 1), rng_of()
    first = sliced_wasserstein(z, prior, rng).item()
    for _ in range(60):
        z = z.requires_grad_(True)
        (gradient,) = torch.autograd.grad(sliced_wasserstein(z, prior, rng), z)
        z = z.detach() - 60 * 3 / 2 * gradient
    assert sliced_wasserstein(z, prior, rng).item() < 0.01 * first
    assert z.mean(0).numpy() == pytest.approx(prior.mean(0).numpy(), abs=0.1)
    assert z.std(0).numpy() == pytest.approx(prior.std(0).numpy(), abs=0.1)


def test_directions_follow_from_the_seed_alone():
    a, b = latents(20, 3, 0), latents(20, 3, 1)
    found = sliced_wasserstein(a, b, rng_of(5))
    torch.manual_seed(9)
    assert sliced_wasserstein(a, b, rng_of(5)) == found
    assert sliced_wasserstein(a, b, rng_of(6)) != found


# Prior


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
