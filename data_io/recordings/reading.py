"""From one file to a checked recording and its spectrogram, in blocks.

Files are opened read-only. Each is read three times in blocks: for its hash, for the checks, and
for the spectrogram; so memory is bounded whatever its length, and a file that is skipped for its
last sample has not been stored.
"""

import datetime
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_io.files import FOR_NOW, sound_sha256
from data_io.pieces import Piece, Pieces
from data_io.recordings.table import Recording
from data_io.sound.checks import Checks
from data_io.sound.file import BadSoundError, SoundFile, UnreadableSoundError, open_sound
from data_io.sound.same_sound import Anchors
from data_io.sounding import Energies, frame_energy_db
from data_io.spectrogram import MagnitudeStream, SpectrogramParams, Waveform
from data_io.store import Stored

BLOCK_S = 10.0  # of sound in memory at a time


@dataclass(frozen=True)
class ReadParams:
    """How recordings are read.

    Attributes:
        channel: that is used, from 1.
        longest_s: a longer file is cut at silences into pieces of at most this many seconds.
        min_seconds: a shorter recording is skipped.
        spectrogram: from sound to spectrogram.
    """

    channel: int = 1
    longest_s: float = 60.0
    min_seconds: float = 0.064
    spectrogram: SpectrogramParams = field(default_factory=SpectrogramParams)

    def __post_init__(self) -> None:
        """Refuse a channel 0 or below (ValueError)."""
        if self.channel < 1:
            raise ValueError(f"channel is {self.channel}: channels are counted from 1.")


@dataclass(frozen=True)
class Checked:
    """A file that was checked.

    Attributes:
        recording: the whole file.
        anchors: [n] hashes that tell its sound from other sound; see same_sound.py.
        anchors_at: [n] sample at which each lies.
        stored: the recordings that an earlier start made of it, whose spectrograms are there.
    """

    recording: Recording
    anchors: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    anchors_at: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    stored: tuple[Recording, ...] = ()


def check_file(root: Path, listed: Recording, params: ReadParams) -> Checked:
    """Read and check a file. A bad file never raises an error: it is skipped, and says why.

    One that is skipped already, as of an excluded bird, is not opened.
    """
    if not listed.is_used:
        return Checked(listed)
    path = root / listed.file
    try:
        with open_sound(path) as file:
            facts = file.facts
            found = replace(
                listed,
                sha256=sound_sha256(path),
                sample_rate_hz=facts.sample_rate_hz,
                n_channels=facts.n_channels,
                n_bytes=file.state[0],
                mtime_ns=file.state[1],
                recorded_at=listed.recorded_at or _moment(facts.recorded_at),
            )
            # A file of one channel has no other that could be meant.
            channel = params.channel if facts.n_channels > 1 else 1
            checks = Checks(facts, channel, params.spectrogram.sample_rate_hz, params.min_seconds)
            anchors = Anchors(facts.sample_rate_hz)
            n_samples = 0
            for block in _blocks(file):
                checks.add(block)
                anchors.push(block[:, min(channel, facts.n_channels) - 1])
                n_samples += len(block)
            if file.has_changed():
                return Checked(found.skipped("it was written to while it was read: it grows"))
    except (BadSoundError, OSError) as error:
        return Checked(listed.skipped(why_unread(error)))
    verdict = checks.finish()
    found = replace(found, seconds=round(n_samples / facts.sample_rate_hz, 6))
    if verdict.status == "skipped":
        return Checked(found.skipped(verdict.reason))
    return Checked(found.flagged([listed.reason, verdict.reason]), *anchors.finish())


def why_unread(error: BadSoundError | OSError, otherwise: str = "cannot be read: ") -> str:
    """Why a file is skipped: for now, where the system does not give it, or for its bytes.

    Args:
        error: of reading it.
        otherwise: begins the reason where its bytes are the cause.
    """
    if isinstance(error, OSError):
        return f"{FOR_NOW}{error.strerror or error}"
    return f"{FOR_NOW if isinstance(error, UnreadableSoundError) else otherwise}{error}"


def _moment(text: str | None) -> datetime.datetime | None:
    return datetime.datetime.fromisoformat(text) if text else None


def _blocks(file: SoundFile, start: int = 0, stop: int | None = None) -> Iterator[NDArray]:
    return file.blocks(round(BLOCK_S * file.facts.sample_rate_hz), start, stop)


