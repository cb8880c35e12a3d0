"""What a kill or a power cut leaves: the old content or the new one, and a study that goes on."""

import re
import shutil
import subprocess
import sys
import uuid
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import pytest

from data_io import files
from data_io.files import BrokenSealError, read_json, remove_leftovers, write_json
from study.base.paths import ROOT
from tests.helpers.crash_disk import Disk, build, states_while

SYNC = files.sync


def write(folder, value):
    """Replace a file and a folder by others; what says so in ``log.json`` comes last."""
    write_json(folder / "a.json", {"value": value})
    with files.atomic_dir(folder / "both") as temporary:
        for name in ("one", "two"):
            (temporary / name).write_text(value)
    write_json(folder / "log.json", {"value": value})


def fault(folder):
    """Why a folder is neither as before nor as after `write`; "" where it is one of them."""
    remove_leftovers(folder)
    try:
        value, log = (read_json(folder / f"{name}.json") for name in ("a", "log"))
    except BrokenSealError as error:
        return str(error)
    texts = {path.name: path.read_text() for path in folder.glob("both/*")}
    if texts not in [dict.fromkeys(("one", "two"), text) for text in ("old", "new")]:
        return f"the folder holds {texts}"
    if value["value"] not in ("old", "new") or log["value"] not in ("old", "new"):
        return "another value"
    if log["value"] == "new" and (value["value"], texts["one"]) != ("new", "new"):
        return "the log is ahead"
    return ""


@contextmanager
def old_first(path):
    """As `atomic_dir` was not to be: what is there goes before the new one is."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.mkdir()
    yield temporary
    files.sync_tree(temporary)
    shutil.rmtree(path)
    temporary.replace(path)
    files.sync(path.parent)


FAULTS = {
    "none": nullcontext(),
    "folders are not synced": mock.patch.object(
        files, "sync", lambda path: None if path.is_dir() else SYNC(path)
    ),
    "content is not synced": mock.patch.object(
        files, "sync", lambda path: SYNC(path) if path.is_dir() else None
    ),
    "the old one goes first": mock.patch.object(files, "atomic_dir", old_first),
}


@pytest.mark.parametrize("put_back", FAULTS)
def test_what_replaces_something_is_old_or_new_at_every_point_and_a_fault_put_back_is_found(
    tmp_path, put_back
):
    folder = tmp_path / "disk"
    folder.mkdir()
    write(folder, "old")

    def work():
        with FAULTS[put_back]:
            write(folder, "new")

    states, blobs = states_while(folder, work)
    assert len(states) > 20
    found = set()
    for i, state in enumerate(states):
        (again := tmp_path / str(i)).mkdir()
        build(state, blobs, again)
        found.add(fault(again))
    assert (found == {""}) == (put_back == "none"), found


def test_states_of_a_disk_tell_names_from_content(tmp_path):
    (tmp_path / "kept").write_text("before")
    (tmp_path / "gone").write_text("before")
    disk = Disk(tmp_path)
    (tmp_path / "kept").write_text("afterwards")
    (tmp_path / "new").write_text("afterwards")  # first: else it may get the inode of "gone"
    (tmp_path / "gone").unlink()
    disk.look()

    def states():
        return {
            kind: {path: disk.blobs[entry[0]].decode() for path, entry in tree}
            for kind, tree in disk.states().items()
        }

    assert states() == {
        "as it is": {"kept": "afterwards", "new": "afterwards"},
        "half written": {"kept": "after", "new": "after"},
        "synced alone": {"kept": "before", "gone": "before"},
        "names first": {"kept": "before", "new": ""},
        "removals first": {"kept": "before"},
    }
    with (tmp_path / "new").open("rb") as file:
        disk.synced(file.fileno())
    assert states()["names first"] == {"kept": "before", "new": "afterwards"}
    assert states()["synced alone"] == {"kept": "before", "gone": "before"}


def test_a_rename_is_whole_or_not_there(tmp_path):
    (tmp_path / "a").write_text("a")
    disk = Disk(tmp_path)
    (tmp_path / "a").replace(tmp_path / "b")
    disk.look()
    names = {kind: [path for path, _ in tree] for kind, tree in disk.states().items()}
    assert names["as it is"] == names["names first"] == ["b"]
    assert names["synced alone"] == names["removals first"] == ["a"]


@pytest.mark.slow
def test_a_study_that_is_cut_off_ends_with_equal_results(tmp_path):
    """In part; `python -m benchmarks.crash_points` tries every state."""
    memory = Path("/dev/shm")
    command = [sys.executable, "-m", "benchmarks.crash_points", "--every", "150", "--first", "9"]
    command += ["--memory", str(memory if memory.is_dir() else tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pattern = r"^\| all \| \| (\d+) \| (\d+) \| (\d+) \| 0 \| 0 \|$"
    (row,) = re.findall(pattern, done.stdout, re.MULTILINE)
    points, states, equal = map(int, row)
    assert points > 800
    assert states == equal > 10
