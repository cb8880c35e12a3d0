"""MLflow writes to the file that was named; Ray starts, or one sentence says why not."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from study.base.paths import ROOT
from study.tracking.client import Mlflow


@pytest.mark.parametrize(
    "name",
    ["a%20b", "a?b=c", "100%", "%2520", "a#b", "new\nline", "trailing ", "-dash", "\U0001f426",
     "e\u0301", "~", "$HOME", "it's \"q\"", "a:b@c", "back\\slash"],
)  # fmt: skip
def test_mlflow_writes_to_the_sqlite_file_that_was_named(name, tmp_path):
    folder = tmp_path / name
    client = Mlflow(f"sqlite:///{folder / 'my?%20.db'}", "study")
    client.create_run({}, "run", 1)
    assert {path.name for path in folder.iterdir()} >= {"my?%20.db", "my?%20.db.lock"}
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.fixture
def short():
    path = Path("/tmp") / f"b{os.getpid()}"
    path.mkdir()
    yield path
    shutil.rmtree(path)


def doctor(out, limit=None, **environment):
    """The doctor's exit code and what it printed, in an environment."""
    command = [sys.executable, str(ROOT / "study" / "run_tune.py"), "--preset", "smoke", "--doctor",
               "--out", str(out / "run"), "--tracking-uri", f"sqlite:///{out}/m.db"]  # fmt: skip
    begin = limit and (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)))
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, preexec_fn=begin,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert "Traceback" not in done.stderr + done.stdout
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_ray_starts_in_the_longest_folder_that_is_taken_for_short_enough(short, tmp_path):
    # Process ids have up to seven digits; the command's own is not known here.
    room = 107 - len("/ray/session_2026-11-27_14-03-45_430249_1234567/sockets/plasma_store")
    longest = short / ("x" * (room - len(str(short)) - 1))
    longest.mkdir()
    code, text = doctor(tmp_path, TMPDIR=str(longest))
    assert (code, f"sockets and locks in {longest}/ray" in text) == (0, True), text
    too_long = short / ("x" * 80)
    too_long.mkdir()
    code, text = doctor(tmp_path, TMPDIR=str(too_long))
    assert code == 0, text
    assert "sockets and locks in /tmp/ray" in text
    assert "bytes too long: a socket of Ray would have a name of" in text


def test_ray_starts_without_a_home_folder_and_leaves_none(tmp_path):
    home = tmp_path / "none"
    without = {"RAY_AUTH_TOKEN_PATH": "", "HOME": str(home)}
    code, text = doctor(tmp_path, **without)
    assert code == 0, text
    assert "cannot be written to: Ray's token is in no file" in text
    assert not home.exists()


def test_too_few_open_files_are_refused_in_one_sentence(tmp_path):
    code, text = doctor(tmp_path, limit=256)
    assert code == 2
    assert text.endswith("8192 is a good number.")
