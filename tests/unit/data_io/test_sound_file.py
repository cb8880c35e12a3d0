"""Sound of every container and width is read on one scale, in blocks, and no file is touched."""

import hashlib
import os
import random
import resource
import signal
import stat
import struct
import subprocess
import sys
import wave
from pathlib import Path

import evfuncs
import numpy as np
import pytest
import soundfile as sf

from data_io.names.folders import READ
from data_io.sound.file import BadSoundError, open_sound
from study.base.paths import ROOT
from tests.helpers.sound_chunks import aiff, aiff_chunk, chunk, comm, fmt, rf64, ssnd, wav

RATE, N = 16_000, 5000
SONG = np.random.default_rng(0).normal(0, 3000, (N, 2)).round().astype(np.int16)
REC = """File created: Fri, Mar 23, 2012, 08:08:15

     begin rec = 0 ms
     trig time  = 2000 ms
     rec end = 12305 ms

ADFREQ =   {rate}
Chans = {n_channels}
Samples = {n_samples}
Catch = 0
Output Sound File =C:\\playbacks\\{name}.wav
T Before = 2.0000000000E+0
T After = 2.0000000000E+0
Thresholds =
2.000000E+0
Feedback information:

"""


@pytest.fixture(autouse=True)
def alarm():
    def ring(*_):
        raise TimeoutError("waited for 20 s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def facts_of(path):
    with open_sound(path) as sound:
        return sound.facts


def whole(path, n_block=1000):
    with open_sound(path) as sound:
        blocks = list(sound.blocks(n_block))
        assert [len(block) for block in blocks[:-1]] == [n_block] * (len(blocks) - 1)
        return np.concatenate(blocks)


def put(path, content):
    path.write_bytes(content)
    return path


def cbin(folder, name="x", content=None, **changed):
    said = {"rate": RATE, "n_channels": 2, "n_samples": N, "name": "call"} | changed
    (folder / f"{name}.rec").write_bytes(REC.format(**said).encode("latin-1"))
    return put(
        folder / f"{name}.cbin", SONG.astype(">i2").tobytes() if content is None else content
    )


WIDTHS = {
    "WAV": ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"],
    "WAVEX": ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"],
    "RF64": ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"],
    "W64": ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"],
    "AIFF": ["PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"],
    "FLAC": ["PCM_S8", "PCM_16", "PCM_24"],
}
BITS = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32} | {
    "FLOAT": 32, "DOUBLE": 64,
}  # fmt: skip
CASES = [(kind, subtype, n) for kind, some in WIDTHS.items() for subtype in some for n in (1, 2, 5)]


@pytest.mark.parametrize(("kind", "subtype", "n_channels"), CASES)
def test_samples_are_those_that_libsndfile_decodes(tmp_path, kind, subtype, n_channels):
    rng = np.random.default_rng(1)
    truth = rng.uniform(-1, 1, (N, n_channels))
    truth[:2] = [[-1.0], [1.0]]
    path = tmp_path / "x.wav"
    sf.write(path, truth, RATE, format=kind, subtype=subtype)
    facts = facts_of(path)
    expected = sf.read(path, dtype="float32", always_2d=True)[0]
    found = whole(path)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(found, truth, atol=2.1 / 2 ** min(BITS[subtype], 24))
    container = {"WAVEX": "WAV", "AIFF": "AIFC" if BITS[subtype] == 64 else None}.get(kind, kind)
    assert facts.container == container or (kind == "AIFF" and facts.container in ("AIFF", "AIFC"))
    assert (facts.bits, facts.n_samples, facts.n_channels) == (BITS[subtype], N, n_channels)
    assert (facts.sample_rate_hz, facts.missing_samples, facts.remarks) == (RATE, 0, ())
    assert facts.coding == ("float" if subtype in ("FLOAT", "DOUBLE") else "PCM")


