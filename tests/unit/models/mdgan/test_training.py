"""The training loop: reports, means, what ends it, and that it can be repeated and gone on with."""

import copy
import math

import pytest
import torch

from models.mdgan.model import MdganParams
from models.mdgan.training import Evaluation, TrainingFailedError, train
from tests.helpers.tiny_mdgan import (
    DATA,
    KINDS,
    MINIBATCHES,
    Minibatches,
    assert_equal,
    build,
    moved,
    parameters,
    steps,
    weights,
)

each_kind = pytest.mark.parametrize("kind", KINDS)

# Repeating and going on


@each_kind
def test_the_same_seed_gives_the_same_training_bit_for_bit(kind):
    one = build(kind, seed=3)
    torch.manual_seed(99)  # numbers of others
    two = build(kind, seed=3)
    torch.rand(7)
    assert steps(one) == steps(two)
    assert_equal(weights(one), weights(two))


@each_kind
def test_another_seed_gives_another_training(kind):
    one, two = build(kind, seed=3), build(kind, seed=4)
    assert moved(one, parameters(two)) == set(one.nets)
    assert steps(one, 1)[0] != steps(two, 1)[0]
    same_start = build(kind, seed=3)
    same_start.rng.manual_seed(4)
    assert steps(build(kind, seed=3), 1)[0] != steps(same_start, 1)[0]


def test_training_leaves_global_random_numbers_alone():
    before = torch.get_rng_state()
    steps(build("both", prior="student_t"), 1)
    assert torch.equal(torch.get_rng_state(), before)


def history_of(model):
    """Reports of a training to its end."""
    reports = []
    row = {"bird": "b1", "x": 1.0}
    train(
        model,
        MINIBATCHES,
        lambda m: Evaluation({"valid/x": float(m.snippets_seen)}, [row]),
        reports.append,
    )
    assert all(report.by_bird_age == [row] for report in reports)
    return reports


@pytest.mark.parametrize("stop_at", [1, 3])
@pytest.mark.parametrize(
    ("kind", "normalisation"),
    [("convolutions", "layer"), ("convolutions", "batch"), ("dense", "layer"), ("both", "batch")],
)
def test_a_training_gone_on_with_equals_one_never_stopped(kind, normalisation, stop_at):
    """Stopped before the adversarial terms come in, and after."""

    class Stop(Exception):  # noqa: N818
        pass

    def stop(progress):
        if progress.report == stop_at:
            states.append(copy.deepcopy(stopped.state_dict()))
            raise Stop

    states = []
    changes = {
        "normalisation": normalisation, "prior": "student_t", "n_snippets": 32, "n_reports": 4,
        "adversarial_from": 0.5, "ema_decay": 0.5, "lr_warmup": 0.4,
    }  # fmt: skip
    whole, stopped = build(kind, seed=3, **changes), build(kind, seed=3, **changes)
    reports = history_of(whole)
    with pytest.raises(Stop):
        train(stopped, MINIBATCHES, lambda m: Evaluation({}), stop)
    resumed = build(kind, seed=8, **changes)
    resumed.load_state_dict(states[0])
    assert resumed.snippets_seen == 8 * stop_at
    assert resumed.is_adversarial == (stop_at == 3)
    assert history_of(resumed) == reports[stop_at:]
    assert_equal(weights(resumed), weights(whole))
    assert torch.equal(resumed.encode(DATA), whole.encode(DATA))
    assert torch.equal(resumed.rng.get_state(), whole.rng.get_state())
    assert torch.equal(resumed.monitor_rng.get_state(), whole.monitor_rng.get_state())
    assert steps(resumed, 1) == steps(whole, 1)


# The loop


class Counter:
    """Stands in for Mdgan where only the loop is at stake."""

    def __init__(self, seen=0, losses=(), late=None, **params):
        fixed = {"batch_size": 8, "n_snippets": 100, "collapse_after": 0}
        self.params = MdganParams(**{**fixed, **params})
        self.rng = torch.Generator()
        self.snippets_seen = seen
        self.losses = iter(losses)
        self.late = late

    def train_step(self, x, n_sounding):
        self.snippets_seen += len(x)
        loss = next(self.losses, float(self.snippets_seen))
        out = {"train/fine": torch.tensor(1.0), "train/loss": torch.tensor(loss)}
        if self.late is not None and self.snippets_seen > self.late:
            out["train/late"] = torch.tensor(float(self.snippets_seen))
        return out


def run(model):
    reports = []
    train(model, Minibatches(torch.zeros(1)), lambda m: Evaluation({}), reports.append)
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


def test_a_phase_that_came_in_late_has_the_mean_of_its_own_steps():
    reports = run(Counter(batch_size=10, n_reports=2, late=30))
    assert [r.metrics["train/late"] for r in reports] == [45.0, 80.0]
    reports = run(Counter(batch_size=10, n_reports=2, late=50))
    assert "train/late" not in reports[0].metrics
    assert reports[1].metrics["train/late"] == 80.0


def test_metrics_of_the_evaluation_are_reported_with_the_losses():
    report = history_of(build("dense", n_snippets=8, n_reports=1))[0]
    assert report.metrics["valid/x"] == 8.0
    assert type(report.metrics["train/reconstruction"]) is float
    assert report.metrics["train/reconstruction"] > 0


# Divergence


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("at", [1, 49, 50, 60])
def test_a_loss_that_is_no_number_ends_the_training_within_50_steps_and_is_named(bad, at):
    losses = [1.0] * (at - 1) + [bad]
    model = Counter(losses=losses, batch_size=1, n_reports=1, n_snippets=1000)
    found_at = 50 if at <= 50 else 100
    with pytest.raises(
        TrainingFailedError, match=f"train/loss is {bad} after {found_at} snippets: .*Lower lr"
    ):
        run(model)
    assert model.snippets_seen == found_at


def test_no_report_holds_a_loss_that_is_no_number():
    reports = []
    model = Counter(losses=[1.0, math.nan], n_reports=1)
    with pytest.raises(TrainingFailedError, match="train/loss is nan"):
        train(model, Minibatches(torch.zeros(1)), lambda m: Evaluation({}), reports.append)
    assert reports == []


@each_kind
def test_a_nan_in_the_data_ends_the_training(kind):
    with pytest.raises(TrainingFailedError, match=r"train/\w+ is nan after 20 snippets"):
        train(
            build(kind),
            Minibatches(torch.full((1, 1, 129, 16), math.nan)),
            lambda m: Evaluation({}),
            lambda p: None,
        )
