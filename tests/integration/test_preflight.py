"""The checks before a study: what they find, what they say, and that nothing is left of them."""

import dataclasses
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray
import torch
from ray.cluster_utils import Cluster as RayCluster

from data_io.recordings import survey
from models.mdgan.checkpoints import save_decoder, save_training
from models.mdgan.model import Mdgan, MdganParams
from study.base.console import WIDTH, Console
from study.base.paths import Where
from study.cluster.connection import connected
from study.cluster.nodes import Node
from study.config.search import SearchConfig
from study.config.space import SpaceEntry
from study.config.tree import DataConfig, ResourcesConfig, StudyConfig
from study.preflight import disk_need, node_probe
from study.preflight import mlflow_check as tracking_check
from study.preflight.check import Check, PreflightError, require, show_checks
from study.preflight.node_checks import (
    Cluster,
    check_disks,
    check_folder,
    check_nodes,
    check_recordings,
    check_versions,
)
from study.preflight.node_probe import Listing, NodeReport, listing, token_folder
from study.preflight.run import run_checks
from study.tracking.errors import TrackingError

CONFIG = StudyConfig()
REPORT = NodeReport(
    "one", ray.__version__, "3.11.9", "2.13.0", True, "", Listing(4, "abc"), Path("/tmp/ray"),
    50 * 10**9,
)  # fmt: skip
GB = 10**9


def of(*reports, gpus=0, silent=()):
    nodes = [Node(one.host, 4, gpus) for one in reports]
    return Cluster("10.0.0.1:6379", nodes, reports, silent)


def other(**changes):
    return dataclasses.replace(REPORT, **{"host": "two", **changes})


# What nodes reported


def test_nodes_are_counted_and_those_that_give_no_answer_are_named():
    check = check_nodes(of(REPORT, other(), gpus=1))
    assert (check.is_ok, check.text) == (True, "2 nodes, 8 CPUs, 2 GPUs")
    to_come = Node("spot", 8, 1, 6, False)
    check = check_nodes(Cluster("x", [Node("head", 0, 0), to_come], [REPORT], []))
    assert check.text == "1 node, 0 CPUs, 0 GPUs; the autoscaler may start up to 6 spot"
    check = check_nodes(of(REPORT, other(), silent=["three gave no answer within 60 s"]))
    assert not check.is_ok
    assert "1 of 2 nodes cannot be used: three gave no answer within 60 s." in check.text


def test_other_versions_of_ray_or_python_are_named(monkeypatch):
    monkeypatch.setattr("platform.python_version", lambda: "3.11.2")
    assert check_versions(CONFIG, of(REPORT, other())).is_ok
    for changes, text in (
        ({"ray": "2.50.0"}, "two has Ray 2.50.0, Python 3.11"),
        ({"python": "3.12.1"}, f"two has Ray {ray.__version__}, Python 3.12"),
    ):
        check = check_versions(CONFIG, of(REPORT, other(**changes)))
        assert not check.is_ok
        assert f"Ray {ray.__version__}, Python 3.11 here, but {text}." == check.text
    check = check_versions(CONFIG, of(REPORT, other(torch="2.12.0")))
    assert check.is_ok
    assert "torch 2.12.0 and 2.13.0" in check.text
    assert "gives other numbers" in check.remedy


@pytest.mark.parametrize("setting", ["gpus_per_trial", "gpus_per_encode"])
def test_a_torch_that_cannot_use_the_gpus_asked_for_is_named(setting):
    config = StudyConfig(resources=ResourcesConfig(**{setting: 1.0}))
    blind = other(torch="2.13.0+cpu", torch_has_gpus=False)
    check = check_versions(config, of(REPORT, blind, gpus=1))
    assert not check.is_ok
    assert "two has 2.13.0+cpu" in check.text
    assert "one has" not in check.text
    assert f"resources.{setting}=0" in check.remedy
    assert check_versions(config, of(REPORT, blind, gpus=0)).is_ok  # it has no GPU
    assert check_versions(CONFIG, of(REPORT, blind, gpus=1)).is_ok  # none is asked for
    auto = StudyConfig(resources=ResourcesConfig(gpus_per_trial="auto"))
    assert not check_versions(auto, of(REPORT, blind, gpus=1)).is_ok


def test_this_torch_is_told_apart_without_importing_it():
    assert node_probe.torch_build() == (torch.__version__, torch.version.cuda is not None)


