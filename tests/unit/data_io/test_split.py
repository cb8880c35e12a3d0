"""Three sides that share no bout, with the shares that were asked for."""

import datetime
import random

import numpy as np
import pytest

from data_io.recordings.split import assign_split, cuts_bouts, without_side
from data_io.recordings.table import Recording, Recordings

MORNING = datetime.datetime(2018, 9, 19, 6, 30)


def recording(name, seconds=4.0, at=None, bird="b1", age="45", **others):
    path = f"{bird}/{age}/{name}"
    return Recording(
        bird, age, None, None, path, MORNING + datetime.timedelta(seconds=at) if at is not None
        else None, sha256=path, seconds=seconds, n_frames=250, **others,
    )  # fmt: skip


def bouts(n_bouts, n_files=4, **others):
    """Files 8 s apart in bouts that lie half an hour apart."""
    return [recording(f"{b:02d}_{i}.wav", at=1800 * b + 8 * i, **others)
            for b in range(n_bouts) for i in range(n_files)]  # fmt: skip


def sides(rows, seed=0, selection=0.2, report=0.2):
    split = assign_split(Recordings.from_rows(rows), selection, report, seed)
    return dict(zip(split.column("path"), split.column("split"), strict=True))


def test_a_bout_lies_on_one_side():
    found = sides(bouts(20))
    for bout in range(20):
        assert len({side for path, side in found.items() if f"/{bout:02d}_" in path}) == 1
    assert set(found.values()) == {"training", "selection", "report"}


def test_each_side_has_its_share_of_the_seconds():
    rng = np.random.default_rng(0)
    rows = [recording(f"{b:03d}_{i}.wav", float(rng.uniform(2, 10)), 1800 * b + 12 * i)
            for b in range(60) for i in range(4)]  # fmt: skip
    found = sides(rows, selection=0.15, report=0.25)
    seconds = {side: sum(r.seconds for r in rows if found[r.path] == side)
               for side in ("training", "selection", "report")}  # fmt: skip
    total = sum(seconds.values())
    assert seconds["selection"] / total == pytest.approx(0.15, abs=0.02)
    assert seconds["report"] / total == pytest.approx(0.25, abs=0.02)


def test_without_times_blocks_of_neighbours_lie_on_one_side():
    rows = [recording(f"song{i}.wav") for i in range(100)]
    found = sides(rows)
    in_order = [found[f"b1/45/song{i}.wav"] for i in range(100)]  # song9 before song10
    n_changes = sum(a != b for a, b in zip(in_order, in_order[1:], strict=False))
    assert n_changes <= 9  # ten blocks, not a draw for each file
    assert all(len(set(in_order[10 * b : 10 * b + 10])) == 1 for b in range(10))


def test_one_endless_bout_is_cut_into_blocks_of_time():
    rows = [recording(f"{i:03d}.wav", at=5 * i) for i in range(100)]
    found = sides(rows)
    in_order = [found[row.path] for row in rows]
    assert {side: in_order.count(side) for side in set(in_order)} == {
        "training": 60, "selection": 20, "report": 20,
    }  # fmt: skip
    assert sum(a != b for a, b in zip(in_order, in_order[1:], strict=False)) <= 9


def test_pieces_of_a_long_file_are_split_in_time():
    pieces = [
        Recording("b1", "45", None, None, f"b1/45/x.wav#t={60 * i},{60 * i + 60}",
                  of_file="b1/45/x.wav", start_s=60.0 * i, sha256="x", seconds=60.0, n_frames=9)
        for i in (3, 11, 0, 1, 2, 10, 4, 5, 6, 7, 8, 9)
    ]  # fmt: skip
    found = sides(pieces)
    in_order = [found[p.path] for p in sorted(pieces, key=lambda p: p.start_s)]
    assert set(in_order) == {"training", "selection", "report"}
    assert sum(a != b for a, b in zip(in_order, in_order[1:], strict=False)) <= 9


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1, {"training": 1}),
        (2, {"training": 1, "selection": 1}),
        (3, {"training": 1, "selection": 1, "report": 1}),
    ],
)
def test_too_few_bouts_leave_a_side_out_and_say_so(n, expected):
    rows = Recordings.from_rows(bouts(n, n_files=1))
    split = assign_split(rows, 0.2, 0.2, 0)
    found = list(split.column("split"))
    assert {side: found.count(side) for side in set(found)} == expected
    missing = [side for side in ("training", "selection", "report") if side not in expected]
    assert without_side(split) == ({("b1", "45"): missing} if missing else {})


def test_sides_do_not_depend_on_the_order_of_the_list_or_on_other_birds():
    rows = bouts(12)
    shuffled = rows + bouts(9, bird="b2")
    random.Random(0).shuffle(shuffled)
    alone = sides(rows)
    assert {path: side for path, side in sides(shuffled).items() if path in alone} == alone


def test_another_seed_gives_other_sides_and_the_same_seed_the_same():
    rows = bouts(30)
    assert sides(rows, seed=1) == sides(rows, seed=1) != sides(rows, seed=2)


def test_skipped_recordings_have_no_side_and_change_none():
    rows = bouts(8)
    with_bad = [*rows, recording("bad.wav", at=0.5).skipped("silent")]
    found = sides(with_bad)
    assert found.pop("b1/45/bad.wav") == ""
    assert found == sides(rows)


def test_each_bird_and_age_has_its_own_sides():
    rows = bouts(10) + bouts(10, age="60") + bouts(10, bird="b2")
    found = sides(rows)
    for group in ("b1/45", "b1/60", "b2/45"):
        mine = [side for path, side in found.items() if path.startswith(group)]
        assert set(mine) == {"training", "selection", "report"}


@pytest.mark.parametrize(
    ("rows", "is_cut"),
    [
        (bouts(20), False),
        (bouts(3), True),  # each holds a third of the sound
        (bouts(1, 12), True),
        ([recording(f"{i}.wav", at=3600 * i) for i in range(12)], False),
        ([recording(f"{i}.wav") for i in range(12)], True),  # none tells the time
        ([*bouts(20), recording("x.wav")], True),
        ([recording("0.wav")], False),  # it trains, and there is no other side
        ([recording(f"{i}.wav", of_file="0.wav", start_s=4.0 * i, at=0) for i in range(9)], True),
        ([recording(f"{i}.wav", 4.0 + 57 * (i % 2), at=61 * i) for i in range(12)], True),
    ],
)
def test_a_bird_and_age_whose_bouts_are_cut_is_named(rows, is_cut):
    split = assign_split(Recordings.from_rows(rows), 0.2, 0.2, 0)
    assert cuts_bouts(split) == ([("b1", "45")] if is_cut else [])


def test_bouts_are_told_by_time_and_not_by_the_order_of_the_table():
    rows = bouts(20)
    random.Random(1).shuffle(rows)
    assert cuts_bouts(assign_split(Recordings.from_rows(rows), 0.2, 0.2, 0)) == []


def test_only_the_birds_and_ages_with_too_few_bouts_are_named():
    rows = [*bouts(20), *bouts(3, age="60"), *bouts(20, bird="b2")]
    assert cuts_bouts(assign_split(Recordings.from_rows(rows), 0.2, 0.2, 0)) == [("b1", "60")]
