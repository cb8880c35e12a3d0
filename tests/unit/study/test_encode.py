"""What the stage of latents says of each snippet."""

import numpy as np
import pytest

from models.mdgan.encoding import n_snippets
from study.encode import sound_shares


@pytest.mark.parametrize("hop", [1, 3, 4, 16])
@pytest.mark.parametrize("total", [1, 15, 16, 17, 100])
def test_the_share_of_sound_is_that_of_the_frames_of_each_snippet(total, hop):
    has_sound = np.random.default_rng(0).random(total) < 0.5
    n = n_snippets(total, 16, hop)
    expected = [has_sound[hop * i : hop * i + 16].sum() / 16 for i in range(n)]
    found = sound_shares(has_sound, n, 16, hop)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected)
