"""A study that is stopped in several ways, by the command that a user types, and goes on.

All ways at all stages: benchmarks/stops.py.
"""

import json

import pytest

from tests.helpers.inline_ray import inline_command
from tests.helpers.same_results import same_results
from tests.helpers.stops import LOST, TINY, WAYS, Command, n_running

pytestmark = pytest.mark.integration


def end_of(command, way, words):
    """Stop the command once it says ``words``, and look at what every stop must leave."""
    assert command.wait_for(words), command.text
    ended = command.stopped(way)
    assert ended.code == {**WAYS, **LOST}[way], ended.text
    assert ended.is_clean, ended.text
    assert ended.left == []
    assert n_running(command.out) == 0
    assert "report.html" not in ended.text  # the end of a study's words
    return ended


def records(folder):
    return {path.stem for path in (folder / ".stages").glob("*.json")}


def test_a_study_that_is_stopped_in_every_way_goes_on_to_equal_results(tmp_path):
    out = tmp_path / "stopped"
    out.mkdir()
    # Every process is told, and Ray's die before the command knows why.
    first = Command(out)
    ended = end_of(first, "scancel", "0 of 3 done")
    assert ended.sentences == ["Ended by SIGTERM"]
    assert "its process" not in ended.text  # no trial is blamed
    assert records(first.run) == {"simulated birds", "recordings"}

    # Nobody hears the sentence of a command whose terminal is gone.
    ended = end_of(Command(out, has_terminal=True), "closed terminal", "1 of 3 done")
    assert "its process" not in ended.text
    assert records(first.run) == {"simulated birds", "recordings"}

    ended = end_of(Command(out), "SIGINT twice", r"^\[\d/\d\] hmm")
    assert ended.sentences == ["Interrupted"]
    assert "hmm" not in records(first.run)

    last = Command(out).ended()
    assert last.code == 0, last.text
    for path in first.run.glob("search/**/ended.json"):
        content = json.loads(path.read_text("utf-8"))
        assert (content["reason"], content["n_retries"], content["may_go_on"]) == ("", 0, False)
    assert n_running(out) == 0

    whole = tmp_path / "whole"
    words = ["--preset", "smoke", "--out", str(whole), "--tracking-uri", first.uri, *TINY]
    code, text = inline_command(words)
    assert code == 0, text
    assert same_results(first.run, whole) == []


def test_a_stop_while_ray_starts_leaves_none_of_its_processes(tmp_path):
    ended = end_of(Command(tmp_path), "SIGTERM", "^Results ")
    assert ended.sentences == ["Ended by SIGTERM"]


def test_a_ray_that_dies_ends_the_command_as_a_stop_does(tmp_path):
    ended = end_of(Command(tmp_path), "raylet", "0 of 3 done")
    assert ended.sentences == ["Ray's raylet on this machine has died, perhaps for want of memory"]
    assert ended.seconds < 10
    ended = end_of(Command(tmp_path), "gcs_server", "of 3 done")
    assert ended.sentences == [
        "Ray's gcs_server on this machine has died, perhaps for want of memory"
    ]
    assert ended.seconds < 10
    assert "its process" not in ended.text  # no trial is blamed
    ended = end_of(Command(tmp_path), "SIGQUIT", "of 3 done")
    assert ended.sentences == ["Ended by SIGQUIT"]
