"""The search: trials on Ray Tune by Optuna's proposals, the best ones again with fresh seeds."""

from pathlib import Path
from typing import Any

import ray

from data_io.files import found, remove_folder, remove_leftovers, sync, write_json
from study.base import stopping
from study.base.console import Console, count
from study.base.errors import INTERRUPTED, StudyError
from study.base.paths import RunPaths
from study.config.stopping import first_rung
from study.config.tree import N_SEEDS, StudyConfig
from study.search.launch import launch
from study.search.proposals import StudySearch
from study.search.rungs import Rungs, rung_reports
from study.search.search_folder import prepare_folder
from study.search.selection import Selection, candidates, choose
from study.search.state import SearchState, TrialState
from study.search.tables import Row, keep_best, repeat_rows, trial_rows, write_tables
from study.search.trial import TrialJob
from study.search.trial_folder import TrialFolder, TrialSpec, has_begun
from study.search.tune_adapters import OrderedASHA
from study.search.watcher import TrialWatcher
from study.tracking.tracker import RunIdentity, Tracker
from study.training.data import TrialData

FLUSH_S = 5.0  # to learn the ids of MLflow's runs for the tables; a server that is away gives none


class NoTrialError(StudyError):
    """No trial ended with a decoder that can be used."""


class InterruptedSearchError(StudyError):
    """Trials are missing: nothing may be concluded from the others."""

    exit_code = INTERRUPTED


class Search:
    """One search under way, in a run folder.

    Args:
        config: of the study.
        data: what trials train on.
        gpus: of a trial.
        paths: of the run folder.
        tracker: of the study.
        console: shows progress.
    """

    def __init__(
        self,
        config: StudyConfig,
        data: TrialData,
        gpus: float,
        paths: RunPaths,
        tracker: Tracker,
        console: Console,
    ):
        self._config = config
        self._data = data
        self._paths = paths
        self._tracker = tracker
        self._console = console
        self._gpus = gpus

    def run(self) -> Selection:
        """Run what is missing of trials and repeats; write the tables, selection.json, best/.

        Returns:
            How the best trial was chosen.

        Raises:
            NoTrialError: no trial completed.
            InterruptedSearchError: Tune was stopped before all trials were over.
            StorageFullError, BrokenRecordError: the message says what to do.
        """
        search, paths = self._config.search, self._paths
        key = prepare_folder(self._config, self._data.sha256, paths, self._console)
        trials = self._trials(key)
        self._tracker.flush(FLUSH_S)
        rows = trial_rows(self._config, trials, self._tracker, trial_identity)
        chosen_from = candidates(rows, search.selection, search.compared)
        if not chosen_from:
            self._remove_choice()
            write_tables(paths, rows, [], trials)
            raise NoTrialError(
                f"None of {len(rows)} trials gave a decoder that can be used: "
                + "; ".join(f"{row['trial_id']} {row['status']}" for row in rows[:5])
                + ". Lower mdgan.lr, or raise mdgan.n_snippets."
            )
        repeated = self._repeats(chosen_from, key)
        self._tracker.flush(FLUSH_S)
        repeats = repeat_rows(self._config, chosen_from, repeated, self._tracker, repeat_identity)
        try:
            selection = choose(repeats, search.selection, search.compared, self._config.seed)
        except ValueError as error:
            self._remove_choice()
            write_tables(paths, rows, repeats, trials)
            raise NoTrialError(
                f"{error} Every one failed or collapsed with its fresh seeds: trust none of them. "
                "Lower mdgan.lr, or raise mdgan.n_snippets."
            ) from error
        best = next(row for row in rows if row["trial_id"] == selection.chosen)
        best["is_best"] = True
        write_tables(paths, rows, repeats, trials)
        write_json(paths.selection, selection.to_dict())
        keep_best(best, selection, paths)
        return selection

    def _remove_choice(self) -> None:
        """Remove the best trial of an earlier search: this one has none."""
        self._paths.selection.unlink(missing_ok=True)
        if self._paths.best.exists():
            _remove(self._paths.best)

    def _trials(self, key: str) -> SearchState:
        """Run the search to its end."""
        config, search = self._config, self._config.search
        state = new_state(config, key)
        n_beyond = load_trials(state, self._paths.search, search.n_trials, self._console)
        if n_beyond:
            are = "is" if n_beyond == 1 else "are"
            beyond = f"{count(n_beyond, 'trial')} beyond search.n_trials"
            self._console.note(f"{beyond} {are} kept, not counted")
        n_known = len(state.trials)
        searcher = StudySearch(config, state, self._paths.search)
        watcher = self._watcher(state, self._paths.search, trial_identity, search.n_trials)
        self._end_what_is_over(state, watcher)
        # `searcher` adds trials whose folders were removed.
        n_new = search.n_trials - len(state.trials)
        n_missing = sum(not state.is_over(n) for n in state.trials) + n_new
        if n_known:
            known = count(n_known, "trial", "is/are")
            self._console.note(f"{known} there: {n_missing} to run or to go on with")
        if n_missing:
            scheduler = OrderedASHA(state)
            launch(config, self._data, self._job(self._paths.search), watcher, searcher,
                   n_missing, scheduler)  # fmt: skip
            searcher.tell_decided()
        _require_whole(state, search.n_trials)
        watcher.close_runs()
        return state

    def _repeats(self, chosen_from: list[Row], key: str) -> SearchState:
        """Train the candidates again with seeds that the search did not use."""
        config, folder = self._config, self._paths.repeats_folder
        state = SearchState(Rungs([], 2), config.mdgan.n_reports)
        specs: list[TrialSpec] = []
        for row in chosen_from:
            params = {name: row[name] for name in config.search.space}
            for i in range(1, config.search.selection.n_seeds + 1):
                seed = (config.seed + i) % N_SEEDS
                name = f"{row['trial_id']}-seed{seed}"
                specs.append(TrialSpec(name, len(specs), seed, params, search=key))
        remove_leftovers(folder)
        for spec in specs:
            record = TrialFolder(folder / spec.name)
            known = record.spec_of(key) if has_begun(record.path) else None
            if known is not None and known.params != spec.params:
                _remove(record.path)  # its trial was removed, and trained anew
                known = None
            if known is None:
                record.begin(spec)
            state.add(_restored(record, spec, self._console))
        watcher = self._watcher(state, folder, repeat_identity, len(specs))
        self._end_what_is_over(state, watcher)
        missing = [spec for spec in specs if not state.is_over(spec.number)]
        if missing:
            self._console.end_progress()
            self._console.note(
                f"{len(chosen_from)} candidates again with {config.search.selection.n_seeds} "
                "fresh seeds"
            )
            launch(config, self._data, self._job(folder), watcher, missing, len(missing))
        _require_whole(state, len(specs))
        watcher.close_runs()
        return state

    def _job(self, folder: Path) -> TrialJob:
        config = self._config
        n_threads = config.resources.cpus_per_trial
        return TrialJob(config.mdgan, config.search.objective, folder, n_threads, self._gpus)

    def _watcher(self, state: SearchState, folder: Path, identity: Any, n: int) -> TrialWatcher:
        base = self._config.mdgan
        return TrialWatcher(state, folder, base, self._tracker, identity, self._console, n)

    def _end_what_is_over(self, state: SearchState, watcher: TrialWatcher) -> None:
        """Trials that were killed after their last report need no process any more."""
        for number in sorted(state.trials):
            if state.trials[number].ended is None and state.is_over(number):
                watcher.open_run(number)
                watcher.end(number)


