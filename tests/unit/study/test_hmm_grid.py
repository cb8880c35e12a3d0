"""The fan-out of HMM fits, without Ray: each fit once, the longest first, nothing left to order."""

import itertools
import random
import subprocess
import sys
from io import StringIO

import numpy as np
import pytest

from data_io.song_models import load_song_model
from data_io.store import read_table, write_latents
from models.hmm import HmmFit, HmmParams, search_states
from models.hmm.grid import missing_fits
from models.hmm.search import restart_seed
from study.base.console import Console
from study.base.paths import ROOT
from study.base.seeds import piece_seed
from study.config.tree import StudyConfig
from study.hmms import stage as hmm_grid
from study.hmms import work as hmm_work
from study.hmms.journal import journal_folder, remove_journal
from study.hmms.tables import GRID, SELECTED, fit_of, fit_row
from study.hmms.work import (
    MAX_BATCH_SECONDS,
    MIN_BATCH_SECONDS,
    Work,
    batch_seconds,
    describe,
    fit_seconds,
    plan_batches,
)
from tests.helpers.hmm_study import Here, KilledError, run, tables, write_study

PIECES = [("a", "45"), ("a", "90"), ("b", "45")]
TINY = {"min_snippets": 60, "n_iter": 30, "max_n_states": 12}
GRID_PARAMS = HmmParams(n_states=(2, 3, 5), n_restarts=2, search="grid", **TINY)
MERGE_PARAMS = HmmParams(n_states=(2, 8), n_restarts=1, **TINY)
BOTH = pytest.mark.parametrize("params", [GRID_PARAMS, MERGE_PARAMS], ids=["grid", "merge"])


def made(bic, n_states=2, restart=0, status="ok", n=5000):
    return HmmFit(n_states, "grid", restart, "k-means", "diag", -bic / 2, 1, n, bic, bic, bic,
                  float("nan"), float("nan"), 5, True, True, 0, 0, 0, 0, status, "",
                  0.1)  # fmt: skip


@pytest.mark.parametrize("target", [0.01, 0.5, 5.0, 1e9])
def test_every_fit_is_in_one_batch_the_longest_first_and_none_is_too_long(target):
    fits = list(itertools.product((5, 20, 100), range(3)))
    batches = plan_batches(("a", "45"), fits, 3000, 16, target)
    assert sorted(fit for b in batches for fit in b.fits) == sorted(fits)
    assert len({b.name for b in batches}) == len(batches)
    seconds = [b.seconds for b in batches]
    assert seconds == sorted(seconds, reverse=True)
    for b in batches:
        assert b.seconds == pytest.approx(sum(fit_seconds(3000, k, 16) for k, _ in b.fits))
        assert len(b.fits) == 1 or b.seconds <= target
    assert len(batches) == {0.01: 9, 1e9: 1}.get(target, len(batches))


def test_nothing_to_fit_gives_no_batch():
    assert plan_batches(("a", "45"), [], 3000, 16, 5.0) == []


def test_a_batch_is_neither_so_long_that_a_kill_hurts_nor_so_short_that_the_driver_is_busy():
    assert batch_seconds(1e6, 2) == MAX_BATCH_SECONDS
    assert batch_seconds(1.0, 64) == MIN_BATCH_SECONDS
    assert MIN_BATCH_SECONDS < batch_seconds(40.0, 2) < MAX_BATCH_SECONDS
    # Thousands of the smallest fits become few tasks.
    fits = list(itertools.product(range(2, 7), range(400)))
    assert len(plan_batches(("a", "45"), fits, 300, 4, batch_seconds(1.0, 64))) < 200


def test_seeds_differ_by_bird_age_states_and_restart_and_by_nothing_else():
    pieces = [("a", "45"), ("a", "90"), ("b", "45"), ("a4", "5")]
    keys = list(itertools.product((0, 1), pieces, (5, 20), (0, 1, 2)))
    seeds = [restart_seed(piece_seed(seed, piece), k, r) for seed, piece, k, r in keys]
    assert len(set(seeds)) == len(seeds)
    assert len({piece_seed(seed, piece) for seed in (0, 1) for piece in pieces}) == 8
    assert piece_seed(0, ("a", "45")) == 1898220417  # the same in every version and on every host


