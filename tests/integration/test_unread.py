"""Recordings that the system does not give for now: named, tried again, and nothing else."""

import os
import shutil
from pathlib import Path

import pytest

from data_io.recordings import bird_age
from data_io.store import read_recordings
from study.base.ledger import read_record
from study.base.paths import RunPaths
from tests.helpers.tiny_study import TinyStudy, skipped

pytestmark = pytest.mark.integration

REFUSED = "cannot be read for now: Permission denied"


@pytest.fixture
def withheld(monkeypatch):
    """Names of files that nobody may open."""
    names, real = set(), Path.open

    def guarded(path, *args, **kwargs):
        if path.name in names:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", guarded)
    return names


@pytest.fixture
def tried(monkeypatch):
    """Names of the files that were checked."""
    found, check = [], bird_age.check_file

    def noting(root, listed, params):
        found.append(Path(listed.path).name)
        return check(root, listed, params)

    monkeypatch.setattr(bird_age, "check_file", noting)
    return found


def test_a_recording_that_could_not_be_read_is_named_and_tried_again_alone(
    tmp_path, withheld, tried
):
    study = TinyStudy(tmp_path / "study")
    paths = RunPaths(study.out)
    away = sorted((study.data / "sim1" / "45").rglob("*.wav"))[1]
    withheld.add(away.name)
    code, text = study.command()
    assert code == 0, text
    named = f"{away.relative_to(study.data)} (Permission denied)"
    said = " ".join(text.split())
    assert f"1 recording cannot be read for now and is left out: {named}" in said
    assert "See to the disk" in said
    (row,) = (one for one in read_recordings(paths.recordings) if not one.is_used)
    assert row.reason == REFUSED
    data = read_record(paths.stages / "recordings.json")["digest"]

    tried.clear()
    code, text = study.command()
    assert code == 0, text
    assert tried == [away.name]
    assert named in " ".join(text.split())
    stages = ["labels", "trials", "trial figures", "latents", "hmm", "checks", "songs", "report"]
    assert skipped(text) == stages
    assert read_record(paths.stages / "recordings.json")["digest"] == data
    assert not list(study.out.glob("search-before-*"))

    tried.clear()
    withheld.clear()
    code, text = study.command()
    assert code == 0, text
    assert tried == [away.name]
    assert "cannot be read for now" not in " ".join(text.split())
    assert read_recordings(paths.recordings).is_used.all()

    tried.clear()
    _, text = study.command()
    assert tried == []
    assert skipped(text) == ["recordings", *stages]


def test_a_study_does_not_begin_while_a_folder_of_a_bird_cannot_be_listed(tmp_path, monkeypatch):
    study = TinyStudy(tmp_path / "study")
    shutil.copytree(study.data / "sim1", study.data / "sim2")
    real = os.scandir

    def guarded(path="."):
        if not isinstance(path, int) and Path(path).name == "sim2":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", guarded)
    for options, code in ((), 2), (["--doctor"], 2), (["--dry-run"], 0):
        given, text = study.command(options=options)
        said = " ".join(text.split())
        assert given == code, text
        if not options:
            assert f"cannot be listed: {study.data / 'sim2'} (Permission denied)" in said
        if code:
            assert "write it into birds.csv with exclude=yes, or move the folder out of" in said
        else:
            assert "Look: sim2 cannot be listed: Permission denied" in said
        assert not study.out.exists()
