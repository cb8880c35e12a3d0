"""Networks on disk: tensors as safetensors, all else as JSON; reading a file never runs code.

A folder is whole when its JSON is there: it is written last and holds the hashes of the rest.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.mdgan.model import Mdgan
from models.mdgan.networks import Encoder, Generator
from models.mdgan.shape import NetworkShape
from models.mdgan.tensor_files import (
    check_equal,
    check_hash,
    check_names,
    check_tensors,
    read_required_json,
    read_tensors,
    write_json,
    write_tensors,
)

FORMAT_VERSION = 3  # of decoders; 1 had no dense path, 2 no seal
TRAINING_FORMAT_VERSION = 2  # 1 had no seal
_TRAINING_ENTRIES = (
    "format_version", "sha256", "facts", "params", "shape", "values", "tensors"
)  # fmt: skip

_ANEW = "Begin the training anew, or go on with the version and settings that wrote it."
_RETRAIN = "Train the model again, or use the version that wrote it."


def save_training(
    model: Mdgan, folder: Path, facts: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Write a training to ``folder``, so that it can go on from there.

    training.safetensors holds every tensor of ``model.state_dict()`` under a flat name, such as
    nets/encoder/dense.project.weight or rng. training.json holds the other values, the networks'
    shape, the parameters and the hash of the tensors.

    Args:
        model: as it stands.
        folder: exists; a training in it is written over.
        facts: for training.json: all else that the training depends on, e.g. seed and data_sha256.

    Returns:
        The hash of training.safetensors by its name: a large file need not be read again for it.
    """
    leaves = _flatten(model.state_dict())
    tensors = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, Tensor)}
    path = folder / "training.safetensors"
    sha256 = write_tensors(path, tensors)
    content = {
        "format_version": TRAINING_FORMAT_VERSION,
        "sha256": sha256,
        "facts": dict(facts or {}),
        "params": asdict(model.params),
        "shape": asdict(model.shape),
        "values": {name: leaf for name, leaf in leaves.items() if name not in tensors},
        "tensors": sorted(tensors),
    }
    write_json(folder / "training.json", content)
    return {path.name: sha256}


def load_training(model: Mdgan, folder: Path, data_sha256: str | None = None) -> None:
    """Load a training that `save_training` wrote; after an error ``model`` is unchanged.

    Args:
        model: of the same parameters and shape; its seed does not matter.
        folder: of the training.
        data_sha256: hash of the data to go on with; the facts must have the same. None accepts any.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: format, parameters, shape, data or a tensor differs, or a file was changed or
            cut short.
    """
    json_path, path = folder / "training.json", folder / "training.safetensors"
    content = read_required_json(json_path, TRAINING_FORMAT_VERSION)
    check_names(json_path, "entry", content, _TRAINING_ENTRIES, _ANEW)
    for part, ours in (("params", asdict(model.params)), ("shape", asdict(model.shape))):
        check_equal(json_path, part, content[part], ours, _ANEW)
    saved_sha256 = content["facts"].get("data_sha256")
    if data_sha256 is not None and saved_sha256 != data_sha256:
        raise ValueError(
            f"{json_path} has the data_sha256 {saved_sha256}, the data given {data_sha256}: "
            "recordings, their split or how they were read are others. Give the data that the "
            "training began with, or begin it anew."
        )
    check_hash(path, content["sha256"], json_path.name)
    # Copies, because tensors of a safetensors file are views of it, and it may be deleted.
    tensors = {name: tensor.clone() for name, tensor in read_tensors(path).items()}
    expected = _flatten(_expected_state(model, content["tensors"]))
    expected_tensors = {name: leaf for name, leaf in expected.items() if isinstance(leaf, Tensor)}
    check_tensors(path, tensors, expected_tensors, _ANEW)
    expected_values = expected.keys() - expected_tensors.keys()
    check_names(json_path, "value", content["values"], expected_values, _ANEW)
    model.load_state_dict(_nest({**tensors, **content["values"]}))


