"""An interrupt that a library drops is raised again; one that is ignored stays so."""

import os
import signal

import pytest

from study.base.interrupt import interrupts_noted, raise_if_interrupted


def drop_an_interrupt():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        signal.sigtimedwait([], 1)  # the signal arrives at the latest here
    except BaseException:  # as a bare `except` of a library does
        pass


def test_a_dropped_interrupt_is_raised_at_the_next_place_that_asks():
    with interrupts_noted():
        raise_if_interrupted()
        drop_an_interrupt()
        with pytest.raises(KeyboardInterrupt):
            raise_if_interrupted()
    with interrupts_noted():
        raise_if_interrupted()


def test_python_has_its_own_handler_back_afterwards():
    with interrupts_noted():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_interrupt_stays_ignored():
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts_noted():
            os.kill(os.getpid(), signal.SIGINT)
            raise_if_interrupted()
    finally:
        signal.signal(signal.SIGINT, old)
