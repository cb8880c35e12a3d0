"""What the header of a sound file says, compared with the bytes that the file holds.

Programs that read sound take a file that was cut in half, or whose length was never filled in, and
say nothing. So the header is walked here. WAV, RF64, BW64, W64 and AIFF hold their samples as plain
numbers: the header says where they lie, and no other program's reading of it is asked.

Sources: those of data_io/chunks.py, RFC 9639 (FLAC), mmreg.h (numbers of codings).
"""

import math
import struct
from dataclasses import dataclass, replace
from typing import BinaryIO

from data_io.sound.chunks import (
    AIFF,
    LIMITS_32,
    LIMITS_64,
    RIFF,
    W64,
    BadSoundError,
    Container,
    could_not_be_known,
)
from data_io.sound.header_times import time_of_chunks

LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 1000, 1_000_000  # beyond them the header is broken
MOST_CHANNELS = 1024
EXTRA_S = 0.1  # more sound than this behind the data is worth a remark

PCM, IEEE_FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
# Behind the coding's number in the subformat of EXTENSIBLE: Microsoft's, and that of Ambisonics.
GUID_TAILS = (
    bytes.fromhex("000000001000800000aa00389b71"),
    bytes.fromhex("00002107d3118644c8c1ca000000"),
)
CODINGS = {
    2: "Microsoft ADPCM", 6: "A-law", 7: "mu-law", 17: "IMA ADPCM", 49: "GSM 6.10", 64: "G.721",
    80: "MPEG", 85: "MP3", 255: "AAC", 0xF1AC: "FLAC",
}  # fmt: skip
W64_RIFF = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000")
W64_WAVE = b"wave" + bytes.fromhex("f3acd3118cd100c04f8edb8a")
# Codings of AIFC that are plain numbers; where COMM gives the width, it is left out here.
AIFC_TYPES = {
    b"NONE": ">i", b"twos": ">i", b"sowt": "<i", b"in24": ">i3", b"42n1": "<i3", b"in32": ">i4",
    b"23ni": "<i4", b"fl32": ">f4", b"FL32": ">f4", b"fl64": ">f8", b"FL64": ">f8",
}  # fmt: skip
# What people's files turn out to be instead.
CONTENTS = {
    b"OggS": "an Ogg file", b"ID3": "an MP3 file", b"\xff\xfb": "an MP3 file",
    b"caff": "a CAF file", b".snd": "an AU file", b"RIFX": "a big-endian WAV file",
    b"0&\xb2u": "a WMA file", b"<": "a page of the web", b"PK\x03\x04": "a ZIP file",
    b"version https://git-lfs": "a pointer of Git LFS (run git lfs pull)",
    b"/annex/objects": "a pointer of git-annex (run git annex get)",
}  # fmt: skip


@dataclass(frozen=True)
class SoundFacts:
    """What a sound file holds.

    Attributes:
        container: WAV, RF64, BW64, W64, AIFF, AIFC, FLAC or cbin.
        coding: PCM or float.
        bits: of a sample, according to the header.
        sample_rate_hz: samples per second and channel.
        n_channels: channels.
        n_samples: samples per channel that can be read.
        missing_samples: samples per channel that the header promises and the file does not hold.
        recorded_at: date and time of day in the header, as `time_of_chunks` gives it.
        remarks: what else a person should know of the header; each is a reason to flag the file.
    """

    container: str
    coding: str
    bits: int
    sample_rate_hz: int
    n_channels: int
    n_samples: int
    missing_samples: int = 0
    recorded_at: str | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class SoundHeader:
    """Facts, and where the samples lie.

    Attributes:
        facts: what the file holds.
        data_at: place of the first sample, in bytes.
        sample_type: ``<`` or ``>``, ``i``, ``u`` or ``f``, bytes of a sample; empty for FLAC, whose
            samples are coded.
    """

    facts: SoundFacts
    data_at: int
    sample_type: str


