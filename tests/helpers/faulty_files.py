"""Faulty sound files, one for each fault and format, each with what has to be said of it.

`FAULTY` lists them, `GOOD` the files that nothing is wrong with. Every file holds a song of its
own, so that none is a copy of another where the row does not say so.
"""

import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

RATE = 32_000
SECONDS = 2.0
FULL = 32_768

# Suffix -> how soundfile calls the container; a .cbin file is plain numbers beside a .rec file.
CONTAINERS = {
    "wav": "WAV", "rf64": "RF64", "w64": "W64", "aiff": "AIFF", "flac": "FLAC", "cbin": "",
}  # fmt: skip
# The fault lies in the header, and so a plain file of numbers cannot have it.
WITH_HEADER = tuple(suffix for suffix in CONTAINERS if suffix != "cbin")
HEADER_BYTES = {"wav": 44, "rf64": 104, "w64": 104, "aiff": 54, "flac": 86}
# The header of evTAF is five lines.
REC = """File created: Thu, Apr 19, 2012, 07:25:00

     begin rec = 0 ms
     trig time = 1000 ms
     rec end = 2000 ms

ADFREQ = {rate}
Chans = {n_channels}
Samples = {n}
"""

Sound = NDArray[np.float64]


@dataclass(frozen=True)
class FaultyFile:
    """One file and what has to be said of it.

    Attributes:
        path: below the folder of recordings.
        make: writes it; gets the path on the disk.
        status: ok, flagged or skipped.
        words: all of them must be in the reason.
        decided_by: header (sound_file), checks, listing, bytes (their hash), same_sound.
    """

    path: str
    make: Callable[[Path], None]
    status: str
    words: tuple[str, ...]
    decided_by: str


def song(name: str, seconds: float = SECONDS, rate: int = RATE) -> Sound:
    """A song [n] below 0.4 of full scale, with noise; another one for every name."""
    rng = np.random.default_rng(crc32(os.fsencode(name)))
    sound = rng.normal(0, 0.004, int(seconds * rate))
    at = int(0.05 * rate)
    while at + 0.2 * rate < len(sound):
        n = int(rng.uniform(0.04, 0.15) * rate)
        t = np.arange(n) / rate
        pitch = rng.uniform(700, 0.3 * rate) + rng.uniform(-4000, 4000) * t
        sound[at : at + n] += rng.uniform(0.1, 0.35) * np.hanning(n) * np.sin(2 * np.pi * pitch * t)
        at += n + int(rng.uniform(0.02, 0.1) * rate)
    return sound


def content(
    sound: Sound, suffix: str = "wav", subtype: str = "PCM_16", rate: int = RATE
) -> tuple[bytes, bytes]:
    """Bytes of a sound file of samples [n] or [n, n_channels], and of the .rec file beside it."""
    if suffix == "cbin":
        n, n_channels = len(sound), 1 if sound.ndim == 1 else sound.shape[1]
        rec = REC.format(rate=rate, n_channels=n_channels, n=n)
        return _as_integers(sound).astype(">i2").tobytes(), rec.encode()
    file = io.BytesIO()
    coded = _as_integers(sound).astype(np.int16) if subtype == "PCM_16" else sound
    sf.write(file, coded, rate, format=CONTAINERS[suffix], subtype=subtype)
    return file.getvalue(), b""


def _as_integers(sound: Sound) -> NDArray[np.float64]:
    return np.round(sound * FULL).clip(-FULL, FULL - 1)


