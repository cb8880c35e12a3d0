"""What is trained today is what was trained when golden_losses.json was measured."""

import json

import pytest
import torch

from tests.helpers.make_golden_losses import CASES, N_STEPS, PATH, golden_losses

GOLDEN = json.loads(PATH.read_text("utf-8"))


def _cases():
    """The paper's recipe costs ten times as much as the default: one of it is enough at first."""
    for case in CASES:
        is_slow = case.startswith("paper") and case != "paper, layer"
        yield pytest.param(case, marks=[pytest.mark.slow] if is_slow else [])


@pytest.mark.parametrize("case", list(_cases()))
def test_losses_are_the_golden_ones(case):
    assert torch.get_num_threads() == 1
    found, golden = golden_losses(case), GOLDEN[case]
    assert found.keys() == golden.keys()
    for name, values in golden.items():
        assert len(values) == N_STEPS
        # A phase that has not come in has no loss.
        first = values.count(None)
        assert found[name][:first] == values[:first] == [None] * first, name
        assert found[name][first:] == pytest.approx(values[first:], rel=1e-4), name


def test_every_case_has_numbers_of_its_own():
    assert GOLDEN.keys() == CASES.keys()
    ends = [case["train/diffusion_disc"][-1] for case in GOLDEN.values()]
    assert len(set(ends)) == len(CASES)
