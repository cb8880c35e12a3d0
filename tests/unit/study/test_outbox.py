"""What is appended to an outbox is there after any kill, and nothing else is."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from study.base.paths import ROOT
from study.tracking.outbox import Operation, Outbox


def numbers(outbox):
    return [operation.number for operation, _ in outbox.replay()]


def filled(folder, n=3):
    outbox = Outbox(folder)
    return outbox, [outbox.append(f"run {i % 2}", "kind", {"i": i, "ü": "ö"}) for i in range(n)]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_operations_come_back_in_order_with_what_came_of_them(tmp_path):
    outbox, operations = filled(tmp_path / "box")
    outbox.done(operations[0], {"run_id": "abc"})
    outbox.refuse(operations[2], "no such thing")
    again = Outbox(tmp_path / "box")
    assert [operation for operation, _ in again.replay()] == operations
    assert operations[1] == Operation(2, "run 1", "kind", {"i": 1, "ü": "ö"})
    results = [result for _, result in again.replay()]
    assert results[0]["run_id"] == "abc"
    assert results[1] is None
    assert results[2]["refused"] == "no such thing"
    assert again.n_broken == 0
    assert again.append("run 0", "kind", {}).number == 4


def test_what_is_refused_is_kept_whole_with_its_reason(tmp_path):
    outbox, operations = filled(tmp_path)
    outbox.refuse(operations[1], "no such thing")
    (kept,) = lines(outbox.refused_path)
    assert kept["content"] == {"i": 1, "ü": "ö"}
    assert kept["reason"] == "no such thing"


def test_a_line_cut_at_any_byte_is_cut_off_and_the_rest_stays(tmp_path):
    _, operations = filled(tmp_path)
    path = tmp_path / "operations.jsonl"
    whole = path.read_bytes()
    before_last = whole[:-1].rfind(b"\n") + 1
    for end in range(before_last, len(whole)):
        path.write_bytes(whole[:end])
        outbox = Outbox(tmp_path)
        assert numbers(outbox) == [1, 2], end
        assert outbox.n_broken == 0
        outbox.append("run 0", "after", {})
        assert [(o.number, o.kind) for o, _ in Outbox(tmp_path).replay()][2:] == [(3, "after")]


def test_a_line_broken_among_others_is_left_out_and_counted(tmp_path):
    filled(tmp_path, 4)
    path = tmp_path / "operations.jsonl"
    text = path.read_bytes().splitlines(keepends=True)
    for broken in (b"\0" * 40 + b"\n", b'{"number": 2}\n', b"[]\n"):
        path.write_bytes(b"".join([text[0], broken, *text[2:]]))
        outbox = Outbox(tmp_path)
        assert numbers(outbox) == [1, 3, 4]
        assert outbox.n_broken == 1


def test_a_broken_note_lets_its_operation_be_delivered_again(tmp_path):
    outbox, operations = filled(tmp_path)
    for operation in operations:
        outbox.done(operation, {})
    path = tmp_path / "done.jsonl"
    text = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(text[0] + b"{\n" + text[2][:-3])
    assert [result is None for _, result in Outbox(tmp_path).replay()] == [False, True, True]


def test_no_number_is_given_again_though_operations_were_lost(tmp_path):
    # After a loss of power, done.jsonl may know more than operations.jsonl.
    outbox, operations = filled(tmp_path)
    outbox.done(operations[2], {})
    path = tmp_path / "operations.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    again = Outbox(tmp_path)
    assert again.append("run 0", "kind", {}).number == 4
    assert [result for _, result in Outbox(tmp_path).replay()] == [None, None]


@contextmanager
def disk_of(n_bytes):
    """No file may become larger than ``n_bytes``, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 1, 30])
def test_a_full_disk_is_an_error_and_changes_nothing(tmp_path, room):
    outbox, operations = filled(tmp_path)
    path = tmp_path / "operations.jsonl"
    before = path.read_bytes()
    for _ in range(2):
        with disk_of(len(before) + room), pytest.raises(OSError, match="File too large"):
            outbox.append("run 0", "kind", {"text": "x" * 100})
        assert path.read_bytes() == before
    outbox.append("run 0", "after", {})
    assert [o.kind for o, _ in Outbox(tmp_path).replay()] == ["kind"] * 3 + ["after"]
    assert len(set(numbers(Outbox(tmp_path)))) == 4
    # The same for what is noted of them.
    outbox.done(operations[0], {})
    with disk_of((tmp_path / "done.jsonl").stat().st_size + room), pytest.raises(OSError):
        outbox.done(operations[1], {"text": "x" * 100})
    results = [result for _, result in Outbox(tmp_path).replay()]
    assert [result is None for result in results] == [False, True, True, True]


def test_an_error_of_the_disk_at_the_last_moment_changes_nothing(tmp_path, monkeypatch):
    outbox, _ = filled(tmp_path)
    before = (tmp_path / "operations.jsonl").read_bytes()

    def fail(file):
        raise OSError(122, "Disk quota exceeded")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="quota"):
        patch.setattr(os, "fdatasync", fail)
        outbox.append("run 0", "kind", {})
    assert (tmp_path / "operations.jsonl").read_bytes() == before


def test_a_folder_that_was_deleted_is_an_error(tmp_path):
    outbox, _ = filled(tmp_path / "box")
    for path in (tmp_path / "box").iterdir():
        path.unlink()
    (tmp_path / "box").rmdir()
    with pytest.raises(FileNotFoundError):
        outbox.append("run 0", "kind", {})


def test_content_that_is_no_json_is_refused_before_it_is_written(tmp_path):
    outbox, _ = filled(tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        outbox.append("run 0", "kind", {"a": float("nan")})
    assert numbers(Outbox(tmp_path)) == [1, 2, 3]


def test_threads_append_one_after_the_other(tmp_path):
    outbox = Outbox(tmp_path)
    threads = [
        threading.Thread(target=lambda: [outbox.append("run", "kind", {}) for _ in range(50)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers(Outbox(tmp_path)) == list(range(1, 201))


CHILD = """
import sys
from pathlib import Path
from study.tracking.outbox import Outbox
outbox = Outbox(Path(sys.argv[1]))
while True:
    operation = outbox.append("run", "kind", {"text": "x" * 5000})
    outbox.done(operation, {})
    print(operation.number, flush=True)
"""


def test_a_killed_process_loses_nothing_that_it_appended(tmp_path):
    rng = random.Random(0)
    said = set()
    for _ in range(5):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path)],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        )  # fmt: skip
        for _ in range(rng.randrange(20, 120)):
            said.add(int(child.stdout.readline()))
        child.send_signal(signal.SIGKILL)
        rest, _ = child.communicate()
        said |= set(map(int, rest.split()))
        outbox = Outbox(tmp_path)
        found = list(outbox.replay())
        assert [o.number for o, _ in found] == list(range(1, len(found) + 1))
        assert said <= {o.number for o, result in found if result is not None}
        assert outbox.n_broken == 0
