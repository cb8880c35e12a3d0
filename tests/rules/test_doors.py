"""Doors of the project itself: nothing it reads is run, no known hole, no secret written down.

docs/security.md lists all doors, those of clusters and servers too.
"""

import ast
import hashlib
import io
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from mlflow.exceptions import MlflowException
from packaging.version import Version

from data_io.files import SEAL, BrokenSealError, read_json, write_json
from data_io.latents import read_latents, write_latents
from data_io.seal import seal
from data_io.song_models import SongModel, load_song_model, save_song_model
from data_io.store import BrokenFileError, partition, read_recordings
from models.decoder import Decoder
from models.mdgan.checkpoints import load_decoder, load_training, save_decoder, save_training
from models.metrics.reference import Reference
from study.base.paths import ROOT, RunPaths
from study.cluster import connection as cluster
from study.config.reader import load_config
from study.run_tune import main
from study.search.trial_folder import BrokenRecordError, TrialFolder, TrialSpec
from study.tracked import allowed_params, study_params, study_run, write_study_json
from study.tracking.errors import TrackingError, verdict
from study.tracking.sent import Sent
from study.tracking.tracker import Tracker
from tests.helpers.tiny_mdgan import build

# --- What the code calls ------------------------------------------------------------------------

# Whatever opens these runs what is in the file.
MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "ray.cloudpickle", "dill", "joblib",
           "shelve", "marshal", "jsonpickle", "ray.data"}  # fmt: skip
CALLS = re.compile(
    r"""torch\.(load|jit\.load|package\..*|hub\..*|export\.load|classes\.load_library)
    | numpy\.(fromregex|lib\.format\.read_array)
    | (pandas\.)?read_pickle | .*\.(to_pickle|read_pickle)
    | mlflow\.(.*\.)?load_model | .*\.load_model
    | yaml\.(load|load_all|full_load|full_load_all|unsafe_load|unsafe_load_all)
    | ray\.tune\.(Tuner\.restore|ExperimentAnalysis) | .*\bTuner\.restore
    | eval | exec | compile | __import__ | builtins\.(eval|exec|compile)
    | os\.(system|popen)""",
    re.VERBOSE,
)


def unsafe(source):
    """What in a module's text could run the content of a file, as ``line: name``."""
    tree = ast.parse(source)
    names = {}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                names[alias.asname or first] = alias.name if alias.asname else first
                if alias.name in MODULES or first in MODULES:
                    found.append((node.lineno, alias.name))
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                names[alias.asname or alias.name] = name
                if {node.module, name, (node.module or "").split(".")[0]} & MODULES:
                    found.append((node.lineno, name))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func, names)
        options = {o.arg: getattr(o.value, "value", None) for o in node.keywords}
        if name == "numpy.load" and options.get("allow_pickle") is not False:
            found.append((node.lineno, "numpy.load without allow_pickle=False"))
        if options.get("allow_pickle", False) is not False and name != "numpy.load":
            found.append((node.lineno, f"{name} with allow_pickle"))
        if options.get("shell", False) is not False:
            found.append((node.lineno, f"{name} with shell"))
        if CALLS.fullmatch(name):
            found.append((node.lineno, name))
    return [f"{line}: {name}" for line, name in sorted(found)]


