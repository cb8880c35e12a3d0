"""Recordings to latents and back, and networks on disk."""

import dataclasses
import json
from typing import get_args

import numpy as np
import pytest
import torch

from models.mdgan import encoding
from models.mdgan.checkpoints import (
    load_decoder,
    load_training,
    save_decoder,
    save_decoder_facts,
    save_training,
)
from models.mdgan.encoding import cut_snippets, decode_latents, encode_spectrogram
from models.mdgan.model import Mdgan
from models.mdgan.networks import Encoder, Generator
from models.mdgan.params import MdganParams
from models.mdgan.shape import NetworkShape, Normalisation

NORMALISATIONS = get_args(Normalisation)
LENGTHS = [1, 7, 8, 9, 15, 16, 17, 1000]


def trained(normalisation, n_frames=16, n_steps=3, seed=0):
    params = MdganParams(
        latent_dim=3,
        width=2,
        dense_width=0,
        disc_width=2,
        normalisation=normalisation,
        adversarial_from=0.0,
        batch_size=6,
        lr=1e-2,
    )
    model = Mdgan(params, n_frames, seed)
    for i in range(n_steps):
        model.train_step(torch.from_numpy(snippets(6, n_frames, seed=i)))
    return model


def snippets(n, n_frames=16, seed=0):
    rng = np.random.default_rng(seed)
    loudness = rng.uniform(0, 4, (n, 1, 1, 1))
    return (loudness * rng.random((n, 1, 129, n_frames))).astype(np.float32)


def spectrogram(n_frames, seed=0):
    return np.random.default_rng(seed).random((129, n_frames)).astype(np.float32)


class FlatEncoder(torch.nn.Module):
    """A latent is the snippet itself, so that nothing is lost on the way."""

    def forward(self, x):
        return x.flatten(1)


class FlatGenerator(torch.nn.Module):
    def forward(self, z):
        return z.reshape(len(z), 1, 129, -1)


# Snippets


@pytest.mark.parametrize("n_frames", [8, 16])
@pytest.mark.parametrize("total", LENGTHS)
def test_snippets_are_consecutive_and_the_tail_is_filled_up_with_the_last_frame(total, n_frames):
    whole = spectrogram(total)
    cut = cut_snippets(whole, n_frames)
    assert cut.shape == (int(np.ceil(total / n_frames)), 129, n_frames)
    assert cut.dtype == np.float32
    joined = np.concatenate(list(cut), axis=1)
    np.testing.assert_array_equal(joined[:, :total], whole)
    np.testing.assert_array_equal(
        joined[:, total:], np.repeat(whole[:, -1:], joined.shape[1] - total, axis=1)
    )


def test_no_frames_are_an_error():
    with pytest.raises(ValueError, match="0 frames: there is nothing to cut"):
        cut_snippets(spectrogram(0), 16)


@pytest.mark.parametrize("n_frames", [8, 16])
@pytest.mark.parametrize("total", LENGTHS)
def test_a_song_comes_back_whole_and_in_order(total, n_frames, monkeypatch):
    monkeypatch.setattr(encoding, "BATCH", 5)
    whole = spectrogram(total)
    z = encode_spectrogram(FlatEncoder(), whole, n_frames)
    np.testing.assert_array_equal(decode_latents(FlatGenerator(), z, total), whole)
    padded = decode_latents(FlatGenerator(), z)
    assert padded.shape == (129, len(z) * n_frames)
    np.testing.assert_array_equal(padded[:, :total], whole)


# Snippets that overlap


@pytest.mark.parametrize("hop", [1, 3, 4, 8])
@pytest.mark.parametrize("total", LENGTHS)
def test_snippets_a_hop_apart_hold_every_frame(total, hop):
    whole = spectrogram(total)
    cut = cut_snippets(whole, 8, hop)
    last = hop * (len(cut) - 1)
    assert last + 8 >= total and (last == 0 or last - hop + 8 < total)
    padded = np.pad(whole, ((0, 0), (0, 16)), mode="edge")
    for i, snippet in enumerate(cut):
        np.testing.assert_array_equal(snippet, padded[:, hop * i : hop * i + 8])


def test_a_whole_recording_is_encoded_a_batch_at_a_time(monkeypatch):
    monkeypatch.setattr(encoding, "BATCH", 5)
    sizes = []

    class Counting(FlatEncoder):
        def forward(self, x):
            sizes.append(len(x))
            return super().forward(x)

    whole = spectrogram(101)
    z = encode_spectrogram(Counting(), whole, 16, hop=4)
    assert sizes == [5, 5, 5, 5, 3]
    np.testing.assert_array_equal(z, cut_snippets(whole, 16, 4).reshape(len(z), -1))