def write(path: Path, data: bytes, rec: bytes = b"") -> None:
    """Write a file, and its .rec if it has one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if rec:
        path.with_suffix(".rec").write_bytes(rec)


def of_sound(
    change: Callable[[Sound], Sound], suffix: str = "wav", subtype: str = "PCM_16", rate: int = RATE
) -> Callable[[Path], None]:
    """A maker of a file that holds a changed song."""
    return lambda path: write(
        path, *content(change(song(path.name, rate=rate)), suffix, subtype, rate)
    )


def of_bytes(change: Callable[[bytes], bytes], suffix: str) -> Callable[[Path], None]:
    """A maker of a file whose bytes are changed."""

    def make(path: Path) -> None:
        data, rec = content(song(path.name), suffix)
        write(path, change(data), rec)

    return make


def _clipped(sound: Sound) -> Sound:
    return (8 * sound).clip(-1, 1)


def _amplifier(sound: Sound) -> Sound:
    return 0.5 * (8 * sound).clip(-1, 1)


def _hole(sound: Sound) -> Sound:
    changed = sound.copy()
    changed[20_000:20_640] = 0  # 20 ms
    return changed


def _held(sound: Sound) -> Sound:
    changed = sound.copy()
    changed[20_000:20_640] = 0.01
    return changed


def _with(value: float) -> Callable[[Sound], Sound]:
    def change(sound: Sound) -> Sound:
        changed = sound.copy()
        changed[16_000] = value
        return changed

    return change


def _channels(*gains: float, noise: float = 0.0) -> Callable[[Sound], Sound]:
    """Channels of one song at the given gains, each with noise of its own."""

    def change(sound: Sound) -> Sound:
        rng = np.random.default_rng(0)
        return np.stack(
            [gain * (sound + rng.normal(0, noise, len(sound))) for gain in gains], axis=1
        )

    return change


def _integers(scale: float) -> Callable[[Sound], Sound]:
    """The numbers of integers whose full scale is ``scale``, as they are."""
    return lambda sound: np.round(sound * scale)


def _right_aligned(bits: int, of: int) -> Callable[[Sound], Sound]:
    """Integers of fewer bits on the scale of wider ones."""
    return lambda sound: np.round(sound * 2 ** (bits - 1)) / 2 ** (of - 1)


def _left_aligned(bits: int) -> Callable[[Sound], Sound]:
    return lambda sound: np.round(sound * 2 ** (bits - 1)) / 2 ** (bits - 1)


# Faults of sound that every container can hold: name -> (change, status, words).
IN_THE_SOUND: dict[str, tuple[Callable[[Sound], Sound], str, tuple[str, ...]]] = {
    "silent": (np.zeros_like, "skipped", ("silent: every sample is 0",)),
    "constant": (lambda s: np.full_like(s, 0.25), "skipped", ("constant: every sample is 0.25",)),
    "clipped": (_clipped, "flagged", ("clipped:", "at full scale")),
    "amplifier clipped": (_amplifier, "flagged", ("clipped:", "at 0.5 and -0.5")),
    "offset": (lambda s: s + 0.1, "flagged", ("offset (DC) of +0.1",)),
    "zero tail": (
        lambda s: np.r_[s, np.zeros(19_200)], "flagged", ("the last 0.6 s are exact zeros",)
    ),
    "zero start": (
        lambda s: np.r_[np.zeros(19_200), s], "flagged", ("the first 0.6 s are exact zeros",)
    ),
    "lost buffer": (_hole, "flagged", ("0.020 s of exact zeros within", "from 0.625 s on")),
    "held buffer": (_held, "flagged", ("0.020 s of one value (0.01)", "from 0.625 s on")),
    "8 bits in 16": (_right_aligned(8, 16), "flagged", ("perhaps 8-bit numbers saved as 16-bit",)),
    "8 bits left": (_left_aligned(8), "flagged", ("says 16 bits, the samples use 8", "256")),
    "second microphone": (
        _channels(0, 1), "skipped",
        ("channel 1 of 2: silent", "channel 2 holds sound", "data.channel=2"),
    ),
    "quiet first channel": (
        _channels(0.01, 1), "flagged", ("channel 1 is used", "dB louder", "data.channel=2")
    ),
    "same channels": (_channels(1, 1), "flagged", ("channel 2 holds the same samples",)),
    "silent second channel": (_channels(1, 0), "flagged", ("channel 2 holds one value only",)),
    "third of four": (
        _channels(0, 0, 1, 0.5), "skipped",
        ("channels 3 and 4 hold sound", "data.channel=3"),
    ),
}  # fmt: skip

# Faults that need a width or a container of their own: name -> (suffix, subtype, change, status,
# words).
IN_SOME: dict[str, tuple[str, str, Callable[[Sound], Sound], str, tuple[str, ...]]] = {
    "nan": ("wav", "FLOAT", _with(np.nan), "skipped", ("1 samples are not finite", "0.500 s")),
    "infinite": ("wav", "FLOAT", _with(np.inf), "skipped", ("1 samples are not finite",)),
    "nan in AIFF": ("aiff", "FLOAT", _with(np.nan), "skipped", ("1 samples are not finite",)),
    "infinite in W64": ("w64", "DOUBLE", _with(-np.inf), "skipped", ("1 samples are not finite",)),
    "all nan": ("wav", "FLOAT", lambda s: s * np.nan, "skipped", ("64,000 samples are",)),
    "8-bit numbers as float": (
        "wav", "FLOAT", _integers(128), "skipped", ("8-bit integers saved as floats", "128")
    ),
    "16-bit numbers as float": (
        "wav", "FLOAT", _integers(FULL), "skipped", ("16-bit integers saved as floats", "32,768")
    ),
    "24-bit numbers as float": (
        "wav", "DOUBLE", _integers(2**23), "skipped", ("24-bit integers saved as floats",)
    ),
    "32-bit numbers as float": (
        "wav", "FLOAT", _integers(2**31), "skipped", ("32-bit integers saved as floats",)
    ),
    "16-bit scale, filtered": (
        "aiff", "FLOAT", lambda s: s * FULL, "skipped", ("perhaps 16-bit integers saved as floats",)
    ),
    "damaged floats": ("wav", "FLOAT", _with(1e30), "skipped", ("damaged",)),
    "a little beyond": ("wav", "FLOAT", lambda s: 5 * s, "flagged", ("beyond full scale",)),
    "16 bits in 24": (
        "wav", "PCM_24", _right_aligned(16, 24), "flagged", ("16-bit numbers saved as 24",)
    ),
    "16 bits in 32": (
        "wav", "PCM_32", _right_aligned(16, 32), "flagged", ("16-bit numbers saved as 32",)
    ),
    "24 bits in 32": (
        "wav", "PCM_32", _right_aligned(24, 32), "flagged", ("24-bit numbers saved as 32",)
    ),
    "8 bits in 24": (
        "aiff", "PCM_24", _right_aligned(8, 24), "flagged", ("8-bit numbers saved as 24",)
    ),
    "16 bits left in 24": (
        "flac", "PCM_24", _left_aligned(16), "flagged", ("use 16", "multiples of 256")
    ),
    "24 bits left in 32": (
        "wav", "PCM_32", _left_aligned(24), "flagged", ("use 24", "multiples of 256")
    ),
    "12 bits left in 16": (
        "w64", "PCM_16", _left_aligned(12), "flagged", ("use 12", "multiples of 16")
    ),
    "divided twice": (
        "wav", "FLOAT", _right_aligned(16, 32), "flagged",
        ("16-bit numbers divided by 2,147,483,648 instead of 32,768",),
    ),
    "divided as 24 bits": (
        "wav", "FLOAT", _right_aligned(16, 24), "flagged",
        ("divided by 8,388,608 instead of 32,768",),
    ),
    "very quiet": ("wav", "FLOAT", lambda s: 1.1e-4 * s, "flagged", ("dBFS: hardly any sound",)),
    "below one step": (
        "wav", "FLOAT", lambda s: 1.1e-6 * s, "flagged", ("less than one step of 16",)
    ),
    "clipped in 8 bits": ("wav", "PCM_U8", _clipped, "flagged", ("clipped:",)),
    "clipped in 24 bits": ("flac", "PCM_24", _clipped, "flagged", ("clipped:", "at full scale")),
    "clipped float": ("wav", "FLOAT", _clipped, "flagged", ("clipped:", "at full scale")),
    "swapped bytes": (
        "wav", "PCM_16", lambda s: np.round(s * FULL).astype("<i2").byteswap() / FULL, "flagged",
        ("bytes are in the wrong order",),
    ),
    "unsigned": (
        "wav", "PCM_16", lambda s: s - np.where(s >= 0, 1, -1), "flagged", ("unsigned",),
    ),
}  # fmt: skip


def _header_alone(data: bytes, suffix: str) -> bytes:
    return data[: HEADER_BYTES[suffix]]


def _rows() -> Iterator[FaultyFile]:
    def row(
        name: str, suffix: str, make: Callable[[Path], None], status: str, words: tuple[str, ...],
        by: str,
    ) -> FaultyFile:  # fmt: skip
        return FaultyFile(f"bird/45/songs/{name}.{suffix}", make, status, words, by)

    for suffix in CONTAINERS:
        for name, (change, status, words) in IN_THE_SOUND.items():
            yield row(name, suffix, of_sound(change, suffix), status, words, "checks")
        for rate in (8_000, 11_025):
            words = (f"sample rate {rate:,} Hz", f"nothing above {rate / 2:,.7g} Hz", "8,000 Hz")
            make = of_sound(lambda s: s, suffix, rate=rate)
            yield row(f"rate {rate}", suffix, make, "flagged", words, "checks")
        cut = of_bytes(lambda data: data[: len(data) // 2], suffix)
        yield row("cut", suffix, cut, "flagged", ("cut",), "header")
        yield row("empty", suffix, lambda path: write(path, b""), "skipped", ("0 bytes",), "header")
    for suffix in WITH_HEADER:
        for name, change, words in (
            ("nothing but NUL", lambda data: bytes(len(data)), ("NUL",)),
            ("garbage", lambda data: bytes(range(7, 256)) * 99, ("not a WAV",)),
            ("web page", lambda data: b"<html>404 not found</html>", ("not a WAV", "web")),
            ("header only", lambda data, s=suffix: _header_alone(data, s), ("no samples",)),
            ("half a header", lambda data: data[:15], ("",)),
        ):
            yield row(name, suffix, of_bytes(change, suffix), "skipped", words, "header")
    for name, (suffix, subtype, change, status, words) in IN_SOME.items():
        yield row(name, suffix, of_sound(change, suffix, subtype), status, words, "checks")
    noise = np.random.default_rng(0).bytes(64_000)
    for name, data, status, words in (
        ("nothing but NUL", bytes(64_000), "skipped", ("silent: every sample is 0",)),
        ("random bytes", noise, "flagged", ("hardly possible for song",)),
    ):
        make = of_bytes(lambda _, data=data: data, "cbin")
        yield row(name, "cbin", make, status, words, "checks")
    yield row("no rec", "cbin", lambda path: write(path, content(song("r"), "cbin")[0]), "skipped",
              (".rec is missing",), "header")  # fmt: skip
    yield row("cut rec", "cbin", lambda path: write(path, content(song("s"), "cbin")[0], b"\xff"),
              "skipped", (".rec",), "header")  # fmt: skip
    yield from _headers()
    yield from _places()


def _patched(at: int, value: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + value + data[at + len(value) :]


def _headers() -> Iterator[FaultyFile]:
    """Faults of the header of a WAV file of 44 bytes."""
    for name, at, value, status, words in (
        ("rate 0", 24, bytes(4), "skipped", ("0 Hz",)),
        ("rate of 2 GHz", 24, b"\xff\xff\xff\x7f", "skipped", ("2147483647 Hz",)),
        ("0 channels", 22, bytes(2), "skipped", ("0 channels",)),
        ("ADPCM", 20, b"\x11\x00", "skipped", ("format 17",)),
        ("MP3 in WAV", 20, b"\x55\x00", "skipped", ("format 85",)),
        ("size 0", 40, bytes(4), "flagged", ("0 bytes",)),
        ("size too large", 40, (3 * 64_000).to_bytes(4, "little"), "flagged",
         ("cut short", "96000", "64000")),
        ("unknown size", 40, b"\xff\xff\xff\xff", "ok", ()),
        ("size of arecord", 40, (0x80000000).to_bytes(4, "little"), "ok", ()),
        ("size of SoX", 40, (0x7FFFF000).to_bytes(4, "little"), "ok", ()),
    ):  # fmt: skip
        make = of_bytes(_patched(at, value), "wav")
        yield FaultyFile(f"bird/45/songs/{name}.wav", make, status, words, "header")


def _places() -> Iterator[FaultyFile]:
    """Faults of names, links and kinds of files, and copies."""

    def beside(path: Path, name: str) -> Path:
        write(path.parent / name, *content(song(name)))
        return path.parent / name

    def pipe(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)

    def copy(path: Path) -> None:
        write(path, beside(path, "a copied song.wav").read_bytes())

    def copy_of(change: Callable[[Sound], Sound], suffix: str, subtype: str) -> Callable:  # type: ignore[type-arg]
        def make(path: Path) -> None:
            original, _ = sf.read(beside(path, f"a song of {path.stem}.wav"))
            write(path, *content(change(original), suffix, subtype))

        return make

    def link(to: str) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(to)

        return make

    songs = "bird/45/songs"
    good = of_sound(lambda s: s)
    for path, make, status, words in (
        (f"{songs}/a folder.wav", lambda path: path.mkdir(parents=True), "skipped", ("folder",)),
        (f"{songs}/link to nothing.wav", link("nowhere.wav"), "skipped", ("cannot be read",)),
        (f"{songs}/loop.wav", link("loop.wav"), "skipped", ("cannot be read",)),
        (f"{songs}/pipe.wav", pipe, "skipped", ("not a regular file",)),
        (f"{songs}/" + os.fsdecode(b"\xe9t\xe9.wav"), good, "skipped", ("not valid UTF-8",)),
        (f"{songs}/compressed.mp3", good, "skipped", (".mp3 files are not read",)),
        (f"{songs}/compressed.ogg", good, "skipped", (".ogg files are not read",)),
        (f"{songs}/compressed.m4a", good, "skipped", (".m4a files are not read",)),
        (f"{songs}/compressed.WMA", good, "skipped", (".wma files are not read",)),
        ("at the top.wav", good, "skipped", ("not in",)),
        (f"{songs}/deep/down/below.wav", good, "skipped", ("not in",)),
    ):
        yield FaultyFile(path, make, status, words, "listing")
    yield FaultyFile(f"{songs}/z copy.wav", copy, "skipped", ("same content as",), "bytes")
    for name, change, suffix, subtype, words in (
        ("half gain", lambda s: 0.5 * s, "wav", "PCM_16", ("lies in",)),
        ("as float", lambda s: s, "wav", "FLOAT", ("lies in",)),
        ("as flac", lambda s: s, "flac", "PCM_16", ("lies in",)),
        ("as aiff in 24 bits", lambda s: 0.7 * s, "aiff", "PCM_24", ("lies in",)),
        ("cut out", lambda s: s[16_003:56_000], "wav", "PCM_16", ("lies in", "from 0.500 s")),
        ("retouched", _with(0.3), "w64", "PCM_16", ("lies in",)),
    ):
        make = copy_of(change, suffix, subtype)
        yield FaultyFile(f"{songs}/{name}.{suffix}", make, "skipped", words, "same_sound")


FAULTY = list(_rows())
# What nothing is wrong with: name -> (suffix, subtype, sample rate).
GOOD = {
    "16 bits.wav": ("wav", "PCM_16", RATE),
    "24 bits.wav": ("wav", "PCM_24", 44_100),
    "32 bits.wav": ("wav", "PCM_32", 48_000),
    "float.WAV": ("wav", "FLOAT", 96_000),
    "double.wav": ("wav", "DOUBLE", 16_000),
    "8 bits.wav": ("wav", "PCM_U8", 22_050),
    "long.rf64": ("rf64", "PCM_16", RATE),
    "long.w64": ("w64", "FLOAT", RATE),
    "mac.aiff": ("aiff", "PCM_16", 44_100),
    "mac.aif": ("aiff", "FLOAT", RATE),
    "packed.flac": ("flac", "PCM_24", RATE),
    "evtaf.cbin": ("cbin", "PCM_16", RATE),
    "flac with the suffix of.wav": ("flac", "PCM_16", RATE),
}


def write_all(root: Path) -> None:
    """Write every good and faulty file below ``root``."""
    for fault in FAULTY:
        fault.make(root / fault.path)
    for name, (suffix, subtype, rate) in GOOD.items():
        of_sound(lambda s: s, suffix, subtype, rate)(root / "bird" / "45" / "songs" / name)