def test_a_run_folder_that_is_not_shared_is_refused():
    out = Path("/runs/x")
    assert "all 2 nodes" in check_folder(out, "", of(REPORT, other()), []).text
    for check, phrase in (
        (check_folder(out, "Permission denied", of(REPORT), []), "written to: Permission denied."),
        (check_folder(out, "", of(REPORT, other(folder_error="does not see it")), []),
         "not shared by all nodes: two does not see it."),
        (check_folder(out, "", of(REPORT, other()), ["two"]), "what two writes to it is not seen"),
    ):  # fmt: skip
        assert not check.is_ok
        assert phrase in check.text
        assert "--out" in check.remedy


@pytest.mark.parametrize(
    ("there", "phrase"),
    [
        (Listing(error="is not there"), "two: it is not there"),
        (Listing(3, "abc"), "two: 3 sound files, 4 here"),
        (Listing(4, "abd"), "two: as many sound files as here, but other names"),
    ],
)
def test_recordings_that_are_not_the_same_everywhere_are_refused(there, phrase):
    check = check_recordings(Path("/data"), REPORT.listing, of(REPORT, other(listing=there)))
    assert not check.is_ok
    assert phrase in check.text
    assert "Mount the recordings at the same path" in check.remedy
    same = check_recordings(Path("/data"), REPORT.listing, of(REPORT, other()))
    assert same.text == "4 sound files in /data, the same for all 2 nodes"
    assert check_recordings(None, Listing(), of(REPORT)).is_ok


def test_too_little_disk_is_refused_with_both_numbers():
    needed = {"one": 2 * GB, "two": 2 * GB}
    fits = check_disks(20 * GB, 12 * GB, needed, of(REPORT, other(temp_free=3 * GB)))
    assert fits.is_ok
    assert "run folder 20 GB free, about 12 GB needed" in fits.text
    assert "/tmp/ray on two) 3.0 GB free, 2.0 GB needed" in fits.text
    check = check_disks(11 * GB, 12 * GB, needed, of(REPORT, other(temp_free=GB)))
    assert not check.is_ok
    assert "the run folder has 11 GB free, a study needs about 12 GB" in check.text
    assert "/tmp/ray on two has 1.0 GB free, Ray's files take about 2.0 GB" in check.text
    assert "--out" in check.remedy
    assert "--temp-dir" in check.remedy


def test_of_many_bad_nodes_a_few_are_named():
    bad = [other(host=f"n{i}", folder_error="does not see it") for i in range(9)]
    text = check_folder(Path("/x"), "", of(*bad), []).text
    assert text.count("does not see it") == 3
    assert "and 6 more" in text


# What is shown


def test_the_table_holds_every_remedy_in_100_columns():
    text = io.StringIO()
    long = "resources.gpus_per_trial is 1, but no node of this machine has more than 0 GPUs. " * 3
    show_checks([Check("nodes", True, "1 node"), Check("GPU shares", False, long, long)],
                Console(text))  # fmt: skip
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert not [line for line in lines if "…" in line]
    assert " ".join(text.getvalue().split()).count("more than 0 GPUs.") == 6
    assert lines[2].split() == ["nodes", "yes", "1", "node"]
    assert lines[3].startswith("GPU shares  NO   resources")
    assert lines[-1] == "1 of 2 checks failed: GPU shares"


def test_a_study_goes_on_with_one_line_or_is_refused_with_all_remedies():
    text = io.StringIO()
    good = [Check("nodes", True, "3 nodes, 12 CPUs, 2 GPUs"), Check("disk", True, "much")]
    require(good, Console(text))
    assert text.getvalue() == "Preflight: 2 checks ok; 3 nodes, 12 CPUs, 2 GPUs\n"
    require([*good, Check("GPU shares", True, "idle", "set it")], Console(text))
    assert text.getvalue().endswith("hint: idle set it\n")
    bad = [Check("run folder", False, "Not shared.", "Share it."), Check("disk", False, "Full.")]
    with pytest.raises(PreflightError) as caught:
        require([*good, *bad], Console(text))
    assert str(caught.value).split("\n       ") == ["Not shared. Share it.", "Full."]
    assert "2 of 4 checks failed: run folder, disk" in text.getvalue()


# Folders and disks


