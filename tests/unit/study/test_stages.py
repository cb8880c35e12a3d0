"""What is skipped, what is done again, and that two studies never share a folder."""

import io
import os
import signal
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_io.files import read_json, write_json
from data_io.seal import read_seal
from data_io.store import write_table
from study.base import hashes, stopping
from study.base import ledger as ledgers
from study.base.command import run_command
from study.base.console import Console
from study.base.errors import StudyError
from study.base.hashes import compare, hashes_of
from study.base.ledger import FolderInUseError, Ledger, StageResult, locked, undisturbed

LARGE = 4 << 30


def ledger(folder, text=None):
    return Ledger(folder, folder / ".stages", Console(text or io.StringIO()), 1)


def run(folder, depends_on, calls, content="abc", text=None):
    def work():
        calls.append(1)
        path = folder / "out" / "part.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        return StageResult([folder / "out"], "digest", {"fact": 1})

    return ledger(folder, text).run("stage", {"input": depends_on}, work)


def test_a_stage_is_skipped_while_nothing_has_changed(tmp_path):
    calls = []
    assert not run(tmp_path, 1, calls).was_skipped
    again = run(tmp_path, 1, calls)
    assert again.was_skipped
    assert (again.digest, again.facts) == ("digest", {"fact": 1})
    assert len(calls) == 1


def test_a_changed_input_or_a_missing_or_shortened_file_runs_it_again(tmp_path):
    calls = []
    run(tmp_path, 1, calls)
    assert not run(tmp_path, 2, calls).was_skipped
    (tmp_path / "out" / "part.txt").unlink()
    assert not run(tmp_path, 2, calls).was_skipped
    (tmp_path / "out" / "part.txt").write_text("ab")
    assert not run(tmp_path, 2, calls).was_skipped
    (tmp_path / ".stages" / "stage.json").write_text('{"key":')  # cut short
    assert not run(tmp_path, 2, calls).was_skipped


def test_a_result_that_is_not_final_is_made_again_and_depended_on_as_if_it_were(tmp_path):
    calls, text = [], io.StringIO()

    def work():
        calls.append(1)
        (tmp_path / "out").write_text("abc")
        return StageResult([tmp_path / "out"], "digest", is_final=len(calls) > 2)

    results = [ledger(tmp_path, text).run("stage", {}, work) for _ in range(4)]
    assert [result.was_skipped for result in results] == [False, False, False, True]
    assert len({(result.digest, result.key) for result in results}) == 1
    assert text.getvalue().count("what could not be read before is tried again") == 2


# Altered files


