"""The four tables of the truth against the birds that they tell of."""

import datetime
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_io.aviary.birds import birds_and_ages, hatch, tutor_of
from data_io.aviary.params import AviaryParams
from data_io.aviary.syntax import Chain, divergence_rate, pair_divergence
from data_io.aviary.truth import (
    AGES_FILE,
    AGES_SCHEMA,
    BIRDS_FILE,
    BIRDS_SCHEMA,
    RECORDINGS_FILE,
    RECORDINGS_SCHEMA,
    SOUNDS_FILE,
    SOUNDS_SCHEMA,
    DayTruth,
    write_truth,
)

PARAMS = AviaryParams(n_birds=5, ages_dph=(90, 45, 60))
SEED = 4


def a_day(bird, dph):
    """Two recordings of 4 and 12 s with one sound each."""
    common = {"bird": bird, "age": str(dph), "dph": dph}
    sounds, recordings = [], []
    for number, seconds in enumerate((4.0, 12.0)):
        own = common | {"recording": f"{bird}/{dph}/songs/{number}.wav"}
        sounds.append(
            own
            | {"index": 0, "kind": "syllable", "label": "a", "bout": 0}
            | {"onset_s": 1.0 + number, "offset_s": 1.1 + number}
        )
        recordings.append(
            own
            | {"recorded_at": datetime.datetime(2018, 9, 19, 7 + number), "seconds": seconds}
            | {"sample_rate_hz": 44_100, "silence_share": 0.4 + 0.2 * number}
            | {"gain_db": -5.0, "noise_db": -60.0 - number, "hum_db": -55.0}
            | {"part_of_day": 0.1, "effective_dph": dph - 1.0}
            | {"sound_variability": 0.5, "timing_variability": 0.5}
        )
    return DayTruth(
        pa.Table.from_pylist(sounds, SOUNDS_SCHEMA),
        pa.Table.from_pylist(recordings, RECORDINGS_SCHEMA),
    )


def days(params=PARAMS):
    return (a_day(bird, dph) for bird, dph in birds_and_ages(params))


