"""The report's section on the chosen decoder."""

import math

import jinja2

from study.base.paths import ROOT, RunPaths
from study.report.best_section import MAX_ROWS, best_section
from study.search.report_side import write_figures
from study.tracked import final_figures


def row(side, bird, own, song=None):
    return {
        "side": side, "bird": bird, "age": "45", "n_snippets": 1234, "n_windows": 20,
        "recon_l1": own / 10, "recon_l1_vs_own_pca": own, "frechet_song": song,
        "frechet_real": song and song / 2, "coverage_song": song and 1 - song,
    }  # fmt: skip


def write(root, rows, **metrics):
    paths = RunPaths(root)
    named = {f"valid/{name}": value for name, value in metrics.items()}
    sides = dict.fromkeys(row["side"] for row in rows)
    figures = {"metrics": named, "n_snippets": 5678, "n_recordings": 3}
    write_figures(paths, {side: figures for side in sides}, rows)
    return paths


def page(section, caution=""):
    folder = jinja2.FileSystemLoader(ROOT / "study" / "report")
    environment = jinja2.Environment(
        loader=folder, autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("best.html.j2").render(chosen=section, decoders_caution=caution)


def test_final_figures_stand_before_those_that_chose_and_the_worst_bird_comes_first(tmp_path):
    rows = [row("selection", "b1", 0.7, 0.2), row("selection", "b2", 0.6, 0.1)]
    rows += [row("report", "b1", 0.8, 0.4), row("report", "b2", 0.9)]
    paths = write(
        tmp_path, rows, recon_l1=0.05, recon_l1_mean=0.06, recon_l1_worst=0.09,
        frechet_song=0.4, frechet_song_worst=0.5,
    )  # fmt: skip
    found = best_section(paths, [("b1", "45"), ("b2", "45")])
    assert [(r["bird"], r["remark"]) for r in found["rows"]] == [("b2", ""), ("b1", "")]
    assert found["rows"][1]["values"] == [
        "1,234", "0.08", "0.8", "0.4", "0.2", "0.6", "0.7", "0.2",
    ]  # fmt: skip
    assert found["rows"][0]["values"] == ["1,234", "0.09", "0.9", "-", "-", "-", "0.6", "0.1"]
    totals = {t["name"]: t["values"] for t in found["totals"]}
    assert totals["all snippets"] == ["5,678", "0.05", "-", "-", "-", "-", "-", "-"]
    assert totals["mean"] == ["-", "0.06", "-", "0.4", "-", "-", "-", "0.4"]
    assert totals["worst"] == ["-", "0.09", "-", "0.5", "-", "-", "-", "0.5"]
    assert "Reconstructed worst is b2 at 45" in found["sentence"]
    assert "best_by_bird_age.parquet" not in page(found)


def test_what_has_no_report_side_says_so(tmp_path):
    rows = [row("selection", "b1", 0.7), row("selection", "b2", 0.9), row("report", "b2", 0.8)]
    paths = write(tmp_path, rows, recon_l1=0.05)
    found = best_section(paths, [("b0", "45"), ("b1", "45"), ("b2", "45")])
    assert [(r["bird"], r["remark"]) for r in found["rows"]] == [
        ("b2", ""), ("b1", "no report side"), ("b0", "nothing held out"),
    ]  # fmt: skip
    assert found["rows"][1]["values"] == ["-"] * 6 + ["0.7", "-"]


def test_of_1200_birds_the_worst_are_shown_and_the_others_counted(tmp_path):
    rows = [row("report", f"<b{i}>", 0.5 + i / 10_000, 0.1) for i in range(1200)]
    rows += [row("selection", f"<b{i}>", 0.5, 0.1) for i in range(1200)]
    paths = write(tmp_path, rows, recon_l1=0.05)
    found = best_section(paths, [(f"<b{i}>", "45") for i in range(1200)])
    worst = [f"<b{i}>" for i in range(1199, 1199 - MAX_ROWS, -1)]
    assert [r["bird"] for r in found["rows"]] == worst
    text = page(found)
    assert f"{1200 - MAX_ROWS} more are in <code>best_by_bird_age.parquet</code>" in text
    assert len(text) < 20_000
    assert "<b1199>" not in text  # a name is no markup


def test_mlflow_gets_the_final_figures_apart_from_those_that_chose(tmp_path):
    paths = RunPaths(tmp_path)
    sides = {"selection": 0.04, "report": 0.05}
    found = {side: {"metrics": {"valid/recon_l1": l1}} for side, l1 in sides.items()}
    write_figures(paths, found, [])
    figures = final_figures(paths)
    assert figures.metrics == {"selection/recon_l1": 0.04, "final/recon_l1": 0.05}
    assert math.isclose(figures.at, paths.best_held_out.stat().st_mtime)


def test_a_study_without_a_report_side_has_a_table_too(tmp_path):
    paths = write(tmp_path, [row("selection", "b1", 0.7)], recon_l1=0.05)
    text = page(best_section(paths, [("b1", "45")]))
    assert "No bird and age has enough bouts for a report side" in text
    assert "<td>no report side</td>" in text


def test_where_birds_have_their_own_decoders_the_figures_say_whose_they_are(tmp_path):
    paths = write(tmp_path, [row("report", "b1", 0.7), row("selection", "b1", 0.6)], recon_l1=0.05)
    section = best_section(paths, [("b1", "45")])
    words = "these figures are of the one chosen among the trials"
    assert words in page(section, caution="Decoders: one for each bird.")
    assert words not in page(section)