def test_a_grid_asks_for_its_numbers_then_for_more_until_bic_is_not_lowest_at_the_end():
    params = HmmParams(n_states=(5, 10), n_restarts=2, search="grid", max_n_states=30)
    first = [(5, 0), (5, 1), (10, 0), (10, 1)]
    assert missing_fits([], 5000, params) == first
    falling = [made(100 - k, k, r) for k, r in first]
    assert missing_fits(falling[1:], 5000, params) == [(5, 0)]
    assert missing_fits(falling, 5000, params) == [(15, 0), (15, 1)]
    # A part of what was added, lowest so far, asks for the rest of it and not for more.
    assert missing_fits([*falling, made(50, 15, 0)], 5000, params) == [(15, 1)]
    lower = [*falling, made(50, 15, 0), made(51, 15, 1)]
    assert missing_fits(lower, 5000, params) == [(23, 0), (23, 1)]
    higher = [*lower, made(60, 23, 0), made(61, 23, 1)]
    between = [(12, 0), (12, 1), (19, 0), (19, 1)]
    for order in itertools.islice(itertools.permutations(higher), 0, None, 997):
        assert missing_fits(order, 5000, params) == between


def test_a_grid_that_was_extended_is_filled_up_around_its_lowest_bic():
    params = HmmParams(n_states=(5, 10), n_restarts=1, search="grid", max_n_states=60)
    for truth in (2, 11, 17, 29, 60, 80):
        fits: list[HmmFit] = []
        while wanted := missing_fits(fits, 5000, params):
            fits += [made(abs(k - truth), k, r) for k, r in wanted]
        tried = {fit.n_states for fit in fits}
        best = min(truth, 60)
        assert {best - 1, best} <= tried
        assert len(tried) < 14


def test_a_grid_whose_lower_numbers_all_failed_is_not_asked_for_them_for_ever():
    params = HmmParams(n_states=(3, 5, 9), n_restarts=1, search="grid")
    fits = [made(float("nan"), 3, 0, "failed"), made(10, 5), made(20, 9)]
    assert missing_fits(fits, 5000, params) == []


def test_a_grid_of_latents_too_few_for_any_state_has_no_fits():
    assert missing_fits([], 9, HmmParams(n_states=(5,), search="grid")) == []


def test_a_row_holds_every_field_of_a_fit_and_gives_it_back():
    fit = made(5.0)
    odd = HmmFit(
        **{**vars(fit), "converged": np.bool_(True), "bic": np.float64(5.0), "icl": np.inf}
    )
    row = fit_row(odd)
    assert set(row) == set(GRID.names) - {"bird", "age"} == set(vars(fit)) - {"model"}
    assert (type(row["converged"]), type(row["bic"])) == (bool, float)
    assert row["icl"] is row["bic_effective"] is None
    assert np.isnan(fit_of(row).icl)
    assert fit_row(fit_of(fit_row(fit))) == fit_row(fit)


def test_an_error_names_bird_age_and_numbers_of_states():
    fits = Work(("sim1", "45"), "fits", 1.0, ((20, 0), (5, 2)))
    assert describe(fits, GRID_PARAMS) == (
        "HMMs of sim1 at 45, 20 states (restart 0), 5 states (restart 2),"
    )
    search = describe(Work(("sim1", "45"), "search", 1.0), MERGE_PARAMS)
    assert search == "HMMs of sim1 at 45, search from 2 to 8 states,"
    many = Work(("sim1", "45"), "fits", 1.0, tuple((k, 0) for k in range(20, 0, -1)))
    assert describe(many, GRID_PARAMS).endswith("and 12 fits more,")


