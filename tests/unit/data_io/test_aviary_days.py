"""The timetable of a day against the clock, and its names against the reader of names."""

import datetime
import re
from dataclasses import replace

import numpy as np
import pytest
from numpy.random import default_rng

from data_io.aviary.birds import hatch
from data_io.aviary.days import Slot, sap_name, timetable
from data_io.aviary.params import AviaryParams
from data_io.names.file_names import bird_in, recorded_at

PARAMS = AviaryParams(minutes=5.0)
BIRD = hatch(PARAMS, 1, "sim1")
RATE = BIRD.sample_rate_hz


def slots(params: AviaryParams = PARAMS, seed: int = 0) -> list[Slot]:
    return timetable(default_rng(seed), params, BIRD, 45)


@pytest.mark.parametrize("minutes", [1.0, 1.1, 5.0, 60.0, 600.0])
def test_recordings_last_the_minutes_exactly_and_each_keeps_within_its_range(
    minutes: float,
) -> None:
    for seed in range(5):
        lengths = np.array([s.n_samples for s in slots(replace(PARAMS, minutes=minutes), seed)])
        assert lengths.sum() == round(minutes * 60 * RATE)
        assert lengths.min() >= 2 * RATE
        assert lengths.max() <= 20 * RATE


def test_a_day_holds_short_and_long_recordings() -> None:
    lengths = np.array([slot.n_samples for slot in slots(replace(PARAMS, minutes=30.0))]) / RATE
    assert np.percentile(lengths, 10) < 4.0
    assert np.percentile(lengths, 90) > 10.0


def test_equal_lengths_are_possible() -> None:
    params = replace(PARAMS, minutes=1.0, recording_s=(5.0, 5.0))
    assert [slot.n_samples for slot in slots(params)] == [5 * RATE] * 12


def test_recordings_follow_each_other_in_the_hours_of_light() -> None:
    for params in (PARAMS, replace(PARAMS, minutes=600.0)):
        found = slots(params)
        starts = [slot.recorded_at for slot in found]
        ends = [
            slot.recorded_at + datetime.timedelta(seconds=slot.n_samples / RATE) for slot in found
        ]
        assert all(end < start for end, start in zip(ends[:-1], starts[1:], strict=True))
        assert starts[0].time() >= datetime.time(7)
        assert ends[-1].time() <= datetime.time(19)
        assert {start.date() for start in starts} == {BIRD.recorded_on(45)}


def test_recordings_come_in_clusters_over_the_whole_day() -> None:
    found = slots(replace(PARAMS, minutes=10.0))
    pauses_s = np.array(
        [
            (b.recorded_at - a.recorded_at).total_seconds() - a.n_samples / RATE
            for a, b in zip(found[:-1], found[1:], strict=True)
        ]
    )
    assert np.median(pauses_s) < 0.2 * pauses_s.mean()
    parts = [slot.part_of_day for slot in found]
    assert parts[0] < 0.2
    assert parts[-1] > 0.8


def test_part_of_day_goes_from_lights_on_to_lights_off() -> None:
    for slot in slots():
        at = slot.recorded_at
        hours = at.hour + at.minute / 60 + (at.second + at.microsecond / 1e6) / 3600
        assert slot.part_of_day == pytest.approx((hours - 7.0) / 12.0, abs=1e-9)


def test_names_are_those_of_sound_analysis_pro_and_none_is_there_twice() -> None:
    found = slots(replace(PARAMS, minutes=60.0))
    names = [slot.path.rpartition("/")[2] for slot in found]
    assert len(set(names)) == len(names)
    for slot, name in zip(found, names, strict=True):
        assert slot.path == f"sim1/45/songs/{name}"
        assert re.fullmatch(r"sim1_\d{5}\.\d{8}_\d{1,2}_\d{1,2}_\d{1,2}_\d{1,2}_\d{1,2}\.wav", name)
        assert recorded_at(name) == slot.recorded_at
        assert bird_in(name) == "sim1"


def test_a_known_name_comes_out() -> None:
    at = datetime.datetime(2018, 9, 19, 6, 28, 42, 48_000)
    assert sap_name("G402", at) == "G402_43362.23322048_9_19_6_28_42.wav"


def test_more_minutes_than_light_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^minutes is 661.*12 hours of light; .* to 660"):
        slots(replace(PARAMS, minutes=661.0))
