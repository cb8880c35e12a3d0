"""What Ray needs of a machine: each fault is named, and another place is taken where there is one.

Faults that take a file system of their own are made by functions that fail as there.
"""

import collections
import contextlib
import errno
import fcntl
import os
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from study.base import private
from study.base.paths import ROOT
from study.cluster import surroundings as module
from study.cluster.surroundings import ResourceError, folder_fault, surroundings

VARIABLES = ("RAY_TMPDIR", "TMPDIR", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE",
             "NUMBA_CACHE_DIR", "HOME")  # fmt: skip
Usage = collections.namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """An environment of its own, with a short folder that Ray can use."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "x")  # so that what a test sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def fails(number):
    def function(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return function


def long_folder(tmp_path, n_bytes, letter="x"):
    """A folder whose path has ``n_bytes`` bytes."""
    room = n_bytes - len(os.fsencode(tmp_path)) - 1
    width = len(letter.encode())
    path = tmp_path / (letter * (room // width) + "y" * (room % width))
    path.mkdir(parents=True)
    assert len(os.fsencode(path)) == n_bytes
    return path


@pytest.fixture
def short(monkeypatch):
    """A folder with a short path."""
    path = Path("/tmp") / f"b{os.getpid()}"
    path.mkdir()
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("letter", ["x", "é", "録", "\U0001f426"])
def test_a_folder_may_be_so_long_that_rays_longest_socket_has_a_name(short, letter):
    assert folder_fault(short) == ""
    session = f"/ray/session_2026-11-27_14-03-45_430249_{os.getpid()}/sockets/plasma_store"
    longest = 107 - len(session)
    with socket.socket(socket.AF_UNIX) as one, pytest.raises(OSError, match="too long"):
        one.bind("/tmp/" + "x" * 103)  # 108 bytes: what the system itself takes
    assert folder_fault(long_folder(short, longest, letter)) == ""
    fault = folder_fault(long_folder(short, longest + 1, letter))
    assert fault == (
        "is 1 bytes too long: a socket of Ray would have a name of 108 bytes there, and 107 are "
        "the most"
    )


def test_each_fault_of_a_folder_is_named(short, monkeypatch):
    assert folder_fault(short / "none") == "does not exist"
    (short / "file").write_text("")
    assert folder_fault(short / "file") == "is not a folder"
    assert folder_fault(Path("tmp")) == "is not an absolute path"
    (short / "ray").write_text("")  # where Ray wants its folder
    assert "cannot be written to (Not a directory)" in folder_fault(short)
    (short / "ray").unlink()
    for place, name, number, words in (
        (fcntl, "flock", errno.ENOLCK, "has no locks (No locks available)"),
        (fcntl, "flock", errno.EOPNOTSUPP, "has no locks (Operation not supported)"),
        (module.tempfile, "TemporaryDirectory", errno.EACCES, "cannot be written to (Permission"),
        (module.tempfile, "TemporaryDirectory", errno.EROFS, "cannot be written to (Read-only"),
        (Path, "write_bytes", errno.ENOSPC, "cannot be written to (No space left on device)"),
        (Path, "write_bytes", errno.EDQUOT, "cannot be written to (Disk quota exceeded)"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, fails(number))
            assert words in folder_fault(short)
    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "disk_usage", lambda path: Usage(0, 0, 99_000_000))
        assert folder_fault(short) == "has 99 MB free"

    class Socket(socket.socket):
        bind = fails(errno.EOPNOTSUPP)

    with monkeypatch.context() as patch:
        patch.setattr(module.socket, "socket", Socket)
        assert folder_fault(short) == "has no sockets (Operation not supported)"
    assert list(short.iterdir()) == [short / "file"]


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_another_folder_is_taken_and_said_where_the_one_that_was_set_does_not_work(
    name, monkeypatch, tmp_path
):
    long = long_folder(tmp_path, 200)
    for bad in (str(long), "/nowhere/at/all", "relative"):
        monkeypatch.setenv(name, bad)
        found = surroundings()
        assert found.folder == Path("/tmp")
        assert found.options["_temp_dir"] == "/tmp/ray"
        assert found.notes[0].startswith(f"{name} ({bad}) ")
        assert found.notes[0].endswith(": Ray's files are in /tmp/ray.")
        assert os.environ["RAY_TMPDIR"] == "/tmp"
        monkeypatch.delenv("RAY_TMPDIR")


def test_a_folder_that_works_is_rays_own_choice(monkeypatch, short):
    monkeypatch.setenv("TMPDIR", str(short))
    found = surroundings()
    assert (found.folder, found.notes) == (short, [])
    assert "RAY_TMPDIR" not in os.environ
    monkeypatch.delenv("TMPDIR")
    assert surroundings().folder == Path("/tmp")


def test_a_folder_of_our_own_is_taken_where_tmp_ray_belongs_to_somebody_else(monkeypatch):
    real = module.folder_fault
    monkeypatch.setattr(
        module, "folder_fault", lambda f: "cannot be used" if f == Path("/tmp") else real(f)
    )
    found = surroundings()
    assert found.folder == Path(f"/tmp/ray-{os.getuid()}")
    assert found.folder.stat().st_mode & 0o777 == 0o700
    assert "the usual folder (/tmp) cannot be used" in found.notes[0]
    with contextlib.suppress(OSError):  # it may have been there before, with content
        found.folder.rmdir()


def test_without_any_folder_all_are_named_with_the_remedy(monkeypatch):
    monkeypatch.setenv("TMPDIR", "/nowhere")
    monkeypatch.setattr(module.tempfile, "TemporaryDirectory", fails(errno.EACCES))
    with pytest.raises(ResourceError) as error:
        surroundings()
    for words in ("TMPDIR (/nowhere) does not exist", "(/tmp) cannot be written to (Permission den",
                  "Set RAY_TMPDIR to a folder with a short name"):  # fmt: skip
        assert words in str(error.value)
    assert error.value.exit_code == 2


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm is of Linux")
def test_memory_that_cannot_be_shared_is_replaced_by_files_and_said(monkeypatch, short):
    monkeypatch.setenv("TMPDIR", str(short))
    assert "_plasma_directory" not in surroundings().options
    for change, words in (
        (("_SHARED", short / "none"), "cannot be used (No such file or directory)"),
        (("_FEW_SHARED", 10**18), "--shm-size=2gb gives more"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, *change)
            found = surroundings()
        assert found.options["_plasma_directory"] == str(short / "ray")
        assert words in found.notes[0]
        assert "which is slower" in found.notes[0]


def test_ray_has_a_token_where_no_file_can_hold_it(monkeypatch, short, tmp_path):
    monkeypatch.setenv("TMPDIR", str(short))
    assert surroundings().notes == []
    for home in ("/nowhere", "", "relative", str(short / "file")):
        (short / "file").write_text("")
        monkeypatch.setenv("HOME", home)
        monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
        (note,) = surroundings().notes
        assert note.startswith(f"HOME ({home or 'not set'}) cannot be written to")
        token = os.environ["RAY_AUTH_TOKEN"]
        assert len(token) == 64
        assert token not in note
        assert surroundings().notes == []  # it has one by now
        assert os.environ["RAY_AUTH_TOKEN"] == token
    assert not Path("/nowhere").exists()
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    for name, value in (("RAY_AUTH_MODE", "disabled"), ("RAY_AUTH_TOKEN_PATH", "/some/file")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert surroundings().notes == []
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_a_limit_of_open_files_that_ray_would_reach_is_refused(monkeypatch):
    for hard, is_enough in (
        (256, False),
        (511, False),
        (512, True),
        (resource.RLIM_INFINITY, True),
    ):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, hard=hard: (min(hard, 99), hard))
        if is_enough:
            assert surroundings().folder
        else:
            with pytest.raises(ResourceError, match=rf"{hard} files may be open .*ulimit -Hn"):
                surroundings()


# Folders of one user


def test_a_private_folder_is_of_this_user_alone(tmp_path):
    folder = private.private_folder(tmp_path)
    assert folder == private.private_folder(tmp_path)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match="not of this user alone"):
        private.private_folder(tmp_path)
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError):
        private.private_folder(tmp_path)


def test_compiled_code_has_a_folder_where_the_home_folder_cannot_hold_it(monkeypatch, tmp_path):
    private.keep_compiled_code()
    assert "NUMBA_CACHE_DIR" not in os.environ
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.setattr(private.tempfile, "gettempdir", lambda: str(tmp_path))
    private.keep_compiled_code()
    assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / f"ray-{os.getuid()}" / "numba")
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    (tmp_path / f"ray-{os.getuid()}").chmod(0o777)  # somebody else may have put code there
    private.keep_compiled_code()
    assert Path(os.environ["NUMBA_CACHE_DIR"]).parent.name.startswith("numba-")
    Path(os.environ["NUMBA_CACHE_DIR"]).parent.rmdir()


def test_the_command_makes_that_folder_before_numba_is_imported():
    code = "import study.run_tune, numba; print(numba.config.CACHE_DIR)"  # read when imported
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "HOME": "/nowhere"},
    )  # fmt: skip
    assert done.stdout.strip().endswith(f"ray-{os.getuid()}/numba")
