"""Ages are read as a person reads them, and sort so."""

import datetime
import random

import pytest

from data_io.names.ages import (
    age_order,
    canonical_age,
    has_own_order,
    likeliest_order,
    natural,
    parse_age,
    possible_orders,
)

DAYS_45 = [
    "45", "045", "P45", "p45", "P045", "P 45", "p_45", "PHD45", "phd_45", "PND45", "PD45", "dph45",
    "dpH45", "DPH_45", "d45", "D-45", "day45", "day 45", "days45", "Day_45", "age 45", "45dph",
    "45 dph", "45dpH", "45-dph", "45_DPH", "45d", "45 d", "45days", "45 days", "45 days old",
    "45dah", "45 days post hatch", "45 days post-hatching", "post-hatch day 45", "day 45 dph",
    " 45 ",
]  # fmt: skip
SEPTEMBER_19 = [
    "2018-09-19", "2018-9-19", "20180919", "2018_09_19", "2018.09.19", "2018 09 19", "19.9.2018",
    "19-09-2018", "09-19-2018", "9/19/2018", "09192018", "19092018", "2018Sep19", "2018-Sep-19",
    "19-Sep-2018", "19sep2018", "19 September 2018", "19Sept2018", "Sep19_2018", "Sep 19, 2018",
    "19Sep18",
]  # fmt: skip
WORDS = [
    "adult", "baseline", "week1", "10 weeks", "G17", "R3549", "201905 8", "P4S", "45 dhp", "45dhp",
    "45.5", "4.5", "-5", "45-46", "P45b", "2018-13-01", "2019-02-30", "2018-9", "2018-09-1O",
    "2018-09_19", "20190508173000", "99999", "99999999999", "000045", "1234567", "12.34.5678",
    "٣", "²", "", "Mai 2018", "19Foo2018", "songs",
]  # fmt: skip


@pytest.mark.parametrize("text", DAYS_45)
def test_days_post_hatch_are_read_in_every_spelling(text: str) -> None:
    assert parse_age(text) == (45, None)
    assert canonical_age(text) == "45"


@pytest.mark.parametrize("text", SEPTEMBER_19)
def test_dates_are_read_in_every_spelling(text: str) -> None:
    assert parse_age(text) == (None, "2018-09-19")
    assert canonical_age(text) == "2018-09-19"


@pytest.mark.parametrize("text", WORDS)
def test_other_words_and_typing_errors_stay_words(text: str) -> None:
    assert parse_age(text) == (None, None)
    assert canonical_age(text) == text


@pytest.mark.parametrize(
    ("text", "order", "date"),
    [
        ("041012", "mdy", "2012-04-10"),
        ("041012", "dmy", "2012-10-04"),
        ("041012", "ymd", "2004-10-12"),
        ("041012", "auto", "2012-04-10"),
        ("190412", "auto", "2019-04-12"),
        ("190412", "dmy", "2012-04-19"),
        ("190412", "mdy", None),
        ("9.10.2018", "dmy", "2018-10-09"),
        ("9.10.2018", "mdy", "2018-09-10"),
        ("18-9-9", "ymd", "2018-09-09"),
        ("18Sep19", "ymd", "2018-09-19"),
        ("991231", "ymd", "1999-12-31"),
        ("2018-09-10", "dmy", "2018-09-10"),
    ],
)
def test_order_of_year_month_and_day_is_followed(text: str, order: str, date: str | None) -> None:
    assert parse_age(text, order) == (None, date)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "in_order",
    [
        ["P45", "P60", "P100"],
        ["45dph", "60dph", "100dph"],
        ["day 45", "day 100"],
        ["d9", "d10"],
        ["2018-9-9", "2018-9-10", "20180911", "2018Sep12"],
        ["PHD9", "10", "P11", "day 12", "013"],
        ["31-Jan-2018", "1-Feb-2018", "2018.2.2"],
        ["week2", "week10"],
        ["5", "20", "100", "20190301", "2019-10-02", "10 weeks", "adult"],
    ],
)
def test_ages_sort_by_value_then_dates_then_words(in_order: list[str]) -> None:
    shuffled = random.Random(1).sample(in_order, len(in_order))
    assert sorted(shuffled, key=age_order) == in_order
    assert sorted(reversed(in_order), key=age_order) == in_order


def test_numbers_in_names_sort_by_value() -> None:
    assert sorted(["song10", "song9", "song09b"], key=natural) == ["song9", "song09b", "song10"]


def days(form: str, first: datetime.date, n: int, step: int = 1) -> list[str]:
    return [(first + datetime.timedelta(step * i)).strftime(form) for i in range(n)]


@pytest.mark.parametrize("order", ["mdy", "dmy", "ymd"])
@pytest.mark.parametrize("first", [datetime.date(2012, 5, 1), datetime.date(2023, 1, 28)])
@pytest.mark.parametrize("n", [3, 11, 90])
def test_order_of_a_season_of_days_is_found(order: str, first: datetime.date, n: int) -> None:
    texts = days("".join(f"%{part}" for part in order), first, n)
    possible = possible_orders(texts)
    assert order in possible
    assert likeliest_order(texts, possible) == order


def test_first_order_is_taken_where_nothing_tells_them_apart() -> None:
    assert possible_orders(["041012"]) == ["mdy", "ymd", "dmy"]
    assert likeliest_order(["041012"]) == "mdy"
    assert likeliest_order(["041012"], ("dmy", "ymd", "mdy")) == "dmy"


def test_date_that_says_its_order_is_told_from_one_that_does_not() -> None:
    clear = ["2018-09-10", "20180910", "10Sep2018", "2018Sep10", "Sep102018"]
    unclear = ["100918", "10.9.2018", "19.9.2018", "041912", "09102018", "10Sep18", "45", "adult"]
    assert [has_own_order(text) for text in clear] == [True] * len(clear)
    assert [has_own_order(text) for text in unclear] == [False] * len(unclear)