def _expected_state(model: Mdgan, saved: Collection[str]) -> dict[str, Any]:
    """The state of ``model`` with Adam's moments for each parameter that ``saved`` has them for.

    A new model has no moments, and a parameter that no phase moves never gets any.
    """
    state = model.state_dict()
    for name, optimizer in model.optimizers.items():
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        state["optimizers"][name]["state"] = {
            i: {"step": torch.zeros(()), "exp_avg": p, "exp_avg_sq": p}
            for i, p in enumerate(parameters)
            if f"optimizers/{name}/state/{i}/step" in saved
        }
    return state


def save_decoder(model: Mdgan, folder: Path, facts: dict[str, Any]) -> dict[str, str]:
    """Write the `decoder_nets` of a training by `save_decoder_nets`."""
    return save_decoder_nets(*decoder_nets(model), model.shape, folder, facts)


def decoder_nets(model: Mdgan) -> tuple[Encoder, Generator]:
    """The encoder and generator to keep after a training; averaged if weights are."""
    encoder, generator = model.kept("encoder"), model.kept("generator")
    assert isinstance(encoder, Encoder) and isinstance(generator, Generator)
    return encoder, generator


def save_decoder_nets(
    encoder: Encoder, generator: Generator, shape: NetworkShape, folder: Path, facts: dict[str, Any]
) -> dict[str, str]:
    """Write encoder.safetensors, generator.safetensors and model.json to ``folder``.

    model.json holds the format version, the networks' shape, the hash of both files and ``facts``.

    Returns:
        The hashes by the names of the files.
    """
    hashes = {}
    for name, net in (("encoder", encoder), ("generator", generator)):
        path = folder / f"{name}.safetensors"
        hashes[path.name] = write_tensors(path, net.state_dict())
    content = {"format_version": FORMAT_VERSION, "shape": asdict(shape), "sha256": hashes, **facts}
    write_json(folder / "model.json", content)
    return hashes


def save_decoder_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Add ``facts`` to the model.json of a decoder."""
    path = folder / "model.json"
    write_json(path, {**read_required_json(path, FORMAT_VERSION), **facts})


def load_decoder(folder: Path) -> tuple[Encoder, Generator, dict[str, Any]]:
    """Read what `save_decoder` wrote: both networks in evaluation mode, and model.json.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the format differs, a file was changed, or its tensors do not have the shape in
            model.json.
    """
    json_path = folder / "model.json"
    content = read_required_json(json_path, FORMAT_VERSION)
    shape_fields = {field.name for field in fields(NetworkShape)}
    check_names(json_path, "value of shape,", content["shape"], shape_fields, _RETRAIN)
    shape = NetworkShape(**content["shape"])
    encoder, generator = Encoder(shape), Generator(shape)
    nets: dict[str, nn.Module] = {"encoder": encoder, "generator": generator}
    for name, net in nets.items():
        path = folder / f"{name}.safetensors"
        check_hash(path, content["sha256"][path.name], json_path.name)
        tensors = read_tensors(path)
        check_tensors(path, tensors, net.state_dict(), _RETRAIN)
        net.load_state_dict(tensors)
        # In evaluation mode a latent does not depend on the rest of the batch.
        net.eval().requires_grad_(False)
    return encoder, generator, content


def _flatten(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of nested dicts by flat name; an empty dict is a leaf."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if "/" in str(key) or _key(str(key)) != key:
            raise ValueError(
                f"{name!r}: a key of a state, {key!r}, would come back as another one. Use text "
                "without a slash that is not a number, or an index from 0."
            )
        if isinstance(value, Mapping) and value:
            leaves |= _flatten(value, f"{name}/")
        else:
            leaves[name] = value
    return leaves


def _nest(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dicts that `_flatten` was given."""
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *parents, key = map(_key, name.split("/"))
        branch: dict[Any, Any] = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[key] = leaf
    return tree


def _key(part: str) -> str | int:
    """A key as optimizers have it: they know their parameters by index."""
    return int(part) if part.isdecimal() else part
