"""Registered models: a folder of safetensors and JSON that MLflow keeps as artefacts of a run.

Nothing here loads a model, and nothing loads one by MLflow: what it would load may be a pickle,
and that runs. The tag model_json_sha256 of a version is the hash of its model.json, which holds the
hashes of all its other files. The client is one of `study.tracking.tracker.answering_client`.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.mdgan.tensor_files import file_sha256
from study.tracking.errors import TrackingError, is_there_already
from study.tracking.picture import Model

MODEL_JSON = "model.json"
MODEL_SUFFIXES = (".safetensors", ".json")
MODEL_TAG = "model_json_sha256"
BEST = "best"  # alias of the version that is the study's best now; the newest need not be it
_SAME_BY = (MODEL_TAG, "sha256")  # tags, each of which makes two versions of a run the same model


def model_hash(folder: Path) -> str:
    """Hash of a model's model.json."""
    return file_sha256(folder / MODEL_JSON)


def model_of(folder: Path, name: str, tags: Mapping[str, str]) -> Model:
    """The model in ``folder``, as it is now.

    Raises:
        FileNotFoundError: there is no model.json.
    """
    return Model(folder, name, {**tags, MODEL_TAG: model_hash(folder)})


def register(client: Any, run_id: str, model: Model) -> bool:
    """Register a model with its files, unless that was done before, and name it the best of now.

    Args:
        client: of MLflow.
        run_id: of the run.
        model: to register.

    Returns:
        False where the folder no longer holds the model of that hash.
    """
    folder, name, tags = model.folder, model.name, dict(model.tags)
    versions = client.search_model_versions(f"run_id = '{run_id}'")
    for key in _SAME_BY:
        for known in versions:
            if known.name == name and key in tags and known.tags.get(key) == tags[key]:
                client.set_registered_model_alias(name, BEST, known.version)
                return True
    try:
        if model_hash(folder) != tags[MODEL_TAG]:
            return False
    except FileNotFoundError:
        return False
    # Another model of the same run must not replace the files of one that is registered.
    to = f"model-{tags[MODEL_TAG][:12]}" if versions else "model"
    for path in sorted(folder.iterdir()):
        if path.suffix in MODEL_SUFFIXES:
            client.log_artifact(run_id, str(path), to)
    try:
        client.create_registered_model(name)
    except Exception as error:
        if not is_there_already(error):
            raise
    # Runs have their artefacts under this address on a server as well as beside a SQLite file.
    source = f"runs:/{run_id}/{to}"
    made = client.create_model_version(name, source, run_id, tags, await_creation_for=0)
    client.set_registered_model_alias(name, BEST, made.version)
    return True


@dataclass(frozen=True)
class RegisteredModel:
    """A version of a registered model.

    Attributes:
        name: of the model.
        version: counts from 1.
        run_id: of the run that it came from.
        tags: of the version; MODEL_TAG is among them.
        folder: among the artefacts of the run.
        files: names in that folder; those of folders end in a slash.
    """

    name: str
    version: int
    run_id: str
    tags: dict[str, str]
    folder: str
    files: list[str]


def find_model(client: Any, name: str, version: int | None = None) -> RegisteredModel:
    """A version of the registered model ``name``, or the one that is the study's best now.

    An earlier version of this project named none the best: then it is the latest.

    Raises:
        TrackingError: there is no such version, or no study registered it.
    """
    quote = '"' if "'" in name else "'"
    found = client.search_model_versions(f"name = {quote}{name}{quote}")
    versions = {int(one.version): one for one in found}
    number = version
    if number is None:
        known = client.get_registered_model(name).aliases if versions else {}
        number = int(known.get(BEST, max(versions, default=1)))
    if number not in versions:
        there = ", ".join(map(str, sorted(versions))) or "none"
        raise TrackingError(
            f"MLflow has no version {number} of a registered model {name!r}; versions there: "
            f"{there}. Its page lists the names under Models; --tracking-uri says which MLflow."
        )
    one = versions[number]
    start = f"runs:/{one.run_id}/"
    source = str(one.source)
    if MODEL_TAG not in one.tags or not source.startswith(start):
        raise TrackingError(
            f"Version {number} of {name!r} was not registered by a study (source {source}, tags "
            f"{sorted(one.tags)}), so that it cannot be checked. Give another --version."
        )
    folder = source.removeprefix(start)
    files = [
        info.path.removeprefix(f"{folder}/") + "/" * info.is_dir
        for info in client.list_artifacts(one.run_id, folder)
    ]
    return RegisteredModel(name, number, one.run_id, dict(one.tags), folder, files)


def download(client: Any, model: RegisteredModel, file: str, folder: Path) -> None:
    """Copy one file of a model into ``folder``, which exists."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        copy = client.download_artifacts(model.run_id, f"{model.folder}/{file}", temporary)
        Path(copy).replace(folder / file)
