"""Fetching a registered decoder: what is not what was registered is refused, and nothing is run."""

import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from models.decoder import Decoder
from models.mdgan.checkpoints import save_decoder
from study import fetch_model
from study.base.paths import ROOT
from study.fetch_model import ModelRefusedError, fetch, main
from study.tracking.errors import TrackingError
from study.tracking.model_registry import BEST, model_of
from study.tracking.tracker import RunIdentity, Tracker
from tests.helpers.tiny_mdgan import KINDS, build
from tests.helpers.tracked import show

STUDY = RunIdentity("study")


class Hostile:
    """Its pickle leaves a mark where it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory):
    """An MLflow with two versions of the decoder finches, of latent sizes 3 and 4."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    tracker = Tracker(uri, "study", {}, folder / "sent", [])
    tracker.start_study({}, "study", {})
    for latent_dim in (3, 4):
        best = folder / f"best-{latent_dim}"
        best.mkdir()
        params = dataclasses.asdict(dataclasses.replace(KINDS["dense"], latent_dim=latent_dim))
        save_decoder(build("dense", latent_dim=latent_dim), best, {"params": params})
        show(tracker, STUDY, model=model_of(best, "finches", {"trial_id": "trial-000"}))
        assert tracker.flush(60) == 0
    assert tracker.close(60) == 0
    return uri


@pytest.fixture
def client(mlflow):
    return MlflowClient(mlflow, registry_uri=mlflow)


@pytest.fixture
def stored(client):
    """Folder of the files of version 2, which is as before after the test."""
    version = client.get_model_version("finches", "2")
    source = version.source.removeprefix(f"runs:/{version.run_id}/")
    artefacts = client.get_run(version.run_id).info.artifact_uri.removeprefix("file://")
    folder = Path(artefacts) / source
    shutil.copytree(folder, folder.with_name("kept"))
    yield folder
    shutil.rmtree(folder)
    folder.with_name("kept").rename(folder)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "fetched"


def refused(mlflow, out, match):
    with pytest.raises(ModelRefusedError, match=match):
        fetch(mlflow, "finches", 2, out)
    assert list(out.parent.iterdir()) == []


def test_a_fetched_decoder_is_the_one_that_was_registered(mlflow, out):
    model = fetch(mlflow, "finches", 1, out)
    assert model.tags["trial_id"] == "trial-000"
    assert sorted(path.name for path in out.iterdir()) == [
        "encoder.safetensors", "generator.safetensors", "model.json"
    ]  # fmt: skip
    there = Path(mlflow.removeprefix("sqlite:///")).parent / "best-3"
    for path in out.iterdir():
        assert path.read_bytes() == (there / path.name).read_bytes()
    song = np.ones((129, 32), np.float32)
    assert np.array_equal(Decoder.load(out).encode(song), Decoder.load(there).encode(song))


def test_the_study_s_best_of_now_is_the_one_without_a_number(mlflow, client, out):
    assert fetch(mlflow, "finches", None, out).version == 2
    assert Decoder.load(out).params.latent_dim == 4
    client.set_registered_model_alias("finches", BEST, 1)
    assert fetch(mlflow, "finches", None, out.with_name("first")).version == 1
    client.delete_registered_model_alias("finches", BEST)  # as an earlier version left it
    assert fetch(mlflow, "finches", None, out.with_name("latest")).version == 2
    client.set_registered_model_alias("finches", BEST, 2)


@pytest.mark.parametrize("name", ["decoder.pkl", "x.pt", "model.json.pickle", "no_suffix"])
def test_a_file_of_another_kind_is_refused_before_anything_is_copied(
    mlflow, stored, out, tmp_path_factory, name, monkeypatch
):
    mark = tmp_path_factory.mktemp("mark") / "was-run"
    (stored / name).write_bytes(pickle.dumps(Hostile(mark)))
    monkeypatch.setattr(fetch_model, "download", lambda *args: pytest.fail("was copied"))
    refused(mlflow, out, rf"version 2 of 'finches' holds '{name}'.*may run code")
    assert not mark.exists()
    pickle.loads((stored / name).read_bytes())  # it would have
    assert mark.exists()


def test_a_folder_among_the_files_is_refused(mlflow, stored, out):
    (stored / "more").mkdir()
    (stored / "more" / "a.json").write_text("{}")
    refused(mlflow, out, "holds 'more/'")


