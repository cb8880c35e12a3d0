"""Renditions against their types, and samples against the renditions that they are made from."""

from dataclasses import astuple, fields, replace

import numpy as np
import pytest
from numpy.random import default_rng

from data_io.aviary.syllables import (
    DISTANCE_CALL,
    LOUDEST,
    TET,
    SyllableType,
    draw_calls,
    draw_introductory,
    draw_types,
    resembling,
    synthesise,
    vary,
)

RATE = 44_100
STACK = SyllableType(
    duration_s=0.15,
    f0_hz=600.0,
    slope=0.0,
    bend=0.0,
    formant_hz=3000.0,
    formant_width_hz=1500.0,
    noisiness=0.0,
    noisiness_end=0.0,
    level=0.8,
    ramp_s=0.005,
)


def renditions(of: SyllableType, sound: float, timing: float, n: int = 300) -> np.ndarray:
    rng = default_rng(1)
    return np.array([astuple(vary(rng, of, sound, timing)) for _ in range(n)])


def column(name: str) -> int:
    return [field.name for field in fields(SyllableType)].index(name)


def spectrum(samples: np.ndarray, rate: int = RATE) -> tuple[np.ndarray, np.ndarray]:
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 16 * 4096)) ** 2
    return np.fft.rfftfreq(16 * 4096, 1.0 / rate), power


def flatness(samples: np.ndarray) -> float:
    """Geometric over arithmetic mean of the power from 0.5 to 8 kHz: 1 for white noise."""
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    hz = np.fft.rfftfreq(len(samples), 1.0 / RATE)
    band = power[(hz > 500.0) & (hz < 8000.0)]
    return float(np.exp(np.mean(np.log(band))) / np.mean(band))


def test_types_of_one_bird_differ_in_duration_and_in_pitch() -> None:
    for seed in range(20):
        types = list(draw_types(default_rng(seed), "abcdef").values())
        durations = np.sort([kind.duration_s for kind in types])
        assert (durations[1:] / durations[:-1]).min() > 1.1
        assert 0.04 < durations[0] < durations[-1] < 0.2
        low = np.sort([kind.f0_hz for kind in types if kind.f0_hz < 1500.0])
        assert (low[1:] / low[:-1]).min() > 1.05


def test_every_bird_has_noisy_syllables_and_harmonic_ones() -> None:
    for seed in range(20):
        noisiness = [kind.noisiness for kind in draw_types(default_rng(seed), "abcd").values()]
        assert max(noisiness) >= 0.5
        assert min(noisiness) <= 0.2


def test_a_distance_call_is_long_loud_and_sweeps_down_and_a_tet_is_short_low_and_soft() -> None:
    for seed in range(20):
        calls = draw_calls(default_rng(seed))
        distance, tet = calls[DISTANCE_CALL], calls[TET]
        assert distance.slope < -0.25
        assert tet.duration_s < 0.075 < 0.1 <= distance.duration_s
        assert tet.f0_hz < distance.f0_hz
        assert tet.level < distance.level


def test_an_introductory_note_is_short_and_soft() -> None:
    notes = [draw_introductory(default_rng(seed)) for seed in range(20)]
    assert max(note.duration_s for note in notes) < 0.07
    assert {note.level for note in notes} == {0.5}


def test_a_copy_is_two_to_five_percent_off_its_tutors_type() -> None:
    for seed in range(50):
        copy = resembling(default_rng(seed), STACK)
        for name in ("duration_s", "f0_hz", "formant_hz", "level"):
            off = abs(getattr(copy, name) / getattr(STACK, name) - 1.0)
            assert 0.02 <= off <= 0.05, name
        assert copy.slope == STACK.slope


def test_variability_of_sound_moves_pitch_and_that_of_timing_duration() -> None:
    duration, pitch = column("duration_s"), column("f0_hz")

    def spread(sound: float, timing: float, of: int) -> float:
        return float(np.log(renditions(STACK, sound, timing)[:, of]).std())

    for of, alone in ((pitch, lambda v: (v, 0.0)), (duration, lambda v: (0.0, v))):
        assert spread(*alone(0.0), of) < 0.03
        spreads = [spread(*alone(v), of) for v in (0.0, 0.25, 0.5, 0.75, 1.0)]
        assert (np.diff(spreads) > 0.02).all()
        assert spread(*reversed(alone(1.0)), of) < 0.03


def test_a_rendition_of_a_grown_bird_keeps_within_a_few_percent_of_its_type() -> None:
    found = renditions(STACK, 0.03, 0.03)
    for name in ("duration_s", "f0_hz", "formant_hz"):
        off = found[:, column(name)] / getattr(STACK, name) - 1.0
        assert abs(off.mean()) < 0.03
        assert 0.0 < off.std() < 0.06


