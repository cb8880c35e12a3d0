"""The picture of a song."""

import numpy as np

from data_io.spectrogram import SpectrogramParams
from study.songs import save_spectrogram


def test_a_name_that_looks_like_mathematics_is_drawn_as_it_is(tmp_path):
    path = tmp_path / "song.png"
    spectrogram = np.ones((129, 40), np.float32)
    save_spectrogram(path, spectrogram, SpectrogramParams(), "$_$, 45: real", 1.0)
    assert path.stat().st_size > 1000
