"""Sound files of all containers as blocks of samples on one scale; files are opened read-only.

Full scale is 1.0 in every container and width: integers are divided by 2 ** (bits - 1), float is
taken as it is. Whatever a file is called, its content says how it is read; ``.cbin`` files of
evTAF have no header, so there the name counts and the ``.rec`` beside it is asked.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from data_io.files import file_sha256, sound_state
from data_io.sound.chunks import BadSoundError, UnreadableSoundError
from data_io.sound.header import SoundFacts, SoundHeader, check_numbers, read_header
from data_io.sound.header_times import time_of_rec

__all__ = ["BadSoundError", "SoundFacts", "SoundFile", "UnreadableSoundError", "open_sound"]

CBIN_TYPE = ">i2"  # big-endian numbers of 16 bits, as evfuncs.load_cbin reads them
FLAC_BLOCK = 65_536
LARGEST_REC = 1_000_000  # bytes
_REC_WORDS = {"ADFREQ": "sample_freq", "Chans": "num_channels", "Samples": "num_samples"}


class _StraightOn(soundfile.SoundFile):
    """libsndfile's reader without the seeking after each block, which hangs on cut FLAC files."""

    def seekable(self) -> bool:
        """Answer no, so that soundfile reads straight on."""
        return False


class SoundFile(AbstractContextManager["SoundFile"]):
    """An open sound file; `open_sound` makes it.

    Attributes:
        facts: what the file holds.
        n_bytes: size of the file when it was opened.
        mtime_ns: its time of change when it was opened.
        state: both as the listing of a folder counts them; see `data_io.files.sound_state`.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        stat = os.fstat(file.fileno())
        self.n_bytes, self.mtime_ns = stat.st_size, stat.st_mtime_ns
        self.state = sound_state(path, stat)
        self._path, self._file = path, file
        try:
            self._header = read_header(file, self.n_bytes)
        except BadSoundError:
            if path.suffix.lower() != ".cbin" or self.n_bytes == 0:
                raise
            self._header = _cbin_header(path, self.n_bytes)
        self.facts = self._header.facts
        if self.facts.container == "FLAC":
            self.facts = _counted(path, self.facts)

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def blocks(
        self, n_samples: int, start: int = 0, stop: int | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """Samples from ``start`` to before ``stop``, in blocks.

        Args:
            n_samples: of a block; the last may be shorter. It bounds the memory.
            start: first sample, counted from 0.
            stop: the sample after the last; None for the end.

        Yields:
            Blocks [n, n_channels], full scale 1.0.

        Raises:
            ValueError: no such samples.
            BadSoundError: the file has become shorter since it was opened.
            UnreadableSoundError: the system does not give it for now.
        """
        stop = self.facts.n_samples if stop is None else stop
        if n_samples < 1 or not 0 <= start <= stop <= self.facts.n_samples:
            raise ValueError(
                f"samples {start} to {stop} in blocks of {n_samples}; the file holds "
                f"{self.facts.n_samples} samples"
            )
        if self.facts.container == "FLAC":
            return self._flac_blocks(n_samples, start, stop)
        return self._plain_blocks(n_samples, start, stop)

    def has_changed(self) -> bool:
        """True if the file's size or time of change is not that of its opening any more."""
        try:
            return sound_state(self._path, self._path.stat()) != self.state
        except OSError:
            return True

    def _plain_blocks(self, n_samples: int, start: int, stop: int) -> Iterator[NDArray[np.float32]]:
        n_channels = self.facts.n_channels
        sample_type = self._header.sample_type
        frame_bytes = n_channels * int(sample_type[2:])
        for at in range(start, stop, n_samples):
            raw = np.empty(min(n_samples, stop - at) * frame_bytes, np.uint8)
            try:
                self._file.seek(self._header.data_at + at * frame_bytes)
                n_read = self._file.readinto(raw)  # type: ignore[attr-defined]
            except OSError as error:
                raise _unreadable(error) from error
            if n_read < len(raw):
                raise BadSoundError(
                    f"the file became shorter while it was read: {self.n_bytes} bytes at first"
                )
            yield _on_one_scale(raw, sample_type).reshape(-1, n_channels)

    def _flac_blocks(self, n_samples: int, start: int, stop: int) -> Iterator[NDArray[np.float32]]:
        with _open_flac(self._path) as flac:
            at = 0
            if not self.facts.missing_samples and not self.facts.remarks:
                flac.seek(start)
                at = start
            while at < stop:
                # Of a cut file, what comes before ``start`` is read and dropped.
                n_wanted = min(n_samples, (start if at < start else stop) - at)
                try:
                    block = _read_flac(flac, n_wanted)
                except soundfile.LibsndfileError as error:  # it was decoded so far before
                    raise UnreadableSoundError(error.error_string) from error
                if len(block) < n_wanted:
                    raise BadSoundError("the file became shorter while it was read")
                at += n_wanted
                if at > start:
                    yield block


def open_sound(path: Path) -> SoundFile:
    """Open a sound file, read its header and compare that with the file; use it in ``with``.

    WAV of every width (also RF64, BW64, W64), AIFF, AIFC, FLAC and ``.cbin``. A FLAC file is
    decoded once to count its samples, since its header alone does not show a cut.

    Raises:
        BadSoundError: the file cannot be trusted; the message says why.
        UnreadableSoundError: it is not there, or the system does not give it for now.
    """
    try:
        if path.exists() and not path.is_file():  # to open a named pipe would wait for ever
            kind = "a folder, not a sound file" if path.is_dir() else "not a regular file"
            raise BadSoundError(kind)
        file = path.open("rb")
        try:
            return SoundFile(path, file)
        except BaseException:
            file.close()
            raise
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> UnreadableSoundError:
    return UnreadableSoundError(error.strerror or str(error))


