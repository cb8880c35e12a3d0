"""The decoder on arrays: the lines of its documentation run, and what it cannot use is named."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from data_io.aviary.params import AviaryParams
from data_io.aviary.write import simulate_aviary
from models import decoder as library
from models.decoder import Decoder, MdganParams
from models.mdgan.checkpoints import FORMAT_VERSION
from models.mdgan.model import Mdgan
from models.mdgan.tensor_files import read_required_json, write_json
from models.metrics.evaluation import evaluate
from study.base.paths import ROOT

TINY = MdganParams(
    latent_dim=3, width=4, dense_width=8, n_components=8, disc_width=2, adversarial_from=0.5,
    batch_size=8, n_snippets=64, n_reports=2,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def few_snippets():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "N_REFERENCE_SNIPPETS", 200)
        patch.setattr(library, "N_EVAL_SNIPPETS", 100)
        yield


def spectrogram(n_frames, seed=0):
    """Tones that come and go; magnitudes as of song."""
    rng = np.random.default_rng(seed)
    f, t = np.arange(129)[:, None], np.arange(n_frames)
    pitch = 30 + 20 * np.sin(t / rng.uniform(5, 15))
    tone = 3 * np.exp(-(((f - pitch) / 4) ** 2)) * (1 + np.sin(t / rng.uniform(3, 9)))
    return (tone + rng.gamma(1, 0.05, (129, n_frames))).astype(np.float32)


SONGS = [spectrogram(n, seed=n) for n in (60, 16, 90)]
HELD_OUT = [spectrogram(n, seed=n) for n in (500, 150)]


def fitted(**changes):
    decoder = Decoder(dataclasses.replace(TINY, **changes))
    decoder.fit(SONGS, HELD_OUT, seed=1)
    return decoder


@pytest.fixture(scope="module")
def decoder():
    return fitted()


# The lines of the documentation


def documented_lines(text):
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (lines,) = [block for block in blocks if "decoder.fit(" in block]
    return lines


def test_the_documented_lines_run(tmp_path, monkeypatch, capsys):
    lines = documented_lines(library.__doc__)
    params = "MdganParams(latent_dim=16)"
    assert params in lines
    simulate_aviary(tmp_path / "recordings", AviaryParams(1, (90,), 0.05, (1.0, 1.0)), seed=0)
    monkeypatch.chdir(tmp_path)
    found = {"TINY": dataclasses.replace(TINY, latent_dim=8)}
    exec(lines.replace(params, "TINY"), found)
    assert len(found["spectrograms"]) == 3
    assert capsys.readouterr().out.count("TrainingReport(") == 2
    assert found["metrics"]["valid/recon_l1_vs_pca"] > 0
    n_snippets = -(-found["spectrograms"][0].shape[1] // 16)
    assert found["z"].shape == (n_snippets, 8)
    assert found["again"].shape == (129, 16 * n_snippets)
    assert found["snippets"].shape == (100, 129, 16)
    assert np.ptp(found["snippets"], axis=0).max() > 0
    np.testing.assert_array_equal(found["same"].encode(found["spectrograms"][0]), found["z"])


def test_the_readme_has_the_same_lines():
    readme = (ROOT / "README.md").read_text()
    assert documented_lines(readme) == documented_lines(library.__doc__)


# Training


def test_training_learns_from_songs_and_is_measured_on_the_held_out_ones(monkeypatch):
    seen, made = [], []

    def watched(model, reference, songs, seed):
        seen.append((model, reference, songs, seed))
        return evaluate(model, reference, songs, seed)

    monkeypatch.setattr(library, "evaluate", watched)
    monkeypatch.setattr(library, "Mdgan", lambda *args: made.append(args) or Mdgan(*args))
    reports = []
    decoder = Decoder(TINY)
    metrics = decoder.fit(SONGS, [7 + HELD_OUT[0]], 1, reports.append)
    assert [report.report for report in reports] == [1, 2]
    assert metrics == reports[-1].metrics != reports[0].metrics
    assert len(seen) == 2
    model, reference, (songs,), seed = seen[-1]
    assert songs.held_out.shape == (31, 1, 129, 16)
    assert songs.held_out.min() >= 7 > reference.pca_mean.max()
    assert songs.training_lengths == ()  # nine snippets give no sequence model
    assert seed == 0  # whatever the seed of the training: metrics of all seeds compare
    assert "valid/frechet_song" not in metrics
    assert made[0][:4] == (TINY, 16, 1, "cpu")
    assert model.snippets_seen == 64
    # It began as the PCA of songs, and has moved from there.
    weight = model.encoder.dense.project.weight.detach().double()
    begun = torch.from_numpy(reference.pca_components[:8] / reference.pca_std[:8, None])
    cosines = torch.nn.functional.cosine_similarity(weight, begun)
    assert (cosines.abs() > 0.5).all()  # of random weights 0.02
    assert not torch.allclose(weight, begun, rtol=1e-6)


def test_without_a_dense_path_no_pca_is_needed():
    decoder = fitted(dense_width=0, n_components=500)  # more than there are snippets
    assert decoder.encode(SONGS[0]).shape == (4, 3)


def test_the_same_seed_gives_the_same_decoder_and_fit_begins_anew(decoder):
    z = decoder.encode(SONGS[0])
    again = fitted()
    np.testing.assert_array_equal(again.encode(SONGS[0]), z)
    again.fit(SONGS, HELD_OUT, seed=2)
    assert not np.allclose(again.encode(SONGS[0]), z)
    again.fit(SONGS, HELD_OUT, seed=1)
    np.testing.assert_array_equal(again.encode(SONGS[0]), z)


class StopError(Exception):
    """Raised to give up."""


def test_a_training_that_is_given_up_leaves_the_decoder_as_it_was(decoder):
    def give_up(progress):
        raise StopError

    z = decoder.encode(SONGS[0])
    with pytest.raises(StopError):
        decoder.fit(SONGS, HELD_OUT, seed=3, on_progress=give_up)
    np.testing.assert_array_equal(decoder.encode(SONGS[0]), z)


@pytest.mark.parametrize("n_frames", [8, 16])
def test_random_snippets_are_whole_of_one_song_and_from_all_of_it(n_frames):
    numbered = [
        (1000 * i + np.arange(n) + 0.001 * np.arange(129)[:, None]).astype("f4")
        for i, n in enumerate([n_frames, 20])
    ]
    frames = library._frames_of(numbered, n_frames, "songs", "cpu")
    x = frames.sample(400, torch.Generator().manual_seed(0)).numpy()
    assert x.shape == (400, 1, 129, n_frames)
    starts = np.rint(x[:, 0, 0, 0]).astype(int)
    assert set(starts) == {0, *range(1000, 1000 + 20 - n_frames + 1)}
    for snippet, start in zip(x[:, 0], starts, strict=True):
        song, first = divmod(start, 1000)
        np.testing.assert_array_equal(snippet, numbered[song][:, first : first + n_frames])


# Encoding, decoding, sampling


def test_a_song_is_encoded_and_decoded_in_order(decoder):
    whole = SONGS[2]
    z = decoder.encode(whole)
    assert (z.shape, z.dtype) == ((6, 3), np.float32)
    np.testing.assert_allclose(decoder.encode(whole[:, 32:64]), z[2:4], rtol=1e-4, atol=1e-5)
    song = decoder.decode(z)
    assert (song.shape, song.dtype) == ((129, 96), np.float32)
    np.testing.assert_allclose(decoder.decode(z[2:4]), song[:, 32:64], rtol=1e-4, atol=1e-5)
    assert decoder.encode(whole[:, :1]).shape == (1, 3)


def test_snippets_that_overlap_are_those_of_the_song_cut_later(decoder):
    whole = SONGS[2]
    n_total = whole.shape[1]
    z = decoder.encode(whole, hop=4)
    assert len(z) == 1 + -(-(n_total - 16) // 4)
    ends = decoder.encode(whole[:, 8:])
    np.testing.assert_allclose(z[2::4][: len(ends) - 1], ends[:-1], rtol=1e-4, atol=1e-5)
    assert decoder.decode(z, hop=4).shape == (129, 4 * (len(z) - 1) + 16)


@pytest.mark.parametrize("hop", [0, -1, 17])
def test_a_hop_that_leaves_frames_out_is_refused(decoder, hop):
    with pytest.raises(ValueError, match=f"hop is {hop}: .* from 1 to 16"):
        decoder.encode(SONGS[0], hop=hop)
    with pytest.raises(ValueError, match=f"hop is {hop}: .* from 1 to 16"):
        decoder.decode(np.zeros((2, 3), "f4"), hop=hop)


def test_samples_follow_from_their_seed(decoder, monkeypatch):
    snippets = decoder.sample(9, seed=4)
    assert (snippets.shape, snippets.dtype) == ((9, 129, 16), np.float32)
    assert not np.allclose(decoder.sample(9, seed=5), snippets)
    monkeypatch.setattr(library, "BATCH", 4)
    np.testing.assert_allclose(decoder.sample(9, seed=4), snippets, rtol=1e-4, atol=1e-5)
    # From the prior of the parameters: narrow it, and snippets come near that of latent 0.
    narrow = dataclasses.replace(TINY, prior_scale=1e-6)
    monkeypatch.setattr(decoder, "params", narrow)
    at_zero = decoder.decode(np.zeros((1, 3), "f4"))
    np.testing.assert_allclose(decoder.sample(2, seed=4)[1], at_zero, rtol=1e-3, atol=1e-4)


def test_samples_use_the_statistics_of_the_prior():
    decoder = fitted(normalisation="batch", dense_width=0, adversarial_from=0.0)
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(4))
    _, generator = decoder._nets
    with torch.no_grad():
        prior, encoded = (generator(z, source)[:, 0].numpy() for source in ("prior", "encoded"))
    np.testing.assert_allclose(decoder.sample(5, seed=4), prior, rtol=1e-5, atol=1e-6)
    assert not np.allclose(prior, encoded, atol=1e-3)


# On disk


def test_a_saved_decoder_is_the_same_when_loaded(decoder, tmp_path):
    decoder.save(tmp_path / "new" / "folder")
    loaded = Decoder.load(str(tmp_path / "new" / "folder"))
    assert (loaded.params, loaded.n_frames) == (decoder.params, 16)
    z = decoder.encode(SONGS[0])
    np.testing.assert_array_equal(loaded.encode(SONGS[0]), z)
    np.testing.assert_array_equal(loaded.decode(z), decoder.decode(z))
    np.testing.assert_array_equal(loaded.sample(3, seed=0), decoder.sample(3, seed=0))
    loaded.save(tmp_path / "again")
    np.testing.assert_array_equal(Decoder.load(tmp_path / "again").encode(SONGS[0]), z)


def test_parameters_of_another_version_are_refused(decoder, tmp_path):
    decoder.save(tmp_path)
    path = tmp_path / "model.json"
    content = read_required_json(path, FORMAT_VERSION)
    content["params"]["momentum"] = content["params"].pop("beta1")
    write_json(path, content)
    with pytest.raises(
        ValueError, match=r"model\.json: its params .* by beta1, momentum: .* again"
    ):
        Decoder.load(tmp_path)


def test_snippets_of_8_frames(tmp_path):
    decoder = Decoder(TINY, n_frames=8)
    decoder.fit(SONGS, HELD_OUT, seed=0)
    decoder.save(tmp_path)
    loaded = Decoder.load(tmp_path)
    assert loaded.encode(SONGS[1]).shape == (2, 3)
    assert loaded.sample(2, seed=0).shape == (2, 129, 8)


# Named errors


def test_a_decoder_that_was_not_trained_says_so(tmp_path):
    decoder = Decoder(TINY)
    for use in (
        lambda: decoder.encode(SONGS[0]),
        lambda: decoder.decode(np.zeros((1, 3))),
        lambda: decoder.sample(1, seed=0),
        lambda: decoder.save(tmp_path / "new"),
    ):
        with pytest.raises(RuntimeError, match="not been trained: call fit first, or use load"):
            use()
    assert not (tmp_path / "new").exists()


def test_another_number_of_frames_is_refused_at_once():
    with pytest.raises(ValueError, match="n_frames is 10"):
        Decoder(TINY, n_frames=10)


def spoiled(value):
    song = SONGS[0].copy()
    song[5, 7] = value
    return song


UNUSABLE = {
    r"has the shape \[128, 60\]: a spectrogram is \[129, .* 256 points.* transpose": SONGS[0][1:],
    r"has the shape \[60, 129\]: a spectrogram is": SONGS[0].T,
    r"has the shape \[129\]: a spectrogram is": SONGS[0][:, 0],
    r"holds 1 numbers that are not finite: .* leave it out": spoiled(np.nan),
    r"holds 1 numbers that are not finite: look": spoiled(np.inf),
    r"holds -0\.5: log\(1 \+ magnitude\) is never negative.* not dB": spoiled(-0.5),
}


@pytest.mark.parametrize("seed", [-1, 2**32, 20180919123456, 1.0, True, "3", None, np.int64(-1)])
def test_seeds_that_some_library_would_refuse_later_are_refused(seed, decoder):
    with pytest.raises(ValueError, match="give a whole number from 0 to 4294967295"):
        Decoder(TINY).fit(SONGS, HELD_OUT, seed=seed)
    with pytest.raises(ValueError, match="give a whole number from 0 to 4294967295"):
        decoder.sample(2, seed=seed)


@pytest.mark.parametrize("seed", [2**32 - 1, np.int64(7)])
def test_the_last_seed_and_those_of_numpy_train_a_decoder(seed):
    decoder = Decoder(TINY)
    assert decoder.fit(SONGS, HELD_OUT, seed=seed)
    assert decoder.sample(2, seed=seed).shape == (2, 129, 16)


def test_one_spectrogram_in_place_of_a_list_is_refused_with_advice():
    with pytest.raises(ValueError, match=r"^spectrograms is one array .* one \[spectrogram\]"):
        Decoder(TINY).fit(SONGS[0], HELD_OUT, seed=0)
    with pytest.raises(ValueError, match=r"^held_out is one array"):
        Decoder(TINY).fit(SONGS, HELD_OUT[0], seed=0)


@pytest.mark.parametrize("message", UNUSABLE)
def test_an_unusable_spectrogram_is_named(message, decoder):
    with pytest.raises(ValueError, match=rf"^spectrograms\[1\] {message}"):
        Decoder(TINY).fit([SONGS[0], UNUSABLE[message]], HELD_OUT, seed=0)
    with pytest.raises(ValueError, match=rf"^held_out\[0\] {message}"):
        Decoder(TINY).fit(SONGS, [UNUSABLE[message]], seed=0)
    with pytest.raises(ValueError, match=f"^spectrogram {message}"):
        decoder.encode(UNUSABLE[message])


def test_a_spectrogram_that_is_too_short_is_named(decoder):
    with pytest.raises(
        ValueError, match=r"^spectrograms\[0\] has 15 frames: at least 16 are needed"
    ):
        Decoder(TINY).fit([SONGS[0][:, :15]], HELD_OUT, seed=0)
    with pytest.raises(ValueError, match=r"^spectrogram has 0 frames: at least 1 are needed"):
        decoder.encode(SONGS[0][:, :0])


def test_an_empty_list_is_named():
    with pytest.raises(ValueError, match="^spectrograms is empty: give at least one"):
        Decoder(TINY).fit([], HELD_OUT, seed=0)
    with pytest.raises(ValueError, match="^held_out is empty: give at least one"):
        Decoder(TINY).fit(SONGS, [], seed=0)


@pytest.mark.parametrize("shape", [(3,), (2, 4), (0, 3)])
def test_latents_of_another_shape_are_refused(shape, decoder):
    message = re.escape(f"latents has the shape {list(shape)}: this decoder takes [n_snippets, 3]")
    with pytest.raises(ValueError, match=message):
        decoder.decode(np.zeros(shape))
    with pytest.raises(ValueError, match="latents holds 3 numbers that are not finite"):
        decoder.decode(np.full((1, 3), np.nan))


def test_no_samples_are_refused(decoder):
    with pytest.raises(ValueError, match="n is 0: there is no snippet to sample"):
        decoder.sample(0, seed=0)


# Silence


def test_frames_without_sound_are_learned_as_silence(monkeypatch):
    seen = []
    step = Mdgan.train_step
    monkeypatch.setattr(Mdgan, "train_step", lambda *given: seen.append(given[2]) or step(*given))
    has_sound = [np.arange(song.shape[1]) >= song.shape[1] // 2 for song in SONGS]
    for given, n_sounding in ((None, TINY.batch_size), (has_sound, TINY.batch_size * 3 // 4)):
        seen.clear()
        Decoder(TINY).fit(SONGS, HELD_OUT, seed=3, has_sound=given)
        assert set(seen) == {n_sounding}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda sounds: sounds[1:], r"has_sound is of \d+ recordings, and there are \d+"),
        (lambda sounds: [sounds[0][1:], *sounds[1:]], r"has_sound\[0\] has the shape \[\d+\]"),
    ],
)
def test_answers_for_other_frames_are_refused(change, words):
    sounds = [np.ones(song.shape[1], bool) for song in SONGS]
    with pytest.raises(ValueError, match=words):
        Decoder(TINY).fit(SONGS, HELD_OUT, seed=3, has_sound=change(sounds))