def test_the_folder_of_tokens_is_removed_with_all_that_was_made_for_it(tmp_path):
    out = tmp_path / "runs" / "new" / "study"
    with token_folder(out) as tokens:
        (tokens / "driver").write_text("x")
        assert tokens.parent == out
    assert not list(tmp_path.iterdir())
    out.mkdir(parents=True)
    (out / "study.json").write_text("{}")
    with pytest.raises(RuntimeError), token_folder(out):
        raise RuntimeError
    assert [path.name for path in out.iterdir()] == ["study.json"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError), token_folder(tmp_path / "file" / "run"):
        pass


def test_a_node_reads_the_drivers_file_before_it_writes_its_own(tmp_path):
    question = node_probe.Question(tmp_path, "secret", None)
    (tmp_path / "driver").write_text("secret of another study")
    assert "holds another file" in node_probe._answer_token(question, "node")
    assert not node_probe.has_answered(question, "driver")
    (tmp_path / "driver").write_text("secret")
    assert node_probe._answer_token(question, "node") == ""
    assert node_probe.has_answered(question, "node")
    question = node_probe.Question(tmp_path / "driver", "secret", None)
    assert "cannot write to it: Not a directory" in node_probe._answer_token(question, "node")


def test_a_listing_is_the_same_for_the_same_names_alone(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    for root in (a, b):
        for name in ("x/45/songs/1.wav", "x/45/songs/2.WAV", "y/45/3.wav", ".hidden/4.wav"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("")
    (b / "x" / "45" / "notes.txt").write_text("")
    assert listing(a) == listing(b)
    assert listing(a).n == 3
    (a / "y" / "45" / "3.wav").rename(a / "y" / "45" / "5.wav")
    assert listing(a).n == listing(b).n
    assert listing(a).sha256 != listing(b).sha256
    (tmp_path / "link").symlink_to(b)
    (b / "loop").symlink_to(b)
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "z").symlink_to(b)
    assert listing(linked).n == 3
    assert listing(tmp_path / "nowhere").error == "is not there"


def test_the_size_of_a_checkpoint_is_that_of_its_files(tmp_path):
    space = {"latent_dim": SpaceEntry(choice=(2, 4))}
    params = MdganParams(dense_width=32, disc_width=4, ema_decay=0.5, adversarial_from=0.0)
    config = StudyConfig(mdgan=params, search=SearchConfig(space=space))
    model = Mdgan(dataclasses.replace(params, latent_dim=4), config.snippets.n_frames, 0)
    model.train_step(torch.rand(params.batch_size, 1, 129, config.snippets.n_frames))
    save_training(model, tmp_path)
    training = (tmp_path / "training.safetensors").stat().st_size
    save_decoder(model, tmp_path, {})
    decoder = sum((tmp_path / f"{name}.safetensors").stat().st_size
                  for name in ("encoder", "generator"))  # fmt: skip
    expected = disk_need.checkpoint_bytes(config)
    assert expected[0] == pytest.approx(training + decoder, rel=0.1)
    assert expected[1] == pytest.approx(decoder, rel=0.1)


def test_a_study_needs_room_for_spectrograms_and_decoders():
    recorded = dataclasses.replace(CONFIG, data=DataConfig(dir="/data"))
    hour = 3600 * disk_need.WAV_BYTES_PER_S
    more = disk_need.run_folder_need(recorded, hour, 1) - disk_need.run_folder_need(recorded, 0, 1)
    assert more == pytest.approx(1.2 * 3600 / CONFIG.spectrogram.frame_s * 129 * 4, rel=1e-3)
    trials = dataclasses.replace(recorded, search=SearchConfig(n_trials=100))
    _, decoder = disk_need.checkpoint_bytes(CONFIG)
    n_more = 100 - CONFIG.search.n_trials
    more = disk_need.run_folder_need(trials, 0, 1) - disk_need.run_folder_need(recorded, 0, 1)
    assert more == pytest.approx(1.2 * n_more * decoder, rel=1e-3)
    # Frames that the memory for shared objects cannot hold go to Ray's disk.
    frames = (
        (config_frames := recorded.max_frames("train") + recorded.max_frames("valid")) * 129 * 4
    )
    assert config_frames > 0
    assert disk_need.node_need(recorded, frames + 1) == disk_need.SMALL_FILES_BYTES
    assert disk_need.node_need(recorded, frames - 1) == disk_need.SMALL_FILES_BYTES + frames


# MLflow


def test_a_sqlite_file_is_tried_and_left_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking_check, "LOCK_WAIT_S", 0.1)
    path = tmp_path / "ml" / "flow%20.db"
    tracking_check.check_server(f"sqlite:///{path}", "x")  # can be made
    assert not path.parent.exists()
    path.parent.mkdir()
    file = sqlite3.connect(path)
    file.execute("create table t (a)")
    file.commit()
    before = path.read_bytes()
    tracking_check.check_server(f"sqlite:///{path}", "x")
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    file.execute("begin immediate")
    with pytest.raises(TrackingError, match="cannot be written to: database is locked"):
        tracking_check.check_server(f"sqlite:///{path}", "x")
    file.close()
    (tmp_path / "text").write_text("no database, " * 100)
    with pytest.raises(TrackingError, match="file is not a database"):
        tracking_check.check_server(f"sqlite:///{tmp_path / 'text'}", "x")
    with pytest.raises(TrackingError, match="cannot be made"):
        tracking_check.check_server(f"sqlite:///{tmp_path / 'text' / 'mlflow.db'}", "x")