def test_a_pickle_in_place_of_a_file_is_refused_and_not_run(mlflow, stored, out, tmp_path_factory):
    mark = tmp_path_factory.mktemp("mark") / "was-run"
    (stored / "encoder.safetensors").write_bytes(pickle.dumps(Hostile(mark)))
    refused(
        mlflow, out, r"encoder\.safetensors of version 2 .* is not the file that was registered"
    )
    assert not mark.exists()


def test_a_pickle_that_was_registered_is_refused_and_not_run(mlflow, client, out, tmp_path):
    folder, mark = tmp_path / "best", tmp_path / "was-run"
    folder.mkdir()
    save_decoder(build("dense"), folder, {})
    (folder / "encoder.safetensors").write_bytes(pickle.dumps(Hostile(mark)))
    content = json.loads((folder / "model.json").read_text())
    content["sha256"]["encoder.safetensors"] = fetch_model.file_sha256(
        folder / "encoder.safetensors"
    )
    (folder / "model.json").write_text(json.dumps(content))
    tracker = Tracker(mlflow, "study", {}, tmp_path / "sent", [])
    tracker.start_study({}, "study", {})
    show(tracker, STUDY, model=model_of(folder, "hostile", {}))
    assert tracker.close(60) == 0
    with pytest.raises(ModelRefusedError, match="not a decoder that this version can open"):
        fetch(mlflow, "hostile", None, out)
    assert not mark.exists()
    assert not out.exists()


def test_files_changed_cut_added_or_removed_are_refused(mlflow, stored, out):
    path = stored / "generator.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    refused(mlflow, out, r"generator\.safetensors .* is not the file that was registered")
    path.unlink()
    refused(mlflow, out, r"generator\.safetensors .*\(hash missing")
    path.write_bytes(whole)
    (stored / "more.json").write_text("{}")
    refused(mlflow, out, r"more\.json .*registered not named in model")
    (stored / "more.json").unlink()
    fetch(mlflow, "finches", 2, out)


def test_another_model_json_is_refused(mlflow, stored, out):
    path = stored / "model.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "note": "changed"}))
    refused(mlflow, out, r"model\.json of version 2 .* is not the file that was registered")
    path.unlink()
    refused(mlflow, out, r"has no model\.json among its files")


def test_what_no_study_registered_is_not_fetched(mlflow, client, out):
    run_id = client.get_model_version("finches", "1").run_id
    client.create_registered_model("by-hand")
    client.create_model_version("by-hand", f"runs:/{run_id}/model", run_id)
    with pytest.raises(TrackingError, match="'by-hand' was not registered by a study"):
        fetch(mlflow, "by-hand", None, out)


@pytest.mark.parametrize(
    ("name", "version", "there"),
    [("finches", 3, "1, 2"), ("finch's", None, "none"), ("", None, "none")],
)
def test_a_version_that_is_not_there_is_named(mlflow, out, name, version, there):
    with pytest.raises(TrackingError, match=f"no version .* versions there: {there}"):
        fetch(mlflow, name, version, out)
    assert list(out.parent.iterdir()) == []


def test_a_folder_that_is_there_is_left_alone(mlflow, out):
    out.mkdir()
    with pytest.raises(FileExistsError, match="give another folder with --out"):
        fetch(mlflow, "finches", 1, out)


def test_the_command_says_what_to_do_next(mlflow, out):
    command = [sys.executable, str(ROOT / "study" / "fetch_model.py"), "finches",
               "--version", "1", "--tracking-uri", mlflow, "--out", str(out)]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(
        command, cwd=out.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "finches version 1, trial-000, of MLflow's run" in done.stdout
    code = "\n".join(line.strip() for line in done.stdout.splitlines() if line.startswith("  "))
    names = {"spectrogram": np.ones((129, 32), np.float32)}
    exec(code, names)
    assert names["z"].shape == (2, 3)


def test_the_command_names_what_is_wrong(mlflow, out, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow)
    assert main(["nobody", "--out", str(out)]) == 2
    assert (
        "error: MLflow has no version 1 of a registered model 'nobody'" in capsys.readouterr().err
    )
    uri = "http://127.0.0.1:9"
    assert main(["finches", "--tracking-uri", uri, "--out", str(out)]) == 2
    assert "127.0.0.1:9 cannot be used: no connection" in capsys.readouterr().err
