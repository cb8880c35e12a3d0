"""What must be true of a search, of Optuna's record of it and of its runs in MLflow.

All is compared with what `pretend_training` says beforehand, and with the proposals that a search
without any fault would have made.
"""

import copy
import dataclasses
import json
import tempfile
from collections import Counter
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState as OptunaState

from data_io.files import digest, read_json
from data_io.store import read_table
from study.config.tree import N_SEEDS
from study.search.distributions import from_optuna
from study.search.pictures import BEGUN, run_status
from study.search.proposals import StudySearch
from study.search.search import new_state
from study.search.selection import candidates, choose
from study.search.trial_folder import TrialFolder, TrialSpec
from study.tracking.sent import FOLDER
from tests.helpers.pretend_training import curve_of, expected, seen_at

_PROPOSED = {}  # what `_proposals` found, which takes time
ONCE_ENDED = {"trial.json", "begun.json", "owner.json", "ended.json", "decoder"}


class CheckedSearch(StudySearch):
    """Each proposal is what a command that begins now would propose, of the same results.

    So it is for a trial whose folder was removed, whoever made the others, and however often it was
    killed. Results that a trial has reported, and has not ended with, are known to the other alone:
    then the two need not agree.
    """

    def _ask(self, number, trial_id):
        state = new_state(self._config, self._state.search)
        for other in range(number):
            state.add(copy.deepcopy(self._state.trials[other]))
        with tempfile.TemporaryDirectory() as folder:
            begun_now = StudySearch(self._config, state, Path(folder))
            both = [known_to(one) for one in (self, begun_now)]
            spec = super()._ask(number, trial_id)
            if both[0] == both[1]:
                other = StudySearch._ask(begun_now, number, trial_id)
                _same(f"proposal of {spec.name}", spec, other)
        return spec


def known_to(searcher):
    """What Optuna knows of each trial."""
    trials = searcher.optuna_study.get_trials(deepcopy=False)
    return [(t.state, t.values, t.params, t.intermediate_values) for t in trials]


def check_always(world):
    """Each trial stays what it is, under its own number."""
    search = digest(read_json(world.paths.search / "search.json"))
    if search != world.search:  # the other one is set aside, or is taken back
        world.known_of[world.search] = world.known, world.gave_up
        world.search = search
        world.known, world.gave_up = world.known_of.get(search, ({}, set()))
    found = {}
    for folder in world.trial_folders():
        if (folder / "trial.json").exists():
            spec = TrialFolder(folder).spec()
            assert spec.name == folder.name == f"trial-{spec.number:03d}"
            found[folder.name] = spec
    assert world.known.items() <= found.items(), "a trial was lost, or became another one"
    world.known = found


def check_told(world, trial):
    """A report is in a checkpoint before the command hears of it."""
    report = (trial.told or {}).get("report", 0)
    if report and not trial.told.get("reason") and trial.number not in world.broken:
        folder = world.home / trial.config["spec"]["name"]
        kept = [int(path.name[-4:]) for path in folder.glob("checkpoint-????")]
        assert max(kept, default=0) >= report, (report, kept)


