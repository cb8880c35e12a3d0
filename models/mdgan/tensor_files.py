"""Files of tensors and JSON that are written whole, and checked when they are read.

Every ``check_`` raises ValueError or, for a missing file, FileNotFoundError; the message names the
file.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file; ``path`` never holds a part of it."""
    temporary = path.with_name(f".{path.name}.tmp")
    save_file({name: t.detach().contiguous().cpu() for name, t in tensors.items()}, temporary)
    temporary.replace(path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read what `write_tensors` wrote.

    Raises:
        ValueError: it is not a safetensors file.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is no safetensors file ({error}), though its hash is the one written down: "
            "somebody replaced both. Do not use this folder."
        ) from None
    return tensors


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write indented JSON; ``path`` never holds a part of it.

    Raises:
        ValueError: a number is not finite.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", "utf-8")
    temporary.replace(path)


def read_required_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: it is not JSON.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} is missing: it is written last, so nothing whole was saved there. Give "
            "another folder, or train again."
        ) from None
    except ValueError as error:
        raise ValueError(
            f"{path} is not JSON ({error}): the file was changed or cut short. Restore it, or "
            "delete the folder and train again."
        ) from None
    return content


def file_sha256(path: Path) -> str:
    """Hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_hash(path: Path, expected: str, named_in: str) -> None:
    """Refuse a file whose hash is not the one that ``named_in`` gives."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing, {named_in} names it: restore it, or delete the folder and train "
            "again."
        )
    found = file_sha256(path)
    if found != expected:
        raise ValueError(
            f"{path} has the hash {found[:12]}, {named_in} says {expected[:12]}: the file was "
            "changed or cut short. Restore it, or delete the folder and train again."
        )


def check_format(path: Path, content: Mapping[str, Any], version: int) -> None:
    """Refuse JSON of another ``format_version``."""
    found = content.get("format_version")
    if found != version:
        raise ValueError(
            f"{path} has format {found}, this version reads {version}: train the model again, or "
            "use the version that wrote it."
        )


def check_equal(
    path: Path, part: str, saved: Mapping[str, Any], ours: Mapping[str, Any], remedy: str
) -> None:
    """Refuse the first value that differs between a file's ``part`` and ours."""
    ours = json.loads(json.dumps(ours))  # tuples are lists in the file
    for name in {**ours, **saved}:
        in_file, in_model = (values.get(name, "not there") for values in (saved, ours))
        if in_file != in_model:
            raise ValueError(
                f"{path}: {name} in {part} is {in_file!r}, the model's is {in_model!r}: a training "
                f"goes on only as it began. {remedy}"
            )


def check_names(
    path: Path, kind: str, found: Collection[str], expected: Collection[str], remedy: str
) -> None:
    """Refuse a file that lacks names of a ``kind``, or has unknown ones."""
    for fault, names in (
        ("lacks the", set(expected) - set(found)),
        ("has an unknown", set(found) - set(expected)),
    ):
        if names:
            raise ValueError(
                f"{path} {fault} {kind} {min(names)}: it was written for other networks or by "
                f"another version. {remedy}"
            )


def check_tensors(
    path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor], remedy: str
) -> None:
    """Refuse tensors whose names, shapes or types differ from the expected ones."""
    check_names(path, "tensor", found, expected, remedy)
    for name, tensor in expected.items():
        in_file, in_net = (_kind(t) for t in (found[name], tensor))
        if in_file != in_net:
            raise ValueError(
                f"{path}: tensor {name} is {in_file}, the network's is {in_net}: it was written "
                f"for other networks or by another version. {remedy}"
            )


def _kind(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
