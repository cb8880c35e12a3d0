"""A search of trials with everything that may befall it, as one seeded history.

The code of the search is the real one: `Search`, `StudySearch` with Optuna, the rungs, the folders
of trials on disk, and the pictures of runs with their thread. Pretended are Ray Tune, the
trainings, MLflow's server and the clock. A `World` holds them; an action is one thing that happens
to it. `search_checks` says what must be true.
"""

import random
import shutil
import sys
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pyarrow as pa

import data_io.files
from data_io.files import digest
from study.base.console import Console
from study.base.ledger import FolderInUseError, Ledger, StageResult, locked
from study.base.paths import RunPaths
from study.config.reader import load_config
from study.config.space import SpaceEntry
from study.search import search, tables, trial, watcher
from study.search.pictures import search_pictures
from study.search.search import NoTrialError, Search
from study.search.trial_folder import BrokenRecordError, NotOwnerError, has_begun
from study.tracked import allowed_params, study_run
from study.tracking import client, difference, picture, sender, sent, tracker
from study.tracking.errors import TrackingError
from study.tracking.tracker import Tracker
from tests.helpers import pretend_training, search_checks
from tests.helpers.pretend_mlflow import PretendMlflow
from tests.helpers.pretend_processes import HELD_UP, Killed, Process, at_sync, wait
from tests.helpers.pretend_training import DATA, PretendTraining
from tests.helpers.pretend_tune import PretendTrial, PretendTune

SPACE = {
    "latent_dim": SpaceEntry(choice=(4, 8), role="scientific"),
    "lr": SpaceEntry(log_uniform=(5e-4, 2e-3)),
}
SELECTIONS = (
    "{rule: lowest, n_seeds: 0}",
    "{rule: lowest, n_seeds: 2, n_candidates: 2}",
    "{rule: one_standard_error, n_seeds: 2, n_candidates: 2}",
)
MOST_TRIALS = 5
BUG = "a bug"
# A Gaussian process takes most time. Several objectives are not played: what is checked is ranked
# by one.
SAMPLERS = ["quasi_random"] * 9 + ["grid"] * 6 + ["tpe"] * 3 + ["nsga2", "gp"]
N_STEPS = 50  # of a history, before everything is well again and the command is given to its end


@cache
def study_config(sampler, seed, n_trials, objective, n_reports, grace, selection):
    """A configuration; the same one for the same words."""
    overrides = [
        f"seed={seed}", f"search.n_trials={n_trials}", f"search.objective={objective}",
        f"mdgan.n_reports={n_reports}", f"search.grace_reports={grace}",
        f"search.selection={selection}", "search.reduction_factor=2", "search.n_startup_trials=2",
        "search.max_retries=2", "search.n_eval_snippets=100", "mdgan.adversarial_from=1",
        "resources.cpus_per_trial=1",
    ]  # fmt: skip
    config = load_config("smoke", None, overrides)
    return replace(config, search=replace(config.search, space=SPACE, sampler=sampler))


class SteppedSender(sender.Sender):
    """Sends where it is told to: its thread never runs by itself."""

    def step(self):
        """Try the next run; False where none waits."""
        with self._condition:
            if not self._waiting:
                return False
            self._try_now()
        self._send(*self._wait_for_work())
        return True

    def flush(self, timeout_s):
        """Try as often as there may be time for."""
        if Process.now.was_killed:
            raise Killed
        for _ in range(2 * len(self._waiting) + 6):
            if not self.step():
                break
        return len(self._waiting)


class _NoThread:
    def __init__(self, **named):
        pass

    def start(self):
        pass

    def join(self, timeout_s):
        pass

    def is_alive(self):
        return True


class Clock:
    """Seconds that pass at each look, and when the world says so."""

    def __init__(self):
        self._s = 0.0

    def monotonic(self):
        self._s += 0.001
        return self._s

    def time(self):
        return 1.7e9 + self.monotonic()

    def pass_by(self, seconds):
        self._s += seconds


class _Lines(Console):
    """A terminal whose lines go to the story of the world."""

    def __init__(self, say):
        super().__init__()
        self._say = say

    def line(self, text=""):
        self._say(text)

    note = progress = line


