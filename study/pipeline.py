"""The stages of a study in order, from recordings to report."""

import dataclasses
import hashlib
import json
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data_io.files import digest
from data_io.recordings import Recording, data_hash, scan
from data_io.store import read_recordings, read_table
from study import encode, ingest, songs
from study.base.console import WIDTH, Console
from study.base.ledger import Ledger, StageResult, locked
from study.base.paths import RunPaths, Where
from study.base.provenance import code_hash, git_commit
from study.cluster.connection import connected, unused_gpus
from study.cluster.gpus import gpus_per_trial
from study.config.tree import StudyConfig, in_words
from study.decoders.fan_out import train_decoders
from study.hmms import stage as hmm_grid
from study.hmms.journal import remove_journal
from study.ingest import count_recordings
from study.preflight.run import preflight
from study.report.page import write_report
from study.report.summary import show_result
from study.report.trial_figures import draw_trials
from study.search import search as tuning
from study.tracked import (
    allowed_params,
    hmm_run,
    study_run,
    track_decoder,
    track_hmms,
    write_study_json,
)
from study.tracking.tracker import RunIdentity, Tracker
from study.training.data import load_trial_data

NOTE_WIDTH = WIDTH - 6  # a note is indented
END_WAIT_S = 60.0  # for MLflow to take in the rest, at the end of a study


@dataclass
class Study:
    """One study under way."""

    config: StudyConfig
    where: Where
    paths: RunPaths
    tracker: Tracker
    ledger: Ledger
    console: Console
    data_dir: Path
    gpus: float
    recordings: list[Recording] = field(default_factory=list)

    def depends_on(self, *stages: str, **parts: Any) -> dict[str, Any]:
        """Plain content that a stage depends on: earlier stages' results, configuration, seed."""
        digests = {stage: self.ledger.done[stage].digest for stage in stages}
        plain = {
            name: part if isinstance(part, str | int | float | dict) else dataclasses.asdict(part)
            for name, part in parts.items()
        }
        return {"after": digests, "seed": self.config.seed, **plain}


def run_study(config: StudyConfig, where: Where, console: Console) -> None:
    """Run every stage whose input has changed, and show the result.

    Raises:
        ResourceError, TrackingError, FolderInUseError: before anything is written.
        NoTrialError, BrokenFileError: the message says what to do.
    """
    with connected(where.address):
        preflight(config, where, console)
        share = gpus_per_trial(config)
        for hint in (share.sentence, unused_gpus(share.gpus)):
            if hint:
                console.line(hint)
        where.out.mkdir(parents=True, exist_ok=True)
        with locked(where.out):
            _run_locked(config, where, share.gpus, console)


def _run_locked(config: StudyConfig, where: Where, gpus: float, console: Console) -> None:
    paths = RunPaths(where.out)
    lineage = {
        "study": config.name,
        "git_commit": git_commit(),
        "code_hash": code_hash(),
        "config_hash": config.sha256,
    }
    tracker = Tracker(
        where.tracking_uri, config.name, lineage, paths.outbox, allowed_params(config),
        console.line,
    )  # fmt: skip
    try:
        n_stages = len(_stages(config)) + (config.data.dir is None)
        ledger = Ledger(where.out, paths.stages, console, n_stages)
        data_dir = Path(config.data.dir or paths.simulated_birds)
        study = Study(config, where, paths, tracker, ledger, console, data_dir, gpus)
        try:
            _run_stages(study)
        finally:
            write_study_json(config, paths, data_dir, tracker, ledger)
    finally:
        if n_waiting := tracker.close(END_WAIT_S):
            console.line(
                f"{n_waiting} records have not reached MLflow yet; they are kept in "
                f"{paths.outbox}: run the same command again when the server is back."
            )
    show_result(config, paths, tracker.uri, tracker.experiment_id, console)


def _run_stages(study: Study) -> None:
    if study.config.data.dir is None:
        simulation = study.config.data.simulation
        study.ledger.run(
            "simulated birds", study.depends_on(simulation=simulation), lambda: _simulate(study)
        )
    _recordings_stage(study)
    study.console.note(count_recordings(study.recordings))
    data_hash = study.ledger.done["recordings"].digest
    study.tracker.lineage["data_hash"] = data_hash
    with study_run(study.config, study.paths, study.tracker, data_hash):
        for stage in _stages(study.config)[1:]:
            stage(study)


