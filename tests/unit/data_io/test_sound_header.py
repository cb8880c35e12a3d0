"""A header is believed only as far as the file bears it out, and no true length is lost."""

import signal
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_io.sound.file import BadSoundError, open_sound
from tests.helpers.sound_chunks import (
    aiff,
    aiff_chunk,
    bext,
    chunk,
    comm,
    extensible,
    fmt,
    info,
    rf64,
    ssnd,
    w64,
    w64_chunk,
    wav,
)

RATE, N = 16_000, 4000
SONG = np.random.default_rng(0).normal(0, 3000, N).round().astype("<i2")
BYTES = SONG.tobytes()
BIG = SONG.astype(">i2").tobytes()


@pytest.fixture(autouse=True)
def alarm():
    def ring(*_):
        raise TimeoutError("waited for 60 s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def put(tmp_path):
    def write(content, n_sparse=0):
        path = tmp_path / "x.wav"
        with path.open("wb") as file:
            file.write(content)
            file.truncate(len(content) + n_sparse)
        return path

    return write


def facts_of(path):
    with open_sound(path) as sound:
        return sound.facts


def read(path):
    with open_sound(path) as sound:
        return sound.facts, np.concatenate(list(sound.blocks(1000)))


def pcm(size=None, riff_size=None, body=BYTES, fmt_body=None, before=b"", behind=b""):
    data = chunk(b"data", body, size)
    return wav(before, chunk(b"fmt ", fmt_body or fmt()), data, behind, size=riff_size)


# What recorders that stream write: (size of data, size of the whole; None for the true one).
STREAMED = [
    (0xFFFFFFFF, 0xFFFFFFFF),  # ffmpeg
    (0xFFFFFFFF, None),
    (0x7FFFF000, 0x7FFFF024),  # SoX
    (0x7FFFF000 // 6 * 6, 0x7FFFF000 // 6 * 6 + 36),  # SoX with 3 channels
    (0x80000000, 0x80000024),  # arecord
    (0x7FFFFF00, 0x7FFFFF24),  # arecord, later
    (0x7FFFFFFF, 0x7FFFFFFF),
    (0x7FFFFFFF - 36, 0x7FFFFFFF),
    (0x7FFFFFFF - 44, 0x7FFFFFFF - 8),
    (0xFFFFFFFF - 36, 0xFFFFFFFF),
    (0xFFFFFFFF - 44, 0xFFFFFFFF - 8),
    (0xFFFFFFFE, 0xFFFFFFFE),
    (0xFFFFF000, 0xFFFFF024),
    (0xFFFFFFFF - 702, 0xFFFFFFFF),  # with a bext chunk before the data
    (0x7FFFF000 - 36, 0x7FFFF000),
    (0x7FFFF000 - 36, 0),
    (0x80000000 - 36, 0x80000000),
    (0x7F000000, 0x7F000024),
    (0xFF000000, 0xFF000024),
    (1_000_000_000, 0xFFFFFFFF),  # the length hoped for, in a header that was never completed
    (2 * len(BYTES), 0x7FFFFFFF),
]


@pytest.mark.parametrize(("size", "riff_size"), STREAMED)
def test_a_length_that_could_not_be_known_is_no_cut(put, size, riff_size):
    facts, found = read(put(pcm(size, riff_size)))
    np.testing.assert_array_equal(found[:, 0], SONG / np.float32(32768))
    assert (facts.n_samples, facts.missing_samples, facts.remarks) == (N, 0, ())


CUT = [
    2 * N + 2, 2 * N * 2, 100_000, 10**6, 2**24, 2**28, 2**30, 10**9, 2 * 10**9, 3 * 10**9,
    3_900_000_000, 4_187_593_112, 4_200_000_000, 4_290_000_000, 2**31 - 20_000, 2**31 + 20_000,
    2**32 - 20_000,
]  # fmt: skip


@pytest.mark.parametrize("size", CUT)
def test_a_length_that_could_be_known_is_a_cut(put, size):
    for riff_size in (None, size + 36, 0):
        facts, found = read(put(pcm(size, riff_size)))
        np.testing.assert_array_equal(found[:, 0], SONG / np.float32(32768))
        assert (facts.n_samples, facts.missing_samples) == (N, size // 2 - N)


def test_a_file_of_nearly_4_gb_cut_in_half_is_a_cut(put):
    n_bytes = 3_900_000_000
    facts = facts_of(put(pcm(n_bytes, n_bytes + 36, body=b""), n_bytes // 2))
    assert (facts.n_samples, facts.missing_samples) == (n_bytes // 4, n_bytes // 4)


@pytest.mark.parametrize("n_bytes", [2**31 - 4096, 2**31, 2**32 - 40])
def test_a_whole_file_of_a_suspicious_length_keeps_it(put, n_bytes):
    head = pcm(n_bytes, n_bytes + 36, body=b"")
    facts = facts_of(put(head, n_bytes))
    assert (facts.n_samples, facts.missing_samples, facts.remarks) == (n_bytes // 2, 0, ())
    path = put(head, n_bytes)
    with path.open("ab") as file:
        file.write(chunk(b"LIST", info(ICRD="2018-09-19 06:28:42")))
    facts = facts_of(path)
    assert (facts.n_samples, facts.recorded_at) == (n_bytes // 2, "2018-09-19T06:28:42")


def test_a_stream_longer_than_the_number_in_its_header_is_read_to_its_end(put):
    facts = facts_of(put(pcm(0x7FFFF000, 0x7FFFF024, body=b""), 3 * 10**9))
    assert (facts.n_samples, facts.missing_samples) == (15 * 10**8, 0)


@pytest.mark.parametrize("riff_size", [None, 0, 36, 0xFFFFFFFF])
def test_a_length_of_0_with_samples_behind_it_is_said_and_they_are_used(put, riff_size):
    facts, found = read(put(pcm(0, riff_size)))
    np.testing.assert_array_equal(found[:, 0], SONG / np.float32(32768))
    assert facts.missing_samples == 0
    assert (
        f"the header says 0 bytes of data, so its recorder did not close the file; {N} "
        in (facts.remarks[0])
    )


def test_a_length_of_0_with_chunks_behind_it_is_an_empty_file(put):
    for behind in (b"", chunk(b"LIST", info(ICMT="a comment")), chunk(b"odd ", b"123")):
        with pytest.raises(BadSoundError, match="the file holds no samples; its header promises 0"):
            open_sound(put(pcm(0, body=b"", behind=behind)))


def test_a_header_without_samples_says_what_it_promises(put):
    whole = pcm()
    for n_bytes, n in [(44, N), (45, N)]:
        with pytest.raises(BadSoundError, match=f"holds no samples; its header promises {n}"):
            open_sound(put(whole[:n_bytes]))
    with pytest.raises(BadSoundError, match="holds no samples"):
        open_sound(put(pcm(0xFFFFFFFF, body=b"")))


def test_sound_behind_the_end_that_the_header_gives_is_said(put):
    facts, found = read(put(pcm(2000)))
    assert len(found) == 1000
    assert facts.remarks == (
        "3000 more samples may lie behind the end that the header gives; they are not read",
    )
    facts = facts_of(put(pcm(behind=chunk(b"data", BYTES))))
    assert facts.remarks == (f"a second data chunk of {2 * N} bytes is not read",)


def test_padding_and_chunks_behind_the_data_are_no_remark(put):
    for behind in (
        bytes(60_000), chunk(b"LIST", info(ICMT="x" * 9001)), chunk(b"iXML", b"<" * 9001), b"abc",
    ):  # fmt: skip
        facts = facts_of(put(pcm(behind=behind)))
        assert (facts.n_samples, facts.remarks) == (N, ())


ODD = [
    chunk(b"LIST", b"abc") + chunk(b"junk", b"q" * 7),
    chunk(b"bext", bext(b"2018-09-19", b"06:28:42") + b"odd"),
    chunk(b"JUNK", bytes(28)),
    chunk(b"LIST", b"abc", pad=False),  # the padding left out
    chunk(b"fact", struct.pack("<I", 7)),
    chunk(b"PAD ", bytes(4040)),
]


@pytest.mark.parametrize("before", ODD)
def test_chunks_before_the_data_are_passed(put, before):
    for content in (
        wav(before, chunk(b"fmt ", fmt()), chunk(b"data", BYTES)),
        wav(chunk(b"fmt ", fmt()), before, chunk(b"data", BYTES)),
        rf64(fmt(), BYTES, before=before),
    ):
        facts, found = read(put(content))
        np.testing.assert_array_equal(found[:, 0], SONG / np.float32(32768))
        assert (facts.missing_samples, facts.remarks) == (0, ())


@pytest.mark.parametrize("magic", [b"RF64", b"BW64"])
def test_lengths_of_64_bits(put, magic):
    for n_bytes, n_missing in [
        (2 * N, 0), (4 * N, N), (5 * 10**9, 25 * 10**8 - N), (2**32 - 50, 2**31 - 25 - N),
        (2**64 - 1, 0), (2**63 - 1, 0), (2**63 - 200, 0),
    ]:  # fmt: skip
        facts, found = read(put(rf64(fmt(), BYTES, n_bytes, magic)))
        np.testing.assert_array_equal(found[:, 0], SONG / np.float32(32768))
        assert (facts.container, facts.missing_samples) == (magic.decode(), n_missing)
        assert facts.remarks == ()
    no_ds64 = wav(chunk(b"fmt ", fmt()), chunk(b"data", BYTES, -1), magic=magic, size=-1)
    assert facts_of(put(no_ds64)).n_samples == N
    assert "0 bytes of data" in facts_of(put(rf64(fmt(), BYTES, 0, magic))).remarks[0]


def test_w64_is_walked(put):
    parts = (w64_chunk(b"junk", b"abc"), w64_chunk(b"fmt ", fmt()))
    for size, n_missing in [
        (None, 0), (24 + 4 * N, N), (2**63 - 1, 0), (2**64 - 1, 0), (24 + 2**40, 2**39 - N),
    ]:  # fmt: skip
        facts, found = read(put(w64(*parts, w64_chunk(b"data", BYTES, size))))
        np.testing.assert_array_equal(found[:, 0], SONG / np.float32(32768))
        assert (facts.container, facts.missing_samples, facts.remarks) == ("W64", n_missing, ())
    for size in (0, 24):
        facts = facts_of(put(w64(*parts, w64_chunk(b"data", BYTES, size))))
        assert (facts.n_samples, len(facts.remarks)) == (N, 1)
    behind = w64_chunk(b"bext", bext(b"2018-09-19", b"06-28-42"))
    assert facts_of(put(w64(*parts, w64_chunk(b"data", BYTES), behind))).recorded_at


@pytest.mark.parametrize(
    ("n_frames", "size", "form", "n_missing", "n_remarks"),
    [
        (N, None, None, 0, 0),
        (2 * N, 4 * N + 8, None, N, 0),
        (2 * N, None, None, N, 0),  # COMM promises more than SSND holds
        (N, 4 * N + 8, None, N, 0),
        (0x7F000000 // 2, 0x7F000008, 0x7F000036, 0, 0),  # SoX
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0, 0),
        (0x7FFFFFFF, 0x7FFFFFFF, 0x7FFFFFFF, 0, 0),
        (N, 0xFFFFFFFF, 0xFFFFFFFF, 0, 0),
        (0, 0xFFFFFFFF, 0xFFFFFFFF, 0, 0),
        (0, None, None, 0, 0),
        (0, 0, 0, 0, 1),  # ffmpeg
        (0, 8, 0, 0, 1),
        (N, 0, 0, 0, 0),
        (N // 2, None, None, 0, 1),  # COMM says less than SSND holds
    ],
)
def test_both_lengths_of_aiff_are_compared(put, n_frames, size, form, n_missing, n_remarks):
    parts = aiff_chunk(b"COMM", comm(n_frames)), ssnd(BIG, size=size)
    facts, found = read(put(aiff(*parts, size=form)))
    np.testing.assert_array_equal(found[:, 0], SONG / np.float32(32768))
    assert (facts.missing_samples, len(facts.remarks)) == (n_missing, n_remarks), facts


def test_padding_that_a_chunk_counts_is_no_sample(put):
    parts = aiff_chunk(b"COMM", comm(77, bits=8)), ssnd(bytes([99]) * 77, size=8 + 78)
    facts, found = read(put(aiff(*parts)))
    assert (len(found), facts.missing_samples, facts.remarks) == (77, 0, ())


@pytest.mark.parametrize(
    ("coding", "bits", "kind", "factor"),
    [
        (b"NONE", 16, ">i2", 1), (b"twos", 16, ">i2", 1), (b"sowt", 16, "<i2", 1),
        (b"fl32", 32, ">f4", 2**-15), (b"FL32", 16, ">f4", 2**-15), (b"fl64", 64, ">f8", 2**-15),
        (b"in32", 32, ">i4", 2**16), (b"23ni", 16, "<i4", 2**16), (b"twos", 32, ">i4", 2**16),
    ],
)  # fmt: skip
def test_codings_of_aifc(put, coding, bits, kind, factor):
    raw = (SONG.astype(float) * factor).astype(kind).tobytes()
    parts = aiff_chunk(b"COMM", comm(N, bits=bits, coding=coding)), ssnd(raw)
    facts, found = read(put(aiff(*parts, kind=b"AIFC")))
    np.testing.assert_array_equal(found[:, 0], SONG / np.float32(32768))
    assert facts.coding == ("float" if coding.lower().startswith(b"fl") else "PCM")
    assert facts.remarks == ()


def test_valid_bits_of_extensible_and_its_other_guid(put):
    facts = facts_of(put(pcm(fmt_body=extensible(bits=16, valid_bits=12))))
    assert (facts.bits, facts.n_samples) == (12, N)
    ambisonic = bytes.fromhex("00002107d3118644c8c1ca000000")
    assert facts_of(put(pcm(fmt_body=extensible(guid=ambisonic)))).coding == "PCM"
    assert facts_of(put(pcm(fmt_body=extensible(valid_bits=99)))).bits == 16


REFUSED = {
    "two formats": wav(chunk(b"fmt ", fmt(17)), chunk(b"fmt ", fmt()), chunk(b"data", BYTES)),
    "no format": wav(chunk(b"data", BYTES), chunk(b"fmt ", fmt())),
    "no data chunk": wav(chunk(b"fmt ", fmt())),
    "format 17 .IMA ADPCM.": pcm(fmt_body=fmt(17, bits=4)),
    "format 2 .Microsoft ADPCM.": pcm(fmt_body=fmt(2, bits=4)),
    "format 6 .A-law.": pcm(fmt_body=fmt(6, bits=8)),
    "format 7 .mu-law.": pcm(fmt_body=fmt(7, bits=8)),
    "format 85 .MP3.": pcm(fmt_body=fmt(85, bits=0)),
    "format 12345;": pcm(fmt_body=fmt(12345)),
    "format 65534;": pcm(fmt_body=extensible(guid=bytes(14))),
    "format 7 .mu-law.;": pcm(fmt_body=extensible(tag=7)),
    "says 0 Hz": pcm(fmt_body=fmt(rate=0)),
    "says 44 Hz": pcm(fmt_body=fmt(rate=44)),
    "says 1152122880 Hz": pcm(fmt_body=fmt(rate=0x44AC0000)),
    "0 channels": pcm(fmt_body=fmt(n_channels=0, frame_bytes=2)),
    "60000 channels": pcm(fmt_body=fmt(n_channels=60_000, frame_bytes=2)),
    "0 bits": pcm(fmt_body=fmt(bits=0, frame_bytes=2)),
    "0 bytes a sample": pcm(fmt_body=fmt(frame_bytes=0)),
    "2 channels of 16 bits are 4 bytes, it says 2": pcm(fmt_body=fmt(n_channels=2, frame_bytes=2)),
    "1 channels of 24 bits are 3 bytes, it says 4": pcm(fmt_body=fmt(bits=24, frame_bytes=4)),
    "PCM of 64 bits": pcm(fmt_body=fmt(bits=64)),
    "float of 16 bits": pcm(fmt_body=fmt(3, bits=16)),
    "more than 10,000 chunks": wav(chunk(b"junk", b"") * 10_001, chunk(b"data", BYTES)),
    "holds no COMM": aiff(ssnd(BIG)),
    "holds no SSND": aiff(aiff_chunk(b"COMM", comm(N))),
    "coded as 'ulaw'": aiff(aiff_chunk(b"COMM", comm(N, coding=b"ulaw")), ssnd(BIG), kind=b"AIFC"),
    "coded as 'ima4'": aiff(aiff_chunk(b"COMM", comm(N, coding=b"ima4")), ssnd(BIG), kind=b"AIFC"),
    "AIFF: 0 Hz": aiff(aiff_chunk(b"COMM", comm(N, rate=0)), ssnd(BIG)),
    "AIFF: says 3000000 Hz": aiff(aiff_chunk(b"COMM", comm(N, rate=3_000_000)), ssnd(BIG)),
    "AIFF: 0 bits": aiff(aiff_chunk(b"COMM", comm(N, bits=0)), ssnd(BIG)),
    "AIFF: two formats": aiff(aiff_chunk(b"COMM", comm(N)) * 2, ssnd(BIG)),
    "AIFF: holds no samples": aiff(aiff_chunk(b"COMM", comm(N)), ssnd(b"")),
    "FLAC: 0 Hz": b"fLaC\0\0\0\x22" + bytes(34),
    "W64: holds no data": w64(w64_chunk(b"fmt ", fmt())),
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_header_that_cannot_be_right_is_refused_by_name(put, words):
    with pytest.raises(BadSoundError, match=words.split(": ")[-1]):
        open_sound(put(REFUSED[words]))


AUDIOMOTH = "Recorded at 19:17:30 10/12/2018 (UTC) by AudioMoth 24F3190361DA3578 at gain setting 2"
EVENING = "2018-12-10T19:17:30"
MORNING = "2018-09-19T06:28:42"
BEXT = chunk(b"bext", bext(b"2018-09-19", b"06:28:42"))
TIMES = [
    (BEXT, MORNING),
    (chunk(b"bext", bext(b"2018:09:19", b"06:28:42")), MORNING),
    (chunk(b"bext", bext(b"2018/09/19", b"06.28.42")), MORNING),
    (chunk(b"bext", bext(b"2018_09_19", b"06-28-42")), MORNING),
    (chunk(b"bext", bext(b"2018-13-19", b"06:28:42")), None),
    (chunk(b"bext", bext(bytes(10), bytes(8))), None),
    (chunk(b"bext", bext(b"0000-00-00", b"00:00:00")), None),
    (chunk(b"bext", b"short"), None),
    (chunk(b"LIST", info(ICMT=AUDIOMOTH)), EVENING),
    (chunk(b"LIST", info(IART="AudioMoth", ICMT=AUDIOMOTH.replace("UTC", "UTC+10"))), EVENING),
    (chunk(b"LIST", info(ICMT="Recorded at 19:17:30.250 10/12/2018 (UTC)")), EVENING + ".250"),
    (chunk(b"LIST", info(ICMT="Recorded at 25:17:30 10/12/2018 (UTC)")), None),
    (chunk(b"LIST", info(ICRD="2018-09-19T06:28:42")), MORNING),
    (chunk(b"LIST", info(ISFT="Lavf", ICRD="2018-09-19 06:28:42.048")), MORNING + ".048"),
    (chunk(b"LIST", info(ICRD="2018-09-19")), None),  # a day is no time of day
    (chunk(b"LIST", info(ICMT="a zebra finch, dph 45")), None),
    (chunk(b"LIST", b"adtl" + chunk(b"labl", b"\0\0\0\0x")), None),
    (chunk(b"guan", b"GUANO|Version: 1.0\nTimestamp: 2018-09-19T06:28:42-07:00\n"), MORNING),
    (BEXT + chunk(b"LIST", info(ICRD="2001-01-01 00:00:00")), MORNING),
    (chunk(b"LIST", info(ICMT=AUDIOMOTH)) + BEXT, EVENING),
    (b"", None),
]


@pytest.mark.parametrize(("chunks", "time"), TIMES)
def test_the_time_of_recording_is_that_of_the_header(put, chunks, time):
    assert facts_of(put(pcm(before=chunks))).recorded_at == time
    assert facts_of(put(pcm(behind=chunks))).recorded_at == time


@st.composite
def mostly(draw, usual, other):
    """Nine times of ten what honest programs write."""
    return draw(other if draw(st.integers(0, 9)) == 5 else usual)


LIES = st.one_of(
    st.integers(0, 400), st.integers(0, 2**32 - 1), st.sampled_from([*CUT, 0, 1, 2**32 - 1])
)
NAMES = st.sampled_from([b"LIST", b"bext", b"junk", b"fact", b"guan", b"INFO", b"iXML"])
JUNK = st.tuples(
    mostly(NAMES, st.binary(min_size=4, max_size=4)),
    st.binary(max_size=40),
    mostly(st.none(), LIES),
)
FORMATS = st.fixed_dictionaries({
    "tag": mostly(st.sampled_from([1, 1, 1, 3]), st.sampled_from([2, 17, 0xFFFE])),
    "n_channels": mostly(st.integers(1, 4), st.sampled_from([0, 7, 65_535])),
    "rate": mostly(st.sampled_from([8000, 44_100]), st.sampled_from([0, 1, 2**32 - 1])),
    "bits": mostly(st.sampled_from([8, 12, 16, 24, 32, 32, 32]), st.sampled_from([0, 4, 17, 64])),
})  # fmt: skip
FRAME_BYTES = mostly(st.none(), st.integers(0, 99))
HEADERS = {
    "RIFF": (chunk, lambda *chunks, size: wav(*chunks, size=size), 20),
    "W64": (w64_chunk, lambda *chunks, size: w64(*chunks, size=size), 64),
}
FUZZ = settings(
    max_examples=500,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def read_or_refused(put, content):
    """Facts of a file, None where it is refused by name; its bytes are as they were."""
    path = put(content)
    try:
        with open_sound(path) as sound:
            n_read = sum(len(block) for block in sound.blocks(1000))
            assert n_read == sound.facts.n_samples > 0
            return sound.facts
    except BadSoundError as error:
        assert str(error)
        return None
    finally:
        assert path.read_bytes() == content


def assert_agrees(facts, said, left, frame, is_odd):
    """The samples are those of the chunk and of the file; a cut is what the chunk says of it."""
    is_all = said == 0 or said > left
    assert facts.n_samples == (left if is_all else said) // frame
    assert bool(facts.remarks) >= (said == 0)
    if said <= left:
        assert facts.missing_samples == 0
    elif not is_odd and said >> 24 not in (0x7F, 0x80, 0xFF):  # numbers that could not be known
        assert facts.missing_samples == said // frame - left // frame


@pytest.mark.parametrize("kind", HEADERS)
def test_any_order_of_chunks_is_refused_by_name_or_agrees_with_them(put, kind):
    make_chunk, make_file, head = HEADERS[kind]
    counts = {"read": 0, "cut": 0, "refused": 0}

    @FUZZ
    @given(
        st.lists(JUNK, max_size=2), FORMATS, FRAME_BYTES, st.lists(JUNK, max_size=2),
        st.none() | LIES, mostly(st.none(), LIES),
        mostly(st.binary(min_size=32, max_size=300), st.binary(max_size=32)),
        st.lists(JUNK, max_size=1),
    )  # fmt: skip
    def check(first, coding, frame_bytes, second, said, whole, samples, behind):
        def chunks(some):
            return b"".join(make_chunk(*one) for one in some)

        body = fmt(**coding, frame_bytes=frame_bytes)
        before = chunks(first) + make_chunk(b"fmt ", body) + chunks(second)
        content = make_file(before, make_chunk(b"data", samples, said), chunks(behind), size=whole)
        facts = read_or_refused(put, content)
        counts["read" if facts else "refused"] += 1
        # Where junk lies about itself, other chunks may be met: nothing more can be said.
        if facts and all(size is None for _, _, size in first + second):
            own = 24 if kind == "W64" else 0
            said = len(samples) + own if said is None else said
            frame = struct.unpack("<H", body[12:14])[0]
            left = len(content) - head - len(before)
            counts["cut"] += facts.missing_samples > 0
            assert_agrees(facts, max(said - own, 0), left, frame, whole is not None)

    check()
    assert min(counts.values()) > 20, counts


def test_any_aiff_is_refused_by_name_or_agrees_with_its_chunks(put):
    counts = {"read": 0, "cut": 0, "refused": 0}

    @FUZZ
    @given(
        st.lists(st.tuples(NAMES, st.binary(max_size=40)), max_size=3), st.booleans(),
        st.integers(1, 100), st.none() | LIES, mostly(st.none(), LIES), st.integers(0, 9),
        mostly(st.sampled_from([8, 16, 24, 32]), st.integers(0, 70)),
        mostly(st.integers(1, 4), st.just(0)),
    )  # fmt: skip
    def check(junk, comm_is_first, n, n_said, size, offset, bits, n_channels):
        frame = n_channels * -(-bits // 8)
        head = comm(n if n_said is None else n_said, n_channels, bits=bits)
        chunks = [aiff_chunk(b"COMM", head), ssnd(bytes(n * frame), offset, size)]
        chunks = chunks if comm_is_first else chunks[::-1]
        content = aiff(*[aiff_chunk(*one) for one in junk], *chunks)
        facts = read_or_refused(put, content)
        counts["read" if facts else "refused"] += 1
        if facts and size is None:
            assert facts.n_samples == n
            counts["cut"] += facts.missing_samples > 0
            if n_said is None:
                assert (facts.missing_samples, facts.remarks) == (0, ())
            elif n < n_said < 10**6:
                assert facts.missing_samples == n_said - n

    check()
    assert min(counts.values()) > 20, counts


@FUZZ
@given(st.binary(min_size=0, max_size=200), st.sampled_from(["wav", "rf64", "w64", "aiff", "flac"]),
       st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=6),
       st.integers(0, 400))  # fmt: skip
def test_any_altered_header_is_refused_by_name_or_read_to_its_end(put, raw, kind, changes, cut):
    content = bytearray({
        "wav": pcm(body=BYTES[:200] + raw),
        "rf64": rf64(fmt(), BYTES[:200] + raw),
        "w64": w64(w64_chunk(b"fmt ", fmt()), w64_chunk(b"data", BYTES[:200] + raw)),
        "aiff": aiff(aiff_chunk(b"COMM", comm(100)), ssnd(BIG[:200] + raw)),
        "flac": b"fLaC\0\0\0\x22\x10\0\x10\0" + bytes(6) + b"\x0a\xc4\x40\xf0" + bytes(20) + raw,
    }[kind])  # fmt: skip
    for at, byte in changes:
        if at < len(content):
            content[at] = byte
    content = bytes(content[: max(len(content) - cut, 0)])
    path = put(content)
    try:
        with open_sound(path) as sound:
            found = sum(len(block) for block in sound.blocks(64))
            assert found == sound.facts.n_samples > 0
    except BadSoundError as error:
        assert str(error)
    assert path.read_bytes() == content
