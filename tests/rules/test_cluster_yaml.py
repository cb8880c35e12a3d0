"""The files for `ray up`, checked without a network: Ray's own validator, then our own rules.

Tests that take `file` hold for every cluster; the others are about the one on AWS, cluster.yaml.
"""

import re
import subprocess
import time

import pytest
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from study.cluster.nodes import Node, kinds_in_file
from study.config.tree import ResourcesConfig, StudyConfig
from study.preflight.capacity import check_resources
from tests.helpers.cluster_files import (
    AWS,
    ONPREM,
    ROOT,
    VCPUS,
    commands,
    pins,
    start_command,
    start_options,
)

TEXT = AWS.text


@pytest.fixture(params=[AWS, ONPREM], ids=lambda file: file.name)
def file(request):
    return request.param


@pytest.fixture
def cluster():
    return AWS.load()


def node_types(cluster):
    return cluster["available_node_types"]


def worker_types(cluster):
    return {k: v for k, v in node_types(cluster).items() if k != cluster["head_node_type"]}


def is_spot(node_type):
    market = node_type["node_config"].get("InstanceMarketOptions", {})
    return market.get("MarketType") == "spot"


def has_gpu(node_type):
    """AWS families with an NVIDIA GPU begin with g or p."""
    return node_type["node_config"]["InstanceType"][0] in "gp"


def fstab_options(cluster, mount_point):
    """The mount options in the one line for /etc/fstab that names this folder."""
    lines = [c for c in commands(cluster) if "/etc/fstab" in c and f":/ {mount_point} " in c]
    assert len(lines) == 1, f"{mount_point} needs one fstab line, found {len(lines)}"
    return re.search(rf":/ {mount_point} (\S+) (\S+) ", lines[0])[2].split(",")


# --- Ray's own rules ----------------------------------------------------------------------------


def test_ray_accepts_it(file):
    prepared = prepare_config(file.load())
    validate_config(prepared)
    # The head reads what `ray up` has prepared and prepares it once more.
    validate_config(prepare_config(prepared))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["idle_timeout"], 5),
        (["max_workers"], "8"),
        (["head_node_type"], "no_such_type"),
        (["available_node_types", "gpu_spot", "min_workers"], 99),
        (["available_node_types", "gpu_spot", "resources"], {"GPU": 0.5}),
    ],
)
def test_ray_would_find_a_mistake(cluster, path, value):
    target = cluster
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises((ValueError, ValidationError)):
        validate_config(prepare_config(cluster))


def test_no_packaged_default_is_left_in_force(file):
    cluster, defaults = file.load(), file.packaged_defaults()
    assert set(defaults) <= set(cluster)
    assert set(defaults.get("provider", {})) <= set(cluster["provider"])


def test_stopped_machines_are_not_kept(cluster):
    assert cluster["provider"]["cache_stopped_nodes"] is False


@pytest.mark.parametrize("key", ["ImageId", "KeyName", "SecurityGroupIds"])
def test_every_node_type_names_its_image_key_and_security_group(cluster, key):
    for name, node_type in node_types(cluster).items():
        assert node_type["node_config"].get(key), f"{name} has no {key}"


def test_a_machine_that_shuts_down_leaves_no_disk_to_pay_for(cluster):
    for name, node_type in node_types(cluster).items():
        behaviour = node_type["node_config"]["InstanceInitiatedShutdownBehavior"]
        assert behaviour == "terminate", name


def test_aws_takes_what_is_said_of_each_machine(cluster):
    """Ray's validator lets any key pass; the client of AWS knows them all."""
    pytest.importorskip("botocore", reason="botocore is not installed: pip install boto3")
    from botocore.session import Session
    from botocore.validate import validate_parameters

    shape = Session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for node_type in node_types(cluster).values():
        validate_parameters({**node_type["node_config"], "MinCount": 1, "MaxCount": 1}, shape)


