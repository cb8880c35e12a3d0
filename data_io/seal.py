"""A seal on Parquet files: a hash of all other bytes, so that one altered bit is refused.

The checksums of Parquet cover the pages alone: not the names of columns, counts of rows, offsets
or facts of the footer. The seal lies between the last page and the footer, where no reader looks
(they go by the offsets of the footer), so the file stays a plain Parquet file.
Source: Apache Parquet format 2.11, File format.
"""

import hashlib
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from data_io.files import BrokenSealError

_MAGIC, _SEAL = b"PAR1", b"BIRDSEAL"
_SEAL_BYTES = len(_SEAL) + hashlib.sha256().digest_size
_END_BYTES = 8  # size of the footer, and the magic
_BLOCK_BYTES = 1 << 20


def seal(path: Path) -> None:
    """Put the seal into a Parquet file that was written whole."""
    with path.open("r+b") as file:
        footer_at = _footer_at(file)
        file.seek(0)
        hashed = _hashed(file, footer_at)
        footer = file.read()
        hashed.update(footer)
        file.seek(footer_at)
        file.write(_SEAL + hashed.digest() + footer)


def check_seal(path: Path, at_block: Callable[[], None] = lambda: None) -> str:
    """Compare a file with its seal; give the hash in it.

    Args:
        path: of the file.
        at_block: called before each block of 1 MiB; what it raises ends the reading.

    Raises:
        BrokenSealError: a byte is missing or was altered, or the file has no seal.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        seal_at = _seal_at(file)
        hashed = _hashed(file, seal_at, at_block)
        found = _read_seal(file)
        hashed.update(file.read())
    if found != hashed.digest():
        raise BrokenSealError("its bytes do not agree with its seal: it was altered")
    return found.hex()


def read_seal(path: Path) -> str:
    """The hash in the seal of a file, which is not compared with its bytes.

    Raises:
        BrokenSealError: there is no seal where one should be.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        file.seek(_seal_at(file))
        return _read_seal(file).hex()


def _seal_at(file: BinaryIO) -> int:
    """Where the seal should be; ``file`` is at its beginning afterwards."""
    seal_at = _footer_at(file) - _SEAL_BYTES
    if seal_at < 0:
        raise BrokenSealError("it has no seal")
    file.seek(0)
    return seal_at


def _read_seal(file: BinaryIO) -> bytes:
    found = file.read(_SEAL_BYTES)
    if not found.startswith(_SEAL):
        raise BrokenSealError("it has no seal: the file was cut, altered or written elsewhere")
    return found.removeprefix(_SEAL)


def _footer_at(file: BinaryIO) -> int:
    size = file.seek(0, os.SEEK_END)
    if size < _END_BYTES:
        raise BrokenSealError(f"it holds {size} bytes: it was cut short")
    file.seek(-_END_BYTES, os.SEEK_END)
    footer_bytes, magic = struct.unpack("<I4s", file.read(_END_BYTES))
    footer_at = size - _END_BYTES - footer_bytes
    if magic != _MAGIC or footer_at < 0:
        raise BrokenSealError("it does not end as a Parquet file: it was cut short or altered")
    return int(footer_at)


def _hashed(
    file: BinaryIO, n_bytes: int, at_block: Callable[[], None] = lambda: None
) -> "hashlib._Hash":
    """Hash the next ``n_bytes`` of ``file``."""
    hashed = hashlib.sha256()
    while n_bytes > 0:
        at_block()
        block = file.read(min(n_bytes, _BLOCK_BYTES))
        if not block:
            raise BrokenSealError("it was cut short while it was read")
        hashed.update(block)
        n_bytes -= len(block)
    return hashed
