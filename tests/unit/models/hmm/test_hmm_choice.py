"""What is chosen beside the number of states: covariances, a set of numbers, and what is said."""

import dataclasses

import numpy as np
import pytest

from models.hmm import HmmParams, search_states, select_n_states
from models.hmm.confidence import states_set
from models.hmm.em import Songs, run_em
from models.hmm.fitting import restart_fit
from models.hmm.latent_params import LatentParams
from models.hmm.merge_search import MergeSearch
from models.hmm.simulate import simulate_latents
from models.hmm.starts import kmeans_start
from tests.helpers.hmm_songs import KINDS, LOOSE, noise, planted, simulated, songs_of

QUICK = HmmParams(
    n_states=(2, 8), min_snippets=1, min_recordings=1, n_restarts=1, held_out_fraction=0.2
)


def sung_with(kind, n_states=3):
    """Songs of a known HMM whose states differ in their covariances."""
    params = LatentParams(n_states=n_states, latent_dim=4, n_snippets=3_000, n_songs=30,
                          covariance_type=kind, separation=0.97)  # fmt: skip
    return simulate_latents(params, 1).songs


@pytest.mark.parametrize(("kind", "rival"), [("diag", "full"), ("full", "diag")])
def test_auto_chooses_the_covariances_of_the_truth_and_keeps_both_curves(kind, rival):
    found = search_states(sung_with(kind), QUICK, 0)
    assert (found.model.covariance_type, found.n_states) == (kind, 3)
    assert found.rival_covariance_type == rival
    of_rival = [f.bic for f in found.fits if f.covariance_type == rival and f.status == "ok"]
    assert found.rival_bic_distance == pytest.approx(min(of_rival) - found.selection.best.bic)
    assert found.rival_bic_distance > 0
    assert np.isfinite(found.rival_held_out_log_likelihood)
    assert found.chosen_by["bic"] == 3


def test_one_kind_of_covariances_has_no_rival_and_auto_fits_nothing_itself():
    found = search_states(planted(), dataclasses.replace(QUICK, covariance_type="tied"), 0)
    assert (found.rival_covariance_type, found.rival_n_states) == ("", None)
    with pytest.raises(ValueError, match="covariance_type is 'auto', but one fit has one kind"):
        _ = QUICK.kind


@pytest.mark.parametrize("kind", KINDS)
def test_going_further_ends_in_the_same_optimum_and_never_falls(kind):
    songs = songs_of(simulated(4, apart=1.2, seed=2), kind)
    params = dataclasses.replace(LOOSE, covariance_type=kind, tol=1e-7)
    plain, further = (
        run_em(songs, kmeans_start(songs, 4, 0, params), params, 2000, accelerate=accelerate)
        for accelerate in (False, True)
    )
    assert further.converged
    assert further.is_monotone
    assert (np.diff(further.objective) > -1e-6).all()
    assert further.objective[-1] == pytest.approx(plain.objective[-1], abs=0.05)
    assert further.n_iter < 0.8 * plain.n_iter


def test_snippets_that_overlap_count_for_what_is_new_in_them():
    sequences = planted(n_sequences=10)
    params = dataclasses.replace(QUICK, covariance_type="diag")
    best = search_states(sequences, params, 0, new_share=0.25).selection.best
    assert (best.n_snippets, best.n_observations) == (600, 150.0)
    by_hand = -2 * best.log_likelihood + best.n_free_params * np.log(150)
    assert best.bic == pytest.approx(by_hand)
    few = search_states(sequences, dataclasses.replace(params, min_snippets=151), 0, None, 0.25)
    assert few.reason.startswith("600 overlapping snippets, side by side 150, 151 needed")
    with pytest.raises(ValueError, match="new_share is 0: it is hop / n_frames"):
        search_states(sequences, params, 0, new_share=0)


def fits_of(sequences, numbers):
    songs = Songs(sequences, "diag")
    return songs, {k: restart_fit(songs, k, 0, 0, "restart", LOOSE)[0] for k in numbers}


