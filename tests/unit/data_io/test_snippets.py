"""Random snippets: whole, of one recording each, evenly from all birds and ages."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_io.recordings.table import SIDES, Recording, Recordings
from data_io.snippets import FramePool, SnippetParams, load_pool, snippet_starts
from tests.helpers.stored import write_levelled

STEP = np.float32(2**-13)


def recording(bird: str, age: str, name: str, n_frames: int, split: str = "training") -> Recording:
    path = f"{bird}/{age}/songs/{name}.wav"
    return Recording(bird, age, None, None, path, n_frames=n_frames, split=split)


def spectrogram(number: int, n_frames: int) -> NDArray[np.float32]:
    """Each value tells its recording, frequency and frame."""
    f, t = np.meshgrid(np.arange(129), np.arange(n_frames), indexing="ij")
    return ((number * 2**14 + f * 2**6 + t) * STEP).astype(np.float32)


def exact(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The values of `spectrogram` from those that come back, whose last digit differs."""
    assert np.abs(values / STEP - np.round(values / STEP)).max(initial=0) < 0.1
    return (np.round(values / STEP) * STEP).astype(np.float32)


def written(folder: Path, recordings: list[Recording]) -> dict[str, NDArray[np.float32]]:
    """Write a spectrogram for each recording; give them by path."""
    all_of = {r.path: spectrogram(i, r.n_frames) for i, r in enumerate(recordings)}
    for bird, age in {(r.bird, r.age) for r in recordings}:
        mine = [r.path for r in recordings if (r.bird, r.age) == (bird, age)]
        write_levelled(folder, bird, age, [(path, all_of[path]) for path in mine])
    return all_of


def pool_of(folder: Path, recordings: list[Recording], side: str = "training") -> FramePool:
    rows = Recordings.from_rows(recordings)
    return load_pool(folder, rows, side, 16, max_frames=10**6, seed=0)