@pytest.mark.parametrize("endian", ["LITTLE", "BIG"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32"])
def test_aifc_of_both_byte_orders_is_read(tmp_path, endian, subtype):
    path = tmp_path / "x.aifc"
    sf.write(path, SONG / 32768, RATE, format="AIFF", subtype=subtype, endian=endian)
    np.testing.assert_array_equal(whole(path), SONG / np.float32(32768))


def test_samples_of_16_bits_are_those_of_pythons_own_reader(tmp_path):
    path = tmp_path / "x.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, RATE, 0, "NONE", ""))
        file.writeframes(SONG.tobytes())
    with wave.open(str(path), "rb") as file:
        numbers = np.frombuffer(file.readframes(N), "<i2").reshape(-1, 2)
    np.testing.assert_array_equal(whole(path), numbers / np.float32(32768))


@pytest.mark.parametrize(("bits", "n_bytes"), [(12, 2), (20, 3), (4, 1), (18, 3)])
def test_bits_that_fill_no_byte_lie_at_the_top_of_it(tmp_path, bits, n_bytes):
    # Multimedia Programming Interface 1.0: left-justified in the smallest number of bytes.
    numbers = np.arange(-8, 8) << (8 * n_bytes - 4)
    if n_bytes == 1:
        raw = (numbers + 128).astype("u1").tobytes()
    else:
        raw = b"".join(int(n).to_bytes(n_bytes, "little", signed=True) for n in numbers)
    path = put(tmp_path / "x.wav", wav(chunk(b"fmt ", fmt(bits=bits)), chunk(b"data", raw)))
    np.testing.assert_array_equal(whole(path)[:, 0], np.arange(-8, 8) / np.float32(8))
    assert facts_of(path).bits == bits


def test_float_beyond_full_scale_and_no_numbers_come_as_they_are(tmp_path):
    numbers = np.array([3.5, -1e300, np.nan, np.inf, 1e-300, 0.25])
    data = chunk(b"data", numbers.astype("<f8").tobytes())
    found = whole(put(tmp_path / "x.wav", wav(chunk(b"fmt ", fmt(3, bits=64)), data)))[:, 0]
    np.testing.assert_array_equal(found, np.float32([3.5, -np.inf, np.nan, np.inf, 0, 0.25]))


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "FLAC", "cbin"])
@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, 0), (0, 1), (17, 18), (1234, 4321), (4999, 5000), (0, 5000), (5000, 5000)],
)
@pytest.mark.parametrize("n_block", [1, 7, 1000, 10**12])
def test_a_piece_is_exactly_that_part_of_the_whole(tmp_path, kind, start, stop, n_block):
    path = tmp_path / "x.wav"
    if kind == "cbin":
        path = cbin(tmp_path)
    else:
        sf.write(path, SONG, RATE, format=kind)
    if n_block == 1 and stop - start > 100:
        stop = start + 100
    with open_sound(path) as sound:
        blocks = list(sound.blocks(n_block, start, stop))
        again = list(sound.blocks(n_block, start, stop))
    found = np.concatenate([np.zeros((0, 2), np.float32), *blocks])
    np.testing.assert_array_equal(found, SONG[start:stop] / np.float32(32768))
    np.testing.assert_array_equal(found, np.concatenate([found[:0], *again]))


@pytest.mark.parametrize(
    ("n_block", "start", "stop"), [(0, 0, 1), (1, -1, 5), (1, 6, 5), (1, 0, N + 1), (-5, 0, 1)]
)
def test_samples_that_are_not_there_are_refused(tmp_path, n_block, start, stop):
    path = tmp_path / "x.wav"
    sf.write(path, SONG, RATE)
    with open_sound(path) as sound, pytest.raises(ValueError, match=f"the file holds {N} samples"):
        sound.blocks(n_block, start, stop)


@pytest.mark.parametrize("kind", ["WAV", "W64", "RF64", "AIFF", "FLAC"])
@pytest.mark.parametrize("suffix", READ)
def test_the_content_says_what_a_file_is_and_not_its_name(tmp_path, kind, suffix):
    path = tmp_path / f"x{suffix.upper()}"
    sf.write(put(path, b""), SONG, RATE, format=kind, subtype="PCM_16")
    np.testing.assert_array_equal(whole(path), SONG / np.float32(32768))


@pytest.mark.parametrize("n_channels", [1, 2])
def test_cbin_is_read_as_evfuncs_reads_it(tmp_path, n_channels):
    path = cbin(tmp_path, "bl26lb16_190412_0725.12", n_channels=n_channels, n_samples=1)
    found = whole(path)
    for channel in range(n_channels):
        numbers, rate = evfuncs.load_cbin(path, channel)
        np.testing.assert_array_equal(found[:, channel], numbers / np.float32(32768))
        assert rate == facts_of(path).sample_rate_hz == RATE


def test_cbin_has_the_time_of_its_rec_and_names_what_is_missing(tmp_path):
    path = cbin(tmp_path, n_samples=N + 7)
    facts = facts_of(path)
    assert facts.recorded_at == "2012-03-23T08:08:15"
    assert (facts.container, facts.coding, facts.bits, facts.missing_samples) == (
        "cbin",
        "PCM",
        16,
        7,
    )


