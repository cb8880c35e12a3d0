"""The names of sound files say when and of which bird they are."""

import datetime
import random

import pytest

from data_io.names.file_names import bird_in, dph_in, recorded_at

AT = {
    # Sound Analysis Pro
    "G402_43362.23322048_9_19_6_28_42.wav": "2018-09-19 06:28:42.048",
    "R3549_40999.32489823_3_31_9_1_29.wav": "2012-03-31 09:01:29.823",
    "a bird_2_40999.99_3_31_0_0_0.wav": "2012-03-31 00:00:00.099",
    "G402_43362.86399999_9_19_23_59_59.wav": "2018-09-19 23:59:59.999",
    "G402_43362.19722048_9_19_6_28_42.wav": "2018-09-19 06:28:42",  # before summer time
    "G402_43362.23322048.wav": "2018-09-19 06:28:42.048",
    # evTAF
    "bl26lb16_190412_0725.20148.cbin": "2012-04-19 07:25",
    "bl26lb16_190412_0725.cbin": "2012-04-19 07:25",
    "birdname_130519_103325.4.wav": "2019-05-13 10:33:25",
    "or60yw70_041912_0725.3.cbin": "2012-04-19 07:25",
    # AudioMoth, Song Meter, BAR, Avisoft, SoundTrap and others
    "20190508_043000.WAV": "2019-05-08 04:30",
    "20190508_043000T.WAV": "2019-05-08 04:30",
    "SM4A01_20161023$195550.wav": "2016-10-23 19:55:50",
    "SM4_0+1_20161023_195550.w64": "2016-10-23 19:55:50",
    "20190508T043000+1000_REC.flac": "2019-05-08 04:30",
    "20190508T043000Z.wav": "2019-05-08 04:30",
    "b1 2019-05-08 04.30.00.wav": "2019-05-08 04:30",
    "b1_2019-05-08_04-30-00_0000123.wav": "2019-05-08 04:30",
    "T2019-05-08_04-30-00.250.wav": "2019-05-08 04:30:00.250",
    "b1.2019.05.08.04.30.00.wav": "2019-05-08 04:30",
    "x_2019_05_08_04_30_00.aiff": "2019-05-08 04:30",
    "20190508043000.wav": "2019-05-08 04:30",
    "6075.220210084905.wav": "2022-02-10 08:49:05",
    "data/b1/45/20190508_043000.wav": "2019-05-08 04:30",
}
NOT_AT = [
    "g17y2U-f00007.wav", "song_0001.wav", "b1_20180919_0001.wav", "b1_2018-09-19.wav", "x.wav", "",
    "5D7E1A30.WAV", "G402_43362.23322048_9_20_6_28_42.wav", "G402_43362.23322048_9_19_25_28_42.wav",
    "G402_43362.99999999_9_19_6_28_42.wav", "20191508_043000.WAV", "20190508_253000.WAV",
    "b1_190412_2525.1.cbin", "b1_999999_0725.1.cbin", "123456789_043000.wav", "44100_16.wav",
]  # fmt: skip


@pytest.mark.parametrize("name", AT)
def test_time_of_recording_is_read_from_the_name(name: str) -> None:
    assert recorded_at(name) == datetime.datetime.fromisoformat(AT[name])


@pytest.mark.parametrize("name", NOT_AT)
def test_name_without_a_whole_time_says_none(name: str) -> None:
    assert recorded_at(name) is None


def test_six_digits_are_read_in_the_order_that_is_given() -> None:
    assert recorded_at("bl26lb16_190412_0725.1.cbin", "auto") == recorded_at(
        "bl26lb16_190412_0725.1.cbin"
    )
    at = {order: recorded_at("b_100412_0725.1.wav", order) for order in ("dmy", "ymd", "mdy")}  # type: ignore[arg-type]
    assert {order: str(found)[:10] for order, found in at.items()} == {
        "dmy": "2012-04-10", "ymd": "2010-04-12", "mdy": "2012-10-04",
    }  # fmt: skip


def test_every_time_that_sap_writes_is_read_back() -> None:
    rng = random.Random(0)
    for _ in range(500):
        at = datetime.datetime(2005, 1, 1) + datetime.timedelta(
            days=rng.randrange(7000), milliseconds=rng.randrange(86_400_000)
        )
        midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
        ms = (at - midnight) // datetime.timedelta(milliseconds=1)
        serial = (at.date() - datetime.date(1899, 12, 30)).days
        tail = f"{at.month}_{at.day}_{at.hour}_{at.minute}_{at.second}"
        assert recorded_at(f"R1_{serial}.{ms}_{tail}.wav") == at


@pytest.mark.parametrize(
    ("name", "bird"),
    [
        ("G402_43362.23322048_9_19_6_28_42.wav", "G402"),
        ("bl26lb16_190412_0725.20148.cbin", "bl26lb16"),
        ("a_b-2019-05-08_04-30-00.wav", "a_b"),
        ("20190508_043000.WAV", ""),
        ("g17y2U-f00007.wav", ""),
    ],
)
def test_bird_stands_before_the_date(name: str, bird: str) -> None:
    assert bird_in(name) == bird


@pytest.mark.parametrize(
    ("name", "dph"),
    [
        ("blk12_P45_003.wav", 45), ("G17-45dph-0001.wav", 45), ("d9 song 3.wav", 9),
        ("b1_day45.wav", 45), ("b1_45_003.wav", None), ("G17_003.wav", None), ("adult.wav", None),
    ],
)  # fmt: skip
def test_age_in_a_name_has_letters_since_a_number_alone_is_a_count(
    name: str, dph: int | None
) -> None:
    assert dph_in(name) == dph


def test_name_of_the_folder_is_the_bird_and_no_age() -> None:
    assert dph_in("P5_song_2.wav", ["P5"]) is None
    assert dph_in("P5_P45_2.wav", ["P5"]) == 45