def dotted(node, names):
    """Name of what is called, with the imported module in front."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    parts.append(names.get(node.id, node.id) if isinstance(node, ast.Name) else "<value>")
    return ".".join(reversed(parts))


@pytest.mark.parametrize("folder", ["study", "models", "data_io"])
def test_no_code_of_ours_could_run_what_is_in_a_file(folder):
    modules = sorted((ROOT / folder).rglob("*.py"))
    assert modules
    found = {str(path.relative_to(ROOT)): unsafe(path.read_text("utf-8")) for path in modules}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "import ray.cloudpickle as c",
        "from ray import cloudpickle", "import joblib.numpy_pickle", "from ray import data",
        "import torch\ntorch.load(p)", "from torch import load as l\nl(p, weights_only=True)",
        "import numpy as np\nnp.load(p)", "import numpy as np\nnp.load(p, allow_pickle=True)",
        "from numpy import load\nload(p)", "import numpy as np\nnp.savez(p, allow_pickle=True)",
        "import numpy as np\nnp.load(p, allow_pickle=x)",
        "import mlflow\nmlflow.pyfunc.load_model(u)", "from mlflow import pytorch\n"
        "pytorch.load_model(u)", "import yaml\nyaml.load(f, Loader=l)", "eval(t)", "exec(t)",
        "from ray import tune\ntune.Tuner.restore(p, t)",
        "from ray.tune import Tuner\nTuner.restore(p, t)", "import pandas as pd\npd.read_pickle(p)",
        "import subprocess\nsubprocess.run(c, shell=True)", "import os\nos.system(c)",
    ],
)  # fmt: skip
def test_the_search_finds(source):
    assert unsafe(source)


@pytest.mark.parametrize(
    "source",
    ["import re\nre.compile('x')", "import yaml\nyaml.safe_load(f)", "model.eval()",
     "import numpy as np\nnp.load(p, allow_pickle=False)", "torch.compile(f)", "json.load(f)",
     "deepcopy(net).eval()"],
)  # fmt: skip
def test_the_search_leaves_in_peace(source):
    assert unsafe(source) == []


# --- Known holes --------------------------------------------------------------------------------

# From which version on the holes are closed that docs/security.md names.
FLOORS = {
    "ray": "2.56.0",  # CVE-2025-62593, CVE-2026-27482, CVE-2026-41486, CVE-2026-57516
    "mlflow": "3.17.2",  # CVE-2026-2635, -2652, -0545, -2614, -116690, -53995, -4137
    "torch": "2.10.1",  # CVE-2025-32434, CVE-2026-24747, CVE-2026-4538
    "pyarrow": "14.0.1",  # CVE-2023-47248
    "pyyaml": "5.4",  # CVE-2020-14343
    "jinja2": "3.1.6",  # CVE-2025-27516
}


def pins(path):
    found = re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==(\S+)$", path.read_text(), re.MULTILINE)
    return {name.lower(): Version(version) for name, version in found}


@pytest.mark.parametrize(("name", "floor"), FLOORS.items())
def test_no_version_with_a_known_hole_is_pinned(name, floor):
    assert pins(ROOT / "requirements.txt")[name] >= Version(floor)


def test_every_line_of_requirements_is_pinned():
    for path in (ROOT / "requirements.txt", ROOT / "mlflow" / "requirements.txt"):
        lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
        assert len(lines) == len(pins(path)), path


# --- Hostile files ------------------------------------------------------------------------------


class Hostile:
    """Pickled, it makes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "ran"


def as_pickle(marker):
    return pickle.dumps(Hostile(marker))


def as_torch(marker):
    buffer = io.BytesIO()
    torch.save({"weight": Hostile(marker)}, buffer)
    return buffer.getvalue()


def as_arrays(*names):
    """An .npz whose arrays hold objects."""

    def content(marker):
        buffer = io.BytesIO()
        hostile = np.array([Hostile(marker)], dtype=object)
        np.savez(buffer, allow_pickle=True, **dict.fromkeys(names, hostile))
        return buffer.getvalue()

    return content


MODEL_ARRAYS = ("start_probs", "transition_matrix", "means", "covariances", "state_of")
REFERENCE_ARRAYS = ("pca_mean", "pca_components", "pca_std")


def test_the_hostile_files_of_these_tests_do_run_where_they_are_let(tmp_path, marker):
    def opens(load, content):
        path = tmp_path / "x"
        path.write_bytes(content)
        load(path).close() if load is pickle_file else load(path)
        assert marker.exists()
        marker.unlink()

    def pickle_file(path):
        return pickle.loads(path.read_bytes())

    opens(pickle_file, as_pickle(marker))
    opens(lambda path: torch.load(path, weights_only=False)["weight"].close(), as_torch(marker))
    opens(lambda path: np.load(path, allow_pickle=True)["a"][0].close(), as_arrays("a")(marker))