def recordings_in(pool: FramePool) -> set[int]:
    """Numbers of the recordings that any frame of the pool is of."""
    return set((exact(pool.frames[:, 0]) // 2).astype(int).tolist())


MIXED = [
    recording("b1", "43", "a", 16),
    recording("b1", "43", "b", 15),
    recording("b1", "90", "c", 40),
    recording("b2", "43", "d", 1),
    recording("b2", "43", "e", 17),
]


@pytest.mark.parametrize(
    ("lengths", "starts"),
    [
        ([], []),
        ([15], []),
        ([1, 15, 0], []),
        ([16], [0]),
        ([17], [0, 1]),
        ([18, 15, 16, 17], [0, 1, 2, 33, 49, 50]),
    ],
)
def test_starts_leave_room_for_a_whole_snippet(lengths: list[int], starts: list[int]) -> None:
    result = snippet_starts(lengths, 16)
    assert result.dtype == np.int64
    assert result.tolist() == starts


def test_every_crop_is_a_window_of_one_recording_and_every_window_is_there(
    tmp_path: Path,
) -> None:
    whole = written(tmp_path, MIXED)
    pool = pool_of(tmp_path, MIXED)
    crops = pool.crops(np.arange(len(pool.starts)))
    windows = [s[:, i : i + 16] for s in whole.values() for i in range(s.shape[1] - 15)]
    assert crops.shape == (len(windows), 1, 129, 16) == (1 + 25 + 2, 1, 129, 16)
    assert {exact(crop).tobytes() for crop in crops} == {w.tobytes() for w in windows}


def test_lengths_are_those_of_the_recordings_in_their_order(tmp_path: Path) -> None:
    whole = written(tmp_path, MIXED)
    pool = pool_of(tmp_path, MIXED)
    ends = np.cumsum(pool.lengths)
    assert ends[-1] == len(pool.frames)
    parts = np.split(exact(pool.frames), ends[:-1])
    assert {part.T.tobytes() for part in parts} == {s.tobytes() for s in whole.values()}
    assert sum(pool.lengths[:2]) == pool.frames_of["b1", "43"]


def test_recordings_of_a_pool_are_whole_under_their_bird_and_age(tmp_path: Path) -> None:
    whole = written(tmp_path, MIXED)
    pool = pool_of(tmp_path, MIXED)
    found = pool.by_recording()
    assert {key: sorted(map(len, parts)) for key, parts in found.items()} == {
        ("b1", "43"): [15, 16], ("b1", "90"): [40], ("b2", "43"): [1, 17],
    }  # fmt: skip
    for parts in found.values():
        for frames in parts:
            assert np.shares_memory(frames, pool.frames)
            assert exact(frames).T.tobytes() in {s.tobytes() for s in whole.values()}


def test_a_pool_that_does_not_know_its_recordings_says_so() -> None:
    pool = FramePool(np.zeros((64, 129), "f4"), np.arange(40), 16)
    with pytest.raises(ValueError, match=r"count \[0\] frames, the pool holds 64: make the pool"):
        pool.by_recording()


def test_crop_layout_is_frequency_by_frame(tmp_path: Path) -> None:
    whole = written(tmp_path, MIXED)["b1/90/songs/c.wav"]
    pool = pool_of(tmp_path, [MIXED[2]])
    choice = np.array([7, 0, 24, 7])
    crops = pool.crops(choice)
    assert crops.shape == (4, 1, 129, 16)
    assert crops.dtype == np.float32
    assert crops.flags.c_contiguous
    for i, start in enumerate(choice):
        np.testing.assert_array_equal(exact(crops[i, 0]), whole[:, start : start + 16])
    assert exact(crops)[1, 0, 100, 3] == whole[100, 3]


@pytest.mark.parametrize("n_frames", [1, 16, 40])
def test_crops_are_copies(tmp_path: Path, n_frames: int) -> None:
    whole = written(tmp_path, [MIXED[2]])["b1/90/songs/c.wav"]
    pool = load_pool(
        tmp_path, Recordings.from_rows([MIXED[2]]), "training", n_frames, 10**6, seed=0
    )
    crops = pool.crops(np.arange(len(pool.starts)))
    assert not np.shares_memory(crops, pool.frames)
    crops[:] = -1
    np.testing.assert_array_equal(exact(pool.frames), whole.T)


def test_no_choice_gives_no_crops(tmp_path: Path) -> None:
    written(tmp_path, MIXED)
    assert pool_of(tmp_path, MIXED).crops(np.zeros(0, np.int64)).shape == (0, 1, 129, 16)


def test_too_short_recordings_give_a_pool_without_starts(tmp_path: Path) -> None:
    written(tmp_path, MIXED)
    pool = pool_of(tmp_path, [MIXED[1], MIXED[3]])
    assert pool.frames.shape == (16, 129)
    assert len(pool.starts) == 0


def test_pool_holds_its_own_side_of_the_split_only(tmp_path: Path) -> None:
    recordings = [
        replace(r, split=SIDES[i % 3]) if i < 4 else r.skipped("silent")
        for i, r in enumerate(MIXED)
    ]
    written(tmp_path, MIXED)
    of_side = {side: recordings_in(pool_of(tmp_path, recordings, side)) for side in SIDES}
    assert of_side == {"training": {0, 3}, "selection": {1}, "report": {2}}


@pytest.mark.parametrize(("side", "n_bouts"), [("selection", 2), ("report", 3)])
def test_empty_side_of_the_split_says_what_is_needed(
    tmp_path: Path, side: str, n_bouts: int
) -> None:
    with pytest.raises(ValueError, match=f"the {side} side of the split: .* {n_bouts} bouts"):
        pool_of(tmp_path, MIXED, side)


MANY = [
    recording(bird, age, str(i), 20)
    for bird, age, n in (("b1", "43", 10), ("b1", "90", 2), ("b2", "43", 6))
    for i in range(n)
]


@pytest.mark.parametrize(
    ("max_frames", "expected"),
    [(60, (1, 1, 1)), (120, (2, 2, 2)), (180, (4, 2, 3)), (181, (4, 2, 4)), (10**6, (10, 2, 6))],
)
def test_bound_takes_evenly_from_all_birds_and_ages(
    tmp_path: Path, max_frames: int, expected: tuple[int, ...]
) -> None:
    written(tmp_path, MANY)
    pool = load_pool(tmp_path, Recordings.from_rows(MANY), "training", 16, max_frames, seed=0)
    taken = Counter((MANY[i].bird, MANY[i].age) for i in recordings_in(pool))
    assert taken == dict(zip((("b1", "43"), ("b1", "90"), ("b2", "43")), expected, strict=True))
    assert len(pool.frames) == 20 * sum(expected)
    assert len(pool.starts) == 5 * sum(expected)


def test_choice_within_the_bound_follows_from_the_seed_alone(tmp_path: Path) -> None:
    written(tmp_path, MANY)
    shuffled = random.Random(0).sample(MANY, len(MANY))
    pools = [
        load_pool(tmp_path, Recordings.from_rows(listing), "training", 16, 120, seed)
        for listing, seed in ((MANY, 0), (shuffled, 0), (MANY, 1))
    ]
    np.testing.assert_array_equal(pools[0].frames, pools[1].frames)
    assert recordings_in(pools[0]) != recordings_in(pools[2])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("selection_fraction", 0.0),
        ("selection_fraction", 1.0),
        ("selection_fraction", float("nan")),
        ("report_fraction", 0.0),
        ("report_fraction", 1.0),
        ("report_fraction", float("nan")),
        ("max_minutes", 0.0),
        ("max_minutes", float("nan")),
    ],
)
def test_impossible_settings_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} is {value}: it must "):
        SnippetParams(**{name: value})


def test_held_out_sides_that_leave_nothing_for_training_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(0.6\) and report_fraction \(0.4\) leave nothing"):
        SnippetParams(selection_fraction=0.6, report_fraction=0.4)


def test_pool_knows_which_of_its_frames_hold_sound(tmp_path: Path) -> None:
    rows = [recording("b1", "43", name, 60) for name in "ab"]
    quiet, loud = np.full((129, 60), 1e-5, np.float32), np.full((129, 60), 1.0, np.float32)
    whole = np.concatenate([quiet[:, :25], loud[:, :20], quiet[:, :15]], axis=1)
    write_levelled(tmp_path, "b1", "43", [(rows[0].path, whole), (rows[1].path, quiet)])
    pool = pool_of(tmp_path, rows)
    assert pool.has_sound.shape == (120,)
    # An energy is a mean over a frame on each side.
    np.testing.assert_array_equal(np.flatnonzero(pool.has_sound), np.arange(24, 46))


@pytest.mark.parametrize("hop", [0, -4, 17])
def test_a_hop_that_leaves_frames_out_is_refused(hop: int) -> None:
    with pytest.raises(ValueError, match=f"hop is {hop}: .* a hop from 1 to 16"):
        SnippetParams(hop=hop)


@pytest.mark.parametrize(("hop", "share"), [(16, 1.0), (4, 0.25), (1, 0.0625)])
def test_the_new_share_is_what_the_snippet_before_did_not_hold(hop: int, share: float) -> None:
    assert SnippetParams(hop=hop).new_share == share
