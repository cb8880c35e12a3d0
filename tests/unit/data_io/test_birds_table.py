"""birds.csv is read as people write it, or refused with line and value."""

import datetime
from pathlib import Path

import pytest

from data_io.names.birds_table import Bird, BirdsTableError, read_birds

PLAIN = "bird,hatch_date,tutor,sex,exclude\nG402,2018-08-05,R12,m,\nb1,,,,yes\n"
BIRDS = {
    "G402": Bird("G402", datetime.date(2018, 8, 5), "R12", "m", False),
    "b1": Bird("b1", None, "", "", True),
}


def write(root: Path, text: str | bytes) -> Path:
    (root / "birds.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        "\ufeff" + PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace("G402,2018-08-05", ' "G402" , 5-Aug-2018').replace(' "G402" ', '"G402"'),
        PLAIN.replace("2018-08-05", "2018-08-05 00:00:00"),
        PLAIN.replace("2018-08-05", "20180805"),
        "Exclude,Bird,SEX,Tutor,Hatch_Date\n\n,G402,m,R12,2018-8-5\nTRUE,b1\n,,,,\n",
        "bird;exclude;hatch_date;tutor;sex\nG402;no;2018.08.05;R12;m\nb1;x;;;;;\n",
    ],
)
def test_table_is_read_in_every_dress(tmp_path: Path, text: str) -> None:
    assert read_birds(write(tmp_path, text)) == (BIRDS, [])


def test_folder_without_the_table_has_no_birds_in_it(tmp_path: Path) -> None:
    assert read_birds(tmp_path) == ({}, [])


def test_columns_that_are_not_read_are_named(tmp_path: Path) -> None:
    birds, notes = read_birds(write(tmp_path, "bird,nest,weight\nb1,3,12\n"))
    assert list(birds) == ["b1"]
    assert len(notes) == 1
    assert "nest, weight are not read" in notes[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bird,hatch_date\nb1,2018-02-30\n", ["line 2", "'2018-02-30'", "b1", "no date"]),
        ("bird,hatch_date\nb1,2018-02-03\n\nb2,45\n", ["line 4", "'45'", "b2"]),
        ("bird,hatch_date\nb1,43362\n", ["line 2", "'43362'"]),
        ("bird,hatch_date\nb1,soon\n", ["line 2", "'soon'", "2018-09-19"]),
        ("bird,exclude\nb1,\nb2,maybe\n", ["line 3", "'maybe'", "b2", "yes"]),
        ("bird,sex\nb1,m\nb2,f\nb1,f\n", ["line 4", "'b1'", "line 2"]),
        ("bird,sex\n,m\n", ["line 2", "no bird is named"]),
        ("bird,tutor\nb1,R12,R13\n", ["line 2", "3 cells", "2 columns"]),
        ("name,hatch_date\nb1,2018-02-03\n", ["'bird'", "name, hatch_date"]),
        ("bird,sex,Bird\nb1,m,b2\n", ["two columns", "'bird'"]),
        ('bird,tutor\nb1,"R12\nb2,R13\n', ["line 3", "quote"]),
        ("", ["empty"]),
        ("\n\n", ["empty"]),
        ("bird,tutor\nb1,R12\nv\u00f6gel,R12\n".encode("latin-1"), ["line 3", "not UTF-8"]),
        (PLAIN.encode("utf-16"), ["line 1", "not UTF-8"]),
    ],
)
def test_wrong_table_is_refused_by_line_and_value(
    tmp_path: Path, text: str | bytes, words: list[str]
) -> None:
    with pytest.raises(BirdsTableError) as caught:
        read_birds(write(tmp_path, text))
    assert str(tmp_path / "birds.csv") in str(caught.value)
    assert [word for word in words if word not in str(caught.value)] == []


def test_table_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "birds.csv").mkdir()
    with pytest.raises(BirdsTableError, match=r"birds\.csv cannot be read: Is a directory"):
        read_birds(tmp_path)


def test_order_of_hatch_dates_is_found_from_all_of_them(tmp_path: Path) -> None:
    text = "bird,hatch_date\nb1,05/04/2012\nb2,19/04/2012\n"
    birds, notes = read_birds(write(tmp_path, text))
    assert birds["b1"].hatch_date == datetime.date(2012, 4, 5)
    assert notes == []


def test_unclear_hatch_date_is_read_and_named(tmp_path: Path) -> None:
    birds, notes = read_birds(write(tmp_path, "bird,hatch_date\nb1,05/04/2012\n"))
    assert birds["b1"].hatch_date == datetime.date(2012, 5, 4)
    assert len(notes) == 1
    assert "05/04/2012 is read as 2012-05-04" in notes[0]
    birds, notes = read_birds(tmp_path, "dmy")
    assert birds["b1"].hatch_date == datetime.date(2012, 4, 5)
    assert notes == []


def test_hatch_dates_in_several_orders_are_named(tmp_path: Path) -> None:
    birds, notes = read_birds(write(tmp_path, "bird,hatch_date\nb1,4/19/2012\nb2,20/4/2012\n"))
    assert [str(bird.hatch_date) for bird in birds.values()] == ["2012-04-19", "2012-04-20"]
    assert "several orders" in notes[0]


def test_bird_that_tutors_itself_is_named(tmp_path: Path) -> None:
    _, notes = read_birds(write(tmp_path, "bird,tutor\nb1,b1\nb2,outsider\n"))
    assert notes == ["birds.csv names b1 as its own tutor."]
