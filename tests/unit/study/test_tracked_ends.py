"""A study that is stopped while MLflow is slow: no run is left RUNNING."""

import threading
import time

import pytest

from study.tracking import client
from study.tracking.picture import STUDY, Measured, RunIdentity, RunPicture
from study.tracking.tracker import Tracker
from tests.helpers.pretend_mlflow import PretendMlflow

TRIALS = [RunIdentity("trial", f"trial-{i:03}") for i in range(6)]
CALL_S = 0.05


class SlowMlflow(PretendMlflow):
    """A server that takes its time, once ``is_slow``."""

    def __init__(self):
        super().__init__()
        self.is_slow = False
        self.calls = 0
        self.has_called = threading.Event()

    def _answer(self, work):
        self.calls += 1
        self.has_called.set()
        time.sleep(CALL_S if self.is_slow else 0.0)
        return super()._answer(work)


@pytest.fixture
def server(monkeypatch):
    server = SlowMlflow()
    monkeypatch.setattr(client, "MlflowClient", lambda *args, **kwargs: server)
    return server


@pytest.fixture
def tracker(server, tmp_path):
    tracker = Tracker("http://mlflow", "finches", {"study": "finches"}, tmp_path / "sent", ("lr",))
    tracker.start_study({"study_hash": "s"}, "study", {})
    yield tracker
    tracker.close(0)


def show(tracker, identity, n_steps, status="RUNNING"):
    """A picture whose steps are a call each."""
    metrics = {f"m{i}": 1.0 for i in range(400)}
    curve = {step: Measured(1.7e9 + step, metrics) for step in range(1, n_steps + 1)}
    tracker.show(RunPicture(identity, tracker.study_run_id, identity.trial_id, params={"lr": 1},
                            curve=curve, status=status))  # fmt: skip


def test_ends_are_sent_before_the_metrics_that_wait(server, tracker):
    for identity in TRIALS:
        show(tracker, identity, 1)
    assert tracker.flush(20) == 0
    server.is_slow = True
    server.has_called.clear()
    for identity in TRIALS:
        show(tracker, identity, 200)
    assert server.has_called.wait(20)  # the metrics of one are on their way
    calls = server.calls
    tracker.end_study("KILLED", "interrupted")
    assert tracker.close(CALL_S * 20) == len(TRIALS)
    assert server.calls - calls < 100
    states = {run.tags["stage"] + run.tags.get("trial_id", ""): run for run in server.active()}
    assert len(states) == 1 + len(TRIALS)
    assert {run.status for run in states.values()} == {"KILLED"}
    assert states[STUDY.stage].tags["reason"] == "interrupted"
    # The next driver sends the rest.
    assert all(tracker._sent.run(tracker.study_run_id, one).step < 200 for one in TRIALS)


def test_a_run_that_was_over_before_it_was_begun_is_ended_at_once(server, tracker):
    assert tracker.flush(20) == 0
    server.is_slow = True
    for identity in TRIALS:
        show(tracker, identity, 200, status="FINISHED")
    tracker.end_study("KILLED", "interrupted")
    assert tracker.close(CALL_S * 20) == len(TRIALS)
    states = [run.status for run in server.active()]
    assert sorted(states) == ["FINISHED"] * (len(states) - 1) + ["KILLED"]
    assert len(states) >= 2
