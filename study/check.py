"""The check of a folder of recordings alone: `birdsong check DIR`."""

import textwrap
from pathlib import Path

import ray

from data_io.names.listing import Survey
from data_io.recordings.reasons import reasons
from data_io.recordings.table import Recording, Recordings
from data_io.spectrogram import SpectrogramParams
from data_io.store import write_recordings
from study.base.console import WIDTH, Console, Progress
from study.base.paths import Where
from study.cluster.connection import connected
from study.cluster.tasks import TaskRunner
from study.config.tree import StudyConfig
from study.ingest import read_all
from study.plan import show_data
from study.report.check_page import Thumbnail, choose_doubtful, draw_thumbnail, write_check_page

MAX_REASONS = 20


def check_recordings(config: StudyConfig, where: Where, found: Survey, console: Console) -> bool:
    """Read and check every file; print a table by reason, write the list and a page.

    Args:
        config: how recordings are read.
        where: the list and the page go.
        found: the files.
        console: shows progress and the table.

    Returns:
        Whether any recording can be used.
    """
    show_data(config, found, console)
    with connected(where.address):
        tasks = TaskRunner(config.resources.max_tasks)
        recordings = read_all(config, found, tasks, console)
        thumbnails = _drawn(config, found, recordings, tasks, console)
    where.out.mkdir(parents=True, exist_ok=True)
    table, page = where.out / "recordings.parquet", where.out / "check.html"
    write_recordings(table, recordings)
    write_check_page(page, found, recordings, thumbnails, config.spectrogram.sample_rate_hz / 2)
    show_reasons(recordings, console)
    console.line(f"Files     {table}")
    console.line(f"Page      {page}")
    return len(recordings.used) > 0


def _drawn(
    config: StudyConfig, found: Survey, recordings: Recordings, tasks: TaskRunner, console: Console
) -> list[Thumbnail]:
    doubtful = list(choose_doubtful(recordings))
    drawn: dict[str, Thumbnail] = {}
    progress = Progress(console, len(doubtful), "pictures")

    def keep(recording: Recording, thumbnail: Thumbnail) -> None:
        drawn[recording.path] = thumbnail
        progress.advance()

    tasks.run(
        lambda recording: _draw.remote(
            found.root, recording, config.data.channel, config.spectrogram
        ),
        doubtful,
        keep,
        lambda recording: f"Drawing {recording.path}",
    )
    return [drawn[recording.path] for recording in doubtful]


@ray.remote
def _draw(root: Path, recording: Recording, channel: int, params: SpectrogramParams) -> Thumbnail:
    return draw_thumbnail(root, recording, channel, params)


def show_reasons(recordings: Recordings, console: Console) -> None:
    """Print the kinds of reasons why recordings are flagged or skipped, with counts."""
    status = recordings.column("status")
    counts = ", ".join(
        f"{(status == name).sum():,} {name}" for name in ("ok", "flagged", "skipped")
    )
    console.line(f"{len(recordings):,} recordings: {counts}")
    kinds = reasons(recordings)
    if not kinds:
        return
    for one in kinds[:MAX_REASONS]:
        head = f"{one.n:>7,} {one.status:8}"
        console.line(textwrap.fill(f"{head}{one.whole}", WIDTH, subsequent_indent=" " * 16))
        console.line(f"{'':16}for instance {one.example}")
    if len(kinds) > MAX_REASONS:
        console.line(f"... and {len(kinds) - MAX_REASONS} more kinds")
