"""The divergence to the truth: names of states, strings of labels, pairs."""

import dataclasses
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.spatial.distance import jensenshannon

from study.base.errors import StudyError
from study.how_much.truth import (
    OTHER,
    SILENCE,
    Named,
    Truth,
    TruthFiles,
    divergence_of_counts,
    divergences,
    named,
)

SNIPPET_S = 0.064
MATRIX = np.array([[0.0, 0.9, 0.1], [0.1, 0.0, 0.9], [0.8, 0.2, 0.0]])
SHARES = np.linalg.matrix_power(MATRIX, 999)[0]
TRUTH = Truth(("a", "b", "c"), SHARES[:, None] * MATRIX, SNIPPET_S, SNIPPET_S)


def sound(label, onset, offset):
    return {"label": label, "onset_s": onset * SNIPPET_S, "offset_s": offset * SNIPPET_S}


def test_a_snippet_has_the_label_that_fills_most_of_it():
    sounds = [sound("a", 0.7, 2.2), sound("b", 2.4, 4.0), sound("i", 5.0, 6.0),
              sound("c", 7.0, 7.4)]  # fmt: skip
    found = named(sounds, 8, TRUTH)
    assert found.of_snippet.tolist() == [SILENCE, 0, 1, 1, SILENCE, OTHER, SILENCE, SILENCE]
    assert found.n_sounds.tolist() == [1, 1, 1]


def test_a_snippet_that_overlaps_others_is_named_by_its_middle_alone():
    quarter = dataclasses.replace(TRUTH, hop_s=SNIPPET_S / 4)
    # Snippets begin at 0, 0.25, ... of a snippet; their middles lie 0.375 to 0.625 further.
    found = named([sound("a", 0.375, 0.9), sound("b", 1.4, 1.95)], 7, quarter)
    assert found.of_snippet.tolist() == [0, 0, SILENCE, SILENCE, 1, 1, SILENCE]
    assert found.n_sounds.tolist() == [1, 1, 0]


def test_the_divergence_is_that_of_scipy_and_none_of_an_empty_table():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.full(9, 0.5), 2).reshape(2, 3, 3)
    p[0, 0] = 0
    expected = jensenshannon(p.ravel(), q.ravel(), base=2) ** 2
    assert divergence_of_counts(100 * p, q) == pytest.approx(expected)
    assert divergence_of_counts(np.eye(2), np.eye(2)[::-1]) == pytest.approx(1)
    assert math.isnan(divergence_of_counts(np.zeros((3, 3)), q))


def sung(n_bouts, rng, n_sounds=12):
    """Bouts of labels of the chain: sounds of two snippets, a silent one after each."""
    songs = []
    for _ in range(n_bouts):
        label, snippets, counts = int(rng.integers(3)), [OTHER], np.zeros(3, dtype=np.int64)
        for _ in range(n_sounds):
            snippets += [label, label, SILENCE]
            counts[label] += 1
            label = int(rng.choice(3, p=MATRIX[label]))
        songs.append(Named(np.array([*snippets, *[SILENCE] * 9]), counts))
    return songs


def model_of(songs):
    """States of a model that knows the label and the place in it; (posteriors, transitions)."""
    states = []
    for song in songs:
        place, before, last = 0, None, None
        for label in song.of_snippet.tolist():
            place = place + 1 if label == before else 0
            # A silent snippet remembers what was sung before it, so that the order is known.
            states.append((label, place, last) if label == SILENCE else (label, place, None))
            last = label if label >= 0 else None if label == OTHER else last
            before = label
    number = {state: i for i, state in enumerate(dict.fromkeys(states))}
    path = np.array([number[state] for state in states])
    counts = np.zeros((len(number), len(number)))
    np.add.at(counts, (path[:-1], path[1:]), 1)
    return np.eye(len(number))[path], (counts + 1e-9) / (counts + 1e-9).sum(1, keepdims=True)


