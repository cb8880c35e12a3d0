"""The roster, who learns what from whom, and what a bird must not depend on."""

import datetime
from dataclasses import replace

import numpy as np
import pytest

from data_io.aviary.birds import bird_names, birds_and_ages, hatch, tutor_of
from data_io.aviary.params import AviaryParams, Curve
from data_io.aviary.syntax import pair_divergence

AGES = (35, 45, 60, 75, 90, 120)
PARAMS = AviaryParams(n_birds=15, ages_dph=AGES)
SEEDS = range(8)
CALLS_AND_NOTES = {"i", "distance", "tet"}


def birds(seed, params=PARAMS):
    return [hatch(params, seed, name) for name in bird_names(params.n_birds)]


def pupils():
    return [bird for seed in SEEDS for bird in birds(seed) if bird.role == "pupil"]


def constant(bird):
    """The bird with all its syllables at every age."""
    return replace(bird, added=None, dropped=None)


def same_chain(a, b):
    return a.labels == b.labels and np.array_equal(a.probs, b.probs) and a.start == b.start


def test_every_five_birds_hold_the_roles():
    found = birds(1)
    assert [bird.name for bird in found] == [f"sim{i}" for i in range(1, 16)]
    assert [bird.role for bird in found] == [
        "pupil", "tutor", "untutored", "unchanging", "pupil",
    ] * 3  # fmt: skip
    tutors = ["sim2", "", "", "", "sim2", "sim7", "", "", "", "sim7", "sim12", "", "", "", "sim12"]
    assert [bird.tutor for bird in found] == tutors
    assert [bird.syntax for bird in found if bird.role == "pupil"] == [
        "first_order", "second_order", "repeats", "first_order", "second_order", "repeats",
    ]  # fmt: skip
    others = [bird.syntax for bird in found if bird.role != "pupil"]
    assert others == ["first_order", "first_order", "repeats"] * 3
    assert [bird.sample_rate_hz for bird in found[:5]] == [44_100, 32_000, 22_050, 48_000, 44_100]


def test_a_bird_depends_on_no_other_bird_and_not_on_the_order_of_ages():
    fewer = AviaryParams(n_birds=5, ages_dph=AGES[::-1])
    for few, many in zip(birds(3, fewer), birds(3)[:5], strict=True):
        assert few == many
        assert all(same_chain(few.chain(dph), many.chain(dph)) for dph in AGES)
    # The tutor need not be recorded.
    alone = hatch(AviaryParams(n_birds=1, ages_dph=AGES), 3, "sim1")
    assert alone == birds(3)[0]
    assert tutor_of(AviaryParams(n_birds=1, ages_dph=AGES), 3, alone) == birds(3)[1]
    assert tutor_of(PARAMS, 3, birds(3)[2]) is None


def test_other_ages_change_no_sound_of_a_bird():
    for one, other in zip(birds(3), birds(3, replace(PARAMS, ages_dph=(50, 51))), strict=True):
        assert other.types == {label: one.types[label] for label in other.types}
        assert (one.gain_db, one.silence_share) == (other.gain_db, other.silence_share)


def test_birds_and_seeds_differ():
    found = [bird for seed in (0, 1) for bird in birds(seed)]
    introductory = {bird.types["i"] for bird in found}
    assert len(introductory) == len({bird.gain_db for bird in found}) == 30
    assert {len(bird.motif) for seed in SEEDS for bird in birds(seed) if bird.role == "tutor"} == {
        4, 5, 6, 7,
    }  # fmt: skip
    assert all(-20.0 <= bird.gain_db <= 0.0 for bird in found)
    assert all(0.4 <= bird.silence_share <= 0.6 for bird in found)


def test_a_pupil_copies_the_stated_share_in_the_tutors_order():
    for share in (0.0, 0.5, 0.75, 1.0):
        params = replace(PARAMS, copied_share=share)
        for seed in SEEDS:
            _, tutor, *_ = found = birds(seed, params)
            for pupil in (found[0], found[4]):
                n_types = len(tutor.motif)
                assert len(pupil.copied) == round(share * n_types)
                places = [tutor.motif.index(label) for label in pupil.copied]
                assert (np.diff(places) % n_types == 1).all()
                assert len(pupil.own) == max(n_types - len(pupil.copied), 1) + 1
                assert not set(pupil.own) & set(tutor.motif)
            assert not set(found[0].own) & set(found[4].own)


def test_a_copied_syllable_sounds_nearly_as_the_tutors():
    for seed in SEEDS:
        for pupil in (bird for bird in birds(seed) if bird.role == "pupil"):
            tutor = tutor_of(PARAMS, seed, pupil)
            for label in pupil.copied:
                ratio = pupil.types[label].f0_hz / tutor.types[label].f0_hz
                assert 0.0 < abs(ratio - 1.0) < 0.06
                assert pupil.gaps_s[label] == pytest.approx(tutor.gaps_s[label], rel=0.051)
            assert set(pupil.types) == {*CALLS_AND_NOTES, *pupil.motif}
            assert set(pupil.gaps_s) == {"i", *pupil.motif}


def test_a_pupil_adds_a_syllable_on_one_age_and_drops_another_on_a_later_one():
    for pupil in pupils():
        (added, added_dph), (dropped, dropped_dph) = pupil.added, pupil.dropped
        assert (added_dph, dropped_dph) == (60, 90)
        assert {added, dropped} <= set(pupil.own)
        for dph in AGES:
            sung = set(pupil.repertoire(dph))
            assert (added in sung) == (dph >= 60)
            assert (dropped in sung) == (dph < 90)
            assert set(pupil.copied) <= sung
            assert pupil.chain(dph).labels == pupil.repertoire(dph)


