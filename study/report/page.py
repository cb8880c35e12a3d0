"""The stage that writes report.html, one page without other files."""

import base64
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2

from data_io.files import atomic_file, digest
from data_io.recordings.table import BirdAge, Recording, Recordings
from data_io.store import read_table
from study.base.ledger import StageResult
from study.base.paths import RunPaths
from study.config.tree import StudyConfig
from study.context import Stage, Study
from study.decoders.scope import caution
from study.hmms.tables import CRITERIA
from study.ingest import count_recordings
from study.plan import OBJECTIVES_IN_WORDS
from study.report.ages_section import ages_section
from study.report.best_section import best_section
from study.report.checks_section import checks_section
from study.report.figures import as_svg, bic_figure, trials_figure
from study.report.search_section import search_section
from study.songs import song_files

Row = dict[str, Any]
MAX_PROBLEMS = 100
METRIC_COLUMNS = {
    "objective": "objective",
    "valid/frechet_song": "Frechet, songs",
    "valid/frechet_song_worst": "its worst",
    "valid/coverage_song": "coverage",
    "valid/recon_l1": "L1",
    "valid/recon_l1_vs_pca": "L1 / PCA-16",
    "valid/recon_l1_worst": "L1, worst",
    "valid/frechet_sample": "Frechet, prior",
    "snippets_seen": "snippets seen",
}


def write_report(
    config: StudyConfig, recordings: Recordings, paths: RunPaths, lineage: dict[str, str]
) -> None:
    """Write report.html from the tables, figures and songs of the run folder."""
    trials = ranked(read_table(paths.trials).to_pylist())
    reports = read_table(paths.trial_reports).to_pylist()
    grid = read_table(paths.hmm_grid).to_pylist()
    selected = read_table(paths.hmm_selected).to_pylist()
    best = next(row["trial_id"] for row in trials if row["is_best"])
    ages: dict[str, list[str]] = {}
    bird_ages = recordings.used.birds_and_ages()
    for bird, age in bird_ages:
        ages.setdefault(bird, []).append(age)
    chosen = by_bird(selected, ages)
    with_songs = [bird_age for bird_age in bird_ages if song_files(paths, bird_age)]
    shown = _songs_inside(with_songs, config.songs.n_in_report)
    n_left = len(with_songs) - len(shown)
    problems, n_problems = _problems(recordings)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        # Names of birds come from folders; no name may become markup.
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    safe = jinja2.filters.do_mark_safe
    page = environment.get_template("report.html.j2").render(
        **_of_study(config, lineage),
        recordings=count_recordings(recordings),
        trials=_trial_cells(config, paths, trials),
        best=best,
        best_figure=_figure_of(paths, best),
        chosen=best_section(paths, bird_ages),
        search=search_section(config, paths, trials, best),
        trials_figure=safe(as_svg(trials_figure(reports, config.search.objective, best))),
        ages=ages_section(paths, config.hmm.shared_states),
        bic_figures=[safe(as_svg(bic_figure(fits, chosen[bird], bird, ages[bird])))
                     for bird, fits in by_bird(grid, ages).items() if fits],
        selected=[_selected_cells(row) for row in selected],
        checks=checks_section(paths),
        songs=[_inlined(paths, bird_age) for bird_age in shown],
        songs_note=f" {n_left} more birds and ages are in the folder songs/." if n_left else "",
        problems=problems,
        problems_note=f"and {n_problems - len(problems)} more in recordings.parquet"
        if n_problems > len(problems) else "",
    )  # fmt: skip
    with atomic_file(paths.report) as temporary:
        temporary.write_text(page, "utf-8")


def _of_study(config: StudyConfig, lineage: dict[str, str]) -> Row:
    """Content of report.html.j2 that the configuration and the lineage give."""
    frame_ms = 1000 * config.spectrogram.frame_s
    return {
        "name": config.name,
        "seed": config.seed,
        "commit": lineage["git_commit"][:12],
        "code": lineage["code_hash"][:12],
        "config_hash": lineage["config_hash"],
        "data_hash": lineage["data_hash"],
        "snippet_ms": f"{config.snippets.n_frames * frame_ms:g}",
        "hop_ms": f"{config.snippets.hop * frame_ms:g}",
        "objective": config.search.objective,
        "objective_words": OBJECTIVES_IN_WORDS[config.search.objective],
        "decoders_caution": caution(config.decoders.scope),
        "columns": [*config.search.space, *METRIC_COLUMNS.values()],
    }


