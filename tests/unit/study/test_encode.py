"""What the stage of latents says of each snippet."""

import numpy as np
import pytest

from data_io.files import BrokenSealError, write_json
from data_io.store import BrokenFileError
from models.mdgan.encoding import n_snippets
from study.base.paths import RunPaths
from study.encode import read_whitening, sound_shares


@pytest.mark.parametrize("hop", [1, 3, 4, 16])
@pytest.mark.parametrize("total", [1, 15, 16, 17, 100])
def test_the_share_of_sound_is_that_of_the_frames_of_each_snippet(total, hop):
    has_sound = np.random.default_rng(0).random(total) < 0.5
    n = n_snippets(total, 16, hop)
    expected = [has_sound[hop * i : hop * i + 16].sum() / 16 for i in range(n)]
    found = sound_shares(has_sound, n, 16, hop)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected)


def test_no_flipped_bit_of_the_whitening_gives_another_number(tmp_path):
    paths = RunPaths(tmp_path)
    write_json(paths.whitening, {"mean": [0.25, -1.5], "std": [1.0, 2.5e-3]})
    good = paths.whitening.read_bytes()
    expected = read_whitening(paths, ("b1", "45"))
    n_refused = 0
    for at in range(len(good)):
        altered = bytearray(good)
        altered[at] ^= 1
        paths.whitening.write_bytes(altered)
        try:
            found = read_whitening(paths, ("b1", "45"))
        except BrokenSealError as error:
            assert str(paths.whitening) in str(error)
            n_refused += 1
        else:
            np.testing.assert_array_equal(found, expected)
    assert n_refused == len(good)
    paths.whitening.unlink()
    with pytest.raises(BrokenFileError, match=r"_whitening\.json is missing. Run the same command"):
        read_whitening(paths, ("b1", "45"))
