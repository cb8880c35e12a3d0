"""A decoder whose snippets do not vary: seen early, and not taken for one that is only slow."""

import pytest
import torch

from models.mdgan import collapse, training
from models.mdgan.collapse import is_collapsed, spread, spread_ratio
from models.mdgan.training import CollapsedError, Evaluation, train
from tests.helpers.tiny_mdgan import (
    DATA,
    KINDS,
    MINIBATCHES,
    assert_equal,
    build,
    steps,
    weights,
)

each_kind = pytest.mark.parametrize("kind", KINDS)


def run(model):
    """The evaluation is asked for at the very end; the loop itself has to look."""
    train(model, MINIBATCHES, lambda m: Evaluation({}), lambda p: None)
    return model


def learning(kind, n_steps, **changes):
    """An autoencoder over ``n_steps``: a quarter of the time, and it collapses as an MDGAN does."""
    numbers = {"adversarial_from": 1.0, "lr_schedule": "constant", "n_reports": 1}
    return build(kind, n_snippets=4 * n_steps, **{**numbers, **changes})


@pytest.mark.parametrize(
    ("kind", "collapse_after"), [("convolutions", 50), ("dense", 50), ("dense", 100), ("both", 50)]
)
def test_a_planted_collapse_ends_the_training_and_names_its_step(kind, collapse_after):
    # At this rate the first steps throw all weights away: the same snippet for every latent.
    model = learning(kind, 200, lr=1.0, collapse_after=collapse_after)
    words = f"After {collapse_after} steps decoded snippets vary less than 0.05 times .* Lower lr"
    with pytest.raises(CollapsedError, match=words):
        run(model)
    assert model.snippets_seen == 4 * collapse_after
    assert is_collapsed(model, DATA)


def test_a_collapse_with_its_adversary_is_found_too():
    model = learning("dense", 50, lr=1.0, adversarial_from=0.0, collapse_after=1)
    with pytest.raises(CollapsedError, match="After 50 steps"):
        run(model)


@each_kind
def test_a_sound_training_goes_on(kind):
    model = run(learning(kind, 50, lr=1e-3, collapse_after=50))
    assert model.snippets_seen == 200


def test_0_never_looks():
    model = run(learning("dense", 50, lr=1.0, collapse_after=0))
    assert is_collapsed(model, DATA)


def test_a_slow_start_is_judged_only_after_its_steps():
    # Weights of N(0, 0.02) begin with nearly the same snippet for every latent.
    slow = {"initialisation": "normal", "lr": 3e-4}
    assert is_collapsed(learning("convolutions", 150, **slow), DATA)
    model = run(learning("convolutions", 150, collapse_after=100, **slow))
    assert not is_collapsed(model, DATA)
    with pytest.raises(CollapsedError, match="After 1 steps .* may need a higher collapse_after"):
        early = learning("convolutions", 150, collapse_after=1, **slow)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "CHECK_EVERY", 1)
            run(early)


@pytest.mark.parametrize("normalisation", ["layer", "batch"])
@each_kind
def test_looking_changes_nothing(kind, normalisation, monkeypatch):
    monkeypatch.setattr(training, "CHECK_EVERY", 2)
    monkeypatch.setattr(collapse, "COLLAPSED_BELOW", 0.0)  # look, and find nothing
    changes = {"normalisation": normalisation, "ema_decay": 0.5, "n_snippets": 24, "lr": 1e-3}
    watched, alone = (
        run(build(kind, collapse_after=after, label_noise=0.3, **changes)) for after in (1, 0)
    )
    assert_equal(weights(watched), weights(alone))
    assert torch.equal(watched.encode(DATA), alone.encode(DATA))
    assert torch.equal(watched.rng.get_state(), alone.rng.get_state())
    before = torch.get_rng_state(), watched.rng.get_state()
    is_collapsed(watched, DATA)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.equal(watched.rng.get_state(), before[1])
    assert steps(watched, 1) == steps(alone, 1)


# The measure


def test_spread_is_the_root_of_the_mean_variance():
    snippets = DATA[:1] + torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)
    assert spread(snippets) == pytest.approx(2**0.5)
    assert spread(DATA[:1].expand(5, -1, -1, -1)) == 0


def test_the_ratio_is_that_of_whichever_varies_less():
    mean = DATA.mean(0, keepdim=True)
    half, tenth = (mean + share * (DATA - mean) for share in (0.5, 0.1))
    assert spread_ratio(DATA, DATA, DATA) == pytest.approx(1)
    assert spread_ratio(DATA, half, tenth) == pytest.approx(0.1, rel=1e-4)
    assert spread_ratio(DATA, tenth, half) == pytest.approx(0.1, rel=1e-4)


def test_snippets_that_do_not_vary_say_nothing_of_the_decoder():
    silence = torch.zeros(8, 1, 129, 16)
    assert spread_ratio(silence, silence, silence) != spread_ratio(silence, silence, silence)
    assert not is_collapsed(build("dense"), silence)