def flip(path, at, bit=1):
    """Flip a bit; size and time of change stay."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[at] ^= bit
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def write_kinds(folder):
    """Files of the kinds that stages write."""
    folder.mkdir(exist_ok=True)
    (folder / "song.wav").write_bytes(bytes(range(256)))
    (folder / "report.html").write_text("<p>" + "a" * 500)
    write_table(folder / "part-0.parquet", pa.table({"z": [0.5, 1.5, 2.5] * 9}))
    return StageResult([folder], "digest")


def said(text):
    return " ".join(text.getvalue().split())


@pytest.mark.parametrize("name", ["song.wav", "report.html", "part-0.parquet"])
@pytest.mark.parametrize("at", [0, 4, 0.3, 0.5, 0.9, -40, -1])
def test_one_flipped_bit_in_any_file_is_named_and_its_stage_runs_again(tmp_path, name, at):
    def go(text):
        return ledger(tmp_path, text).run("songs", {}, lambda: write_kinds(tmp_path / "songs"))

    go(io.StringIO())
    path, text = tmp_path / "songs" / name, io.StringIO()
    good = path.read_bytes()
    flip(path, int(at * len(good)) if isinstance(at, float) else at)
    assert not go(text).was_skipped
    assert f"songs/{name} was altered: the stage runs again" in said(text)
    assert path.read_bytes() == good
    assert go(io.StringIO()).was_skipped


def test_a_file_in_the_place_of_another_is_altered(tmp_path):
    def go():
        return ledger(tmp_path).run("songs", {}, lambda: write_kinds(tmp_path / "songs"))

    go()
    table = tmp_path / "songs" / "part-0.parquet"
    write_table(table, pa.table({"z": [0.5, 1.5, 9.5] * 9}))  # sealed as well
    assert not go().was_skipped


def test_what_was_altered_is_gone_before_the_stage_runs_again_so_that_it_takes_nothing_over(
    tmp_path,
):
    found = []

    def work():
        found.append(sorted(path.name for path in tmp_path.glob("songs/*")))
        return write_kinds(tmp_path / "songs")

    ledger(tmp_path).run("songs", {"settings": 1}, work)
    flip(tmp_path / "songs" / "song.wav", 9)
    ledger(tmp_path).run("songs", {"settings": 2}, work)  # it would run again in any case
    assert found == [[], ["part-0.parquet", "report.html"]]


@pytest.mark.parametrize("how", ["above", "absolute"])
def test_a_forged_record_removes_no_file_outside_the_run_folder(tmp_path, how):
    other = tmp_path / "other.txt"
    other.write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    run(folder, 1, [])
    path = folder / ".stages" / "stage.json"
    name = "../other.txt" if how == "above" else str(other)
    files = {"files": {name: "0" * 64}, "n_bytes": {name: 4}}
    write_json(path, {**read_json(path), **files})
    text = io.StringIO()
    assert not run(folder, 1, [], text=text).was_skipped
    assert f"{name} does not lie in the run folder" in said(text)
    assert other.read_text() == "mine"


def test_a_folder_where_a_file_should_be_is_named_and_stays(tmp_path):
    run(tmp_path, 1, [])
    path = tmp_path / "out" / "part.txt"
    path.unlink()
    path.mkdir()
    with pytest.raises(StudyError) as caught:
        run(tmp_path, 1, [])
    assert str(caught.value) == (
        f"{path} is a folder where a file should be: move it away, then give the same command "
        "again."
    )
    path.rmdir()
    assert not run(tmp_path, 1, []).was_skipped


def test_a_file_where_a_folder_should_be_is_named_and_stays(tmp_path):
    run(tmp_path, 1, [])
    (tmp_path / "out").rename(tmp_path / "away")
    (tmp_path / "out").write_text("mine")
    with pytest.raises(StudyError, match="out is a file where a folder should be: move it away"):
        run(tmp_path, 1, [])
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("depends_on", [1, 2])
def test_a_link_whose_target_is_away_ends_the_command_and_nothing_is_made_anew(
    tmp_path, depends_on
):
    root, big, calls = tmp_path / "run", tmp_path / "big", []
    root.mkdir()
    run(root, 1, calls)
    (root / "out").rename(big)
    (root / "out").symlink_to(big)
    assert run(root, 1, calls).was_skipped
    big.rename(tmp_path / "unmounted")
    with pytest.raises(StudyError, match="out/part.txt cannot be read .a link to .*/big, which"):
        run(root, depends_on, calls)
    assert len(calls) == 1
    (tmp_path / "unmounted").rename(big)
    assert run(root, 1, calls).was_skipped


def test_many_missing_files_are_counted_and_the_first_are_named(tmp_path):
    def work():
        for i in range(30):
            (tmp_path / "songs").mkdir(exist_ok=True)
            (tmp_path / "songs" / f"{i:02}.wav").write_text("a")
        return StageResult([tmp_path / "songs"], "digest")

    ledger(tmp_path).run("songs", {}, work)
    for path in tmp_path.glob("songs/*"):
        path.unlink()
    text = io.StringIO()
    ledger(tmp_path, text).run("songs", {}, work)
    assert (
        "songs/00.wav is missing; songs/01.wav is missing; songs/02.wav is missing and 27 more are "
        "not as they were written: the stage runs again"
    ) in said(text)


def test_of_large_files_size_and_seal_are_compared_and_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(ledgers, "HASHED_BYTES", 300)  # song.wav, the smallest

    def go(text):
        return ledger(tmp_path, text).run("songs", {}, lambda: write_kinds(tmp_path / "songs"))

    go(io.StringIO())
    text = io.StringIO()
    assert go(text).was_skipped
    assert "2 large files (0.0 GB) were compared by size and seal alone" in said(text)
    for name, change in {
        "song.wav": lambda path: flip(path, 9),
        "report.html": lambda path: path.write_text("short"),
        "part-0.parquet": lambda path: write_table(path, pa.table({"z": [0.5, 1.5, 9.5] * 9})),
    }.items():
        size = (tmp_path / "songs" / name).stat().st_size
        change(tmp_path / "songs" / name)
        text = io.StringIO()
        assert not go(text).was_skipped, name
        assert f"songs/{name} was altered" in said(text)
        assert (tmp_path / "songs" / name).stat().st_size == size


def test_a_large_table_whose_end_is_broken_was_altered(tmp_path, monkeypatch):
    monkeypatch.setattr(ledgers, "HASHED_BYTES", 0)

    def work():
        write_table(tmp_path / "t" / "sealed.parquet", pa.table({"z": [0.5, 1.5] * 99}))
        pq.write_table(pa.table({"z": [0.5, 1.5] * 99}), tmp_path / "t" / "plain.parquet")
        return StageResult([tmp_path / "t"], "digest")

    ledger(tmp_path).run("t", {}, work)
    assert ledger(tmp_path).run("t", {}, work).was_skipped  # one without a seal, too
    size = (tmp_path / "t" / "sealed.parquet").stat().st_size
    for name, places in {"sealed": (1, 7, 8), "plain": (1, 7, 9, 60)}.items():
        for place in places:  # from the end: the magic, the size of the footer, the footer
            path = tmp_path / "t" / f"{name}.parquet"
            flip(path, path.stat().st_size - place)
            text = io.StringIO()
            assert not ledger(tmp_path, text).run("t", {}, work).was_skipped, (name, place)
            assert f"t/{name}.parquet was altered" in said(text)
    assert (tmp_path / "t" / "sealed.parquet").stat().st_size == size


def test_no_flipped_bit_of_a_record_gives_another_value(tmp_path):
    calls = []
    first = run(tmp_path, 1, calls)
    path = tmp_path / ".stages" / "stage.json"
    good = path.read_bytes()
    for at in range(len(good)):
        for bit in (1, 4, 32):
            path.write_bytes(good)
            flip(path, at, bit)
            record = run(tmp_path, 1, calls)
            assert (record.digest, record.facts) == (first.digest, first.facts), (at, bit)
    path.write_bytes(good)
    flip(path, 30)
    text = io.StringIO()
    assert not run(tmp_path, 1, calls, text=text).was_skipped
    assert f"{path} was altered: the stage runs again" in said(text)
    path.write_text('{"key": "k", "digest": "d"}')
    run(tmp_path, 1, calls, text=text)
    assert f"{path} has no seal (an earlier version wrote it, or" in said(text)


def test_a_sealed_file_that_is_no_record_is_named_and_the_stage_runs(tmp_path):
    write_json(tmp_path / ".stages" / "stage.json", {"key": "k"})
    text = io.StringIO()
    assert not run(tmp_path, 1, [], text=text).was_skipped
    assert "stage.json was altered: the stage runs again" in said(text)


def test_the_hash_of_a_table_is_that_in_its_seal_and_no_second_one_is_made(tmp_path):
    write_kinds(tmp_path / "songs")
    path = tmp_path / "songs" / "part-0.parquet"
    record = hashes_of(tmp_path, [tmp_path / "songs"])
    assert record["files"]["songs/part-0.parquet"] == read_seal(path)
    assert record["n_bytes"]["songs/part-0.parquet"] == path.stat().st_size


# Failed and stopped


def test_a_stage_that_failed_is_not_done(tmp_path):
    calls = []
    run(tmp_path, 1, calls)

    def fails():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        ledger(tmp_path).run("stage", {"input": 2}, fails)
    assert not run(tmp_path, 2, calls).was_skipped


def test_a_stage_that_was_told_to_stop_is_not_recorded_though_it_came_back(tmp_path, monkeypatch):
    def stop():
        raise stopping.Stopped(2)

    with monkeypatch.context() as patch:
        patch.setattr(stopping, "check", stop)
        with pytest.raises(stopping.Stopped):
            run(tmp_path, 1, [])
    assert not run(tmp_path, 1, []).was_skipped


@pytest.mark.parametrize("work", [
    lambda root, names: hashes_of(root, [root / name for name in names]),
    lambda root, names: compare(root, {"files": dict.fromkeys(names, "x"),
                                       "n_bytes": dict.fromkeys(names, LARGE)}),
])  # fmt: skip
def test_a_stop_does_not_wait_until_large_files_are_hashed(tmp_path, work):
    names = [f"part-{i}" for i in range(12)]
    for name in names:
        with (tmp_path / name).open("wb") as file:
            file.truncate(LARGE)
    told = []

    def tell():
        told.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    timer = threading.Timer(0.2, tell)
    timer.start()
    assert run_command(lambda console: work(tmp_path, names)) == 143
    assert time.monotonic() - told[0] < 1.5
    assert not [thread for thread in threading.enumerate() if "Pool" in thread.name]


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    (tmp_path / ".latents.12345678.tmp").mkdir()
    (tmp_path / ".trials.12345678.tmp.parquet").write_text("x")
    run(tmp_path, 1, [])
    assert {p.name for p in tmp_path.iterdir()} == {"out", ".stages"}


# The lock


def test_a_folder_in_use_is_refused_and_named(tmp_path):
    refused = pytest.raises(FolderInUseError, match=r"in use by process \d+ on")
    with locked(tmp_path), refused, locked(tmp_path):
        pass
    with locked(tmp_path):  # free again
        pass


def test_a_folder_is_looked_at_by_many_and_never_while_a_study_writes_to_it(tmp_path):
    with undisturbed(tmp_path):
        assert list(tmp_path.iterdir()) == []
    with locked(tmp_path), pytest.raises(FolderInUseError), undisturbed(tmp_path):
        pass
    (tmp_path / ".lock").write_text("process 1 on a host")  # a study that was killed left it
    refused = pytest.raises(FolderInUseError, match="in use by a check of its files")
    with undisturbed(tmp_path), undisturbed(tmp_path), refused, locked(tmp_path):
        pass


def test_a_file_that_cannot_be_read_for_now_is_neither_removed_nor_made_anew(tmp_path, monkeypatch):
    calls = []
    run(tmp_path, 1, calls)

    def away(*args):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(hashes, "file_sha256", away)
    with pytest.raises(StudyError, match=r"part\.txt cannot be read \(Input/output error\)"):
        run(tmp_path, 1, calls)
    monkeypatch.undo()
    assert run(tmp_path, 1, calls).was_skipped
    assert len(calls) == 1


def test_hidden_files_of_others_stay_though_their_names_end_as_ours_do(tmp_path):
    others = [".bashrc.old", ".notes.v1.old"]
    for name in others:
        (tmp_path / name).write_text("mine")
    retired = tmp_path / ".songs.0123abcd.old"
    retired.mkdir()
    run(tmp_path, 1, [])
    assert sorted(p.name for p in tmp_path.iterdir()) == [*others, ".stages", "out", "songs"]


def two_stages(folder, meanwhile, text=None):
    """A stage that writes two files, and one during which ``meanwhile`` happens."""

    def first():
        for name in ("a.txt", "b.txt"):
            path = folder / "out" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(name)
        return StageResult([folder / "out"], "digest")

    def second():
        meanwhile(folder / "out" / "a.txt")
        return StageResult([], "other")

    stages = ledger(folder, text)
    return [stages.run(name, {}, work) for name, work in (("first", first), ("second", second))]


def altered(path):
    """Alter a file, and keep its size and time."""
    facts = path.stat()
    path.write_text("x.txt")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))


@pytest.mark.parametrize(
    ("meanwhile", "fault"), [(os.unlink, "is missing"), (altered, "was altered")]
)
def test_an_earlier_file_that_goes_or_changes_while_a_stage_runs_ends_it(
    tmp_path, meanwhile, fault
):
    with pytest.raises(StudyError, match=f"a.txt {fault} since the stage of the second began"):
        two_stages(tmp_path, meanwhile)
    assert not (tmp_path / ".stages" / "second.json").exists()
    text = io.StringIO()
    again = two_stages(tmp_path, lambda path: None, text)
    assert [record.was_skipped for record in again] == [False, False]
    assert "a.txt" in text.getvalue()
    assert all(record.was_skipped for record in two_stages(tmp_path, meanwhile))


def test_an_earlier_file_that_is_only_touched_is_the_same(tmp_path):
    records = two_stages(tmp_path, lambda path: os.utime(path, (1, 1)))
    assert [record.key for record in records] == [
        record.key for record in two_stages(tmp_path, os.unlink)
    ]


def test_while_a_stage_runs_again_the_old_report_is_named_once(tmp_path):
    report = tmp_path / "report.html"

    def stages():
        text = io.StringIO()
        made = Ledger(tmp_path, tmp_path / ".stages", Console(text), 3, report)
        for name, depends_on in (("a", {}), ("b", {"n": n}), ("c", {"n": n})):
            made.run(name, depends_on, lambda: StageResult([], "digest"))
        return " ".join(text.getvalue().split()).count("report.html and the tables beside it are")

    n = 1
    assert stages() == 0  # there is none
    report.touch()
    assert stages() == 0  # all is skipped
    n = 2
    assert stages() == 1