def test_the_set_holds_what_songs_do_not_tell_apart_and_ends_where_they_do():
    songs, fits = fits_of(planted(n_sequences=12), (1, 2, 3, 4))
    # More states are judged by AIC, fewer by BIC: the other criterion plays no part.
    fits[4] = dataclasses.replace(fits[4], aic=fits[3].aic + 1e4, bic=fits[3].bic)
    assert states_set(songs, fits, 3) == (3,)
    fits[2] = dataclasses.replace(fits[2], aic=fits[3].aic + 1e4, bic=fits[3].bic + 1e-3)
    assert states_set(songs, fits, 3) == (2, 3)
    fits[2] = dataclasses.replace(fits[2], aic=fits[3].aic, bic=fits[3].bic + 1e5)
    fits[4] = dataclasses.replace(fits[4], aic=fits[3].aic + 1e-3, bic=fits[3].bic + 1e5)
    assert states_set(songs, fits, 3) == (3, 4)
    fits[4] = dataclasses.replace(fits[4], status="rough")
    assert states_set(songs, fits, 3) == (3,)
    alone, of_alone = fits_of(planted(n_sequences=1), (2, 3))
    assert states_set(alone, of_alone, 3) == (3,)  # one song says nothing of how songs differ


def test_columns_of_other_units_are_divided_by_their_own_spread_and_it_is_said():
    sequences = [np.hstack([z, noise(len(z), 1, i)]) for i, z in enumerate(planted())]
    units = np.array([1.0, 1.0, 1e4])
    params = dataclasses.replace(QUICK, held_out_fraction=0.0)
    plain = select_n_states(sequences, "diag", (2, 6), params=params)
    found = select_n_states([z * units for z in sequences], "diag", (2, 6), params=params)
    assert found.n_states == plain.n_states == 3
    assert "the spreads of columns differ by" in found.reason
    assert "column 2" in found.reason
    X, lengths = np.concatenate(sequences) * units, [len(z) for z in sequences]
    score = found.model.score(X, lengths)
    assert score == pytest.approx(found.selection.best.log_likelihood, rel=1e-9)
    with pytest.raises(ValueError, match=r"a spherical state is equally wide in all: divide each"):
        select_n_states([z * units for z in sequences], "spherical", (2, 6), params=params)


def test_the_report_says_the_choice_and_its_rivals_in_ten_lines():
    found = search_states(sung_with("full"), QUICK, 0)
    lines = found.report().splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("3 states by BIC; 95 % set 3")
    assert lines[1].startswith("N: 3,000 snippets, worth")
    assert lines[2].startswith("covariances: full (diag: ")
    few = search_states([noise(5, 2)], QUICK, 0).report()
    assert few.startswith("No model (too_few_snippets): 5 snippets")


def test_equal_snippets_that_make_the_floor_are_remarked():
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 3, (200, 2)).astype(float) for _ in range(4)]
    found = search_states(sequences, dataclasses.replace(QUICK, covariance_type="diag"), 0)
    assert "states lie on the variance floor" in found.reason


def test_many_snippets_are_looked_at_in_drawn_songs_and_fitted_whole(monkeypatch):
    monkeypatch.setattr("models.hmm.merge_search.FEW_SNIPPETS", 900)
    songs = Songs(sung_with("diag"), "diag")
    search = MergeSearch(songs, dataclasses.replace(QUICK, covariance_type="diag"), 0)
    assert 600 < search.few.n_snippets < 1200
    search.run()
    assert search._best() == 3
    rough = [f for f in search.fits if f.status == "rough"]
    done = {f.n_states: f for f in search.fits if f.status == "ok"}
    assert {f.n_snippets for f in search.fits} == {3_000}
    # What the drawn songs let expect is near what all give.
    expected = min((f for f in rough if f.n_states == 3), key=lambda f: f.bic)
    assert expected.bic == pytest.approx(done[3].bic, rel=0.05)
