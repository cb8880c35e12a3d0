"""The HMM stage without Ray: each bird and age once, the longest first, in any order the same."""

import dataclasses
import itertools
import subprocess
import sys
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest

from data_io.latents import write_latents
from data_io.song_models import load_song_model
from data_io.store import read_table
from models.hmm import HmmFit, HmmParams, search_states
from models.hmm.fitting import restart_seed
from study.base.paths import ROOT
from study.base.seeds import bird_age_seed
from study.encode import whitened
from study.hmms.journal import journal_folder, remove_journal
from study.hmms.rows import from_row, row_of, schema_of
from study.hmms.tables import GRID, SELECTED, Selected, fit_of
from tests.helpers.hmm_study import Here, KilledError, run, tables, write_study

BIRDS_AND_AGES = [("a", "45"), ("a", "90"), ("b", "45")]
TINY = {"min_snippets": 60, "n_iter": 30, "max_n_states": 12}
GRID_PARAMS = HmmParams(n_states=(2, 3, 5), n_restarts=2, search="grid", **TINY)
MERGE_PARAMS = HmmParams(n_states=(2, 8), n_restarts=1, **TINY)
BOTH = pytest.mark.parametrize("params", [GRID_PARAMS, MERGE_PARAMS], ids=["grid", "merge"])


def write_songs(paths, bird, age, *songs):
    """Latents of one bird and age, in the place of those that it had."""
    latents = [(f"{bird}/{age}/songs/{i}.wav", z, np.ones(len(z), np.float32))
               for i, z in enumerate(songs)]  # fmt: skip
    write_latents(paths.latents, bird, age, latents, 0.064, 3, {})


def test_seeds_differ_by_bird_age_states_and_restart_and_by_nothing_else():
    birds_and_ages = [("a", "45"), ("a", "90"), ("b", "45"), ("a4", "5")]
    keys = list(itertools.product((0, 1), birds_and_ages, (5, 20), (0, 1, 2)))
    seeds = [restart_seed(bird_age_seed(seed, bird_age), k, r) for seed, bird_age, k, r in keys]
    assert len(set(seeds)) == len(seeds)
    assert (
        len({bird_age_seed(seed, bird_age) for seed in (0, 1) for bird_age in birds_and_ages}) == 8
    )
    assert (
        bird_age_seed(0, ("a", "45")) == 1898220417
    )  # the same in every version and on every host


def test_a_row_holds_every_field_of_a_fit_and_gives_it_back():
    fit = HmmFit(
        n_states=2, reached_by="grid", restart=0, start="k-means", covariance_type="diag",
        log_likelihood=-2.5, n_free_params=1, n_snippets=5000, n_observations=5000.0,
        bic=np.float64(5.0), aic=5.0, icl=np.inf, converged=np.bool_(True), status="ok", reason="",
        seconds=0.1, model=object(),
    )  # fmt: skip
    row = row_of(fit)
    assert list(row) == GRID.names[2:] == [name for name in vars(fit) if name != "model"]
    assert (type(row["converged"]), type(row["bic"])) == (bool, float)
    assert row["icl"] is row["bic_effective"] is None
    again = fit_of({"bird": "a", "age": "45", **row})
    assert np.isnan(again.icl)
    assert again.model is None
    assert row_of(again) == row


def test_the_columns_of_a_table_are_the_plain_fields_of_a_dataclass():
    @dataclasses.dataclass
    class Made:
        word: Literal["one", "other"]
        count: int | None
        length: float
        maybe: float | None
        choice: Literal["this"] | None
        is_so: bool
        many: list[int] = dataclasses.field(default_factory=list)

    expected = {"word": pa.string(), "count": pa.int64(), "length": pa.float64(),
                "maybe": pa.float64(), "choice": pa.string(), "is_so": pa.bool_()}  # fmt: skip
    assert schema_of(Made) == pa.schema(expected)
    row = row_of(Made("one", None, np.nan, np.nan, None, True, [1]))
    assert row == dict(zip(expected, ["one", None, None, None, None, True], strict=True))
    again = from_row(Made, row)
    assert (again.maybe, again.many) == (None, [])
    assert np.isnan(again.length)
    assert SELECTED.names == [field.name for field in dataclasses.fields(Selected)]