@BOTH
def test_the_fan_out_finds_what_a_search_in_one_process_finds(monkeypatch, tmp_path, params):
    paths, recordings = write_study(tmp_path, PIECES)
    here = Here(monkeypatch)
    selected, _ = run(paths, recordings, params)
    grid = read_table(paths.hmm_grid, schema=GRID).to_pylist()
    assert here.n_put == len(PIECES)
    for piece, row in zip(PIECES, selected, strict=True):
        alone = search_states(hmm_grid.whitened(paths, piece), params, piece_seed(0, piece))
        rows = [fit_row(fit) for fit in alone.fits]
        rows.sort(key=lambda r: (r["n_states"], r["restart"]))
        mine = [
            {k: v for k, v in r.items() if k not in ("bird", "age")}
            for r in grid
            if (r["bird"], r["age"]) == piece
        ]
        assert len(rows) == len(mine) > 0
        for one, other in zip(rows, mine, strict=True):
            assert {**one, "seconds": 0} == {**other, "seconds": 0}
        best = alone.selection.best
        expected = {
            "bird": piece[0], "age": piece[1], "dph": int(piece[1]), "status": "ok",
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
        model, facts = load_song_model(paths.hmm, *piece)
        np.testing.assert_array_equal(model.means, alone.model.means_)
        np.testing.assert_array_equal(model.transition_matrix, alone.model.transmat_)
        assert facts["fit"]["bic"] == best.bic
        assert facts["recordings"] == [f"{piece[0]}/{piece[1]}/songs/{j}.wav" for j in range(4)]


@BOTH
def test_tables_do_not_depend_on_order_or_batches(monkeypatch, tmp_path, params):
    paths, recordings = write_study(tmp_path, PIECES)
    Here(monkeypatch)
    run(paths, recordings, params)
    expected = tables(paths)
    for order_seed, longest in ((0, 1e-3), (1, 0.05)):
        monkeypatch.setattr(hmm_work, "MIN_BATCH_SECONDS", longest)
        monkeypatch.setattr(hmm_work, "MAX_BATCH_SECONDS", longest)
        remove_journal(paths)
        here = Here(monkeypatch, order_seed)
        run(paths, recordings, params)
        assert tables(paths) == expected
        assert here.n_put == len(PIECES)  # once for all batches of a bird and age


def test_latents_are_in_memory_only_while_their_bird_and_age_has_work(monkeypatch, tmp_path):
    monkeypatch.setattr(hmm_work, "MIN_BATCH_SECONDS", 1e-3)
    monkeypatch.setattr(hmm_work, "MAX_BATCH_SECONDS", 1e-3)
    paths, recordings = write_study(tmp_path, [(bird, "45") for bird in "abcdef"])
    here = Here(monkeypatch)
    run(paths, recordings, GRID_PARAMS)
    assert here.n_put == 6
    assert here.most_stored <= 3  # one that ends, one that goes on, one that begins
    assert not here.stored


@BOTH
def test_killed_after_some_result_a_study_goes_on_and_does_nothing_twice(
    monkeypatch, tmp_path, params
):
    monkeypatch.setattr(hmm_work, "MIN_BATCH_SECONDS", 0.05)
    monkeypatch.setattr(hmm_work, "MAX_BATCH_SECONDS", 0.05)
    paths, recordings = write_study(tmp_path, PIECES)
    whole = Here(monkeypatch, 3)
    run(paths, recordings, params)
    expected = tables(paths)
    assert len(whole.done) > 2
    moments = range(1, len(whole.done))
    for kill_after in moments if len(moments) < 4 else random.Random(0).sample(moments, 4):
        remove_journal(paths)
        killed = Here(monkeypatch, 3, kill_after)
        with pytest.raises(KilledError):
            run(paths, recordings, params)
        rest = Here(monkeypatch, 4)
        _, text = run(paths, recordings, params)
        assert "were done before" in text
        assert tables(paths) == expected
        fits = [(w.piece, *f) for w in killed.done + rest.done for f in w.fits or [w.kind]]
        assert len(set(fits)) == len(fits), "done twice"
        assert len(fits) == sum(len(w.fits) or 1 for w in whole.done)
    _, text = run(paths, recordings, params)
    n_fits = len(expected[0])
    all_done = f"{n_fits} of {n_fits} fits" if params.search == "grid" else "3 of 3 birds and ages"
    assert f"{all_done} were done before" in text


@BOTH
def test_a_broken_journal_file_is_named_and_only_its_work_done_again(monkeypatch, tmp_path, params):
    paths, recordings = write_study(tmp_path, PIECES)
    Here(monkeypatch)
    run(paths, recordings, params)
    expected = tables(paths)
    (path,) = journal_folder(paths).rglob("a/90.npz")
    path.write_bytes(path.read_bytes()[:-7])
    again = Here(monkeypatch)
    _, text = run(paths, recordings, params)
    assert f"{path.with_suffix('.json')} is broken" in text
    assert {work.piece for work in again.done} == {("a", "90")}
    assert tables(paths) == expected


def test_a_journal_of_other_latents_does_not_count(monkeypatch, tmp_path):
    paths, recordings = write_study(tmp_path, PIECES)
    first = Here(monkeypatch)
    run(paths, recordings, MERGE_PARAMS)
    other = Here(monkeypatch)
    _, text = run(paths, recordings, MERGE_PARAMS, key="other latents")
    assert len(other.done) == len(first.done) == len(PIECES)
    assert "done before" not in text


def test_chained_ages_of_a_bird_are_done_in_order_each_from_the_model_before(monkeypatch, tmp_path):
    pieces = [("a", "100"), ("a", "45"), ("a", "60"), ("a", "adult"), ("b", "45"), ("b", "60")]
    paths, recordings = write_study(tmp_path, pieces)
    short = [("a/60/songs/0.wav", np.zeros((5, 3), np.float32))]
    write_latents(paths.latents, "a", "60", short, 0.064, 3, {})
    params = HmmParams(n_states=(2, 6), n_restarts=1, is_chained=True, **TINY)
    here = Here(monkeypatch, 0)
    selected, _ = run(paths, recordings, params)
    order = [work.piece for work in here.done]
    assert [age for bird, age in order if bird == "a"] == ["45", "60", "100", "adult"]
    assert order.index(("b", "45")) < order.index(("a", "adult"))  # not after all of the other
    status = {(row["bird"], row["age"]): row["status"] for row in selected}
    assert status["a", "60"] == "too_few_snippets"
    # The age of too few snippets is passed over: the one after it begins from the one before.
    sizes = {piece: sum(map(len, hmm_grid.whitened(paths, piece))) for piece in pieces}
    before = {}
    for _, n_snippets, seed, _, model in here.calls:
        (piece,) = [p for p in pieces if piece_seed(0, p) == seed]
        assert n_snippets == sizes[piece]
        before[piece] = model
    assert before["a", "45"] is before["b", "45"] is None
    for piece, earlier in ((("a", "60"), "45"), (("a", "100"), "45"), (("a", "adult"), "100")):
        model, _ = load_song_model(paths.hmm, "a", earlier)
        np.testing.assert_array_equal(before[piece].means, model.means)
    grid = read_table(paths.hmm_grid).to_pylist()
    chained = {(r["bird"], r["age"]) for r in grid if r["reached_by"] == "chained"}
    assert chained == {("a", "100"), ("a", "adult"), ("b", "60")}


def test_chained_ages_go_on_after_a_kill_from_the_same_models(monkeypatch, tmp_path):
    paths, recordings = write_study(tmp_path, [("a", "45"), ("a", "60"), ("a", "90"), ("b", "45")])
    params = HmmParams(n_states=(2, 6), n_restarts=1, is_chained=True, **TINY)
    Here(monkeypatch)
    run(paths, recordings, params)
    expected = tables(paths)
    for kill_after in (1, 2, 3):
        remove_journal(paths)
        Here(monkeypatch, 5, kill_after)
        with pytest.raises(KilledError):
            run(paths, recordings, params)
        Here(monkeypatch, 6)
        run(paths, recordings, params)
        assert tables(paths) == expected


@BOTH
def test_latents_that_cannot_be_fitted_are_named(monkeypatch, tmp_path, params):
    paths, recordings = write_study(tmp_path, [*PIECES, ("c", "45"), ("d", "45")])
    latents = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    latents[7] = np.nan
    halves = [("d/45/songs/0.wav", latents[:100]), ("d/45/songs/1.wav", latents[100:])]
    write_latents(paths.latents, "d", "45", halves, 0.064, 3, {})
    write_latents(paths.latents, "c", "45", [("c/45/0.wav", latents[:8])], 0.064, 3, {})
    Here(monkeypatch, 1)
    selected, _ = run(paths, recordings, params)
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
    Here(monkeypatch)
    params = HmmParams(n_states=(1, 2), max_n_states=2, search="grid", min_snippets=60)
    (row,), _ = run(paths, recordings, params)
    assert (row["n_states"], row["edge"], row["edge_side"]) == (2, True, "highest")
    assert "raise hmm.max_n_states" in row["reason"]


def test_engines_are_compared_on_the_same_searches_and_nothing_of_it_is_kept(monkeypatch, tmp_path):
    paths, recordings = write_study(tmp_path, PIECES)
    here = Here(monkeypatch)
    text = StringIO()
    params = HmmParams(**{**vars(MERGE_PARAMS), "compare_engines": True})
    config = StudyConfig(hmm=params)
    _, facts = hmm_grid.run_grid(config, recordings, paths, Console(text), "latents")
    found = facts["compared_engines"]
    assert (found["n_compared"], found["n_agreeing"], found["disagreeing"]) == (3, 3, [])
    assert found["cpu_ratio"] == pytest.approx(
        found["cpu_s"]["hmmlearn"] / found["cpu_s"]["ours"], rel=0.05
    )
    engines = [params.engine for _, _, _, params, _ in here.calls]
    assert engines == ["ours"] * 6 + ["hmmlearn"] * 3  # ours again, to time it
    assert "the same number of states for 3 of 3 birds and ages" in text.getvalue()
    assert "the same searches again by either engine" in text.getvalue()
    assert [p.name for p in journal_folder(paths).iterdir() if p.name.startswith(".")] == []
    run(paths, recordings, MERGE_PARAMS)
    assert len(here.done) == 9  # the journal of the fits holds with or without the comparison


def test_a_worker_of_the_stage_does_not_load_torch():
    code = "import sys, study.hmms.tasks; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120, check=False)
    assert done.returncode == 0