def test_a_model_that_knows_the_song_diverges_little_and_one_without_order_much():
    songs = sung(400, np.random.default_rng(1))
    posteriors, transitions = model_of(songs)
    of_model, of_labels = divergences(TRUTH, songs, posteriors, transitions, 0)
    assert of_labels < 0.003
    assert of_model < 0.01
    shares = posteriors.mean(0)
    of_model, same = divergences(TRUTH, songs, posteriors, np.tile(shares, (len(shares), 1)), 0)
    assert of_model > 0.1
    assert same == of_labels


def test_repeats_without_silence_between_them_are_counted_by_their_length():
    matrix = np.array([[0.75, 0.25], [1.0, 0.0]])  # a four times on average, then b
    pairs = np.array([0.8, 0.2])[:, None] * matrix
    truth = Truth(("a", "b"), pairs, SNIPPET_S, SNIPPET_S)
    bout = [OTHER, *[0] * 8, 1, 1]  # aaaab
    songs = [Named(np.array(bout * 50 + [OTHER]), np.array([200, 50]))]
    posteriors = np.eye(3)[np.where(songs[0].of_snippet == OTHER, 2, songs[0].of_snippet)]
    of_labels = divergences(truth, songs, posteriors, np.full((3, 3), 1 / 3), 0)[1]
    counts = np.array([[3, 1], [0, 0]])  # the pair ba would pass over the introductory note
    assert of_labels == pytest.approx(jensenshannon(counts.ravel(), pairs.ravel(), base=2) ** 2)


def test_a_long_silence_ends_a_bout_and_a_short_one_does_not():
    songs = [Named(np.array([0, SILENCE, 1, *[SILENCE] * 9, 2, SILENCE, 0]), np.array([2, 1, 1]))]
    posteriors = np.eye(4)[songs[0].of_snippet]
    of_labels = divergences(TRUTH, songs, posteriors, np.full((4, 4), 1 / 4), 0)[1]
    counts = np.zeros((3, 3))
    counts[0, 1] = counts[2, 0] = 1
    expected = jensenshannon(counts.ravel(), TRUTH.pairs.ravel(), base=2) ** 2
    assert of_labels == pytest.approx(expected)


def write_truth(folder):
    both = {"bird": ["b1", "b1", "b2"], "age": ["60", "60", "60"]}
    times = {"onset_s": [0.064, 0.2, 0.0], "offset_s": [0.128, 0.3, 1.0]}
    sounds = {**both, "recording": ["r0", "r1", "r0"], "label": ["a", "b", "c"], **times}
    ages = {"bird": ["b1"], "age": ["60"], "labels": [["a", "b", "c"]],
            "transition_matrix": [MATRIX.tolist()]}  # fmt: skip
    pq.write_table(pa.table(sounds), folder / "truth_sounds.parquet", write_page_checksum=True)
    pq.write_table(pa.table(ages), folder / "truth_ages.parquet", write_page_checksum=True)


def test_the_truth_of_a_bird_and_age_is_read_from_its_own_rows(tmp_path):
    write_truth(tmp_path)
    files = TruthFiles(tmp_path, SNIPPET_S, SNIPPET_S)
    truth = files.of(("b1", "60"))
    assert truth.labels == ("a", "b", "c")
    np.testing.assert_allclose(truth.pairs, TRUTH.pairs, atol=1e-12)
    found = files.named(("b1", "60"), truth, {"r0": 3, "silent": 2})
    assert found["r0"].of_snippet.tolist() == [SILENCE, 0, SILENCE]
    assert found["silent"].of_snippet.tolist() == [SILENCE, SILENCE]
    assert files.of(("b2", "60")) is None


def test_a_table_that_is_not_of_the_truth_is_named(tmp_path):
    write_truth(tmp_path)
    pq.write_table(pa.table({"bird": ["b1"]}), tmp_path / "truth_ages.parquet")
    with pytest.raises(StudyError, match=r"truth_ages.parquet cannot be read as the truth"):
        TruthFiles(tmp_path, SNIPPET_S, SNIPPET_S)
