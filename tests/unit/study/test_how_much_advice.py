"""How much song is enough: the rule on made curves, and what the sentence says."""

import dataclasses
import math

import numpy as np
import pytest

from study.how_much.advice import LEAST_GAIN, Curve, advise, enough_at, sentence, too_little

MINUTES = np.array([0.5, 1.0, 2.0, 4.0, 8.0])
LENGTHS = np.array([100, 300, 200, 400])


def curve(gains, n_subsamples=5, noise=0.0, seed=0, minutes=MINUTES, n_states=None):
    """A curve whose doublings gain ``gains`` nats per snippet, with noise between subsamples."""
    rng = np.random.default_rng(seed)
    minutes = np.tile(minutes, (n_subsamples, 1))
    levels = np.concatenate([[0.0], np.cumsum(gains)])
    per_snippet = levels + noise * rng.standard_normal(minutes.shape)
    states = np.tile(np.full(len(levels), 7) if n_states is None else n_states, (n_subsamples, 1))
    return Curve(("b1", "60"), minutes, per_snippet[:, :, None] * LENGTHS, LENGTHS, states, 2.0)


def test_enough_is_where_a_doubling_begins_to_gain_less_than_the_least():
    advice = advise(curve([0.8, 0.4, 0.05, 0.02]))
    share = (0.4 - LEAST_GAIN) / (0.4 - 0.05)  # of the way from the doubling at 1 to that at 2
    assert advice.minutes == pytest.approx(2**share)
    assert advice.low == pytest.approx(advice.high) == pytest.approx(advice.minutes)
    np.testing.assert_allclose(advice.gains, [0.8, 0.4, 0.05, 0.02])
    np.testing.assert_allclose(advice.gain_errors, 0, atol=1e-12)
    assert advice.largest == 8.0


def test_a_gain_that_rises_again_counts_to_the_last_time():
    assert enough_at(np.arange(4.0), np.array([0.5, 0.0, 0.2, 0.0])) == pytest.approx(2.5)


def test_without_an_end_of_the_gains_it_is_not_known_what_is_enough():
    advice = advise(curve([0.8, 0.6, 0.5, 0.45]))
    assert advice.minutes is None
    assert math.isinf(advice.high)
    text = sentence(advice)
    assert text.startswith(
        "b1 at 60: the 8 minutes of sound that were fitted, 16 minutes recorded, may not be "
        "enough: the last doubling, from 4 minutes, still gained 0.45 +- 0.00 nats per snippet; "
    )


def test_where_no_doubling_gains_anything_the_smallest_amount_is_enough():
    advice = advise(curve([0.05, 0.02, 0.01, 0.0]))
    assert advice.minutes == 0.5
    assert "0.5 minutes of sound or fewer, 1 minute recorded, are enough:" in sentence(advice)


def test_amounts_of_whole_recordings_that_are_not_quite_doublings_give_the_same_gain():
    minutes = np.array([0.5, 1.3, 2.0, 4.4, 8.0])
    doublings = np.diff(np.log2(minutes))
    advice = advise(curve(np.array([0.8, 0.4, 0.2, 0.05]) * doublings, minutes=minutes))
    np.testing.assert_allclose(advice.gains, [0.8, 0.4, 0.2, 0.05])


def test_the_error_of_a_gain_is_that_over_subsamples():
    noisy = curve([0.8, 0.4, 0.2, 0.05], n_subsamples=4, noise=0.1)
    gains = np.diff(noisy.nats.sum(2) / LENGTHS.sum(), axis=1)
    expected = gains.std(0, ddof=1) / math.sqrt(4)
    np.testing.assert_allclose(advise(noisy).gain_errors, expected, rtol=0.06)


def test_the_error_of_a_gain_is_also_that_over_held_out_recordings():
    made = curve([0.8, 0.4, 0.2, 0.05])
    lengths = np.tile(LENGTHS, 10)
    nats = np.tile(made.nats, 10)
    extra = np.tile([2.0, -1.0, 0.5, 0.0], 10)  # the last doubling helps some recordings alone
    nats[:, -1] += extra * lengths
    advice = advise(dataclasses.replace(made, nats=nats, lengths=lengths))
    assert advice.gain_errors[-2] == pytest.approx(0, abs=1e-12)
    # Of a ratio of sums over recordings, by its linear approximation.
    gain = (extra * lengths).sum() / lengths.sum()
    expected = math.sqrt(40 / 39 * (((extra - gain) * lengths) ** 2).sum()) / lengths.sum()
    assert advice.gain_errors[-1] == pytest.approx(expected, rel=0.06)


def test_the_range_of_noisy_curves_holds_the_true_answer_about_as_often_as_it_says():
    gains = [0.8, 0.4, 0.2, 0.05]
    true = advise(curve(gains)).minutes
    advices = [advise(curve(gains, noise=0.05, seed=seed)) for seed in range(60)]
    inside = [one.low <= true <= one.high for one in advices]
    assert 0.5 < np.mean(inside) < 0.9


def test_an_answer_that_a_little_noise_takes_away_is_open_above():
    made = curve([0.8, 0.4, 0.2, 0.0])
    last = np.array([0.5, -0.4, 0.4, -0.5, 0.3])  # gains of the subsamples, 0.06 on average
    made.nats[:, -1] += last[:, None] * LENGTHS
    advice = advise(made)
    assert advice.minutes is not None
    assert math.isinf(advice.high)
    assert "to more than there are)" in sentence(advice)


def test_the_sentence_says_whether_the_states_still_grow():
    grows = sentence(advise(curve([0.8, 0.4, 0.05, 0.0], n_states=[5, 8, 11, 14, 20])))
    assert "the number of states still grows, from 14 to 20 in the last doubling" in grows
    rests = sentence(advise(curve([0.8, 0.4, 0.05, 0.0])))
    assert "the number of states, 7, no longer grows." in rests


@pytest.mark.parametrize(("n", "words"), [(1, "1 recording is"), (2, "2 recordings are")])
def test_no_advice_rests_on_one_or_two_held_out_recordings(n, words):
    made = curve([0.8, 0.4, 0.2, 0.05])
    few = dataclasses.replace(made, nats=made.nats[:, :, :n], lengths=made.lengths[:n])
    assert sentence(advise(few)) == (
        f"b1 at 60: no advice: only {words} held out, 3 are needed to tell a gain from chance."
    )


def test_the_sentence_names_the_minutes_their_range_and_what_is_recorded():
    text = sentence(advise(curve([0.8, 0.4, 0.05, 0.02])))
    assert text.startswith(
        "b1 at 60: 1.8 minutes of sound (one standard error: 1.8 to 1.8), 3.6 minutes recorded, "
        "are enough: from there a doubling gains less than 0.1 nats per snippet (the last one "
        "0.02 +- 0.00); "
    )


def test_one_subsample_or_one_amount_is_refused():
    with pytest.raises(ValueError, match="1 subsamples of 5 amounts"):
        advise(curve([0.8, 0.4, 0.2, 0.05], n_subsamples=1))


def test_a_bird_and_age_without_a_curve_is_named_with_each_reason_once():
    text = too_little(("b1", "60"), ["150 snippets, 200 needed", "", "150 snippets, 200 needed"])
    assert text == "b1 at 60: no advice: 150 snippets, 200 needed."
