"""Checks of a model of songs, against songs that it made or did not make."""

import numpy as np
import pytest

from models.checks.params import ChecksParams
from models.checks.songs import check_latents, stretches
from models.hmm.latent_params import LatentParams
from models.hmm.simulate import simulate_latents
from models.hmm.song_hmm import SongHmm

PARAMS = ChecksParams(n_replicas=6)


def verdicts(order):
    params = LatentParams(n_states=6, latent_dim=4, n_snippets=3000, n_songs=20, order=order)
    truth = simulate_latents(params, 1)
    found = check_latents(SongHmm.plain(truth.model), truth.songs, 64.0, PARAMS, 0)
    return {check.check: check.verdict for check in found}


def test_songs_that_the_model_made_pass_every_check():
    found = verdicts(order=1)
    assert list(found) == ["dwell", "order", "windows"]
    assert "unlike the bird" not in found.values()


def test_dwell_is_in_milliseconds_of_the_snippets_that_a_state_lasts():
    params = LatentParams(n_states=3, latent_dim=4, n_snippets=1000, n_songs=10, separation=0.999)
    truth = simulate_latents(params, 0)
    dwell = check_latents(SongHmm.plain(truth.model), truth.songs, 16.0, PARAMS, 0)[0]
    n_runs = sum(1 + (states[1:] != states[:-1]).sum() for states in truth.states)
    assert dwell.unit == "ms"
    assert dwell.real == pytest.approx(16 * 1000 / n_runs, rel=0.02)


def test_songs_of_second_order_fail_the_check_of_order_under_the_best_model_of_first_order():
    assert verdicts(order=2)["order"] == "unlike the bird"


def test_the_same_seed_gives_the_same_numbers():
    truth = simulate_latents(LatentParams(n_states=3, latent_dim=2, n_snippets=800, n_songs=10), 0)
    model = SongHmm.plain(truth.model)
    first, second = (check_latents(model, truth.songs, 64.0, PARAMS, 5) for _ in range(2))
    assert first == second


def test_stretches_overlap_nowhere_and_have_at_most_a_twentieth_each():
    lengths = [900, 30, 3000]
    drawn = stretches(lengths, 2000, seed=0)
    assert 1900 <= sum(part.stop - part.start for part in drawn) <= 2000
    assert max(part.stop - part.start for part in drawn) == 100
    taken = [np.zeros(n, int) for n in lengths]
    for part in drawn:
        taken[part.song][part.start : part.stop] += 1
    assert all(one.max() <= 1 for one in taken)
    everything = stretches(lengths, 100_000, seed=0)
    assert sorted(everything) == [(0, 0, 900), (1, 0, 30), (2, 0, 3000)]
