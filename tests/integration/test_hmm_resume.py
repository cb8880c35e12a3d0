"""The HMM stage on Ray: a driver that is killed goes on where it was, a task that dies is named."""

import json
import multiprocessing
import os
import re
import signal
import time
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

from data_io.snippets import SnippetParams
from data_io.store import read_table
from models.hmm import HmmParams
from study.base.console import Console
from study.base.paths import ROOT, RunPaths
from study.cluster.tasks import MAX_RETRIES, TaskError, TaskRunner
from study.config.tree import StudyConfig
from study.hmms.fan_out import FanOut, Latents
from study.hmms.journal import Journal, journal_folder
from study.hmms.stage import find_n_states
from study.hmms.task import Made
from tests.helpers.hmm_study import Here, run, tables, write_study

pytestmark = pytest.mark.integration

BIRDS_AND_AGES = [(bird, age) for bird in ("a", "b", "c") for age in ("45", "90")]
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
    connect(address)
    with (root / "text").open("w") as text:
        config = StudyConfig(hmm=params, snippets=SnippetParams(hop=16))
        find_n_states(config, recordings, RunPaths(root), Console(text), "latents", TaskRunner())
    ray.shutdown()


def child(*args):
    # A server that has imported all that is needed makes the children: 4 s less for each.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["study.hmms.stage", "tests.helpers.hmm_study"])
    process = context.Process(target=stage, args=args)
    process.start()
    return process


def entries(root, kind="*"):
    """Files of the journal of a run folder that count, of one kind of task or of all."""
    return list(root.glob(f".hmm/*/{kind}/*/[!.]*.json"))


def journaled(root):
    """Every fit in the journal of a run folder, and the number of birds and ages."""
    fits, n_done = set(), 0
    for path in entries(root, "searches"):
        entry = json.loads(json.loads(path.read_text())["entry"])
        bird_age = {"bird": entry["bird"], "age": entry["age"]}
        fits |= {tuple({**bird_age, **row}[name] for name in KEY) for row in entry["fits"]}
        n_done += 1
    return fits, n_done


@pytest.mark.parametrize("search", ["merge", "grid"])
def test_killed_three_times_the_stage_ends_with_the_tables_of_one_that_was_not(
    address, monkeypatch, tmp_path, search
):
    params = PARAMS[search]
    paths, recordings = write_study(tmp_path / "whole", BIRDS_AND_AGES, n_snippets=120)
    run(paths, recordings, params, Here(monkeypatch))  # without Ray, one after the other
    expected = tables(paths)

    paths, recordings = write_study(tmp_path / "killed", BIRDS_AND_AGES, n_snippets=120)
    before = set()
    for n_wanted in (1, 3, 5):
        process = child(address, paths.root, recordings, params)
        deadline = time.monotonic() + 60
        while journaled(paths.root)[1] < n_wanted and process.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        fits, n_done = journaled(paths.root)
        assert before < fits, "a kill has lost what was done"
        assert not paths.hmm_grid.exists()
        before = fits
    assert 0 < n_done < len(BIRDS_AND_AGES)
    last = child(address, paths.root, recordings, params)
    last.join()
    assert last.exitcode == 0
    assert tables(paths) == expected
    # What was done before the kills was not done again: it has the same seconds to the last bit.
    grid = read_table(paths.hmm_grid).to_pylist()
    assert before <= {tuple(row[name] for name in KEY) for row in grid}
    text = (paths.root / "text").read_text()
    assert f"{n_done} of {len(BIRDS_AND_AGES)} birds and ages were done before" in text
    assert not [p for p in journal_folder(paths).rglob("*") if ".tmp" in p.name]


