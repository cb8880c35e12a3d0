"""Pieces of a long recording: nothing is lost, and cuts fall into silence."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_io.pieces import Piece, Pieces
from data_io.sounding import LOWEST_DB


def cut(energy_db: np.ndarray, longest_frames: int, lengths: list[int]) -> list[Piece]:
    """Pieces of a recording whose magnitudes are the frames' own numbers, pushed in blocks."""
    pieces, found, start = Pieces(longest_frames), [], 0
    magnitude = np.tile(np.arange(len(energy_db), dtype=np.float32), (2, 1))
    while start < len(energy_db):
        end = start + lengths[start % len(lengths)]
        found += pieces.push(magnitude[:, start:end], energy_db[start:end])
        start = end
    return found + pieces.finish()


@settings(max_examples=200, deadline=None)
@given(
    n_frames=st.integers(0, 2000),
    longest=st.integers(3, 700),
    lengths=st.lists(st.integers(1, 900), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_pieces_end_to_end_are_the_recording(
    n_frames: int, longest: int, lengths: list[int], seed: int
) -> None:
    energy_db = np.random.default_rng(seed).normal(-60, 10, n_frames).astype(np.float32)
    found = cut(energy_db, longest, lengths)
    sizes = [magnitude.shape[1] for _, magnitude, _ in found]
    assert [first for first, _, _ in found] == np.cumsum([0, *sizes])[:-1].tolist()[: len(found)]
    assert sum(sizes) == n_frames
    assert max(sizes, default=0) <= longest
    if n_frames > longest:
        assert min(sizes) >= longest // 3
    for first, magnitude, energies in found:
        own = np.arange(first, first + magnitude.shape[1])
        np.testing.assert_array_equal(magnitude, np.tile(own, (2, 1)))
        np.testing.assert_array_equal(energies, energy_db[own])


def test_where_pieces_end_does_not_depend_on_the_blocks() -> None:
    energy_db = np.random.default_rng(0).normal(-60, 10, 10_000).astype(np.float32)
    firsts = [[p[0] for p in cut(energy_db, 900, [n])] for n in (1, 37, 1000, 10_000)]
    assert firsts[0] == firsts[1] == firsts[2] == firsts[3]
    assert len(firsts[0]) > 10


def test_a_recording_as_long_as_a_piece_is_not_cut() -> None:
    energy_db = np.full(900, -30, np.float32)
    assert [p[0] for p in cut(energy_db, 900, [100])] == [0]
    assert len(cut(np.r_[energy_db, energy_db[:1]], 900, [100])) == 2


@pytest.mark.parametrize("silence_db", [-70.0, LOWEST_DB])
@pytest.mark.parametrize("at", [620, 700, 850])
def test_a_cut_falls_into_the_longest_silence(at: int, silence_db: float) -> None:
    energy_db = np.full(3000, -30, np.float32)
    energy_db[at - 30 : at + 30] = silence_db
    energy_db[750:753] = silence_db  # a dip within a syllable, as deep as silence
    second = cut(energy_db, 900, [250])[1]
    assert abs(second[0] - at) <= 6


def test_no_more_than_four_thirds_of_a_piece_is_held() -> None:
    pieces, longest = Pieces(3000), 3000
    magnitude, energy_db = np.zeros((129, 500), np.float32), np.zeros(500, np.float32)
    tracemalloc.start()
    for _ in range(60):
        pieces.push(magnitude, energy_db)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 4 / 3 * longest * 130 * 4 + 50_000


@pytest.mark.parametrize("longest", [2, 0, -5])
def test_pieces_of_no_length_are_refused(longest: int) -> None:
    with pytest.raises(ValueError, match=f"longest_frames is {longest}: it must be 3 or more"):
        Pieces(longest)
