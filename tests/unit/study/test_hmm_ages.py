"""Shared states and the comparison of ages in the HMM stage, without Ray."""

import dataclasses

import jinja2
import numpy as np
import pytest

from data_io.latents import read_sound_shares, write_latents
from data_io.song_models import load_song_model
from data_io.store import read_table
from models.hmm import HmmParams, search_states
from models.hmm.em import Songs
from study.base.paths import ROOT
from study.config.tree import DecodersConfig, StudyConfig
from study.encode import whitened
from study.hmms import ages
from study.hmms.ages import AGES
from study.hmms.journal import remove_journal
from study.hmms.shared import SHARED
from study.hmms.song_models import to_song_hmm
from study.report.ages_section import ages_section
from tests.helpers.hmm_songs import sung
from tests.helpers.hmm_study import Here, KilledError, run, tables, write_study

BIRDS_AND_AGES = [("a", "45"), ("a", "90"), ("b", "45")]
PARAMS = HmmParams(
    n_states=(1, 8), n_restarts=1, min_snippets=60, n_iter=30, max_n_states=12, shared_states=True,
    memory="none",
)  # fmt: skip
MEANS = 8.0 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
N_SILENT = 1  # the first state


def write_ages(paths, bird, orders, n_songs, seed=0):
    """One bird with four states at every age, whose order at each age is as strong as told."""
    rng = np.random.default_rng(seed)
    for (age, order), n in zip(orders.items(), n_songs, strict=True):
        transitions = order * np.roll(np.eye(4), 1, axis=1) + (1 - order) / 4
        songs = [sung(MEANS, transitions, 50, rng).astype(np.float32) for _ in range(n)]
        latents = [(f"{bird}/{age}/songs/{i}.wav", z, (z.max(1) > 4).astype(np.float32))
                   for i, z in enumerate(songs)]  # fmt: skip
        write_latents(paths.latents, bird, age, latents, 0.064, 3, {})


@pytest.fixture
def study(tmp_path):
    """Bird a grows more stereotyped and is recorded more; bird b has one age."""
    paths, recordings = write_study(tmp_path, BIRDS_AND_AGES)
    write_ages(paths, "a", {"45": 0.3, "90": 0.95}, (8, 24))
    return paths, recordings


def rows_of(path, schema):
    return read_table(path, schema=schema).to_pylist()


def test_ages_share_emissions_and_keep_transitions_of_their_own(monkeypatch, study):
    paths, recordings = study
    selected, _ = run(paths, recordings, PARAMS, Here(monkeypatch))
    young, old = (load_song_model(paths.hmm, "a", age) for age in ("45", "90"))
    np.testing.assert_array_equal(young[0].means, old[0].means)
    np.testing.assert_array_equal(young[0].covariances, old[0].covariances)
    assert len(young[0].means) == 4
    found = [model.transition_matrix.max(1).mean() for model, _ in (young, old)]
    # The truth: order + (1 - order) / 4.
    assert found == pytest.approx([0.3 + 0.7 / 4, 0.95 + 0.05 / 4], abs=0.05)
    assert young[1]["states"] == "shared"
    assert [row["song_model"] for row in selected] == ["shared"] * 3
    assert [row["n_states"] for row in selected[:2]] == [4, 4]  # the separate choice


def test_the_table_of_shared_states_is_of_all_songs_and_beside_the_separate_fits(
    monkeypatch, study
):
    paths, recordings = study
    few = dataclasses.replace(PARAMS, min_snippets=40)  # that would lie side by side
    selected, _ = run(paths, recordings, few, Here(monkeypatch), hop=4)
    row, other = rows_of(paths.hmm_shared, SHARED)
    assert (row["bird"], row["n_ages"], row["n_states"]) == ("a", 2, 4)
    assert (row["n_observations"], row["n_snippets_searched"]) == (32 * 50 / 4, 32 * 50)
    assert row["n_free_params"] == 4 * (3 + 3) + 2 * (3 + 12)
    total = sum(
        songs.log_likelihood(songs.centred(model))
        for age in ("45", "90")
        for model, songs in [(_hmm(paths, "a", age), Songs(whitened(paths, ("a", age)), "diag"))]
    )
    assert row["log_likelihood"] == pytest.approx(total)
    penalty = 24 * np.log(400) + 15 * (np.log(100) + np.log(300))  # a hop of 4 of 16 frames
    assert row["bic"] == pytest.approx(penalty - 2 * total)
    assert row["separate_n_states"] == "4, 4"
    assert row["separate_bic"] == pytest.approx(sum(one["bic"] for one in selected[:2]))
    assert row["lower"] == "shared"  # the truth
    assert other["n_ages"] == 1


def _hmm(paths, bird, age):
    return to_song_hmm(load_song_model(paths.hmm, bird, age)[0]).without_memory()


