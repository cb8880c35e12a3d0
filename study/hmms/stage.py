"""The HMM stage: the number of states and the model of every bird and age.

`models.hmm` searches, one Ray task for each bird and age (fan_out.py). The tables and models of
the stage are made from the journal once all is done.
"""

import pyarrow as pa

from data_io.files import atomic_dir, digest
from data_io.recordings.table import BirdAge, Recordings
from data_io.song_models import save_song_model
from data_io.store import write_rows, write_table
from models.hmm import select_by_bic
from study.base.console import Console
from study.base.ledger import StageResult
from study.base.paths import RunPaths
from study.cluster.tasks import TaskRunner
from study.config.tree import StudyConfig
from study.context import Stage, Study
from study.decoders.scope import without_decoder
from study.encode import read_whitening, recording_lengths, whitened
from study.hmms.fan_out import FanOut, Latents
from study.hmms.journal import Journal, journal_folder, journal_key, remove_journal
from study.hmms.rows import Row
from study.hmms.tables import SELECTED, fit_of, grid_table, no_decoder_row


def find_n_states(
    config: StudyConfig,
    recordings: Recordings,
    paths: RunPaths,
    console: Console,
    latents_digest: str,
    tasks: TaskRunner,
) -> list[Row]:
    """Find the number of states of all birds and ages; write the stage's tables and models.

    Every search that comes back goes to a journal in the run folder, which stays until
    `remove_journal` is called: run again after a kill, only the rest is done.

    Args:
        config: of the study.
        recordings: of the study.
        paths: of the run folder.
        console: shows progress.
        latents_digest: hash of the latents; with another one nothing in the journal counts.
        tasks: runs the searches.

    Returns:
        The rows of hmm_selected.parquet, one per bird and age.

    Raises:
        TaskError: a search could not be done; the message names its bird and age.
        BrokenFileError: latents cannot be read.
    """
    missing = without_decoder(config, paths, recordings)
    all_of_them = recordings.used.birds_and_ages()
    encoded = [bird_age for bird_age in all_of_them if bird_age not in missing]
    lengths = {bird_age: recording_lengths(paths, bird_age) for bird_age in encoded}
    key = journal_key(config.hmm, config.seed, latents_digest)
    journal = Journal(journal_folder(paths), key, console)

    scope = config.decoders.scope
    latents = Latents(
        read=lambda bird_age: whitened(paths, bird_age, scope),
        sizes={bird_age: sum(lengths[bird_age].values()) for bird_age in encoded},
        whitening={bird_age: read_whitening(paths, bird_age, scope) for bird_age in encoded},
    )
    FanOut(latents, config.seed, config.hmm, journal, console, tasks).run()
    rows = _write_models(paths, lengths, journal, config.seed)
    rows |= {bird_age: no_decoder_row(bird_age, reason) for bird_age, reason in missing.items()}
    selected = [rows[bird_age] for bird_age in all_of_them]
    write_rows(paths.hmm_selected, selected, SELECTED)
    return selected


def _write_models(
    paths: RunPaths, lengths: dict[BirdAge, dict[str, int]], journal: Journal, seed: int
) -> dict[BirdAge, Row]:
    """Make models and hmm_grid.parquet from the journal, one bird and age in memory at a time.

    Returns:
        Rows of hmm_selected.parquet.
    """
    tables: list[pa.Table] = []
    selected: dict[BirdAge, Row] = {}
    with atomic_dir(paths.hmm) as folder:
        for bird_age, of_recordings in lengths.items():
            searched = journal.read(bird_age)
            tables.append(grid_table(bird_age, searched.fits))
            selected[bird_age] = searched.selected
            if searched.model is not None:
                facts = {"fit": _best_fit(searched.fits), "recordings": list(of_recordings),
                         "seed": seed}  # fmt: skip
                save_song_model(folder, *bird_age, searched.model, facts)
    write_table(paths.hmm_grid, pa.concat_tables(tables).combine_chunks())
    return selected


def _best_fit(rows: list[Row]) -> Row:
    """The chosen fit; the file of its model has the covariance type already."""
    fits = [fit_of(row) for row in rows]
    chosen = select_by_bic(fits)
    assert chosen is not None  # it has a model
    row = rows[next(i for i, fit in enumerate(fits) if fit is chosen.best)]
    return {name: value for name, value in row.items() if name != "covariance_type"}


def _run(study: Study) -> StageResult:
    paths = study.paths
    latents = study.ledger.done["latents"].digest
    selected = find_n_states(
        study.config, study.recordings, paths, study.console, latents, study.tasks
    )
    outputs = [paths.hmm_grid, paths.hmm_selected, paths.hmm]
    return StageResult(outputs, digest(selected))


HMMS = Stage(
    "hmm",
    needs=lambda study: study.depends_on("latents", hmm=study.config.hmm),
    run=_run,
    # The stage's record is written: nothing in the journal is needed any more.
    then=lambda study: remove_journal(study.paths),
)
