"""Minibatches: how many snippets are silent, which birds they come from, and what is refused."""

import numpy as np
import pytest
import torch

from models.mdgan.frames import Balance, Frames
from models.mdgan.params import MdganParams

CPU = torch.device("cpu")
N_FRAMES = 16
# Frames of three birds, and the first frames of each that hold no sound.
FRAMES_OF, QUIET = (4000, 1000, 400), (2000, 300, 40)


def rng_of(seed=0):
    return torch.Generator().manual_seed(seed)


def made(balance, frames_of=FRAMES_OF):
    """Frames that hold their own number; no snippet reaches from one bird to the next."""
    n = sum(frames_of)
    frames = np.repeat(np.arange(n, dtype=np.float32)[:, None], 129, 1)
    starts, first = [], 0
    for length in frames_of:
        starts.append(np.arange(first, first + length - N_FRAMES + 1))
        first += length
    return Frames(frames, np.concatenate(starts), N_FRAMES, CPU, balance)


def sounds(quiet=QUIET):
    return np.concatenate(
        [np.arange(n) >= silent for n, silent in zip(FRAMES_OF, quiet, strict=True)]
    )


def starts_of(snippets):
    return snippets[:, 0, 0, 0].long().numpy()


def is_silent(starts, has_sound):
    return np.array([not has_sound[start : start + N_FRAMES].any() for start in starts])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.3])
@pytest.mark.parametrize("n", [7, 64, 128])
def test_the_sounding_snippets_come_first_and_are_as_many_in_each_minibatch(n, share):
    frames = made(Balance(share, sounds(), FRAMES_OF))
    n_silent = {0.0: 0, 0.1: {7: 1, 64: 7, 128: 13}[n], 0.25: {7: 2, 64: 16, 128: 32}[n],
                0.3: {7: 3, 64: 20, 128: 39}[n]}[share]  # fmt: skip
    assert frames.n_sounding(n) == n - n_silent
    rng = rng_of()
    for _ in range(5):
        found = is_silent(starts_of(frames.sample(n, rng)), sounds())
        assert list(found) == [False] * (n - n_silent) + [True] * n_silent


def test_a_bird_comes_as_often_as_its_snippets_to_the_power_of_three_quarters():
    frames = made(Balance(0.25, sounds(), FRAMES_OF))
    starts = starts_of(frames.sample(80_000, rng_of()))
    bird = np.searchsorted(np.cumsum(FRAMES_OF), starts, side="right")
    # A snippet of 16 frames is silent if it ends before the first frame with sound.
    n_silent = np.array(QUIET) - 15
    n_sounding = np.array(FRAMES_OF) - 15 - n_silent
    for part, counts in ((bird[:60_000], n_sounding), (bird[60_000:], n_silent)):
        expected = counts**0.75 / (counts**0.75).sum()
        assert np.bincount(part, minlength=3) / len(part) == pytest.approx(expected, abs=0.01)


def test_any_snippet_of_a_bird_comes_as_often_as_any_other():
    frames = made(Balance(0.25, sounds(), FRAMES_OF))
    starts = starts_of(frames.sample(80_000, rng_of()))[:60_000]
    last = np.bincount(starts[starts >= 5000], minlength=5400)[5000:]
    # The last bird's first sounding snippet has its first sound in its last frame.
    assert list(np.flatnonzero(last)) == list(range(40 - 15, 400 - 15))
    counts = last[25:385]
    assert counts.var() / counts.mean() == pytest.approx(1.0, abs=0.3)  # as Poisson's


def test_a_seed_gives_the_same_balanced_minibatches():
    frames = made(Balance(0.25, sounds(), FRAMES_OF))
    first, again, other = (frames.sample(50, rng_of(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_silence_is_never_more_of_a_minibatch_than_of_the_recordings():
    # 25 of 5,355 snippets are silent: half a snippet of 128, and one is taken.
    frames = made(Balance(0.25, sounds((40, 0, 0)), FRAMES_OF))
    assert frames.n_sounding(128) == 127
    starts = starts_of(frames.sample(128, rng_of()))
    assert starts[-1] < 25 and (starts[:-1] >= 25).all()


@pytest.mark.parametrize("has_sound", [np.zeros(0, bool), sounds((0, 0, 0))])
def test_without_silence_all_snippets_are_sounding(has_sound):
    frames = made(Balance(0.25, has_sound, FRAMES_OF))
    assert frames.n_sounding(128) == 128
    starts = starts_of(frames.sample(20_000, rng_of()))
    bird = np.searchsorted(np.cumsum(FRAMES_OF), starts, side="right")
    expected = (np.array(FRAMES_OF) - 15) ** 0.75
    assert np.bincount(bird) / 20_000 == pytest.approx(expected / expected.sum(), abs=0.015)


def test_a_uniform_minibatch_knows_no_silence_and_no_birds():
    params = MdganParams(minibatch="uniform")
    assert Balance.of(params, sounds(), FRAMES_OF) is None
    frames = made(None)
    assert frames.n_sounding(128) == 128
    starts = starts_of(frames.sample(50, rng_of(3)))
    choice = torch.randint(sum(FRAMES_OF) - 45, (50,), generator=rng_of(3)).numpy()
    bird = np.searchsorted(np.cumsum(np.array(FRAMES_OF) - 15), choice, side="right")
    assert list(starts) == list(choice + 15 * bird)


def test_balanced_is_the_default_and_takes_its_share_from_the_parameters():
    balance = Balance.of(MdganParams(silent_share=0.1), sounds(), FRAMES_OF)
    assert balance.silent_share == 0.1
    assert balance.frames_of == FRAMES_OF
    assert balance.has_sound.sum() == sum(FRAMES_OF) - sum(QUIET)


def test_recordings_without_any_sound_are_refused():
    with pytest.raises(ValueError, match="None of 5355 snippets holds sound.*minibatch=uniform"):
        made(Balance(0.25, sounds(FRAMES_OF), FRAMES_OF))


@pytest.mark.parametrize(
    ("has_sound", "frames_of", "named"),
    [
        (sounds()[1:], FRAMES_OF, "has_sound is of 5399"),
        (sounds(), (4000,), "frames_of is of 4000"),
    ],
)
def test_counts_of_other_frames_are_refused(has_sound, frames_of, named):
    with pytest.raises(ValueError, match=f"{named} frames, and there are 5400"):
        made(Balance(0.25, has_sound, frames_of))
