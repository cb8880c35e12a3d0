"""What cannot be simulated is refused; curves of variability fall as the formula says."""

import math

import numpy as np
import pytest

from data_io.aviary.params import AviaryParams, Curve


def test_a_curve_falls_from_young_to_adult_and_is_half_way_at_its_middle():
    curve = Curve(60.0, 8.0, adult=0.1, young=0.9)
    ages = np.arange(1, 200)
    values = np.array([curve.at(dph) for dph in ages])
    np.testing.assert_allclose(values, 0.1 + 0.8 / (1.0 + np.exp((ages - 60.0) / 8.0)), rtol=1e-12)
    assert (np.diff(values) < 0.0).all()
    assert curve.at(60.0) == pytest.approx(0.5)


def test_a_curve_holds_at_any_age():
    curve = Curve(60.0, 0.1, adult=0.1)
    assert (curve.at(1), curve.at(3650)) == (1.0, 0.1)


def test_default_curves_are_apart_from_each_other():
    params = AviaryParams()
    curves = (params.sound, params.timing, params.order)
    for dph in params.ages_dph:
        sound, timing, order = (curve.at(dph) for curve in curves)
        assert sound < timing < order


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"adult": 1.1}, "adult is 1.1: .*from 0 to 1"),
        ({"adult": 0.5, "young": 0.4}, "young is 0.4: variability never rises.*from 0.5 to 1"),
        ({"width_days": 0.0}, "width_days is 0.0: .*from 0.1"),
        ({"middle_dph": math.nan}, "middle_dph is nan: "),
    ],
)
def test_no_curve_rises_or_leaves_its_range(values, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        Curve(**{"middle_dph": 60.0, "width_days": 8.0, "adult": 0.1} | values)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("n_birds", 0, "0"),
        ("n_birds", 1001, "1001"),
        ("ages_dph", (), r"\(\)"),
        ("ages_dph", (45, 0), "0"),
        ("ages_dph", (45, 60, 45), r"\(45, 60, 45\)"),
        ("ages_dph", (3286,), "3286"),  # its tutor would be older than 3650 days
        ("minutes", 0.99, "0.99"),
        ("minutes", math.inf, "inf"),
        ("minutes", math.nan, "nan"),
        ("recording_s", (0.5, 4.0), r"\(0.5, 4.0\)"),
        ("recording_s", (5.0, 4.0), r"\(5.0, 4.0\)"),
        ("sample_rates_hz", (), r"\(\)"),
        ("sample_rates_hz", (44_100, 8_000), "8000"),
        ("n_syllables", (3, 5), r"\(3, 5\)"),
        ("n_syllables", (4, 8), r"\(4, 8\)"),
        ("silence_share", (0.4, 1.0), r"\(0.4, 1.0\)"),
        ("silence_share", (0.4,), r"\(0.4,\)"),
        ("noise_db", 3.0, "3.0"),
        ("hum_hz", 1000.0, "1000.0"),
        ("hum_db", 60.0, "60.0"),
        ("cage_noises_per_minute", -1.0, "-1.0"),
        ("calls_share", 0.9, "0.9"),
        ("introductory_notes", 0.0, "0.0"),
        ("gain_db", (-10.0, 6.0), r"\(-10.0, 6.0\)"),
        ("gain_day_sd_db", -1.0, "-1.0"),
        ("gain_step_db", 99.0, "99.0"),
        ("noise_step_db", 99.0, "99.0"),
        ("copied_share", 1.5, "1.5"),
        ("repeats", (1, 4), r"\(1, 4\)"),
        ("branching", 0.7, "0.7"),
        ("morning_lag_days", -3.0, "-3.0"),
        ("untutored_adult", 2.0, "2.0"),
    ],
)
def test_params_out_of_range_are_refused(name, value, shown):
    with pytest.raises(ValueError, match=rf"^{name} is {shown}: .*; (choose|give) "):
        AviaryParams(**{name: value})


def test_a_short_day_is_possible_with_short_recordings():
    words = "one may be 20 s long; give at least 1 minutes or shorter recording_s"
    with pytest.raises(ValueError, match=words):
        AviaryParams(minutes=0.1)
    assert AviaryParams(minutes=0.1, recording_s=(1.0, 2.0)).minutes == 0.1
