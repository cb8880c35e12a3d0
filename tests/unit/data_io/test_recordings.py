"""Every file is accounted for: read, flagged or skipped with a reason; none is ever changed."""

import hashlib
import os
import random
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from numpy.typing import NDArray

from data_io.names.listing import scan
from data_io.recordings.table import (
    Recording,
    assign_split,
    read,
    skip_duplicates,
)

RATE = 16_000
N = 16_000
MIN_SECONDS = 0.064
SONG: NDArray[np.int16] = np.random.default_rng(0).normal(0, 3000, N).astype("<i2")
BYTES = SONG.tobytes()
UNKNOWN = 0xFFFFFFFF


def fmt(tag: int = 1, n_channels: int = 1, rate: int = RATE, bits: int = 16) -> bytes:
    frame_bytes = n_channels * bits // 8
    per_second = rate * frame_bytes % 2**32
    return struct.pack("<HHIIHH", tag, n_channels, rate, per_second, frame_bytes, bits)


def chunk(name: bytes, body: bytes, promised: int | None = None) -> bytes:
    size = len(body) if promised is None else promised
    return name + struct.pack("<I", size) + body + b"\0" * (len(body) % 2)


def wav(*chunks: bytes, magic: bytes = b"RIFF") -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return magic + struct.pack("<I", len(body)) + body


def pcm(samples: NDArray[np.int16] = SONG, n_channels: int = 1) -> bytes:
    data = samples.astype("<i2").tobytes()
    return wav(chunk(b"fmt ", fmt(n_channels=n_channels)), chunk(b"data", data))


def floats(samples: NDArray[np.float64]) -> bytes:
    data = samples.astype("<f4").tobytes()
    return wav(chunk(b"fmt ", fmt(tag=3, bits=32)), chunk(b"data", data))


def with_fmt(body: bytes) -> bytes:
    return wav(chunk(b"fmt ", body), chunk(b"data", BYTES))


def with_size(promised: int) -> bytes:
    return wav(chunk(b"fmt ", fmt()), chunk(b"data", BYTES, promised))