@BOTH
def test_the_fan_out_finds_what_a_search_in_one_process_finds(monkeypatch, tmp_path, params):
    paths, recordings = write_study(tmp_path, BIRDS_AND_AGES)
    here = Here(monkeypatch)
    selected, _ = run(paths, recordings, params, here)
    grid = read_table(paths.hmm_grid, schema=GRID).to_pylist()
    assert sorted(here.done) == BIRDS_AND_AGES
    for bird_age, row in zip(BIRDS_AND_AGES, selected, strict=True):
        alone = search_states(whitened(paths, bird_age), params, bird_age_seed(0, bird_age))
        rows = [row_of(fit) for fit in alone.fits]
        rows.sort(key=lambda r: (r["n_states"], r["restart"]))
        mine = [
            {k: v for k, v in r.items() if k not in ("bird", "age")}
            for r in grid
            if (r["bird"], r["age"]) == bird_age
        ]
        assert len(rows) == len(mine) > 0
        for one, other in zip(rows, mine, strict=True):
            assert {**one, "seconds": 0} == {**other, "seconds": 0}
        best = alone.selection.best
        expected = {
            "bird": bird_age[0], "age": bird_age[1], "dph": int(bird_age[1]), "status": "ok",
            "n_states": best.n_states, "reached_by": best.reached_by, "start": best.start,
            "bic": best.bic, "icl": best.icl, "n_recordings": 4, "n_observations": 160,
            "bic_effective": best.bic_effective, "n_effective": alone.n_effective,
            "aic_n_states": alone.chosen_by["aic"], "icl_n_states": alone.chosen_by["icl"],
            "bic_effective_n_states": alone.chosen_by["bic_effective"],
            "held_out_n_states": alone.chosen_by["held_out_log_likelihood"],
            "n_agreeing": alone.n_agreeing, "n_restarts": alone.n_restarts,
            "restart_spread": alone.restart_spread if alone.n_restarts else None,
            "runner_up_n_states": alone.selection.runner_up, "fit_status": best.status,
            "edge": False, "edge_side": "", "n_dead": best.n_dead,
        }  # fmt: skip
        assert {name: row[name] for name in expected} == expected
        model, facts = load_song_model(paths.hmm, *bird_age)
        np.testing.assert_array_equal(model.means, alone.model.means_)
        np.testing.assert_array_equal(model.transition_matrix, alone.model.transmat_)
        assert facts["fit"]["bic"] == best.bic
        assert facts["recordings"] == [
            f"{bird_age[0]}/{bird_age[1]}/songs/{j}.wav" for j in range(4)
        ]


@BOTH
def test_tables_do_not_depend_on_the_order_in_which_searches_end(monkeypatch, tmp_path, params):
    paths, recordings = write_study(tmp_path, BIRDS_AND_AGES)
    run(paths, recordings, params, Here(monkeypatch))
    expected = tables(paths)
    orders = set()
    for order_seed in (0, 1, 2):
        remove_journal(paths)
        here = Here(monkeypatch, order_seed)
        run(paths, recordings, params, here)
        orders.add(tuple(here.done))
        assert tables(paths) == expected
    assert len(orders) > 1


def test_birds_and_ages_that_take_longest_go_first(monkeypatch, tmp_path):
    paths, recordings = write_study(tmp_path, BIRDS_AND_AGES)
    longer = np.random.default_rng(0).normal(size=(300, 3)).astype("f4")
    write_songs(paths, "b", "45", longer)
    here = Here(monkeypatch)
    run(paths, recordings, MERGE_PARAMS, here)
    assert here.done == [("b", "45"), ("a", "45"), ("a", "90")]


def test_latents_are_in_memory_only_while_their_search_is_under_way(monkeypatch, tmp_path):
    paths, recordings = write_study(tmp_path, [(bird, "45") for bird in "abcdefgh"])
    here = Here(monkeypatch)
    run(paths, recordings, MERGE_PARAMS, here)
    assert len(here.done) == 8
    assert here.most_held == 4  # two for each core, as many as are under way
    assert here.n_held() == 0


@BOTH
def test_killed_after_some_result_a_study_goes_on_and_does_nothing_twice(
    monkeypatch, tmp_path, params
):
    paths, recordings = write_study(tmp_path, BIRDS_AND_AGES)
    run(paths, recordings, params, Here(monkeypatch, 3))
    expected = tables(paths)
    for kill_after in (1, 2):
        remove_journal(paths)
        killed = Here(monkeypatch, 3, kill_after)
        with pytest.raises(KilledError):
            run(paths, recordings, params, killed)
        rest = Here(monkeypatch, 4)
        _, text = run(paths, recordings, params, rest)
        assert f"{kill_after} of 3 birds and ages were done before" in text
        assert tables(paths) == expected
        assert sorted(killed.done + rest.done) == BIRDS_AND_AGES
    nothing_left = Here(monkeypatch)
    _, text = run(paths, recordings, params, nothing_left)
    assert "3 of 3 birds and ages were done before" in text
    assert nothing_left.done == []
    assert tables(paths) == expected


@BOTH
def test_a_broken_journal_file_is_named_and_only_its_work_done_again(monkeypatch, tmp_path, params):
    paths, recordings = write_study(tmp_path, BIRDS_AND_AGES)
    here = Here(monkeypatch)
    run(paths, recordings, params, here)
    expected = tables(paths)
    (path,) = journal_folder(paths).rglob("searches/a/90.npz")
    path.write_bytes(path.read_bytes()[:-7])
    again = Here(monkeypatch)
    _, text = run(paths, recordings, params, again)
    assert f"{path.with_suffix('.json')} is broken" in " ".join(text.split())
    assert again.done == [("a", "90")]
    assert tables(paths) == expected