def decoder(folder):
    save_decoder(build(), folder, {"params": {}})
    return folder


def training(folder):
    save_training(build(), folder)
    return folder


def song_model(folder):
    ones = np.ones(2)
    arrays = ones, np.ones((2, 2)), np.ones((2, 3)), np.ones((2, 3))
    model = SongModel(*arrays, "diag", ones, ones, np.arange(2), None, None, 16)
    save_song_model(folder, "blk12", "63", model, {})
    return folder / "blk12"


def latents(folder):
    one = "a.wav", np.zeros((4, 3), np.float32), np.ones(4, np.float32)
    write_latents(folder, "blk12", "63", [one], 0.1, 3, {})
    return partition(folder, "blk12", "63").parent


def trial(folder):
    record = TrialFolder(folder)
    record.begin(TrialSpec("trial-000", 0, 1, {}))
    record.own()
    record.save(1, [{"report": 1}], lambda checkpoint: save_decoder(build(), checkpoint, {}))
    return folder


def forge_hash(path):
    """Write the hash of ``path`` wherever the hash of what was there before stood."""
    for other in path.parent.glob("*.json"):
        content = json.loads(other.read_text())
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        if isinstance(content.get("sha256"), dict):
            content["sha256"][path.name] = sha256
        else:
            content["sha256"] = sha256
        if content.pop(SEAL, None):
            write_json(other, content)
        else:
            other.write_text(json.dumps(content))


REFUSALS = (ValueError, BrokenFileError, BrokenRecordError)


@pytest.mark.parametrize("content", [as_pickle, as_torch], ids=["pickle", "torch"])
@pytest.mark.parametrize(
    ("make", "name", "forged", "read"),
    [
        (decoder, "model.json", False, load_decoder),
        (decoder, "encoder.safetensors", False, load_decoder),
        (decoder, "encoder.safetensors", True, load_decoder),
        (decoder, "generator.safetensors", True, Decoder.load),
        (training, "training.json", False, lambda folder: load_training(build(), folder)),
        (training, "training.safetensors", True, lambda folder: load_training(build(), folder)),
        (song_model, "63.npz", False, lambda f: load_song_model(f.parent, "blk12", "63")),
        (song_model, "63.npz", True, lambda f: load_song_model(f.parent, "blk12", "63")),
        (song_model, "63.json", False, lambda f: load_song_model(f.parent, "blk12", "63")),
        (latents, "part-0.parquet", False, lambda f: read_latents(f.parents[1], "blk12", "63")),
        (Path, "recordings.parquet", False, lambda f: read_recordings(f / "recordings.parquet")),
        (Path, "reference.npz", False, lambda f: Reference.load(f / "reference.npz")),
        (trial, "trial.json", False, lambda folder: TrialFolder(folder).spec()),
        (trial, "ended.json", False, lambda folder: TrialFolder(folder).ended()),
    ],
)
def test_a_hostile_file_is_refused_by_name_and_not_run(
    tmp_path, marker, make, name, forged, read, content
):
    folder = tmp_path / "run"
    folder.mkdir()
    folder = make(folder)
    (folder / name).write_bytes(content(marker))
    if forged:
        forge_hash(folder / name)
    with pytest.raises(REFUSALS, match=re.escape(name)):
        read(folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("make", "name", "names", "read"),
    [
        (song_model, "63.npz", MODEL_ARRAYS, lambda f: load_song_model(f.parent, "blk12", "63")),
        (Path, "reference.npz", None, lambda f: Reference.load(f / "reference.npz")),
    ],
)
def test_arrays_of_objects_are_refused_by_name_and_not_made(
    tmp_path, marker, make, name, names, read
):
    folder = tmp_path / "run"
    folder.mkdir()
    folder = make(folder)
    arrays = names or tuple(Reference.__dataclass_fields__)
    (folder / name).write_bytes(as_arrays(*arrays)(marker))
    forge_hash(folder / name)
    with pytest.raises(REFUSALS, match=re.escape(name)):
        read(folder)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["encoder.safetensors", "checkpoint.json", "reports.json"])