def _on_one_scale(raw: NDArray[np.uint8], sample_type: str) -> NDArray[np.float32]:
    """Samples [n] of full scale 1.0 from the bytes of a file."""
    order, kind, n_bytes = sample_type[0], sample_type[1], int(sample_type[2:])
    if n_bytes == 3:  # numpy knows no such numbers: they become the upper bytes of 32 bits
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, slice(1, 4) if order == "<" else slice(3)] = raw.reshape(-1, 3)
        raw, n_bytes = wide.reshape(-1), 4
    numbers = raw.view(f"{order}{kind}{n_bytes}")
    with np.errstate(over="ignore", invalid="ignore"):  # float of 64 bits may hold anything
        samples = numbers.astype(np.float32)
    if kind == "u":
        samples -= 128
    if kind != "f":
        samples *= np.float32(2.0 ** (1 - 8 * n_bytes))
    return samples


def _open_flac(path: Path) -> Any:
    try:
        # By name: with file objects soundfile loses errors. In bytes: any name opens.
        return _StraightOn(os.fsencode(path))
    except soundfile.LibsndfileError as error:
        raise BadSoundError(f"the FLAC file cannot be decoded: {error.error_string}") from error


def _read_flac(flac: Any, n_samples: int) -> NDArray[np.float32]:
    block: NDArray[np.float32] = flac.read(n_samples, dtype="float32", always_2d=True)
    return block


def _counted(path: Path, facts: SoundFacts) -> SoundFacts:
    """Facts with the number of samples that a FLAC file gives when it is decoded."""
    promised = facts.n_samples
    n_samples, is_damaged = _n_decoded(path, FLAC_BLOCK)
    if is_damaged:
        file_sha256(path)  # libsndfile does not tell an error of the disk from damage; this does
        n_samples, _ = _n_decoded(path, 64)  # the block with the damage is lost: a small one
    if not n_samples:
        raise BadSoundError(f"the file holds no samples; its header promises {promised}")
    remark = (
        f"the FLAC stream is cut or damaged after {n_samples / facts.sample_rate_hz:.3f} s, which "
        "its checksums show, and is used up to there"
    )
    return replace(
        facts,
        n_samples=n_samples,
        missing_samples=max(promised - n_samples, 0),
        remarks=(remark,) if is_damaged else (),
    )


def _n_decoded(path: Path, n_block: int) -> tuple[int, bool]:
    """Samples of a FLAC file up to its end or to where it is damaged, and whether it is."""
    n_samples = 0
    with _open_flac(path) as flac:
        try:
            while n_read := len(_read_flac(flac, n_block)):
                n_samples += n_read
        except soundfile.LibsndfileError:
            return n_samples, True
    return n_samples, False


def _cbin_header(path: Path, size: int) -> SoundHeader:
    """Header of a ``.cbin`` file, from the ``.rec`` file beside it."""
    rec = path.with_suffix(".rec")
    try:
        if rec.stat().st_size > LARGEST_REC:
            raise BadSoundError(
                f"{rec.name} has {rec.stat().st_size} bytes: it is no .rec of evTAF"
            )
        said = _read_rec(rec)
    except FileNotFoundError:
        raise BadSoundError(
            f"{rec.name} is missing, which gives the sample rate and the channels of a .cbin file: "
            "copy it beside the file"
        ) from None
    except OSError as error:
        raise UnreadableSoundError(f"{rec.name}: {error.strerror or error}") from error
    if missing := [word for word in ("ADFREQ", "Chans") if _REC_WORDS[word] not in said]:
        raise BadSoundError(
            f"{rec.name} does not say {' and '.join(missing)} (ADFREQ is the sample rate in Hz, "
            f"Chans the number of channels): add a line '{missing[0]} = ...'"
        )
    rate, n_channels = said["sample_freq"], said["num_channels"]
    check_numbers(rate, n_channels, 16, 2 * n_channels)
    found = size // (2 * n_channels)
    promised = said.get("num_samples", found)
    if not found:
        raise BadSoundError(f"the file holds no samples; {rec.name} promises {promised}")
    recorded_at = time_of_rec("".join(said.get("header", [])))
    facts = SoundFacts(
        "cbin", "PCM", 16, rate, n_channels, found, max(promised - found, 0), recorded_at
    )
    return SoundHeader(facts, 0, CBIN_TYPE)


def _read_rec(rec: Path) -> dict[str, Any]:
    # Here, because it loads scipy.signal, which most studies do not need.
    from evfuncs import readrecf

    try:
        try:
            said: dict[str, Any] = readrecf(rec)
        except UnicodeDecodeError:  # names of folders in the code page of an old Windows
            with tempfile.NamedTemporaryFile(suffix=".rec") as copy:
                copy.write(rec.read_bytes().decode("ascii", "replace").encode("ascii", "replace"))
                copy.flush()
                said = readrecf(copy.name)
        # Where no empty line follows "File created", readrecf takes four lines of any kind for it.
        for line in said.get("header", []):
            name, _, value = line.partition("=")
            if (word := name.strip()) in _REC_WORDS:
                said.setdefault(_REC_WORDS[word], int(float(value)))
    except (ValueError, OverflowError) as error:
        raise BadSoundError(f"{rec.name} cannot be read: {error}") from error
    return said
