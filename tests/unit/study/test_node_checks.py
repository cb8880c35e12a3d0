"""The checks before a study: what they conclude from what nodes reported, and what they say."""

import dataclasses
import errno
import fcntl
import io
import sqlite3
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray
import torch

from data_io.names.listing import Survey
from data_io.recordings.table import Recording, Recordings
from data_io.snippets import SnippetParams
from models.mdgan.checkpoints import save_decoder, save_training
from models.mdgan.model import Mdgan, MdganParams
from study.base.console import WIDTH, Console
from study.cluster.gpu_facts import Card, GpuFacts
from study.cluster.nodes import Node
from study.config.search import SearchConfig
from study.config.space import SpaceEntry
from study.config.tree import DataConfig, ResourcesConfig, StudyConfig
from study.preflight import disk_need, mlflow_check, node_probe
from study.preflight.check import Check, PreflightError, require, show_checks
from study.preflight.node_checks import (
    Cluster,
    check_data,
    check_disks,
    check_folder,
    check_nodes,
    check_versions,
)
from study.preflight.node_probe import (
    DRIVER,
    N_SAMPLED,
    FileSizes,
    NodeReport,
    Question,
    differences,
    sample,
    token_folder,
)
from study.preflight.run import lock_fault
from study.tracking.errors import TrackingError