def test_head_has_its_own_role_and_workers_have_none(cluster):
    assert "IamInstanceProfile" in node_types(cluster)[cluster["head_node_type"]]["node_config"]
    for name, node_type in worker_types(cluster).items():
        assert "IamInstanceProfile" not in node_type["node_config"], name


def test_placeholders_are_listed_at_the_top_and_none_is_forgotten(cluster):
    types = node_types(cluster).values()
    values = [cluster["auth"]["ssh_private_key"]]
    for key in ["ImageId", "KeyName", "SecurityGroupIds", "IamInstanceProfile"]:
        values += [str(t["node_config"][key]) for t in types if key in t["node_config"]]
    values += re.findall(r"'([\w.-]+):/ /mnt/", " ".join(commands(cluster)))
    # Either nobody has filled in the file yet, or all of it is filled in.
    assert len({"CHANGE-ME" in value for value in values}) == 1, values

    listed = TEXT.split("cluster_name:")[0]
    for key in [
        "provider.region",
        "auth.ssh_private_key",
        "KeyName",
        "ImageId",
        "SecurityGroupIds",
        "IamInstanceProfile",
        "InstanceType",
        "runs file system",
        "recordings",
    ]:
        assert key in listed


# --- Sizes --------------------------------------------------------------------------------------


def test_head_runs_no_work(cluster):
    head = node_types(cluster)[cluster["head_node_type"]]
    assert head["resources"]["CPU"] == 0
    assert head["max_workers"] == 0
    assert not is_spot(head)


def test_gpu_workers_are_there_as_spot_and_on_demand(cluster):
    kinds = {is_spot(t) for t in worker_types(cluster).values() if has_gpu(t)}
    assert kinds == {True, False}


def test_worker_limits_fit(cluster):
    assert worker_types(cluster)
    for name, node_type in worker_types(cluster).items():
        low, high = node_type["min_workers"], node_type["max_workers"]
        assert 0 <= low <= high, name
        assert 1 <= high <= cluster["max_workers"], name


def test_no_worker_costs_money_before_there_is_work(cluster):
    assert [t["min_workers"] for t in worker_types(cluster).values()] == [0, 0, 0]


@pytest.mark.parametrize("gpus", ["auto", 1.0, 0.5])
def test_a_study_starts_on_the_head_alone(cluster, gpus):
    """As Ray's head reads the file: `ray up` has asked AWS what the machines have."""
    for node_type in worker_types(cluster).values():
        instance = node_type["node_config"]["InstanceType"]
        node_type["resources"] = {"CPU": VCPUS[instance], "GPU": int(has_gpu(node_type))}
    nodes = [Node("head", 0, 0), *kinds_in_file(prepare_config(cluster))]
    config = StudyConfig(resources=ResourcesConfig(cpus_per_trial=2, gpus_per_trial=gpus))
    check = check_resources(config, nodes, "the cluster")
    assert check.is_ok, check.in_words
    assert "no node holds a trial yet" in check.text


def test_idle_nodes_are_given_back(cluster):
    assert 1 <= cluster["idle_timeout_minutes"] <= 60


# --- Doors --------------------------------------------------------------------------------------


def test_nothing_listens_to_the_whole_world(file):
    assert "0.0.0.0" not in file.text


def test_dashboard_is_for_the_head_alone(file):
    cluster = file.load()
    assert "--dashboard-host" in start_command(cluster, "head")  # said, not left to a default
    assert start_options(cluster, "head")["dashboard_host"] == "127.0.0.1"


@pytest.mark.parametrize("which", ["head", "worker"])
def test_start_command_uses_the_venv_and_the_token(file, which):
    before, _ = start_command(file.load(), which).split("ray start", 1)
    assert f"source {file.venv}/bin/activate &&" in before
    assert "export RAY_AUTH_MODE=token &&" in before


