"""benchmarks/gpu.py in tiny form on a CPU: each section gives its rows, with few packages."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from study.config.reader import load_config

ROOT = Path(__file__).resolve().parents[2]
# What a rented machine with torch may lack.
NOT_NEEDED = ("ray", "mlflow", "librosa", "pyarrow", "optuna", "hmmlearn", "study", "data_io")
N_ROWS = {
    "facts": 1, "steps": 12, "inputs": 3, "ways": 18, "processes": 3, "determinism": 5,
    "reports": 2,
}  # fmt: skip


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"benchmarks/{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_every_section_gives_its_rows_with_few_packages(tmp_path):
    for name in NOT_NEEDED:
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('{name} was imported')")
    # In front of the packages that are installed, not of the script's own folder.
    block = "import sys; sys.meta_path.insert(0, __import__('blocker').Blocker())"
    (tmp_path / "sitecustomize.py").write_text(block)
    (tmp_path / "blocker.py").write_text(
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {NOT_NEEDED}:\n"
        "            raise ImportError(f'{name} was imported')\n"
    )
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(ROOT / "benchmarks/gpu.py"), "--cpu-smoke", "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "measures nothing" in done.stdout
    found = json.loads(out.read_text())
    assert found.pop("is_measurement") is False
    assert {name: len(section["rows"]) for name, section in found.items()} == N_ROWS
    assert not [row for section in found.values() for row in section["rows"] if "error" in row]
    assert all(row["is_equal"] for row in found["inputs"]["rows"])
    assert all(row.get("is_equal", True) for row in found["determinism"]["rows"])
    words = done.stdout.split("reports: whole")[1]
    assert "A trial of `full` alone" in words and "trainings at once" in words


def test_a_section_that_fails_or_takes_too_long_leaves_its_rows(monkeypatch, tmp_path):
    gpu, bench = load("gpu"), load("gpu_bench")
    script = tmp_path / "section.py"
    script.write_text(
        "import sys, time\n"
        "print('{\"row\": 1}', flush=True)\n"
        "print('{\"row\": 2', end='', flush=True)\n"
        "if sys.argv[-1] == 'slow': time.sleep(600)\n"
        "raise SystemExit('no memory')\n"
    )
    monkeypatch.setattr(gpu, "_command", lambda bench: [sys.executable, str(script)])
    tiny = bench.Bench("cpu", True, None)
    failed = gpu.run_section(tiny, "any", 60)
    assert failed["ended"] == "failed (exit 1)"
    assert "no memory" in failed["last_words"]
    slow = gpu.run_section(tiny, "slow", 2)
    assert slow["ended"] == "its 2 s were over"
    assert failed["rows"] == slow["rows"] == [{"row": 1}]


def test_the_advice_is_the_fastest_way_that_learns_as_float32_does():
    gpu = load("gpu")

    def way(name, speed, loss):
        return {"way": name, "reconstruction_snippets_per_s": speed, "loss": loss}

    ways = [
        way("float32", 100.0, 0.1), way("tf32, cuda_graphs", 200.0, 0.101),
        way("bfloat16, cuda_graphs", 300.0, 0.2), way("tf32, cuDNN free to choose", 400.0, 0.1),
    ]  # fmt: skip
    together = [
        {"compilation": "off", "n": 8, "snippets_per_s": 900.0},
        {"compilation": "cuda_graphs", "n": 1, "snippets_per_s": 500.0},
        {"compilation": "cuda_graphs", "n": 4, "snippets_per_s": 800.0},
    ]
    assert gpu.advice(ways, together) == [
        "Set, after this card alone: mdgan.precision=tf32 mdgan.compilation=cuda_graphs "
        "resources.gpus_per_trial=0.25"
    ]
    assert gpu.advice(ways[:1], []) == ["Set, after this card alone: nothing"]
    assert gpu.advice(ways[1:], together) == []


def test_a_section_leaves_no_process_behind(monkeypatch, tmp_path):
    gpu, bench = load("gpu"), load("gpu_bench")
    script, left = tmp_path / "section.py", tmp_path / "pid"
    script.write_text(
        "import pathlib, subprocess, sys\n"
        "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(left)!r}).write_text(str(other.pid))\n"
        "raise SystemExit('failed')\n"
    )
    monkeypatch.setattr(gpu, "_command", lambda bench: [sys.executable, str(script)])
    gpu.run_section(bench.Bench("cpu", True, None), "any", 60)
    other = psutil.Process(int(left.read_text())) if is_alive(int(left.read_text())) else None
    if other is not None:
        other.kill()
    assert other is None


def is_alive(pid, wait_s=5.0):
    """Whether a process still runs after a while; a signal needs a moment."""
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return False
        except psutil.NoSuchProcess:
            return False
        time.sleep(0.05)
    return True


def test_what_the_gpu_did_is_counted_once():
    sections, kinds = load("gpu_sections"), torch.autograd.DeviceType
    kernel, mark, on_cpu = (
        SimpleNamespace(device_type=kind, is_user_annotation=is_mark)
        for kind, is_mark in ((kinds.CUDA, False), (kinds.CUDA, True), (kinds.CPU, False))
    )
    assert sections._kernels([kernel, mark, on_cpu]) == [kernel]


@pytest.mark.parametrize(
    ("arrays", "fault"),
    [
        (None, "is no .npz with frames and starts: .*No such file"),
        ({"frames": np.zeros((20, 129))}, "is no .npz with frames and starts: 'starts"),
        ({"frames": np.zeros((129, 20)), "starts": np.arange(3)}, r"holds frames \[129, 20\]"),
        ({"frames": np.zeros((20, 129)), "starts": np.arange(6)}, "starts .* that lie within"),
        ({"frames": np.zeros((20, 129)), "starts": np.arange(0)}, "starts .* that lie within"),
        (
            {"frames": np.zeros((20, 129)), "starts": np.arange(3), "has_sound": np.ones(19)},
            r"has_sound \[19\]: give one answer for each of 20 frames",
        ),
        ("text", "is no .npz"),
    ],
)
def test_a_file_of_frames_that_cannot_be_used_is_refused_at_once(arrays, fault, tmp_path):
    path = tmp_path / "frames.npz"
    if arrays == "text":
        path.write_text("frames")
    elif arrays is not None:
        np.savez(path, **arrays)
    with pytest.raises(ValueError, match=fault):
        load("gpu_bench").read_frames(path)
    command = [sys.executable, str(ROOT / "benchmarks/gpu.py"), "--cpu-smoke", "--pool", str(path)]
    if arrays is None:
        done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (1, "")
        assert "No such file" in done.stderr and "Traceback" not in done.stderr


def test_a_file_of_frames_is_read_as_it_is(tmp_path):
    bench, frames = load("gpu_bench"), np.random.default_rng(0).random((20, 129))
    np.savez(tmp_path / "frames.npz", frames=frames, starts=np.arange(5, dtype=np.int32))
    found = bench.Bench("cpu", True, tmp_path / "frames.npz").frames()
    assert [array.dtype for array in found] == [np.float32, np.int64, np.bool_]
    assert np.array_equal(found.frames, frames.astype(np.float32))
    assert len(found.has_sound) == 0
    sound = np.arange(20) > 15
    np.savez(tmp_path / "sound.npz", frames=frames, starts=np.arange(5), has_sound=sound)
    assert np.array_equal(bench.read_frames(tmp_path / "sound.npz").has_sound, sound)


def test_words_say_only_what_was_measured():
    gpu = load("gpu")
    rows = {name: {"rows": []} for name in gpu.DEADLINES}
    assert gpu.summary(rows) == []
    together = {"n": 2, "compilation": "off", "snippets_per_s": 30.0}
    rows["processes"]["rows"] = [{"n": 1, "compilation": "off", "error": "failed"}, together]
    assert gpu.summary(rows) == []  # nothing to compare with
    rows["processes"]["rows"][0] = {"n": 1, "compilation": "off", "snippets_per_s": 20.0}
    assert "1.50 times one alone" in gpu.summary(rows)[0]
    rows["steps"]["rows"] = [
        {"recipe": "full", "compilation": "off", "kind": kind, "ms": 60.0}
        for kind in ("reconstruction", "joint")
    ]
    rows["reports"]["rows"] = [
        {"what": what, "s": s}
        for what, s in (
            ("evaluation on cuda", 3.0),
            ("checkpoint", 1.0),
            ("evaluation on cpu", 99.0),
        )
    ]
    assert "23.4 min of steps and 2.0 min of reports" in gpu.summary(rows)[0]


def test_networks_and_trainings_are_those_of_the_presets():
    gpu, bench = load("gpu"), load("gpu_bench")
    for name, params in bench.RECIPES.items():
        preset = {"dense": "demo", "relativistic": "full"}.get(name, name)
        config = load_config(preset, None, [])
        for field in ("width", "dense_width", "order", "normalisation", "is_residual",
                      "has_head", "lambda_prior", "pool_weight", "mse_weight", "minibatch",
                      "silent_share", "lambda_silence"):  # fmt: skip
            assert getattr(params, field) == getattr(config.mdgan, field), (name, field)
        if name in ("full", "paper"):
            for field in ("batch_size", "n_snippets", "n_reports", "monitor", "adversarial_from",
                          "disc_width"):  # fmt: skip
                assert getattr(params, field) == getattr(config.mdgan, field), (name, field)
    search = load_config("full", None, []).search
    again = search.selection.n_candidates * search.selection.n_seeds
    assert search.n_trials + again == gpu.N_TRAININGS
