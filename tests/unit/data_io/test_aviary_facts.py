"""A small version of the benchmark that finds planted facts again in the sound."""

import subprocess
import sys

import pytest

from study.base.paths import ROOT

# Those that two seeds tell for certain.
STURDY = {
    "entropy rate, bits", "surprise by the chain, bits", "beyond first order, first order",
    "repertoire", "timing variability", "silence share", "silence share, detector",
    "gain of a day, dB", "noise step, dB", "noise, dB", "hum, dB", "calls share",
    "introductory notes",
}  # fmt: skip


@pytest.mark.slow
def test_what_is_planted_is_found_again_in_the_sound():
    command = [sys.executable, "-m", "benchmarks.aviary_truth", "--seeds", "2", "--minutes", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    rows = [line for line in done.stdout.splitlines() if line.endswith(" found")]
    found = {row[:34].strip() for row in rows if not row.endswith("NOT found")}
    assert found >= STURDY, done.stdout
