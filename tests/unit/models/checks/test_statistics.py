"""What is compared, beside values that are known without the code."""

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import wasserstein_distance

from models.checks.compare import apart
from models.checks.statistics import autocorrelation, order_information, quantiles, run_lengths


def chain(n, k, rng):
    """States of a chain of first order, whose transitions are drawn."""
    rows = rng.dirichlet(np.full(k, 0.3), k).cumsum(1)
    states = [0]
    for u in rng.random(n - 1):
        states.append(min(int(np.searchsorted(rows[states[-1]], u)), k - 1))
    return np.array(states)


def test_the_distance_of_quantiles_is_the_wasserstein_distance():
    rng = np.random.default_rng(0)
    one, other = rng.gamma(2.0, 40.0, 700), rng.gamma(3.0, 30.0, 300)
    found = apart(quantiles([one[:500], one[500:]]), quantiles([other]))
    assert found == pytest.approx(wasserstein_distance(one, other), rel=0.01)


def test_fewer_than_twenty_values_have_no_quantiles():
    assert np.isnan(quantiles([np.ones(10), np.ones(9)])).all()
    assert (quantiles([np.ones(10), np.ones(10)]) == 1).all()
    assert np.isnan(quantiles([])).all()


def test_run_lengths_count_how_long_each_state_lasts():
    assert run_lengths(np.array([3, 3, 1, 1, 1, 3])).tolist() == [2.0, 3.0, 1.0]
    assert run_lengths(np.array([], int)).tolist() == []


def test_what_only_the_state_before_the_last_tells_is_a_bit():
    rng = np.random.default_rng(0)
    states = list(rng.integers(0, 2, 2))
    for _ in range(5000):  # next = last xor the one before: each state alone tells nothing
        states.append(states[-1] ^ states[-2])
        if rng.random() < 0.2:
            states[-1] = int(rng.integers(2))
    noise = 0.9 * np.log2(0.9) + 0.1 * np.log2(0.1) + 1  # a bit less the entropy of a tenth
    assert order_information([np.array(states)]) == pytest.approx(noise, abs=0.04)


def test_a_chain_of_first_order_has_none_however_many_states_were_counted_once():
    rng = np.random.default_rng(0)
    found = [order_information(np.split(chain(2000, 30, rng), 2)) for _ in range(10)]
    assert np.mean(found) == pytest.approx(0.0, abs=0.01)
    assert np.std(found) < 0.03


def test_songs_do_not_run_on_into_one_another():
    halves = [np.array([0, 1, 2, 3, 4])] * 30
    assert order_information(halves) == pytest.approx(0.0, abs=1e-12)
    assert np.isnan(order_information([np.array([0, 1])] * 100))


def test_the_autocorrelation_of_an_autoregressive_series_falls_by_its_coefficient():
    rng = np.random.default_rng(0)
    songs = [5 + lfilter([1.0], [1.0, -0.8], rng.standard_normal(2000)) for _ in range(20)]
    np.testing.assert_allclose(autocorrelation(songs, (1, 3)), (0.8, 0.8**3), atol=0.02)
    assert np.isnan(autocorrelation([np.arange(5.0)], (1, 7))).all()