@dataclass(frozen=True)
class _Format:
    """Coding of the samples, checked."""

    container: str
    coding: str
    bits: int
    rate: int
    n_channels: int
    sample_type: str

    @property
    def frame_bytes(self) -> int:
        return self.n_channels * int(self.sample_type[2:])


def read_header(file: BinaryIO, size: int) -> SoundHeader:
    """Walk the header of an open file of ``size`` bytes; its content says what it is.

    Raises:
        BadSoundError: not a sound file that is read here, a coding other than PCM, float or FLAC,
            a header that contradicts itself, no samples.
        OSError: the file cannot be read.
    """
    if size == 0:
        raise BadSoundError("the file is empty (0 bytes)")
    start = file.read(42)
    kind = start[8:12]
    if start[:4] == b"RIFF" and kind == b"WAVE":
        is_open = could_not_be_known(struct.unpack("<I", start[4:8])[0])
        return _wave(Container(file, size, RIFF, is_open), "WAV", 12)
    if start[:4] in (b"RF64", b"BW64") and kind == b"WAVE":
        return _wave(Container(file, size, RIFF, False), start[:4].decode(), 12)
    if start[:16] == W64_RIFF and start[24:40] == W64_WAVE:
        is_open = could_not_be_known(struct.unpack("<Q", start[16:24])[0], LIMITS_64)
        return _wave(Container(file, size, W64, is_open), "W64", 40)
    if start[:4] == b"FORM" and kind in (b"AIFF", b"AIFC"):
        is_open = could_not_be_known(struct.unpack(">I", start[4:8])[0])
        return _aiff(Container(file, size, AIFF, is_open), kind.decode())
    if start[:4] == b"fLaC":
        return _flac(start)
    raise BadSoundError(_what_it_is(start[:24]))


def _what_it_is(start: bytes) -> str:
    if not any(start):
        return "not a sound file: it starts with NUL bytes, so it was never written or copied"
    found = [words for magic, words in CONTENTS.items() if start.startswith(magic)]
    if start[4:8] == b"ftyp":
        found = ["an MP4 or M4A file"]
    if found:
        return f"not a WAV, W64, AIFF or FLAC file but {found[0]}: it starts with {start[:12]!r}"
    return f"not a WAV, W64, AIFF or FLAC file: it starts with {start[:12]!r}"


def _wave(walk: Container, container: str, at: int) -> SoundHeader:
    """Header of a WAV file or of its larger kin."""
    fmt: bytes | None = None
    long_size = 2**64 - 1  # RF64 keeps the data's size in ds64; without that it is not known
    for name, body_at, n_bytes in walk.chunks(at):
        if name == b"data":
            break
        if name == b"fmt ":
            if fmt is not None:  # other programs may go by the other one
                raise BadSoundError("the header holds two formats")
            fmt = walk.read(body_at, min(n_bytes, 40))
        elif name == b"ds64" and len(body := walk.read(body_at, 16)) == 16:
            (long_size,) = struct.unpack("<8xQ", body)
    else:
        raise BadSoundError("the header holds no data chunk: the file ends before its samples")
    if fmt is None or len(fmt) < 16:
        raise BadSoundError("the header holds no format before the data")
    found = _wave_format(fmt, container)
    limits = walk.style.limits
    if container in ("RF64", "BW64") and n_bytes == 2**32 - 1:
        n_bytes, limits = long_size, LIMITS_64
    is_known = walk.is_known(body_at, n_bytes, limits)
    return _with_facts(walk, found, body_at, n_bytes if is_known else None)


