"""The files for `ray up`, checked without a network: Ray's own validator, then our own rules.

Tests that take `file` hold for every cluster; the others are about the one on AWS, cluster.yaml.
"""

import re
import subprocess

import pytest
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.helpers.cluster_files import (
    AWS,
    ONPREM,
    ROOT,
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


def test_a_gpu_is_always_there(cluster):
    """A study refuses to start on a cluster where no node can hold a trial."""
    kept = [t for t in worker_types(cluster).values() if t["min_workers"] and has_gpu(t)]
    assert any(not is_spot(t) for t in kept)


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
    for name in packages | {"requirements.txt", "mlflow/serve.sh"}:
        assert mounts.get(f"~/birdsong/{name}") == name
        assert (ROOT / name).exists()


# --- What is installed --------------------------------------------------------------------------


def test_versions_come_from_requirements(file):
    pinned, text = pins(), file.text
    assert {"ray", "torch", "mlflow", "optuna"} <= set(pinned)
    setup = " ".join(file.load()["setup_commands"])
    assert f"{file.venv}/bin/pip install -q -r ~/birdsong/requirements.txt" in setup
    stated = re.findall(r"([A-Za-z][\w.-]*)(?:\[[\w,-]+\])?\s*[=~<>!]=\s*([\d.]+)", text)
    assert [(n, v) for n, v in stated if n in pinned and v != pinned[n]] == []
    # Nor by its number alone, in a comment, an image name or a wheel's address.
    for name, version in re.findall(r"\b(ray|torch)[-:/ v]*(\d+\.\d+[\w.]*)", text, re.IGNORECASE):
        assert version == pinned[name.lower()], name
    assert not re.search(r"\.whl|nightly|latest_dlami|https?://(?!localhost|127\.0\.0\.1)", text)


def test_setup_does_nothing_twice(file):
    """Each command that installs or appends first asks whether it is needed."""
    acting = [
        command
        for command in commands(file.load())
        if re.search(r"pip install|apt-get .*install|-m venv|>>|tee -a|sudo mount /", command)
    ]
    assert len(acting) >= 3
    assert [command for command in acting if "||" not in command] == []


def test_commands_are_sound_bash(file):
    for command in commands(file.load()):
        check = ["bash", "-n", "-c", command]
        done = subprocess.run(check, check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