def _remove(path: Path) -> None:
    """Remove a trial's folder; after a power cut it is whole, or a leftover."""
    leftover = path.with_name(f".{path.name}.tmp")
    path.replace(leftover)
    sync(path.parent)
    remove_folder(leftover)


def new_state(config: StudyConfig, key: str = "") -> SearchState:
    """A search without trials, with rungs where weak trials are stopped early.

    Args:
        config: of the study.
        key: what `prepare_folder` gives.
    """
    search, n_reports = config.search, config.mdgan.n_reports
    rungs = []
    if search.stops_early:
        rungs = rung_reports(first_rung(config), search.reduction_factor, n_reports)
    return SearchState(Rungs(rungs, search.reduction_factor), n_reports, search.kept_choices, key)


def _require_whole(state: SearchState, n_trials: int) -> None:
    """Refuse to go on where trials are missing, as after a signal that Tune took for the end."""
    stopping.check()
    n_over = sum(state.is_over(number) for number in state.trials)
    if n_over < n_trials:
        raise InterruptedSearchError(
            f"Interrupted: {n_over} of {n_trials} trials are over. The same command goes on from "
            "here."
        )


def trial_identity(spec: TrialSpec) -> RunIdentity:
    """The MLflow run of a trial."""
    return RunIdentity("trial", trial_id=spec.name)


def repeat_identity(spec: TrialSpec) -> RunIdentity:
    """The MLflow run of a trial with another seed."""
    return RunIdentity("repeat", trial_id=spec.name.partition("-seed")[0], seed=str(spec.seed))


def load_trials(state: SearchState, folder: Path, n_trials: int, console: Console) -> int:
    """Take in the trials on disk whose number is below ``n_trials``; give how many are beyond.

    Raises:
        BrokenRecordError: a record cannot be read, or is of another search.
        OSError: the folder cannot be listed.
    """
    records = [TrialFolder(path) for path in found(folder, "trial-*") if has_begun(path)]
    all_specs = [(record, record.spec_of(state.search)) for record in records]
    kept = [(record, spec) for record, spec in all_specs if spec.number < n_trials]
    for record, spec in kept:
        state.add(_restored(record, spec, console))
    return len(all_specs) - len(kept)


def _restored(record: TrialFolder, spec: TrialSpec, console: Console) -> TrialState:
    """A trial from disk: ended, or as its newest sound checkpoint left it."""
    record.tidy()
    ended = record.ended()
    if ended is not None and not ended["may_go_on"]:
        reports = {report["report"]: report for report in ended["reports"]}
        return TrialState(spec, reports, ended, ended["node"], ended["n_retries"])
    if ended is not None:
        # Of one whose process died, or of what the training said itself.
        reasons = [ended["reason"], *(one.get("reason") for one in reversed(ended["reports"]))]
        console.note(f"{spec.name} is tried again: {next(filter(None, reasons), 'it failed')}")
        record.reopen()
    state = TrialState(spec)
    state.reports = {r["report"]: r for r in record.sound_reports(console.note)}
    return state


def n_parallel(config: StudyConfig, gpus: float) -> int:
    """Trials that the connected cluster runs at once."""
    have = ray.cluster_resources()
    fits = int(have.get("CPU", 1) // config.resources.cpus_per_trial)
    if gpus:
        fits = min(fits, int(have.get("GPU", 0) / gpus + 1e-9))
    return max(1, min(fits, config.resources.max_concurrent_trials or fits))
