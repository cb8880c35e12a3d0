"""A study that is killed, extended, or out of room: by the command that a user types."""

import os
import random
import signal
import subprocess
import time
from contextlib import suppress

import pytest

from study.base.console import Console
from study.base.paths import RunPaths
from study.config.reader import load_config
from study.search.search_folder import prepare_folder
from study.search.trial_folder import TrialFolder, TrialSpec
from tests.helpers.chaos import Chaos, count

pytestmark = pytest.mark.integration

# One bird and age; small trials, whose many reports take longer than their training.
TINY = [
    "data.simulation.n_birds=1", "data.simulation.ages_dph=[60]",
    "data.simulation.minutes=0.17", "data.simulation.recording_s=[1.8,2.2]",
    "mdgan.n_snippets=2560", "mdgan.n_reports=10", "mdgan.dense_width=8",
    "search.n_eval_snippets=200", "search.grace_reports=10", "search.max_retries=5",
    "search.selection={rule: lowest, n_seeds: 0}",
    "hmm.n_states=[1,2]", "hmm.max_n_states=2", "hmm.n_restarts=1", "hmm.min_snippets=50",
    "songs.seconds=1.0", "songs.griffin_lim_iterations=2",
]  # fmt: skip


@pytest.fixture
def chaos(tmp_path):
    chaos = Chaos(tmp_path, 3, TINY, random.Random(0))
    yield chaos
    if chaos.is_running():  # the test failed; its study must not live on beside other tests
        chaos.kill_driver_only()


def wait_until(chaos, is_so):
    while not is_so():
        assert chaos.is_running(), (chaos.folder / "log").read_text()[-3000:]
        chaos.note_progress()
        time.sleep(0.1)


def log(chaos):
    return (chaos.folder / "log").read_text()