def test_a_journal_of_other_latents_does_not_count(monkeypatch, tmp_path):
    paths, recordings = write_study(tmp_path, BIRDS_AND_AGES)
    first = Here(monkeypatch)
    run(paths, recordings, MERGE_PARAMS, first)
    other = Here(monkeypatch)
    _, text = run(paths, recordings, MERGE_PARAMS, other, key="other latents")
    assert len(other.done) == len(first.done) == len(BIRDS_AND_AGES)
    assert "done before" not in text


def test_chained_ages_of_a_bird_are_done_in_order_each_from_the_model_before(monkeypatch, tmp_path):
    birds_and_ages = [
        ("a", "100"),
        ("a", "45"),
        ("a", "60"),
        ("a", "adult"),
        ("b", "45"),
        ("b", "60"),
    ]
    paths, recordings = write_study(tmp_path, birds_and_ages)
    write_songs(paths, "a", "60", np.zeros((5, 3), np.float32))
    params = HmmParams(n_states=(2, 6), n_restarts=1, is_chained=True, **TINY)
    here = Here(monkeypatch, 0)
    selected, _ = run(paths, recordings, params, here)
    order = here.done
    assert [age for bird, age in order if bird == "a"] == ["45", "60", "100", "adult"]
    assert order.index(("b", "45")) < order.index(("a", "adult"))  # not after all of the other
    status = {(row["bird"], row["age"]): row["status"] for row in selected}
    assert status["a", "60"] == "too_few_snippets"
    # The age of too few snippets is passed over: the one after it begins from the one before.
    before = here.before
    assert before["a", "45"] is before["b", "45"] is None
    for bird_age, earlier in ((("a", "60"), "45"), (("a", "100"), "45"), (("a", "adult"), "100")):
        model, _ = load_song_model(paths.hmm, "a", earlier)
        np.testing.assert_array_equal(before[bird_age].means, model.means)
    grid = read_table(paths.hmm_grid).to_pylist()
    chained = {(r["bird"], r["age"]) for r in grid if r["reached_by"] == "chained"}
    assert chained == {("a", "100"), ("a", "adult"), ("b", "60")}


def test_chained_ages_go_on_after_a_kill_from_the_same_models(monkeypatch, tmp_path):
    paths, recordings = write_study(tmp_path, [("a", "45"), ("a", "60"), ("a", "90"), ("b", "45")])
    params = HmmParams(n_states=(2, 6), n_restarts=1, is_chained=True, **TINY)
    here = Here(monkeypatch)
    run(paths, recordings, params, here)
    expected = tables(paths)
    for kill_after in (1, 2, 3):
        remove_journal(paths)
        with pytest.raises(KilledError):
            run(paths, recordings, params, Here(monkeypatch, 5, kill_after))
        run(paths, recordings, params, Here(monkeypatch, 6))
        assert tables(paths) == expected


@BOTH
def test_latents_that_cannot_be_fitted_are_named(monkeypatch, tmp_path, params):
    paths, recordings = write_study(tmp_path, [*BIRDS_AND_AGES, ("c", "45"), ("d", "45")])
    latents = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    latents[7] = np.nan
    write_songs(paths, "d", "45", latents[:100], latents[100:])
    write_songs(paths, "c", "45", latents[:8])
    here = Here(monkeypatch, 1)
    selected, _ = run(paths, recordings, params, here)
    few, broken = selected[3:]
    assert (few["status"], few["n_observations"]) == ("too_few_snippets", 8)
    assert few["reason"] == "8 snippets, 60 needed (hmm.min_snippets)"
    assert (broken["status"], broken["n_recordings"]) == ("failed", 2)
    assert broken["reason"] == "1 of 200 snippets are not finite numbers"
    assert [row["status"] for row in selected[:3]] == ["ok"] * 3
    rows = read_table(paths.hmm_selected, schema=SELECTED).to_pylist()
    assert [row["n_states"] is None for row in rows] == [False] * 3 + [True] * 2
    assert not (paths.hmm / "d").exists()
    assert {row["bird"] for row in read_table(paths.hmm_grid).to_pylist()} == {"a", "b"}


def test_a_minimum_at_the_highest_number_that_may_be_tried_is_an_edge(monkeypatch, tmp_path):
    paths, recordings = write_study(tmp_path, [("a", "45")])
    here = Here(monkeypatch)
    params = HmmParams(n_states=(1, 2), max_n_states=2, search="grid", min_snippets=60)
    (row,), _ = run(paths, recordings, params, here)
    assert (row["n_states"], row["edge"], row["edge_side"]) == (2, True, "highest")
    assert "raise hmm.max_n_states" in row["reason"]


def test_a_worker_of_the_stage_does_not_load_torch():
    code = "import sys, study.hmms.task; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120, check=False)
    assert done.returncode == 0
