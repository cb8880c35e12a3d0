"""The HMM stage on Ray: a driver that is killed goes on where it was, a task that dies is named."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

from data_io.store import read_table
from models.hmm import HmmParams
from study.base.console import Console
from study.base.paths import ROOT
from study.cluster.tasks import MAX_RETRIES, TaskError, TaskRunner
from study.config.tree import StudyConfig
from study.hmms import stage as hmm_grid
from study.hmms import work as hmm_work
from study.hmms.journal import journal_folder
from study.hmms.tasks import fits_task
from study.hmms.work import Work, describe
from tests.helpers.hmm_study import Here, run, tables, write_study

pytestmark = pytest.mark.integration

PIECES = [(bird, age) for bird in ("a", "b", "c") for age in ("45", "90")]
PARAMS = {
    "merge": HmmParams(n_states=(2, 12), n_restarts=2, max_n_states=15, min_snippets=100),
    "grid": HmmParams(
        n_states=(2, 4, 6), n_restarts=3, max_n_states=15, min_snippets=100, search="grid"
    ),
}
KEY = ("bird", "age", "n_states", "reached_by", "restart", "bic", "seconds")


@pytest.fixture(scope="module")
def address():
    # Workers take the project from here; one task, one thread.
    os.environ["PYTHONPATH"] = str(ROOT)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    yield cluster.address
    cluster.shutdown()
    del os.environ["PYTHONPATH"]


def connect(address):
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")


def stage(address, root, recordings, params):
    """What the child process does: the stage, its text in a file."""
    hmm_work.MIN_BATCH_SECONDS = hmm_work.MAX_BATCH_SECONDS = 0.1  # small, so that there are many
    connect(address)
    with (root / "text").open("w") as text:
        config = StudyConfig(hmm=params)
        paths = hmm_grid.RunPaths(root)
        hmm_grid.run_grid(config, recordings, paths, Console(text), "latents")
    ray.shutdown()


def child(*args):
    # A server that has imported all that is needed makes the children: 4 s less for each.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["study.hmms.stage", "tests.helpers.hmm_study"])
    process = context.Process(target=stage, args=args)
    process.start()
    return process


def journaled(root):
    """Every fit in the journal of a run folder, and the birds and ages that are concluded."""
    fits, concluded = set(), set()
    for path in (root / ".hmm").rglob("[!.]*.json"):
        try:
            entry = json.loads(json.loads(path.read_text())["entry"])
        except FileNotFoundError:
            continue  # its bird and age was concluded this moment
        piece = {"bird": entry["bird"], "age": entry["age"]}
        fits |= {tuple({**piece, **row}[name] for name in KEY) for row in entry["fits"]}
        if entry["found"] is not None:
            concluded.add((entry["bird"], entry["age"]))
    return fits, concluded


@pytest.mark.parametrize("search", ["merge", "grid"])
def test_killed_three_times_the_stage_ends_with_the_tables_of_one_that_was_not(
    address, monkeypatch, tmp_path, search
):
    params = PARAMS[search]
    paths, recordings = write_study(tmp_path / "whole", PIECES, n_snippets=120)
    Here(monkeypatch)  # without Ray, one task after the other
    run(paths, recordings, params)
    expected = tables(paths)
    n_fits = len(expected[0])

    paths, recordings = write_study(tmp_path / "killed", PIECES, n_snippets=120)
    before = set()
    for share in (0.05, 0.35, 0.6):
        process = child(address, paths.root, recordings, params)
        deadline = time.monotonic() + 60
        while len(journaled(paths.root)[0]) < share * n_fits and process.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        fits, concluded = journaled(paths.root)
        assert before < fits, "a kill has lost what was done"
        assert not paths.hmm_grid.exists()
        before = fits
    assert 0 < len(before) < n_fits
    last = child(address, paths.root, recordings, params)
    last.join()
    assert last.exitcode == 0
    assert tables(paths) == expected
    # What was done before the kills was not done again: it has the same seconds to the last bit.
    grid = read_table(paths.hmm_grid).to_pylist()
    assert before <= {tuple(row[name] for name in KEY) for row in grid}
    done = f"{len(before)} of " if search == "grid" else f"{len(concluded)} of {len(PIECES)} birds"
    text = (paths.root / "text").read_text()
    assert done in text.splitlines()[0]
    assert "were done before" in text.splitlines()[0]
    assert not [p for p in journal_folder(paths).rglob("*") if ".tmp" in p.name]


@pytest.fixture
def connection(address):
    connect(address)
    yield
    ray.shutdown()


@ray.remote(max_retries=MAX_RETRIES)
def dies(path):
    with Path(path).open("a") as file:
        file.write("started\n")
    os.kill(os.getpid(), signal.SIGKILL)


@ray.remote
def number(n):
    return n


def test_a_task_that_dies_again_and_again_is_named_and_what_is_done_is_kept(connection, tmp_path):
    bad = Work(("sim1", "45"), "fits", 1.0, ((20, 0), (20, 1)))
    kept = []
    with pytest.raises(TaskError) as caught:
        TaskRunner().run(
            lambda work: dies.remote(tmp_path / "log") if work is bad else number.remote(1),
            [bad, "good", "better"],
            lambda work, result: kept.append(work),
            lambda work: describe(work, PARAMS["grid"]),
        )
    assert len((tmp_path / "log").read_text().split()) == 1 + MAX_RETRIES
    message = str(caught.value)
    assert message.startswith("HMMs of sim1 at 45, 20 states (restart 0), 20 states (restart 1),")
    assert f"at each of {MAX_RETRIES} retries (WorkerCrashedError" in message
    assert "the same command goes on" in message
    assert "resources.max_tasks=1" in message
    assert sorted(kept) == ["better", "good"]  # two workers: either may end first


def test_an_exception_in_a_task_is_named_and_what_ended_beside_it_is_kept(connection):
    bad = Work(("sim1", "45"), "fits", 1.0, ((20, 0),))
    latents = [np.ones((200, 3)), np.ones((200, 2))]
    refs, kept = [], []

    def submit(work):
        refs.append(
            fits_task.remote(latents, work.fits, 0, PARAMS["grid"])
            if work is bad
            else number.remote(1)
        )
        if work == "good":
            ray.wait(refs, num_returns=2)  # both have ended before one is looked at
        return refs[-1]

    with pytest.raises(TaskError) as caught:
        TaskRunner().run(
            submit,
            [bad, "good"],
            lambda work, result: kept.append(work),
            lambda work: describe(work, PARAMS["grid"]),
        )
    assert kept == ["good"]
    message = str(caught.value)
    assert message.startswith("HMMs of sim1 at 45, 20 states (restart 0), failed: ValueError: ")
    assert "the same command goes on from there" in message


def test_results_may_bring_more_work_which_comes_first_and_few_tasks_are_under_way(connection):
    order, under_way, most, came_back = [], set(), 0, {}

    def submit(n):
        nonlocal most
        order.append(n)
        under_way.add(n)
        most = max(most, len(under_way))
        return number.remote(n)

    def on_result(n, result):
        assert n == result
        under_way.remove(n)
        came_back[n] = len(order)
        return [n + 100, n + 200] if n < 3 else None

    TaskRunner().run(submit, range(20), on_result, str)
    assert sorted(order) == [*range(20), 100, 101, 102, 200, 201, 202]
    assert most == 4  # two for each core
    for n in range(3):
        assert order[came_back[n]] == n + 100
        assert order.index(n + 100) < order.index(n + 200)
