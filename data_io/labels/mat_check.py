"""Whether a MATLAB file is whole, looked at before scipy opens it.

scipy 1.17 takes the numbers of data types in a file as they are: an altered byte can end the
process. Layout: MathWorks, MAT-File Format (level 5).
"""

import math
import struct
import zlib

_HEADER_BYTES = 128
_MATRIX, _COMPRESSED = 14, 15
_BYTES_OF = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}  # types of numbers
_UTF_8 = 16
_BYTES_OF_LETTER = {1: 1, 2: 1, 4: 2, _UTF_8: 1, 17: 2, 18: 4}
_CELL, _STRUCT, _CHAR, _NUMERIC = 1, 2, 4, range(6, 16)  # classes of variables
_MAX_BYTES = 100_000_000  # of one variable, decompressed
_DEEPEST = 20


class BadMatError(ValueError):
    """The bytes are not those of a whole MATLAB file; the message says why."""


def check_mat(content: bytes) -> None:
    """Check the structure of a MATLAB file of version 5 to 7.

    Raises:
        BadMatError: it is cut short, altered, of another version or of no MATLAB file.
    """
    version = content[124:_HEADER_BYTES]
    if version in (b"\x00\x02IM", b"\x02\x00MI"):
        raise BadMatError("it is a MATLAB 7.3 file: write it again by save(..., '-v7')")
    if version not in (b"\x00\x01IM", b"\x01\x00MI"):
        raise BadMatError(f"it is no MATLAB file of version 5 to 7 ({len(content)} bytes)")
    order = "<" if version.endswith(b"IM") else ">"
    at = _HEADER_BYTES
    while at < len(content):
        kind, data, at = _element(content, at, order)
        if kind == _COMPRESSED:
            kind, data, _ = _element(_decompressed(data), 0, order)
        if kind != _MATRIX:
            raise BadMatError(f"it is altered: type {kind} where a variable should be")
        _check_variable(data, order, 0)


def _decompressed(data: bytes) -> bytes:
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, _MAX_BYTES)
    except zlib.error as error:
        raise BadMatError(f"it is altered: {error}") from error
    if not stream.eof:
        raise BadMatError(f"it is cut short, or has a variable of over {_MAX_BYTES:,} bytes")
    return content


def _element(content: bytes, at: int, order: str) -> tuple[int, bytes, int]:
    """Type and bytes of the element at ``at``, and where the next one within a variable begins."""
    tag = content[at : at + 8]
    if len(tag) < 8:
        raise BadMatError("it is cut short")
    kind, n_bytes = struct.unpack(f"{order}II", tag)
    if kind >> 16:  # a small element: type, size and up to four bytes in the place of a tag
        n_bytes, kind = kind >> 16, kind & 0xFFFF
        if n_bytes > 4:
            raise BadMatError(f"it is altered: a small element of {n_bytes} bytes")
        return kind, tag[4 : 4 + n_bytes], at + 8
    data = content[at + 8 : at + 8 + n_bytes]
    if len(data) < n_bytes:
        raise BadMatError(f"it is cut short: {len(data)} bytes where {n_bytes} should be")
    is_padded = kind not in (_MATRIX, _COMPRESSED)
    return kind, data, at + 8 + (-(-n_bytes // 8) * 8 if is_padded else n_bytes)


def _check_variable(data: bytes, order: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise BadMatError(f"variables lie in each other more than {_DEEPEST} deep")
    if not data:  # an empty cell
        return
    flags, at = _expected(data, 0, order, 6)
    dims, at = _expected(data, at, order, 5)
    _, at = _expected(data, at, order, 1)  # its name
    if len(flags) != 8 or len(dims) < 8 or len(dims) % 4:
        raise BadMatError("it is altered: a variable without a class or a size")
    (flag,) = struct.unpack(f"{order}I", flags[:4])
    size = struct.unpack(f"{order}{len(dims) // 4}i", dims)
    if min(size) < 0:
        raise BadMatError(f"it is altered: a variable of size {size}")
    n, kind_of_variable = math.prod(size), flag & 0xFF
    if kind_of_variable in _NUMERIC or kind_of_variable == _CHAR:
        for _ in range(2 if flag & 0x800 else 1):  # real and imaginary part
            at = _check_values(data, at, order, n, kind_of_variable == _CHAR)
    elif kind_of_variable in (_CELL, _STRUCT):
        n_fields = 1
        if kind_of_variable == _STRUCT:
            length, at = _expected(data, at, order, 5)
            names, at = _expected(data, at, order, 1)
            n_letters = struct.unpack(f"{order}i", length)[0] if len(length) == 4 else 0
            if n_letters < 1 or len(names) % n_letters:
                raise BadMatError("it is altered: names of fields of no length")
            n_fields = len(names) // n_letters
        for _ in range(n * n_fields):
            inner, at = _expected(data, at, order, _MATRIX)
            _check_variable(inner, order, depth + 1)
    else:
        raise BadMatError(f"it has a variable of class {kind_of_variable}, which is not read here")


def _expected(data: bytes, at: int, order: str, kind: int) -> tuple[bytes, int]:
    found, content, at = _element(data, at, order)
    if found != kind:
        raise BadMatError(f"it is altered: type {found} where {kind} should be")
    return content, at


def _check_values(data: bytes, at: int, order: str, n: int, is_text: bool) -> int:
    kind, values, at = _element(data, at, order)
    n_bytes = (_BYTES_OF_LETTER if is_text else _BYTES_OF).get(kind)
    if n_bytes is None:
        raise BadMatError(f"it is altered: values of type {kind}")
    most = 4 * n if kind == _UTF_8 else n * n_bytes
    if not n * n_bytes <= len(values) <= most:
        raise BadMatError(f"it is altered: {len(values)} bytes for {n} values of type {kind}")
    return at
