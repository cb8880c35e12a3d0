"""Variability over age and over the day, for each role."""

import numpy as np
import pytest

from data_io.aviary.development import Variability, development_of
from data_io.aviary.params import AviaryParams, Curve

AGES = range(20, 200)
PARAMS = AviaryParams(morning_lag_days=4.0)


def over_ages(role, part_of_day=1.0, params=PARAMS):
    development = development_of(role, params)
    found = [development.variability(dph, part_of_day) for dph in AGES]
    return np.array([[v.sound, v.timing, v.order] for v in found])


def test_a_pupils_three_curves_fall_each_on_its_own():
    values = over_ages("pupil")
    assert (np.diff(values, axis=0) < 0.0).all()
    middles = [AGES[int(np.argmin(np.abs(column - 0.5)))] for column in values.T]
    assert middles == [58, 64, 70]
    one_moved = AviaryParams(morning_lag_days=4.0, timing=Curve(90.0, 7.0, adult=0.2))
    changed = (over_ages("pupil", params=one_moved) != values).any(axis=0)
    assert changed.tolist() == [False, True, False]


def test_song_at_lights_on_is_that_of_days_before_but_for_its_order():
    development = development_of("pupil", PARAMS)
    morning, noon, evening = (development.variability(62, part) for part in (0.0, 0.5, 1.0))
    four_days_before, two_days_before = (development.variability(dph) for dph in (58, 60))
    assert (morning.sound, morning.timing) == (four_days_before.sound, four_days_before.timing)
    assert (noon.sound, noon.timing) == (two_days_before.sound, two_days_before.timing)
    assert morning.order == noon.order == evening.order != four_days_before.order
    assert [development.effective_dph(62, part) for part in (0.0, 0.25, 1.0)] == [58.0, 59.0, 62.0]


@pytest.mark.parametrize("role", ["tutor", "unchanging"])
def test_grown_birds_are_the_same_at_every_age_and_hour(role):
    for part_of_day in (0.0, 1.0):
        values = over_ages(role, part_of_day)
        np.testing.assert_allclose(values, [[0.03, 0.03, 0.02]] * len(AGES), rtol=1e-12)


def test_an_untutored_bird_starts_like_a_pupil_and_stays_variable():
    untutored, pupil = over_ages("untutored"), over_ages("pupil")
    assert (untutored >= 0.5).all()
    assert (untutored >= pupil).all()
    np.testing.assert_allclose(untutored[0], pupil[0], atol=0.01)
    np.testing.assert_allclose(untutored[-1], 0.5, atol=0.001)


def test_an_untutored_bird_is_possible_where_pupils_begin_below_what_it_keeps():
    params = AviaryParams(order=Curve(70.0, 7.0, adult=0.02, young=0.3))
    assert (over_ages("untutored", params=params)[:, 2] == 0.5).all()


def test_maturity_is_what_variability_leaves():
    assert Variability(0.1, 0.2, 0.6).maturity == pytest.approx(0.7)


def test_a_part_of_the_day_outside_of_it_is_refused():
    with pytest.raises(ValueError, match=r"part_of_day is 1.5: .*choose a value from 0 to 1"):
        development_of("pupil", PARAMS).variability(60, 1.5)
