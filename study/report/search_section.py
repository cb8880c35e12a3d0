"""The report's section on the search: rule, seeds, trade-offs, edges, cost."""

from collections.abc import Sequence
from typing import Any

import jinja2

from data_io.files import read_json
from data_io.store import read_table
from study.base.console import format_seconds
from study.base.paths import RunPaths
from study.config.tree import StudyConfig
from study.report.figures import as_svg
from study.report.search_analysis import edges, front, front_metrics, importances
from study.report.search_cost import Cost, costs, unfinished
from study.report.search_figures import (
    front_figure,
    importances_figure,
    seeds_figure,
    slices_figure,
)
from study.search.selection import Selection, rule_in_words

Row = dict[str, Any]


def search_section(config: StudyConfig, paths: RunPaths, trials: Sequence[Row], best: str) -> Row:
    """Content of search.html.j2.

    Args:
        config: of the study.
        paths: of the run folder; repeats.parquet and selection.json may be missing.
        trials: rows of trials.parquet.
        best: id of the best trial.
    """
    search = config.search
    repeats = read_table(paths.repeats).to_pylist() if paths.repeats.exists() else []
    selection = read_selection(paths)
    trials = sorted(trials, key=lambda row: row["number"])
    best_row = next(row for row in trials if row["trial_id"] == best)
    found = importances(search, trials)
    figures = []
    if selection is not None and selection.n_seeds > 0:
        figures.append(seeds_figure(selection))
    figures.append(front_figure(trials, front_metrics(search, trials), front(search, trials), best))
    if found.shares:
        figures.append(importances_figure(found.shares))
    slices = slices_figure(trials, search.space, search.objective, best) if search.space else None
    safe = jinja2.filters.do_mark_safe
    cost = costs(trials, repeats)
    return {
        "rule": search.selection.rule,
        "rule_words": rule_in_words(search.selection),
        "compared": search.compared,
        "n_seeds": search.selection.n_seeds,
        "sentence": selection.sentence if selection is not None else "",
        "front_metrics": list(front_metrics(search, trials)),
        "figures": [safe(as_svg(figure)) for figure in figures],
        "slices": safe(as_svg(slices)) if slices is not None else "",
        "importances": found.sentence,
        "edges": [edge.advice for edge in edges(config, best_row)],
        "costs": [_cost_cells(one) for one in cost],
        "total": _cost_cells(_total(cost)),
        "each": [_cost_of_one(row) for row in trials],
        "unfinished": unfinished(trials, repeats),
    }


def read_selection(paths: RunPaths) -> Selection | None:
    """Read how the best trial was chosen; None if the folder has no record of it."""
    content = read_json(paths.selection)
    return Selection.from_dict(content) if content is not None else None


def _total(cost: list[Cost]) -> Cost:
    known = [one.seconds for one in cost if one.seconds is not None]
    return Cost(
        "together",
        sum(one.n for one in cost),
        sum(one.snippets for one in cost),
        sum(known) if known else None,
        sum(one.n_untimed for one in cost),
        sum(one.share for one in cost if one.share is not None),
    )


def _cost_cells(one: Cost) -> Row:
    seconds = "-" if one.seconds is None else format_seconds(one.seconds)
    if one.seconds is not None and one.n_untimed:
        seconds += f" ({one.n_untimed} not known)"
    return {
        "group": one.group,
        "n": one.n,
        "snippets": f"{one.snippets:,}",
        "seconds": seconds,
        "share": "-" if one.share is None else f"{one.share:.0%}",
    }


def _cost_of_one(row: Row) -> Row:
    seconds = row.get("seconds")
    return {
        "trial_id": row["trial_id"],
        "status": row["status"],
        "snippets": f"{row['snippets_seen']:,}",
        "seconds": "-" if seconds is None else format_seconds(seconds),
        "node": row.get("node") or "-",
        "retries": "-" if row.get("n_retries") is None else row["n_retries"],
    }
