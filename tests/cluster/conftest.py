"""Tests on a laboratory of hosts: `make test-cluster`. Elsewhere they are skipped, and say why."""

from pathlib import Path

import pytest
from hosts import Lab, why_not
from onprem import OnPremises

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    """Mark what needs machines; skip it where they cannot be made."""
    reason = why_not()
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """Three machines, a laptop and an intruder; all are gone after the tests."""
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.close()


@pytest.fixture(scope="session")
def onprem(lab):
    """The on-premise cluster, up."""
    cluster = OnPremises(lab)
    cluster.up()
    return cluster
