"""The divergence of a fitted HMM to the chain of labels that a simulated bird sings.

A state is no syllable, so states get the name of the label that most of their snippets have, and a
path of names is read as a string of labels. This is not exact. A label shorter than a snippet may
never have a snippet of its own; two syllables of one label without a silent snippet between them
are counted by their length alone; labels that share a state become one. All three hold for the
true labels of the snippets as well, so their own divergence stands beside that of the model.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_io.aviary.syntax import jensen_shannon
from data_io.aviary.truth import AGES_FILE, SOUNDS_FILE
from data_io.recordings.table import BirdAge
from models.hmm.predictive import stationary_probs
from models.hmm.simulate import state_paths
from study.base.errors import StudyError

Array = NDArray[np.float64]
Labels = NDArray[np.int64]  # places in Truth.labels, or one of the next two
SILENCE, OTHER = -1, -2  # OTHER: introductory notes, calls, cage noises

PATH_S = 12_800  # of states that are sampled: pairs are then known to about a thousandth
LONGEST_GAP_S = 0.3  # a longer silence parts bouts, and its two sides are no pair


@dataclass(frozen=True)
class Truth:
    """The chain of labels of one bird and age.

    Attributes:
        labels: the syllables that it sings.
        pairs: [n_labels, n_labels] probability of each pair of a label and the next one.
        snippet_s: seconds of a snippet.
        hop_s: seconds from the start of a snippet to that of the next.
    """

    labels: tuple[str, ...]
    pairs: Array
    snippet_s: float
    hop_s: float


@dataclass(frozen=True)
class Named:
    """The true labels of one recording.

    Attributes:
        of_snippet: [n_snippets] the label that fills most of the middle of each, as long as the
            hop: so no two snippets share what they are named by.
        n_sounds: [n_labels] sounds of each label.
    """

    of_snippet: Labels
    n_sounds: Labels


class TruthFiles:
    """The truth of all birds and ages of a folder of simulated recordings.

    Args:
        folder: that holds `SOUNDS_FILE` and `AGES_FILE`.
        snippet_s: seconds of a snippet.
        hop_s: seconds from the start of a snippet to that of the next.
    """

    def __init__(self, folder: Path, snippet_s: float, hop_s: float):
        self._sounds = _read(
            folder / SOUNDS_FILE, ["bird", "age", "recording", "label", "onset_s", "offset_s"]
        )
        rows = _read(folder / AGES_FILE, ["bird", "age", "labels", "transition_matrix"])
        self._ages = {(row["bird"], row["age"]): row for row in rows.to_pylist()}
        self._snippet_s, self._hop_s = snippet_s, hop_s

    def of(self, bird_age: BirdAge) -> Truth | None:
        """The chain of a bird and age; None where the tables do not have it."""
        row = self._ages.get(bird_age)
        if row is None:
            return None
        transitions = np.array(row["transition_matrix"], dtype=np.float64)
        pairs = stationary_probs(transitions)[:, None] * transitions
        return Truth(tuple(row["labels"]), pairs, self._snippet_s, self._hop_s)

    def named(self, bird_age: BirdAge, truth: Truth, lengths: dict[str, int]) -> dict[str, Named]:
        """The true labels of recordings, by their path.

        Args:
            bird_age: bird and age.
            truth: its chain.
            lengths: snippets of every recording that is wanted, by its path.
        """
        bird, age = bird_age
        is_own = pc.and_(pc.equal(self._sounds["bird"], bird), pc.equal(self._sounds["age"], age))
        sounds: dict[str, list[dict[str, Any]]] = {path: [] for path in lengths}
        for row in self._sounds.filter(is_own).to_pylist():
            if row["recording"] in sounds:
                sounds[row["recording"]].append(row)
        return {path: named(rows, lengths[path], truth) for path, rows in sounds.items()}


def _read(path: Path, columns: list[str]) -> pa.Table:
    try:
        # ParquetFile, because read_table would make columns from "name=" in the path.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(columns).select(columns)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise StudyError(
            f"{path} cannot be read as the truth of simulated birds ({error}). Simulate them "
            "again, or take both tables away to have the curves without a truth."
        ) from error


def named(sounds: list[dict[str, Any]], n_snippets: int, truth: Truth) -> Named:
    """The true labels of a recording.

    Args:
        sounds: label, onset_s and offset_s of each.
        n_snippets: of the recording.
        truth: of its bird and age.
    """
    place = {label: i for i, label in enumerate(truth.labels)}
    begins = (truth.snippet_s - truth.hop_s) / 2 + truth.hop_s * np.arange(n_snippets)
    seconds = np.zeros((n_snippets, len(place) + 2))  # the last two are OTHER and SILENCE
    n_sounds = np.zeros(len(place), dtype=np.int64)
    for sound in sounds:
        column = place.get(sound["label"], OTHER)
        first = np.maximum(begins, sound["onset_s"])
        last = np.minimum(begins + truth.hop_s, sound["offset_s"])
        seconds[:, column] += np.maximum(last - first, 0)
        if column >= 0:
            n_sounds[column] += 1
    seconds[:, SILENCE] = truth.hop_s - seconds.sum(1)
    columns = seconds.argmax(1)
    return Named(np.where(columns < len(place), columns, columns - seconds.shape[1]), n_sounds)


def divergences(
    truth: Truth, songs: list[Named], posteriors: Array, transition_matrix: Array, seed: int
) -> tuple[float, float]:
    """Jensen-Shannon divergences of pairs (label, next label) to the truth, in bits.

    Args:
        truth: of the bird and age.
        songs: true labels of the fitted recordings.
        posteriors: [n_snippets, n_states] P(state | song) of their snippets, end to end.
        transition_matrix: [n_states, n_states] of the model.
        seed: of the path of states that is sampled.

    Returns:
        That of the model, and that of the true labels of the fitted snippets. NaN where no two
        labels follow each other.
    """
    n_labels = len(truth.labels)
    labels = np.concatenate([song.of_snippet for song in songs])
    votes = np.stack(
        [posteriors[labels == label].sum(0) for label in [*range(n_labels), OTHER, SILENCE]]
    )
    columns = votes.argmax(0)
    name_of_state = np.where(columns < n_labels, columns, columns - len(votes))
    n_sounds = np.sum([song.n_sounds for song in songs], axis=0)
    n_snippets = np.bincount(labels[labels >= 0], minlength=n_labels)
    each = np.maximum(n_snippets / np.maximum(n_sounds, 1), 1.0)  # snippets of a sound
    rng, starts = np.random.default_rng(seed), stationary_probs(transition_matrix)
    n_sung = np.array([round(PATH_S / truth.hop_s)])
    sung = name_of_state[state_paths(transition_matrix, starts, n_sung, rng)]
    longest_gap = round(LONGEST_GAP_S / truth.hop_s)
    of_model = _pairs([sung], each, longest_gap)
    of_labels = _pairs([song.of_snippet for song in songs], each, longest_gap)
    return divergence_of_counts(of_model, truth.pairs), divergence_of_counts(of_labels, truth.pairs)


def _pairs(songs: list[Labels], each: Array, longest_gap: int) -> Array:
    """Counts [n_labels, n_labels] of a label and the next one."""
    counts = np.zeros((len(each), len(each)))
    for song in songs:
        before = OTHER
        for label in _as_sounds(song, each, longest_gap):
            if before >= 0 and label >= 0:
                counts[before, label] += 1
            before = label
    return counts


def _as_sounds(snippets: Labels, each: Array, longest_gap: int) -> Iterator[int]:
    """Labels of the sounds that snippets hold, in order; OTHER where a bout ends."""
    for label, run in itertools.groupby(snippets.tolist()):
        n = sum(1 for _ in run)
        if label >= 0:
            yield from itertools.repeat(label, max(1, round(n / each[label])))
        elif label == OTHER or n > longest_gap:
            yield OTHER


def divergence_of_counts(counts: Array, other: Array) -> float:
    """Jensen-Shannon divergence in bits, 0 to 1, of two tables of counts or probabilities.

    NaN where a table is empty.
    """
    if not counts.sum() or not other.sum():
        return math.nan
    return jensen_shannon(counts / counts.sum(), other / other.sum())