def read(
    root: str | Path, recording: Recording, min_seconds: float, channel: int = 1
) -> tuple[Recording, Waveform | None]:
    """Read and check one recording whole.

    Args:
        root: data folder.
        recording: as `scan` listed it.
        min_seconds: a shorter recording is skipped.
        channel: that is used, from 1.

    Returns:
        The recording with all facts filled in, and its waveform [n_samples], full scale 1, at the
        file's own sample rate; None if the recording is skipped. A bad file never raises an error.

    Raises:
        ValueError: ``channel`` is below 1.
    """
    root = Path(root)
    found = check_file(root, recording, ReadParams(channel, min_seconds=min_seconds)).recording
    if not found.is_used:
        return found, None
    return found, read_sound(root, found, channel)[0]


def read_sound(
    root: Path, recording: Recording, channel: int = 1, longest_s: float | None = None
) -> tuple[Waveform, int]:
    """The waveform [n_samples] of a recording, and its rate in Hz.

    Args:
        root: data folder.
        recording: that was checked before.
        channel: that is used, from 1.
        longest_s: seconds to read at most, from its start; None for all.

    Raises:
        BadSoundError, OSError: the file cannot be read any more.
    """
    with open_sound(root / recording.file) as file:
        rate = file.facts.sample_rate_hz
        start = round(recording.start_s * rate)
        stop = file.facts.n_samples
        if recording.of_file:
            stop = min(stop, start + round(recording.seconds * rate))
        if longest_s is not None:
            stop = min(stop, start + round(longest_s * rate))
        waveform = np.empty(stop - start, np.float32)
        at, end = min(channel, file.facts.n_channels) - 1, 0
        for block in _blocks(file, start, stop):
            waveform[end : end + len(block)] = block[:, at]
            end += len(block)
    return waveform, rate


def transform(
    root: Path, checked: Checked, params: ReadParams
) -> Iterator[tuple[Recording, Stored, Energies]]:
    """Give the spectrogram of a checked file; of a long one piece by piece.

    Yields:
        The recording, its magnitudes (the first has the anchors of the whole file), and the energy
        of its frames [n_frames] in dB.

    Raises:
        BadSoundError, OSError: the file is not what was checked any more.
    """
    whole = checked.recording
    frame_s = params.spectrogram.frame_s
    anchors = checked.anchors, checked.anchors_at
    is_long = whole.seconds > params.longest_s
    for first, magnitude, energy_db in _pieces(root, whole, params, is_long):
        recording = replace(whole, n_frames=magnitude.shape[1])
        if is_long:
            start_s = first * frame_s
            end_s = min(start_s + magnitude.shape[1] * frame_s, whole.seconds)
            recording = replace(
                recording,
                path=f"{whole.path}#t={start_s:.3f},{end_s:.3f}",
                of_file=whole.path,
                start_s=round(start_s, 6),
                seconds=round(end_s - start_s, 6),
            )
        yield recording, Stored(recording.path, magnitude, *anchors), energy_db
        anchors = checked.anchors[:0], checked.anchors_at[:0]


def _pieces(root: Path, whole: Recording, params: ReadParams, is_long: bool) -> Iterator[Piece]:
    """First frame, magnitudes and energies of each piece of a file."""
    pieces = Pieces(round(params.longest_s / params.spectrogram.frame_s))
    blocks: list[NDArray[np.float32]] = []
    with open_sound(root / whole.file) as file:
        if file.state != (whole.n_bytes, whole.mtime_ns):
            raise BadSoundError("it was written to after it was checked")
        stream = MagnitudeStream(file.facts.sample_rate_hz, params.spectrogram)
        at = min(params.channel, file.facts.n_channels) - 1
        for block in _blocks(file):
            magnitude = stream.push(np.ascontiguousarray(block[:, at]))
            if is_long:
                yield from pieces.push(magnitude, frame_energy_db(magnitude, params.spectrogram))
            else:
                blocks.append(magnitude)
    last = stream.finish()
    if is_long:
        yield from pieces.push(last, frame_energy_db(last, params.spectrogram))
        yield from pieces.finish()
    else:
        magnitude = np.concatenate([*blocks, last], axis=1)
        yield 0, magnitude, frame_energy_db(magnitude, params.spectrogram)


def check_source(root: Path, recording: Recording) -> None:
    """Compare the file of a recording with the hash of when it was checked.

    Size and time of change may be as they were: a disk that fails changes neither.

    Args:
        root: data folder.
        recording: that was checked before.

    Raises:
        BadSoundError: it is another one now; the message says what to do.
        OSError: it cannot be read.
    """
    path = root / recording.file
    found = sound_sha256(path)
    if found != recording.sha256:
        raise BadSoundError(
            f"{path} is not the file that was read before: its hash is {found[:12]}, and it was "
            f"{recording.sha256[:12]}. Restore it. If it is meant to be as it is, give it a new "
            f"time (touch {shlex.quote(str(path))}), so that it is read again; a search that "
            "was made of it is then another one."
        )