def ended(chaos):
    """When each trial ended."""
    found = (chaos.out / "search").glob("trial-*/ended.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in found}


def sound(n):
    return {
        "trials in the folder": n, "trials in the table": n, "trials completed or stopped": n,
        "trials in Optuna": n, "MLflow runs of trials": n, "different trials among them": n,
        "MLflow runs still RUNNING": 0, "reports missing in MLflow": 0,
        "reports twice in MLflow": 0,
    }  # fmt: skip


def test_a_study_survives_kills_names_a_broken_checkpoint_and_is_extended(chaos):
    chaos.start()
    chaos.wait_for_work()
    wait_until(chaos, lambda: chaos.progress)
    assert chaos.kill_worker()
    wait_until(chaos, lambda: chaos.n_ended() >= 1)
    unfinished = []
    while not unfinished:  # a trial with two checkpoints that is not over
        wait_until(chaos, chaos.trials_at_work)
        folders = [p for p in (chaos.out / "search").glob("trial-*")
                   if not (p / "ended.json").exists()]  # fmt: skip
        # Not one that may end before it is killed.
        kept = {p: sorted(c.name for c in p.glob("checkpoint-????")) for p in folders}
        unfinished = [p for p, names in kept.items()
                      if len(names) == 2 and names[1] <= "checkpoint-0007"]  # fmt: skip
    chaos.kill_driver_only()
    newest = max(unfinished[0].glob("checkpoint-????"))
    (newest / "training.safetensors").write_bytes(b"cut short")
    n_before = chaos.n_ended()
    assert n_before < 3

    chaos.start()
    wait_until(chaos, (chaos.out / ".stages" / "trials.json").exists)
    chaos.kill_driver_only()
    text = log(chaos)
    assert "its process died; it goes on elsewhere" in text
    assert f"{unfinished[0].name}: {newest.name} is broken (training.safetensors" in text
    assert f"checkpoint-{int(newest.name[11:]) - 1:04d} is used" in text
    kept = ended(chaos)
    assert len(kept) == 3

    chaos.n_trials = 4
    chaos.start()
    assert chaos.driver.wait(timeout=400) == 0, log(chaos)[-3000:]
    assert "3 trials are there: 1 to run or to go on with" in log(chaos)
    found = count(chaos)
    assert found.pop("most checkpoints gone back") <= 1
    assert found == sound(4)
    assert kept.items() <= ended(chaos).items()


def test_ctrl_c_ends_a_study_and_the_same_command_completes_it(chaos):
    chaos.n_trials = 6
    chaos.start()
    wait_until(chaos, lambda: chaos.n_ended() >= 2)
    os.killpg(chaos.driver.pid, signal.SIGINT)  # as a terminal sends it: to all processes
    assert chaos.driver.wait(timeout=60) == 130, log(chaos)[-3000:]
    text = log(chaos)
    assert text.count("Interrupted. The same command goes on from here.") == 1
    assert "Traceback" not in text
    assert "Best:" not in text
    assert 2 <= chaos.n_ended() < 6
    for name in (".stages/trials.json", "trials.parquet", "best", "latents"):
        assert not (chaos.out / name).exists(), name
    kept = ended(chaos)

    chaos.start()
    assert chaos.driver.wait(timeout=400) == 0, log(chaos)[-3000:]
    found = count(chaos)
    assert found.pop("most checkpoints gone back") <= 1
    assert found == sound(6)
    assert kept.items() <= ended(chaos).items()


def test_another_search_in_the_same_folder_sets_the_old_one_aside(tmp_path, capsys):
    paths = RunPaths(tmp_path)
    config = load_config("smoke", None, [])
    spec = TrialSpec("trial-000", 0, 0, {})
    for i, (overrides, data, changed) in enumerate(
        [
            ([], "data", None),
            (["search.n_trials=9", "search.max_retries=7", "resources.cpus_per_trial=2",
              "snippets.hop=16"], "data", None),
            (["search.selection.n_seeds=5"], "data", None),
            (["mdgan.lr=0.001"], "data", "search.space"),
            (["mdgan.lr=0.001"], "other data", "data"),
            (["mdgan.lr=0.001", "seed=1"], "other data", "seed"),
            (["mdgan.lr=0.001", "seed=2"], "split anew", "seed, and so the data"),
            (["mdgan.lr=0.002", "seed=2"], "more data", "data, mdgan.lr"),
            (["spectrogram.highpass_hz=300"], "changed",
             "mdgan.lr, search.space, seed, spectrogram.highpass_hz, and so the data"),
        ]
    ):  # fmt: skip
        config = load_config("smoke", None, overrides)
        n_before = len(list(tmp_path.glob("search-before-*")))
        prepare_folder(config, data, paths, Console())
        text = " ".join(capsys.readouterr().out.split())
        assert len(list(tmp_path.glob("search-before-*"))) == n_before + (changed is not None), i
        if changed is not None:
            assert f"the search is another one ({changed}); the old one is now" in text
            assert (tmp_path / f"search-before-{n_before + 1}" / "trial-000").is_dir()
        TrialFolder(paths.search / "trial-000").begin(spec)


def test_a_search_that_was_set_aside_is_taken_back_with_its_settings(tmp_path, capsys):
    paths = RunPaths(tmp_path)
    seeds = (0, 1, 2, 1, 0)
    for i, seed in enumerate(seeds):
        key = prepare_folder(load_config("smoke", None, [f"seed={seed}"]), "data", paths, Console())
        trial = TrialFolder(paths.search / "trial-000")
        text = capsys.readouterr().out
        if i < 3:
            trial.begin(TrialSpec("trial-000", 0, seed, {}, search=key))
        else:
            assert "is of this search: it is search/ again" in text
        assert trial.spec().seed == seed
    assert len(list(tmp_path.glob("search*"))) == 3


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"a small file system needs root: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_named_and_with_room_the_study_ends_whole(small_disk, tmp_path, chaos):
    (tmp_path / "run").symlink_to(small_disk)
    chaos.n_trials = 1
    chaos.start()
    wait_until(chaos, lambda: chaos.progress)
    with (small_disk / "filler").open("wb") as filler, suppress(OSError):
        while True:
            filler.write(bytes(1 << 16))
            filler.flush()
    assert chaos.driver.wait(timeout=200) == 1
    text = log(chaos)
    (error,) = (line for line in text.splitlines() if line.startswith("error: "))
    assert "No space left on device" in error
    assert "Make room" in error
    assert "the same command goes on" in error
    assert "Traceback" not in text
    assert "process died" not in text
    begun = {p.name for p in (chaos.out / "search").glob("trial-*")}
    assert begun
    (small_disk / "filler").unlink()
    chaos.start()
    assert chaos.driver.wait(timeout=400) == 0, log(chaos)[-3000:]
    assert begun <= {p.name for p in (chaos.out / "search").glob("trial-*")}
    found = count(chaos)
    assert found.pop("most checkpoints gone back") <= 1
    assert found == sound(1)
