"""Settings of all tests: one thread, and nothing written outside of pytest's folders."""

import os
import secrets
import signal

# A shell starts jobs with & so that they, and all below them, ignore Ctrl-C; tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("RAY_ADDRESS", None)

import pytest
import torch

torch.set_num_threads(1)


# Files that take minutes, which come first, so that two processes end at the same time.
LONGEST = (
    "test_study.py", "test_decoders.py", "test_search_resume.py", "test_hmm_resume.py",
    "test_tracking_restart.py", "test_trial_figures.py", "test_gpu_sharing.py",
    "test_gpu_benchmark.py",
)  # fmt: skip


# First of all: markers are chosen from after that.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark what starts Ray or MLflow; begin with the files that take longest."""
    for item in items:
        if "integration" in item.path.parts:
            item.add_marker(pytest.mark.integration)
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="session", autouse=True)
def private_ray_token(tmp_path_factory):
    """Ray writes a token into the home folder at each start; a test must not."""
    path = tmp_path_factory.mktemp("ray") / "auth_token"
    path.write_text(secrets.token_hex(32))
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)
