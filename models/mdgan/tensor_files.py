"""Files of tensors and JSON that are written whole, and checked when they are read.

Every ``check_`` raises ValueError or, for a missing file, FileNotFoundError; the message names the
file.
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

SEAL = "seal"  # entry of sealed JSON: the hash of all others, as in data_io/files.py
# Of file systems on which a folder cannot be synced, since its entries are never held back.
_NO_SYNC_OF_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a safetensors file, and give its hash; ``path`` never holds a part of it.

    Raises:
        OSError: it cannot be written, as on a full disk.
    """
    content = {name: t.detach().contiguous().cpu() for name, t in tensors.items()}
    with _whole(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            save_file(content, temporary)
        except SafetensorError as error:
            # It has the number of the system's error in its words alone.
            found = re.search(r"\(os error (\d+)\)", str(error))
            if found is None:
                raise
            number = int(found[1])
            raise OSError(number, os.strerror(number), str(path)) from error
        temporary.chmod(mode)  # save_file would keep all others out
        return file_sha256(temporary)


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
    """Write indented JSON with a seal; ``path`` never holds a part of it.

    Raises:
        ValueError: a number is not finite.
    """
    plain = json.loads(json.dumps(content, allow_nan=False))  # keys are text, tuples are lists
    text = json.dumps({**plain, SEAL: _digest(plain)}, indent=2)
    with _whole(path) as temporary, _naming(path):
        temporary.write_text(text + "\n", "utf-8")


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Give a name to write to; put the content on the disk, then its name.

    After a power cut there is the old file or the new one.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the name of a file into the system's errors: opening it names it, reading does not."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    try:
        _sync(path)
    except OSError as error:
        if error.errno not in _NO_SYNC_OF_FOLDERS:
            raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with _naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_required_json(path: Path, version: int) -> dict[str, Any]:
    """Read what `write_json` wrote, without its seal.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: it was changed or cut short, or it is of another ``format_version``.
    """
    try:
        with _naming(path):
            content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} is missing: it is written last, so nothing whole was saved there. Give "
            "another folder, or train again."
        ) from None
    except ValueError as error:
        raise _changed(path, f"is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise _changed(path, "is not what was written")
    seal = content.pop(SEAL, None)
    # Formats of earlier versions had no seal.
    if (seal is None and content.get("format_version") == version) or (
        seal is not None and seal != _digest(content)
    ):
        raise _changed(path, "does not agree with its seal")
    if content.get("format_version") != version:
        raise ValueError(
            f"{path} has format {content.get('format_version')}, this version reads {version}: "
            "train the model again, or use the version that wrote it."
        )
    return content


def _changed(path: Path, why: str) -> ValueError:
    return ValueError(
        f"{path} {why}: the file was changed or cut short. Restore it, or delete the folder and "
        "train again."
    )


def _digest(content: Any) -> str:
    """Hash of plain content; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Hash of a file's content."""
    with _naming(path), path.open("rb") as file:
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