@pytest.mark.parametrize("hop", [1, 3, 4, 7, 16])
@pytest.mark.parametrize("total", LENGTHS)
def test_a_song_comes_back_from_snippets_that_overlap(total, hop, monkeypatch):
    monkeypatch.setattr(encoding, "BATCH", 5)
    whole = spectrogram(total)
    z = encode_spectrogram(FlatEncoder(), whole, 16, hop=hop)
    song = decode_latents(FlatGenerator(), z, total, hop=hop)
    np.testing.assert_allclose(song, whole, rtol=1e-5, atol=1e-6)
    assert decode_latents(FlatGenerator(), z, hop=hop).shape == (129, hop * (len(z) - 1) + 16)


def test_overlapping_snippets_that_differ_pass_into_each_other_by_hann_windows():
    z = np.concatenate([np.zeros((1, 129 * 16), "f4"), np.ones((1, 129 * 16), "f4")])
    song = decode_latents(FlatGenerator(), z, hop=8)
    falling, rising = np.hanning(18)[9:17], np.hanning(18)[1:9]
    np.testing.assert_allclose(song[0, 8:16], rising / (rising + falling), rtol=1e-6)
    assert not song[:, :8].any()
    np.testing.assert_array_equal(song[:, 16:], 1)


def test_a_song_decoded_in_steps_has_no_seams_where_snippets_end_to_end_have():
    # Each snippet is loud in its own way: the worst case for seams.
    loudness = np.random.default_rng(0).random((200, 1)).astype("f4")
    z = np.repeat(loudness, 129 * 16, axis=1)

    def seam(hop):
        steps = np.abs(np.diff(decode_latents(FlatGenerator(), z, hop=hop)[0]))[16:-16]
        by_place = [steps[place::hop].mean() for place in range(hop)]
        return max(by_place) / np.mean(by_place)

    assert seam(4) < 1.1 < 10 < seam(16)


