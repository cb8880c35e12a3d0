"""What holds for cluster-onprem.yaml alone; the rest is in test_cluster_yaml.py."""

import re
import shlex
import subprocess
import time

import pytest
from click import ClickException
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.helpers.cluster_files import ONPREM, commands, start_command


@pytest.fixture
def cluster():
    return ONPREM.load()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["idle_timeout"], 5),
        (["provider", "worker_ips"], None),
        (["available_node_types"], {"gpu": {"resources": {}, "node_config": {}}}),
        (["setup_commands"], "one line"),
    ],
)
def test_ray_would_find_a_mistake(cluster, path, value):
    target = cluster
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises((ValueError, ValidationError, TypeError, ClickException)):
        validate_config(prepare_config(cluster))


def test_every_machine_named_is_in_the_cluster(cluster):
    (node_type,) = prepare_config(cluster)["available_node_types"].values()
    n_workers = len(cluster["provider"]["worker_ips"])
    assert node_type["min_workers"] == node_type["max_workers"] == n_workers >= 2


def test_autoscaler_is_version_1(cluster):
    """Version 2 takes the head for one of the workers; `ray up` switches it on by itself."""
    assert "export RAY_UP_enable_autoscaler_v2=0" in ONPREM.text.split("cluster_name:")[0]
    before, _ = start_command(cluster, "head").split("ray start", 1)
    # What `ray up` puts before the command, where nobody has set the variable.
    echo = f"export RAY_enable_autoscaler_v2=1; {_exports(before)}; echo $RAY_enable_autoscaler_v2"
    assert _bash(echo) == "0"


def test_placeholders_are_listed_at_the_top_and_none_is_forgotten(cluster):
    provider = cluster["provider"]
    values = [provider["head_ip"], *provider["worker_ips"], cluster["auth"]["ssh_user"]]
    # Either nobody has filled in the file yet, or all of it is filled in.
    assert len({"CHANGE-ME" in value for value in values}) == 1, values
    listed = ONPREM.text.split("cluster_name:")[0]
    keys = ["head_ip", "worker_ips", "ssh_user", "ssh_private_key", "/srv/birdsong", "python3.11"]
    for key in keys:
        assert key in listed
    for line in ONPREM.text.splitlines():
        if "CHANGE-ME" in line:
            assert line.split(":")[0].strip() in {"head_ip", "worker_ips", "ssh_user"}, line


def test_machines_give_nothing_to_their_other_users(cluster):
    """Ray makes its folders writable by all; the one around them is not."""
    private = [c for c in cluster["initialization_commands"] if "mkdir -p -m 700" in c]
    assert private
    assert "test -O" in private[0]
    for which in ("head", "worker"):
        before, _ = start_command(cluster, which).split("ray start", 1)
        assert _bash(f"USER=ann; {_exports(before)}; echo $RAY_TMPDIR") == "/tmp/birdsong-ann"
    shells = " ".join(c for c in cluster["setup_commands"] if ".bashrc" in c)
    assert "RAY_TMPDIR=/tmp/birdsong-$USER" in shells
    assert any("install -d -m 700 /srv/birdsong/runs" in c for c in cluster["head_setup_commands"])


def test_machine_without_the_shared_folder_says_so(cluster, tmp_path):
    (check,) = [c for c in cluster["initialization_commands"] if "mountpoint" in c]
    check = check.replace("/srv/birdsong", str(tmp_path))
    done = subprocess.run(["bash", "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"{tmp_path} is not mounted on" in done.stdout


def test_no_command_needs_root(cluster):
    assert [c for c in commands(cluster) if re.search(r"\b(sudo|apt|apt-get)\b", c)] == []


# --- What is left of a worker -------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path, cluster):
    """Runs the worker's start command with a `ray` that starts a raylet and two helpers."""
    (tmp_path / "bin").mkdir()
    raylet = tmp_path / "bin" / "raylet"
    raylet.symlink_to("/bin/sleep")
    ray = tmp_path / "bin" / "ray"
    ray.write_text(
        f"#!/bin/sh\n[ -e {tmp_path}/broken ] && exit 3\n"
        "for p in raylet sleep sleep; do\n"
        f"  $p 321 >/dev/null 2>&1 & echo $! >> {tmp_path}/pids\ndone\n"
    )
    ray.chmod(0o755)
    command = start_command(cluster, "worker")
    command = command[command.index("setsid") :]

    def start():
        env = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "RAY_HEAD_IP": "192.0.2.1"}
        return subprocess.run(["bash", "-c", command], env=env, check=False, timeout=30).returncode

    start.folder = tmp_path
    yield start
    for pid in _pids(tmp_path):
        subprocess.run(["kill", "-9", str(pid)], check=False, capture_output=True)


def _pids(folder):
    path = folder / "pids"
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def _alive(pid):
    asked = subprocess.run(["kill", "-0", str(pid)], check=False, capture_output=True)
    return asked.returncode == 0


@pytest.mark.slow
def test_all_processes_of_a_worker_end_with_its_raylet(machine):
    assert machine() == 0
    raylet, *others = _pids(machine.folder)
    time.sleep(1.5)  # the last process looks once a second
    assert _alive(raylet)
    assert all(_alive(pid) for pid in others)
    subprocess.run(["kill", str(raylet)], check=True)
    deadline = time.monotonic() + 20
    while any(_alive(pid) for pid in others) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(_alive(pid) for pid in others)


def test_worker_that_does_not_start_is_an_error(machine):
    (machine.folder / "broken").touch()
    assert machine() == 1


def _exports(text):
    return "; ".join(f"export {words}" for words in re.findall(r"export ([^&]*) &&", text))


def _bash(command):
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    return shlex.split(done.stdout)[-1]
