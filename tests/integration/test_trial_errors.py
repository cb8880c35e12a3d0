"""What a real Ray Tune keeps of the errors of trials, and what the study says of them."""

from io import StringIO
from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import OutOfMemoryError

from study.base.console import Console
from study.base.errors import UnusableFileError
from study.base.paths import ROOT
from study.config.reader import load_config
from study.search import launch, watcher
from study.search.proposals import StudySearch
from study.search.rungs import Rungs
from study.search.search import trial_identity
from study.search.state import SearchState
from study.search.tune_adapters import last_words, os_error
from tests.helpers import failing_trials
from tests.helpers.no_mlflow import NoMlflow

# The first words of Ray 2.60 where its memory monitor ends a process.
NO_MEMORY = (
    "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: "
    "127.0.0.1, ID: 57c5) was 3.82GB used / 23.54GB limit (0.162265)\nOOM kill reason: ...\n"
    "To adjust the kill threshold, set the environment variable `RAY_memory_usage_threshold`."
)


@pytest.fixture
def search(tmp_path, monkeypatch):
    """Runs a search of trials that fail as planned; gives its state, and what was printed."""
    monkeypatch.setattr(launch, "run_trial", failing_trials.trial)
    attempts = tmp_path / "attempts"
    attempts.mkdir()
    overrides = ["search.n_trials=2", "search.max_retries=1"]
    config = load_config("smoke", None, overrides)
    state = SearchState(Rungs([], 2), 2)
    text = StringIO()

    def run(plans):
        variables = {"PYTHONPATH": str(ROOT), failing_trials.PLANS: plans,
                     failing_trials.ATTEMPTS: str(attempts)}  # fmt: skip
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
                 logging_level="ERROR", runtime_env={"env_vars": variables})  # fmt: skip
        try:
            n = config.search.n_trials
            work = StudySearch(config, state, tmp_path / "search")
            watches = watcher.TrialWatcher(
                state, tmp_path / "search", config.mdgan, NoMlflow(), trial_identity,
                Console(text), n,
            )  # fmt: skip
            job = SimpleNamespace(n_threads=1, gpus=0)
            launch.launch(config, None, job, watches, work, n)
        finally:
            ray.shutdown()

    return SimpleNamespace(run=run, state=state, text=text, folder=tmp_path / "search")


def test_the_reason_of_a_failed_trial_is_its_last_error(search):
    search.run("0:bug,killed;1:killed,bug")
    first, second = (search.state.trials[n].ended["reason"] for n in (0, 1))
    assert first.startswith("its process failed: The actor is dead because its worker process has")
    assert second == "its process failed: KeyError: 'latent_dim'"
    text = search.text.getvalue()
    assert f"trial-001: {second}\n" in text
    assert "trial-000: its process failed: KeyError: 'latent_dim'; it goes on elsewhere" in text
    assert "trial-001: its process died; it goes on elsewhere" in text


def test_a_disk_that_fails_a_trial_at_each_retry_ends_the_search_and_not_the_trial(search):
    with pytest.raises(UnusableFileError) as caught:
        search.run("0:disk,disk")
    assert str(caught.value) == (
        f"{failing_trials.FILE} cannot be used (Input/output error). Remove nothing: see to the "
        "disk, then give the same command again."
    )
    assert search.state.trials[0].ended is None
    assert not list(search.folder.glob("trial-000/ended.json"))


def test_a_disk_that_fails_a_trial_once_is_tried_again(search):
    search.run("0:disk;1:disk")
    assert [search.state.outcome(n).status for n in (0, 1)] == ["completed", "completed"]


def test_an_error_that_tune_keeps_as_words_alone_is_not_taken_for_the_one_before(
    search, monkeypatch
):
    found = []

    def spoilt(trial):
        trial.handle_error(OutOfMemoryError(NO_MEMORY))
        found.append(last_words(trial))
        return found[-1]

    monkeypatch.setattr(watcher, "last_words", spoilt)
    search.run("0:disk,disk")
    assert found[-1] == NO_MEMORY
    assert search.state.trials[0].ended["reason"] == (
        "out of memory: its process was killed; let fewer trials run at once"
    )


@pytest.mark.parametrize(
    "error",
    [
        OSError(5, "Input/output error", "a/b: c.json"),
        OSError(13, "Permission denied", "it's here.json"),
        OSError(18, "Invalid cross-device link", "a.json", None, "b.json"),
    ],
)
def test_an_error_of_the_system_is_known_by_its_words(error):
    found = os_error(f"Traceback\n  a line\n{type(error).__name__}: {error}")
    assert (found.errno, found.strerror, found.filename) == (
        error.errno, error.strerror, error.filename,
    )  # fmt: skip


def test_other_errors_are_none_of_the_system():
    for words in ("KeyError: 'a'", "OSError: of a library", "OSError: [Errno 5] Input/output", ""):
        assert os_error(words) is None
