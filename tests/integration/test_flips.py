"""One bit of a finished study's files is flipped: named and done anew, or nothing comes of it.

`python -m benchmarks.flips` does so with every kind of file, also of studies that were stopped.
"""

import pytest

from tests.helpers.flips import Flips

pytestmark = pytest.mark.integration

KINDS = (
    ".stages/hmm.json", ".tracking/*.json", "best/generator.safetensors", "hmm_selected.parquet",
    "hmm/*/*.json", "latents/_whitening.json", "report.html", "selection.json",
    "search/trial-*/ended.json", "search/trial-*/trial.json", "songs/*/*/sampled.wav", "study.json",
)  # fmt: skip


def test_a_flipped_bit_is_never_used_without_a_word(tmp_path):
    flips = Flips(tmp_path / "flips", moments=())
    for kind in KINDS:
        tally = flips.flip(kind, 1)
        assert tally.wrong == [], kind
        assert tally.n == tally.healed + tally.harmless + tally.refused == 1, kind
        assert tally.remedied == tally.refused, kind