def test_recordings_are_encoded_in_float32_as_it_is(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # as torch sets it on a GPU
    allowed = []

    class Asking(torch.nn.Module):
        def forward(self, x):
            allowed.append(torch.backends.cudnn.allow_tf32)
            return x

    encode_spectrogram(Asking(), spectrogram(16), 16)
    decode_latents(Asking(), np.zeros((1, 1, 129, 16)))
    assert allowed == [False, False]
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("n_frames", [8, 16])
def test_lengths_survive_the_networks(n_frames):
    shape = NetworkShape(3, n_frames, 2, 2)
    encoder, generator = Encoder(shape), Generator(shape)
    for total in LENGTHS:
        z = encode_spectrogram(encoder, spectrogram(total), n_frames)
        assert z.shape == (int(np.ceil(total / n_frames)), 3)
        assert z.dtype == np.float32
        song = decode_latents(generator, z, total)
        assert song.shape == (129, total)
        assert song.dtype == np.float32
        assert np.isfinite(song).all()


def test_more_snippets_than_a_batch_are_encoded_as_in_one(monkeypatch):
    model = trained("layer", n_steps=0)
    song = spectrogram(16 * 11 + 3)
    at_once = encode_spectrogram(model.encoder, song, 16)
    decoded = decode_latents(model.generator, at_once)
    monkeypatch.setattr(encoding, "BATCH", 4)
    np.testing.assert_allclose(encode_spectrogram(model.encoder, song, 16), at_once, atol=1e-5)
    np.testing.assert_allclose(decode_latents(model.generator, at_once), decoded, atol=1e-5)


# Latents do not depend on their batch


@pytest.mark.parametrize("n_steps", [0, 3])
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_a_latent_is_the_same_alone_and_in_any_batch(normalisation, n_steps):
    model = trained(normalisation, n_steps=n_steps)
    x = snippets(7, seed=5)[:, 0]
    song = np.concatenate(list(x), axis=1)
    louder = np.concatenate([song[:, :16], 5 * song], axis=1)
    model.encoder.train()  # as a training leaves it
    alone = np.concatenate([encode_spectrogram(model.encoder, s, 16) for s in x])
    model.encoder.train()
    together = encode_spectrogram(model.encoder, song, 16)
    model.encoder.train()
    with_others = encode_spectrogram(model.encoder, louder, 16)
    np.testing.assert_allclose(together, alone, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(with_others[:1], alone[:1], atol=1e-5, rtol=1e-5)
    assert alone.std(0).min() > 1e-4  # they differ, so the comparison says something


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_a_snippet_is_decoded_the_same_alone_and_in_any_batch(normalisation):
    model = trained(normalisation)
    z = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    model.generator.train()
    alone = np.concatenate([decode_latents(model.generator, one[None]) for one in z], axis=1)
    model.generator.train()
    together = decode_latents(model.generator, z)
    np.testing.assert_allclose(together, alone, atol=1e-5, rtol=1e-5)
    assert together.reshape(129, 5, 16).std(1).max() > 1e-4


def test_encoding_changes_no_statistics_and_leaves_no_gradients():
    model = trained("batch")
    before = {k: v.clone() for k, v in model.encoder.state_dict().items()}
    z = encode_spectrogram(model.encoder, spectrogram(50), 16)
    decode_latents(model.generator, z)
    after = model.encoder.state_dict()
    assert any("encoded_mean" in key for key in after)
    assert all(torch.equal(after[key], value) for key, value in before.items())


# Decoders on disk


@pytest.fixture(scope="module", params=["layer", "batch"])
def model(request):
    return trained(request.param)


@pytest.fixture
def saved(model, tmp_path):
    save_decoder(model, tmp_path, {"snippets_seen": 18, "note": "é"})
    return model, tmp_path


def test_a_loaded_decoder_gives_the_same_latents_and_songs(saved):
    model, folder = saved
    encoder, generator, content = load_decoder(folder)
    song = spectrogram(100)
    z = encode_spectrogram(model.encoder, song, 16)
    np.testing.assert_array_equal(encode_spectrogram(encoder, song, 16), z)
    np.testing.assert_array_equal(decode_latents(generator, z), decode_latents(model.generator, z))
    assert NetworkShape(**content["shape"]) == model.shape


def test_a_loaded_decoder_is_in_evaluation_mode_and_fixed(saved):
    for net in load_decoder(saved[1])[:2]:
        assert not any(module.training for module in net.modules())
        assert not any(p.requires_grad for p in net.parameters())


def test_model_json_holds_shape_hashes_and_facts(saved):
    model, folder = saved
    content = json.loads((folder / "model.json").read_text())
    assert set(content) == {"format_version", "shape", "sha256", "snippets_seen", "note", "seal"}
    assert content["format_version"] == 3
    assert content["shape"] == dataclasses.asdict(model.shape)
    assert set(content["sha256"]) == {"encoder.safetensors", "generator.safetensors"}
    assert (content["snippets_seen"], content["note"]) == (18, "é")


def test_facts_are_added_and_the_decoder_still_loads(saved):
    _, folder = saved
    save_decoder_facts(folder, {"trial": 3, "note": "new"})
    content = load_decoder(folder)[2]
    assert (content["trial"], content["note"], content["snippets_seen"]) == (3, "new", 18)


def test_facts_that_are_no_json_numbers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_decoder(trained("layer", n_steps=0), tmp_path, {"loss": float("nan")})


@pytest.mark.parametrize("name", ["encoder.safetensors", "generator.safetensors"])
@pytest.mark.parametrize("change", ["altered", "cut short"])
def test_a_file_that_was_changed_is_refused(saved, name, change):
    path = saved[1] / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content) if change == "altered" else path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=rf"{name} has the hash \w{{12}}, model.json says .*Rest"):
        load_decoder(saved[1])


def test_another_format_is_refused(saved):
    save_decoder_facts(saved[1], {"format_version": 4})
    with pytest.raises(ValueError, match="has format 4, this version reads 3: train the model"):
        load_decoder(saved[1])


# Trainings on disk


def test_a_training_is_taken_over_whole(tmp_path):
    model, other = trained("batch", seed=0), trained("batch", n_steps=0, seed=1)
    save_training(model, tmp_path)
    load_training(other, tmp_path)
    assert other.snippets_seen == 18
    assert torch.equal(other.rng.get_state(), model.rng.get_state())
    assert torch.equal(other.monitor_rng.get_state(), model.monitor_rng.get_state())
    for name, net in model.nets.items():
        for key, value in net.state_dict().items():
            assert torch.equal(other.nets[name].state_dict()[key], value), (name, key)
        moments, others = (m.optimizers[name].state_dict()["state"] for m in (model, other))
        assert moments.keys() == others.keys() != set()
        for index, moment in moments.items():
            assert torch.equal(moment["exp_avg_sq"], others[index]["exp_avg_sq"])
