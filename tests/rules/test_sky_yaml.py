"""sky.yaml, one rented machine: read by SkyPilot where it is installed, and by us."""

import pytest
import yaml

from study.base.paths import ROOT
from study.config.options import parse
from tests.helpers.cluster_files import pins

FILE = ROOT / "sky.yaml"


@pytest.fixture
def task():
    return yaml.safe_load(FILE.read_text())


def test_skypilot_accepts_it_and_stops_the_machine():
    sky = pytest.importorskip("sky", reason="SkyPilot is not installed: pip install skypilot")
    for resources in sky.Task.from_yaml(str(FILE)).resources:
        assert resources.autostop_config.enabled
        assert resources.autostop_config.idle_minutes <= 30


def test_the_results_outlive_the_end_of_the_study(task):
    """They lie on the machine's disk, which a machine that is given back takes with it."""
    assert task["resources"]["autostop"] == {"idle_minutes": 10, "down": False}


def test_what_it_installs_and_starts_is_what_others_do(task):
    assert f"uv=={pins('requirements-dev.txt')['uv']}\n" in task["setup"]
    assert "uv pip install -q -r requirements.txt -c requirements.lock" in task["setup"]
    options = parse(task["run"].split("run_tune.py", 1)[1].split())
    assert (options.preset, options.address) == ("full", None)
    assert str(options.data) in task["file_mounts"]
    assert task["workdir"] == "."
