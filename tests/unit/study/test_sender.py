"""The thread that sends pictures: again and again, and never in the way."""

import threading
import time

import pytest

from study.tracking.errors import AwayError, RefusedError
from study.tracking.picture import STUDY, Measured, RunIdentity, RunPicture
from study.tracking.sender import Sender


class FakeMlflow:
    """Takes pictures, unless told to fail.

    Attributes:
        sent: steps that came of each run, in order.
        fails: by run, or None for all: the errors still to be raised.
    """

    def __init__(self):
        self.sent = {}
        self.tried = []
        self.n_notes = 0
        self.refused = []
        self.fails = {}

    def send(self, picture, is_put_off=lambda: False):
        run = picture.identity.trial_id
        self.tried.append(run)
        for key in (None, run):
            if errors := self.fails.get(key):
                error = errors.pop(0) if len(errors) > 1 else errors[0]
                if error is not None:
                    raise error
        known = self.sent.setdefault(run, [])
        known += [step for step in picture.curve if step not in known]
        return True

    def note(self):
        self.n_notes += 1

    def refuse(self, picture, error):
        run = picture.identity.trial_id
        self.refused.append((run, str(error)))
        self.fails[run] = [None]
        return f"a piece of {run}"


@pytest.fixture
def said():
    return []


@pytest.fixture
def mlflow():
    return FakeMlflow()


@pytest.fixture
def start(mlflow, said):
    senders = []

    def make(first_wait_s=0.01, longest_wait_s=0.05):
        senders.append(Sender("There", mlflow, said.append, first_wait_s, longest_wait_s))
        return senders[-1]

    yield make
    for sender in senders:
        sender.close(0)
        assert not sender._thread.is_alive()


def show(sender, n, runs=("a",)):
    for step in range(n):
        run = RunIdentity("trial", runs[step % len(runs)])
        sender.add(RunPicture(run, "study", curve={step: Measured(0.0, {})}))


def until(condition, limit_s=20):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_all_that_is_shown_is_sent_and_noted(start, mlflow, said):
    sender = start()
    show(sender, 50)
    assert sender.flush(20) == 0
    assert mlflow.sent == {"a": list(range(50))}
    assert mlflow.n_notes > 0
    assert said == []


def test_while_nothing_can_be_sent_nothing_is_lost(start, mlflow, said):
    sender = start()
    mlflow.fails[None] = [AwayError("no connection")]
    show(sender, 200, "abcd")
    until(lambda: len(mlflow.tried) > 5)
    assert sender.flush(0.05) == 4
    mlflow.fails[None] = [None]
    assert sender.flush(20) == 0
    assert {run: sorted(steps) for run, steps in mlflow.sent.items()} == {
        run: list(range(i, 200, 4)) for i, run in enumerate("abcd")
    }
    assert len(said) == 2
    assert "There cannot be told: no connection" in said[0]
    assert "There can be told again" in said[1]


def test_with_many_runs_still_one_try_at_a_time(start, mlflow):
    # A try may take half a minute.
    sender = start(0.5, 5)
    mlflow.fails[None] = [AwayError("no connection")]
    show(sender, 100, [str(i) for i in range(100)])
    until(lambda: len(mlflow.tried) >= 2)
    assert len(mlflow.tried) < 10


def test_a_run_that_fails_does_not_hold_up_the_others(start, mlflow):
    sender = start(0.5, 5)
    mlflow.fails["a"] = [AwayError("HTTP 500")]
    for _ in range(10):
        show(sender, 20, "ab")
    until(lambda: len(mlflow.sent.get("b", ())) == 10)
    assert "a" not in mlflow.sent
    assert mlflow.tried.count("a") < 5  # it is not tried after each of the others
    mlflow.fails.clear()
    assert sender.flush(20) == 0
    assert sorted(mlflow.sent["a"]) == list(range(0, 20, 2))


