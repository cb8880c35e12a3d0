"""Signals: one sentence, the right code, and whatever else happens meanwhile is the stop."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import psutil
import pytest

import study.verify  # noqa: F401  (one of its functions is replaced)
from study import fetch_model, run_tune
from study.base import stopping
from study.base.command import run_command
from study.base.errors import StudyError
from study.base.paths import ROOT

AGAIN = "The same command goes on from here."


def tell(number=signal.SIGTERM):
    """Send a signal to this process; Python's handler runs before the next line."""
    os.kill(os.getpid(), number)


def after(seconds, number=signal.SIGTERM):
    """Send a signal to this process later."""
    timer = threading.Timer(seconds, tell, [number])
    timer.start()
    return timer


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (signal.SIGINT, 130, "Interrupted"),
        (signal.SIGTERM, 143, "Ended by SIGTERM"),
        (signal.SIGHUP, 129, "Ended by SIGHUP"),
        (signal.SIGQUIT, 131, "Ended by SIGQUIT"),
    ],
)
def test_each_signal_has_its_code_and_one_sentence(number, code, words, capsys):
    handlers = [signal.getsignal(n) for n in stopping.SIGNALS]
    assert run_command(lambda console: tell(number)) == code
    assert capsys.readouterr().err == f"{words}. {AGAIN}\n"
    assert [signal.getsignal(n) for n in stopping.SIGNALS] == handlers
    assert not stopping.is_stopping()
    assert run_command(lambda console: 7) == 7  # nothing of the stop before is left
    assert capsys.readouterr().err == ""


def test_what_is_lost_ends_the_command_from_any_thread_and_is_no_signal_from_outside(capsys):
    def work(console):
        thread = threading.Thread(target=stopping.give_up, args=["Ray's raylet has died"])
        thread.start()
        time.sleep(5)

    assert run_command(work) == 1
    assert capsys.readouterr().err == f"Ray's raylet has died. {AGAIN}\n"
    stopping.give_up("nothing runs")  # it stops nobody
    assert run_command(lambda console: tell()) == 143  # nothing of it is left


@pytest.mark.parametrize(
    ("words", "begins"),
    [
        (["check", "."], "study.run_tune.survey"),
        (["--data", ".", "--dry-run"], "study.run_tune.survey"),
        (["--data", ".", "--doctor"], "study.run_tune.survey"),
        (["verify", "."], "study.verify.verify"),
        (["name", "--out", "out"], "study.fetch_model.fetch"),
        (["--data", "."], "study.run_tune.survey"),
    ],
)
def test_a_command_that_leaves_nothing_behind_does_not_say_that_it_goes_on(
    words, begins, capsys, monkeypatch
):
    monkeypatch.setattr(begins, lambda *_: tell(signal.SIGINT))
    main = fetch_model.main if "fetch" in begins else run_tune.main
    assert main(words) == 130
    then = AGAIN if words == ["--data", "."] else "The same command begins anew."
    assert capsys.readouterr().err == f"Interrupted. {then}\n"
    assert run_command(lambda console: tell(signal.SIGINT)) == 130
    assert capsys.readouterr().err == f"Interrupted. {AGAIN}\n"


def test_a_swallowed_stop_comes_back_before_anything_is_concluded():
    concluded = []

    def work(console):
        with suppress(BaseException):
            tell()
        assert stopping.is_stopping()
        stopping.check()
        concluded.append("wrong")

    assert run_command(work) == 143
    assert concluded == []


def test_a_swallowed_stop_is_the_end_of_a_command_that_has_done_its_work(capsys):
    def work(console):
        with suppress(BaseException):
            tell()
        return 0

    assert run_command(work) == 143
    assert capsys.readouterr().err == f"Ended by SIGTERM. {AGAIN}\n"


def test_a_stop_that_python_itself_swallows_is_raised_again(capsys):
    class Loud:
        def __del__(self):
            tell()

    slept = []

    def work(console):
        Loud()
        time.sleep(10)
        slept.append("wrong")
        return 0

    assert run_command(work) == 143
    assert slept == []
    assert capsys.readouterr().err == f"Ended by SIGTERM. {AGAIN}\n"


def test_an_error_after_a_stop_was_asked_for_is_the_stop(capsys):
    def work(console):
        try:
            tell()
        finally:
            raise FileNotFoundError("the lock is gone")

    assert run_command(work) == 143
    assert capsys.readouterr().err == f"Ended by SIGTERM. {AGAIN}\n"


@pytest.mark.parametrize(
    "error", [StudyError("its worker died"), RuntimeError(), BrokenPipeError()]
)
def test_an_error_just_before_the_signal_is_the_stop(error, capsys):
    def work(console):
        after(0.2)
        try:
            raise error
        except Exception as failed:
            stop = stopping.cause(failed)
            raise stop or failed from failed

    assert run_command(work) == 143
    assert capsys.readouterr().err == f"Ended by SIGTERM. {AGAIN}\n"


