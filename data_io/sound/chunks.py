"""The chunks of WAV, RF64, W64 and AIFF files, and lengths that are no promise.

A length is no promise where it could not be known when the header was written. Recorders that
stream write the largest number that fits, or a round one below it, or less the header, or 0, and
never come back. Such a file is read to its end, and nothing of it is missing. A length that the
file does not hold is a cut otherwise.

What cannot be told: a file cut short whose true length lies within 4 kB of such a number looks
like one of a recorder that streams. Recorders that begin a new file at exactly 2 or 4 GiB write
such files.

Sources: Multimedia Programming Interface 1.0 (RIFF), EBU Tech 3306 (RF64), ITU-R BS.2088 (BW64),
Sonic Foundry's Wave 64 (W64), Apple's AIFF-C draft of 26 August 1991.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

MOST_CHUNKS = 10_000  # a file of empty chunks would be walked for hours
TIME_CHUNKS = (b"bext", b"LIST", b"guan")  # they may say when the recording was made
KNOWN = (b"fmt ", b"data", b"fact", b"COMM", b"SSND", *TIME_CHUNKS)
TEXT_BYTES = 65_536  # read of such a chunk
MOST_TEXTS = 16  # read of a file

# 32 bits hold lengths below 2 GiB with a sign and below 4 GiB without. 0x7F000000 and 0x7FFFF000
# are SoX's, 0x80000000 is arecord's, 0xFFFFFFFF ffmpeg's.
LIMITS_32 = tuple(
    limit + top
    for limit in (0x7F000000, 0x7FFF0000, 0x7FFFF000, 0x80000000)
    for top in (0, 0x80000000)
)
LIMITS_64 = (2**63, 2**64)
NEAR_BYTES = 4096  # for the header's own bytes, and for rounding to whole samples


class BadSoundError(ValueError):
    """The file is no sound file that can be trusted; the message says why."""


class UnreadableSoundError(BadSoundError):
    """The system does not give the file for now; of its bytes that says nothing."""


@dataclass(frozen=True)
class Style:
    """How a container lays out its chunks.

    Attributes:
        head: name and size.
        own: bytes of the head that the size counts.
        pad: each chunk begins at a multiple of this.
        limits: lengths that could not be known.
    """

    head: struct.Struct
    own: int
    pad: int
    limits: tuple[int, ...]


RIFF = Style(struct.Struct("<4sI"), 0, 2, LIMITS_32)
AIFF = Style(struct.Struct(">4sI"), 0, 2, LIMITS_32)
W64 = Style(struct.Struct("<4s12xQ"), 24, 8, LIMITS_64)


def could_not_be_known(n_bytes: int, limits: tuple[int, ...] = LIMITS_32) -> bool:
    """True for a length that recorders write before they know it."""
    return any(abs(n_bytes - limit) <= NEAR_BYTES for limit in limits)


@dataclass
class Container:
    """An open file of chunks.

    Attributes:
        file: open for reading.
        size: bytes of the file.
        style: how its chunks are laid out.
        is_open: the size of the whole could not be known when the header was written.
        texts: chunks that may say when the recording was made, as far as they were met.
    """

    file: BinaryIO
    size: int
    style: Style
    is_open: bool
    texts: list[tuple[bytes, bytes]] = field(default_factory=list)

    def chunks(self, at: int) -> Iterator[tuple[bytes, int, int]]:
        """Name, place and size of each chunk from ``at`` on, up to the end or what is no chunk.

        Raises:
            BadSoundError: more chunks than a header can have.
        """
        for _ in range(MOST_CHUNKS):
            head = self.read(at, self.style.head.size)
            if len(head) < self.style.head.size or not _is_name(head[:4]):
                return
            name, n_bytes = self.style.head.unpack(head)
            body_at, n_bytes = at + len(head), max(n_bytes - self.style.own, 0)
            if name in TIME_CHUNKS and len(self.texts) < MOST_TEXTS:
                self.texts.append((name, self.read(body_at, min(n_bytes, TEXT_BYTES))))
            yield name, body_at, n_bytes
            at = self.after(body_at, n_bytes)
        raise BadSoundError(f"the header has more than {MOST_CHUNKS:,} chunks: it is broken")

    def after(self, body_at: int, n_bytes: int) -> int:
        """Where the next chunk begins. Some writers leave the padding out."""
        end = body_at + n_bytes
        if n_bytes % self.style.pad and self.read(end, 4) in KNOWN:
            return end
        return end + -n_bytes % self.style.pad

    def read(self, at: int, n_bytes: int) -> bytes:
        """Bytes at a place; fewer at the end of the file."""
        if at >= self.size:
            return b""
        self.file.seek(at)
        return self.file.read(min(n_bytes, self.size - at))

    def is_known(
        self, data_at: int, n_bytes: int, limits: tuple[int, ...], n_counted: int | None = None
    ) -> bool:
        """True if a length could be known when the header was written.

        Args:
            data_at: place of the first sample.
            n_bytes: the length.
            limits: lengths that could not be known.
            n_counted: the length in the unit of the header, where that is not bytes.
        """
        if n_bytes > self.size - data_at and self.is_open:
            return False
        near = any(could_not_be_known(n, limits) for n in (n_bytes, n_counted) if n is not None)
        # A file of about 2 or 4 GiB may be whole; a stream may be longer than the number says.
        return not near or self.are_chunks(self.after(data_at, n_bytes))

    def are_chunks(self, at: int) -> bool:
        """True if the file from ``at`` on is chunks and nothing else."""
        end = at
        for _, body_at, n_bytes in self.chunks(at):
            end = body_at + n_bytes
        return end > at and 0 <= self.size - end < self.style.pad


def _is_name(name: bytes) -> bool:
    return len(name) == 4 and all(32 <= byte < 127 for byte in name)