def test_rec_in_the_letters_of_an_old_windows_is_read(tmp_path):
    path = cbin(tmp_path, name="jürgen")
    assert facts_of(path).n_samples == N
    cut = path.with_suffix(".rec")
    assert b"\xfc" in REC.format(rate=1, n_channels=1, n_samples=1, name="jürgen").encode("latin-1")
    cut.write_bytes(
        REC.format(rate=RATE, n_channels=2, n_samples=N, name="jürgen").encode("cp1252")
    )
    assert facts_of(path).n_samples == N


@pytest.mark.parametrize("n_between", range(6))
def test_a_rec_says_its_numbers_wherever_the_empty_line_is(tmp_path, n_between):
    path = tmp_path / "song.cbin"
    path.write_bytes(bytes(800))
    others = ["begin rec = 0 ms", "trig time = 2000 ms", "rec end = 4000 ms", "Catch = 1", "x = 1"]
    lines = ["File created: Thu, Apr 19, 2012, 07:25:02", *others[:n_between],
             "ADFREQ =  3.2E+4", "Chans =  2", "Samples =  200", *others[n_between:]]  # fmt: skip
    path.with_suffix(".rec").write_text("\n".join(lines))
    facts = facts_of(path)
    assert (facts.sample_rate_hz, facts.n_channels, facts.n_samples) == (32_000, 2, 200)
    assert facts.recorded_at == "2012-04-19T07:25:02"


def test_cbin_without_a_rec_that_helps_is_refused_by_name(tmp_path):
    path = cbin(tmp_path, "song")
    rec = tmp_path / "song.rec"
    for content, reason in [
        (b"", "song.rec does not say ADFREQ and Chans"),
        (b"File created: x\nADFREQ = fast\n", "song.rec cannot be read: could not convert"),
        (b"ADFREQ = 32000\n", "song.rec does not say Chans .*add a line 'Chans = ...'"),
        (b"ADFREQ = 32000\nChans = many\n", "song.rec cannot be read: invalid literal"),
        (b"ADFREQ = 0\nChans = 1\n", "the header says 0 Hz"),
        (b"ADFREQ = 32000\nChans = 0\n", "0 channels"),
        (b"ADFREQ = 32000\nChans = -2\n", "-2 channels"),
        (b" " * 1_000_001, "song.rec has 1000001 bytes"),
    ]:
        rec.write_bytes(content)
        with pytest.raises(BadSoundError, match=reason):
            open_sound(path)
    rec.unlink()
    with pytest.raises(BadSoundError, match=r"song.rec is missing.*copy it beside the file"):
        open_sound(path)
    with pytest.raises(BadSoundError, match="the file holds no samples; x.rec promises 5000"):
        open_sound(cbin(tmp_path, content=b"\0\0"))
    with pytest.raises(BadSoundError, match="empty"):
        open_sound(cbin(tmp_path, content=b""))


def flac(tmp_path, n=44_100):
    song = np.random.default_rng(3).normal(0, 3000, n).astype("i2")
    sf.write(tmp_path / "x.flac", song, 44_100)
    return song, (tmp_path / "x.flac").read_bytes()


@pytest.mark.parametrize("share", [0.999, 0.9, 0.5, 0.3])
def test_a_cut_flac_is_read_up_to_the_cut_and_says_both_lengths(tmp_path, share, monkeypatch):
    song, content = flac(tmp_path)
    path = put(tmp_path / "y.flac", content[: int(len(content) * share)])
    facts = facts_of(path)
    assert facts.n_samples + facts.missing_samples == len(song)
    assert len(song) * share - 8192 < facts.n_samples < len(song) * share + 4096
    seconds = facts.n_samples / 44_100
    assert f"the FLAC stream is cut or damaged after {seconds:.3f} s" in facts.remarks[0]
    np.testing.assert_array_equal(whole(path)[:, 0], song[: facts.n_samples] / np.float32(32768))
    # Some versions of libsndfile hang where they seek in a cut file.
    monkeypatch.setattr(sf.SoundFile, "seek", lambda *_: pytest.fail("sought in a cut file"))
    with open_sound(path) as sound:
        piece = np.concatenate(list(sound.blocks(100, 1000, facts.n_samples - 3)))
    np.testing.assert_array_equal(piece[:, 0], song[1000 : facts.n_samples - 3] / np.float32(32768))


def test_no_bit_that_flips_in_a_flac_goes_unseen_or_changes_what_is_read(tmp_path):
    song, content = flac(tmp_path, 20_000)
    rng = random.Random(0)
    path = tmp_path / "y.flac"
    for _ in range(60):
        damaged = bytearray(content)
        damaged[rng.randrange(9000, len(content))] ^= 1 << rng.randrange(8)
        facts = facts_of(put(path, bytes(damaged)))
        assert facts.missing_samples and "damaged" in facts.remarks[0]
        found = whole(path)[:, 0]
        np.testing.assert_array_equal(found, song[: len(found)] / np.float32(32768))