CONFIG = StudyConfig()
REPORT = NodeReport(
    "one", ray.__version__, "3.11.9", "2.13.0", True, "", "", Path("/tmp/ray"),
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


def test_gpus_that_torch_cannot_use_are_refused_before_trials_start():
    config = StudyConfig(resources=ResourcesConfig(gpus_per_trial="auto"))
    card = Card("NVIDIA A10G", 86)
    sound = GpuFacts("2.13.0", "13.0", ("sm_80",), "580.65.06", "13.0", (card,))
    old = dataclasses.replace(sound, driver="535.183.01", driver_cuda="12.2")
    assert check_versions(config, of(dataclasses.replace(REPORT, gpus=sound), gpus=1)).is_ok
    cluster = of(dataclasses.replace(REPORT, gpus=sound), other(gpus=old), gpus=1)
    check = check_versions(config, cluster)
    assert not check.is_ok
    assert check.text.startswith(
        "GPUs are asked for, but cannot be used: on two the driver is too old for torch's CUDA "
        "13.0 (driver 535.183.01 (CUDA 12.2), torch 2.13.0 for CUDA 13.0 and sm_80, cards: NVIDIA"
    )
    assert "on one" not in check.text
    assert "driver 580 or newer" in check.remedy
    assert "/whl/cu126), or set resources.gpus_per_trial=0" in check.remedy


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
    small = check_disks(96_000_000, 104_000_000, GB, of(REPORT))
    assert "The run folder has 96 MB free, a study needs about 104 MB." in small.text


def recordings_of(*paths):
    found = [Recording(*path.split("/")[:2], None, None, path) for path in paths]
    return Survey(Path("/data"), Recordings.from_rows(found), "0123456789abcdef", 44, [], {})


def test_recordings_that_are_not_the_same_everywhere_are_refused():
    found = recordings_of("x/45/1.wav", "x/45/2.wav", "x/60/1.wav")
    cluster = of(REPORT, other(recordings_error="does not see the folder"))
    check = check_data(CONFIG, found, cluster)
    assert not check.is_ok
    assert "/data is not the same on all nodes: two: does not see the folder." in check.text
    assert "Mount the recordings at the same path" in check.remedy
    same = check_data(CONFIG, found, of(REPORT, other()))
    assert same.text == "3 recordings of 2 birds and ages, hash 0123456789ab, seen by all 2 nodes"


def test_simulated_birds_are_other_data_with_another_seed():
    texts = {check_data(StudyConfig(seed=seed), None, of(REPORT)).text for seed in (0, 0, 1)}
    assert len(texts) == 2
    assert all(text.startswith("simulated birds, hash ") for text in texts)


def test_too_little_disk_is_refused_with_both_numbers():
    fits = check_disks(20 * GB, 12 * GB, 2 * GB, of(REPORT, other(temp_free=3 * GB)))
    assert fits.is_ok
    assert "run folder 20 GB free, about 12 GB needed" in fits.text
    assert "/tmp/ray on two) 3.0 GB free, 2.0 GB needed" in fits.text
    check = check_disks(11 * GB, 12 * GB, 2 * GB, of(REPORT, other(temp_free=GB)))
    assert not check.is_ok
    assert "The run folder has 11 GB free, a study needs about 12 GB." in check.text
    assert "Ray's files take about 2.0 GB on a node: /tmp/ray on two has 1.0 GB free." in check.text
    assert "on one" not in check.text
    assert "--out" in check.remedy
    small = check_disks(96_000_000, 104_000_000, GB, of(REPORT))
    assert "The run folder has 96 MB free, a study needs about 104 MB." in small.text
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
        (tokens / DRIVER).write_text("x")
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


@pytest.mark.slow
def test_a_node_reads_the_drivers_file_before_it_writes_its_own(tmp_path):
    question = Question(tmp_path, "secret", None)
    (tmp_path / DRIVER).write_text("secret of another study")
    assert "holds another file" in node_probe.answer_token(question, "node")
    assert not node_probe.has_answered(question, DRIVER)
    (tmp_path / DRIVER).write_text("secret")
    assert node_probe.answer_token(question, "node") == ""
    assert node_probe.has_answered(question, "node")
    question = Question(tmp_path / DRIVER, "secret", None)
    assert "cannot write to it: Not a directory" in node_probe.answer_token(question, "node")


def test_a_node_says_which_recordings_it_sees_otherwise(tmp_path):
    there = FileSizes(tmp_path / "data", {"x/45/1.wav": 4, "x/45/2.wav": 4})
    assert differences(there) == "does not see the folder"
    (tmp_path / "data/x/45").mkdir(parents=True)
    for name in there.n_bytes:
        (tmp_path / "data" / name).write_text("RIFF")
    assert differences(there) == ""
    (tmp_path / "data/x/45/2.wav").write_text("RIFF, and more")
    assert "1 of 2 files looked at" in differences(there)
    assert "(x/45/2.wav)" in differences(there)
    (tmp_path / "data/x/45/1.wav").unlink()
    assert "2 of 2 files looked at are missing or have another size" in differences(there)


@pytest.mark.parametrize("n", [0, 1, 2, N_SAMPLED - 1, N_SAMPLED, N_SAMPLED + 1, 10 * N_SAMPLED])
def test_recordings_are_sampled_from_the_first_to_the_last(tmp_path, n):
    paths = [f"{i:05d}.wav" for i in range(n)]
    chosen = list(sample(tmp_path, paths).n_bytes)
    assert len(chosen) == min(n, N_SAMPLED)
    assert chosen[:1] + chosen[-1:] == paths[:1] + paths[-1:]
    places = [int(path[:5]) for path in chosen]
    gaps = {after - before for before, after in zip(places, places[1:], strict=False)}
    assert max(gaps, default=0) - min(gaps, default=0) <= 1


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
    space = {"latent_dim": SpaceEntry(choice=(2, 100))}
    wide = dataclasses.replace(recorded, search=SearchConfig(space=space))
    n_frames = 3600 / CONFIG.spectrogram.frame_s
    for hop in (4, 16):
        a_hop_apart = dataclasses.replace(wide, snippets=SnippetParams(hop=hop))
        need, none = (disk_need.run_folder_need(a_hop_apart, n, 1) for n in (hour, 0))
        latents = n_frames / hop * (100 * 4 + 16)
        assert need - none == pytest.approx(1.2 * (n_frames * 129 * 4 + latents), rel=1e-3)
    trials = dataclasses.replace(recorded, search=SearchConfig(n_trials=100))
    _, decoder = disk_need.checkpoint_bytes(CONFIG)
    n_more = 100 - CONFIG.search.n_trials
    more = disk_need.run_folder_need(trials, 0, 1) - disk_need.run_folder_need(recorded, 0, 1)
    assert more == pytest.approx(1.2 * n_more * decoder, rel=1e-3)
    # Frames that the memory for shared objects cannot hold go to Ray's disk.
    frames = sum(map(recorded.max_frames, ("training", "selection"))) * 129 * 4
    assert frames > 0
    assert disk_need.node_need(recorded, frames + 1) == disk_need.SMALL_FILES_BYTES
    assert disk_need.node_need(recorded, frames - 1) == disk_need.SMALL_FILES_BYTES + frames


# MLflow


def test_a_sqlite_file_is_tried_and_left_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(mlflow_check, "LOCK_WAIT_S", 0.1)
    path = tmp_path / "ml" / "flow%20.db"
    mlflow_check.check_server(f"sqlite:///{path}", "x")  # can be made
    assert not path.parent.exists()
    path.parent.mkdir()
    file = sqlite3.connect(path)
    file.execute("create table t (a)")
    file.commit()
    before = path.read_bytes()
    mlflow_check.check_server(f"sqlite:///{path}", "x")
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    file.execute("begin immediate")
    with pytest.raises(TrackingError, match="cannot be written to: database is locked"):
        mlflow_check.check_server(f"sqlite:///{path}", "x")
    file.close()
    (tmp_path / "text").write_text("no database, " * 100)
    with pytest.raises(TrackingError, match="file is not a database"):
        mlflow_check.check_server(f"sqlite:///{tmp_path / 'text'}", "x")
    with pytest.raises(TrackingError, match="cannot be made"):
        mlflow_check.check_server(f"sqlite:///{tmp_path / 'text' / 'mlflow.db'}", "x")


@pytest.mark.parametrize("is_there", [False, True])
def test_a_file_system_without_locks_is_named(is_there, tmp_path, monkeypatch):
    path = tmp_path / "mlflow.db"
    if is_there:
        sqlite3.connect(path).execute("create table t (a)")

    def no_locks(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    def no_sqlite(*args, **kwargs):
        raise sqlite3.OperationalError("locking protocol")

    mlflow_check.check_server(f"sqlite:///{path}", "x")
    for place, name, function, words in (
        (fcntl, "flock", no_locks, "No locks available"),
        (sqlite3, "connect", no_sqlite, "locking protocol"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, function)
            with pytest.raises(TrackingError, match=f"mlflow.db cannot be .*{words}"):
                mlflow_check.check_server(f"sqlite:///{path}", "x")
    monkeypatch.setattr(fcntl, "flock", no_locks)
    (tmp_path / "file").write_text("")
    assert lock_fault(tmp_path / "file") == "its file system has no locks (No locks available)"
    assert len(list(tmp_path.iterdir())) == 1 + is_there


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

    monkeypatch.setattr(mlflow_check, "answering_client", answering)
    mlflow_check.check_server("http://lab:5000", "finch")
    assert Client.tags == []
    Client.experiments["finch"] = Experiment("7", "active")
    mlflow_check.check_server("http://lab:5000", "finch")
    assert [tag[:2] for tag in Client.tags] == [("7", "last_preflight")]
    Client.experiments["finch"] = Experiment("7", "deleted")
    with pytest.raises(TrackingError, match="restore --experiment-id 7"):
        mlflow_check.check_server("http://me:secret@lab:5000", "finch")


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(TrackingError, match="no connection"):
        mlflow_check.check_server("http://127.0.0.1:1", "finch")
