"""A reading that is killed at any change of the disk leaves old or new files, and is made good.

The recordings are what they were.
"""

import json
import subprocess
import sys

import pytest
import soundfile

from study.base.paths import ROOT
from tests.helpers.finch_songs import RATE, song


@pytest.mark.slow
def test_reading_killed_at_every_write_leaves_whole_files_and_goes_on(tmp_path):
    for version, numbers in (("old", (0, 1, 2)), ("new", (0, 1, 3, 4))):
        for age, of_age in (("45", numbers), ("60", (5, 6, 7))):
            folder = tmp_path / version / "b1" / age
            folder.mkdir(parents=True)
            for i in of_age:
                soundfile.write(folder / f"{i}.wav", song(i, 1.5), RATE)
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.killed_ingest", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kills = [json.loads(line) for line in done.stdout.splitlines()]
    assert [kill["n"] for kill in kills] == list(range(1, len(kills) + 1))
    assert len(kills) > 15
    assert all(kill["whole"] and kill["again"] and kill["untouched"] for kill in kills)