def test_a_flac_whose_length_was_not_known_is_counted(tmp_path):
    song, content = flac(tmp_path)
    no_length = content[:21] + bytes([content[21] & 0xF0]) + bytes(4) + content[26:]
    path = put(tmp_path / "y.flac", no_length)
    facts = facts_of(path)
    assert (facts.n_samples, facts.missing_samples, facts.remarks) == (len(song), 0, ())
    np.testing.assert_array_equal(whole(path)[:, 0], song / np.float32(32768))


def test_a_flac_that_holds_less_than_it_says_without_a_damage_is_cut(tmp_path):
    song, content = flac(tmp_path)
    n_more = int.from_bytes(content[22:26], "big") + 500
    path = put(tmp_path / "y.flac", content[:22] + n_more.to_bytes(4, "big") + content[26:])
    assert facts_of(path).n_samples == len(song)
    assert facts_of(path).missing_samples == 500


@pytest.mark.parametrize("n_bytes", [4, 20, 41, 42, 100])
def test_a_flac_that_ends_with_its_header_is_refused(tmp_path, n_bytes):
    _, content = flac(tmp_path)
    with pytest.raises(BadSoundError, match=r"FLAC|holds no samples"):
        open_sound(put(tmp_path / "y.flac", content[:n_bytes]))


def test_the_codings_of_other_programs_are_refused_before_libsndfile(tmp_path, monkeypatch):
    contents = {}
    for kind, subtype in [
        ("WAV", "MS_ADPCM"), ("WAV", "IMA_ADPCM"), ("WAV", "ULAW"), ("WAV", "ALAW"),
        ("WAV", "GSM610"), ("WAV", "G721_32"), ("W64", "ALAW"), ("W64", "ULAW"),
        ("WAVEX", "ALAW"), ("AIFF", "ULAW"), ("AIFF", "ALAW"), ("AIFF", "IMA_ADPCM"),
        ("OGG", "VORBIS"), ("CAF", "PCM_16"), ("AU", "PCM_16"), ("MP3", "MPEG_LAYER_III"),
    ]:  # fmt: skip
        path = tmp_path / "other"
        sf.write(path, SONG[:, :1], RATE, format=kind, subtype=subtype)
        contents[kind, subtype] = path.read_bytes()
    monkeypatch.setattr(sf.SoundFile, "_open", lambda *_: pytest.fail("libsndfile saw the file"))
    for (kind, _), content in contents.items():
        words = (
            "coded" if kind in ("WAV", "W64", "WAVEX", "AIFF") else "not a WAV, W64, AIFF or FLAC"
        )
        with pytest.raises(BadSoundError, match=words):
            open_sound(put(tmp_path / "x.wav", content))


def test_files_that_are_no_sound_say_what_they_are(tmp_path):
    for content, words in [
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS .run git lfs pull"),
        (b"/annex/objects/MD5E-s1--d41d8c\n", "git-annex"),
        (b"<!DOCTYPE html><html>404", "a page of the web"),
        (b"PK\x03\x04" + bytes(99), "a ZIP file"),
        (b"\0\0\0\x20ftypM4A ", "an MP4 or M4A file"),
        (b"ID3\x04" + bytes(99), "an MP3 file"),
        (b"OggS" + bytes(99), "an Ogg file"),
        (bytes(9000), "starts with NUL bytes"),
        (random.Random(0).randbytes(9000), "not a WAV, W64, AIFF or FLAC file: it starts with"),
        (b"", "the file is empty"),
        (b"R", "it starts with b'R'"),
    ]:
        with pytest.raises(BadSoundError, match=words):
            open_sound(put(tmp_path / "x.wav", content))


def test_what_is_no_file_is_refused_by_name(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "nothing.wav").symlink_to("gone.wav")
    (tmp_path / "self.wav").symlink_to("self.wav")
    (tmp_path / "folder.wav").mkdir()
    for name, words in [
        ("pipe", "not a regular file"), ("nothing", "No such file"), ("self", "symbolic links"),
        ("folder", "a folder, not a sound file"), ("gone", "No such file"),
    ]:  # fmt: skip
        with pytest.raises(BadSoundError, match=words):
            open_sound(tmp_path / f"{name}.wav")


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "AIFF"])
def test_names_that_are_not_utf8_open(tmp_path, kind):
    sf.write(tmp_path / "x", SONG, RATE, format=kind)
    path = tmp_path / os.fsdecode(b"j\xfcng.wav")
    (tmp_path / "x").rename(path)
    np.testing.assert_array_equal(whole(path), SONG / np.float32(32768))


