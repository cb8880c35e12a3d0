"""What the command refuses, and what it says then: exit code 2, one message, nothing written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from study.base.paths import ROOT


def run(cwd, *words):
    command = [sys.executable, str(ROOT / "study" / "run_tune.py"), *words]
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, env=environment, timeout=120
    )


def is_refused(done, cwd, *phrases):
    """Whether it stopped with code 2 and one message, leaving the folder empty."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for phrase in phrases:
        assert phrase in done.stderr, done.stderr
    assert not list(Path(cwd).iterdir())


def test_an_unknown_key_is_named_with_the_nearest_known(tmp_path):
    done = run(tmp_path, "--out", "run", "mdgan.laten_dim=16")
    is_refused(done, tmp_path, "unknown key 'mdgan.laten_dim'", "did you mean 'mdgan.latent_dim'")


def test_an_empty_or_missing_data_folder_is_named(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    is_refused(run(cwd, "--data", str(data), "--out", "run"), cwd, str(data), "no .wav file")
    is_refused(run(cwd, "--data", "nowhere", "--out", "run"), cwd, "nowhere is not a folder")


@pytest.mark.integration
def test_a_gpu_that_is_not_there_is_refused_with_a_remedy(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    done = run(tmp_path, "--out", "run", "--tracking-uri", uri, "resources.gpus_per_trial=1")
    is_refused(done, tmp_path, "resources.gpus_per_trial is 1", "has more than 0 GPUs",
               "Set resources.gpus_per_trial=0")  # fmt: skip


@pytest.mark.integration
def test_a_cluster_that_is_not_there_is_refused(tmp_path):
    done = run(tmp_path, "--preset", "smoke", "--out", "run", "--address", "127.0.0.1:1")
    is_refused(done, tmp_path, "Ray at 127.0.0.1:1 cannot be reached", "leave out --address")


def test_a_dry_run_prints_the_plan_and_starts_nothing(tmp_path):
    done = run(tmp_path, "--preset", "smoke", "--dry-run", "hmm.n_states=[5,10]", "seed=7")
    assert done.returncode == 0, done.stderr
    for phrase in (
        "Study     smoke, seed 7",
        "3 simulated birds at 4 ages",
        "12 birds and ages, a snippet every 16 ms,",
        "5 to 10 states by merging, up to 20 where BIC is still falling",
        "latent_dim: one of 4, 8 (scientific)",
        str(ROOT / "runs" / "smoke"),
        "n_snippets: 6400",
    ):
        assert phrase in done.stdout, phrase
    assert not list(tmp_path.iterdir())
