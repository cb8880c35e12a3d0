"""Of what the command says of a file: which file is named, and what is to be done."""

from pathlib import Path

import pytest

from tests.helpers.crash_points import after_remedy
from tests.helpers.remedies import follow, names

FILE = Path("/tmp/run/search/trial-001/trial.json")


@pytest.mark.parametrize(
    "text",
    [
        f"error: {FILE} is missing.", f"error: {FILE}: it is broken", f"Delete {FILE}.",
        "search/trial-001/trial.json was altered", "trial-001/trial.json was altered",
        "trial-001 is broken (trial.json is missing)",
    ],
)  # fmt: skip
def test_a_file_is_named_by_its_path_or_an_end_of_it(text):
    assert names(text, FILE)


@pytest.mark.parametrize(
    "text",
    [
        "error: /tmp/run/search/trial-000/trial.json is missing", "trial-000/trial.json is missing",
        "/tmp/other/search/trial-001/trial.json is missing", "no-trial.json", "trial.json.old", "",
    ],
)  # fmt: skip
def test_another_file_of_the_same_name_is_not_meant(text):
    assert not names(text, FILE)


def test_what_is_to_be_removed_is_removed(tmp_path):
    for name in ("altered", "deleted"):
        (tmp_path / name).touch()
    (tmp_path / "trial-000").mkdir()
    for error in (
        f"error: {tmp_path}/x is missing. Remove the folder {tmp_path}/trial-000: the same command",
        f"error: {tmp_path}/altered was cut short or altered (no JSON). Delete it and run",
        f"error: x. Delete {tmp_path}/deleted.",
    ):
        assert follow(error)
    assert list(tmp_path.iterdir()) == []
    assert not follow("error: Restore the file.")


@pytest.mark.parametrize(
    ("error", "then", "verdict"),
    [
        ("error: {0} is bad. Delete {0}.", ("equal", ""), "said"),
        ("error: the disk is away: the same command goes on.", ("equal", ""), "said"),
        ("error: {0} is bad. Delete {0}.", ("wrong", "2 files differ"), "wrong"),
        ("error: {0} is bad. Delete {0}.", ("said", "error: again"), "wrong"),
        ("error: {0} is bad.", ("equal", ""), "wrong"),
    ],
)
def test_an_error_after_a_power_cut_counts_by_what_its_remedy_leads_to(
    tmp_path, error, then, verdict
):
    path = tmp_path / "a.json"
    path.touch()
    found, why = after_remedy(error.format(path), lambda: then)
    assert found == verdict
    assert why.startswith("error: ")
    assert path.exists() == ("Delete" not in error)