class World:
    """One run folder, its search, MLflow, and all processes.

    Args:
        root: folder for run folders, empty.
        seed: of the search's configuration: samplers, early stopping, seeds of repeats.

    Attributes:
        story: what happened, a line each.
        faults: how often each kind of fault happened.
        gave_up: names of trials that ended for want of something in the search at hand.
        known: trials of the search at hand, by name.
        broken: numbers of trials of which a checkpoint was broken.
        home: folder of the trials that Tune runs now.
        left_behind: MLflow's runs of folders that were copied, as they were, by id.
    """

    def __init__(self, root, seed):
        rng = random.Random(seed)
        self.root = root
        self.folder = root / "run"
        self.mlflow = PretendMlflow()
        self.clock = Clock()
        self.story = []
        self.faults = Counter()
        self.n_steps = 0
        self.gave_up = set()
        self.known = {}
        self.search, self.known_of = None, {}
        self.broken = set()
        self.home = None
        self.left_behind = {}
        self.driver = self.tune = self.sender = None
        self.is_done = False
        self._zombies = []  # trials of killed commands whose process lives on
        self._taken_over = set()  # names of trials that such a process took over
        self._shortage = ""
        self._folders = count(1)
        self._gives_up = rng.random() < 0.2
        self.sampler = rng.choice(SAMPLERS)
        self.seed = first = rng.randrange(30)
        self.seeds = (first, first + 1)
        self.n_trials = rng.randint(2, MOST_TRIALS)
        self.n_slots = rng.randint(1, 3)
        self.objective = "valid/objective"
        self.n_reports = rng.choice([2, 3, 4])
        self.grace = rng.choice([1, 1, 2, 4])
        self.selection = rng.choice(SELECTIONS)

    @property
    def config(self):
        """The configuration of the next command."""
        return study_config(
            self.sampler, self.seed, self.n_trials, self.objective, self.n_reports, self.grace,
            self.selection,
        )  # fmt: skip

    @property
    def paths(self):
        """Of the run folder."""
        return RunPaths(self.folder)

    def tell(self, text):
        """Add a line to the story."""
        self.story.append(text)

    @contextmanager
    def simulated(self):
        """Put the pretended parts in place of the real ones."""
        training = PretendTraining(("latent_dim", "lr"), self._before_report)
        parts = {
            client: {"MlflowClient": lambda uri, registry_uri: self.mlflow},
            tracker: {"Sender": SteppedSender},
            search: {"launch": self._launch, "StudySearch": search_checks.CheckedSearch},
            trial: {
                "tune": SimpleNamespace(report=wait), "new_mdgan": pretend_training.PretendModel,
                "train_on": training.train_on, "load_training": training.load_training,
                "save_training": training.save_training, "device": lambda _: "cpu",
                "save_decoder": pretend_training.save_decoder, "system_metrics": dict,
                "wait_for_memory": lambda _: None,
            },
            tables: {
                "load_decoder": pretend_training.load_decoder,
                "save_decoder_facts": lambda folder, facts: None,
            },
        }  # fmt: skip
        pa.set_cpu_count(1)
        pa.set_io_thread_count(1)
        with ExitStack() as stack:
            for module, names in parts.items():
                stack.enter_context(patch.multiple(module, **names))
            stack.enter_context(patch.object(watcher, "last_words", PretendTrial.last_words))
            for module in (trial, watcher, sender, sent, tracker, picture, difference):
                stack.enter_context(patch.object(module, "time", self.clock))
            threads = SimpleNamespace(Condition=sender.threading.Condition, Thread=_NoThread)
            stack.enter_context(patch.object(sender, "threading", threads))
            for module in _modules_with_sync():
                stack.enter_context(patch.object(module, "sync", at_sync))
            try:
                yield self
            finally:
                self._end_processes()

    # The command.

    def _command(self):
        config, paths, console = self.config, self.paths, _Lines(self.tell)
        paths.root.mkdir(exist_ok=True)
        with locked(paths.root):
            lineage = {"study": config.name, "config_hash": config.sha256}
            shows = Tracker("http://mlflow", config.name, lineage, paths.tracking,
                            allowed_params(config), self.tell)  # fmt: skip
            self.sender = shows._sender
            ledger = Ledger(paths.root, paths.stages, console, 1)
            try:
                with study_run(config, shows, DATA.sha256):
                    ledger.run("trials", {"config": config.to_dict()},
                               lambda: self._search(config, paths, shows, console))  # fmt: skip
                    shows.show(*search_pictures(paths, config.mdgan))
            finally:
                shows.close(60)

    def _search(self, config, paths, shows, console):
        Search(config, DATA, 0.0, paths, shows, console).run()
        outputs = [paths.trials, paths.trial_reports, paths.selection, paths.best]
        return StageResult(outputs, digest("made"))

    def _launch(self, config, data, job, watcher, work, n_trials, scheduler=None):
        self.home = job.folder

        def train(given):
            trial.run_trial(given, data, job)

        PretendTune(
            train, watcher, work, n_trials, scheduler, config.search.max_retries, self.n_slots
        ).run()

    def _before_report(self):
        shortage, self._shortage = self._shortage, ""
        if shortage == "memory":
            raise MemoryError("no memory is left")
        if shortage == "bug":
            raise KeyError(BUG)

    def _drive(self, message=None):
        found = self.driver.go_on(message)
        if found is not None:
            self.tune = found
            return
        driver, tune = self.driver, self.tune
        self.driver = self.tune = self.sender = None
        for one in tune.with_process() if tune else ():
            if driver.was_killed and self.rng.random() < 0.3:
                self.count("worker of a killed command that lives on")
                self._zombies.append(one)
            else:
                one.worker.kill()
        if driver.was_killed:
            self.tell("the command was killed")
        elif driver.error is None or isinstance(driver.error, NoTrialError):
            self.tell(f"the command has ended: {driver.error}")
            self.is_done = True
        elif isinstance(driver.error, TrackingError):
            self.tell(f"refused: {driver.error}")
        elif isinstance(driver.error, BrokenRecordError) and self.broken:
            self._remedy(str(driver.error))
        else:
            raise driver.error

    def _remedy(self, error):
        """Remove the trial that an error says to remove: its checkpoints were broken by us."""
        self.tell(error)
        folder = Path(error.partition("Remove the folder ")[2].partition(": the same")[0])
        assert int(folder.name[6:9]) in self.broken, error
        self.faults["trial removed as an error said"] += 1
        shutil.rmtree(folder)
        self.known.pop(folder.name, None)

    def _end_processes(self):
        for one in self.tune.with_process() if self.tune else ():
            one.worker.kill()
        for process in (*(one.worker for one in self._zombies), self.driver):
            if process is not None:
                process.kill()

    def count(self, kind):
        """Note a fault."""
        self.faults[kind] += 1
        self.tell(kind)

    # What happens. Each action is told which of several things it is to act on.

    def start(self):
        """The command is given."""
        self.tell(f"the command: {self.sampler}, seed {self.seed}, {self.n_trials} trials, "
                  f"{self.objective}")  # fmt: skip
        self.driver = Process(self._command)
        self._drive()

    def start_again(self):
        """The command is given once more, though nothing is left to do."""
        self.start()

    def start_killed_early(self):
        """The command is given, and killed at one of its first writes."""
        self.driver = Process(self._command)
        self.driver.killed_at = self.rng.randrange(40)
        self.count("command killed at a write")
        self._drive()

    def start_trial(self):
        """A process is there for the next trial."""
        (one,) = self.tune.startable()
        self.tell(f"{one.trial_id} starts: trial {one.number}")
        self._drive(lambda: self.tune.start(one))

    def train(self):
        """A worker goes on to its next report."""
        one = self.rng.choice(self.at_work())
        one.train()
        self.tell(f"trial {one.number} trains: {(one.told or {}).get('report', 'no report')}")

    def hear(self):
        """The command hears of a result, or of the end of a process."""
        one = self.rng.choice(self.heard_of())
        search_checks.check_told(self, one)
        self._check_worker(one)
        if one.told is None and (one.worker.was_killed or one.worker.error):
            if one.n_failures >= self.config.search.max_retries:
                self.gave_up.add(one.config["spec"]["name"])
        elif one.told is not None and one.told.get("may_go_on"):
            self.gave_up.add(one.config["spec"]["name"])
        self.tell(f"trial {one.number} is heard of")
        self._drive(lambda: self.tune.hear(one))

    def _check_worker(self, one):
        """An error of a worker is one that the world put in, or came of what the world did."""
        error = one.worker.error
        is_ours = error is None or isinstance(error, KeyError) and error.args == (BUG,)
        # A file was broken after the process had found it whole; the next one sets it aside.
        is_ours |= isinstance(error, (OSError, ValueError)) and one.number in self.broken
        # A process cut off that had yet to begin took the trial over; the next one takes it back.
        name = one.config["spec"]["name"]
        is_ours |= isinstance(error, NotOwnerError) and name in self._taken_over
        if not is_ours:
            raise error
        if error is not None:
            self._taken_over.discard(name)

    def kill_worker(self):
        """SIGKILL to a worker, between two steps."""
        one = self.rng.choice(self.may_die())
        self.count("worker killed")
        one.told = None
        one.worker.kill()

    def kill_worker_at_a_write(self):
        """SIGKILL to a worker between two writes of its checkpoint."""
        one = self.rng.choice([t for t in self.may_die() if t in self.at_work()])
        self.count("worker killed at a write")
        one.worker.killed_at = self.rng.randrange(12)
        one.train()

    def hold_worker_up(self):
        """A worker waits for its disk in the middle of a checkpoint."""
        one = self.rng.choice(self.at_work())
        self.count("worker held up at a write")
        one.worker.held_up_at = self.rng.randrange(12)
        one.train()

    def want(self):
        """A training has no memory left, or an error that nobody foresaw."""
        one = self.rng.choice(self.may_die())
        if one in self.at_work():
            self._shortage = "memory" if self._gives_up and self.rng.random() < 0.5 else "bug"
            self.count(f"training fails: {self._shortage}")
            one.train()
            self._shortage = ""

    def kill_driver(self):
        """SIGKILL to the command where it waits."""
        self.count("command killed")
        self.driver.kill()
        self._drive_dead()

    def kill_driver_at_a_write(self):
        """The command will be killed at one of its next writes."""
        self.count("command killed at a write")
        self.driver.killed_at = self.rng.randrange(8)

    def _drive_dead(self):
        if self.driver is not None and not self.driver.is_alive:
            self._drive()

    def start_beside(self):
        """The command is given a second time while the first runs."""
        self.count("two commands at once")
        other = Process(self._command)
        before = self.sender
        assert other.go_on() is None
        self.sender = before
        assert isinstance(other.error, FolderInUseError), other.error

    def zombie_writes(self):
        """A worker of a killed command, cut off with its node, goes on to its next report."""
        one = self._zombies.pop(self.rng.randrange(len(self._zombies)))
        process = one.worker
        name = one.config["spec"]["name"]
        before = self._owner(name)
        if self.rng.random() < 0.5:
            process.held_up_at = self.rng.randrange(12)
        if process.is_alive and process.go_on() is HELD_UP:
            self._zombies.append(one)
        else:
            process.kill()
        if self._owner(name) != before:
            self._taken_over.add(name)

    def _owner(self, name):
        """Who may write to the folder of a trial that Tune runs now, as bytes."""
        path = (self.home or self.folder) / name / "owner.json"
        return path.read_bytes() if path.exists() else b""

    def send(self):
        """MLflow's thread has its turn."""
        driver = self.driver

        def turn():
            for _ in range(self.rng.randint(1, 4)):
                self.sender.step()

        try:
            driver.act(turn)
        except Killed:
            driver.kill()
            self._drive_dead()

    def lose_replies(self):
        """MLflow's next calls do not come through, or their replies do not."""
        kinds = self.rng.choices(["", "unheard", "unanswered", "late"], k=self.rng.randint(1, 5))
        self.mlflow.faults = kinds
        for kind in filter(None, kinds):
            self.count(f"MLflow: a call is {kind}")

    def mlflow_leaves(self):
        """MLflow answers nobody from now on."""
        self.mlflow.is_away = True
        self.count("MLflow away")

    def mlflow_returns(self):
        """MLflow is back."""
        self.mlflow.is_away = False
        self.tell("MLflow is back")

    def change_n_trials(self):
        """More trials, or fewer."""
        self.n_trials = self.rng.choice(
            [n for n in range(1, MOST_TRIALS + 1) if n != self.n_trials]
        )
        self.count("another n_trials")
        self.is_done = False

    def change_seed(self):
        """Another seed, or the first one again."""
        self.seed = sum(self.seeds) - self.seed
        self.count("another seed")
        self.is_done = False

    def change_objective(self):
        """Another objective, or the first one again."""
        both = ("valid/objective", "valid/recon_l1")
        self.objective = both[self.objective == both[0]]
        self.count("another objective")
        self.is_done = False

    def change_selection(self):
        """Another rule for the best trial, with fresh seeds or without."""
        self.selection = self.rng.choice([one for one in SELECTIONS if one != self.selection])
        self.count("another rule of selection")
        self.is_done = False

    def move(self):
        """The run folder gets another name, or is copied and the copy goes on."""
        new = self.root / f"run-{next(self._folders)}"
        if self.rng.random() < 0.5:
            self.count("run folder moved")
            self.folder.rename(new)
        else:
            self.count("run folder copied")
            shutil.copytree(self.folder, new)
            self.left_behind |= search_checks.runs_of(self)
        self.folder = new

    def break_checkpoint(self):
        """A file of a trial's newest checkpoint is cut short, or gone."""
        folder = self.rng.choice(self.checkpoints())
        file = self.rng.choice(sorted(folder.iterdir()))
        self.count("checkpoint broken")
        self.broken.add(int(folder.parent.name[6:]))
        if self.rng.random() < 0.5:
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[:-1])

    def remove_trials(self):
        """Folders of trials are removed by hand, as an error may advise."""
        folders = self.trial_folders()
        for folder in self.rng.sample(folders, min(len(folders), self.rng.choice([1, 1, 2, 3]))):
            self.count("trial removed by hand")
            shutil.rmtree(folder)
            self.is_done = False
            self.known.pop(folder.name, None)

    def wait_a_while(self):
        """Time passes."""
        self.clock.pass_by(self.rng.choice([0.5, 30.0]))

    # What there is.

    def at_work(self):
        """Trials whose worker can go on."""
        running = self.tune.running() if self.tune else []
        return [one for one in running if one.told is None and one.worker.is_alive]

    def heard_of(self):
        """Trials of which the command can hear something."""
        running = self.tune.running() if self.tune else []
        return [one for one in running if one.told is not None or not one.worker.is_alive]

    def may_die(self):
        """Trials with a process that may be killed without giving the trial up."""
        most = self.config.search.max_retries
        running = self.tune.running() if self.tune else []
        return [one for one in running
                if one.worker.is_alive and (self._gives_up or one.n_failures < most)]  # fmt: skip

    def trial_folders(self):
        """Folders of the search's trials; a kill may leave one of a trial that has not begun."""
        return sorted(path for path in self.paths.search.glob("trial-*") if has_begun(path))

    def checkpoints(self):
        """The newest checkpoint of each trial that has one."""
        found = [sorted(folder.glob("checkpoint-????")) for folder in self.trial_folders()]
        return [one[-1] for one in found if one and any(one[-1].iterdir())]

    def step(self, name, number):
        """Do an action; ``number`` says which of several things it acts on."""
        self.rng = random.Random(number)
        self.n_steps += 1
        getattr(self, name)()
        if self.driver is None or name.startswith("start"):
            search_checks.check_always(self)

    def finish(self, number):
        """All is well from now on, and the command is given until it ends; check all."""
        self.rng = random.Random(number)
        self.mlflow.is_away, self.mlflow.faults = False, []
        self.is_done = False  # it may have ended while MLflow was away
        if self.driver is not None:
            self.driver.killed_at = None
        self._go_on()
        if any(run.status == "RUNNING" for run in self.mlflow.active()):
            # A run whose beginning took effect after this command had looked for open ones, or one
            # of a folder that was left behind: the next command may end the first only.
            search_checks.check_once(self)
            self.is_done = False
            self._go_on()
        search_checks.check_end(self)

    def _go_on(self):
        """Give the command until it has ended by itself."""
        for _ in range(3000):
            if self.driver is None and self.is_done:
                return
            self.step(self.next_without_fault(self.rng), self.rng.randrange(2**32))
        raise AssertionError("the search does not end")

    def next_without_fault(self, rng):
        """Name of what happens next where nothing goes wrong."""
        names = ("start", "start_again", "start_trial", "train", "hear", "send")
        return rng.choice([name for name in names if CAN[name](self)])


