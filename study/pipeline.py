"""The stages of a study in order, from recordings to report."""

from data_io.files import make_folder
from data_io.names.listing import Survey
from study.base import stopping
from study.base.console import Console, count
from study.base.ledger import Ledger, locked
from study.base.paths import RunPaths, Where
from study.base.provenance import code_hash, git_commit
from study.checks import CHECKS
from study.cluster.connection import connected, unused_gpus
from study.cluster.gpus import gpus_per_trial
from study.cluster.tasks import TaskRunner
from study.config.tree import StudyConfig
from study.context import Study
from study.decoders.fan_out import DECODERS
from study.encode import LATENTS
from study.hmms.stage import HMMS
from study.how_much.finished import of_another_study
from study.ingest import RECORDINGS, SIMULATED_BIRDS
from study.labels import LABELS
from study.preflight.run import preflight
from study.report.page import REPORT
from study.report.summary import show_result
from study.report.trial_figures import TRIAL_FIGURES
from study.search.stage import TRIALS
from study.songs import SONGS
from study.tracked import allowed_params, study_run, with_begin, write_study_json
from study.tracking.tracker import Tracker

DATA_STAGES = (SIMULATED_BIRDS, RECORDINGS, LABELS)
STAGES = (TRIALS, TRIAL_FIGURES, DECODERS, LATENTS, HMMS, CHECKS, SONGS, REPORT)
END_WAIT_S = 60.0  # for MLflow to take in the rest, at the end of a study
STOP_WAIT_S = 4.0  # of a study that is stopped: all of it must end within `stopping.BOUND_S`


def run_study(config: StudyConfig, where: Where, survey: Survey | None, console: Console) -> None:
    """Run every stage whose input has changed, and show the result.

    Args:
        config: of the study.
        where: it runs and writes.
        survey: of the folder of recordings; None where birds are simulated.
        console: shows progress.

    Raises:
        StudyError: the message says what to do; its exit code whether anything was begun.
    """
    with connected(where.address) as here:
        preflight(config, where, survey, here, console)
        share = gpus_per_trial(config)
        for hint in (share.sentence, unused_gpus(share.gpus)):
            if hint:
                console.line(hint)
        make_folder(where.out)
        with locked(where.out):
            _run_locked(config, where, survey, share.gpus, console)


def _run_locked(
    config: StudyConfig, where: Where, survey: Survey | None, gpus: float, console: Console
) -> None:
    paths = RunPaths(where.out)
    lineage = {
        "study": config.name,
        "git_commit": git_commit(),
        "code_hash": code_hash(),
        "config_hash": config.sha256,
    }
    tracker = Tracker(
        where.tracking_uri, config.name, lineage, paths.tracking, allowed_params(config),
        console.line,
    )  # fmt: skip
    wanted = [stage.name for stage in (*DATA_STAGES, *STAGES) if stage.is_wanted(config)]
    study = Study(
        config=config,
        where=where,
        paths=paths,
        console=console,
        tasks=TaskRunner(config.resources.max_tasks),
        tracker=tracker,
        ledger=Ledger(where.out, paths.stages, console, len(wanted), paths.report),
        gpus=gpus,
        survey=survey,
    )
    try:
        try:
            _run_stages(study)
        finally:
            write_study_json(study, wanted)
    finally:
        if n_waiting := tracker.close(STOP_WAIT_S if stopping.is_stopping() else END_WAIT_S):
            console.line(
                f"MLflow has not all of {count(n_waiting, 'run')} yet; nothing is lost: give the "
                "same command again when the server is back."
            )
    show_result(config, paths, tracker.uri, tracker.experiment_id, console)
    if other := of_another_study(paths, study.ledger.done["latents"].digest, config.hmm):
        console.line(f"{paths.how_much} {other}: give the command how much song again")


def _run_stages(study: Study) -> None:
    for stage in DATA_STAGES:
        if stage.is_wanted(study.config):
            stage.do(study)
    data_hash = study.ledger.done["recordings"].digest
    study.tracker.lineage["data_hash"] = data_hash
    with study_run(study.config, study.tracker, data_hash):
        for stage in STAGES:
            if stage.is_wanted(study.config):
                with_begin(stage).do(study)
            elif (study.paths.stages / f"{stage.name}.json").exists():
                study.console.note(
                    f"What the stage of the {stage.name} left is of other settings: nothing here "
                    "uses it."
                )