def _simulate(study: Study) -> StageResult:
    made = ingest.simulate(study.config, study.paths, study.console)
    return StageResult([study.paths.simulated_birds], made)


def _recordings_stage(study: Study) -> None:
    config, paths = study.config, study.paths

    def work() -> StageResult:
        recordings = ingest.ingest(config, study.data_dir, found, paths, study.console)
        if not any(r.is_used for r in recordings):
            reasons = "; ".join(f"{r.path}: {r.reason}" for r in recordings[:3])
            raise tuning.NoTrialError(
                f"None of {len(recordings)} recordings can be used ({reasons}, ...). "
                f"{paths.recordings} says why for each."
            )
        return StageResult([paths.recordings, paths.spectrograms], data_hash(recordings))

    found = scan(study.data_dir)
    depends_on = study.depends_on(
        files=ingest.fingerprint(study.data_dir, found),
        spectrogram=config.spectrogram,
        n_frames=config.snippets.n_frames,
        valid_fraction=config.snippets.valid_fraction,
    )
    study.ledger.run("recordings", depends_on, work)
    study.recordings = read_recordings(paths.recordings)


def _trials_stage(study: Study) -> None:
    config, paths = study.config, study.paths

    def work() -> StageResult:
        study.console.note(
            f"{config.search.n_trials} trials, {tuning.n_parallel(config, study.gpus)} at once, "
            f"each {config.mdgan.n_snippets:,} snippets; objective {config.search.objective}"
        )
        data = load_trial_data(config, study.recordings, paths)
        search = tuning.Search(config, data, study.gpus, paths, study.tracker, study.console)
        selection = search.run()
        for line in textwrap.wrap(selection.sentence, NOTE_WIDTH):
            study.console.note(line)
        made = digest(json.loads((paths.best / "model.json").read_text("utf-8"))["sha256"])
        outputs = [
            paths.reference, paths.trials, paths.trial_reports, paths.repeats, paths.selection,
            paths.best,
        ]  # fmt: skip
        tags = {"sha256": made, "trial_id": selection.chosen, "selection": selection.sentence}
        study.tracker.register_model(
            RunIdentity("study"), paths.best, f"{config.name}-decoder", tags
        )
        facts = {"best_trial": selection.chosen, "reference_sha256": data.reference.sha256}
        facts |= {"study_run_id": study.tracker.study_run_id}
        return StageResult(outputs, made, facts)

    search = {**config.to_dict()["search"], "max_retries": None}
    depends_on = study.depends_on(
        "recordings", mdgan=config.mdgan, search=search, snippets=config.snippets
    )
    record = study.ledger.run("trials", depends_on, work)
    study.tracker.lineage["best_trial_id"] = record.facts["best_trial"]
    study.tracker.lineage["trials_study_run_id"] = record.facts["study_run_id"]


def _trial_figures_stage(study: Study) -> None:
    config, paths = study.config, study.paths

    def work() -> StageResult:
        drawn = draw_trials(config, study.recordings, paths, study.console)
        pictures = {}
        for row in trials:
            if row["trial_id"] in drawn:
                picture = paths.trial_figure(row["trial_id"])
                identity = RunIdentity("trial", trial_id=row["trial_id"])
                # Not where the trials are runs of another study, or of another MLflow.
                if study.tracker.knows(identity):
                    study.tracker.log_artifact(identity, picture)
                pictures[picture.name] = hashlib.sha256(picture.read_bytes()).hexdigest()
        return StageResult([paths.trial_figures], digest(pictures), {"n_drawn": len(drawn)})

    trials = read_table(paths.trials).to_pylist()
    # Not the best trial alone, which later stages depend on; and UMAP may be installed since.
    has_umap = find_spec("umap") is not None
    depends_on = study.depends_on(
        "recordings", "trials", all_trials=digest(trials), has_umap=has_umap
    )
    study.ledger.run("trial figures", depends_on, work)


