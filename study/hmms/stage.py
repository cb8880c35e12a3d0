"""Stage 4: HMMs of every bird and age; the number of states by BIC.

The fits are those of `models.hmm`, by a merge search or a grid; hmm_fan_out.py hands them to Ray
tasks. The tables and models of the stage are made from the journal once all is done.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_io.files import atomic_dir, digest
from data_io.recordings import BirdAge, Recording, birds_and_ages
from data_io.song_models import save_song_model
from data_io.store import write_rows, write_table
from models.hmm import HmmFit, select_by_bic
from study.base.console import Console
from study.base.ledger import StageResult
from study.base.paths import RunPaths
from study.config.tree import StudyConfig
from study.context import Stage, Study
from study.decoders.scope import without_decoder
from study.encode import read_whitening, recording_lengths, whitened
from study.hmms.engines import compare_engines
from study.hmms.fan_out import FanOut, Latents
from study.hmms.journal import Journal, journal_folder, journal_key, remove_journal
from study.hmms.tables import (
    SELECTED,
    Row,
    fit_of,
    fit_row,
    grid_table,
    no_decoder_row,
    selected_row,
)
from study.hmms.work import SEARCH

Array = NDArray[np.float64]


def run_grid(
    config: StudyConfig,
    recordings: list[Recording],
    paths: RunPaths,
    console: Console,
    latents_digest: str,
) -> tuple[list[Row], dict[str, Any]]:
    """Find the number of states of all birds and ages; write the stage's tables and models.

    What is done goes to a journal in the run folder (`hmm_journal`), which stays until
    `remove_journal` is called: run again after a kill, only the rest is done.

    Args:
        config: of the study.
        recordings: of the study.
        paths: of the run folder.
        console: shows progress.
        latents_digest: hash of the latents; with another one nothing in the journal counts.

    Returns:
        One row per bird and age, as in hmm_selected.parquet, and facts for study.json.

    Raises:
        TaskError: a fit could not be done; the message names it.
        BrokenFileError: latents cannot be read.
    """
    missing = without_decoder(config, paths, recordings)
    pieces = birds_and_ages(recordings)
    encoded = [piece for piece in pieces if piece not in missing]
    lengths = {piece: recording_lengths(paths, piece) for piece in encoded}
    key = journal_key(config.hmm, config.seed, latents_digest)
    journal = Journal(journal_folder(paths), key, console)

    scope = config.decoders.scope
    latents = Latents(
        of=lambda piece: whitened(paths, piece, scope),
        sizes={piece: sum(lengths[piece].values()) for piece in encoded},
        whitening={piece: read_whitening(paths, piece, scope) for piece in encoded},
    )
    max_tasks = config.resources.max_tasks
    FanOut(latents, config.seed, config.hmm, journal, console, max_tasks).run()
    found = _write_models(config, paths, lengths, journal)
    found |= {piece: no_decoder_row(piece, reason) for piece, reason in missing.items()}
    selected = [found[piece] for piece in pieces]
    write_rows(paths.hmm_selected, selected, SELECTED)
    facts: dict[str, Any] = {}
    if config.hmm.compare_engines:
        folder = journal_folder(paths)
        facts = compare_engines(latents, config.seed, config.hmm, folder, console, max_tasks)
    return selected, facts


def _write_models(
    config: StudyConfig,
    paths: RunPaths,
    lengths: dict[BirdAge, dict[str, int]],
    journal: Journal,
) -> dict[BirdAge, Row]:
    """Make models and the grid's table from the journal, one bird and age in memory at a time.

    Returns:
        Rows of hmm_selected.parquet.
    """
    tables: list[pa.Table] = []
    selected: dict[BirdAge, Row] = {}
    with atomic_dir(paths.hmm) as folder:
        for piece, of_recordings in lengths.items():
            entry = journal.read(piece, SEARCH)
            assert entry.found is not None  # that is what concludes a search
            tables.append(grid_table(piece, entry.fits))
            selected[piece] = selected_row(piece, entry.found, list(of_recordings.values()))
            if entry.model is not None:
                best = select_by_bic([fit_of(row) for row in entry.fits])
                assert best is not None  # it is whose model this is
                facts = {"fit": _facts(best.best), "recordings": list(of_recordings),
                         "seed": config.seed}  # fmt: skip
                save_song_model(folder, *piece, entry.model, facts)
    write_table(paths.hmm_grid, pa.concat_tables(tables).combine_chunks())
    return selected


def _facts(fit: HmmFit) -> Row:
    return {name: value for name, value in fit_row(fit).items() if name != "covariance_type"}


def _run(study: Study) -> StageResult:
    paths = study.paths
    latents = study.ledger.done["latents"].digest
    selected, facts = run_grid(study.config, study.recordings, paths, study.console, latents)
    outputs = [paths.hmm_grid, paths.hmm_selected, paths.hmm]
    return StageResult(outputs, digest(selected), facts, to_track=selected)


HMMS = Stage(
    "hmm",
    needs=lambda study: study.depends_on("latents", hmm=study.config.hmm),
    run=_run,
    # The stage's record is written: nothing in the journal is needed any more.
    then=lambda study: remove_journal(study.paths),
)
