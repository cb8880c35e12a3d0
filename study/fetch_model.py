"""The command that fetches a registered decoder from MLflow, checked, into a folder.

python study/fetch_model.py finches --out decoders/finches
python study/fetch_model.py finches --version 2 --tracking-uri https://mlflow.example.org --out DIR
"""

import argparse
import json
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    # Started as a script, Python looks for modules in study/; our packages lie one folder up.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from study.base.stopping import keeps_nothing, listen

    keeps_nothing()
    listen()  # what is imported below takes a second

from data_io.files import atomic_dir  # noqa: E402
from models.mdgan.checkpoints import load_decoder  # noqa: E402
from models.mdgan.tensor_files import file_sha256  # noqa: E402
from study.base.command import run_command  # noqa: E402
from study.base.console import Console  # noqa: E402
from study.base.errors import REFUSED, StudyError
from study.base.paths import absolute_uri, default_tracking_uri  # noqa: E402
from study.base.stopping import keeps_nothing  # noqa: E402
from study.tracking.model_registry import (  # noqa: E402
    MODEL_JSON,
    MODEL_SUFFIXES,
    MODEL_TAG,
    RegisteredModel,
    download,
    find_model,
    model_hash,
)


class FolderError(StudyError):
    """The folder is there already, or cannot be written."""

    exit_code = REFUSED


class ModelRefusedError(StudyError):
    """A registered model is not what it should be; the message says which file, and why."""

    exit_code = REFUSED


def main(arguments: list[str]) -> int:
    """Fetch a model from command-line words; give the exit code."""
    options = _parser().parse_args(arguments)
    return run_command(lambda console: _main(options, console))


def _main(options: argparse.Namespace, console: Console) -> int:
    keeps_nothing()  # what was fetched in part is removed
    out = options.out.absolute()
    uri = options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default_tracking_uri()
    try:
        model = fetch(absolute_uri(uri), options.name, options.version, out)
    except OSError as error:
        raise FolderError(str(error)) from error
    trial = model.tags.get("trial_id", "of no trial")
    console.line(
        f"{model.name} version {model.version}, {trial}, of MLflow's run {model.run_id}: {out}"
    )
    console.line("Every file has the hash that the study registered. To use it:")
    console.line("    from models.decoder import Decoder")
    console.line(f"    decoder = Decoder.load({str(out)!r})")
    console.line("    z = decoder.encode(spectrogram)  # more in models/decoder.py")
    return 0


def fetch(uri: str, name: str, version: int | None, out: Path) -> RegisteredModel:
    """Copy a registered decoder to ``out``, which is not there before and whole afterwards.

    Args:
        uri: of MLflow, absolute.
        name: of the registered model.
        version: None is the study's best now.
        out: folder to make.

    Raises:
        TrackingError: MLflow is not there, or has no such model of a study.
        ModelRefusedError: a file is not of a kind that is safe to open, or not the one registered.
        OSError: ``out`` is there, or cannot be written.
    """
    from study.tracking.client import answering_client  # takes seconds

    if out.exists():
        raise FileExistsError(f"{out} is there already: give another folder with --out.")
    with answering_client(uri) as client, atomic_dir(out) as folder:
        model = find_model(client, name, version)
        _check_names(model)
        for file in model.files:
            download(client, model, file, folder)
        _check_hashes(model, folder)
        try:
            load_decoder(folder)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise ModelRefusedError(
                f"{_in_words(model)} is not a decoder that this version can open: {error!r}. Use "
                "the version of this project whose git_commit its run has, or another --version."
            ) from error
    return model


def _check_names(model: RegisteredModel) -> None:
    """Refuse, before anything is copied, what is no flat folder of safetensors and JSON."""
    for file in model.files:
        if not file.endswith(MODEL_SUFFIXES) or "/" in file or "\\" in file:
            raise ModelRefusedError(
                f"{_in_words(model)} holds {file!r}: only {' and '.join(MODEL_SUFFIXES)} files are "
                "fetched, as others may run code when they are opened. Somebody else put it there: "
                "do not open it, and ask who keeps the server."
            )
    if MODEL_JSON not in model.files:
        raise ModelRefusedError(
            f"{_in_words(model)} has no {MODEL_JSON} among its files ({model.files}): they were "
            "removed from the server. Give another --version."
        )


def _check_hashes(model: RegisteredModel, folder: Path) -> None:
    _check_hash(model, MODEL_JSON, model_hash(folder), model.tags[MODEL_TAG])
    try:
        hashes = dict(json.loads((folder / MODEL_JSON).read_text("utf-8"))["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelRefusedError(
            f"{MODEL_JSON} of {_in_words(model)} does not name its files ({error!r}): it was not "
            "written by this project. Give another --version."
        ) from error
    for file in sorted({*model.files, *hashes} - {MODEL_JSON}):
        path = folder / file
        found = file_sha256(path) if file in model.files else "missing"
        _check_hash(model, file, found, hashes.get(file, "not named in model.json"))


def _check_hash(model: RegisteredModel, file: str, found: str, registered: str) -> None:
    if found != registered:
        raise ModelRefusedError(
            f"{file} of {_in_words(model)} is not the file that was registered (hash {found[:12]}, "
            f"registered {registered[:24]}): it was changed or cut short. Try again; if it stays "
            "so, do not use it, and ask who keeps the server."
        )


def _in_words(model: RegisteredModel) -> str:
    return f"version {model.version} of {model.name!r}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Fetch a decoder that a study registered in MLflow, check it, and put it in a "
        "folder. Only safetensors and JSON are fetched, and every file must have the hash that "
        "was registered.",
        allow_abbrev=False,
    )
    parser.add_argument("name", help="of the registered model, as on MLflow's page under Models")
    parser.add_argument("--version", type=int, metavar="N", help="left out: the study's best now")
    parser.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="MLflow; left out: MLFLOW_TRACKING_URI, else SQLite inside the project",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="a folder that is not there yet"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