def _wave_format(fmt: bytes, container: str) -> _Format:
    tag, n_channels, rate, _, frame_bytes, bits = struct.unpack("<HHIIHH", fmt[:16])
    valid_bits = bits
    if tag == EXTENSIBLE and fmt[26:40] in GUID_TAILS:
        valid_bits, _, tag = struct.unpack("<HIH", fmt[18:26])
    if tag not in (PCM, IEEE_FLOAT):
        name = f" ({CODINGS[tag]})" if tag in CODINGS else ""
        raise BadSoundError(
            f"the samples are coded in format {tag}{name}; only PCM (1) and float (3) are read: "
            "convert the file to WAV with PCM"
        )
    check_numbers(rate, n_channels, bits, frame_bytes)
    coding, kind = ("PCM", "i") if tag == PCM else ("float", "f")
    if bits <= 8 and tag == PCM:
        kind = "u"  # of all WAV files, those of 8 bits alone have no sign
    if frame_bytes != n_channels * ((bits + 7) // 8):
        raise BadSoundError(
            f"the header contradicts itself: {n_channels} channels of {bits} bits are "
            f"{n_channels * ((bits + 7) // 8)} bytes, it says {frame_bytes}"
        )
    _check_width(coding, bits)
    if not 0 < valid_bits <= bits:
        valid_bits = bits
    sample_type = f"<{kind}{(bits + 7) // 8}"
    return _Format(container, coding, valid_bits, rate, n_channels, sample_type)


def check_numbers(rate: int, n_channels: int, bits: int, frame_bytes: int) -> None:
    """Refuse numbers of a header that no recording has, by BadSoundError."""
    is_rate = LOWEST_RATE_HZ <= rate <= HIGHEST_RATE_HZ
    if not is_rate or not 0 < n_channels <= MOST_CHANNELS or bits == 0 or frame_bytes == 0:
        raise BadSoundError(
            f"the header says {rate} Hz, {n_channels} channels, {bits} bits, {frame_bytes} bytes a "
            f"sample: none of them can be 0, rates from {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} Hz "
            f"and up to {MOST_CHANNELS} channels are read"
        )


def _check_width(coding: str, bits: int) -> None:
    if (coding == "PCM" and bits > 32) or (coding == "float" and bits not in (32, 64)):
        raise BadSoundError(
            f"{coding} of {bits} bits; PCM of up to 32 bits and float of 32 or 64 are read"
        )


def _aiff(walk: Container, container: str) -> SoundHeader:
    """Header of an AIFF file; COMM may lie behind the samples."""
    comm: bytes | None = None
    data: tuple[int, int] | None = None
    for name, body_at, n_bytes in walk.chunks(12):
        if name == b"COMM":
            if comm is not None:
                raise BadSoundError("the header holds two formats")
            comm = walk.read(body_at, min(n_bytes, 22))
        elif name == b"SSND" and data is None:
            offset = walk.read(body_at, 4)
            skipped = 8 + (struct.unpack(">I", offset)[0] if len(offset) == 4 else 0)
            data = body_at + skipped, max(n_bytes - skipped, 0)
            if comm is not None:
                break
    if comm is None or len(comm) < 18:
        raise BadSoundError("the header holds no COMM chunk, which says how samples are coded")
    if data is None:
        raise BadSoundError("the header holds no SSND chunk: the file ends before its samples")
    found = _aiff_format(comm, container)
    (n_frames,) = struct.unpack(">I", comm[2:6])
    return _aiff_with_facts(walk, found, *data, n_frames)


def _aiff_with_facts(
    walk: Container, found: _Format, data_at: int, in_chunk: int, n_frames: int
) -> SoundHeader:
    """Compare the two lengths of an AIFF file, of SSND and of COMM, with the file's."""
    in_comm = n_frames * found.frame_bytes
    is_counted = n_frames > 0 and walk.is_known(data_at, in_comm, LIMITS_32, n_frames)
    if in_chunk > 0 and walk.is_known(data_at, in_chunk, LIMITS_32):
        header = _with_facts(walk, found, data_at, in_chunk)
    elif is_counted:
        header = _with_facts(walk, found, data_at, in_comm)
    else:
        header = _with_facts(walk, found, data_at, in_chunk and None)
    facts = header.facts
    if is_counted and n_frames > facts.n_samples:
        facts = replace(facts, missing_samples=n_frames - facts.n_samples)
    elif is_counted and in_comm + 1 == in_chunk:  # with the padding, which is no sample
        facts = replace(facts, n_samples=n_frames)
    elif is_counted and in_comm < in_chunk <= walk.size - data_at:
        remark = f"COMM says {n_frames} samples; {facts.n_samples} are there and are used"
        facts = replace(facts, remarks=(remark, *facts.remarks))
    return replace(header, facts=facts)


def _aiff_format(comm: bytes, container: str) -> _Format:
    n_channels, _, bits, exponent, mantissa = struct.unpack(">HIHHQ", comm[:18])
    # Extended precision: 15 bits of exponent, 64 of mantissa. A negative rate is a broken one.
    rate = round(math.ldexp(mantissa, exponent - 16383 - 63)) if exponent < 16383 + 32 else 0
    coding = comm[18:22] if container == "AIFC" else b"NONE"
    if coding not in AIFC_TYPES:
        raise BadSoundError(
            f"the samples are coded as {coding.decode('latin-1')!r}; of AIFC files, those with "
            f"{', '.join(sorted(name.decode() for name in AIFC_TYPES))} are read: convert the file "
            "to WAV with PCM"
        )
    sample_type = AIFC_TYPES[coding]
    if len(sample_type) == 3:  # of these, some writers give the bits of another width
        bits = 8 * int(sample_type[2])
    else:
        sample_type += str((bits + 7) // 8)
    check_numbers(rate, n_channels, bits, n_channels * int(sample_type[2:]))
    words = "float" if sample_type[1] == "f" else "PCM"
    _check_width(words, bits)
    return _Format(container, words, bits, rate, n_channels, sample_type)


def _with_facts(walk: Container, found: _Format, data_at: int, promised: int | None) -> SoundHeader:
    """Compare the bytes that the header promises, None if unknown, with those of the file."""
    left = max(walk.size - data_at, 0)
    frame = found.frame_bytes
    held, missing, remarks = left, 0, []
    if promised:
        held = min(promised, left)
        missing = promised // frame - held // frame
        if promised <= left:
            remarks = _behind_the_data(walk, walk.after(data_at, promised), found)
    elif promised == 0 and walk.are_chunks(data_at):
        held = 0
    elif promised == 0:
        remarks = [
            "the header says 0 bytes of data, so its recorder did not close the file; "
            f"{left // frame} samples follow it and are used"
        ]
    if held < frame:
        raise BadSoundError(
            f"the file holds no samples; its header promises {(promised or 0) // frame}"
        )
    facts = SoundFacts(
        found.container, found.coding, found.bits, found.rate, found.n_channels, held // frame,
        missing, time_of_chunks(walk.texts), tuple(remarks),
    )  # fmt: skip
    return SoundHeader(facts, data_at, found.sample_type)


def _behind_the_data(walk: Container, at: int, found: _Format) -> list[str]:
    """Remarks on sound behind the data that the header leaves out."""
    remarks = []
    for name, body_at, n_bytes in walk.chunks(at):
        if name in (b"data", b"SSND"):
            remarks.append(f"a second data chunk of {n_bytes} bytes is not read")
        at = walk.after(body_at, n_bytes)
    extra = (walk.size - at) // found.frame_bytes
    # Zeros fill the last block of some memory cards.
    if extra > EXTRA_S * found.rate and any(walk.read(at, 512)):
        remarks.append(
            f"{extra} more samples may lie behind the end that the header gives; they are not read"
        )
    return remarks


def _flac(start: bytes) -> SoundHeader:
    """Header of a FLAC file: STREAMINFO, which is its first block. The length may be 0: unknown."""
    if len(start) < 42 or start[4] & 0x7F != 0 or start[5:8] != b"\0\0\x22":
        raise BadSoundError("the FLAC file has no STREAMINFO block: it ends with its header")
    packed = int.from_bytes(start[18:26], "big")  # 20, 3, 5 and 36 bits
    rate, n_channels = packed >> 44, (packed >> 41 & 7) + 1
    bits, n_samples = (packed >> 36 & 31) + 1, packed & (2**36 - 1)
    check_numbers(rate, n_channels, bits, n_channels * ((bits + 7) // 8))
    return SoundHeader(SoundFacts("FLAC", "PCM", bits, rate, n_channels, n_samples), 0, "")