def test_a_server_is_asked_to_write_to_the_experiment_that_is_there(monkeypatch):
    class Client:
        experiments = {}
        tags = []

        def get_experiment_by_name(self, name):
            return self.experiments.get(name)

        def set_experiment_tag(self, *tag):
            self.tags.append(tag)

    @dataclasses.dataclass
    class Experiment:
        experiment_id: str
        lifecycle_stage: str

    @contextmanager
    def answering(uri):
        yield Client()

    monkeypatch.setattr(tracking_check, "answering_client", answering)
    tracking_check.check_server("http://lab:5000", "finch")
    assert Client.tags == []
    Client.experiments["finch"] = Experiment("7", "active")
    tracking_check.check_server("http://lab:5000", "finch")
    assert [tag[:2] for tag in Client.tags] == [("7", "last_preflight")]
    Client.experiments["finch"] = Experiment("7", "deleted")
    with pytest.raises(TrackingError, match="restore --experiment-id 7"):
        tracking_check.check_server("http://me:secret@lab:5000", "finch")


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(TrackingError, match="no connection"):
        tracking_check.check_server("http://127.0.0.1:1", "finch")


# The command; before this process connects to the cluster below


@pytest.fixture
def doctor(tmp_path, monkeypatch, capsys):
    """The command in this process, in an empty folder; gives exit code and what was printed."""
    monkeypatch.setattr(sys, "path", list(sys.path))  # the command puts the project's root first
    monkeypatch.chdir(tmp_path)
    from study.run_tune import main

    def run(*words):
        code = main(["--preset", "smoke", "--doctor", "--out", "run", *words])
        assert not list(tmp_path.iterdir())
        return code, capsys.readouterr().out

    return run


@pytest.mark.integration
def test_the_doctor_says_that_all_is_well_and_leaves_nothing(doctor):
    code, text = doctor("--tracking-uri", "sqlite:///mlflow.db")
    assert code == 0, text
    assert "All 9 checks are ok" in text
    table = text[text.index("check  ") :]  # above it stand paths, however long
    assert max(map(len, table.splitlines())) <= WIDTH


@pytest.mark.integration
def test_the_doctor_shows_each_remedy_and_ends_with_code_2(doctor):
    code, text = doctor("--tracking-uri", "http://127.0.0.1:1", "resources.gpus_per_trial=9")
    assert code == 2, text
    assert "2 of 9 checks failed: resources, MLflow" in text
    assert "-> Set resources.gpus_per_trial=" in text


# A cluster of two nodes, one of which sees another file system where the tests want it


def has_mount_namespaces():
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    tried = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


@dataclasses.dataclass(frozen=True)
class TwoNodes:
    address: str
    shared: Path
    hidden: Path