def test_a_hostile_file_in_a_checkpoint_is_set_aside_by_name(tmp_path, marker, name):
    record = TrialFolder(trial(tmp_path / "trial-000"))
    (record.path / "checkpoint-0001" / name).write_bytes(as_pickle(marker))
    said = []
    assert record.sound_reports(said.append) == []
    assert "checkpoint-0001 is broken" in said[0]
    assert not marker.exists()


def test_hostile_records_of_the_study_count_as_not_there(tmp_path, marker):
    path = tmp_path / "recordings.json"
    path.write_bytes(as_pickle(marker))
    with pytest.raises(BrokenSealError, match=r"recordings\.json"):
        read_json(path)
    sent = Sent(tmp_path / "sent", "uri", "study")
    sent.write()
    sent.path.write_bytes(as_pickle(marker))
    assert Sent(tmp_path / "sent", "uri", "study").studies == {}
    assert not marker.exists()


def test_what_nobody_asked_for_is_not_opened(tmp_path, marker):
    """Names under which Ray Tune, Optuna, MLflow and torch would look for pickles."""
    folder = decoder(tmp_path)
    training(folder)
    for name in ("model.pkl", "python_model.pkl", "pytorch_model.bin", "data.pkl", "model.pt",
                 "MLmodel", "tune/tuner.pkl", "tune/trainable.pkl", "tune/searcher-state.pkl",
                 "tune/experiment_state-2026.json", "tune/.is_checkpoint"):  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(as_pickle(marker))
    load_decoder(folder)
    load_training(build(), folder)
    trial(folder / "search" / "trial-000")
    TrialFolder(folder / "search" / "trial-000").sound_reports(print)
    assert not marker.exists()


READ_WITH_RAY_DATA = """
import sys
import ray.data  # knows the types of columns in which Ray kept pickles
from pathlib import Path
from data_io.latents import read_latents
from data_io.store import BrokenFileError
for folder in sys.argv[1:]:
    try:
        read_latents(Path(folder), "blk12", "63")
    except BrokenFileError as error:
        print(error)
"""
RAY_TYPES = ("arrow_tensor", "arrow_tensor_v2", "arrow_variable_shaped_tensor",
             "arrow_pickled_object")  # fmt: skip


@pytest.mark.slow
def test_a_table_with_a_pickle_in_the_type_of_a_column_is_refused(tmp_path, marker):
    """CVE-2026-41486: reading such a file ran it."""
    for kind in RAY_TYPES:
        path = latents(tmp_path / kind) / "part-0.parquet"
        table = pq.ParquetFile(path).read()
        z = table.schema.field("z").with_metadata({
            b"ARROW:extension:name": f"ray.data.{kind}".encode(),
            b"ARROW:extension:metadata": as_pickle(marker),
        })  # fmt: skip
        schema = table.schema.set(table.schema.get_field_index("z"), z)
        pq.write_table(pa.table(table.columns, schema=schema), path)
        seal(path)  # it is no secret: who can alter a file can seal it
    command = [sys.executable, "-c", READ_WITH_RAY_DATA, *(tmp_path / kind for kind in RAY_TYPES)]
    read = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr
    for kind in RAY_TYPES:
        assert f"{kind}/bird=blk12/age=63/part-0.parquet cannot be read" in read.stdout
    assert not marker.exists()
    # Where Ray is told to be as careless as before, the very same files do run.
    careless = {**os.environ, "RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA": "1"}
    subprocess.run(command, cwd=ROOT, capture_output=True, check=False, env=careless)
    assert marker.exists()


# --- Secrets ------------------------------------------------------------------------------------

SECRET = "hush-hush-hush"
WITH_SECRET = f"http://anna:{SECRET}@mlflow.example.org:5000"


