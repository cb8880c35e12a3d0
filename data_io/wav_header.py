"""The header of a WAV file, compared with the samples that the file holds.

libsndfile reads a file that was cut in half, or whose data size was never filled in, and says
nothing. So this module walks the chunks first; only PCM and float files go on to libsndfile.
Source: Multimedia Programming Interface 1.0 (RIFF), EBU Tech 3306 (RF64).
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path

PCM, IEEE_FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
# Recorders that stream write this size first; many never correct it.
UNKNOWN_SIZE = 0xFFFFFFFF
LOWEST_RATE_HZ = 1000  # a lower rate is a broken header: resampled, the file would fill the memory


class BadWavError(ValueError):
    """The file is not a WAV file that can be trusted; the message says why."""


@dataclass(frozen=True)
class WavHeader:
    """Facts from the chunks of a WAV file.

    Attributes:
        format_tag: 1 PCM, 3 float.
        n_channels: channels.
        sample_rate_hz: samples per second and channel.
        frame_bytes: bytes of one sample of all channels.
        data_bytes_promised: size of the data chunk according to its header.
        data_bytes_found: bytes from the start of the data chunk to the end of it or of the file.
    """

    format_tag: int
    n_channels: int
    sample_rate_hz: int
    frame_bytes: int
    data_bytes_promised: int
    data_bytes_found: int

    @property
    def missing_samples(self) -> int:
        """Samples per channel that the header promises and the file does not hold."""
        if self.data_bytes_promised == UNKNOWN_SIZE:
            return 0
        promised = self.data_bytes_promised // self.frame_bytes
        return max(promised - self.data_bytes_found // self.frame_bytes, 0)


def read_wav_header(path: Path) -> WavHeader:
    """Walk the chunks of ``path``.

    Raises:
        BadWavError: not a WAV file, a coding other than PCM or float, an impossible sample rate,
            no data.
        OSError: the file cannot be read.
    """
    # By bytes, so that names that are not valid UTF-8 open as well.
    with Path(os.fsdecode(os.fsencode(path))).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise BadWavError("the file is empty (0 bytes)")
        start = file.read(12)
        if len(start) < 12 or start[:4] not in (b"RIFF", b"RF64") or start[8:12] != b"WAVE":
            raise BadWavError(f"not a WAV file: it starts with {start!r}, not RIFF....WAVE")
        fmt: bytes | None = None
        long_size: int | None = None  # RF64 keeps the true data size in its ds64 chunk
        while len(head := file.read(8)) == 8:
            name, chunk_bytes = struct.unpack("<4sI", head)
            if name == b"data":
                promised = long_size if long_size and chunk_bytes == UNKNOWN_SIZE else chunk_bytes
                return _header(fmt, promised, size - file.tell())
            body_at = file.tell()
            if name == b"fmt ":
                if fmt is not None:  # libsndfile may go by the other one
                    raise BadWavError("the header holds two formats")
                fmt = file.read(min(chunk_bytes, 40))
            elif name == b"ds64":
                body = file.read(16)
                long_size = struct.unpack("<8xQ", body)[0] if len(body) == 16 else None
            file.seek(body_at + chunk_bytes + chunk_bytes % 2)  # chunks start at even places
    raise BadWavError("the header holds no data chunk: the file ends before its samples")


def _header(fmt: bytes | None, promised: int, left: int) -> WavHeader:
    if fmt is None or len(fmt) < 16:
        raise BadWavError("the header holds no format before the data")
    tag, n_channels, rate, _, frame_bytes, _ = struct.unpack("<HHIIHH", fmt[:16])
    if tag == EXTENSIBLE and len(fmt) >= 26:
        tag = struct.unpack("<H", fmt[24:26])[0]
    if tag not in (PCM, IEEE_FLOAT):
        raise BadWavError(
            f"the samples are coded in format {tag}; only PCM (1) and float (3) are read: "
            "convert the file"
        )
    if rate < LOWEST_RATE_HZ or n_channels == 0 or frame_bytes == 0:
        raise BadWavError(
            f"the header says {rate} Hz, {n_channels} channels, {frame_bytes} bytes a sample: "
            f"none of them can be 0, nor the rate less than {LOWEST_RATE_HZ} Hz"
        )
    if promised == 0:
        raise BadWavError(f"the header says 0 bytes of data; {left} bytes follow it")
    found = left if promised == UNKNOWN_SIZE else min(promised, left)
    return WavHeader(tag, n_channels, rate, frame_bytes, promised, found)