@pytest.mark.parametrize("is_shared", [True, False])
def test_ages_are_compared_at_equal_numbers_of_snippets(monkeypatch, study, is_shared):
    paths, recordings = study
    params = dataclasses.replace(PARAMS, shared_states=is_shared)
    run(paths, recordings, params, Here(monkeypatch))
    young, old, _ = rows_of(paths.hmm_ages, AGES)
    assert [row["n_snippets"] for row in (young, old)] == [400, 1200]
    assert [row["matched_n_snippets"] for row in (young, old)] == [400, 400]
    assert [row["matched_n_songs"] for row in (young, old)] == [8, 8]
    assert [row["matched_n_states"] for row in (young, old)] == [4, 4]
    assert {row["states"] for row in (young, old)} == {"shared" if is_shared else "own"}
    for row in (young, old):
        assert (row["n_sounding"], row["n_silent"]) == (4 - N_SILENT, N_SILENT)
        assert row["states_in_use"] == pytest.approx(4, abs=0.1)
        assert row["sounding_states_in_use"] == pytest.approx(3, abs=0.1)
        low, value, high = (
            row[f"predictive_information_bits{end}"] for end in ("_low", "", "_high")
        )
        assert low < value < high
    assert young["predictive_information_bits_high"] < old["predictive_information_bits_low"]
    assert paths.hmm_shared.exists() == is_shared


def test_a_single_age_with_much_song_is_not_searched_again(monkeypatch, study):
    paths, recordings = study
    monkeypatch.setattr(ages, "MOST_MATCHED", 100)  # bird b has 160
    searched = []

    def search(sequences, *args, **kwargs):
        searched.append(sum(map(len, sequences)))
        return search_states(sequences, *args, **kwargs)

    monkeypatch.setattr(ages, "search_states", search)
    params = dataclasses.replace(PARAMS, shared_states=False)
    selected, _ = run(paths, recordings, params, Here(monkeypatch))
    assert searched == [100, 100]  # both ages of bird a
    row = rows_of(paths.hmm_ages, AGES)[2]
    assert (row["matched_n_snippets"], row["matched_n_songs"]) == (160, 4)
    assert row["matched_n_states"] == selected[2]["n_states"]


def test_an_age_without_a_model_has_a_row_and_no_part(monkeypatch, study):
    paths, recordings = study
    write_ages(paths, "a", {"45": 0.3}, (1,))
    selected, _ = run(paths, recordings, PARAMS, Here(monkeypatch))
    assert (selected[0]["status"], selected[0]["song_model"]) == ("too_few_snippets", "")
    young, old, _ = rows_of(paths.hmm_ages, AGES)
    assert (young["n_snippets"], young["n_states"], young["matched_n_snippets"]) == (50, None, None)
    assert old["matched_n_snippets"] == 1200
    assert rows_of(paths.hmm_shared, SHARED)[0]["n_ages"] == 1


def test_killed_after_any_result_the_stage_ends_with_the_same_tables(monkeypatch, study):
    paths, recordings = study
    whole = Here(monkeypatch, 1)
    run(paths, recordings, PARAMS, whole)
    assert whole.n_back == 3 + 2 + 3 + 3 + 3  # searches, shared states and models, matched, ages
    expected = tables(paths)
    assert len(expected) == 5
    for kill_after in range(1, whole.n_back, 2):
        remove_journal(paths)
        with pytest.raises(KilledError):
            run(paths, recordings, PARAMS, Here(monkeypatch, 2, kill_after))
        rest = Here(monkeypatch, 3)
        run(paths, recordings, PARAMS, rest)
        assert rest.n_back == whole.n_back - kill_after
        assert tables(paths) == expected


def test_shared_states_are_gone_where_they_are_not_wanted_any_more(monkeypatch, study):
    paths, recordings = study
    run(paths, recordings, PARAMS, Here(monkeypatch))
    remove_journal(paths)
    alone = dataclasses.replace(PARAMS, shared_states=False)
    selected, _ = run(paths, recordings, alone, Here(monkeypatch))
    assert not paths.hmm_shared.exists()
    assert {row["song_model"] for row in selected} == {"own"}
    assert load_song_model(paths.hmm, "a", "45")[1]["states"] == "own"


def test_sound_shares_come_back_by_recording(study):
    paths, _ = study
    found = read_sound_shares(paths.latents, "a", "45")
    assert list(found) == [f"a/45/songs/{i}.wav" for i in range(8)]
    assert {len(share) for share in found.values()} == {50}


def test_ages_with_decoders_of_their_own_cannot_share_states():
    with pytest.raises(ValueError, match=r"hmm\.shared_states is true: every age .* latents"):
        StudyConfig(hmm=PARAMS, decoders=DecodersConfig(scope="bird_and_age"))


@pytest.mark.parametrize(
    "other", [{"search": "grid"}, {"transitions": "sparse"}, {"memory": "autoregressive"}]
)
def test_what_cannot_be_shared_is_refused(other):
    with pytest.raises(ValueError, match="shared_states is true with search="):
        dataclasses.replace(PARAMS, **other)


def test_the_report_shows_every_age_with_its_n_and_what_sharing_costs(monkeypatch, study):
    paths, recordings = study
    run(paths, recordings, PARAMS, Here(monkeypatch))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROOT / "study" / "report"), autoescape=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    template = environment.get_template("ages.html.j2")
    page = template.render(ages=ages_section(paths, is_shared=True))
    assert page.count("<svg") == 2  # one a bird
    assert "a, from 45 to 90: what order tells (bits per snippet) rises; " in page
    assert "sounding states in use shows no change" in page
    (shared,) = (r for r in rows_of(paths.hmm_shared, SHARED) if r["bird"] == "a")
    assert f"{shared['bic'] - shared['separate_bic']:,.0f}" in page
    alone = template.render(ages=ages_section(paths, is_shared=False))
    assert "BIC, shared less alone" not in alone
