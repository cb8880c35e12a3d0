"""The HMM stage: the number of states and the model of every bird and age.

`models.hmm` searches, one Ray task for each bird and age (fan_out.py). Then come the states that
the ages of a bird share, where these are wanted (shared.py), and the comparison of ages (ages.py).
The tables and models of the stage are made from the journals once all is done.
"""

import pyarrow as pa

from data_io.files import atomic_dir, digest
from data_io.latents import read_sound_shares
from data_io.names.ages import age_order
from data_io.recordings.table import BirdAge, Recordings
from data_io.song_models import SongModel, save_song_model
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
from study.hmms.ages import AGES, AgesJournals, age_row, compare_ages
from study.hmms.fan_out import FanOut, Latents
from study.hmms.journal import Journal, journal_folder, journal_key, remove_journal
from study.hmms.rows import Row
from study.hmms.shared import SHARED, SharedJournals, share_states, shared_row
from study.hmms.tables import MEMORY, SELECTED, fit_of, grid_table, no_decoder_row
from study.hmms.task import Made


def find_n_states(
    config: StudyConfig,
    recordings: Recordings,
    paths: RunPaths,
    console: Console,
    latents_digest: str,
    tasks: TaskRunner,
) -> list[Row]:
    """Find the number of states of all birds and ages; write the stage's tables and models.

    Every task that comes back goes to a journal in the run folder, which stays until
    `remove_journal`: run again after a kill, only the rest is done.

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
        TaskError: a search could not be done; it names its bird and age.
        BrokenFileError: latents cannot be read.
    """
    params, seed = config.hmm, config.seed
    missing = without_decoder(config, paths, recordings)
    all_of_them = recordings.used.birds_and_ages()
    encoded = [bird_age for bird_age in all_of_them if bird_age not in missing]
    lengths = {bird_age: recording_lengths(paths, bird_age) for bird_age in encoded}
    journals = _Journals(paths, journal_key(params, seed, latents_digest), console)
    scope, snippets = config.decoders.scope, config.snippets
    latents = Latents(
        read=lambda bird_age: whitened(paths, bird_age, scope),
        holds_sound=lambda bird_age: [
            share > 0 for share in read_sound_shares(paths.latents, *bird_age).values()
        ],
        sizes={bird_age: sum(lengths[bird_age].values()) for bird_age in encoded},
        made={
            bird_age: Made(read_whitening(paths, bird_age, scope), snippets.hop, snippets.new_share)
            for bird_age in encoded
        },
    )
    FanOut(latents, seed, params, journals.own, console, tasks).run()
    ages = _ages_with_model(encoded, journals.own)
    states: dict[str, SongModel] = {}
    if params.shared_states:
        share_states(ages, latents, journals.shared, params, seed, console, tasks)
        states = journals.shared.states_of(ages)
    compare_ages(ages, latents, journals.own, states, journals.ages, params, seed, console, tasks)

    rows = _write_models(paths, lengths, journals, set(states), seed)
    rows |= {bird_age: no_decoder_row(bird_age, reason) for bird_age, reason in missing.items()}
    selected = [rows[bird_age] for bird_age in all_of_them]
    write_rows(paths.hmm_selected, selected, SELECTED)
    _write_comparisons(paths, ages, selected, journals, params.shared_states)
    return selected


class _Journals:
    """The journals of all kinds of tasks of one key."""

    def __init__(self, paths: RunPaths, key: str, console: Console):
        def of(kind: str) -> Journal:
            return Journal(journal_folder(paths), key, console, kind)

        self.own = of("searches")
        self.shared = SharedJournals(of("shared states"), of("shared models"))
        self.ages = AgesJournals(of("matched"), of("ages"))


def _ages_with_model(encoded: list[BirdAge], own: Journal) -> dict[str, list[BirdAge]]:
    """Birds and ages that have a model of their own, by bird, youngest first."""
    ages: dict[str, list[BirdAge]] = {bird: [] for bird, _ in encoded}
    for bird_age in sorted(encoded, key=lambda one: age_order(one[1])):
        if own.read(bird_age).model is not None:
            ages[bird_age[0]].append(bird_age)
    return ages


def _write_models(
    paths: RunPaths,
    lengths: dict[BirdAge, dict[str, int]],
    journals: _Journals,
    with_shared: set[str],
    seed: int,
) -> dict[BirdAge, Row]:
    """Make models and hmm_grid.parquet from the journals, one bird and age in memory at a time.

    Args:
        paths: of the run folder.
        lengths: snippets of every recording of every bird and age.
        journals: hold all that was found.
        with_shared: birds whose models have the states that their ages share.
        seed: of the study.

    Returns:
        Rows of hmm_selected.parquet.
    """
    tables: list[pa.Table] = []
    selected: dict[BirdAge, Row] = {}
    with atomic_dir(paths.hmm) as folder:
        for bird_age, of_recordings in lengths.items():
            searched = journals.own.read(bird_age)
            tables.append(grid_table(bird_age, searched.fits))
            selected[bird_age] = searched.selected
            model = searched.model
            if model is None:
                continue
            facts = {"fit": _best_fit(searched.fits), "states": "own",
                     "recordings": list(of_recordings), "seed": seed}  # fmt: skip
            if bird_age[0] in with_shared:
                shared = journals.shared.models.read(bird_age)
                # Its facts of memory take the place of those of the states of its own.
                row = {**searched.selected, "song_model": "shared"}
                row |= {k: v for k, v in shared.selected.items() if k in MEMORY}
                selected[bird_age] = row
                facts |= {"fit": shared.selected, "states": "shared"}
                model = shared.model
                assert model is not None  # its bird has shared states
            save_song_model(folder, *bird_age, model, facts)
    write_table(paths.hmm_grid, pa.concat_tables(tables).combine_chunks())
    return selected


def _write_comparisons(
    paths: RunPaths,
    ages: dict[str, list[BirdAge]],
    selected: list[Row],
    journals: _Journals,
    is_shared: bool,
) -> None:
    """Write hmm_ages.parquet, and hmm_shared.parquet where states are shared."""
    compared = {
        one: journals.ages.compared.read(one).fits[0]
        for of_bird in ages.values()
        for one in of_bird
    }
    rows = [age_row(row, compared.get((row["bird"], row["age"]))) for row in selected]
    write_rows(paths.hmm_ages, rows, AGES)
    if not is_shared:
        paths.hmm_shared.unlink(missing_ok=True)  # of a study that was run with it before
        return
    own = {(row["bird"], row["age"]): row for row in selected}
    rows = [
        shared_row(bird, of_bird, [own[one] for one in of_bird], journals.shared)
        for bird, of_bird in ages.items()
    ]
    write_rows(paths.hmm_shared, rows, SHARED)


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
    outputs = [paths.hmm_grid, paths.hmm_selected, paths.hmm_ages, paths.hmm]
    if study.config.hmm.shared_states:
        outputs.append(paths.hmm_shared)
    return StageResult(outputs, digest(selected))


HMMS = Stage(
    "hmm",
    needs=lambda study: study.depends_on("latents", hmm=study.config.hmm),
    run=_run,
    # The stage's record is written: nothing in the journal is needed any more.
    then=lambda study: remove_journal(study.paths),
)
