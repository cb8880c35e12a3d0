"""The results of a study, as tables in the terminal."""

import shlex
import statistics
import textwrap
from typing import Any

from data_io.store import read_table
from study.base.console import WIDTH, Console
from study.base.paths import (
    ROOT,
    RunPaths,
    default_tracking_uri,
    is_checkout,
    uri_for_mlflow,
    without_password,
)
from study.config.tree import StudyConfig
from study.decoders.scope import caution
from study.hmms.tables import CRITERIA
from study.report.page import by_bird, ranked
from study.report.search_analysis import edges
from study.report.search_cost import unfinished
from study.report.search_section import read_selection
from study.search.report_side import in_words
from study.search.selection import Selection

MAX_TRIALS = 8
MAX_ROWS = 40


def show_result(
    config: StudyConfig, paths: RunPaths, uri: str, experiment_id: str, c: Console
) -> None:
    """Print the best trials, the selected numbers of states, and where to look."""
    c.line()
    trials = read_table(paths.trials).to_pylist()
    _trials_table(trials, c)
    _search_result(config, paths, trials, c)
    c.line()
    _states_table(read_table(paths.hmm_selected).to_pylist(), c)
    if warning := caution(config.decoders.scope):
        c.line(textwrap.fill(warning, WIDTH))
    c.line()
    c.line(f"Report    {paths.report}")
    page = f"/#/experiments/{experiment_id}/runs"
    if uri.startswith("http"):
        c.line(f"Compare   {without_password(uri)}{page}")
        return
    is_ours = is_checkout() and uri == default_tracking_uri()
    command = shlex.quote(str(ROOT / "mlflow" / "serve.sh"))
    if not is_ours:
        command = f"mlflow ui --backend-store-uri {shlex.quote(uri_for_mlflow(uri))}"
    c.line(f"Compare   start {command}")
    c.line(f"          then open http://127.0.0.1:5000{page}")


def _trials_table(trials: list[dict[str, Any]], c: Console) -> None:
    rows = ranked(trials)
    header = ["trial", "status", "latent", "recon", "prior", "lr", "obj.", "song", "worst", "cover",
              "L1/PCA", "worst L1"]  # fmt: skip
    keys = ["status", "latent_dim", "lambda_recon", "lambda_prior", "lr", "objective",
            "valid/frechet_song", "valid/frechet_song_worst", "valid/coverage_song",
            "valid/recon_l1_vs_pca", "valid/recon_l1_worst"]  # fmt: skip
    c.line(
        "Trials, best first (obj.: the objective; recon, prior: weights; song: Frechet distance of"
    )
    c.line(
        "sampled songs, mean over birds and ages, and the worst; cover: share of real song that has"
    )
    c.line("a sampled one near, higher is better; L1/PCA: of reconstructions, over that of PCA-16)")
    names = [row["trial_id"] + (" *" if row["is_best"] else "") for row in rows]
    table = [[name, *(row.get(key) for key in keys)] for name, row in zip(names, rows, strict=True)]
    for line in table:
        line[header.index("lr")] = f"{line[header.index('lr')]:.1e}"
    c.table(header, [[_short(value) for value in row] for row in table[:MAX_TRIALS]])
    if len(rows) > MAX_TRIALS:
        c.line(f"... and {len(rows) - MAX_TRIALS} more in trials.parquet")


def _search_result(
    config: StudyConfig, paths: RunPaths, trials: list[dict[str, Any]], c: Console
) -> None:
    """Print why the best trial was chosen, edges of the space, and trials without a decoder."""
    selection = read_selection(paths)
    repeats = read_table(paths.repeats).to_pylist() if paths.repeats.exists() else []
    if selection is not None:
        c.line()
        c.line(textwrap.fill(selection.sentence, WIDTH))
        c.line(textwrap.fill(in_words(paths), WIDTH))
        if selection.n_seeds > 0:
            _seeds_table(selection, c)
    best = next(row for row in trials if row["is_best"])
    for edge in edges(config, best):
        c.line(textwrap.fill(edge.advice, WIDTH, subsequent_indent="  "))
    lost = unfinished(trials, repeats)
    for name, status, reason in lost[:MAX_TRIALS]:
        c.line(textwrap.fill(f"{name} {status}: {reason}", WIDTH, subsequent_indent="  "))
    if len(lost) > MAX_TRIALS:
        c.line(f"... and {len(lost) - MAX_TRIALS} more that gave no decoder, see the report")


def _seeds_table(selection: Selection, c: Console) -> None:
    rows = []
    for one in selection.candidates:
        known = [value for value in one.values.values() if value is not None]
        spread = statistics.stdev(known) if len(known) > 1 else None
        values = "  ".join("-" if v is None else f"{v:.4g}" for v in one.values.values())
        name = one.trial_id + (" *" if one.trial_id == selection.chosen else "")
        found = [one.latent_dim, _short(one.in_search), _short(one.mean), _short(spread)]
        rows.append([name, *found, values])
    seeds = ", ".join(selection.candidates[0].values)
    c.table(["trial", "latent", "search", "mean", "sd", f"with seed {seeds}"], rows)


def _short(value: Any) -> Any:
    return float(f"{value:.3g}") if isinstance(value, float) else value


def _states_table(selected: list[dict[str, Any]], c: Console) -> None:
    c.line("Number of states with the lowest BIC (a state is a kind of snippet, not a syllable)")
    if len(selected) > MAX_ROWS:
        birds = dict.fromkeys(row["bird"] for row in selected)
        for bird, of_bird in by_bird(selected, birds).items():
            ages = [f"{r['age']}:{r['n_states'] or '-'}{'!' if r['edge'] else ''}" for r in of_bird]
            c.line(textwrap.fill(f"{bird}  {' '.join(ages)}", WIDTH, subsequent_indent="    "))
        c.line(
            "age:states; ! lowest BIC at the limit of states, - no model: see hmm_selected.parquet"
        )
        return
    header = ["bird", "age", "states", "next", "BIC above", "AIC", "ICL", "BIC eff", "held out",
              "snippets", "remark"]  # fmt: skip
    rows = [
        [r["bird"], r["age"], r["n_states"], r["runner_up_n_states"],
         _short(r["runner_up_bic_distance"]),
         *(r[column] for column in CRITERIA.values()),
         r["n_snippets"], _remark(r)]
        for r in selected
    ]  # fmt: skip
    c.table(header, rows)
    c.line(
        "AIC ... held out: states that other criteria would choose (BIC eff: BIC with the number"
    )
    c.line("of independent snippets). If they differ much, do not rely on the exact number.")
    for row in selected:
        if row["n_states"] is None:
            c.line(f"{row['bird']} {row['age']}: {row['reason']}")


def _remark(row: dict[str, Any]) -> str:
    if not row["n_states"]:
        return "no model, see below"
    remarks = ["at the limit"] if row["edge"] else []
    if row["fit_status"] != "ok":
        remarks.append(row["fit_status"].replace("_", " "))
    weak = row["n_dead"] + row["n_singleton"]
    if weak:
        remarks.append(f"{weak} states empty or of one snippet")
    return ", ".join(remarks)
