"""Figures by bird and age and of sampled songs, on known song and decoders made by hand."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.mdgan.training import TrainingFailedError
from models.metrics.held_out_songs import HeldOutSong, HeldOutSongs, held_out_songs
from models.metrics.measure import measure, measure_decoder, whitening
from models.metrics.reference import N_WINDOW, WINDOW_PARTS, fit_reference, windows_of
from models.metrics.songs import gather_songs
from tests.helpers.reference_snippets import TRAIN, in_a_row, snippets

CPU = torch.device("cpu")
KINDS = snippets(3, 11)  # three sounds of a bird that sings them in turn


def sung(order, seed):
    """Snippets [n, 1, 129, 16]: sounds in an order, a little different each time."""
    rng = torch.Generator().manual_seed(seed)
    n = len(order)
    noise = 0.05 * torch.rand((n, 1, 129, 16), generator=rng)
    return (
        KINDS[torch.as_tensor(order)] * (0.8 + 0.4 * torch.rand((n, 1, 1, 1), generator=rng))
        + noise
    )


IN_TURN = [0, 1, 2] * 50


def song(held_out, training, bird="b1", age="45"):
    return gather_songs(
        {(bird, age): [in_a_row(training)]}, {(bird, age): [in_a_row(held_out)]}, 16, 10**4, 0
    )[0]


SONGS = (
    song(sung(IN_TURN, 1), sung(IN_TURN + IN_TURN, 2)),
    song(0.3 * sung(IN_TURN[:60], 3), 0.3 * sung(IN_TURN, 4), "b2", "60"),
    song(sung(IN_TURN[:6], 5), sung(IN_TURN, 6), "b3", "60"),  # too short for song metrics
)


@pytest.fixture(scope="module")
def reference():
    return fit_reference(TRAIN, SONGS, seed=0)


@pytest.fixture(scope="module")
def held_out(reference):
    return HeldOutSongs(reference, SONGS, CPU)


@pytest.fixture(scope="module")
def heard(reference):
    """The held-out song of b1, and a function that gives the distance of other song to it."""
    features = reference.features(torch.from_numpy(SONGS[0].held_out))
    truth = HeldOutSong(reference, features, SONGS[0].held_out_lengths)
    return truth, lambda x: truth.frechet(reference.features(x), [len(x)])


class Pca:
    """A decoder of 16 dimensions that needs no training."""

    def __init__(self, reference):
        self.encode = lambda x: torch.from_numpy(reference.pca_scores(x, 16)).float()
        self.decode = lambda z: reference.pca_decode(z.double().numpy())


def measured(decoder, held_out, seed=0):
    return measure(decoder.encode, decoder.decode, held_out, seed)


# Windows


def test_windows_lie_within_recordings_and_hold_their_snippets_in_order_kind_by_kind():
    features = np.arange(96 * 12, dtype=float).reshape(12, 96)
    windows = windows_of(features, [5, 3, 4])
    assert len(windows) == 2 + 0 + 1
    first = features[:N_WINDOW]
    np.testing.assert_array_equal(
        windows[0], np.hstack([first[:, :32].ravel(), first[:, 32:].ravel()])
    )
    np.testing.assert_array_equal(windows[2, :32], features[8, :32])
    assert windows_of(features, [3, 3, 3, 3]).shape == (0, N_WINDOW * 96)


def test_features_of_windows_are_principal_components_of_windows_of_training_song(reference):
    features = [reference.features(torch.from_numpy(s.training)) for s in SONGS]
    windows = [reference.window_features(f, s.training_lengths)
               for f, s in zip(features, SONGS, strict=True)]  # fmt: skip
    found = np.concatenate(windows)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-9)
    for part in WINDOW_PARTS:
        cov = np.cov(found[:, part], rowvar=False)
        np.testing.assert_allclose(cov, np.diag(np.diag(cov)), atol=1e-9 * cov[0, 0])
        assert (np.diff(np.diag(cov)) <= 1e-12).all()
    raw = np.concatenate([windows_of(f, s.training_lengths)
                          for f, s in zip(features, SONGS, strict=True)])  # fmt: skip
    kept = found[:, WINDOW_PARTS[0]].var(0).sum() / raw[:, : 4 * 32].var(0).sum()
    assert 0.9 < kept <= 1


def test_a_reference_without_training_song_has_windows_of_zeros():
    none = tuple(
        dataclasses.replace(s, training=s.training[:0], training_lengths=()) for s in SONGS
    )
    reference = fit_reference(TRAIN, none, seed=0)
    features = reference.features(TRAIN)
    assert not reference.window_features(features, [len(TRAIN)]).any()


# Distance of songs


def test_the_order_of_sounds_is_heard(heard):
    truth, distance = heard
    same = distance(sung(IN_TURN, 7))
    backwards = distance(sung(IN_TURN[::-1], 7))
    at_random = distance(sung(np.random.default_rng(0).integers(0, 3, 150), 7))
    assert same < 0.05
    assert min(backwards, at_random) > 5 * same
    assert distance(torch.from_numpy(SONGS[0].held_out)) == pytest.approx(0, abs=1e-6)
    assert truth.n_windows == 147


def test_one_sound_for_ever_is_about_1_away(heard):
    _, distance = heard
    mean = torch.from_numpy(SONGS[0].held_out).mean(0, keepdim=True)
    assert distance(mean.expand(100, 1, 129, 16)) == pytest.approx(1, abs=0.1)


def test_song_that_lacks_a_sound_covers_less(reference, heard):
    truth, _ = heard
    every, lacking = (
        truth.coverage(reference.features(sung(order, 7)), [150])
        for order in (IN_TURN, [0, 1] * 75)
    )
    assert every > 0.9
    assert lacking < 0.3


def test_few_windows_are_compared_in_few_features(reference):
    features = reference.features(sung(IN_TURN, 1))
    truth = HeldOutSong(reference, features[:20], [20])  # 17 windows
    assert [part.shape for part in truth._parts] == [(17, 2), (17, 2)]
    whole = HeldOutSong(reference, np.tile(features, (3, 1)), [450])
    assert [part.shape[1] for part in whole._parts] == [32, 32]


# Figures by bird and age


def test_every_figure_is_there_for_each_bird_and_age_with_mean_and_worst(held_out, reference):
    found = measured(Pca(reference), held_out)
    rows, metrics = found.by_bird_age, found.metrics
    assert [(r["bird"], r["age"], r["n_snippets"], r["n_windows"]) for r in rows] == [
        ("b1", "45", 150, 147), ("b2", "60", 60, 57), ("b3", "60", 6, 0),
    ]  # fmt: skip
    for name in ("recon_l1", "recon_l2", "recon_lsd_db", "recon_l1_vs_pca", "recon_l2_vs_pca",
                 "recon_lsd_vs_pca", "recon_l1_vs_own_pca"):  # fmt: skip
        values = [row[name] for row in rows]
        assert metrics[f"{name}_mean"] == pytest.approx(np.mean(values)), name
        assert metrics[f"{name}_worst"] == max(values), name
        assert min(values) <= metrics[name] <= max(values), name
    snippets_of_each = [150, 60, 6]
    for name in ("recon_l1", "recon_l2", "recon_lsd_db"):
        values = [row[name] for row in rows]
        assert metrics[name] == pytest.approx(np.average(values, weights=snippets_of_each)), name
    for name in ("frechet_song", "frechet_real"):
        values = [row[name] for row in rows[:2]]
        assert rows[2][name] is None
        assert metrics[name] == pytest.approx(np.mean(values))
        assert metrics[f"{name}_worst"] == max(values)
    covered = [row["coverage_song"] for row in rows[:2]]
    assert metrics["coverage_song_worst"] == min(covered)
    assert all(type(value) is float for value in metrics.values())


def test_a_quiet_bird_that_is_not_learned_is_the_worst_and_hardly_moves_the_total(held_out):
    silent = torch.zeros(60, 1, 129, 16)
    x = held_out.snippets.snippets
    x_hat = torch.cat([0.99 * x[:150], silent, x[210:]])
    answers = iter([x_hat])
    found = measure(
        lambda x: torch.zeros(len(x), 2), lambda z: next(answers, x_hat)[: len(z)],
        dataclasses_replace(held_out, [None] * 3), 0,
    )  # fmt: skip
    rows = found.by_bird_age
    assert rows[1]["recon_l1"] == pytest.approx(float(x[150:210].abs().mean()))
    assert found.metrics["recon_l1_vs_own_pca_worst"] == rows[1]["recon_l1_vs_own_pca"] > 3
    assert found.metrics["recon_l1_vs_own_pca"] < 0.7 * rows[1]["recon_l1_vs_own_pca"]
    assert "frechet_song" not in found.metrics


def dataclasses_replace(held_out, of_song):
    """The same held-out songs without song metrics."""
    names = ("songs", "snippets", "rows", "training", "frechet_real")
    return SimpleNamespace(of_song=of_song, **{name: getattr(held_out, name) for name in names})


def test_errors_are_divided_by_those_of_the_birds_own_pca(held_out, reference):
    rows = measured(Pca(reference), held_out).by_bird_age
    for row, songs in zip(rows, SONGS, strict=True):
        assert row["recon_l1_vs_own_pca"] == pytest.approx(row["recon_l1"] / songs.own_pca_l1)


# Sampled songs


def test_sampled_songs_of_a_simple_bird_are_nearly_as_near_as_reconstructed_ones(
    held_out, reference, heard
):
    _, distance = heard
    found = measured(Pca(reference), held_out)
    row = found.by_bird_age[0]
    assert 0 < row["frechet_real"] < 0.05
    assert row["frechet_song"] < distance(found.x_hat[:150]) + 0.03


def test_latents_that_lose_a_sound_give_songs_further_away(held_out, reference):
    whole = Pca(reference)
    forgetful = SimpleNamespace(
        encode=lambda x: whole.encode(x) * torch.tensor([0.0] * 3 + [1.0] * 13), decode=whole.decode
    )
    good, bad = (measured(d, held_out).metrics for d in (whole, forgetful))
    assert bad["frechet_song"] > 3 * good["frechet_song"]


def test_latents_of_another_scale_give_the_same_songs(held_out, reference):
    pca = Pca(reference)
    scaled = SimpleNamespace(
        encode=lambda x: 100 * pca.encode(x) + 7, decode=lambda z: pca.decode((z - 7) / 100)
    )
    a, b = (measured(d, held_out).metrics["frechet_song"] for d in (pca, scaled))
    assert b == pytest.approx(a, rel=0.02)


def test_whitening_leaves_alone_what_does_not_vary():
    z = np.random.default_rng(0).normal([1, 2, 3], [2, 0, 1e-6], (500, 3))
    mean, std = whitening(z)
    np.testing.assert_allclose(mean, [1, 2, 3], atol=0.3)
    assert std[0] == pytest.approx(2, rel=0.1)
    assert list(std[1:]) == [1, 1]


def test_the_seed_gives_the_songs(held_out, reference):
    pca = Pca(reference)
    first, again, other = (measured(pca, held_out, seed).metrics for seed in (0, 0, 1))
    assert first == again
    assert first["frechet_song"] != other["frechet_song"]
    assert first["recon_l1"] == other["recon_l1"]


@pytest.mark.parametrize("where", ["encode", "decode"])
def test_numbers_that_are_not_finite_have_failed(held_out, reference, where):
    pca = Pca(reference)
    broken = SimpleNamespace(encode=pca.encode, decode=pca.decode)
    right, calls = getattr(pca, where), []

    def at_the_second_call(x):
        calls.append(x)
        return right(x) if len(calls) == 1 else right(x) * float("nan")

    setattr(broken, where, at_the_second_call)
    with pytest.raises(TrainingFailedError, match="not finite.*Lower lr"):
        measured(broken, held_out)


def test_nets_of_a_decoder_are_measured_the_same(held_out, reference):
    pca = Pca(reference)

    class Net(torch.nn.Module):
        def __init__(self, function):
            super().__init__()
            self.forward = function

    found = measure_decoder(Net(pca.encode), Net(pca.decode), held_out, 0)
    expected = measured(pca, held_out)
    assert found.metrics == {f"valid/{name}": v for name, v in expected.metrics.items()}
    assert found.by_bird_age == expected.by_bird_age


def test_held_out_songs_are_prepared_once(reference):
    first = held_out_songs(reference, SONGS, CPU)
    assert held_out_songs(reference, SONGS, CPU) is first
    assert held_out_songs(reference, SONGS[:2], CPU) is not first
    other = dataclasses.replace(reference, pca_mean=reference.pca_mean + 1)
    assert held_out_songs(other, SONGS, CPU).snippets.reference is other


def test_a_bird_that_is_silent_does_not_drown_the_others():
    silent = (1e-4 * sung(IN_TURN, seed) for seed in (7, 8))
    songs = (*SONGS[:2], song(*silent, "b9", "45"))
    reference = fit_reference(TRAIN, songs, seed=0)
    found = measured(Pca(reference), HeldOutSongs(reference, songs, CPU))
    distances = [row["frechet_song"] for row in found.by_bird_age]
    assert distances[2] < 3
    assert found.metrics["frechet_song"] == np.mean(distances)