def test_with_few_ages_a_pupil_adds_and_drops_less():
    one, two, three = (
        hatch(replace(PARAMS, ages_dph=ages), 1, "sim1") for ages in ((45,), (45, 60), (75, 45, 60))
    )
    assert (one.added, one.dropped) == (None, None)
    assert one.repertoire(45) == three.repertoire(45)
    assert (two.added[1], two.dropped) == (60, None)
    assert (three.added[1], three.dropped[1]) == (60, 75)


def test_others_sing_the_same_syllables_at_every_age():
    for bird in birds(2):
        if bird.role != "pupil":
            assert bird.added is bird.dropped is None
            assert all(bird.repertoire(dph) == bird.motif for dph in AGES)
            assert (bird.copied, bird.own) == ((), bird.motif)


@pytest.mark.parametrize("place", [1, 3])
def test_tutor_and_unchanging_bird_have_one_chain_at_all_ages(place):
    for seed in SEEDS:
        bird = birds(seed)[place]
        assert all(same_chain(bird.chain(dph), bird.chain(400)) for dph in AGES)
        assert bird.chain(400).entropy_rate() < 0.7


def test_entropy_rate_of_a_pupil_falls_with_age_and_predictive_information_rises():
    for pupil in pupils():
        chains = [constant(pupil).chain(dph) for dph in AGES]
        assert (np.diff([chain.entropy_rate() for chain in chains]) < 0.0).all()
        assert (np.diff([chain.predictive_information() for chain in chains]) > 0.0).all()
        as_it_is = [pupil.chain(dph).entropy_rate() for dph in AGES]
        assert as_it_is[-1] < 0.5 * as_it_is[0]


def test_an_untutored_bird_stays_less_ordered_than_pupils():
    for seed in SEEDS:
        pupil, _, untutored, *_ = birds(seed)
        shares = [
            bird.chain(120).entropy_rate() / np.log2(len(bird.repertoire(120)))
            for bird in (pupil, untutored)
        ]
        assert shares[0] < 0.35 < 0.65 < shares[1]


def test_a_pupils_divergence_to_its_tutor_falls_with_age():
    for seed in SEEDS:
        for pupil in (bird for bird in birds(seed) if bird.role == "pupil"):
            tutor = tutor_of(PARAMS, seed, pupil).chain(400)
            steady = [pair_divergence(constant(pupil).chain(dph), tutor) for dph in AGES]
            sung = [pair_divergence(pupil.chain(dph), tutor) for dph in AGES]
            # Syllables and an order that the tutor has not keep pupils apart from it for ever; one
            # that repeats a syllable comes hardly nearer.
            assert (np.diff(steady[:4]) < 0.0).all()
            assert sung[-1] < sung[0]
            if pupil.syntax == "first_order":
                assert sung[-1] < sung[0] - 0.1


def test_more_copying_brings_a_pupil_nearer_to_its_tutor():
    for seed in SEEDS:
        divergences = []
        for share in (0.25, 0.75, 1.0):
            params = replace(PARAMS, copied_share=share)
            pupil, tutor, *_ = birds(seed, params)
            divergences.append(pair_divergence(pupil.chain(120), tutor.chain(485)))
        assert (np.diff(divergences) < 0.0).all()


def test_second_order_birds_sing_beyond_a_first_order_model_when_grown():
    for seed in SEEDS:
        grown = [bird.chain(120).beyond_first_order() for bird in birds(seed)]
        second_order = [
            grown[i] for i, bird in enumerate(birds(seed)) if bird.syntax == "second_order"
        ]
        assert len(second_order) == 2
        assert min(second_order) >= 0.3
        assert max(grown[i] for i in (0, 1, 2)) < 1e-9


def test_all_of_a_five_are_recorded_on_the_same_days_and_the_tutor_is_a_year_older():
    pairs = birds_and_ages(replace(PARAMS, n_birds=7, ages_dph=(60, 45)))
    assert pairs[:4] == [("sim1", 45), ("sim1", 60), ("sim2", 410), ("sim2", 425)]
    assert pairs[-2:] == [("sim7", 410), ("sim7", 425)]
    found = {bird.name: bird for bird in birds(1)}
    dates = {name: [] for name in found}
    for name, dph in pairs:
        dates[name].append(found[name].recorded_on(dph))
    assert dates["sim1"] == [datetime.date(2018, 7, 16), datetime.date(2018, 7, 31)]
    assert all(dates[f"sim{i}"] == dates["sim1"] for i in range(2, 6))
    assert dates["sim7"] == dates["sim6"] != dates["sim1"]


def test_gain_and_noise_step_at_one_bird_each():
    pupil, tutor, untutored, unchanging, _ = birds(1)[:5]
    assert (unchanging.gain_step_dph, unchanging.noise_step_dph) == (75, None)
    assert (tutor.gain_step_dph, tutor.noise_step_dph) == (None, 75 + 365)
    for bird in (pupil, untutored):
        assert bird.gain_step_dph is bird.noise_step_dph is None
    one_age = birds(1, replace(PARAMS, ages_dph=(45,)))
    assert all(bird.gain_step_dph is bird.noise_step_dph is None for bird in one_age)


def test_a_birds_variability_follows_its_curves():
    pupil = hatch(replace(PARAMS, sound=Curve(60.0, 5.0, adult=0.2)), 1, "sim1")
    assert pupil.variability(60).sound == pytest.approx(0.6)
    assert pupil.variability(63, part_of_day=0.0).sound == pytest.approx(0.6)


def test_unknown_birds_and_seeds_are_refused():
    with pytest.raises(ValueError, match="bird is 'sim16': .*choose from sim1, sim2"):
        hatch(PARAMS, 1, "sim16")
    with pytest.raises(ValueError, match="seed is -1: .*choose"):
        hatch(PARAMS, -1, "sim1")
