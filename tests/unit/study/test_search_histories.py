"""Histories of a search as the simulator plays them: fresh ones, and those that found a fault."""

import os
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import search_histories
from benchmarks.search_histories import play
from study.base.console import Console
from study.base.paths import RunPaths
from study.config.reader import load_config
from study.search.search_folder import prepare_folder
from study.search.trial_folder import TrialFolder, TrialSpec

N_FRESH = 60
FRESH = 1_000_000  # far from the seeds of the benchmark

# By what was wrong with the project; each history fails where that comes back. Another action or
# weight in the simulator makes other histories of the same seeds: look for new ones then.
FOUND = {
    "a study run that began unheard of stayed open in MLflow": 100012,
}


@pytest.mark.parametrize("seed", FOUND.values(), ids=FOUND.keys())
def test_a_history_that_found_a_fault_ends_well(seed):
    play(seed)


def test_fresh_histories_end_well():
    for seed in range(FRESH, FRESH + N_FRESH):
        play(seed)


def test_a_search_is_taken_back_though_the_one_in_its_place_has_lost_all_trials(tmp_path):
    first, other = (load_config("smoke", None, [f"seed={seed}"]) for seed in (7, 8))
    paths, trial = RunPaths(tmp_path), Path("trial-000")
    for config in (first, other):
        key = prepare_folder(config, "data", paths, Console())
        TrialFolder(paths.search / trial).begin(TrialSpec(trial.name, 0, 7, {}, {}, key))
    shutil.rmtree(paths.search / trial)
    key = prepare_folder(first, "data", paths, Console())
    assert TrialFolder(paths.search / trial).spec().search == key
    assert not list(tmp_path.glob("search-before-*"))


def test_a_process_that_dies_ends_the_benchmark_with_its_seed(monkeypatch):
    def play(seed):
        if seed == 3:
            os._exit(9)
        return SimpleNamespace(n_steps=1, faults=Counter())

    monkeypatch.setattr(search_histories, "play", play)
    found = search_histories.play_all(range(6), 1)
    with pytest.raises(SystemExit, match=r"history 3\."):
        list(found)
