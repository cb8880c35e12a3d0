"""Verdicts on real songs beside replicas, where the truth is known."""

import numpy as np
import pytest

from models.checks.compare import LEVEL, N_CHECKS, Statistic, compare, outside_above
from models.checks.statistics import quantiles

LENGTHS = Statistic("lengths", "ms", quantiles, "lengths")


def songs(rng, shift=0.0, n_songs=20, n=50, of_songs=0.0):
    """Values of songs; each song has a shift of its own of standard deviation ``of_songs``."""
    return [shift + of_songs * rng.standard_normal() + rng.standard_normal(n)
            for _ in range(n_songs)]  # fmt: skip


def compared(seed, **of_real):
    rng = np.random.default_rng(seed)
    real = songs(rng, **of_real)
    return compare(LENGTHS, real, [songs(rng) for _ in range(10)], seed)


def test_songs_of_the_model_itself_are_not_called_unlike_the_bird():
    verdicts = [compared(seed).verdict for seed in range(60)]
    assert "unlike the bird" not in verdicts
    assert verdicts.count("like the bird") >= 57


def test_songs_half_a_deviation_away_are_unlike_the_bird_by_that_distance():
    check = compared(0, shift=0.5)
    assert check.verdict == "unlike the bird"
    assert check.distance == pytest.approx(0.5, abs=0.08)
    assert check.real - check.replicas == pytest.approx(0.5, abs=0.08)
    assert check.spread_low <= check.replicas <= check.spread_high < check.real
    assert check.distance > check.outside_above > 0
    assert check.distance > check.halves > 0


def test_songs_outside_the_spread_are_mostly_close_where_their_halves_differ_as_much():
    verdicts = [compared(seed, of_songs=1.0, n_songs=6).verdict for seed in range(20)]
    assert verdicts.count("close") > 2 * verdicts.count("unlike the bird") > 0


def test_the_decoders_share_of_a_distance_is_told():
    rng = np.random.default_rng(0)
    real, decoded = songs(rng), songs(rng, shift=0.5)
    replicas = [songs(rng, shift=0.5) for _ in range(10)]
    check = compare(LENGTHS, real, replicas, 0, decoded)
    assert check.decoder == pytest.approx(0.5, abs=0.08)
    assert check.beyond_decoder == pytest.approx(0.0, abs=0.08)
    assert check.distance == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize(
    ("n_songs", "n", "words"), [(3, 50, "3 songs"), (4, 9, "half of the real songs")]
)
def test_of_too_little_song_nothing_is_told(n_songs, n, words):
    check = compared(0, n_songs=n_songs, n=n)
    assert check.verdict == "cannot tell"
    assert words in check.reason


def test_replicas_without_what_the_bird_has_are_unlike_it_and_one_such_replica_tells_nothing():
    rng = np.random.default_rng(0)
    real = songs(rng)
    empty = [np.zeros(0)] * 20
    none = compare(LENGTHS, real, [empty] * 10, 0)
    assert none.verdict == "unlike the bird"
    assert "10 of 10 replicas" in none.reason
    one = compare(LENGTHS, real, [empty, *(songs(rng) for _ in range(9))], 0)
    assert one.verdict == "cannot tell"
    assert "1 of 10 replicas" in one.reason


def test_a_further_replica_passes_the_bound_as_seldom_as_is_said():
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((40_000, 10))
    passed = [further > outside_above(known) for known, further
              in zip(draws, rng.standard_normal(40_000), strict=True)]  # fmt: skip
    assert np.mean(passed) == pytest.approx(LEVEL / N_CHECKS, abs=6e-4)  # 3 standard errors