def test_without_a_signal_an_error_stays_what_it_is(capsys):
    def work(console):
        raise StudyError("value, cause, remedy")

    assert run_command(work) == 1
    assert capsys.readouterr().err == "error: value, cause, remedy\n"
    with pytest.raises(ZeroDivisionError):
        run_command(lambda console: 1 // 0)


def test_later_signals_do_not_cut_off_what_is_being_closed(capsys):
    closed = []

    def work(console):
        try:
            tell(signal.SIGHUP)
        finally:
            for number in stopping.SIGNALS:
                tell(number)
            closed.append("whole")

    assert run_command(work) == 129
    assert closed == ["whole"]
    assert capsys.readouterr().err == f"Ended by SIGHUP. {AGAIN}\n"


def test_a_block_that_is_held_is_not_cut_in_half():
    seen = []

    def work(console):
        with stopping.held():
            tell()
            seen.append("in the block")
        seen.append("behind it")

    assert run_command(work) == 143
    assert seen == ["in the block"]


def test_a_handler_that_somebody_else_puts_in_does_not_hide_the_signal(capsys):
    def work(console):
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as Ray does
        tell()

    assert run_command(work) == 143
    assert capsys.readouterr().err == f"Ended by SIGTERM. {AGAIN}\n"

    raised = []

    def reclaimed(console):
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        stopping.reclaim()
        try:
            tell()
        except BaseException as error:
            raised.append(type(error))
            raise

    assert run_command(reclaimed) == 143
    assert raised == [stopping.Stopped]


def test_in_another_thread_a_command_runs_as_without_signals():
    codes = []
    thread = threading.Thread(target=lambda: codes.append(run_command(lambda console: 5)))
    thread.start()
    thread.join()
    assert codes == [5]


SCRIPT = """
import hashlib, subprocess, sys, time
from study.base import stopping
stopping.listen()
{before}
from study.base.command import run_command
def work(console):
    {work}
    return 0
sys.exit(run_command(work))
"""


def script(work, before="", ignored="", **streams):
    """A process of its own, which listens to signals as the commands do."""
    code = SCRIPT.format(work=work, before=before)
    traps = f"trap '' {ignored}; " if ignored else ""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        ["bash", "-c", f'{traps}exec "$@"', "bash", sys.executable, "-c", code],
        cwd=ROOT, text=True, **(pipes | streams),
    )  # fmt: skip


def test_a_main_thread_in_c_code_is_ended_with_all_that_it_started():
    process = script(
        "child = subprocess.Popen(['sleep', '100']); stopping.BOUND_S = 0.5; "
        "console.line(str(child.pid)); hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
    )
    child = psutil.Process(int(process.stdout.readline()))
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 143
    assert text == f"Ended by SIGTERM. {AGAIN}\n"
    with suppress(psutil.NoSuchProcess):
        child.wait(10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("fault", "text"),
    [("stopping.started = lambda: 1 // 0", f"Ended by SIGTERM. {AGAIN}\n"), ("os.close(2)", "")],
)
def test_the_end_by_the_clock_comes_whatever_fails_in_it(fault, text):
    process = script(
        f"stopping.BOUND_S = 0.5; import os; {fault}; console.line('on'); "
        "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
    )
    assert process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGTERM)
    try:
        _, said = process.communicate(timeout=15)
    finally:
        process.kill()
    assert (process.returncode, said) == (143, text)


def test_signals_that_are_ignored_at_the_start_stay_ignored():
    process = script("console.line('on'); sys.stdin.readline()", ignored="HUP INT",
                     stdin=subprocess.PIPE)  # fmt: skip
    assert process.stdout.readline() == "on\n"
    for number in (signal.SIGHUP, signal.SIGINT):
        process.send_signal(number)
    _, text = process.communicate("go on\n", timeout=60)
    assert (process.returncode, text) == (0, "")


def test_a_handler_that_others_put_in_does_not_end_an_ignored_signal():
    process = script(
        "import signal; signal.signal(signal.SIGTERM, lambda *rest: sys.exit(9)); "
        "stopping.reclaim(); console.line('on'); sys.stdin.readline()",
        ignored="TERM", stdin=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate("go on\n", timeout=60)
    assert (process.returncode, text) == (0, "")


def test_a_signal_while_a_command_is_imported_ends_it_with_the_sentence():
    process = script("", before="print('on', flush=True); time.sleep(100)")
    assert process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=60)
    assert (process.returncode, text) == (130, f"Interrupted. {AGAIN}\n")


def test_a_signal_behind_the_end_of_a_command_does_not_change_its_code():
    process = script(
        "return 7",
        before="import atexit\n"
        "atexit.register(lambda: (print('over', flush=True), sys.stdin.readline()))",
        stdin=subprocess.PIPE,
    )
    assert process.stdout.readline() == "over\n"
    for number in stopping.SIGNALS:
        process.send_signal(number)
    _, text = process.communicate("go on\n", timeout=60)
    assert (process.returncode, text) == (7, "")


@pytest.mark.parametrize(("ignored", "code"), [("", 129), ("HUP", 0)])
def test_a_terminal_that_is_gone_is_a_hang_up_unless_it_is_ignored(ignored, code):
    ours, theirs = pty.openpty()
    process = script(
        "console.line('on')\n    sys.stdin.readline()\n"
        "    for i in range(20): console.progress(str(i)); console.line(str(i))",
        ignored=ignored, stdin=subprocess.PIPE, stdout=theirs,
    )  # fmt: skip
    os.close(theirs)
    assert os.read(ours, 2) == b"on"
    os.close(ours)  # it is no terminal of the process, so that writes alone tell of it
    _, text = process.communicate("go on\n", timeout=60)
    assert (process.returncode, text) == (code, f"Ended by SIGHUP. {AGAIN}\n" if code else "")