def rf64(data_bytes: int) -> bytes:
    ds64 = struct.pack("<QQQI", data_bytes + 72, data_bytes, data_bytes // 2, 0)
    chunks = (chunk(b"ds64", ds64), chunk(b"fmt ", fmt()), chunk(b"data", BYTES, UNKNOWN))
    return wav(*chunks, magic=b"RF64")


def encoded(path: Path, file_format: str, subtype: str) -> bytes:
    sf.write(path, SONG, RATE, format=file_format, subtype=subtype)
    content = path.read_bytes()
    path.unlink()
    return content


def ima_adpcm() -> bytes:
    return fmt(tag=17, bits=4) + struct.pack("<HH", 2, 505)


def sine(amplitude: float) -> NDArray[np.float64]:
    return amplitude * np.sin(2 * np.pi * 440 * np.arange(N) / RATE)


def put(root: Path, name: str, content: bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def ingested(root: Path) -> dict[str, Recording]:
    return {r.path: read(root, r, MIN_SECONDS)[0] if r.is_used else r for r in scan(root)}


def read_one(root: Path, content: bytes) -> tuple[Recording, NDArray[np.float32] | None]:
    put(root, "b1/43/songs/x.wav", content)
    (listed,) = scan(root)
    return read(root, listed, MIN_SECONDS)


NOT_FINITE = np.where(np.arange(N) == 5, np.nan, sine(0.5))
INFINITE = np.where(np.arange(N) < 3, -np.inf, sine(0.5))
SKIPPED = {
    "0 bytes": (b"", "the file is empty (0 bytes)"),
    "garbage": (random.Random(0).randbytes(9000), "not a WAV, W64, AIFF or FLAC file"),
    "all NUL": (bytes(9000), "it starts with NUL bytes"),
    "five bytes": (b"RIFF\0", "not a WAV, W64, AIFF or FLAC file: it starts with b'RIFF\\x00'"),
    "AVI": (b"RIFF\0\0\0\0AVI " + BYTES, "not a WAV, W64, AIFF or FLAC file: it starts with"),
    "big-endian RIFX": (b"RIFX" + pcm()[4:], "a big-endian WAV file"),
    "RIFF and WAVE only": (wav(), "the header holds no data chunk"),
    "no data chunk": (wav(chunk(b"fmt ", fmt())), "the header holds no data chunk"),
    "chunk beyond the end": (wav(chunk(b"junk", b"", 2**31)), "the header holds no data chunk"),
    "header only": (pcm()[:44], "the file holds no samples; its header promises 16000"),
    "too short": (pcm(SONG[:1000]), "0.062 s is shorter than one snippet (0.064 s)"),
    "no samples": (pcm(SONG[:0]), "the file holds no samples; its header promises 0"),
    "data before format": (
        wav(chunk(b"data", BYTES), chunk(b"fmt ", fmt())),
        "no format before the data",
    ),
    "format too short": (with_fmt(fmt()[:14]), "no format before the data"),
    "NaN": (floats(NOT_FINITE), "1 samples are not finite numbers"),
    "Inf": (floats(INFINITE), "3 samples are not finite numbers"),
    "silent": (pcm(np.zeros(N, np.int16)), "silent: every sample is 0"),
    "rate 0": (
        with_fmt(fmt(rate=0)),
        "the header says 0 Hz, 1 channels, 16 bits, 2 bytes a sample",
    ),
    "rate 1": (with_fmt(fmt(rate=1)), "the header says 1 Hz"),
    "rate 4294967295": (with_fmt(fmt(rate=2**32 - 1)), "cannot be read"),
    "0 channels": (
        with_fmt(fmt()[:2] + b"\0\0" + fmt()[4:]),
        "the header says 16000 Hz, 0 channels, 16 bits, 2 bytes a sample",
    ),
    "0 bits": (with_fmt(fmt(bits=0)), "0 bytes a sample"),
    "17 bits, 2000 channels": (with_fmt(fmt(n_channels=2000, bits=17)), "cannot be read"),
    "IMA ADPCM": (with_fmt(ima_adpcm()), "the samples are coded in format 17"),
    "mu-law": (with_fmt(fmt(tag=7, bits=8)), "the samples are coded in format 7"),
    "EXTENSIBLE, no subformat": (with_fmt(fmt(tag=0xFFFE)), "coded in format 65534"),
    "two formats": (
        wav(chunk(b"fmt ", ima_adpcm()), chunk(b"fmt ", fmt()), chunk(b"data", BYTES)),
        "the header holds two formats",
    ),
}
FLAGGED = {
    "data size 0": (with_size(0), N, "the header says 0 bytes of data"),
    "half": (pcm()[: 44 + N], 8000, "the header promises 16000 samples, the file holds 8000"),
    "cut within a sample": (
        pcm()[: 44 + 4001],
        2000,
        "the header promises 16000 samples, the file holds 2000",
    ),
    "one byte missing": (pcm()[:-1], N - 1, "promises 16000 samples, the file holds 15999"),
    "3 GB promised": (
        with_size(3_000_000_000),
        N,
        "the header promises 1500000000 samples, the file holds 16000",
    ),
    "RF64, half": (rf64(2 * N)[:-N], 8000, "promises 16000 samples, the file holds 8000"),
    "RF64, 5 GB promised": (rf64(5 * 10**9), N, "promises 2500000000 samples"),
    "stereo": (pcm(np.repeat(SONG, 2), 2), N, "2 channels: the first is used"),
    "clipped": (pcm((sine(3).clip(-1, 1) * 32767).astype("i2")), N, "clipped: 78.5 % of samples"),
    "beyond full scale": (floats(sine(3)), N, "samples up to 3, beyond full scale (1.0)"),
    "zero tail": (
        pcm(np.r_[SONG, np.zeros(9600, np.int16)]),
        N + 9600,
        "the last 0.6 s are exact zeros",
    ),
}


@pytest.mark.parametrize("name", SKIPPED)
def test_unusable_file_is_skipped_by_reason_and_its_neighbours_are_read(
    tmp_path: Path, name: str
) -> None:
    content, reason = SKIPPED[name]
    bad = put(tmp_path, "b1/43/songs/bad.wav", content)
    put(tmp_path, "b1/43/songs/a.wav", pcm())
    put(tmp_path, "b1/43/songs/c.wav", pcm())
    os.utime(bad, ns=(10**18, 10**18 + 1))
    result = ingested(tmp_path)
    assert [Path(path).stem for path in result] == ["a", "bad", "c"]
    assert [r.status for r in result.values()] == ["ok", "skipped", "ok"]
    assert reason in result["b1/43/songs/bad.wav"].reason
    assert result["b1/43/songs/bad.wav"].sha256 == hashlib.sha256(content).hexdigest()
    assert bad.read_bytes() == content
    assert bad.stat().st_mtime_ns == 10**18 + 1


@pytest.mark.parametrize("name", FLAGGED)
def test_doubtful_file_is_flagged_and_used(tmp_path: Path, name: str) -> None:
    content, n_samples, reason = FLAGGED[name]
    recording, waveform = read_one(tmp_path, content)
    assert recording.status == "flagged"
    assert reason in recording.reason
    assert waveform is not None
    assert waveform.shape == (n_samples,)
    assert recording.seconds == round(n_samples / RATE, 6)
    assert (tmp_path / recording.path).read_bytes() == content


def extensible(tag: int, bits: int) -> bytes:
    guid = struct.pack("<H", tag) + bytes.fromhex("000000001000800000aa00389b71")
    return fmt(tag=0xFFFE, bits=bits) + struct.pack("<HHI", 22, bits, 4) + guid


SOUND = {
    "plain": pcm(),
    "size unknown": with_size(UNKNOWN),
    "odd chunks before the data": wav(
        chunk(b"LIST", b"abc"),
        chunk(b"fmt ", fmt()),
        chunk(b"junk", b"q" * 7),
        chunk(b"data", BYTES),
    ),
    "chunks after the data": pcm() + chunk(b"LIST", b"recorded outdoors"),
    "EXTENSIBLE": with_fmt(extensible(1, 16)),
    "RF64": rf64(2 * N),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_file_is_read_without_a_flag(tmp_path: Path, name: str) -> None:
    recording, waveform = read_one(tmp_path, SOUND[name])
    assert (recording.status, recording.reason) == ("ok", "")
    assert (recording.sample_rate_hz, recording.n_channels, recording.seconds) == (RATE, 1, 1.0)
    assert waveform is not None
    assert waveform.dtype == np.float32
    np.testing.assert_array_equal(waveform, SONG / np.float32(32768))


@pytest.mark.parametrize("file_format", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize(
    ("subtype", "tolerance"),
    [
        ("PCM_U8", 1 / 127),
        ("PCM_16", 1 / 32767),
        ("PCM_24", 1e-6),
        ("PCM_32", 1e-6),
        ("FLOAT", 1e-6),
        ("DOUBLE", 1e-6),
    ],
)
def test_all_codings_are_on_the_same_scale(
    tmp_path: Path, file_format: str, subtype: str, tolerance: float
) -> None:
    truth = sine(0.7)
    path = put(tmp_path, "b1/43/x.wav", b"")
    sf.write(path, truth, RATE, format=file_format, subtype=subtype)
    recording, waveform = read(tmp_path, scan(tmp_path)[0], MIN_SECONDS)
    assert recording.status == "ok", recording.reason
    np.testing.assert_allclose(waveform, truth, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("file_format", "subtype"),
    [("OGG", "VORBIS"), ("AU", "PCM_16"), ("WAV", "MS_ADPCM"), ("AIFF", "ULAW")],
)
def test_other_codings_named_wav_are_refused_before_libsndfile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_format: str, subtype: str
) -> None:
    content = encoded(tmp_path / "other", file_format, subtype)
    refuse = lambda *_, **__: pytest.fail("libsndfile has seen the file")  # noqa: E731
    monkeypatch.setattr(sf.SoundFile, "_open", refuse)
    recording, waveform = read_one(tmp_path, content)
    assert recording.status == "skipped"
    assert waveform is None
    assert recording.reason.startswith("cannot be read: ")
    assert "not a WAV, W64" in recording.reason or "are coded" in recording.reason


@pytest.mark.parametrize("file_format", ["FLAC", "W64", "AIFF"])
def test_other_containers_named_wav_are_read(tmp_path: Path, file_format: str) -> None:
    recording, waveform = read_one(tmp_path, encoded(tmp_path / "other", file_format, "PCM_16"))
    assert recording.status == "ok", recording.reason
    np.testing.assert_array_equal(waveform, SONG / np.float32(32768))


def test_stereo_gives_its_first_channel(tmp_path: Path) -> None:
    both = np.stack([SONG, SONG[::-1]], axis=1).ravel()
    recording, waveform = read_one(tmp_path, pcm(both, n_channels=2))
    assert recording.n_channels == 2
    np.testing.assert_array_equal(waveform, SONG / np.float32(32768))


def test_all_flags_of_a_file_are_told(tmp_path: Path) -> None:
    loud = (sine(3).clip(-1, 1) * 32767).astype("i2")
    recording, _ = read_one(tmp_path, pcm(np.repeat(loud, 2), 2)[:-4000])
    assert [flag.split()[0] for flag in recording.reason.split("; ")] == ["cut", "2", "clipped:"]


def test_a_short_zero_tail_and_a_loud_song_are_no_faults(tmp_path: Path) -> None:
    loud = SONG.astype(float) / np.abs(SONG).max() * 32767
    recording, _ = read_one(tmp_path, pcm(np.r_[loud.astype("i2"), np.zeros(7000, np.int16)]))
    assert recording.status == "ok", recording.reason


def test_any_altered_header_is_survived(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    starts = [pcm()[:4000], rf64(2 * N)[:4000], with_fmt(extensible(1, 16))[:4000]]
    for i in range(300):
        altered = bytearray(starts[i % 3])
        for at in rng.integers(0, 84, 1 + i % 4):
            altered[at] = rng.integers(256)
        recording, waveform = read_one(tmp_path, bytes(altered))
        assert (waveform is None) == (recording.status == "skipped")
        assert (recording.status == "ok") == (recording.reason == "")


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(5, "I/O error")]
)
def test_file_that_cannot_be_opened_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    put(tmp_path, "b1/43/songs/x.wav", pcm())

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Path, "open", refuse)
    recording = ingested(tmp_path)["b1/43/songs/x.wav"]
    assert (recording.status, recording.sha256) == ("skipped", "")
    assert error.strerror in recording.reason


def used(name: str, bird: str = "b1", age: str = "43") -> Recording:
    path = f"{bird}/{age}/songs/{name}.wav"
    sha256 = hashlib.sha256(path.encode()).hexdigest()
    return Recording(bird, age, None, None, path, sha256, RATE, 1, 1.0, n_frames=251)


def sides(recordings: list[Recording], seed: int = 0, fraction: float = 0.2) -> dict[str, str]:
    return {r.path: r.split for r in assign_split(recordings, fraction, seed)}


MANY = [used(f"{i:02d}", bird, age) for bird in ("b1", "b2") for age in "59" for i in range(20)]


def test_split_holds_out_the_same_share_of_every_bird_and_age() -> None:
    result = assign_split(MANY, 0.2, seed=0)
    assert [replace(r, split="") for r in result] == MANY
    assert {r.split for r in result} == {"train", "valid"}
    held_out = [(r.bird, r.age) for r in result if r.split == "valid"]
    assert {key: held_out.count(key) for key in held_out} == {
        (bird, age): 4 for bird in ("b1", "b2") for age in "59"
    }


@pytest.mark.parametrize(
    ("n", "fraction", "n_valid"),
    [(1, 0.2, 0), (2, 0.2, 1), (2, 0.99, 1), (3, 0.01, 1), (10, 0.25, 2), (10, 0.99, 9)],
)
def test_split_leaves_something_on_both_sides_where_it_can(
    n: int, fraction: float, n_valid: int
) -> None:
    split = sides([used(str(i)) for i in range(n)], fraction=fraction)
    assert list(split.values()).count("valid") == n_valid
    assert list(split.values()).count("train") == n - n_valid


def test_split_does_not_depend_on_listing_order() -> None:
    shuffled = random.Random(1).sample(MANY, len(MANY))
    assert shuffled != MANY
    assert sides(shuffled) == sides(MANY)


def test_split_of_a_bird_does_not_depend_on_other_birds() -> None:
    alone = [r for r in MANY if r.bird == "b2"]
    assert sides(alone).items() <= sides(MANY).items()


def test_other_seed_gives_another_split_and_the_same_seed_the_same() -> None:
    splits = [sides(MANY, seed) for seed in (0, 0, 1, 2)]
    assert splits[0] == splits[1]
    assert splits[0] != splits[2] != splits[3] != splits[0]


def test_skipped_recordings_take_no_part_in_the_split() -> None:
    bad = [used(f"bad{i}").skipped("silent") for i in range(10)]
    good = [used(f"good{i}") for i in range(10)]
    assert sides(bad + good) == dict.fromkeys([r.path for r in bad], "") | sides(good)
    assert sides([*bad, good[0]])[good[0].path] == "train"


def test_duplicates_are_skipped_so_that_no_sound_is_on_both_sides(tmp_path: Path) -> None:
    for i in range(6):
        put(tmp_path, f"b1/43/songs/{i}.wav", pcm(SONG[: 8000 + i]))
        put(tmp_path, f"b1/43/songs/copy of {i}.wav", pcm(SONG[: 8000 + i]))
        put(tmp_path, f"b2/43/songs/{i}.wav", pcm(SONG[: 8000 + i]))
    recordings = assign_split(skip_duplicates(list(ingested(tmp_path).values())), 0.5, 0)
    kept = [r for r in recordings if r.is_used]
    assert len(recordings) == 18
    assert len({r.sha256 for r in kept}) == len(kept) == 6
    copies = [r for r in recordings if not r.is_used]
    assert {r.split for r in copies} == {""}
    originals = {r.path: r.sha256 for r in kept}
    for copy in copies:
        original = copy.reason.removeprefix("same content as ")
        assert originals[original] == copy.sha256


def test_unreadable_files_are_no_duplicates_of_each_other() -> None:
    unread = [replace(used(name), sha256="").skipped("cannot be read: no") for name in "ab"]
    assert skip_duplicates(unread) == unread
