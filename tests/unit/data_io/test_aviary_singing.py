"""The sounds of a recording against what was asked for."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from numpy.random import default_rng

from data_io.aviary.birds import Bird, hatch
from data_io.aviary.cage import CLICK, THUMP, WING_FLAPS, cage_noise
from data_io.aviary.params import AviaryParams
from data_io.aviary.singing import Sound, sing
from data_io.aviary.syllables import INTRODUCTORY, LOUDEST

PARAMS = AviaryParams(n_birds=5, minutes=10.0)
SECONDS = 8.0


def recordings(
    bird: Bird, dph: int, n: int, params: AviaryParams = PARAMS, seconds: float = SECONDS
) -> list[list[Sound]]:
    n_samples = round(seconds * bird.sample_rate_hz)
    chain, variability = bird.chain(dph), bird.variability(dph)
    return [
        sing(default_rng([dph, i]), params, bird, chain, variability, n_samples) for i in range(n)
    ]


def times(sounds: list[Sound]) -> np.ndarray:
    return np.array([[s.onset, s.onset + len(s.samples)] for s in sounds])


def share_silent(found: list[list[Sound]], n_samples: int) -> float:
    sounding = sum(len(s.samples) for sounds in found for s in sounds)
    return 1.0 - sounding / (len(found) * n_samples)


@pytest.mark.parametrize(("name", "dph"), [("sim1", 45), ("sim1", 90), ("sim4", 60)])
def test_sounds_lie_apart_from_each_other_and_inside(name: str, dph: int) -> None:
    bird = hatch(PARAMS, 1, name)
    for seconds in (1.0, 2.0, 20.0):
        for sounds in recordings(bird, dph, 10, seconds=seconds):
            edges = times(sounds).ravel()
            assert edges[0] > 0
            assert (np.diff(edges) > 0).all()
            assert edges[-1] < seconds * bird.sample_rate_hz


@pytest.mark.parametrize("wanted", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("dph", [45, 90])
def test_silence_has_its_share_at_every_age(wanted: float, dph: int) -> None:
    bird = replace(hatch(PARAMS, 1, "sim1"), silence_share=wanted)
    found = recordings(bird, dph, 15)
    # Half a sound is 1 % of a recording; the mean over 15 is nearer.
    assert share_silent(found, round(SECONDS * bird.sample_rate_hz)) == pytest.approx(
        wanted, abs=0.01
    )


def test_calls_have_their_share_of_the_birds_own_sounds() -> None:
    bird = hatch(PARAMS, 2, "sim2")
    for share in (0.0, 0.1, 0.4):
        found = recordings(bird, 455, 20, replace(PARAMS, calls_share=share))
        kinds = [s.kind for sounds in found for s in sounds if s.kind != "cage_noise"]
        n, calls = len(kinds), kinds.count("call")
        assert abs(calls - share * n) <= 4.0 * np.sqrt(share * (1.0 - share) * n), share


def test_calls_and_noises_lie_between_bouts_and_bouts_are_whole() -> None:
    bird = hatch(PARAMS, 2, "sim1")
    for sounds in recordings(bird, 90, 20, seconds=20.0):
        bouts = [s.bout for s in sounds]
        assert all((s.bout == -1) == (s.kind in ("call", "cage_noise")) for s in sounds)
        sung = [bout for bout in bouts if bout >= 0]
        assert sung == sorted(sung)
        for bout in set(sung):
            first, last = bouts.index(bout), len(bouts) - bouts[::-1].index(bout)
            assert set(bouts[first:last]) == {bout}, "something lies within a bout"


def test_a_bout_begins_with_introductory_notes_of_the_mean_number() -> None:
    bird = hatch(PARAMS, 2, "sim1")
    for mean in (1.0, 2.5):
        numbers = []
        for sounds in recordings(bird, 90, 25, replace(PARAMS, introductory_notes=mean)):
            by_bout = defaultdict(list)
            for s in sounds:
                by_bout[s.bout].append(s.label)
            for bout, labels in by_bout.items():
                song = "".join(label[0] for label in labels)
                if bout >= 0 and song.strip(INTRODUCTORY):
                    n = len(song) - len(song.lstrip(INTRODUCTORY))
                    assert INTRODUCTORY not in song[n:]
                    numbers.append(n)
        assert min(numbers) == 1
        assert np.mean(numbers) == pytest.approx(mean, abs=4 * np.sqrt(mean / len(numbers)))


def test_syllables_follow_the_chain_of_the_day() -> None:
    # Counted from recordings that end anywhere: no syllable may be favoured at the end.
    bird = hatch(PARAMS, 1, "sim1")
    chain = bird.chain(60)
    n = len(chain.labels)
    counts = np.zeros((n, n))
    for sounds in recordings(bird, 60, 250, seconds=3.0):
        for a, b in zip(sounds[:-1], sounds[1:], strict=True):
            if a.kind == b.kind == "syllable" and a.bout == b.bout:
                counts[chain.labels.index(a.label), chain.labels.index(b.label)] += 1
    found = counts / counts.sum(axis=1, keepdims=True)
    wanted = chain.transition_matrix()
    error = np.sqrt(wanted * (1.0 - wanted) / counts.sum(axis=1, keepdims=True))
    z = (found - wanted) / error
    assert np.abs(z).max() < 4.0
    assert np.sqrt((z**2).mean()) < 1.3


def test_gaps_are_longer_and_more_variable_in_the_young() -> None:
    bird = replace(hatch(PARAMS, 1, "sim1"), silence_share=0.6)

    def gaps(dph: int) -> np.ndarray:
        return np.array(
            [
                b.onset - a.onset - len(a.samples)
                for sounds in recordings(bird, dph, 12)
                for a, b in zip(sounds[:-1], sounds[1:], strict=True)
                if a.kind == b.kind == "syllable" and a.bout == b.bout
            ]
        )

    young, old = gaps(40), gaps(120)
    assert young.mean() > 1.3 * old.mean()
    assert young.std() > 1.5 * old.std()


def duration_variation(bird: Bird, dph: int) -> float:
    durations = defaultdict(list)
    for sounds in recordings(bird, dph, 6):
        for s in sounds:
            if s.kind == "syllable":
                durations[s.label].append(len(s.samples))
    return float(np.mean([np.std(d) / np.mean(d) for d in durations.values()]))


def test_durations_settle_with_age() -> None:
    bird = hatch(PARAMS, 1, "sim1")
    assert duration_variation(bird, 45) > 0.4
    assert 0.0 < duration_variation(bird, 120) < 0.1


def test_noises_of_the_cage_come_as_often_as_asked_for() -> None:
    bird = hatch(PARAMS, 1, "sim1")
    for per_minute in (0.0, 10.0):
        params = replace(PARAMS, cage_noises_per_minute=per_minute)
        found = recordings(bird, 90, 50, params)
        n = sum(s.kind == "cage_noise" for sounds in found for s in sounds)
        expected = per_minute * 50 * SECONDS / 60.0
        assert abs(n - expected) <= 4.0 * np.sqrt(expected)


def test_noises_of_the_cage_are_short_and_hold_all_frequencies() -> None:
    rng = default_rng(0)
    shortest_and_longest_s = {CLICK: (0.003, 0.016), THUMP: (0.05, 0.16), WING_FLAPS: (0.09, 0.55)}
    edges = (500.0, 1000.0, 2000.0, 4000.0, 6000.0, 8000.0)
    bands = {label: np.zeros(5) for label in shortest_and_longest_s}
    for _ in range(200):
        label, samples = cage_noise(rng, 44_100)
        low, high = shortest_and_longest_s[label]
        assert low < len(samples) / 44_100 < high
        assert np.abs(samples).max() <= LOUDEST + 1e-9
        power = np.abs(np.fft.rfft(samples)) ** 2
        hz = np.fft.rfftfreq(len(samples), 1.0 / 44_100)
        bands[label] += [
            power[(hz >= low_hz) & (hz < high_hz)].mean() / len(samples)
            for low_hz, high_hz in zip(edges[:-1], edges[1:], strict=True)
        ]
    # The spectra of flaps and thumps fall; that of clicks hardly does.
    for label, least in ((CLICK, 0.3), (WING_FLAPS, 0.05), (THUMP, 1e-3)):
        assert bands[label].min() > least * bands[label].max(), label


def test_a_short_recording_holds_song_and_some_silence() -> None:
    for name in ("sim1", "sim4"):
        bird = replace(hatch(PARAMS, 1, name), silence_share=0.2)
        for sounds in recordings(bird, 40, 40, seconds=1.0):
            assert any(s.kind != "cage_noise" for s in sounds)
            assert share_silent([sounds], bird.sample_rate_hz) > 0.02