def check_end(world):
    """Folder, tables, Optuna and MLflow hold what was to come, whatever happened on the way."""
    config, paths = world.config, world.paths
    rows = read_table(paths.trials).to_pylist()
    specs = [TrialFolder(folder).spec() for folder in world.trial_folders()]
    specs = [spec for spec in specs if spec.number < config.search.n_trials]
    numbers = list(range(config.search.n_trials))
    _same("trials in the table", [row["number"] for row in rows], numbers)
    _same("trials in the folder", [spec.number for spec in specs], numbers)
    _same("proposals", [_fixed(config, spec.params) for spec in specs], _proposals(config))
    wanted = expected(config, specs)
    judged = _judged(world, wanted)
    for spec, row in zip(specs, rows, strict=True):
        _check_row(config, spec, row, wanted[spec.number] if spec.number in judged else None)
        names = {path.name for path in (paths.search / spec.name).iterdir()}
        # A worker of a killed command may leave what it was writing; the next start removes it. One
        # that lives on may have been held up between its last look at its owner and the name.
        ends = {name for name in names if not name.endswith((".tmp", ".tmp.json"))}
        if world.faults["worker of a killed command that lives on"]:
            ends = {name for name in ends if not name.startswith("checkpoint-")}
        may_go_on = read_json(paths.search / spec.name / "ended.json")["may_go_on"]
        _none(f"in the folder of {spec.name}", [] if may_go_on else sorted(ends - ONCE_ENDED))
    _check_decoders(config, paths, rows)
    repeats = read_table(paths.repeats).to_pylist() if paths.repeats.exists() else []
    _check_optuna(config, paths, rows)
    _check_mlflow(world, config, rows, repeats)
    if len(judged) == len(specs) and not world.gave_up:
        _check_selection(config, paths, specs, wanted)


def _judged(world, wanted):
    """Trials whose end is known beforehand.

    One that was given up for want of something is tried again with the next command. Meanwhile
    others were compared without it.
    """
    gone = {int(name[6:9]) for name in world.gave_up if "seed" not in name}
    if gone and world.config.search.grace_reports < world.config.mdgan.n_reports:
        return set()
    return wanted.keys() - gone


def _fixed(config, params):
    """The parameters whose proposals do not depend on results."""
    names = {"quasi_random": ["latent_dim", "lr"], "grid": ["latent_dim"]}
    return {name: params[name] for name in names.get(config.search.sampler, ())}


def _proposals(config):
    """Those parameters by number."""
    key = (config.search.sampler, config.seed, config.search.n_trials)
    if key not in _PROPOSED:
        with tempfile.TemporaryDirectory() as name:
            searcher = StudySearch(config, new_state(config), Path(name))
            suggested = [searcher.suggest(f"id-{i}") for i in range(config.search.n_trials)]
        _PROPOSED[key] = [_fixed(config, one["spec"]["params"]) for one in suggested]
    return _PROPOSED[key]


def _none(what, found):
    assert found == [], f"{what}: {found}"


def _same(what, found, wanted):
    assert found == wanted, f"{what}: {found} in place of {wanted}"


def _check_row(config, spec, row, wanted):
    curve = curve_of(spec.params, spec.seed, config.mdgan.n_reports)
    assert {name: row[name] for name in spec.params} == spec.params
    assert row["seed"] == spec.seed == config.seed
    assert row["status"] != "running", row
    if row["reports"]:
        wanted_value = curve.ranked_by(row["reports"], config.search.objective)
        _same(f"objective of {spec.name}", row["objective"], wanted_value)
        wanted_value = curve.metrics(row["reports"])["valid/recon_l1"]
        _same(f"valid/recon_l1 of {spec.name}", row["valid/recon_l1"], wanted_value)
    if wanted is not None:
        _same(f"status of {spec.name}", row["status"], wanted.status)
        if row["reports"]:
            _same(f"reports of {spec.name}", row["reports"], wanted.reports[-1])


def _check_decoders(config, paths, rows):
    """A decoder that is kept is of the report that its trial ended with, and best/ of the best."""
    for row in rows:
        model = paths.search / row["trial_id"] / "decoder" / "model.json"
        if row["status"] == "completed" and model.exists():
            made_of = {"seed": row["seed"], "seen": config.mdgan.n_snippets}
            _same(f"decoder of {row['trial_id']}", json.loads(model.read_text("utf-8")), made_of)
    best = [row["trial_id"] for row in rows if row["is_best"]]
    _same("best/ is there", paths.best.exists(), bool(best))
    for name in best:
        kept = (paths.best / "model.json").read_text("utf-8")
        _same("best/", kept, (paths.search / name / "decoder" / "model.json").read_text("utf-8"))