@pytest.mark.parametrize("which", ["head", "worker"])
def test_no_numbers_are_given_to_whoever_asks(file, which):
    """Ray answers for Prometheus on ports of their own, token or not."""
    before, _ = start_command(file.load(), which).split("ray start", 1)
    exported = " ".join(re.findall(r"export ([^&]*) &&", before)).split()
    assert "RAY_enable_metrics_collection=0" in exported
    if which == "head":
        assert {"AUTOSCALER_METRIC_PORT=-1", "DASHBOARD_METRIC_PORT=-1"} <= set(exported)


def test_nothing_is_reported_to_rays_makers(file):
    assert start_options(file.load(), "head")["disable_usage_stats"]


def test_token_is_copied_and_private(file):
    cluster = file.load()
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("chmod 600 ~/.ray/auth_token" in c for c in cluster["initialization_commands"])


def test_ports_are_stated_and_the_same_on_head_and_workers(file):
    cluster = file.load()
    head, worker = start_options(cluster, "head"), start_options(cluster, "worker")
    assert head["port"] == 6379
    assert worker["address"] == "$RAY_HEAD_IP:6379"
    for name, value in worker.items():
        if "port" in name and name not in {"port", "ray_client_server_port", "dashboard_port"}:
            assert value == head[name], name
    for name in ["object_manager_port", "node_manager_port", "min_worker_port", "max_worker_port"]:
        assert worker[name], name


def test_head_starts_the_autoscaler(file):
    options = start_options(file.load(), "head")
    assert options["head"]
    assert options["autoscaling_config"] == "~/ray_bootstrap_config.yaml"


# --- Folders ------------------------------------------------------------------------------------


def test_recordings_are_read_only(cluster):
    about = [c for c in commands(cluster) if "/mnt/recordings" in c]
    (mounting,) = [c for c in about if "/etc/fstab" in c or "mount-s3" in c]
    if "mount-s3" in mounting:
        assert "--read-only" in mounting
    else:
        options = fstab_options(cluster, "/mnt/recordings")
        assert "ro" in options
        assert "rw" not in options
    assert [c for c in about if re.search(r"remount|\bmount -", c)] == []


def test_runs_are_on_shared_storage(cluster):
    assert "rw" in fstab_options(cluster, "/mnt/runs")


@pytest.mark.parametrize("which", ["head", "worker"])
def test_no_node_starts_without_its_folders(file, which):
    assert file.mounts
    for folder in file.mounts:
        assert f"mountpoint -q {folder} &&" in start_command(file.load(), which)


@pytest.mark.parametrize("pattern", [".venv/", ".git/", "runs/", "mlflow.db*", "mlflow/artifacts/"])
def test_sync_leaves_out(file, pattern):
    assert pattern in file.load()["rsync_exclude"]


def test_nothing_large_or_secret_lies_under_a_synced_path(file):
    """Ray reads every file under these paths, whatever rsync leaves out."""
    cluster = file.load()
    sources = [
        ROOT / source for target, source in cluster["file_mounts"].items() if "birdsong" in target
    ]
    assert sources
    for private in [".venv", ".git", "runs", "mlflow/mlflow.db", "mlflow/artifacts"]:
        assert [s for s in sources if (ROOT / private).is_relative_to(s)] == [], private


def test_every_package_and_what_it_needs_is_synced(file):
    mounts = file.load()["file_mounts"]
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert packages >= {"study", "models", "data_io"}
    read = {name for name in ("requirements.txt", "requirements.lock")
            if f"~/birdsong/{name}" in " ".join(commands(file.load()))}  # fmt: skip
    for name in packages | read | {"requirements.txt", "mlflow/serve.sh"}:
        assert mounts.get(f"~/birdsong/{name}") == name
        assert (ROOT / name).exists()


# --- What is installed --------------------------------------------------------------------------