def _modules_with_sync():
    real = data_io.files.sync
    return [module for name, module in list(sys.modules.items())
            if name.split(".")[0] in ("data_io", "models", "study")
            and getattr(module, "sync", None) is real]  # fmt: skip


def _resting(world):
    return world.driver is None


# When an action can happen, and how often it is chosen.
CAN = {
    "start": lambda w: _resting(w) and not w.is_done,
    "start_again": lambda w: _resting(w) and w.is_done,
    "start_killed_early": _resting,
    "start_trial": lambda w: bool(w.tune and w.tune.startable()),
    "train": lambda w: bool(w.at_work()),
    "hear": lambda w: bool(w.heard_of()),
    "kill_worker": lambda w: bool(w.may_die()),
    "kill_worker_at_a_write": lambda w: any(t in w.at_work() for t in w.may_die()),
    "hold_worker_up": lambda w: bool(w.at_work()),
    "want": lambda w: any(t in w.at_work() for t in w.may_die()),
    "kill_driver": lambda w: w.driver is not None,
    "kill_driver_at_a_write": lambda w: w.driver is not None,
    "start_beside": lambda w: w.driver is not None,
    "zombie_writes": lambda w: bool(w._zombies),
    "send": lambda w: w.driver is not None,
    "lose_replies": lambda w: not w.mlflow.faults,
    "mlflow_leaves": lambda w: not w.mlflow.is_away,
    "mlflow_returns": lambda w: w.mlflow.is_away,
    "change_n_trials": _resting,
    "change_seed": _resting,
    "change_objective": _resting,
    "change_selection": _resting,
    "move": lambda w: _resting(w) and w.folder.exists(),
    "break_checkpoint": lambda w: bool(w.checkpoints()),
    # Of a search that is done the tables hold all that counts: its stage is skipped, and a trial
    # removed then is not trained anew.
    "remove_trials": lambda w: (
        _resting(w)
        and not w._zombies
        and bool(w.trial_folders())
        and not (w.paths.stages / "trials.json").exists()
    ),
    "wait_a_while": lambda w: True,
}
WEIGHTS = {
    "start": 30, "start_again": 1, "start_killed_early": 3, "start_trial": 20, "train": 30,
    "hear": 30,
    "kill_worker": 2, "kill_worker_at_a_write": 2, "hold_worker_up": 2, "want": 1,
    "kill_driver": 1.5, "kill_driver_at_a_write": 1.5, "start_beside": 0.3, "zombie_writes": 4,
    "send": 6, "lose_replies": 2, "mlflow_leaves": 0.7, "mlflow_returns": 10,
    "change_n_trials": 3, "change_seed": 1,
    "change_objective": 1, "change_selection": 1, "move": 2, "break_checkpoint": 1,
    "remove_trials": 1, "wait_a_while": 2,
}  # fmt: skip


def run_history(seed, root):
    """Play history ``seed`` in an empty folder; give its world, with what happened.

    Raises:
        Exception: what an invariant or the code of the search raised; it has the world's story.
    """
    rng = random.Random(f"history {seed}")
    world = World(root, rng.randrange(2**32))
    with world.simulated():
        try:
            for _ in range(N_STEPS):
                name = ""
                while not name or not CAN[name](world):
                    (name,) = rng.choices(list(WEIGHTS), WEIGHTS.values())
                world.step(name, rng.randrange(2**32))
            world.finish(rng.randrange(2**32))
        except Exception as error:
            error.add_note(f"history {seed}\n" + "\n".join(world.story))
            raise
    return world
