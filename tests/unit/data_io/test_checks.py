"""Each fault of sound is named with its numbers, and no reason denies what is in the file."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from data_io.sound.checks import Checks, Verdict
from tests.helpers.faulty_files import FAULTY, FULL, GOOD, RATE, of_sound, song


@dataclass(frozen=True)
class Facts:
    sample_rate_hz: int = RATE
    n_channels: int = 1
    n_samples: int = 0
    coding: str = "PCM"
    bits: int = 16
    missing_samples: int = 0
    remarks: tuple[str, ...] = field(default=())


BITS = {"PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "PCM_U8": 8, "PCM_S8": 8}


def read(path):
    """Samples [n, n_channels] and facts, by soundfile; of a .cbin file by numpy."""
    if path.suffix == ".cbin":
        lines = path.with_suffix(".rec").read_text().splitlines()
        said = dict(line.split(" = ") for line in lines if " = " in line)
        n_channels = int(said["Chans"])
        samples = np.fromfile(path, ">i2").reshape(-1, n_channels).astype("f4") / FULL
        return samples, Facts(int(said["ADFREQ"]), n_channels, len(samples))
    info = sf.info(os.fsencode(path))
    samples, rate = sf.read(os.fsencode(path), dtype="float32", always_2d=True)
    bits = BITS.get(info.subtype, 32)
    coding = "PCM" if info.subtype in BITS else "float"
    return samples, Facts(rate, samples.shape[1], len(samples), coding, bits)


def judge(samples, facts=None, block=10_007, **options) -> Verdict:
    """The verdict on samples [n] or [n, n_channels] that come in blocks."""
    samples = np.asarray(samples, "f4")
    samples = samples[:, None] if samples.ndim == 1 else samples
    facts = facts or Facts(n_channels=samples.shape[1], n_samples=len(samples), coding="float")
    checks = Checks(facts, **options)
    for at in range(0, len(samples), block):
        checks.add(samples[at : at + block])
    return checks.finish()


OURS = [fault for fault in FAULTY if fault.decided_by == "checks"]


def test_there_are_sixty_faulty_files_and_more_and_no_two_have_one_name():
    paths = [fault.path for fault in FAULTY]
    assert len(set(paths)) == len(paths) > 60


@pytest.mark.parametrize("fault", OURS, ids=lambda fault: Path(fault.path).name)
def test_every_faulty_sound_is_named(fault, tmp_path):
    fault.make(tmp_path / fault.path)
    verdict = judge(*read(tmp_path / fault.path))
    assert verdict.status == fault.status, verdict.reason
    assert all(words in verdict.reason for words in fault.words), verdict.reason


@pytest.mark.parametrize("name", GOOD)
def test_nothing_is_said_of_a_good_file_of_any_format(name, tmp_path):
    suffix, subtype, rate = GOOD[name]
    of_sound(lambda s: s, suffix, subtype, rate)(tmp_path / name)
    assert judge(*read(tmp_path / name)) == Verdict("ok", "")


@pytest.mark.parametrize("fault", OURS[::5], ids=lambda fault: Path(fault.path).name)
def test_the_verdict_does_not_depend_on_the_blocks(fault, tmp_path):
    fault.make(tmp_path / fault.path)
    samples, facts = read(tmp_path / fault.path)
    whole = judge(samples, facts, block=len(samples))
    for block in (97, 4_096, 64_000 - 1):
        assert judge(samples, facts, block) == whole


@pytest.mark.parametrize("frequency", [50, 440, 1000, 2500, 3000, 3000.7, 7900])
@pytest.mark.parametrize("amplitude", [0.004, 0.1, 0.3, 0.9])
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_a_pure_tone_is_not_clipped(frequency, amplitude, bits):
    tone = amplitude * np.sin(2 * np.pi * frequency * np.arange(2 * RATE) / RATE + 0.3)
    coded = np.round(tone * 2 ** (bits - 1)) / 2 ** (bits - 1)
    facts = Facts(n_samples=len(tone), bits=bits)
    reason = judge(coded, facts).reason
    assert "clipped" not in reason
    assert "within the sound" not in reason
    assert "hardly possible" not in reason


@pytest.mark.parametrize("gain", [0.5, 0.37, -1.0, 0.05])
@pytest.mark.parametrize("bits", [16, 24])
def test_flat_tops_are_found_at_any_level(gain, bits):
    noise = np.random.default_rng(1).normal(0, 1e-5, 2 * RATE)
    flat = gain * ((8 * song("flat")).clip(-1, 1) + noise)
    coded = np.round(flat * 2 ** (bits - 1)).clip(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    verdict = judge(coded / 2 ** (bits - 1), Facts(n_samples=len(flat), bits=bits))
    share = (np.abs(8 * song("flat")) >= 1).mean()
    assert verdict.status == "flagged"
    said = float(verdict.reason.split("clipped: ")[1].split(" %")[0])
    assert said == pytest.approx(100 * share, rel=0.1)


def test_one_wave_of_one_channel_is_judged_by_its_own_numbers():
    both = np.stack([0.001 * song("a"), song("b")], 1)
    reason = judge(both).reason
    first, second = (20 * np.log10(np.abs(side - side.mean()).max()) for side in both.T)
    assert f"channel 1 is used (peak {first:.1f} dBFS)" in reason
    assert f"channel 2 holds sound (peak {second:.1f} dBFS), {second - first:.0f} dB" in reason
    other = judge(both, channel=2)
    assert f"channel 2 is used (peak {second:.1f} dBFS)" in other.reason
    assert "channel 1 holds hardly any sound (peak below -60 dBFS)" in other.reason


def test_a_channel_that_is_chosen_is_the_one_that_is_judged():
    sound = np.stack([0 * song("a"), song("a")], 1)
    assert judge(sound).status == "skipped"
    assert judge(sound, channel=2).status == "flagged"
    three = judge(sound, channel=3)
    assert three.status == "skipped"
    assert three.reason == "the file has 2 channels: data.channel=3 is not in it"


def test_quiet_sound_beside_a_silent_channel_is_not_denied():
    reason = judge(np.stack([0 * song("a"), 1e-4 * song("a")], 1)).reason
    assert "channel 2 holds sound (peak -" in reason
    assert "data.channel=2" in reason


def test_a_channel_without_numbers_is_not_called_silent():
    sound = np.stack([song("a"), np.full(2 * RATE, np.nan)], 1)
    assert "channel 2 holds samples that are not finite numbers" in judge(sound).reason
    assert "channel 2 of 2: 64,000 samples are not finite" in judge(sound, channel=2).reason


def test_of_many_channels_the_loudest_is_named():
    gains = [1, 0, 0.5, 1, 0, 2.2, 1]
    reason = judge(np.stack([gain * song("m") for gain in gains], 1)).reason
    assert "channels 3 and 6 hold sound, the loudest is channel 6" in reason
    assert "channels 4 and 7 hold the same samples" in reason
    assert "channels 2 and 5 hold one value only (silent)" in reason


def test_what_the_header_says_is_compared_with_what_was_decoded():
    sound = song("a")
    facts = Facts(n_samples=64_000, missing_samples=1_000, remarks=("the clock was not set",))
    coded = np.round(sound * FULL) / FULL
    assert judge(coded, facts).reason == (
        "the clock was not set | cut short: the header promises 65000 samples, the file holds 64000"
    )
    short = judge(coded[:60_000], Facts(n_samples=64_000))
    assert short.reason == "60000 samples could be decoded, the header says 64000"


def test_a_recording_without_samples_or_shorter_than_a_snippet_is_skipped():
    assert judge(np.empty(0)).reason == "the file holds no samples"
    brief = judge(song("a")[:1_600], min_seconds=0.064)
    assert brief == Verdict("skipped", "0.050 s is shorter than one snippet (0.064 s)")
    assert judge(song("a")[:3_200], min_seconds=0.064).status == "ok"


@pytest.mark.parametrize(
    ("study_rate_hz", "is_low"), [(16_000, False), (32_000, False), (44_100, True)]
)
def test_a_rate_is_low_by_the_frequencies_that_the_study_shows(study_rate_hz, is_low):
    verdict = judge(song("a"), study_rate_hz=study_rate_hz)
    assert (verdict.status == "flagged") == is_low
    if is_low:
        assert "nothing above 16,000 Hz is in the file" in verdict.reason
        assert "the study looks up to 22,050 Hz" in verdict.reason


def test_lost_buffers_are_counted_and_quiet_noise_of_whole_steps_is_none():
    sound = song("a")
    for at in (10_000, 20_000, 30_000):
        sound[at : at + 320] = 0
    assert (
        "0.030 s of exact zeros within the sound, from 0.312 s on, the first of 3"
        in judge(sound).reason
    )
    steps = np.random.default_rng(0).random(2 * RATE) < 0.01  # zeros for long, as a good room gives
    assert "zeros" not in judge(steps * 3 / FULL, Facts(n_samples=2 * RATE)).reason


def test_a_small_offset_that_is_larger_than_the_sound_is_named():
    assert "offset (DC) of +0.005" in judge(0.01 * song("a") + 0.005).reason
    assert judge(song("a") + 0.0022).status == "ok"  # as evTAF's boards have it


def test_quiet_sound_on_an_offset_is_called_quiet():
    verdict = judge(1e-4 * song("a") + 0.01)
    assert "peak -8" in verdict.reason
    assert "hardly any sound" in verdict.reason


def test_quiet_16_bit_numbers_on_their_own_scale_in_24_bits_are_not_called_narrower():
    quiet = np.round(0.008 * song("a") * 2**15) / 2**15
    reason = judge(quiet, Facts(n_samples=len(quiet), bits=24)).reason
    assert reason == ("the header says 24 bits, the samples use 16: all are multiples of 256")


def test_a_block_of_another_shape_is_refused():
    checks = Checks(Facts(n_channels=2))
    with pytest.raises(ValueError, match=r"shape \(100, 1\); the file has 2 channels"):
        checks.add(np.zeros((100, 1), "f4"))
    with pytest.raises(ValueError, match="n_samples, n_channels"):
        checks.add(np.zeros(100, "f4"))


@pytest.mark.parametrize(("numbers", "of"), [(128, "128"), (32_768, "32,768")])
def test_unsigned_integers_saved_as_floats_are_not_called_signed_ones(numbers, of):
    sound = np.round(song("unsigned") * numbers) + numbers
    reason = judge(sound).reason
    assert f"unsigned integers saved as floats; subtract {of}, divide them by {of}" in reason


def test_quiet_integers_of_16_bits_saved_as_floats_are_not_said_to_have_8_bits_alone():
    assert "or by 32,768 if they are quiet" in judge(np.round(song("quiet") * 200)).reason


def test_of_sound_beyond_full_scale_nothing_is_said_of_the_order_of_its_bytes():
    reason = judge(song("volts") * 20).reason
    assert "beyond full scale" in reason
    assert "wrong order" not in reason


@pytest.mark.parametrize(
    ("rate", "half"), [(15_999, "7,999.5"), (11_025, "5,512.5"), (4_000, "2,000")]
)
def test_the_missing_frequencies_are_not_rounded_to_those_that_are_there(rate, half):
    facts = Facts(rate, 1, rate, "float")
    reason = judge(song("low", 1.0, rate), facts).reason
    assert f"nothing above {half} Hz is in the file, and the study looks up to 8,000 Hz" in reason
