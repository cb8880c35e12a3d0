"""What stands in the terminal."""

import io

from study.base.console import WIDTH, Console, Progress, count, format_seconds


def printed(write):
    stream = io.StringIO()
    write(Console(stream))
    return stream.getvalue()


def test_seconds_are_written_for_people():
    assert [format_seconds(s) for s in (0.4, 59, 60, 3725)] == ["0 s", "59 s", "1:00", "1:02:05"]


def test_a_number_has_its_word():
    assert [count(n, "file") for n in (0, 1, 2000)] == ["0 files", "1 file", "2,000 files"]
    assert [count(n, "trial", "is/are") for n in (1, 2)] == ["1 trial is", "2 trials are"]


def test_tables_fit_a_terminal_and_align_numbers_right():
    rows = [["a", 5, 0.123456], ["longer", 100, None], ["x" * 150, 1, 2.0]]
    lines = printed(lambda c: c.table(["name", "n", "value"], rows)).splitlines()
    assert max(map(len, lines)) <= WIDTH
    short = printed(lambda c: c.table(["name", "n"], [["a", 5], ["b", 100]])).splitlines()
    assert short == ["name    n", "----  ---", "a       5", "b     100"]


def test_a_long_note_is_wrapped_and_a_path_in_it_stays_whole():
    path = "/data/" + "long-name/" * 12 + "a.wav"
    lines = printed(lambda c: c.note(f"{'word ' * 40}{path} ends")).splitlines()
    assert all(len(line) <= WIDTH for line in lines if path not in line)
    assert f"      {path}" in lines
    assert all(line.startswith("      ") for line in lines)


def test_progress_says_what_is_left_by_share_of_work():
    stream = io.StringIO()
    progress = Progress(Console(stream), 4, "fits", every_s=0.0)
    progress._started -= 30.0
    progress.advance(1, work_share=0.75)  # the longest goes first
    assert "1 of 4 fits, 30 s so far, about 10 s left" in stream.getvalue()
    progress.advance(3, work_share=0.25)
    assert "4 fits in 30 s" in stream.getvalue()
