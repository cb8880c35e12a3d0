"""What is said of a search beside its winner, against trials whose answer is known."""

import io
import math
import re
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from data_io.files import write_json
from data_io.recordings.table import Recording, Recordings
from data_io.store import write_rows, write_table
from study.base.console import WIDTH, Console
from study.base.paths import RunPaths, Where
from study.checks import CHECKED, QUANTILES
from study.config.reader import load_config
from study.hmms.ages import AGES
from study.hmms.tables import GRID, SELECTED, no_decoder_row
from study.plan import show_plan
from study.report.figures import as_svg
from study.report.page import write_report
from study.report.search_analysis import (
    MIN_FOR_IMPORTANCES,
    edges,
    front,
    front_metrics,
    importances,
)
from study.report.search_cost import costs, unfinished
from study.report.search_figures import (
    front_figure,
    importances_figure,
    seeds_figure,
    slices_figure,
)
from study.report.search_section import search_section
from study.report.summary import show_result
from study.search.report_side import write_figures
from study.search.selection import choose
from tests.helpers.report_figures import figures_with

SPACE = {
    "latent_dim": "{choice: [8, 16, 32]}", "lambda_recon": "{log_uniform: [100, 1000]}",
    "lr": "{log_uniform: [1.0e-5, 1.0e-1]}", "label_noise": "{uniform: [0.0, 0.4]}",
    "normalisation": "{choice: [layer, batch]}", "lambda_prior": "null", "lambda_latent": "null",
}  # fmt: skip
REASON = "the process died <4 times> on node-7: " + "it ran out of memory there, " * 6


def config(*changes, **space):
    entries = [f"search.space.{name}={value}" for name, value in {**SPACE, **space}.items()]
    return load_config("demo", None, [*entries, *changes])


def trial(number, objective=0.9, status="completed", **changes):
    """A row of trials.parquet."""
    metrics = {
        "recon_l1": 0.3, "recon_l1_vs_pca": 0.8, "recon_l2_vs_pca": 0.8, "frechet_recon": 0.1,
        "frechet_sample": 0.05, "frechet_sample_vs_pca": 0.7, "latent_frechet": 0.02,
    }  # fmt: skip
    row = {
        "trial_id": f"trial-{number:03d}", "number": number, "status": status,
        "reason": "" if status == "completed" else f"{status} it is", "is_best": False,
        "latent_dim": 16, "lambda_recon": 300.0, "lambda_prior": 10.0, "lambda_latent": 1.0,
        "lr": 1e-3, "label_noise": 0.2, "normalisation": "layer", "seed": 0, "reports": 4,
        "snippets_seen": 1000, "seconds": 10.0, "node": "node-1", "n_retries": 0,
        "objective": objective, **{f"valid/{name}": value for name, value in metrics.items()},
        "valid/objective": objective, "mlflow_run_id": "r",
    }  # fmt: skip
    return {**row, **changes}


def with_seeds(row, *values, status="completed"):
    """Rows of repeats.parquet: a trial's own, and one for each value with the next seed."""
    again = [
        {**row, "seed": seed, "objective": value, "valid/objective": value, "status": status}
        for seed, value in enumerate(values, 1)
    ]
    return [row, *again]


