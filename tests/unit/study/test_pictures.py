"""Pictures of trials: what is shown while they run is what their folders say at the end."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

from data_io.files import file_sha256, read_json, write_json
from study.base.console import Console
from study.base.paths import RunPaths
from study.config.reader import load_config
from study.search.pictures import BEGUN, search_pictures
from study.search.rungs import Rungs
from study.search.search import trial_identity
from study.search.state import SearchState, TrialState
from study.search.tables import trial_rows, write_tables
from study.search.trial_folder import TrialFolder, TrialSpec, UnreadableRecordError, trial_name
from study.search.watcher import TrialWatcher
from study.tracking.picture import check_allowed

N_REPORTS = 3


class FakeTracker:
    """Keeps what it is shown, as one picture of each run."""

    def __init__(self, study_run_id="study-1", commit="abc"):
        self.study_run_id = study_run_id
        self.lineage = {"git_commit": commit}
        self.shown = {}

    def stamp(self):
        return {**self.lineage, "study_run_id": self.study_run_id, "began_at": 5.0}

    def show(self, *pictures):
        for one in pictures:
            known = self.shown.get(one.key)
            self.shown[one.key] = one if known is None else known.with_newer(one)

    def run_id(self, identity, study_run_id=""):
        return f"{study_run_id or self.study_run_id}'s {identity.trial_id}"


@pytest.fixture
def config():
    return load_config("smoke", None, [])


@pytest.fixture
def paths(tmp_path):
    return RunPaths(tmp_path)


def report(number, objective):
    return {
        "objective": objective, "valid/objective": objective, "report": number,
        "snippets_seen": 100 * number, "reported_at": 1000.0 + number, "reason": "",
    }  # fmt: skip


def search(config, paths, tracker, n_trials=2):
    """Trials that are compared at their first report."""
    state = SearchState(Rungs([1], 2), N_REPORTS)
    for number in range(n_trials):
        spec = TrialSpec(trial_name(number), number, 7, {"lr": 0.001 * (number + 1)})
        TrialFolder(paths.search / spec.name).begin(spec)
        state.add(TrialState(spec))
    watcher = TrialWatcher(
        state, paths.search, config.mdgan, tracker, trial_identity, Console(), n_trials
    )
    for number in range(n_trials):
        watcher.open_run(number)
    return state, watcher


def filled(checkpoint):
    """A checkpoint of one file, with its hash."""
    (checkpoint / "model.json").write_text("{}", "utf-8")
    return {"model.json": file_sha256(checkpoint / "model.json")}


def tell(watcher, number, report):
    trial = SimpleNamespace(config={"spec": {"number": number}})
    watcher.on_trial_result(0, [], trial, {**report, "hostname": "node-a"})


def steps(tracker, number):
    by_trial = {one.identity.trial_id: one for one in tracker.shown.values()}
    return sorted(by_trial[trial_name(number)].curve)


def whole_search(config, paths, tracker):
    """Trial 1 reports twice before trial 0 comes to the rung, and is stopped there."""
    state, watcher = search(config, paths, tracker)
    tell(watcher, 1, report(1, 2.0))
    tell(watcher, 1, report(2, 0.5))
    assert steps(tracker, 1) == [100]  # what lies beyond the rung may not count
    for number in (1, 2, 3):
        tell(watcher, 0, report(number, 1.0 / number))
    for number in (0, 1):
        watcher.end(number)
    watcher.close_runs()
    rows = trial_rows(config, state, tracker, trial_identity)
    rows[0]["is_best"] = True
    write_tables(paths, rows, [], state)


def test_a_report_is_shown_when_no_early_stop_can_take_it_back(config, paths):
    tracker = FakeTracker()
    whole_search(config, paths, tracker)
    assert steps(tracker, 0) == [100, 200, 300]
    assert steps(tracker, 1) == [100]
    statuses = [one.tags["status"] for one in tracker.shown.values()]
    assert statuses == ["completed", "stopped"]


def test_the_folder_of_a_search_shows_what_its_driver_showed(config, paths):
    tracker = FakeTracker()
    whole_search(config, paths, tracker)
    found = {one.key: one for one in search_pictures(paths, config.mdgan)}
    assert [one.tags.pop("is_best") for one in found.values()] == ["True", "False"]
    assert found == tracker.shown
    first = found["study-1", '{"stage": "trial", "trial_id": "trial-000"}']
    assert first.lineage == {"git_commit": "abc"}
    assert first.curve[100].at == 1001.0
    assert first.params["lr"] == 0.001
    check_allowed(first.params, vars(config.mdgan))


def test_a_trial_without_begun_json_is_shown_as_ended_json_says(config, paths):
    tracker = FakeTracker()
    whole_search(config, paths, tracker)
    (paths.search / "trial-000" / BEGUN).unlink()
    found = {one.key: one for one in search_pictures(paths, config.mdgan)}
    assert [one.tags.pop("is_best") for one in found.values()] == ["True", "False"]
    assert found == tracker.shown


def test_a_folder_without_a_beginning_or_that_is_broken_is_left_out(config, paths):
    whole_search(config, paths, FakeTracker())
    first = TrialFolder(paths.search / "trial-000")
    write_json(first.path / "ended.json", {**first.ended(), "begun": None})
    (first.path / BEGUN).unlink()
    (paths.search / "trial-001" / "trial.json").write_text("{")
    assert list(search_pictures(paths, config.mdgan)) == []


def test_a_trial_that_cannot_be_read_for_now_is_not_left_out(config, paths, monkeypatch):
    whole_search(config, paths, FakeTracker())
    opened = Path.open

    def fails(path, *words, **named):
        if path == paths.search / "trial-001" / "ended.json":
            raise OSError(5, "Input/output error")
        return opened(path, *words, **named)

    monkeypatch.setattr(Path, "open", fails)
    with pytest.raises(UnreadableRecordError, match="trial-001/ended.json cannot be read"):
        list(search_pictures(paths, config.mdgan))


def test_the_table_names_the_run_of_the_study_run_that_a_trial_began_under(config, paths):
    state, watcher = search(config, paths, FakeTracker("study-2"), n_trials=1)
    tell(watcher, 0, report(3, 1.0))
    watcher.end(0)
    # Another rule of selection and back: the study run of now may have begun one of it before.
    (row,) = trial_rows(config, state, FakeTracker("study-1"), trial_identity)
    assert row["mlflow_run_id"] == "study-2's trial-000"


def failure(number):
    """What a process without memory tells in place of a report."""
    return {"objective": 1000.0, "report": number, "snippets_seen": 100 * (number - 1),
            "reason": "out of memory", "ended": "failed", "may_go_on": True}  # fmt: skip


def test_a_report_counts_though_a_process_before_failed_in_its_place(config, paths):
    tracker = FakeTracker()
    state, watcher = search(config, paths, tracker, n_trials=1)
    tell(watcher, 0, report(1, 1.0))
    tell(watcher, 0, failure(2))
    assert state.outcome(0).status == "failed"
    trial = SimpleNamespace(config={"spec": {"number": 0}})
    watcher.on_trial_start(0, [], trial)  # that process was killed before it ended
    for number in (1, 2, 3):
        tell(watcher, 0, report(number, 1.0))
        assert steps(tracker, 0) == [100 * n for n in range(1, number + 1)]
    watcher.end(0)
    assert state.outcome(0).status == "completed"
    assert not TrialFolder(paths.search / "trial-000").ended()["may_go_on"]


@pytest.mark.parametrize("failed_at", [1, 2])
def test_a_failure_counts_though_a_process_before_reported_in_its_place(config, paths, failed_at):
    state, watcher = search(config, paths, FakeTracker(), n_trials=1)
    for number in (1, 2):
        tell(watcher, 0, report(number, 1.0))
    tell(watcher, 0, failure(failed_at))  # after a broken checkpoint, or before it read one
    watcher.end(0)
    assert state.outcome(0).reason == "out of memory"
    ended = TrialFolder(paths.search / "trial-000").ended()
    assert ended["may_go_on"]
    assert [(one["report"], one["snippets_seen"]) for one in ended["reports"]] == [
        (1, 100), (2, 200), (3, 200)
    ]  # fmt: skip


def test_a_failure_after_the_last_report_takes_nothing_from_a_whole_training(config, paths):
    state, watcher = search(config, paths, FakeTracker(), n_trials=1)
    for one in (*(report(number, 1.0) for number in (1, 2, 3)), failure(4)):
        tell(watcher, 0, one)
    watcher.end(0)
    assert state.outcome(0).status == "completed"


def test_a_trial_whose_process_died_when_all_was_done_is_whole(config, paths):
    state, watcher = search(config, paths, FakeTracker(), n_trials=2)
    for number in (1, 2, 3):
        tell(watcher, 0, report(number, 1.0))
    tell(watcher, 1, report(1, 0.5))
    for number, done in ((0, [1, 2, 3]), (1, [1])):
        reports = [{"report": n} for n in done]
        trial = TrialFolder(paths.search / trial_name(number))
        trial.own()
        trial.save(done[-1], reports, filled)
        watcher.end(number, "its process failed: the node is lost")
    ends = [TrialFolder(paths.search / trial_name(number)).ended() for number in (0, 1)]
    assert [one["may_go_on"] for one in ends] == [False, True]
    assert [bool(one["reason"]) for one in ends] == [False, True]
    assert state.outcome(0).status == "completed"


def test_a_trial_that_died_and_whose_last_checkpoint_is_broken_may_go_on(config, paths):
    _, watcher = search(config, paths, FakeTracker())
    trial = TrialFolder(paths.search / trial_name(0))
    trial.own()
    for number in (1, 2, 3):
        tell(watcher, 0, report(number, 1.0))
        trial.save(number, [{"report": n} for n in range(1, number + 1)], filled)
    (trial.checkpoints()[-1] / "model.json").write_text("[]", "utf-8")
    watcher.end(0, "its process failed: out of memory")
    assert trial.ended()["may_go_on"]
    assert [path.name for path in trial.checkpoints()] == ["checkpoint-0002"]


def test_a_trial_that_goes_on_keeps_its_beginning_unless_the_study_run_is_another(config, paths):
    path = paths.search / "trial-000" / BEGUN
    search(config, paths, FakeTracker())
    search(config, paths, FakeTracker(commit="later"))
    assert read_json(path)["git_commit"] == "abc"
    search(config, paths, FakeTracker("study-2", "later"))
    assert read_json(path) == {
        "git_commit": "later", "study_run_id": "study-2", "began_at": 5.0
    }  # fmt: skip


def test_a_trial_that_begins_in_another_study_run_is_shown_there_from_its_first_report(
    config, paths
):
    state, watcher = search(config, paths, FakeTracker())
    tell(watcher, 0, report(1, 1.0))
    tracker = FakeTracker("study-2")
    again = TrialWatcher(state, paths.search, config.mdgan, tracker, trial_identity, Console(), 2)
    again.open_run(0)
    tell(again, 0, report(2, 0.5))
    (shown,) = [one for key, one in tracker.shown.items() if key[0] == "study-2"]
    assert sorted(shown.curve) == [100, 200]


def test_the_penalty_of_a_collapsed_decoder_is_no_measurement(config, paths):
    tracker = FakeTracker()
    _, watcher = search(config, paths, tracker)
    tell(watcher, 0, {**report(1, 10.0), "valid/collapsed": 1.0, "valid/spread": 0.01})
    (first, _) = tracker.shown.values()
    assert first.curve[100].metrics == {"valid/collapsed": 1.0, "valid/spread": 0.01}


def test_pictures_joined_are_the_newer_but_for_the_beginning(config, paths):
    tracker = FakeTracker()
    _, watcher = search(config, paths, tracker)
    (first, second) = tracker.shown.values()
    newer = dataclasses.replace(
        first, status="FAILED", name="", tags={"a": "b"}, began_at=9.0, lineage={"git_commit": "x"}
    )
    joined = first.with_newer(newer)
    assert (joined.began_at, joined.lineage) == (5.0, {"git_commit": "abc"})
    assert (joined.status, joined.name, joined.tags) == ("FAILED", "trial-000", {"a": "b"})
    assert joined.with_newer(dataclasses.replace(newer, status=None)).status == "FAILED"
