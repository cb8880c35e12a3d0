"""The journal of the HMM stage: an entry counts when it is whole, and never otherwise."""

import dataclasses
import errno
import json
import os
from io import StringIO

import numpy as np
import pytest

from data_io.song_models import SongModel
from data_io.store import BrokenFileError
from models.hmm import HmmParams
from study.base.console import Console
from study.base.paths import RunPaths
from study.hmms import journal as hmm_journal
from study.hmms.journal import Journal, journal_folder, journal_key, remove_journal
from study.hmms.tables import Searched

BIRD_AGE, LATER = ("sim1", "45"), ("sim1", "60")
ROWS = [{"n_states": 3, "bic": 0.1 + 0.2, "icl": None, "status": "ok", "converged": True}]
SELECTED = {"status": "ok", "n_states": 3}


def model(n_states=3, latent_dim=2, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(n_states,), (n_states, n_states), (n_states, latent_dim), (n_states, latent_dim)]
    arrays = [rng.random(shape) for shape in shapes]
    whitening = rng.random(latent_dim), rng.random(latent_dim)
    return SongModel(*arrays, "diag", *whitening, np.arange(n_states), None, None, 16)


@pytest.fixture
def text():
    return StringIO()


@pytest.fixture
def journal(tmp_path, text):
    return Journal(tmp_path / ".hmm", "key", Console(text))


def reopened(tmp_path, text, key="key"):
    return Journal(tmp_path / ".hmm", key, Console(text))


def files(tmp_path):
    return sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())


def test_an_entry_comes_back_as_it_was_to_the_last_bit(tmp_path, journal, text):
    saved = Searched(ROWS, SELECTED, model())
    journal.save(BIRD_AGE, saved)
    journal.save(LATER, Searched(ROWS, SELECTED, None))
    again = reopened(tmp_path, text)
    read = again.read(BIRD_AGE)
    assert (read.fits, read.selected) == (ROWS, SELECTED)
    for field in dataclasses.fields(SongModel):
        one, other = getattr(read.model, field.name), getattr(saved.model, field.name)
        np.testing.assert_array_equal(one, other)
    assert again.read(LATER) == Searched(ROWS, SELECTED, None)
    assert again.load(("sim2", "45")) is None
    assert text.getvalue() == ""


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


