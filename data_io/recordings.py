"""From a folder of recordings to checked waveforms; the result accounts for every file.

Layout: ``<bird>/<age>/songs/*.wav``, also without ``songs/``. ``<age>`` is the age in days post
hatch (a number), a recording date (ISO) or any other word, for instance ``adult``. Nothing here
writes to a recording.
"""

import datetime
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_io.files import digest
from data_io.sound_file import BadSoundError, SoundFacts, open_sound

BirdAge = tuple[str, str]
Status = Literal["ok", "flagged", "skipped"]

CLIPPED_SHARE = 1e-3  # samples at full scale from which a recording is flagged as clipped
BLOCK_SAMPLES = 2**20
ZERO_TAIL_S = 0.5  # no microphone gives a longer run of exact zeros at the end


class NoRecordingsError(ValueError):
    """No recording was found; the message says where the search looked."""


@dataclass(frozen=True)
class Recording:
    """One sound file, with the facts that are known about it.

    Attributes:
        bird: name of the bird's folder.
        age: name of the age's folder, as text.
        dph: age in days post hatch, if the folder's name is a number.
        date: recording date (ISO), if the folder's name is one.
        path: path relative to the data folder, with "/": the recording's name everywhere.
        sha256: of the file's bytes; empty if it could not be read.
        sample_rate_hz: of the file.
        n_channels: of the file; the first one is used.
        seconds: length of the sound that could be read.
        status: ok, flagged (used, but look at ``reason``) or skipped (not used).
        reason: empty if ok.
        n_frames: spectrogram frames, 0 if skipped.
        split: train or valid (held out); empty if skipped.
    """

    bird: str
    age: str
    dph: int | None
    date: str | None
    path: str
    sha256: str = ""
    sample_rate_hz: int | None = None
    n_channels: int | None = None
    seconds: float = 0.0
    status: Status = "ok"
    reason: str = ""
    n_frames: int = 0
    split: str = ""

    @property
    def is_used(self) -> bool:
        """True if the study uses the recording."""
        return self.status != "skipped"

    def skipped(self, reason: str) -> "Recording":
        """The same recording, out of the study for ``reason``."""
        return replace(self, status="skipped", reason=reason, n_frames=0, split="")


def parse_age(age: str) -> tuple[int | None, str | None]:
    """Days post hatch or ISO date that a folder's name gives; (None, None) for other words."""
    if age.isascii() and age.isdigit() and int(age) < 100_000:  # 20190508 is a date
        return int(age), None
    try:
        return None, datetime.date.fromisoformat(age).isoformat()
    except ValueError:
        return None, None


def age_order(age: str) -> tuple[int, int, str]:
    """Sort key of age folders: numbers by value, then dates, then words."""
    dph, date = parse_age(age)
    if dph is not None:
        return (0, dph, age)
    return (1, 0, date) if date else (2, 0, age)


def scan(root: Path) -> list[Recording]:
    """List every WAV file below ``root``, sorted by bird, age and name; nothing is opened yet.

    A file outside the layout is listed as skipped, so that no file disappears unseen. So is a
    folder that cannot be listed. Hidden files and folders are left out. A folder that several
    paths reach is listed once, under its own name and not under the name of a link.

    Raises:
        NoRecordingsError: ``root`` is no folder or holds no WAV file.
    """
    if not root.is_dir():
        raise NoRecordingsError(
            f"{root} is not a folder. Give the folder that holds <bird>/<age>/songs/*.wav."
        )
    found: list[Recording] = []
    errors: list[OSError] = []
    seen_folders = set()
    tops = [root]  # then the links to folders, after all that is in a folder itself
    while tops:
        for folder, subfolders, names in os.walk(tops.pop(0), onerror=errors.append):
            real = os.path.realpath(folder)
            if real in seen_folders:
                subfolders.clear()
                continue
            seen_folders.add(real)
            at = Path(folder)
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            tops += [at / name for name in subfolders if (at / name).is_symlink()]
            found += [_listed(root, at / name) for name in names if _is_wav(name)]
            folders = [_listed(root, at / name) for name in subfolders if _is_wav(name)]
            found += [recording.skipped("a folder, not a sound file") for recording in folders]
    if not found:
        raise NoRecordingsError(
            f"{root} holds no .wav file. Recordings are looked for in <bird>/<age>/songs/*.wav "
            "or <bird>/<age>/*.wav; check the path, or convert the recordings to WAV."
        )
    for error in errors:
        folder_name = _listed(root, Path(error.filename))
        found.append(folder_name.skipped(f"the folder cannot be listed: {error.strerror}"))
    return sorted(found, key=lambda r: (r.bird, age_order(r.age), r.path))


