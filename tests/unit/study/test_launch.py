"""Tune's own folder: one for each search, none left by those that were killed."""

import fcntl
import os
import tempfile

from study.search.launch import NEW_S, SCRATCH, _scratch


def folder(parent, name, age_s):
    path = parent / f"{SCRATCH}{name}"
    path.mkdir()
    (path / "tuner.pkl").write_bytes(b"x")
    then = path.stat().st_mtime - age_s
    os.utime(path, (then, then))
    return path


def test_folders_of_killed_searches_are_removed_and_those_in_use_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = folder(tmp_path, "left", 2 * NEW_S)
    in_use = folder(tmp_path, "in-use", 2 * NEW_S)
    just_made = folder(tmp_path, "just-made", 0)
    of_others = tmp_path / "tune-other"
    of_others.mkdir()
    opened = os.open(in_use, os.O_RDONLY)
    fcntl.flock(opened, fcntl.LOCK_EX)  # as its process holds it
    with _scratch() as ours, _scratch() as second:
        assert ours.stat().st_mode & 0o077 == 0
        assert ours != second
        assert sorted(tmp_path.iterdir()) == sorted([in_use, just_made, of_others, ours, second])
    os.close(opened)
    assert not left.exists()
    assert sorted(tmp_path.iterdir()) == sorted([in_use, just_made, of_others])