BREAKS = {
    "json cut short": lambda npz, js: js.write_bytes(js.read_bytes()[:-20]),
    "json empty": lambda npz, js: js.write_bytes(b""),
    "json of nothing": lambda npz, js: js.write_text("[]"),
    "a digit of a row": lambda npz, js: js.write_text(js.read_text().replace("0.3000", "0.3001")),
    "a flag": lambda npz, js: js.write_text(js.read_text().replace("true", "false", 1)),
    "no model": lambda npz, js: js.write_text(
        js.read_text().replace('has_model\\": true', 'has_model\\": false')
    ),
    "no UTF-8": lambda npz, js: flip(js, 0) or js.write_bytes(b"\xff" + js.read_bytes()),
    "another type": lambda npz, js: js.write_text(
        json.dumps({**json.loads(js.read_text()), "entry": 5})
    ),
    "npz cut short": lambda npz, js: npz.write_bytes(npz.read_bytes()[:-1]),
    "npz empty": lambda npz, js: npz.write_bytes(b""),
    "npz missing": lambda npz, js: npz.unlink(),
    "npz with a bit flipped": lambda npz, js: flip(npz, 300),
    "npz's hash": lambda npz, js: js.write_text(
        json.dumps({**json.loads(js.read_text()), "sha256": "0" * 64})
    ),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_a_broken_entry_is_named_and_does_not_count(tmp_path, journal, text, broken):
    journal.save(BIRD_AGE, Searched(ROWS, SELECTED, model()))
    journal.save(LATER, Searched(ROWS, SELECTED, model()))
    npz = tmp_path / ".hmm" / "key" / "searches" / "sim1" / "45.npz"
    BREAKS[broken](npz, npz.with_suffix(".json"))
    again = reopened(tmp_path, text)
    assert again.load(BIRD_AGE) is None
    assert f"{npz.with_suffix('.json')} is broken: what it held is done again" in " ".join(
        text.getvalue().split()
    )
    assert not npz.exists()
    assert again.load(LATER) is not None
    again.save(BIRD_AGE, Searched(ROWS, SELECTED, model()))
    assert again.read(BIRD_AGE).selected == SELECTED


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_an_entry_that_the_disk_does_not_give_is_kept(tmp_path, journal, text, number, monkeypatch):
    journal.save(BIRD_AGE, Searched(ROWS, SELECTED, model()))
    again = reopened(tmp_path, text)

    def fails(*_, **__):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr("data_io.song_models.np.load", fails)
        with pytest.raises(OSError, match=r"45\.npz"):
            again.load(BIRD_AGE)
    assert text.getvalue() == ""
    assert again.load(BIRD_AGE).selected == SELECTED


def test_an_entry_in_the_place_of_another_does_not_count(tmp_path, journal, text):
    journal.save(BIRD_AGE, Searched(ROWS, SELECTED, None))
    path = tmp_path / ".hmm" / "key" / "searches" / "sim1" / "45.json"
    (path.parent / "60.json").write_bytes(path.read_bytes())
    assert journal.load(LATER) is None
    assert "it is of sim1 at 45" in text.getvalue()


def test_an_entry_that_is_gone_while_the_study_runs_stops_it_with_a_remedy(journal):
    with pytest.raises(BrokenFileError, match=r"sim1/45\.json .* Run the same command again"):
        journal.read(BIRD_AGE)


@pytest.mark.parametrize("n_renames", [0, 1])
def test_killed_while_it_writes_an_entry_does_not_count(
    monkeypatch, tmp_path, journal, text, n_renames
):
    left = [n_renames]

    def replace(self, target):
        if not left[0]:
            # As after SIGKILL: nothing that comes later in the program is done.
            monkeypatch.setattr(type(self), "unlink", lambda self, missing_ok=False: None)
            raise KeyboardInterrupt
        left[0] -= 1
        self.rename(target)

    with monkeypatch.context():
        monkeypatch.setattr(type(tmp_path), "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            journal.save(BIRD_AGE, Searched(ROWS, SELECTED, model()))
    monkeypatch.undo()
    assert any(".tmp" in name for name in files(tmp_path))
    again = reopened(tmp_path, text)
    assert again.load(BIRD_AGE) is None
    assert not any(".tmp" in name for name in files(tmp_path))
    again.save(BIRD_AGE, Searched(ROWS, SELECTED, model()))
    assert again.read(BIRD_AGE).fits == ROWS
    assert text.getvalue() == ""


def test_journals_of_another_key_are_removed(tmp_path, journal, text):
    journal.save(BIRD_AGE, Searched(ROWS, SELECTED, model()))
    other = reopened(tmp_path, text, "another")
    assert other.load(BIRD_AGE) is None
    assert [p.name for p in (tmp_path / ".hmm").iterdir()] == ["another"]


def test_a_journal_behind_a_link_is_removed_with_the_link(tmp_path):
    (tmp_path / "big" / "old").mkdir(parents=True)
    folder = tmp_path / "run" / ".hmm"
    folder.parent.mkdir()
    folder.symlink_to(tmp_path / "big")
    Journal(folder, "key", Console(StringIO()))
    assert [path.name for path in folder.iterdir()] == ["key"]
    remove_journal(RunPaths(folder.parent))
    assert [path.name for path in tmp_path.rglob("*")] == ["run"]


def test_the_key_follows_all_that_the_fits_depend_on(monkeypatch):
    params = HmmParams()
    keys = {journal_key(params, 0, "latents")}
    changed = {"n_states": (5, 50), "search": "grid", "tol": 1e-4, "engine": "hmmlearn",
               "is_chained": True, "n_restarts": 4, "held_out_fraction": 0.1}  # fmt: skip
    keys |= {journal_key(dataclasses.replace(params, **{k: v}), 0, "x") for k, v in changed.items()}
    keys |= {journal_key(params, 1, "latents"), journal_key(params, 0, "other latents")}
    monkeypatch.setattr(hmm_journal, "__version__", "next")
    keys.add(journal_key(params, 0, "latents"))
    assert len(keys) == 1 + len(changed) + 3


def test_the_journal_is_removed_at_the_end_also_where_there_is_none(tmp_path, journal):
    paths = RunPaths(tmp_path)
    journal.save(BIRD_AGE, Searched(ROWS, SELECTED, model()))
    remove_journal(paths)
    remove_journal(paths)
    assert not journal_folder(paths).exists()