def _decoders_stage(study: Study) -> None:
    config, paths = study.config, study.paths

    def work() -> StageResult:
        study.console.note(in_words(config.decoders.scope))
        trained = train_decoders(config, study.recordings, paths, study.console, gpus=study.gpus)
        for one in trained:
            track_decoder(study.tracker, config.decoders.scope, one)
        rows = [one.row for one in trained]
        refused = [row for row in rows if row["status"] != "ok"]
        for row in refused:
            name = f"{row['bird']} {row['age']}".rstrip()
            study.console.note(f"{name} has no decoder: {row['reason']}")
        if len(refused) == len(rows):
            raise tuning.NoTrialError(
                f"None of {len(rows)} decoders could be trained; {paths.decoder_table} says why "
                "for each. Give more recordings, or set decoders.scope to all or bird."
            )
        names = ("bird", "age", "status", "reason", "encoder_sha256", "generator_sha256")
        made = digest([[row.get(name) for name in names] for row in rows])
        facts = {"n_decoders": len(rows) - len(refused), "n_without_decoder": len(refused)}
        return StageResult([paths.decoder_table, paths.decoders], made, facts)

    n_eval = config.search.n_eval_snippets
    depends_on = study.depends_on(
        "recordings", "trials", decoders=config.decoders, mdgan=config.mdgan, n_eval_snippets=n_eval
    )
    study.ledger.run("decoders", depends_on, work)


def _decoder_stage_of(config: StudyConfig) -> str:
    """The stage that made the decoders which serve birds and ages."""
    return "trials" if config.decoders.scope == "all" else "decoders"


def _latents_stage(study: Study) -> None:
    config, paths = study.config, study.paths

    def work() -> StageResult:
        n_snippets = encode.encode(config, study.recordings, paths, study.console)
        study.console.note(f"{n_snippets:,} snippets")
        made = digest([study.ledger.done[stage].digest for stage in before])
        return StageResult([paths.latents], made, {"n_snippets": n_snippets})

    before = ("recordings", _decoder_stage_of(config))
    study.ledger.run("latents", study.depends_on(*before), work)


def _hmm_stage(study: Study) -> None:
    config, paths = study.config, study.paths

    def work() -> StageResult:
        latents = study.ledger.done["latents"].digest
        selected, facts = hmm_grid.run_grid(config, study.recordings, paths, study.console, latents)
        track_hmms(study.tracker, read_table(paths.hmm_grid).to_pylist(), selected)
        made = digest(selected)
        return StageResult([paths.hmm_grid, paths.hmm_selected, paths.hmm], made, facts)

    study.ledger.run("hmm", study.depends_on("latents", hmm=config.hmm), work)
    remove_journal(paths)  # the stage's record is written: nothing is needed of it any more


def _songs_stage(study: Study) -> None:
    config, paths = study.config, study.paths

    def work() -> StageResult:
        songs.make_songs(config, study.recordings, study.data_dir, paths, study.console)
        for row in read_table(paths.hmm_selected).to_pylist():
            folder = paths.songs / row["bird"] / row["age"]
            if not folder.exists():
                continue  # it has no decoder
            identity = hmm_run(study.tracker, row["bird"], row["age"])
            study.tracker.log_artifacts(identity, folder, "songs")
            study.tracker.end_run(identity, row["status"] != "failed")
        return StageResult([paths.songs], digest(study.ledger.done["hmm"].digest))

    decoders = _decoder_stage_of(config)
    depends_on = study.depends_on("recordings", decoders, "hmm", songs=config.songs)
    study.ledger.run("songs", depends_on, work)


def _report_stage(study: Study) -> None:
    config, paths = study.config, study.paths

    def work() -> StageResult:
        write_report(config, study.recordings, paths, study.tracker.lineage)
        study.tracker.log_artifact(RunIdentity("study"), paths.report)
        return StageResult([paths.report], digest(config.sha256))

    before = ("recordings", "trials", "trial figures", "hmm", "songs")
    depends_on = study.depends_on(*before, config=config.sha256)
    study.ledger.run("report", depends_on, work)


def _stages(config: StudyConfig) -> list[Callable[[Study], None]]:
    decoders = [] if config.decoders.scope == "all" else [_decoders_stage]
    return [
        _recordings_stage, _trials_stage, _trial_figures_stage, *decoders, _latents_stage,
        _hmm_stage, _songs_stage, _report_stage,
    ]  # fmt: skip