# As `ray up` completes it; "fake" starts no node, since nobody asks for one here.
CLUSTER_FILE = {
    "cluster_name": "test",
    "max_workers": 5,
    "provider": {"type": "fake_multinode"},
    "auth": {}, "docker": {}, "file_mounts": {}, "file_mounts_sync_continuously": False,
    "cluster_synced_files": [], "rsync_exclude": [], "rsync_filter": [],
    "initialization_commands": [], "setup_commands": [], "head_setup_commands": [],
    "worker_setup_commands": [], "head_start_ray_commands": [], "worker_start_ray_commands": [],
    "idle_timeout_minutes": 5, "upscaling_speed": 1.0, "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
        "spot": {"resources": {"CPU": 4, "GPU": 1}, "node_config": {}, "max_workers": 3},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory):
    if not has_mount_namespaces():
        pytest.skip("hiding a folder from a node takes root and mount namespaces (unshare -m)")
    folder = tmp_path_factory.mktemp("two")
    shared, hidden = folder / "shared", folder / "hidden"
    shared.mkdir()
    hidden.mkdir()
    file = folder / "cluster.yaml"
    file.write_text(json.dumps(CLUSTER_FILE))
    temp = Path("/tmp") / f"ray{os.getpid()}"  # sockets below it have short names only
    os.environ["RAY_FAKE_CLUSTER"] = "1"
    head = RayCluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "temp_dir": str(temp), "include_dashboard": False,
                        "autoscaling_config": str(file)},
    )  # fmt: skip
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1",
             f"--address={head.address}", "--disable-usage-stats"]  # fmt: skip
    hide = f'mount -t tmpfs none {hidden} && exec "$@"'
    second = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", hide, "sh", *start],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        yield TwoNodes(head.address, shared, hidden)
    finally:
        ray.shutdown()
        os.killpg(second.pid, signal.SIGTERM)
        second.wait(60)
        head.shutdown()
        del os.environ["RAY_FAKE_CLUSTER"]
        shutil.rmtree(temp, ignore_errors=True)


@pytest.fixture(scope="module")
def connection(two_nodes):
    with connected(two_nodes.address):
        deadline = time.monotonic() + 60
        while sum(node["Alive"] for node in ray.nodes()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield two_nodes


def found(config, two_nodes, out):
    started = time.monotonic()
    where = Where(out, two_nodes.address, f"sqlite:///{two_nodes.shared / 'mlflow.db'}")
    looked = survey(Path(config.data.dir)) if config.data.dir else None
    checks = {check.name: check for check in run_checks(config, where, looked)}
    assert not list(two_nodes.shared.rglob(".preflight*"))
    return checks, time.monotonic() - started


@pytest.mark.integration
def test_on_two_nodes_all_is_well_and_nothing_is_left(connection):
    config = StudyConfig(resources=ResourcesConfig(gpus_per_trial=1.0))
    checks, _ = found(config, connection, connection.shared / "runs" / "finch")
    assert [check.in_words for check in checks.values() if not check.is_ok] == []
    assert checks["nodes"].text.startswith("2 nodes, 2 CPUs, 0 GPUs")
    assert checks["run folder"].text.endswith("read and written by all 2 nodes")
    # No node has a GPU yet: those of the cluster file count.
    assert "no node holds a trial yet" in checks["resources"].text
    assert "may add up to 3 that do" in checks["resources"].text
    assert not list(connection.shared.iterdir())


@pytest.mark.integration
def test_a_run_folder_that_another_node_does_not_see_is_refused_within_10_seconds(connection):
    checks, seconds = found(CONFIG, connection, connection.hidden / "run")
    assert [check.name for check in checks.values() if not check.is_ok] == ["run folder"]
    assert "does not see it" in checks["run folder"].text
    assert "does not see it" not in checks["run folder"].text.partition(";")[2]  # one of the two
    assert seconds < 10
    assert not list(connection.hidden.iterdir())


@pytest.mark.integration
def test_recordings_that_another_node_does_not_see_are_refused(connection):
    song = connection.hidden / "data" / "bird1" / "45" / "songs" / "1.wav"
    song.parent.mkdir(parents=True)
    song.write_bytes(b"RIFF")
    config = StudyConfig(data=DataConfig(dir=str(connection.hidden / "data")))
    checks, _ = found(config, connection, connection.shared / "run")
    shutil.rmtree(connection.hidden / "data")
    assert [check.name for check in checks.values() if not check.is_ok] == ["recordings"]
    assert "it is not there" in checks["recordings"].text
    assert checks["data"].text.startswith("1 recordings of 1 birds and ages, hash ")


@pytest.mark.integration
def test_what_asks_for_more_than_there_is_or_may_come_is_refused(connection):
    config = StudyConfig(resources=ResourcesConfig(gpus_per_trial=2.0))
    checks, _ = found(config, connection, connection.shared / "run")
    assert [check.name for check in checks.values() if not check.is_ok] == ["resources"]
    assert "nor any that its autoscaler may start, has more than 1 GPUs" in checks["resources"].text
