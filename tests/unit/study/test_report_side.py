"""The best decoder on recordings that took no part in choosing it."""

import dataclasses

import numpy as np
import pytest

from data_io.files import read_json
from data_io.recordings.table import SIDES, Recording, Recordings
from models.mdgan.checkpoints import save_decoder
from models.metrics.reference import fit_reference
from study.base.paths import RunPaths
from study.config.reader import load_config
from study.search.report_side import in_words, measure_best, worst_in_words
from tests.helpers.reference_snippets import SONGS, TRAIN
from tests.helpers.stored import write_levelled
from tests.helpers.tiny_mdgan import build

CONFIG = load_config("smoke", None, ["search.n_eval_snippets=100"])
LOUDER = {"training": 1.0, "selection": 1.0, "report": 3.0}


@pytest.fixture
def study(tmp_path):
    """A run folder with a decoder and recordings; those of the report side are louder."""
    paths = RunPaths(tmp_path)
    rows, sounds = [], []
    for i in range(9):
        side = SIDES[i % 3]
        path = f"b1/45/songs/{i}.wav"
        rows.append(Recording("b1", "45", 45, None, path, n_frames=192, split=side))
        song = np.concatenate(TRAIN[12 * i : 12 * i + 12, 0].numpy(), axis=1)
        sounds.append((path, LOUDER[side] * song))
    write_levelled(paths.spectrograms, "b1", "45", sounds)
    model = build("both")
    paths.best.mkdir()
    save_decoder(model, paths.best, {"params": dataclasses.asdict(model.params)})
    return paths, rows, fit_reference(TRAIN, SONGS, 0)


def test_the_best_decoder_is_measured_on_both_held_out_sides_each_by_itself(study):
    paths, rows, reference = study
    found = measure_best(CONFIG, Recordings.from_rows(rows), paths, reference)
    assert read_json(paths.best_held_out) == found
    assert list(found) == ["selection", "report"]
    for figures in found.values():
        assert (figures["n_recordings"], figures["n_snippets"]) == (3, 36)
        (row,) = figures["by_bird_age"]
        assert (row["bird"], row["age"], row["n_windows"]) == ("b1", "45", 27)
        assert row["frechet_song"] == figures["metrics"]["valid/frechet_song"] > 0
    # An untrained decoder misses more where the song is three times as loud.
    l1 = {side: found[side]["metrics"]["valid/recon_l1"] for side in found}
    assert l1["report"] > 1.5 * l1["selection"]
    words = in_words(paths)
    assert words.startswith("The best decoder on 3 recordings that chose nothing: L1 ")
    for side in found:
        assert f"{l1[side]:.3g}, " in words


def test_the_worst_bird_and_age_is_named_where_there_are_several():
    rows = [
        {"bird": "b1", "age": "45", "recon_l1": 0.2, "recon_l1_vs_own_pca": 0.8},
        {"bird": "b2", "age": "60", "recon_l1": 0.1, "recon_l1_vs_own_pca": 0.95},
        {"bird": "b3", "age": "60", "recon_l1": 0.3, "recon_l1_vs_own_pca": None},
    ]
    expected = " Worst is b2 at 60: L1 0.1, 0.95 times that of its own PCA."
    assert worst_in_words(rows) == expected
    assert worst_in_words(rows[:1]) == ""


def test_a_study_without_a_report_side_says_that_its_figures_flatter(study):
    paths, rows, reference = study
    two_sides = [row for row in rows if row.split != "report"]
    found = measure_best(CONFIG, Recordings.from_rows(two_sides), paths, reference)
    assert list(found) == ["selection"]
    assert in_words(paths).startswith("No bird and age has enough bouts for a report side")


def test_a_study_of_before_says_the_same(tmp_path):
    assert "flatter" in in_words(RunPaths(tmp_path))