def test_versions_come_from_requirements(file):
    pinned, text = pins(), file.text
    assert {"ray", "torch", "mlflow", "optuna"} <= set(pinned)
    setup = " ".join(file.load()["setup_commands"])
    assert "-r ~/birdsong/requirements.txt" in setup
    stated = re.findall(r"([A-Za-z][\w.-]*)(?:\[[\w,-]+\])?\s*[=~<>!]=\s*([\d.]+)", text)
    assert [(n, v) for n, v in stated if n in pinned and v != pinned[n]] == []
    # Nor by its number alone, in a comment, an image name or a wheel's address.
    for name, version in re.findall(r"\b(ray|torch)[-:/ v]*(\d+\.\d+[\w.]*)", text, re.IGNORECASE):
        assert version == pinned[name.lower()], name
    assert not re.search(r"\.whl|nightly|latest_dlami|https?://(?!localhost|127\.0\.0\.1)", text)


def test_every_node_of_aws_gets_the_same_python(cluster):
    """Ray turns away a node whose Python differs in its last digit; a version of uv fixes it."""
    pinned = pins("requirements-dev.txt")["uv"]
    setup = " ".join(cluster["setup_commands"])
    assert set(re.findall(r"\buv[ =]+(\d[\d.]*)", setup)) == {pinned}
    assert "uv venv -q --clear --managed-python --python 3.11 ~/venv" in setup
    assert "-c ~/birdsong/requirements.lock" in setup


def test_setup_does_nothing_twice(file):
    """Each command that installs or appends first asks whether it is needed."""
    acting = [
        command
        for command in commands(file.load())
        if re.search(
            r"pip install|apt-get .*install|-m venv|uv venv|>>|tee -a|sudo mount /", command
        )
    ]
    assert len(acting) >= 3
    assert [command for command in acting if "||" not in command] == []


def test_commands_are_sound_bash(file):
    for command in commands(file.load()):
        check = ["bash", "-n", "-c", command]
        done = subprocess.run(check, check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stderr}"


# --- What is left of a worker -------------------------------------------------------------------


@pytest.fixture
def lost_worker(cluster, tmp_path):
    """Runs the command that watches a worker, with a raylet, a clock and a `sudo` of its own.

    Gives the raylet and the file that says what `sudo` was told; "waiting" is there while the
    quarter of an hour goes by, and ends when "waited" is made.
    """
    (command,) = [c for c in cluster["worker_start_ray_commands"] if "shutdown" in c]
    raylet = subprocess.Popen(["/bin/sleep", "300"])
    programs = {
        "pgrep": f"cat {tmp_path}/raylets",
        "sleep": f'echo "$1" > {tmp_path}/waiting; until [ -e {tmp_path}/waited ]; '
        "do /bin/sleep 0.1; done",
        "sudo": f'echo "$@" > {tmp_path}/told',
    }
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "raylets").write_text(str(raylet.pid))
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", f"true && ({command})"], env=env, check=False, timeout=30)
    assert done.returncode == 0
    yield raylet, tmp_path
    raylet.kill()
    raylet.wait()
    (tmp_path / "raylets").unlink(missing_ok=True)
    (tmp_path / "waited").touch()


def _appears(path):
    deadline = time.monotonic() + 20
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.slow
def test_a_worker_without_ray_ends_itself(lost_worker):
    raylet, folder = lost_worker
    time.sleep(2)  # it looks once a second
    assert not (folder / "waiting").exists()
    raylet.kill()
    raylet.wait()
    assert _appears(folder / "waiting")
    assert (folder / "waiting").read_text() == "900\n"
    assert not (folder / "told").exists()
    (folder / "raylets").unlink()
    (folder / "waited").touch()
    assert _appears(folder / "told")
    assert (folder / "told").read_text() == "shutdown -h now\n"


@pytest.mark.slow
def test_a_worker_whose_ray_was_started_again_stays(lost_worker):
    raylet, folder = lost_worker
    raylet.kill()
    raylet.wait()
    assert _appears(folder / "waiting")
    (folder / "waited").touch()  # `pgrep` still finds one: a new one
    time.sleep(2)
    assert not (folder / "told").exists()
