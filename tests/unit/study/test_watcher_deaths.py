"""Processes of trials that die at once: one wait for all, and a stop is no trial's failure."""

import io
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from study.base import stopping
from study.base.command import run_command
from study.base.console import Console
from study.search.rungs import Rungs
from study.search.search import trial_identity
from study.search.state import SearchState, TrialState
from study.search.trial_folder import TrialFolder, TrialSpec, trial_name
from study.search.watcher import TrialWatcher

N = 64
TRACKER = SimpleNamespace(run_id=lambda identity: None, show=lambda *pictures: None)


class Deaths:
    """A search whose driver hears of one death after another, as Tune tells of them."""

    def __init__(self, folder):
        self.text = io.StringIO()
        self.folder = folder
        self.state = SearchState(Rungs([], 2), 3)
        for number in range(N):
            spec = TrialSpec(trial_name(number), number, 7, {"lr": 0.001})
            TrialFolder(folder / spec.name).begin(spec)
            self.state.add(TrialState(spec))
        console = Console(self.text)
        self.watcher = TrialWatcher(
            self.state, folder, None, TRACKER, trial_identity, console, N
        )  # fmt: skip

    def hear(self, numbers, how="recover"):
        for number in numbers:
            trial = SimpleNamespace(
                config={"spec": {"number": number}},
                get_pickled_error=lambda: RuntimeError("The actor died unexpectedly"),
            )
            getattr(self.watcher, f"on_trial_{how}")(0, [], trial)
            self.watcher.on_step_end(0, [])

    def step(self, seconds):
        """Tune goes on, and hears of nothing."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.watcher.on_step_end(0, [])
            time.sleep(0.01)

    def recorded(self):
        """Trials whose death is on the record, in memory, on disk or in a line."""
        named = {n for n in range(N) if f"{trial_name(n)}: " in self.text.getvalue()}
        ended = {n for n in range(N) if TrialFolder(self.folder / trial_name(n)).ended()}
        return named | ended | {n for n, one in self.state.trials.items() if one.n_retries}


@pytest.fixture
def deaths(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "SETTLE_S", 0.3)
    return Deaths(tmp_path)


@pytest.mark.parametrize("how", ["recover", "error"])
def test_trials_of_a_lost_node_are_waited_for_once(deaths, how):
    def work(console):
        started = time.monotonic()
        deaths.hear(range(N), how)
        deaths.watcher.on_experiment_end([])
        assert 0.3 <= time.monotonic() - started < 2.0
        return 0

    assert run_command(work) == 0
    assert deaths.recorded() == set(range(N))
    if how == "error":
        assert all(deaths.state.is_over(number) for number in range(N))


@pytest.mark.parametrize("how", ["recover", "error"])
def test_a_signal_that_reaches_trials_first_is_no_failure_of_theirs(deaths, how):
    def work(console):
        deaths.hear([0], how)
        deaths.step(0.5)
        assert deaths.recorded() == {0}  # long before: its own
        threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGTERM]).start()
        deaths.hear(range(1, N), how)
        deaths.step(20)

    assert run_command(work) == 143
    assert deaths.recorded() == {0}


def test_a_death_after_the_wait_for_another_has_a_wait_of_its_own(deaths):
    def work(console):
        deaths.hear([0])
        deaths.step(0.31)
        threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGTERM]).start()
        deaths.hear([1])
        deaths.step(20)

    assert run_command(work) == 143
    assert deaths.recorded() == {0}


def test_a_trial_that_ends_soon_after_its_process_died_has_that_on_its_record(deaths):
    def work(console):
        deaths.hear([0])
        trial = SimpleNamespace(config={"spec": {"number": 0}})
        deaths.watcher.on_trial_complete(0, [], trial)
        return 0

    assert run_command(work) == 0
    assert TrialFolder(deaths.folder / trial_name(0)).ended()["n_retries"] == 1