@dataclass(frozen=True)
class Survey:
    """The files in a folder of recordings, found once, before any file is opened.

    Attributes:
        root: the folder.
        recordings: every file found, as `scan` lists them.
        fingerprint: hash of names, sizes and times of all files; it changes when they change.
        n_bytes: size of all files.
    """

    root: Path
    recordings: list[Recording]
    fingerprint: str
    n_bytes: int


def survey(root: Path) -> Survey:
    """List a folder of recordings, and ask the size and time of each file.

    Raises:
        NoRecordingsError: ``root`` is no folder, or no WAV file in it has a bird and an age.
    """
    recordings = scan(root)
    if not any(recording.is_used for recording in recordings):
        raise _misplaced(root, recordings)
    facts: list[list[str | int]] = []
    n_bytes = 0
    for recording in recordings:
        try:
            stat = (root / recording.path).stat()
        except OSError as error:
            facts.append([recording.path, str(error.strerror)])
            continue
        facts.append([recording.path, stat.st_size, stat.st_mtime_ns])
        n_bytes += stat.st_size
    return Survey(root, recordings, digest(facts), n_bytes)


def _misplaced(root: Path, recordings: list[Recording]) -> NoRecordingsError:
    """The error for a folder in which no file has a bird and an age."""
    first = recordings[0]
    whole = (root / first.path).absolute()
    n_below = 4 if whole.parent.name == "songs" else 3  # parts below the folder of the birds
    return NoRecordingsError(
        f"None of {len(recordings):,} sound files in {root} lies in <bird>/<age>/songs/ or "
        f"<bird>/<age>/; the first is {first.path} ({first.reason}). Give the folder that holds "
        f"the birds, here perhaps {Path(*whole.parts[: len(whole.parts) - n_below])}."
    )


def _is_wav(name: str) -> bool:
    return name.lower().endswith(".wav") and not name.startswith(".")


def _listed(root: Path, path: Path) -> Recording:
    raw_name = "/".join(path.relative_to(root).parts)
    # Parquet, JSON and MLflow take names in UTF-8 only.
    name = raw_name.encode("utf-8", "backslashreplace").decode()
    parts = name.split("/")
    if name != raw_name:
        bird, age = (*parts[:-1], "", "")[:2]
        return Recording(bird, age, None, None, name).skipped(
            "the name is not valid UTF-8: rename the file or folder"
        )
    if len(parts) == 3 and parts[1] == "songs":
        return Recording(parts[0], parts[1], None, None, name).skipped(
            "songs is no age: the folder of the birds lies above the folder that was given"
        )
    if len(parts) == 3 or (len(parts) == 4 and parts[2] == "songs"):
        dph, date = parse_age(parts[1])
        return Recording(parts[0], parts[1], dph, date, name)
    bird, age = (*parts[:-1], "", "")[:2]
    return Recording(bird, age, None, None, name).skipped(
        "not in <bird>/<age>/songs/ or <bird>/<age>/: move the file there if it belongs to the data"
    )


