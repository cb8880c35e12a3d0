"""Songs to look at and to listen to."""

import numpy as np
import pytest
import soundfile

from data_io.files import file_sha256
from data_io.recordings.table import Recording
from data_io.song_models import SongModel
from data_io.sound.file import BadSoundError
from data_io.spectrogram import SpectrogramParams, log_spectrogram
from study import songs
from study.base.paths import RunPaths
from study.config.reader import load_config
from study.songs import inversions, sample_z, save_spectrogram

PARAMS = SpectrogramParams()


def test_a_name_that_looks_like_mathematics_is_drawn_as_it_is(tmp_path):
    path = tmp_path / "song.png"
    spectrogram = np.ones((129, 40), np.float32)
    save_spectrogram(path, spectrogram, PARAMS, "$_$, 45: real", 1.0)
    assert path.stat().st_size > 1000


def test_a_recording_that_was_altered_since_it_was_read_gives_no_song(tmp_path, monkeypatch):
    path = tmp_path / "b1" / "45" / "a.wav"
    path.parent.mkdir(parents=True)
    soundfile.write(path, np.linspace(-0.5, 0.5, 16_000), 16_000)
    recording = Recording("b1", "45", 45, None, "b1/45/a.wav", sha256=file_sha256(path))
    monkeypatch.setattr(songs, "load_decoder", lambda folder: (None, None, None))
    monkeypatch.setattr(songs, "read_sound", lambda *arguments: 1 / 0)
    config = load_config("smoke", None, [])
    make = songs._songs_of._function
    with pytest.raises(ZeroDivisionError):  # it goes on to read it
        make(config, recording, tmp_path, RunPaths(tmp_path / "run"), tmp_path / "songs")
    path.write_bytes(path.read_bytes()[:-1] + b"\7")
    with pytest.raises(BadSoundError, match=r"a\.wav is not the file that was read before"):
        make(config, recording, tmp_path, RunPaths(tmp_path / "run"), tmp_path / "songs")


def test_a_long_sampled_song_begins_near_the_steady_state_wherever_recordings_begin():
    model = SongModel(
        start_probs=np.array([1.0, 0.0]),
        transition_matrix=np.array([[0.4, 0.6], [0.2, 0.8]]),  # steady state: 1/4, 3/4
        means=np.array([[-1.0], [1.0]]),
        covariances=np.full((2, 1), 1e-4),
        covariance_type="diag",
        whitening_mean=np.array([10.0]),
        whitening_std=np.array([2.0]),
        state_of=np.arange(2),
        carry=None,
        dof=None,
        hop=16,
    )
    first = np.array([sample_z(model, 60, seed)[0, 0] for seed in range(400)])
    np.testing.assert_allclose(np.abs(first - 10), 2, atol=0.2)
    assert (first > 10).mean() == pytest.approx(0.75, abs=0.08)  # 3.7 standard errors


def test_the_real_song_is_inverted_beside_the_others_and_each_says_how_near_it_comes():
    t = np.arange(16_000) / 16_000
    song = (0.1 * np.sin(2 * np.pi * 2000 * t) * np.sin(2 * np.pi * 3 * t)).astype("f4")
    real = log_spectrogram(song, 16_000, PARAMS, gain=5.0)
    scrambled = real[:, np.random.default_rng(0).permutation(real.shape[1])]
    silent = np.zeros_like(real)
    pictures = {"real": real, "reconstruction": scrambled, "sampled": silent}
    sounds, convergence = inversions(pictures, PARAMS, 20, seed=0, gain=5.0)
    assert list(sounds) == list(convergence) == ["inverted", "reconstruction", "sampled"]
    assert sounds["inverted"].std() == pytest.approx(song.std(), rel=0.02)
    assert convergence["inverted"] < 0.02
    assert convergence["reconstruction"] > 0.2  # no sound has such a spectrogram
    assert convergence["sampled"] is None
    assert not sounds["sampled"].any()