def test_subsong_tells_nothing_of_the_type() -> None:
    other = replace(STACK, duration_s=0.05, f0_hz=3000.0, noisiness=0.9, noisiness_end=0.9)
    one, two = (np.sort(renditions(kind, 1.0, 1.0), axis=0) for kind in (STACK, other))
    assert np.allclose(one, two)
    # Durations of subsong fall off exponentially: their spread is about their mean.
    durations = one[:, column("duration_s")] - one[:, column("duration_s")].min()
    assert 0.7 < durations.std() / durations.mean() < 1.2


def test_pitch_of_the_samples_is_that_of_the_rendition() -> None:
    for f0_hz in (450.0, 600.0, 1100.0):
        samples = synthesise(default_rng(0), replace(STACK, f0_hz=f0_hz), 0.0, RATE)
        hz, power = spectrum(samples)
        near = (hz > 0.8 * f0_hz) & (hz < 1.2 * f0_hz)
        assert hz[near][power[near].argmax()] == pytest.approx(f0_hz, rel=0.02)
        between = power[(hz > 1.4 * f0_hz) & (hz < 1.6 * f0_hz)].max()
        assert power[near].max() > 100.0 * between, "harmonics do not stand apart"


def test_the_loudest_harmonic_lies_near_the_formant() -> None:
    for formant_hz in (2500.0, 4000.0):
        of = replace(STACK, formant_hz=formant_hz, formant_width_hz=1000.0)
        hz, power = spectrum(synthesise(default_rng(0), of, 0.0, RATE))
        assert hz[power.argmax()] == pytest.approx(formant_hz, abs=800.0)


def test_a_slope_is_the_change_of_log_pitch() -> None:
    falling = replace(STACK, slope=-0.5, f0_hz=700.0)
    samples = synthesise(default_rng(0), falling, 0.0, RATE)
    peaks = []
    for part in (samples[: RATE // 50], samples[-RATE // 50 :]):
        hz, power = spectrum(part)
        near = (hz > 400.0) & (hz < 1000.0)
        peaks.append(hz[near][power[near].argmax()])
    # The parts are 20 ms of 150 ms, so their middles are 130 ms apart.
    assert np.log(peaks[1] / peaks[0]) == pytest.approx(-0.5 * 130 / 150, abs=0.08)


@pytest.mark.parametrize("rate", [16_000, 22_050, 48_000])
def test_no_harmonic_aliases_at_any_rate(rate: int) -> None:
    samples = synthesise(default_rng(0), replace(STACK, f0_hz=2900.0), 0.0, rate)
    hz, power = spectrum(samples, rate)
    highest = min(12_000.0, 0.45 * rate)
    expected = np.zeros(len(hz), bool)
    for k in range(1, int(highest / 2900.0) + 1):
        expected |= np.abs(hz - 2900.0 * k) < 200.0
    # Aliases of the first harmonic above would have at least a thousandth of the power.
    assert power[~expected].max() < 1e-4 * power.max()


def test_samples_last_as_long_and_are_as_loud_as_the_rendition_says() -> None:
    samples = synthesise(default_rng(0), STACK, 0.0, RATE)
    assert len(samples) == round(0.15 * RATE)
    middle = samples[RATE // 50 : -RATE // 50]
    assert middle.std() == pytest.approx(0.8, rel=0.15)
    edge = RATE // 2000
    assert np.abs(samples[[*range(edge), *range(-edge, 0)]]).max() < 0.1 * np.abs(samples).max()


def test_no_sample_is_louder_than_the_loudest() -> None:
    loud = replace(STACK, level=20.0)
    samples = synthesise(default_rng(0), loud, 0.5, RATE)
    assert np.abs(samples).max() == pytest.approx(LOUDEST)


def test_noise_and_young_song_are_flatter_than_a_stack() -> None:
    def median(of: SyllableType, sound: float) -> float:
        rng = default_rng(2)
        made = [synthesise(rng, vary(rng, of, sound, 0.0), sound, RATE) for _ in range(30)]
        return float(np.median([flatness(samples) for samples in made]))

    stack = median(STACK, 0.03)
    assert median(replace(STACK, noisiness=0.8, noisiness_end=0.8), 0.03) > 4.0 * stack
    assert median(STACK, 1.0) > 2.0 * stack


def test_a_syllable_may_turn_from_stack_to_noise() -> None:
    turning = replace(STACK, noisiness_end=0.9)
    samples = synthesise(default_rng(0), turning, 0.0, RATE)
    third = len(samples) // 3
    assert flatness(samples[-third:]) > 3.0 * flatness(samples[:third])