def read(
    root: Path, recording: Recording, min_seconds: float
) -> tuple[Recording, NDArray[np.float32] | None]:
    """Read and check one recording.

    Args:
        root: data folder.
        recording: as `scan` listed it.
        min_seconds: a shorter recording is skipped.

    Returns:
        The recording with all facts filled in, and its first channel [n_samples] in [-1, 1] at the
        file's own sample rate. The channel is None if the recording is skipped. A bad file never
        raises an error.
    """
    path = root / recording.path
    try:
        if path.is_file():
            recording = replace(recording, sha256=_sha256(path))
        with open_sound(path) as sound:
            facts = sound.facts
            waveform = np.concatenate([block[:, 0] for block in sound.blocks(BLOCK_SAMPLES)])
    except (BadSoundError, OSError) as error:
        return recording.skipped(f"cannot be read: {error}"), None
    recording = replace(
        recording,
        sample_rate_hz=facts.sample_rate_hz,
        n_channels=facts.n_channels,
        seconds=round(facts.n_samples / facts.sample_rate_hz, 6),
    )
    if not np.isfinite(waveform).all():
        n_bad = int((~np.isfinite(waveform)).sum())
        return recording.skipped(f"{n_bad} samples are not finite numbers"), None
    if recording.seconds < min_seconds:
        reason = f"{recording.seconds:.3f} s is shorter than one snippet ({min_seconds:.3f} s)"
        return recording.skipped(reason), None
    if not waveform.any():
        return recording.skipped("silent: every sample is 0"), None
    flags = _flags(waveform, recording, facts)
    if flags:
        recording = replace(recording, status="flagged", reason="; ".join(flags))
    return recording, waveform


def _flags(waveform: NDArray[np.float32], recording: Recording, facts: SoundFacts) -> Iterable[str]:
    """Remarks for a person on a recording that can be used."""
    flags = list(facts.remarks)
    if facts.missing_samples:
        promised = len(waveform) + facts.missing_samples
        flags.append(
            f"cut short: the header promises {promised} samples, the file holds {len(waveform)}"
        )
    if recording.n_channels and recording.n_channels > 1:
        flags.append(f"{recording.n_channels} channels: the first is used")
    peak = float(np.abs(waveform).max())
    if peak > 1.0:
        flags.append(f"samples up to {peak:.3g}, beyond full scale (1.0)")
    clipped = float((np.abs(waveform) >= 0.9999 * max(peak, 0.99)).mean())
    if clipped > CLIPPED_SHARE:
        flags.append(f"clipped: {100 * clipped:.1f} % of samples at full scale")
    tail = len(waveform) - 1 - int(np.flatnonzero(waveform)[-1])
    rate = recording.sample_rate_hz or 1
    if tail > ZERO_TAIL_S * rate:
        flags.append(f"the last {tail / rate:.1f} s are exact zeros")
    return flags


def skip_duplicates(recordings: list[Recording]) -> list[Recording]:
    """Skip recordings whose bytes were seen before, so that none is on both sides of the split."""
    first_with: dict[str, str] = {}
    result = []
    for recording in recordings:
        original = first_with.setdefault(recording.sha256, recording.path)
        is_copy = recording.is_used and original != recording.path
        result.append(recording.skipped(f"same content as {original}") if is_copy else recording)
    return result


def assign_split(recordings: list[Recording], valid_fraction: float, seed: int) -> list[Recording]:
    """Hold out whole recordings of each bird and age, whatever their order in the list.

    Of n used recordings of a bird and age, round(n * valid_fraction) are held out. At least one
    is held out if there are two or more.
    """
    groups: dict[BirdAge, list[Recording]] = {}
    for recording in recordings:
        if recording.is_used:
            groups.setdefault((recording.bird, recording.age), []).append(recording)
    held_out = set()
    for group in groups.values():
        n_valid = 0 if len(group) < 2 else max(1, round(len(group) * valid_fraction))
        shuffled = sorted(group, key=lambda r: _split_key(r, seed))
        held_out |= {r.path for r in shuffled[: min(n_valid, len(group) - 1)]}
    return [
        replace(r, split="valid" if r.path in held_out else "train") if r.is_used else r
        for r in recordings
    ]


def _split_key(recording: Recording, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{recording.sha256}".encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def data_hash(recordings: list[Recording]) -> str:
    """Hash of names, contents, use and split of all recordings."""
    return digest([[r.path, r.sha256, r.status, r.split, r.n_frames] for r in recordings])


def used_by_bird_age(recordings: list[Recording]) -> dict[BirdAge, list[Recording]]:
    """The used recordings of every bird and age, in order."""
    found: dict[BirdAge, list[Recording]] = {}
    for recording in recordings:
        if recording.is_used:
            found.setdefault((recording.bird, recording.age), []).append(recording)
    return found


def birds_and_ages(recordings: list[Recording]) -> list[BirdAge]:
    """Every bird and age with a usable recording, in order."""
    return list(dict.fromkeys((r.bird, r.age) for r in recordings if r.is_used))
