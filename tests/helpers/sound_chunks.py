"""Sound files built chunk by chunk, so that a test can make any of them lie."""

import struct
from fractions import Fraction

W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")
PCM_GUID = bytes.fromhex("000000001000800000aa00389b71")


def fmt(tag=1, n_channels=1, rate=16_000, bits=16, frame_bytes=None, extra=b""):
    """Body of a WAV file's format chunk."""
    if frame_bytes is None:
        frame_bytes = n_channels * ((bits + 7) // 8) % 2**16
    per_second = rate * frame_bytes % 2**32
    return struct.pack("<HHIIHH", tag, n_channels, rate, per_second, frame_bytes, bits) + extra


def extensible(tag=1, n_channels=1, rate=16_000, bits=16, valid_bits=None, guid=PCM_GUID):
    extra = struct.pack("<HHIH", 22, valid_bits or bits, 0, tag) + guid
    return fmt(0xFFFE, n_channels, rate, bits, extra=extra)


def chunk(name, body, size=None, pad=True):
    """RIFF chunk; ``size`` is what it says of itself."""
    size = len(body) if size is None else size
    return name + struct.pack("<I", size % 2**32) + body + b"\0" * (pad * len(body) % 2)


def wav(*chunks, magic=b"RIFF", size=None):
    body = b"WAVE" + b"".join(chunks)
    return magic + struct.pack("<I", len(body) if size is None else size % 2**32) + body


def rf64(fmt_body, data, data_bytes=None, magic=b"RF64", before=b""):
    data_bytes = len(data) if data_bytes is None else data_bytes
    ds64 = struct.pack("<QQQI", (data_bytes + 72) % 2**64, data_bytes, 0, 0)
    chunks = (chunk(b"ds64", ds64), before, chunk(b"fmt ", fmt_body), chunk(b"data", data, -1))
    return wav(*chunks, magic=magic, size=-1)


def w64_chunk(name, body, size=None):
    size = len(body) + 24 if size is None else size
    return name + W64_TAIL + struct.pack("<Q", size) + body + bytes(-len(body) % 8)


def w64(*chunks, size=None):
    body = b"wave" + W64_TAIL + b"".join(chunks)
    size = len(body) + 24 if size is None else size
    return W64_RIFF + struct.pack("<Q", size) + body


def aiff_chunk(name, body, size=None):
    size = len(body) if size is None else size
    return name + struct.pack(">I", size % 2**32) + body + b"\0" * (len(body) % 2)


def extended(rate):
    """A number of 80 bits, as AIFF writes its rate."""
    rate, exponent = Fraction(rate), 16383 + 63
    while rate and rate < 2**63:
        rate, exponent = rate * 2, exponent - 1
    while rate >= 2**64:
        rate, exponent = rate / 2, exponent + 1
    return struct.pack(">HQ", exponent, int(rate))


def comm(n_frames, n_channels=1, rate=16_000, bits=16, coding=b""):
    name = coding and coding + b"\x04test\0"
    return struct.pack(">HIH", n_channels, n_frames, bits) + extended(rate) + name


def ssnd(data, offset=0, size=None):
    body = struct.pack(">II", offset, 0) + bytes(offset) + data
    return aiff_chunk(b"SSND", body, size)


def aiff(*chunks, kind=b"AIFF", size=None):
    body = kind + b"".join(chunks)
    return b"FORM" + struct.pack(">I", len(body) if size is None else size % 2**32) + body


def bext(date, time, description=b"a zebra finch"):
    return description.ljust(320, b"\0") + date + time + bytes(264)


def info(**texts):
    """Body of a LIST chunk with texts by their names."""
    parts = [chunk(name.encode(), text.encode("latin-1") + b"\0") for name, text in texts.items()]
    return b"INFO" + b"".join(parts)