def test_killed_among_shared_states_the_stage_ends_with_the_tables_of_one_that_was_not(
    address, monkeypatch, tmp_path
):
    params = HmmParams(n_states=(2, 8), n_restarts=1, min_snippets=100, shared_states=True)
    assert params.covariance_type == "auto"
    paths, recordings = write_study(tmp_path / "whole", BIRDS_AND_AGES, n_snippets=60)
    whole = Here(monkeypatch)
    run(paths, recordings, params, whole)
    expected = tables(paths)

    paths, recordings = write_study(tmp_path / "killed", BIRDS_AND_AGES, n_snippets=60)
    n_done = 0
    for n_wanted in (3, 8, 13):  # among searches, shared states and models
        process = child(address, paths.root, recordings, params)
        deadline = time.monotonic() + 120
        while len(entries(paths.root)) < n_wanted and process.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert n_done < len(entries(paths.root)), "a kill has lost what was done"
        n_done = len(entries(paths.root))
        assert not paths.hmm_shared.exists()
    assert n_done < whole.n_back
    last = child(address, paths.root, recordings, params)
    last.join()
    assert last.exitcode == 0
    assert tables(paths) == expected
    assert len(expected) == 5  # with hmm_ages and hmm_shared


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


@ray.remote
def fails():
    raise ValueError("so it is")


def test_a_task_that_dies_again_and_again_is_named_and_what_is_done_is_kept(connection, tmp_path):
    kept = []
    with pytest.raises(TaskError) as caught:
        TaskRunner().run(
            lambda one: dies.remote(tmp_path / "log") if one == "bad" else number.remote(1),
            ["bad", "good", "better"],
            lambda one, result: kept.append(one),
            lambda one: f"The {one} task",
        )
    assert len((tmp_path / "log").read_text().split()) == 1 + MAX_RETRIES
    message = str(caught.value)
    assert message.startswith("The bad task failed: its worker process died")
    assert f"at each of {MAX_RETRIES} retries (WorkerCrashedError" in message
    assert "the same command goes on" in message
    assert "resources.max_tasks=1" in message
    logs = re.search(r"Ray's logs are in (\S+), on the machine of the process\.$", message)
    assert logs is not None and (Path(logs[1]) / "raylet.out").exists()
    assert sorted(kept) == ["better", "good"]  # two workers: either may end first


def test_a_search_that_fails_is_named_and_what_ended_beside_it_is_kept(connection, tmp_path):
    good = [np.random.default_rng(0).normal(size=(100, 3)) for _ in range(4)]
    bad = [np.ones((200, 3)), np.ones((200, 2))]
    one_more = ("sim1", "90")
    latents = {("sim1", "45"): bad, ("sim1", "60"): good, one_more: good}
    whitening = np.zeros(3), np.ones(3)
    journal = Journal(tmp_path, "key", Console(StringIO()))
    runs_alone = TaskRunner(max_tasks=1)
    fan_out = FanOut(
        Latents(
            latents.__getitem__,
            lambda one: [np.ones(len(z), dtype=bool) for z in latents[one]],
            {("sim1", "45"): 150, ("sim1", "60"): 400, one_more: 100},  # in this order
            dict.fromkeys(latents, Made(whitening, 16, 1.0)),
        ),
        0, PARAMS["merge"], journal, Console(StringIO()), runs_alone,
    )  # fmt: skip
    with pytest.raises(TaskError) as caught:
        fan_out.run()
    message = str(caught.value)
    assert message.startswith(
        "HMMs of sim1 at 45, search from 2 to 12 states, failed: ValueError: "
    )
    assert "the same command goes on from there" in message
    assert journal.load(("sim1", "60")).selected["status"] == "ok"
    assert journal.load(one_more) is None


def test_what_ended_beside_a_task_that_failed_is_kept(connection):
    refs, kept = [], []

    def submit(one):
        refs.append(fails.remote() if one == "bad" else number.remote(1))
        if one == "good":
            ray.wait(refs, num_returns=2)  # both have ended before one is looked at
        return refs[-1]

    with pytest.raises(TaskError, match=r"^The bad task failed: ValueError: so it is\. "):
        TaskRunner().run(
            submit,
            ["bad", "good"],
            lambda one, result: kept.append(one),
            lambda one: f"The {one} task",
        )
    assert kept == ["good"]


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