def test_no_open_or_read_changes_a_file(tmp_path):
    for kind in ("WAV", "W64", "AIFF", "FLAC"):
        sf.write(tmp_path / f"x.{kind}", SONG, RATE, format=kind, subtype="PCM_16")
    path = cbin(tmp_path)
    paths = sorted(tmp_path.iterdir())
    for path in paths:
        os.utime(path, ns=(10**18, 10**18 + 1))
        path.chmod(0o444)

    def state():
        return [(hashlib.sha256(p.read_bytes()).digest(), p.stat().st_mtime_ns, p.stat().st_mode)
                for p in sorted(tmp_path.iterdir())]  # fmt: skip

    before = state()
    for path in paths:
        if path.suffix != ".rec":
            whole(path)
    assert state() == before
    assert stat.S_IMODE(paths[0].stat().st_mode) == 0o444


def test_a_file_that_grows_shrinks_or_goes_is_seen(tmp_path):
    path = tmp_path / "x.wav"
    sf.write(path, SONG, RATE)
    n_bytes = path.stat().st_size
    with open_sound(path) as sound:
        assert (sound.n_bytes, sound.mtime_ns) == (n_bytes, path.stat().st_mtime_ns)
        assert not sound.has_changed()
        with path.open("ab") as file:
            file.write(b"more")
        assert len(np.concatenate(list(sound.blocks(100)))) == N
        assert sound.has_changed()
    with open_sound(path) as sound:
        os.utime(path, ns=(1, 1))
        assert sound.has_changed()
    with open_sound(path) as sound:
        os.truncate(path, n_bytes // 2)
        assert sound.has_changed()
        with pytest.raises(BadSoundError, match="became shorter while it was read"):
            list(sound.blocks(1000))
    with open_sound(path) as sound:
        path.unlink()
        assert sound.has_changed()


def test_the_file_is_closed_after_use_and_after_a_refusal(tmp_path):
    def n_open():
        return len(list(open_files.iterdir()))

    open_files = Path("/proc/self/fd")
    if not open_files.exists():
        pytest.skip("this system does not list open files")
    before = n_open()
    sf.write(tmp_path / "x.wav", SONG, RATE)
    whole(tmp_path / "x.wav")
    with pytest.raises(BadSoundError):
        open_sound(put(tmp_path / "y.wav", wav()))
    assert n_open() == before


def test_two_hours_in_one_file_take_the_memory_of_a_block(tmp_path):
    n = 2 * 3600 * 44_100
    head = rf64(fmt(rate=44_100), b"", 2 * n)
    with (tmp_path / "x.wav").open("wb") as file:
        file.write(head)
        file.truncate(len(head) + 2 * n)  # sparse: zeros that take no place on the disk
    code = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from data_io.sound.file import open_sound\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "with open_sound(Path(sys.argv[1])) as sound:\n"
        "    n = sum(len(block) for block in sound.blocks(2**18))\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nprint(n, after - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "x.wav"], cwd=ROOT,
                          capture_output=True, text=True, check=True)  # fmt: skip
    n_read, grown = map(int, done.stdout.split())
    assert n_read == n
    kilobyte = 1024 if sys.platform == "darwin" else 1
    assert grown / kilobyte < 20_000  # of 635 MB


def test_memory_is_not_taken_for_what_a_header_only_promises(tmp_path):
    path = put(
        tmp_path / "x.wav", wav(chunk(b"fmt ", fmt()), chunk(b"data", bytes(9000), 3 * 10**9))
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(whole(path, 10**12)) == 4500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_comm_may_lie_behind_the_samples_and_names_may_have_an_odd_length(tmp_path):
    raw = SONG[:, 0].astype(">i2").tobytes()
    parts = (aiff_chunk(b"NAME", b"odd"), ssnd(raw, offset=6), aiff_chunk(b"COMM", comm(N)))
    path = put(tmp_path / "x.aif", aiff(*parts))
    np.testing.assert_array_equal(whole(path)[:, 0], SONG[:, 0] / np.float32(32768))


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000, 96_000, 250_000, 500_000])
def test_the_rate_of_80_bits_is_read(tmp_path, rate):
    path = tmp_path / "x.aif"
    sf.write(path, SONG, rate, format="AIFF")
    assert facts_of(path).sample_rate_hz == rate
    raw = struct.pack(">h", 1) * 100
    path = put(path, aiff(aiff_chunk(b"COMM", comm(100, rate=rate + 0.4)), ssnd(raw)))
    assert facts_of(path).sample_rate_hz == rate