def _check_optuna(config, paths, rows):
    """Optuna's own record says the same of each trial."""
    storage = JournalStorage(JournalFileBackend(str(paths.search / "optuna.log")))
    trials = optuna.load_study(study_name=config.name, storage=storage).trials
    assert [trial.number for trial in trials] == [row["number"] for row in rows]
    for trial, row in zip(trials, rows, strict=True):
        told = {n: from_optuna(entry, trial.params[n]) for n, entry in config.search.space.items()}
        assert told == {name: row[name] for name in told}
        if not row["reports"]:
            state = OptunaState.FAIL
        else:
            is_stopped = row["status"] == "stopped" or row["reports"] < config.mdgan.n_reports
            state = OptunaState.PRUNED if row["status"] == "stopped" else OptunaState.COMPLETE
            if row["status"] == "collapsed":
                assert trial.constraints["collapsed"] > 0
                state = OptunaState.COMPLETE
            elif is_stopped and row["status"] == "completed":
                raise AssertionError(row)
        if row["status"] == "failed":
            state = OptunaState.FAIL
        _same(f"Optuna's state of trial {trial.number}", trial.state, state)
        if state != OptunaState.FAIL:
            assert trial.value == row["objective"]
            assert trial.user_attrs["status"] == row["status"]


def _check_mlflow(world, config, rows, repeats):
    """MLflow has each run once, each report that counts once, and says how it ended.

    A folder that was copied leaves its runs as they are to the one that it is a copy of.
    """
    paths = world.paths
    (sent,) = (path for path in paths.tracking.glob("*.json") if path.name != FOLDER)
    studies = read_json(sent)["study_runs"]
    shown_as = {other: own for own, study in studies.items() for other in study["shows"]}
    runs = _own_runs(world, read_json(paths.tracking / FOLDER)["folder_id"])
    _none("runs still RUNNING", [run.tags for run in runs if run.status == "RUNNING"])
    check_once(world)
    names = ("stage", "study_run_id", "trial_id", "seed")
    for run in runs:
        points = Counter((name, step) for name, step, _, _ in run.rows)
        _none("metrics there twice", [point for point, n in points.items() if n > 1])
    of = {tuple(run.tags.get(name, "") for name in names): run for run in runs}
    shown = [("trial", row, paths.search / row["trial_id"], "") for row in rows]
    for row in repeats:
        if row["seed"] != config.seed:
            folder = paths.repeats_folder / f"{row['trial_id']}-seed{row['seed']}"
            shown.append(("repeat", row, folder, str(row["seed"])))
    for stage, row, folder, seed in shown:
        begun = read_json(folder / BEGUN)["study_run_id"]
        study_run_id = shown_as.get(begun, begun)
        # Also what began for other settings in the folder that this one is a copy of.
        _check_run(world, config, row, folder, of[stage, study_run_id, row["trial_id"], seed])


def check_once(world):
    """Each study and each trial has one run in MLflow, and runs of other folders are untouched."""
    noted = read_json(world.paths.tracking / FOLDER)
    runs = _own_runs(world, noted["folder_id"] if noted else None)
    names = ("stage", "study_run_id", "trial_id", "seed")
    counted = Counter(tuple(run.tags.get(name, "") for name in names) for run in runs)
    same = ("stage", "study_hash", "data_hash")
    counted |= Counter(
        tuple(run.tags[name] for name in same) for run in runs if run.tags["stage"] == "study"
    )
    _none("runs there twice", [found for found, n in counted.items() if n > 1])
    for run_id, before in world.left_behind.items():
        _same(f"{run_id} of a folder that was copied", vars(world.mlflow.runs[run_id]), before)


def runs_of(world):
    """MLflow's runs of the run folder as they are now, by id; none of one that was moved since.

    Of a folder that has been moved and not been used since, a copy cannot be told from it.
    """
    noted = read_json(world.paths.tracking / FOLDER)
    if noted is None or noted["path"] != str(world.paths.tracking.resolve()):
        return {}
    return {run.run_id: copy.deepcopy(vars(run)) for run in _own_runs(world, noted["folder_id"])}


