"""The thread that delivers: in order, again and again, and never in the way."""

import threading
import time

import pytest

from study.tracking.courier import AwayError, Courier, RefusedError
from study.tracking.outbox import Operation


class FakeBox:
    """Delivers to a list, unless told to fail.

    Attributes:
        fails: by (run, number), or None for all: the errors still to be raised.
    """

    def __init__(self):
        self.delivered = []
        self.noted = []
        self.refused = []
        self.tried = []
        self.fails = {}

    def deliver(self, operation):
        self.tried.append(operation.number)
        for key in (None, operation.run, operation.number):
            if errors := self.fails.get(key):
                error = errors[0]
                if len(errors) > 1:
                    errors.pop(0)
                if error is not None:
                    raise error
        self.delivered.append(operation.number)
        return {"n": operation.number}

    def done(self, operation, result):
        self.noted.append((operation.number, result))

    def refuse(self, operation, reason):
        self.refused.append((operation.number, reason))
        return f"operation {operation.number}"


@pytest.fixture
def said():
    return []


@pytest.fixture
def courier(said):
    courier = Courier("There", said.append, first_wait_s=0.01, longest_wait_s=0.05)
    yield courier
    courier.close(0)
    assert not courier._thread.is_alive()


@pytest.fixture
def box():
    return FakeBox()


def operations(n, runs=("a",)):
    return [Operation(i + 1, runs[i % len(runs)], "kind", {}) for i in range(n)]


def add(courier, box, those):
    for operation in those:
        courier.add(box, operation)


def until(condition, limit_s=20):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_operations_are_delivered_in_order_and_noted(courier, box, said):
    add(courier, box, operations(50))
    assert courier.flush(20) == 0
    assert box.delivered == list(range(1, 51))
    assert box.noted == [(i, {"n": i}) for i in range(1, 51)]
    assert said == []


def test_while_nothing_can_be_delivered_nothing_is_lost_and_nobody_waits(courier, box, said):
    box.fails[None] = [AwayError("no connection")]
    started = time.monotonic()
    add(courier, box, operations(200, "abcd"))
    assert time.monotonic() - started < 2
    until(lambda: len(box.tried) > 5)
    assert courier.flush(0.05) == 200
    # One is tried at a time, not all of them: a try may take half a minute.
    assert len(box.tried) < 100
    box.fails[None] = [None]
    assert courier.flush(20) == 0
    for start in range(1, 5):
        of_run = [n for n in box.delivered if n % 4 == start % 4]
        assert of_run == list(range(start, 201, 4))
    assert len(said) == 2
    assert "There cannot take what is recorded: no connection" in said[0]
    assert "There takes records again" in said[1]


def test_with_many_runs_still_one_try_at_a_time(box, said):
    courier = Courier("There", said.append, first_wait_s=0.5, longest_wait_s=5)
    box.fails[None] = [AwayError("no connection")]
    add(courier, box, operations(100, [str(i) for i in range(100)]))
    until(lambda: len(box.tried) >= 2)
    assert len(box.tried) < 10
    courier.close(0)


def test_a_run_that_fails_does_not_hold_up_the_others(said, box):
    courier = Courier("There", said.append, first_wait_s=0.5, longest_wait_s=5)
    box.fails["a"] = [AwayError("HTTP 500")]
    add(courier, box, operations(20, "ab"))
    until(lambda: len(box.delivered) == 10)
    assert box.delivered == list(range(2, 21, 2))
    assert box.tried.count(1) < 5  # it is not tried after each of the others
    box.fails.clear()
    assert courier.flush(20) == 0
    assert box.delivered[10:] == list(range(1, 20, 2))
    courier.close(1)


def test_what_is_refused_is_set_aside_and_the_rest_goes_on(courier, box, said):
    box.fails[2] = [RefusedError("bad name")]
    add(courier, box, operations(4))
    assert courier.flush(20) == 0
    assert box.delivered == [1, 3, 4]
    assert box.tried == [1, 2, 3, 4]
    assert box.refused == [(2, "bad name")]
    assert said == ["There refused operation 2: bad name"]


def test_a_doubtful_refusal_is_believed_only_after_some_tries(courier, box):
    box.fails[1] = [RefusedError("trouble", tries=3), RefusedError("trouble", tries=3), None]
    box.fails[3] = [RefusedError("trouble", tries=3)]
    add(courier, box, operations(4))
    assert courier.flush(20) == 0
    assert box.delivered == [1, 2, 4]
    assert box.tried == [1, 1, 1, 2, 3, 3, 3, 4]
    assert box.refused == [(3, "trouble")]


def test_each_reason_is_said_once_until_all_is_well(courier, box, said):
    box.fails[None] = [AwayError(r) for r in ("one", "one", "two", "one", "two")] + [None]
    add(courier, box, operations(1))
    assert courier.flush(20) == 0
    until(lambda: len(said) == 3)
    assert [line.split(": ")[1].split(".")[0] for line in said[:2]] == ["one", "two"]
    box.fails[None] = [AwayError("one"), None]
    add(courier, box, operations(1))
    assert courier.flush(20) == 0
    until(lambda: len(said) == 5)


def test_waits_grow_and_stay_below_the_longest():
    courier = Courier("There", print)
    assert [courier._wait_s(n) for n in (1, 2, 3, 5, 6, 1000)] == [0.5, 1, 2, 8, 15, 15]
    courier.close(1)


def test_a_flush_does_not_sit_out_a_long_wait(said, box):
    courier = Courier("There", said.append, first_wait_s=60, longest_wait_s=60)
    box.fails[None] = [AwayError("no connection"), None]
    add(courier, box, operations(3))
    until(lambda: box.tried)
    assert courier.flush(20) == 0
    assert box.delivered == [1, 2, 3]
    courier.close(1)


def test_an_error_that_nobody_thought_of_does_not_end_the_thread(courier, box):
    box.fails[1] = [ZeroDivisionError("oh"), KeyError("x"), None]
    add(courier, box, operations(2))
    assert courier.flush(20) == 0
    assert box.delivered == [1, 2]


def test_a_disk_too_full_to_note_and_a_closed_terminal_stop_nothing(box):
    def closed(text):
        raise ValueError("I/O operation on closed file")

    def full(*args):
        raise OSError(28, "No space left on device")

    said = []
    for say in (closed, said.append):
        courier = Courier("There", say, first_wait_s=0.01)
        box.done = full
        box.refuse = full
        box.fails[2] = [RefusedError("bad")]
        add(courier, box, operations(3))
        assert courier.flush(20) == 0
        courier.close(1)
    assert box.delivered == [1, 3, 1, 3]
    assert len(said) == 1
    assert "No space left" in said[0]


def test_a_receiver_that_hangs_does_not_hold_up_the_end(box, said):
    courier = Courier("There", said.append)
    hanging = threading.Event()
    deliver, box.deliver = box.deliver, lambda operation: hanging.wait(30) and deliver(operation)
    add(courier, box, operations(3))
    started = time.monotonic()
    assert courier.close(0.1) == 3
    assert time.monotonic() - started < 5
    assert courier._thread.daemon
    hanging.set()
    courier._thread.join(20)
    # What was under way is noted, nothing new is begun.
    assert box.delivered == [1]
    assert [n for n, _ in box.noted] == [1]
