"""How much song, by the command that a user types, on the run folder of a finished study."""

import csv
import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
import time
from io import StringIO

import pyarrow.parquet as pq
import pytest

from data_io.files import read_json, write_json
from study.base.console import Console
from study.base.paths import ROOT
from study.how_much.finished import OF_ANOTHER, not_of_study, of_another_study, open_study
from study.verify import verify
from tests.helpers.finished_study import finished

OUTPUTS = {"advice.txt", "curves.parquet", "how_much_song.csv", "how_much_song.png"}


def started(run, *words):
    command = [sys.executable, str(ROOT / "study" / "how_much_song.py"), str(run), *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def done(run, *words):
    """Run to the end; (exit code, standard output, standard error)."""
    process = started(run, *words)
    out, error = process.communicate(timeout=240)
    return process.returncode, out, error


def tree(folder):
    """Hash and time of every file below a folder that is not of how much song."""
    return {
        path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and "how_much_song" not in path.relative_to(folder).parts[0]
    }


def test_curves_figure_table_and_advice_are_written_beside_a_study_that_stays_as_it_is(tmp_path):
    paths = finished(tmp_path)
    before = tree(tmp_path)
    code, text, error = done(tmp_path, "--seeds", "3")
    assert (code, error) == (0, "")
    assert tree(tmp_path) == before
    out = paths.root / "how_much_song"
    assert {path.name for path in out.iterdir() if path.name[0] != "."} == OUTPUTS
    assert (out / "how_much_song.png").read_bytes().startswith(b"\x89PNG")
    with pq.ParquetFile(out / "curves.parquet") as file:
        rows = file.read().to_pylist()
    assert len(rows) == 2 * 3 * 2  # birds, subsamples, amounts
    with (out / "how_much_song.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    for line in table:
        own = [row for row in rows if row["bird"] == line["bird"]
               and 2.0 ** -row["halvings"] == float(line["share"])]  # fmt: skip
        assert len(own) == 3
        mean = sum(row["predictive_information"] for row in own) / 3
        assert float(line["predictive_information"]) == pytest.approx(mean)
    *sentences, note = (out / "advice.txt").read_text().splitlines()
    assert "only at matched minutes" in note
    assert [one.split(": ")[0] for one in sentences] == ["b1 at 45", "b2 at 60"]
    assert " ".join(sentences) in " ".join(text.split())

    study = open_study(paths.root)
    latents, hmm = study.depends_on[0], study.config.hmm
    assert of_another_study(paths, latents, hmm) == ""
    assert of_another_study(paths, "other", hmm) == OF_ANOTHER
    other = dataclasses.replace(hmm, min_snippets=hmm.min_snippets + 1)
    assert of_another_study(paths, latents, other) == OF_ANOTHER
    assert not_of_study(paths) == ""
    kept = read_json(paths.how_much_files)
    write_json(paths.how_much_files, {**kept, "of": "another"})
    assert not_of_study(paths) == OF_ANOTHER
    text = StringIO()
    assert not verify(paths.root, Console(text))
    assert f"how_much_song/.files.json {OF_ANOTHER}" in " ".join(text.getvalue().split())
    write_json(paths.how_much_files, kept)

    files = {path: path.stat().st_mtime_ns for path in (out / ".fits").iterdir()}
    code, text, _ = done(tmp_path, "--seeds", "3")
    assert code == 0
    assert "12 of 12 fits were done before" in text
    assert {path: path.stat().st_mtime_ns for path in (out / ".fits").iterdir()} == files
    assert (out / "advice.txt").read_text().splitlines() == [*sentences, note]


def test_ctrl_c_ends_it_with_a_sentence_and_the_same_command_goes_on(tmp_path):
    finished(tmp_path)
    process = started(tmp_path, "--seeds", "40")
    fits = tmp_path / "how_much_song" / ".fits"
    until = time.monotonic() + 120
    while not list(fits.glob("[!.]*.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it: to all processes
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert error.endswith("Interrupted. The same command goes on from here.\n"), error
    assert "Traceback" not in error  # lines of Ray's own may come before
    n_done = len(list(fits.glob("[!.]*.json")))
    assert 0 < n_done < 160
    code, text, _ = done(tmp_path, "--seeds", "40")
    assert code == 0
    assert f"{n_done} of 160 fits were done before" in text


def test_what_cannot_be_answered_is_refused_in_one_sentence(tmp_path):
    code, _, error = done(tmp_path)
    assert code == 2
    assert error.startswith(f"error: {tmp_path} is not the run folder of a study")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
    code, _, error = done(tmp_path, "--seeds", "1")
    assert code == 2
    assert "'1' is not a whole number from 2 to 1,000" in error
