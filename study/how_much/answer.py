"""How much song do I need? The whole answer, for every bird and age of a finished study."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pyarrow as pa

from data_io.files import atomic_file, remove_leftovers, write_json
from data_io.recordings.table import BirdAge
from data_io.store import write_table
from study.base.console import WIDTH, Console
from study.base.hashes import hashes_of
from study.cluster.connection import connected
from study.cluster.tasks import TaskRunner
from study.hmms.rows import Row
from study.how_much.advice import NOTE, Advice, advise, sentence, too_little
from study.how_much.fan_out import CURVES, FanOut, songs_of
from study.how_much.figure import curves_figure
from study.how_much.finished import answered_for, open_study
from study.how_much.tables import by_amount, curve_of, mean_rows, show_table, write_csv

KEPT = ".fits"


def answer(run: Path, subsamples: Sequence[int], address: str | None, console: Console) -> None:
    """Fit every amount of song of a finished study, and write and show what comes of it.

    Args:
        run: folder of the study; nothing in it is changed but how_much_song/, which is made.
        subsamples: numbers of the subsamples of each amount, two or more.
        address: of a Ray cluster; None starts Ray on this machine.
        console: shows progress and the answer.

    Raises:
        StudyError: the study is not finished, or a fit failed.
    """
    study = open_study(run)
    if study.truth is None:
        console.line("Truth     none lies beside the recordings (simulated birds have it)")
    songs, left_out = songs_of(study)
    out = study.paths.how_much
    rows: list[Row] = []
    if songs:
        with connected(address):
            tasks = TaskRunner(study.config.resources.max_tasks)
            rows = FanOut(study, out / KEPT, tasks, console).run(songs, list(subsamples))
    out.mkdir(exist_ok=True)
    remove_leftovers(out)
    study.paths.how_much_files.unlink(missing_ok=True)  # a record of others is worse than none
    curves_file, advice_file = out / "curves.parquet", out / "advice.txt"
    write_table(curves_file, pa.Table.from_pylist(rows, schema=CURVES))
    curves = by_amount(rows)
    advices = {
        bird_age: advise(curve_of(bird_age, amounts)) if len(amounts) > 1 else None
        for bird_age, amounts in curves.items()
    }
    tables = {
        bird_age: mean_rows(amounts, advices[bird_age])
        for bird_age, amounts in curves.items() if amounts
    }  # fmt: skip
    shown = _write_tables(out, tables, advices, console)
    sentences = []
    for bird_age in study.recordings.birds_and_ages():
        advice = advices.get(bird_age)
        without_model = [_no_model(row) for row in rows if row["n_states"] is None
                         and (row["bird"], row["age"]) == bird_age]  # fmt: skip
        reasons = [left_out[bird_age]] if bird_age in left_out else without_model
        sentences.append(too_little(bird_age, reasons) if advice is None else sentence(advice))
    with atomic_file(advice_file) as temporary:
        temporary.write_text("\n".join([*sentences, NOTE]) + "\n", "utf-8")
    files = hashes_of(run, [curves_file, advice_file, *shown])
    of = answered_for(study.depends_on[0], study.config.hmm)
    write_json(study.paths.how_much_files, {**files, "of": of})
    console.line()
    for one in [*sentences, NOTE]:
        console.line(textwrap.fill(one, WIDTH, subsequent_indent="  "))
    console.line()
    console.line(f"Files     {out}")


def _no_model(row: Row) -> str:
    """Which part of the song has no model, and why."""
    part = f"1/{2 ** row['halvings']}" if row["halvings"] else "all"
    return f"{part} of the training side has no model: {row['reason']}"


def _write_tables(
    out: Path, tables: dict[BirdAge, list[Row]], advices: dict[BirdAge, Advice | None],
    console: Console,
) -> list[Path]:  # fmt: skip
    """Write and show the table and the figure; those of an earlier answer do not stay."""
    table_file, figure_file = out / "how_much_song.csv", out / "how_much_song.png"
    if not tables:
        table_file.unlink(missing_ok=True)
        figure_file.unlink(missing_ok=True)
        return []
    table = [row for of_bird_age in tables.values() for row in of_bird_age]
    write_csv(table_file, table)
    show_table(table, console)
    figure = curves_figure(list(tables.values()), [advices[bird_age] for bird_age in tables])
    with atomic_file(figure_file) as temporary:
        figure.savefig(temporary, dpi=120, metadata={"Software": None})
    plt.close(figure)
    return [table_file, figure_file]
