"""Networks on disk: safetensors for what is kept, weights-only torch files for going on."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from models.mdgan import Mdgan
from models.networks import Encoder, Generator, NetworkShape

FORMAT_VERSION = 1


def save_training(model: Mdgan, folder: Path) -> None:
    """Write all that is needed to go on with a training to ``folder``."""
    torch.save(model.state_dict(), folder / "training.pt")


def load_training(model: Mdgan, folder: Path) -> None:
    """Take over a training that `save_training` wrote. No code in the file is run."""
    state = torch.load(folder / "training.pt", map_location=model.device, weights_only=True)
    model.load_state_dict(state)


def save_decoder(model: Mdgan, folder: Path, facts: dict[str, Any]) -> None:
    """Write encoder.safetensors, generator.safetensors and model.json to ``folder``.

    model.json holds the format version, the networks' shape, the hash of both files and ``facts``.
    """
    hashes = {}
    for name in ("encoder", "generator"):
        path = folder / f"{name}.safetensors"
        weights = model.nets[name].state_dict()
        save_file({key: value.contiguous().cpu() for key, value in weights.items()}, path)
        hashes[path.name] = _sha256(path)
    content = {
        "format_version": FORMAT_VERSION,
        "shape": asdict(model.shape),
        "sha256": hashes,
        **facts,
    }
    (folder / "model.json").write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def save_decoder_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Add ``facts`` to the model.json of a decoder."""
    path = folder / "model.json"
    content = {**json.loads(path.read_text()), **facts}
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def load_decoder(folder: Path) -> tuple[Encoder, Generator, dict[str, Any]]:
    """Read what `save_decoder` wrote: both networks in evaluation mode, and model.json.

    Raises:
        ValueError: the format is another one, or a file is not the one that was written.
    """
    content = json.loads((folder / "model.json").read_text())
    if content["format_version"] != FORMAT_VERSION:
        raise ValueError(
            f"{folder / 'model.json'} has format {content['format_version']}, this version reads "
            f"{FORMAT_VERSION}: train the model again, or use the version that wrote it."
        )
    shape = NetworkShape(**content["shape"])
    encoder, generator = Encoder(shape), Generator(shape)
    for name, net in (("encoder", encoder), ("generator", generator)):
        path = folder / f"{name}.safetensors"
        found, expected = _sha256(path), content["sha256"][path.name]
        if found != expected:
            raise ValueError(
                f"{path} has the hash {found[:12]}, model.json says {expected[:12]}: the file was "
                "changed or cut short. Restore it, or delete the folder and run the study again."
            )
        net.load_state_dict(load_file(path))
        # In evaluation mode a latent does not depend on what else is in the batch.
        net.eval().requires_grad_(False)
    return encoder, generator, content


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