@pytest.fixture
def secrets_around(monkeypatch):
    """Secrets in the environment and in the command, as a study may be started."""
    for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "RAY_AUTH_TOKEN",
                 "AWS_SECRET_ACCESS_KEY"):  # fmt: skip
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setattr(sys, "argv", ["run_tune.py", f"--tracking-uri={WITH_SECRET}",
                                      "--tracking-uri", WITH_SECRET])  # fmt: skip


def written(folder):
    return "".join(path.read_text() for path in folder.rglob("*") if path.is_file())


def test_the_plan_shows_no_secret(secrets_around, tmp_path, capsys):
    words = ["--preset", "smoke", "--dry-run", "--out", str(tmp_path / "run")]
    assert main([*words, "--tracking-uri", WITH_SECRET]) == 0
    shown = capsys.readouterr()
    assert "mlflow.example.org" in shown.out
    assert SECRET not in shown.out + shown.err


def test_the_run_folder_holds_no_secret(secrets_around, tmp_path):
    config, paths = load_config("smoke", None, []), RunPaths(tmp_path)
    paths.stages.mkdir()
    tracker = SimpleNamespace(
        uri=WITH_SECRET, experiment_id="1", study_run_id="2",
        lineage={"git_commit": "abc", "code_hash": "def"},
        start_study=lambda *_: "2", show=lambda *_: None, end_study=lambda *_: None,
    )  # fmt: skip
    Sent(paths.tracking, WITH_SECRET, "study").write()
    with study_run(config, tracker, "data"):
        study = SimpleNamespace(
            config=config, paths=paths, data_dir=tmp_path, tracker=tracker,
            ledger=SimpleNamespace(done={}),
        )  # fmt: skip
        write_study_json(study, [])
    text = written(tmp_path)
    assert paths.study.exists()
    assert text.count("mlflow.example.org") >= 2
    assert SECRET not in text


def test_parameters_of_a_study_are_those_of_its_configuration_alone(secrets_around):
    config = load_config("smoke", None, [])
    params = study_params(config)
    assert set(params) <= set(allowed_params(config))
    assert SECRET not in str(params)


def test_an_error_of_mlflow_is_told_without_the_password(tmp_path):
    nobody_listens = f"http://anna:{SECRET}@127.0.0.1:9"
    with pytest.raises(TrackingError) as caught:
        Tracker(nobody_listens, "study", {}, tmp_path / "sent", [])
    assert "127.0.0.1:9" in str(caught.value)
    assert SECRET not in str(caught.value) + written(tmp_path)
    # What MLflow's client says of an answer that it does not know.
    odd = MlflowException(f"API request to {WITH_SECRET}/api failed with exception odd")
    assert "mlflow.example.org" in str(verdict(odd))
    assert SECRET not in str(verdict(odd))


def test_no_password_of_a_server_is_sent_to_a_cluster():
    private = [ROOT / "mlflow" / name for name in ("secrets", "server", ".env", "client.env")]
    files = [path for path in ROOT.glob("cluster*.yaml")]
    assert files
    for file in files:
        mounts = yaml.safe_load(file.read_text()).get("file_mounts", {})
        sources = [(ROOT / source).resolve() for source in mounts.values() if source[0] not in "/~"]
        assert [(p, s) for p in private for s in sources if p.is_relative_to(s)] == [], file
    # What Ray sends to workers of a cluster that runs already.
    assert "mlflow" in cluster._EXCLUDES


def test_security_md_names_tests_that_are_there():
    text = (ROOT / "docs" / "security.md").read_text("utf-8")
    named = re.findall(r"([\w/]+\.py)::(\w+)", text)
    assert len(named) > 40
    for file, name in named:
        tree = ast.parse((ROOT / "tests" / file).read_text("utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in functions, f"{file}::{name}"
    held = [line for line in text.splitlines() if line.startswith("| ") and "| test |" not in line]
    assert all(re.search(r"\| (by hand|[\w/]+\.py::.*) \|$", line) for line in held)