def test_a_refused_piece_is_left_out_and_the_rest_goes_on(start, mlflow, said):
    sender = start()
    mlflow.fails["a"] = [RefusedError("bad name")]
    show(sender, 4, "ab")
    assert sender.flush(20) == 0
    assert mlflow.refused == [("a", "bad name")]
    assert {run: len(steps) for run, steps in mlflow.sent.items()} == {"a": 2, "b": 2}
    assert said == ["There refused a piece of a: bad name"]


def test_a_doubtful_refusal_is_believed_only_after_some_tries(start, mlflow):
    sender = start()
    doubtful = RefusedError("trouble", tries=3)
    mlflow.fails["a"] = [doubtful, doubtful, None]
    show(sender, 1)
    assert sender.flush(20) == 0
    assert mlflow.refused == []
    mlflow.fails["b"] = [doubtful]
    show(sender, 1, "b")
    assert sender.flush(20) == 0
    assert mlflow.tried == ["a"] * 3 + ["b"] * 4
    assert mlflow.refused == [("b", "trouble")]


def test_each_reason_is_said_once_until_all_is_well(start, mlflow, said):
    sender = start()
    mlflow.fails[None] = [AwayError(r) for r in ("one", "one", "two", "one", "two")] + [None]
    show(sender, 1)
    assert sender.flush(20) == 0
    until(lambda: len(said) == 3)
    assert [line.split(": ")[1].split(".")[0] for line in said[:2]] == ["one", "two"]
    mlflow.fails[None] = [AwayError("one"), None]
    show(sender, 1)
    assert sender.flush(20) == 0
    until(lambda: len(said) == 5)


def test_waits_grow_and_stay_below_the_longest(start):
    sender = start(0.5, 15)
    assert [sender._wait_s(n) for n in (1, 2, 3, 5, 6, 1000)] == [0.5, 1, 2, 8, 15, 15]


def test_a_flush_does_not_sit_out_a_long_wait(start, mlflow):
    sender = start(60, 60)
    mlflow.fails[None] = [AwayError("no connection"), None]
    show(sender, 3, "abc")
    until(lambda: mlflow.tried)
    assert sender.flush(20) == 0
    assert len(mlflow.sent) == 3


def test_an_error_that_nobody_thought_of_does_not_end_the_thread(start, mlflow):
    sender = start()
    mlflow.fails["a"] = [ZeroDivisionError("oh"), KeyError("x"), None]
    show(sender, 2, "ab")
    assert sender.flush(20) == 0
    assert len(mlflow.sent) == 2


def test_a_disk_too_full_to_note_and_a_closed_terminal_stop_nothing(mlflow):
    def closed(text):
        raise ValueError("I/O operation on closed file")

    def full():
        raise OSError(28, "No space left on device")

    mlflow.note = full
    said = []
    for say in (closed, said.append):
        sender = Sender("There", mlflow, say, first_wait_s=0.01)
        show(sender, 3, "abc")
        assert sender.flush(20) == 0
        sender.close(1)
    assert len(mlflow.sent) == 3
    assert said == ["what There was sent cannot be noted: No space left on device"]


def test_an_mlflow_that_hangs_holds_up_neither_the_study_nor_its_end(mlflow, said):
    sender = Sender("There", mlflow, said.append)
    hanging, send = threading.Event(), mlflow.send
    mlflow.send = lambda picture, is_put_off: hanging.wait(30) and send(picture)
    show(sender, 3, "abc")
    assert sender.close(0.1) == 3
    assert not hanging.is_set()
    assert sender._thread.daemon
    hanging.set()
    sender._thread.join(20)
    # What was under way is noted, nothing new is begun.
    assert list(mlflow.sent) == ["a"]
    assert mlflow.n_notes == 1


def test_how_the_study_ended_is_sent_before_all_that_waits(start, mlflow):
    sender = start()
    mlflow.fails[None] = [AwayError("no connection")]
    show(sender, 20, "abcdefgh")
    sender.add(RunPicture(STUDY, "study", status="KILLED"))
    until(lambda: len(mlflow.tried) > 2)
    del mlflow.tried[:]
    mlflow.fails[None] = [None]
    sender.close(20)
    assert STUDY.trial_id in mlflow.tried[:2]  # one may be on its way
