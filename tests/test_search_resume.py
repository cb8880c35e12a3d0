"""A study that is killed, extended, or out of room: by the command that a user types."""

import random
import shutil
import subprocess
import sys
import time

import pytest

from benchmarks.chaos import ROOT, Chaos, count

pytestmark = pytest.mark.integration

# One bird and age; small trials, whose many reports take longer than their training.
TINY = [
    "data.simulation.n_birds=1", "data.simulation.ages_dph=[60]",
    "data.simulation.n_recordings=5", "data.simulation.seconds=2.0",
    "mdgan.n_snippets=2560", "mdgan.n_reports=10", "mdgan.dense_width=8",
    "search.n_eval_snippets=200", "search.grace_reports=10", "search.max_retries=5",
    "search.selection={rule: lowest, n_seeds: 1}",
    "hmm.n_states=[1,2]", "hmm.max_n_states=2", "hmm.n_restarts=1", "hmm.min_snippets=50",
    "songs.seconds=1.0", "songs.griffin_lim_iterations=2",
]  # fmt: skip


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


def test_a_study_survives_kills_names_a_broken_checkpoint_and_is_extended(tmp_path):
    chaos = Chaos(tmp_path, 6, TINY, random.Random(0))
    chaos.start()
    chaos.wait_for_work()
    wait_until(chaos, lambda: chaos.progress)
    assert chaos.kill_worker()
    wait_until(chaos, lambda: chaos.n_ended() >= 3)
    unfinished = []
    while not unfinished:  # a trial with two checkpoints that is not over
        wait_until(chaos, chaos.trials_at_work)
        folders = [p for p in (chaos.out / "search").glob("trial-*")
                   if not (p / "ended.json").exists()]  # fmt: skip
        unfinished = [p for p in folders if len(list(p.glob("checkpoint-????"))) == 2]
    chaos.kill_driver_only()
    newest = max(unfinished[0].glob("checkpoint-????"))
    (newest / "training.safetensors").write_bytes(b"cut short")
    n_before = chaos.n_ended()
    assert n_before < 6

    chaos.start()
    assert chaos.driver.wait(timeout=400) == 0, log(chaos)[-3000:]
    text = log(chaos)
    assert "its process died; it goes on elsewhere" in text
    assert f"{unfinished[0].name}: {newest.name} is broken (training.safetensors" in text
    assert f"checkpoint-{int(newest.name[11:]) - 1:04d} is used" in text
    found = count(chaos)
    assert found.pop("most checkpoints gone back") <= 1
    assert found == sound(6)
    kept = ended(chaos)

    chaos.n_trials = 8
    chaos.start()
    assert chaos.driver.wait(timeout=400) == 0, log(chaos)[-3000:]
    assert "6 trials are there: 2 to run or to go on with" in log(chaos)
    found = count(chaos)
    found.pop("most checkpoints gone back")
    assert found == sound(8)
    assert kept.items() <= ended(chaos).items()
    # Another search in the same folder: nothing is mixed, nothing lost.
    chaos.n_trials = 1
    chaos.overrides = [*TINY, "mdgan.lr=0.001"]
    chaos.start()
    assert chaos.driver.wait(timeout=400) == 0, log(chaos)[-3000:]
    assert "the search is another one (search.space); the old one is now" in log(chaos)
    assert len(list((chaos.out / "search-before-1").glob("trial-*"))) == 8
    assert len(list((chaos.out / "search").glob("trial-*"))) == 1


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"a small file system needs root: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_named_and_with_room_the_study_ends_whole(small_disk, tmp_path):
    command = [sys.executable, str(ROOT / "study" / "run_tune.py"), "--preset", "smoke"]
    command += ["--out", str(small_disk / "run")]
    command += ["--tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}", *TINY, "search.n_trials=3"]

    def run():
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=400
        )

    free = shutil.disk_usage(small_disk).free
    full = run()
    assert full.returncode in (1, 2), full.stdout + full.stderr
    assert "Traceback" not in full.stderr
    assert str(small_disk) in full.stderr
    assert "room" in full.stderr or "free" in full.stderr
    assert shutil.disk_usage(small_disk).free <= free
    begun = {p.name for p in (small_disk / "run" / "search").glob("trial-*")}
    subprocess.run(["mount", "-o", "remount,size=500m", str(small_disk)], check=True)
    whole = run()
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert begun <= {p.name for p in (small_disk / "run" / "search").glob("trial-*")}
    chaos = Chaos(tmp_path, 3, [], random.Random(0))
    (tmp_path / "run").symlink_to(small_disk / "run")
    found = count(chaos)
    found.pop("most checkpoints gone back")
    assert found == sound(3)
