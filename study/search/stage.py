"""The stage of the search: trials, their repeats, and the best decoder."""

from typing import Any

from data_io.files import digest
from study.base.ledger import StageResult
from study.context import Stage, Study
from study.search.report_side import in_words, measure_best
from study.search.search import Search, n_parallel
from study.search.search_folder import search_parts
from study.training.data import load_trial_data
from study.training.train import best_facts


def _needs(study: Study) -> dict[str, Any]:
    config = study.config
    plain = config.to_dict()
    search = {**plain["search"], "max_retries": None}
    snippets = {**plain["snippets"], "hop": None}  # trainings do not see it
    return study.depends_on("recordings", mdgan=config.mdgan, search=search, snippets=snippets)


def _run(study: Study) -> StageResult:
    config, paths, console = study.config, study.paths, study.console
    console.note(
        f"{config.search.n_trials} trials, {n_parallel(config, study.gpus)} at once, "
        f"each {config.mdgan.n_snippets:,} snippets; objective {config.search.objective}"
    )
    data = load_trial_data(config, study.recordings, paths)
    selection = Search(config, data, study.gpus, paths, study.tracker, console).run()
    console.note("measuring the best decoder on held-out recordings")  # minutes, of very many
    measure_best(config, study.recordings, paths, data.reference)
    for sentence in (selection.sentence, in_words(paths)):
        console.note(sentence)
    made = digest(best_facts(paths)["sha256"])
    outputs = [
        paths.reference, paths.trials, paths.trial_reports, paths.trial_by_bird_age,
        paths.repeats, paths.selection, paths.best, paths.best_held_out, paths.best_by_bird_age,
    ]  # fmt: skip
    facts = {"best_trial": selection.chosen, "reference_sha256": data.reference.sha256}
    facts |= {"study_run_id": study.tracker.study_run_id}
    # So that `verify` knows whose trials lie in search/.
    facts |= {"search": digest(search_parts(config, data.sha256))}
    return StageResult(outputs, made, facts)


def _note_best(study: Study) -> None:
    facts = study.ledger.done["trials"].facts
    study.tracker.lineage["best_trial_id"] = facts["best_trial"]
    study.tracker.lineage["trials_study_run_id"] = facts["study_run_id"]


TRIALS = Stage("trials", needs=_needs, run=_run, then=_note_best)