def random_trials(n, objective, seed=0):
    """Trials all over the space; ``objective`` gives theirs from their parameters."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(n):
        params = {
            "latent_dim": int(rng.choice([8, 16, 32])), "lr": float(10 ** rng.uniform(-5, -1)),
            "lambda_recon": float(10 ** rng.uniform(2, 3)),
            "label_noise": float(rng.uniform(0, 0.4)),
            "normalisation": str(rng.choice(["layer", "batch"])),
        }  # fmt: skip
        rows.append(trial(number, objective(params), **params))
    return rows


# What mattered.


def test_the_parameter_that_decides_is_found_also_where_only_its_logarithm_shows_it():
    # lr matters below 1e-4 alone: a quarter of the range as it is searched, 0.1 % as numbers.
    search = config().search
    rows = random_trials(60, lambda p: float(p["lr"] < 1e-4) + 0.2 * (p["latent_dim"] == 8))
    # Had they counted, label_noise would decide all.
    rows += [trial(60 + i, 50.0, "stopped", label_noise=0.4) for i in range(10)]
    found = importances(search, rows)
    assert list(found.shares)[:2] == ["lr", "latent_dim"]
    assert set(found.shares) == set(search.space)
    assert found.shares["lr"] > 0.7
    assert found.shares["label_noise"] < 0.1
    assert sum(found.shares.values()) == pytest.approx(1.0)
    assert "over 60 completed trials" in found.sentence
    assert importances(search, rows).shares == found.shares


def test_too_few_or_equal_trials_give_no_importances_but_a_sentence():
    search = config().search
    few = random_trials(MIN_FOR_IMPORTANCES - 1, lambda p: p["lr"])
    found = importances(search, [*few, trial(99, 3.0, "stopped")])
    assert found.shares == {}
    assert found.sentence == "At least 10 completed trials are needed; there are 9."
    equal = importances(search, random_trials(12, lambda p: 0.5))
    assert (equal.shares, equal.sentence[:21]) == ({}, "All completed trials ")
    fixed = config(*[f"search.space.{name}=null" for name in SPACE]).search
    assert importances(fixed, few).sentence == "Nothing was searched."


def test_a_value_that_rounding_took_out_of_its_range_does_no_harm():
    rows = random_trials(10, lambda p: p["lr"])
    rows[0]["lr"], rows[1]["label_noise"] = math.nextafter(1e-5, 0), math.nextafter(0.4, 1)
    assert importances(config().search, rows).shares


# Where the search was too narrow.


@pytest.mark.parametrize(
    ("changes", "side"),
    [
        # 5 % of four decades is 10 ** 0.2.
        ({"lr": 1.5e-5}, "lower"), ({"lr": 1.7e-5}, None),
        ({"lr": 6.4e-2}, "upper"), ({"lr": 6.2e-2}, None),
        ({"label_noise": 0.385}, "upper"), ({"label_noise": 0.375}, None),
        ({"latent_dim": 8}, "lower"), ({"latent_dim": 32}, "upper"),
        ({"normalisation": "batch"}, None),
        ({"label_noise": 0.001}, None),  # below 0 there is nothing
    ],
)  # fmt: skip
def test_a_best_value_at_the_edge_of_the_space_is_told(changes, side):
    found = edges(config(), trial(0, **changes))
    assert [(edge.name, edge.side) for edge in found] == [(n, side) for n in changes if side]


def test_values_that_have_no_order_or_no_neighbour_have_no_edge():
    one_value = config(latent_dim="{choice: [16]}")
    assert edges(one_value, trial(0)) == []
    yes_no = config(is_residual="{choice: [false, true]}", latent_dim="{choice: [8, 16, 32]}")
    assert edges(yes_no, trial(0, is_residual=True)) == []
    lowest_possible = config(latent_dim="{choice: [1, 2, 4]}")
    assert edges(lowest_possible, trial(0, latent_dim=1)) == []


def test_the_advice_names_what_to_widen():
    advice = {e.name: e.advice for e in edges(config(), trial(0, lr=1.2e-5, latent_dim=32))}
    assert advice == {
        "lr": "The best lr is 1.2e-05, at the lower edge of 1e-05 to 0.1 (log): widen "
        "search.space.lr below 1e-05.",
        "latent_dim": "The best latent_dim is 32, the largest of 8, 16, 32: add larger values to "
        "search.space.latent_dim.",
    }


# Trade-offs.


def by_two(*points):
    return [
        trial(i, **{"valid/recon_l1_vs_pca": a, "valid/frechet_song": b})
        for i, (a, b) in enumerate(points)
    ]


def test_the_front_holds_the_completed_trials_that_no_other_beats():
    rows = by_two((0.5, 0.5), (0.6, 0.4), (0.6, 0.5), (0.4, 0.9), (0.5, 0.6), (0.1, math.nan))
    rows.append({**rows[0], "trial_id": "trial-006", "status": "stopped",
                 "valid/frechet_song": 0.0})  # fmt: skip
    assert front(config().search, rows) == ["trial-000", "trial-001", "trial-003"]


def test_several_objectives_make_the_front():
    names = ["valid/recon_l1", "valid/recon_lsd_db", "valid/frechet_sample"]
    search = config(f"search.objectives={names}").search
    values = [(1, 2, 3), (1, 2, 4), (3, 1, 3), (2, 2, 2)]
    rows = [trial(i, **dict(zip(names, v, strict=True))) for i, v in enumerate(values)]
    assert front_metrics(search, rows) == tuple(names)
    assert front(search, rows) == ["trial-000", "trial-002", "trial-003"]


def test_one_objective_trades_reconstruction_against_song_or_samples_where_there_is_no_song():
    search, rows = config().search, by_two((0.5, 0.5))
    assert front_metrics(search, rows) == ("valid/recon_l1_vs_pca", "valid/frechet_song")
    no_song = [{**rows[0], "valid/frechet_song": None, "valid/frechet_sample": 0.1}]
    assert front_metrics(search, no_song) == ("valid/recon_l1_vs_pca", "valid/frechet_sample")
    assert front(search, no_song) == ["trial-000"]


# What it cost.


def test_cost_is_told_by_what_became_of_the_trials():
    rows = [
        trial(0, seconds=60.0, snippets_seen=4000), trial(1, seconds=20.0, snippets_seen=4000),
        trial(2, 2.0, "stopped", seconds=10.0), trial(3, None, "failed", seconds=None),
    ]  # fmt: skip
    again = with_seeds(rows[0], 0.8, 0.9)
    found = costs(rows, [{**row, "seconds": 55.0} for row in again])
    assert [(c.group, c.n, c.snippets, c.seconds, c.n_untimed, c.share) for c in found] == [
        ("trained to the end", 2, 8000, 80.0, 0, 0.4),
        ("stopped early", 1, 1000, 10.0, 0, 0.05),
        ("failed", 1, 1000, None, 1, None),
        ("candidates again, with fresh seeds", 2, 8000, 110.0, 0, 0.55),
    ]


def test_where_no_time_is_known_snippets_are_shared_out():
    rows = [trial(0, snippets_seen=3000), trial(1, 2.0, "stopped", snippets_seen=1000)]
    for row in rows:
        del row["seconds"]
    assert [(c.seconds, c.n_untimed, c.share) for c in costs(rows, [])] == [
        (None, 1, 0.75), (None, 1, 0.25),
    ]  # fmt: skip


def test_what_gave_no_decoder_is_listed_with_its_reason():
    rows = [
        trial(0),
        trial(1, None, "failed"),
        trial(2, 2.0, "stopped"),
        trial(3, 1e3, "collapsed"),
    ]
    again = with_seeds(rows[0], 1000.0, status="collapsed")
    again[1]["reason"] = "flat"
    assert unfinished(rows, again) == [
        ("trial-001", "failed", "failed it is"), ("trial-003", "collapsed", "collapsed it is"),
        ("trial-000, seed 1", "collapsed", "flat"),
    ]  # fmt: skip


# Figures.


def points(ax):
    """All points that are drawn, by label."""
    return {line.get_label(): [*zip(*line.get_data(), strict=True)] for line in ax.get_lines()}


def a_search(n_lost=12):
    """Trials of every kind, repeats of three candidates of which one collapsed; the best is 1."""
    rows = [
        trial(0, 0.80, latent_dim=32), trial(1, 0.81, latent_dim=8, lr=1.2e-5),
        trial(2, 0.84, latent_dim=16), trial(3, 9.0, "stopped"), trial(4, 0.83, "stopped"),
    ]  # fmt: skip
    rows += [trial(5, 1000.0, "collapsed", label_noise=0.3)]
    for i in range(n_lost):
        rows.append(trial(6 + i, None, "failed", reason=REASON, seconds=None))
    repeats = with_seeds(rows[0], 0.84, 0.82) + with_seeds(rows[1], 0.79, 0.83)
    repeats += with_seeds(rows[2], 1000.0, 0.83)
    repeats[-2] |= {"status": "collapsed", "reason": "flat"}
    rows[1]["is_best"] = True
    return rows, repeats


def test_the_figure_of_candidates_shows_every_seed_every_mean_and_the_limit():
    search = config().search
    selection = choose(a_search()[1], search.selection, search.compared, seed=0)
    assert selection.chosen == "trial-001"
    fig = seeds_figure(selection)
    (ax,) = fig.axes
    drawn = {
        mark: sorted(float(y) for line in ax.get_lines() if line.get_marker() == mark
                     for y in line.get_ydata())
        for mark in "ox"
    }  # fmt: skip
    assert drawn == {"o": [0.79, 0.82, 0.83, 0.83, 0.84], "x": [0.80, 0.81, 0.84]}
    bars = [line.get_ydata()[0] for line in ax.get_lines() if line.get_linewidth() == 2.4]
    assert sorted(bars) == pytest.approx([0.81, 0.83, 0.83])
    assert [line.get_ydata()[0] for line in ax.get_lines() if line.get_linestyle() == "--"] == [
        selection.limit
    ]
    names = [label.get_text() for label in ax.get_xticklabels()]
    assert names == ["trial-001\nlatent 8", "trial-000\nlatent 32", "trial-002\nlatent 16"]
    assert [text.get_text() for text in ax.texts] == ["1 failed or\ncollapsed"]


def test_slices_show_each_trial_at_its_value_and_objective():
    rows, _ = a_search()
    space = config(latent_dim="{choice: [32, 8, 16]}").search.space  # drawn in their order
    fig = slices_figure(rows, space, "valid/objective", "trial-001")
    assert [ax.get_xlabel() for ax in fig.axes] == list(space)
    by_name = {ax.get_xlabel(): points(ax) for ax in fig.axes}
    assert by_name["latent_dim"]["completed"] == [(2, 0.80), (1, 0.84)]
    assert by_name["lr"]["best trial"] == [(1.2e-5, 0.81)]
    # One that was stopped far above all completed trials does not press them flat.
    (far, near) = by_name["normalisation"]["stopped early"]
    assert near == (0, 0.83)
    assert 0.84 < far[1] < 0.9
    crosses = by_name["label_noise"]["no decoder"]
    assert [x for x, _ in crosses] == [0.3, *[0.2] * 12]
    assert min(y for _, y in crosses) > far[1]
    assert fig.axes[list(space).index("lr")].get_xscale() == "log"


def test_trade_offs_are_drawn_with_their_front():
    rows = by_two((0.5, 0.5), (0.6, 0.4), (0.6, 0.5), (0.4, 0.9))
    search = config().search
    found = front(search, rows)
    (ax,) = front_figure(rows, front_metrics(search, rows), found, "trial-001").axes
    joined = [line for line in ax.get_lines() if line.get_linestyle() == "-"]
    assert [*zip(*joined[0].get_data(), strict=True)] == [(0.4, 0.9), (0.5, 0.5), (0.6, 0.4)]
    assert points(ax)["best trial"] == [(0.6, 0.4)]
    three = ("valid/recon_l1", "valid/recon_l1_vs_pca", "valid/frechet_sample")
    axes = front_figure(rows, three, found, "trial-001").axes
    assert [ax.get_ylabel() for ax in axes] == ["L1 / PCA-16", "Frechet, prior samples"]


def test_labels_of_trade_offs_do_not_run_into_one_another():
    rows = by_two((0.8764, 0.264), (0.8789, 0.188), (0.8968, 0.250))
    search = config().search
    fig = front_figure(rows, front_metrics(search, rows), front(search, rows), "trial-001")
    FigureCanvasAgg(fig).draw()
    (ax,) = fig.axes
    low, high = ax.get_xlim()
    labels = [t for t in ax.get_xticklabels() if low <= t.get_position()[0] <= high]
    boxes = [label.get_window_extent() for label in labels]
    assert len(boxes) >= 3
    assert all(b.x0 - a.x1 > 5 for a, b in pairwise(boxes))


@pytest.mark.parametrize("n_completed", [1, 3])
@pytest.mark.parametrize(
    "space",
    [
        {"lr": "{log_uniform: [8.0e-4, 1.2e-3]}"}, {"lr": "{log_uniform: [1.0e-9, 1.0e-1]}"},
        {"normalisation": "{choice: [layer, batch, batch_no_affine, instance, spectral]}"},
        {"is_residual": "{choice: [false, true]}", "beta1": "{uniform: [0.0, 0.9]}",
         "adversarial_from": "{uniform: [0, 1]}"},
    ],
)  # fmt: skip
def test_figures_of_odd_spaces_can_be_laid_out(space, n_completed):
    # matplotlib warns, which is an error here, where labels leave no room for axes.
    changed = config(**space).search.space
    extra = {"is_residual": False, "beta1": 0.5, "adversarial_from": 0.9}
    rows = [trial(i, 0.8 + i / 100, **extra) for i in range(n_completed)]
    fig = slices_figure(rows, changed, "valid/objective", "trial-000")
    assert as_svg(fig).startswith("<svg")
    named = [text.get_text() for text in fig.legends[0].get_texts()]
    assert named == (["completed", "best trial"] if n_completed > 1 else ["best trial"])


def test_shares_are_drawn_largest_on_top():
    (ax,) = importances_figure({"lr": 0.7, "latent_dim": 0.3, "lambda_recon": 0.0}).axes
    assert [text.get_text() for text in ax.texts] == ["0%", "30%", "70%"]
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "lambda_recon", "latent_dim", "lr",
    ]  # fmt: skip


# Report and terminal.


def write_plain(path, rows):
    """A table of all columns that any row has."""
    names = dict.fromkeys(name for row in rows for name in row)
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    write_table(path, table)


def write_study(root, study_config, rows, repeats):
    """A run folder with what report and terminal read."""
    paths = RunPaths(root)
    write_plain(paths.trials, rows)
    reports = [
        {"trial_id": row["trial_id"], "report": 1, "snippets_seen": 9, "valid/objective": 0.9}
        for row in rows
    ]
    write_plain(paths.trial_reports, reports)
    write_rows(paths.hmm_grid, [], GRID)
    write_rows(paths.hmm_ages, [], AGES)
    write_rows(paths.hmm_checks, [], CHECKED)
    write_rows(paths.hmm_check_quantiles, [], QUANTILES)
    write_rows(paths.hmm_selected, [no_decoder_row(("b1", "45"), "no")], SELECTED)
    figures = {"metrics": {"valid/recon_l1": 0.05}, "n_snippets": 50, "n_recordings": 1}
    write_figures(paths, {"selection": figures}, [])
    if repeats:
        search = study_config.search
        write_plain(paths.repeats, repeats)
        selection = choose(repeats, search.selection, search.compared, study_config.seed)
        write_json(paths.selection, selection.to_dict())
    return paths


def report_of(study_config, paths):
    recordings = [Recording("b1", "45", 45, None, "b1/45/songs/1.wav", split="training")]
    lineage = {
        "git_commit": "0" * 40,
        "code_hash": "3" * 64,
        "config_hash": "1" * 64,
        "data_hash": "2" * 64,
    }
    write_report(study_config, Recordings.from_rows(recordings), paths, lineage)
    return paths.report.read_text("utf-8")


def terminal_of(study_config, paths):
    stream = io.StringIO()
    show_result(study_config, paths, "http://server", "1", Console(stream))
    return stream.getvalue()


def one_line(text):
    return re.sub(r"\s+", " ", text)


def test_the_report_says_why_the_best_trial_is_the_best(tmp_path):
    paths = write_study(tmp_path, config(), *a_search())
    page = report_of(config(), paths)
    section = page[page.index("<h2>The search") : page.index("<h2>Number of states")]
    text = one_line(re.sub(r"<[^>]*>", "", section[: section.index("<svg")]))
    start = "The search Best: trial-001 (latent_dim 8), the lowest mean of valid/objective of 2"
    assert text.strip().startswith(start)
    assert "the smallest latent size whose mean over fresh seeds is within one standard" in text
    assert "widen search.space.lr below 1e-05" in text
    assert "At least 10 completed trials are needed; there are 3." in text
    for figure in ("Candidates: ", "Trade-offs", "lr"):
        assert len(figures_with(section, figure)) == 1, figure
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", line) for line in section.splitlines()]
    assert ["trained to the end", "3", "3,000", "30 s", "25%"] in cells
    assert ["failed", "12", "12,000", "-", "-"] in cells
    assert ["together", "24", "24,000", "2:00 (12 not known)", "100%"] in cells
    assert ["trial-003", "stopped", "1,000", "10 s", "node-1", "0"] in cells
    assert ["trial-002, seed 1", "collapsed", "flat"] in cells
    assert "died &lt;4 times&gt;" in section  # a reason is no markup
    assert "<4 times>" not in page


def test_importances_stand_in_the_report_once_there_are_enough_trials(tmp_path):
    rows = random_trials(12, lambda p: p["lr"])
    section = search_section(config(), write_study(tmp_path, config(), rows, []), rows, "trial-000")
    assert len(section["figures"]) == 2  # trade-offs, importances
    assert section["importances"].startswith("By fANOVA over 12 completed trials")


def test_the_terminal_says_the_same_in_100_columns(tmp_path):
    paths = write_study(tmp_path, config(), *a_search())
    text = terminal_of(config(), paths)
    assert max(map(len, text[: text.index("Report    ")].splitlines())) <= WIDTH
    words = one_line(text)
    assert "Best: trial-001 (latent_dim 8), the lowest mean of valid/objective of 2" in words
    assert "not eligible, as another seed failed or collapsed: trial-002" in words
    lines = text.splitlines()
    header = next(i for i, line in enumerate(lines) if "with seed 1, 2" in line)
    assert lines[header + 2].split() == [
        "trial-001", "*", "8", "0.81", "0.81", "0.0283", "0.79", "0.83",
    ]  # fmt: skip
    assert lines[header + 4].split() == [
        "trial-002", "16", "0.84", "0.83", "-", "-", "0.83",
    ]  # fmt: skip
    assert "widen search.space.lr below 1e-05." in words
    assert words.count("died <4 times>") == 7
    assert "trial-005 collapsed: collapsed it is" in text
    assert "... and 6 more that gave no decoder, see the report" in text


def test_a_folder_without_times_nodes_and_repeats_is_shown_as_well(tmp_path):
    rows = [trial(0, is_best=True, lr=1.2e-5), trial(1, 0.95), trial(2, None, "failed")]
    for row in rows:
        for name in ("seconds", "node", "n_retries"):
            del row[name]
    paths = write_study(tmp_path, config(), rows, [])
    page = report_of(config(), paths)
    assert "<td>trial-001</td><td>completed</td>" in page
    assert "<p> The rule, fixed before the search" in page
    text = terminal_of(config(), paths)
    assert "with seed" not in text
    assert "widen search.space.lr below 1e-05" in one_line(text)


def plan_of(*changes):
    stream = io.StringIO()
    study_config = load_config("full", None, list(changes))
    show_plan(study_config, Where(RunPaths("out").root, None, "uri"), None, Console(stream))
    assert max(map(len, stream.getvalue().splitlines())) <= WIDTH
    return stream.getvalue()


def test_the_plan_names_the_rule_before_the_search():
    plan = plan_of()
    assert "\n          proposed by gp, after 2 given to try first\n" in plan
    assert "\n          weak ones are stopped early, from report 15 of 30 on\n" in plan
    assert "\nBest      one_standard_error on valid/objective: 3 candidates x 3 fresh" in plan
    few = plan_of("search.n_trials=4", "search.first=[]")
    assert "\n          proposed by chance: gp begins after 4 trials\n" in few
    plan = plan_of(
        "search.selection.rule=lowest", "search.selection.n_seeds=0", "search.first=[]",
        "search.selection.metric=valid/recon_l1", "search.sampler=quasi_random",
        "search.grace_reports=30",
    )  # fmt: skip
    assert "\n          proposed by quasi_random\n" in plan
    assert "\n          no trial is stopped early\n" in plan
    assert "\nBest      lowest on valid/recon_l1: no trial is trained again\n" in plan


def test_the_plan_says_that_several_objectives_stop_no_trial():
    names = ["valid/recon_l1_vs_pca", "valid/frechet_sample", "valid/recon_lsd_db"]
    plan = plan_of(f"search.objectives={names}", "search.sampler=nsga2")
    assert f"lowers {', '.join(names)} at once: no trial is stopped early" in one_line(plan)