def _own_runs(world, folder_id):
    active = world.mlflow.active()
    own = {run.run_id for run in active if run.tags.get("run_folder") == folder_id}
    return [run for run in active if run.tags.get("study_run_id") in own or run.run_id in own]


def _copied_from(world, run):
    """Ids of the runs that the same trial has in the folders that this one is a copy of.

    The tables of a search that is done come along with a copy as they are, and name those.
    """
    if not world.faults["run folder copied"]:
        return set()
    names = ("stage", "trial_id", "seed")
    return {
        other.run_id for other in world.mlflow.active()
        if [other.tags.get(name) for name in names] == [run.tags.get(name) for name in names]
        and other.params == run.params
    }  # fmt: skip


def _check_run(world, config, row, folder, run):
    # While MLflow is away nobody knows the run's id.
    ids = {run.run_id, None} | _copied_from(world, run)
    assert row["mlflow_run_id"] in ids, (row["mlflow_run_id"], ids)
    _same(f"status in the tags of {folder.name}'s run", run.tags.get("status"), row["status"])
    _same(f"status of {folder.name}'s run", run.status, run_status(row["status"]))
    params = {name: row[name] for name in config.search.space}
    _same(f"parameters of {folder.name}'s run", {name: run.params[name] for name in params},
          {name: str(value) for name, value in params.items()})  # fmt: skip
    ended = read_json(folder / "ended.json")
    n_counted = row["reports"] or max(
        [0, *(r["report"] for r in ended["reports"] if not r["reason"])]
    )
    curve = curve_of(params, row["seed"], config.mdgan.n_reports)
    for name in ("train/loss", "valid/objective", "valid/recon_l1"):
        wanted = {
            seen_at(config.mdgan, report): curve.metrics(report)[name]
            for report in range(1, n_counted + 1)
            if name != "valid/objective" or not curve.metrics(report)["valid/collapsed"]
        }
        found = {step: value for key, step, value, _ in run.rows if key == name}
        _same(f"{name} of {folder.name}'s run", found, wanted)


def _check_selection(config, paths, specs, wanted):
    """The best trial is the one that these trainings come to."""
    trials = [_row(config, spec, wanted[spec.number]) for spec in specs]
    metric, rule = config.search.compared, config.search.selection
    chosen_from = candidates(trials, rule, metric)
    found = read_json(paths.selection)
    if not chosen_from:
        _same("selection.json and repeats", (found, paths.repeats.exists()), (None, False))
        return
    repeats = []
    for row in chosen_from:
        repeats.append(row)
        params = {name: row[name] for name in config.search.space}
        for i in range(1, rule.n_seeds + 1):
            spec = TrialSpec(row["trial_id"], row["number"], (config.seed + i) % N_SEEDS, params)
            alone = expected(_without_rungs(config), [spec])
            repeats.append(_row(config, spec, alone[spec.number]))
    try:
        selection = choose(repeats, rule, metric, config.seed)
    except ValueError:
        _same("selection.json", found, None)
        return
    _same("selection.json", found, json.loads(json.dumps(selection.to_dict())))


def _row(config, spec, wanted):
    last = wanted.reports[-1] if wanted.reports else 0
    metrics = curve_of(spec.params, spec.seed, config.mdgan.n_reports).metrics(last) if last else {}
    return {
        "trial_id": spec.name, "number": spec.number, "seed": spec.seed, "status": wanted.status,
        **spec.params, **{"valid/objective": None, "valid/recon_l1": None}, **metrics,
    }  # fmt: skip


def _without_rungs(config):
    search = dataclasses.replace(config.search, grace_reports=config.mdgan.n_reports)
    return dataclasses.replace(config, search=search)
