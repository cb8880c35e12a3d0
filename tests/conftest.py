"""Settings of all tests: one thread, and nothing written outside of pytest's folders."""

import os
import secrets

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("RAY_ADDRESS", None)

import pytest
import torch

torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """Files that take minutes first, so that two processes end at the same time."""
    items.sort(key=lambda item: item.get_closest_marker("integration") is None)


@pytest.fixture(scope="session", autouse=True)
def private_ray_token(tmp_path_factory):
    """Ray writes a token into the home folder at each start; a test must not."""
    path = tmp_path_factory.mktemp("ray") / "auth_token"
    path.write_text(secrets.token_hex(32))
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)
