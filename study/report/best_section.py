"""The report's section on the chosen decoder: final figures, for each bird and age and for all."""

from collections.abc import Sequence
from typing import Any

from data_io.files import read_json
from data_io.recordings.table import REPORT, SELECTION, BirdAge
from data_io.store import read_table
from study.base.paths import RunPaths
from study.search.report_side import in_words

Row = dict[str, Any]
MAX_ROWS = 20
# Column of best_by_bird_age.parquet -> head of the report's column.
FINAL = {
    "n_snippets": "snippets",
    "recon_l1": "L1",
    "recon_l1_vs_own_pca": "L1 / own PCA-16",
    "frechet_song": "Frechet, songs",
    "frechet_real": "the same, real songs",
    "coverage_song": "coverage, songs",
}
CHOSE = ("recon_l1_vs_own_pca", "frechet_song")  # shown of the side that chose, too


def best_section(paths: RunPaths, birds_and_ages: Sequence[BirdAge]) -> Row:
    """Content of best.html.j2: all ``birds_and_ages``, the worst first, and all together."""
    rows = read_table(paths.best_by_bird_age).to_pylist()
    totals = read_json(paths.best_held_out) or {}
    in_order = worst_first(rows, birds_and_ages)
    return {
        "sentence": in_words(paths),
        "heads": [*FINAL.values(), *(f"{FINAL[name]}, chose" for name in CHOSE)],
        "rows": [_cells(*one) for one in in_order[:MAX_ROWS]],
        "n_left": max(len(in_order) - MAX_ROWS, 0),
        "totals": [
            {"name": name, "values": _total_cells(totals, ending)}
            for name, ending in (("all snippets", ""), ("mean", "_mean"), ("worst", "_worst"))
        ],
    }


def worst_first(
    rows: Sequence[Row], birds_and_ages: Sequence[BirdAge]
) -> list[tuple[BirdAge, Row | None, Row | None]]:
    """Each bird and age with its rows of the report and the selection side.

    The largest ratio of L1 to that of the own PCA comes first; birds and ages without a report
    side come behind all others.
    """
    of = {(row["side"], row["bird"], row["age"]): row for row in rows}
    found = [(one, of.get((REPORT, *one)), of.get((SELECTION, *one))) for one in birds_and_ages]

    def badness(one: tuple[BirdAge, Row | None, Row | None]) -> tuple[bool, float]:
        _, final, chose = one
        ratio = (final or chose or {}).get("recon_l1_vs_own_pca")
        return final is None, -(ratio or 0.0)

    return sorted(found, key=badness)


def _cells(bird_age: BirdAge, final: Row | None, chose: Row | None) -> Row:
    remark = "" if final else "no report side" if chose else "nothing held out"
    values = [(final or {}).get(name) for name in FINAL] + [(chose or {}).get(n) for n in CHOSE]
    return {
        "bird": bird_age[0],
        "age": bird_age[1],
        "remark": remark,
        "values": [_text(value) for value in values],
    }


def _total_cells(totals: Row, ending: str) -> list[str]:
    """Figures of all birds and ages; a song metric's mean has no ending of its own."""

    def of(side: str, name: str) -> Any:
        found = totals.get(side)
        if found is None:
            return None
        if name == "n_snippets":
            return found["n_snippets"] if ending == "" else None
        is_song = name in ("frechet_song", "frechet_real", "coverage_song")
        if is_song and ending != "_worst":
            return found["metrics"].get(f"valid/{name}") if ending == "_mean" else None
        return found["metrics"].get(f"valid/{name}{ending}")

    cells = [of(REPORT, name) for name in FINAL] + [of(SELECTION, name) for name in CHOSE]
    return [_text(value) for value in cells]


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}"