def read(root, name):
    return pq.read_table(root / name, page_checksum_verification=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("truth")
    write_truth(folder, PARAMS, SEED, days())
    return folder


def ages(root):
    return {(row["bird"], row["dph"]): row for row in read(root, AGES_FILE).to_pylist()}


def test_four_tables_are_written_and_nothing_else(root):
    schemas = {
        SOUNDS_FILE: SOUNDS_SCHEMA,
        RECORDINGS_FILE: RECORDINGS_SCHEMA,
        AGES_FILE: AGES_SCHEMA,
        BIRDS_FILE: BIRDS_SCHEMA,
    }
    assert sorted(path.name for path in root.iterdir()) == sorted(schemas)
    for name, schema in schemas.items():
        assert read(root, name).schema.equals(schema)


def test_sounds_and_recordings_are_kept_with_a_row_group_for_each_day(root):
    expected = list(days())
    assert read(root, SOUNDS_FILE).equals(pa.concat_tables(day.sounds for day in expected))
    assert read(root, RECORDINGS_FILE).equals(pa.concat_tables(day.recordings for day in expected))
    assert pq.read_metadata(root / SOUNDS_FILE).num_row_groups == 15


def test_ages_hold_the_chain_itself_and_what_follows_from_it(root):
    assert list(ages(root)) == birds_and_ages(PARAMS)
    for (name, dph), row in ages(root).items():
        bird = hatch(PARAMS, SEED, name)
        chain = bird.chain(dph)
        kept = Chain(
            tuple(row["labels"]),
            np.array(row["context_probs"]),
            np.array(row["context_onward"]),
            row["context_start"],
        )
        assert divergence_rate(chain, kept) == divergence_rate(kept, chain) == 0.0
        np.testing.assert_array_equal(row["transition_matrix"], chain.transition_matrix())
        assert row["entropy_rate_bits"] == chain.entropy_rate()
        assert row["predictive_information_bits"] == chain.predictive_information()
        assert row["beyond_first_order_bits"] == chain.beyond_first_order()
        assert row["repertoire"] == sorted(bird.repertoire(dph))
        variability = bird.variability(dph)
        assert row["order_variability"] == variability.order
        assert row["maturity"] == variability.maturity
        assert (row["age"], row["role"], row["tutor"]) == (str(dph), bird.role, bird.tutor)


def test_ages_hold_means_of_the_recordings(root):
    for row in ages(root).values():
        assert (row["n_recordings"], row["seconds"]) == (2, 16.0)
        assert row["silence_share"] == pytest.approx((4 * 0.4 + 12 * 0.6) / 16)
        assert (row["gain_db"], row["noise_db"]) == (-5.0, -60.5)


def test_divergence_to_the_tutor_is_there_for_pupils_alone(root):
    for (name, dph), row in ages(root).items():
        bird = hatch(PARAMS, SEED, name)
        tutor = tutor_of(PARAMS, SEED, bird)
        if tutor is None:
            assert row["divergence_to_tutor_bits"] is None
        else:
            expected = pair_divergence(bird.chain(dph), tutor.chain(485))
            assert row["divergence_to_tutor_bits"] == expected
        # Pupils of these params copy some of the tutor's syllables, not all.
        assert row["divergence_rate_of_tutor_bits"] is None


def test_divergence_rate_of_the_tutor_is_finite_where_all_is_copied(tmp_path):
    params = AviaryParams(n_birds=1, ages_dph=(45, 60, 90), copied_share=1.0)
    write_truth(tmp_path, params, SEED, days(params))
    pupil = hatch(params, SEED, "sim1")
    tutor = tutor_of(params, SEED, pupil)
    rates = [row["divergence_rate_of_tutor_bits"] for row in ages(tmp_path).values()]
    assert rates == [divergence_rate(tutor.chain(500), pupil.chain(dph)) for dph in (45, 60, 90)]
    assert rates[0] > rates[-1] > 0.0


def test_birds_hold_what_is_planted(root):
    rows = {row["bird"]: row for row in read(root, BIRDS_FILE).to_pylist()}
    assert list(rows) == ["sim1", "sim2", "sim3", "sim4", "sim5"]
    pupil, unchanging = hatch(PARAMS, SEED, "sim1"), rows["sim4"]
    row = rows["sim1"]
    assert (row["role"], row["tutor"], row["syntax"]) == ("pupil", "sim2", "first_order")
    assert (row["added_label"], row["added_dph"]) == pupil.added
    assert (row["dropped_label"], row["dropped_dph"]) == pupil.dropped
    assert (tuple(row["copied"]), tuple(row["own"])) == (pupil.copied, pupil.own)
    assert (row["sound_middle_dph"], row["order_adult"], row["timing_young"]) == (58.0, 0.02, 1.0)
    assert (row["morning_lag_days"], unchanging["morning_lag_days"]) == (3.0, 0.0)
    assert (row["gain_step_dph"], row["repeated_label"]) == (None, None)
    assert unchanging["gain_step_dph"] == 60
    assert [unchanging[f"{which}_repeats"] for which in ("fewest", "most", "mean")] == [3, 6, 4.5]
    assert unchanging["repeated_label"] == "c"
    assert rows["sim2"]["noise_step_dph"] == 425
    assert unchanging["hatched"] == datetime.date(2018, 6, 1)
    assert row["seed"] == SEED
    params = json.loads(row["params"])
    assert AviaryParams(**params | {"n_birds": 1}).minutes == PARAMS.minutes
    assert params["ages_dph"] == [45, 60, 90]


def test_the_order_of_ages_changes_no_byte(root, tmp_path):
    params = AviaryParams(n_birds=5, ages_dph=(45, 60, 90))
    write_truth(tmp_path, params, SEED, days(params))
    for path in root.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_nothing_is_written_where_a_day_fails(tmp_path):
    def failing():
        yield a_day("sim1", 45)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_truth(tmp_path, PARAMS, SEED, failing())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "column"), [(SOUNDS_FILE, "onset_s"), (AGES_FILE, "entropy_rate_bits")]
)
def test_a_flipped_bit_in_the_truth_is_noticed(root, tmp_path, name, column):
    path = tmp_path / name
    content = bytearray((root / name).read_bytes())
    group = pq.read_metadata(root / name).row_group(0)
    facts = next(
        group.column(i)
        for i in range(group.num_columns)
        if group.column(i).path_in_schema == column
    )
    start = facts.dictionary_page_offset or facts.data_page_offset
    content[start + facts.total_compressed_size - 1] ^= 1  # in the last page, behind its header
    path.write_bytes(content)
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(path, page_checksum_verification=True)