def _trial_cells(config: StudyConfig, paths: RunPaths, trials: Sequence[Row]) -> list[Row]:
    """Rows of trials with what their columns say, and the link to each trial's picture."""
    names = [*config.search.space, *METRIC_COLUMNS]
    return [
        {
            **row,
            "values": [_text(row.get(name)) for name in names],
            "figure": _link_to_figure(paths, row["trial_id"]),
        }
        for row in trials
    ]


def ranked(trials: Sequence[Row]) -> list[Row]:
    """Sort trials: completed trials first, by objective; then the others, by number."""

    def key(row: Row) -> tuple[bool, float, int]:
        is_completed = row["status"] == "completed"
        return (not is_completed, row["objective"] if is_completed else 0.0, row["number"])

    return sorted(trials, key=key)


def by_bird(rows: Sequence[Row], birds: Iterable[str]) -> dict[str, list[Row]]:
    """Rows of each of ``birds``, in the order of both."""
    found: dict[str, list[Row]] = {bird: [] for bird in birds}
    for row in rows:
        found[row["bird"]].append(row)
    return found


def _songs_inside(bird_ages: list[BirdAge], n: int) -> list[BirdAge]:
    """Choose at most ``n`` birds and ages, spread evenly over all."""
    if len(bird_ages) <= n:
        return bird_ages
    return [bird_ages[round(i * (len(bird_ages) - 1) / max(n - 1, 1))] for i in range(n)]


def _inlined(paths: RunPaths, bird_age: BirdAge) -> Row:
    songs = [
        {"kind": kind, "png": _base64(png), "wav": _base64(wav)}
        for kind, (png, wav) in song_files(paths, bird_age).items()
    ]
    return {"title": f"{bird_age[0]}, {bird_age[1]}", "songs": songs}


def _figure_of(paths: RunPaths, trial_id: str) -> str:
    """The picture of a trial as base64; "" if the trial left no decoder."""
    path = paths.trial_figure(trial_id)
    return _base64(path) if path.exists() else ""


def _link_to_figure(paths: RunPaths, trial_id: str) -> str:
    """Link from the report to the picture of a trial; "" if there is none."""
    path = paths.trial_figure(trial_id)
    return path.relative_to(paths.report.parent).as_posix() if path.exists() else ""


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _selected_cells(row: Row) -> Row:
    has_model = row["n_states"] is not None
    return {
        "bird": row["bird"],
        "age": row["age"],
        "states": _states(row) if has_model else "-",
        "covariances": row["covariance_type"] or "-",
        "sounding": _text(row["n_sounding"]),
        "silent": _text(row["n_silent"]),
        "memory": row["memory"] or "-",
        "runner_up": _text(row["runner_up_n_states"]),
        "distance": _text(row["runner_up_bic_distance"]),
        "others": [_text(row[column]) for column in CRITERIA.values()],
        "n": f"{row['n_observations']:,.0f}",
        "n_effective": "-" if row["n_effective"] is None else f"{row['n_effective']:,.0f}",
        "restarts": f"{row['n_agreeing']}/{row['n_restarts']}" if has_model else "-",
        "log_l": f"{row['log_likelihood'] / row['n_snippets']:.3f}" if has_model else "-",
        "remark": row["reason"],
    }


def _states(row: Row) -> str:
    low, high = row["n_states_low"], row["n_states_high"]
    return str(row["n_states"]) if low is None else f"{row['n_states']} ({low} to {high})"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _problems(recordings: Recordings) -> tuple[list[Recording], int]:
    """The first flagged and skipped recordings, and how many there are."""
    doubtful = recordings.where(recordings.column("status") != "ok")
    return list(itertools.islice(doubtful, MAX_PROBLEMS)), len(doubtful)


def _needs(study: Study) -> dict[str, Any]:
    before = ("recordings", "trials", "trial figures", "hmm", "checks", "songs")
    # A skipped file changes no number of a study, but the page names it.
    problems, n_problems = _problems(study.recordings)
    named = [(one.path, one.status, one.reason) for one in problems]
    shown = digest([count_recordings(study.recordings), n_problems, named])
    return study.depends_on(*before, config=study.config.sha256, recordings_shown=shown)


def _run(study: Study) -> StageResult:
    write_report(study.config, study.recordings, study.paths, study.tracker.lineage)
    return StageResult([study.paths.report], digest(study.config.sha256))


REPORT = Stage("report", needs=_needs, run=_run)
