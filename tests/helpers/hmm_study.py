"""The HMM stage of a made-up study, with its tasks in this process."""

import random
import weakref
from io import StringIO
from types import SimpleNamespace

import numpy as np

from data_io.files import write_json
from data_io.latents import write_latents
from data_io.recordings.table import Recording, Recordings
from data_io.snippets import SnippetParams
from data_io.store import read_table
from study.base.console import Console
from study.base.paths import RunPaths
from study.config.tree import StudyConfig
from study.hmms import ages, fan_out, shared, task
from study.hmms.ages import AGES
from study.hmms.shared import SHARED
from study.hmms.stage import find_n_states
from study.hmms.tables import GRID, SELECTED


def write_study(root, birds_and_ages, n_recordings=4, n_snippets=40, n_kinds=3, latent_dim=3):
    """Latents of simple made-up birds; gives the paths and the recordings."""
    paths, recordings = RunPaths(root), []
    for i, (bird, age) in enumerate(birds_and_ages):
        rng = np.random.default_rng(i)
        kinds = rng.normal(0, 2.5, (n_kinds, latent_dim))
        latents = []
        for j in range(n_recordings):
            states = rng.integers(n_kinds, size=n_snippets // 4).repeat(4)
            z = kinds[states] + rng.normal(size=(len(states), latent_dim))
            name = f"{bird}/{age}/songs/{j}.wav"
            latents.append((name, z.astype(np.float32), np.ones(len(z), np.float32)))
            dph = int(age) if age.isdigit() else None
            recordings.append(Recording(bird, age, dph, None, name, n_frames=1, split="training"))
        write_latents(paths.latents, bird, age, latents, 0.064, latent_dim, {})
    whitening = {"mean": [0.0] * latent_dim, "std": [1.0] * latent_dim}
    write_json(paths.whitening, whitening)
    return paths, Recordings.from_rows(recordings)


TASKS = {
    "shared_states_task": shared.shared_states_task._function,
    "shared_model_task": shared.shared_model_task._function,
    "matched_task": ages.matched_task._function,
    "ages_task": ages.ages_task._function,
}


def _later(function):
    return lambda *args: lambda: function(*args)


class KilledError(Exception):
    """The study ends here."""


class Here:
    """The tasks in this process, in an order of its own, up to a kill.

    Args:
        monkeypatch: puts it in the place of Ray.
        order_seed: of the order in which tasks end; None for that in which they are handed out.
        kill_after: results that arrive before the study is killed.

    Attributes:
        done: birds and ages whose search came back, in that order.
        n_back: results of all kinds of tasks that came back.
        before: the model that each search was given to start from.
        most_held: latents of birds and ages that were in memory at a time.
    """

    def __init__(self, monkeypatch, order_seed=None, kill_after=None):
        self.done, self.before = [], {}
        self.most_held = 0
        self._held = []
        self._order = None if order_seed is None else random.Random(order_seed)
        self._kill_after = kill_after
        self.n_back = 0
        monkeypatch.setattr(fan_out, "search_task", SimpleNamespace(remote=self._submitted))
        for module, name in (
            (shared, "shared_states_task"), (shared, "shared_model_task"), (ages, "matched_task"),
            (ages, "ages_task"),
        ):  # fmt: skip
            monkeypatch.setattr(module, name, SimpleNamespace(remote=_later(TASKS[name])))

    def _submitted(self, bird_age, sequences, *rest):
        self._held.append(weakref.ref(sequences[0]))
        self.most_held = max(self.most_held, self.n_held())
        self.before[bird_age] = rest[-1]
        return lambda: task.search_task._function(bird_age, sequences, *rest)

    def n_held(self):
        """Birds and ages whose latents are in memory."""
        return sum(one() is not None for one in self._held)

    def run(self, submit, work, on_result, describe):
        """As `study.cluster.tasks.TaskRunner.run`."""
        waiting = list(work)
        under_way = []
        while waiting or under_way:
            while waiting and len(under_way) < 4:
                one = waiting.pop(0)
                under_way.append((one, submit(one)))
            if self._kill_after is not None and self.n_back == self._kill_after:
                raise KilledError
            i = self._order.randrange(len(under_way)) if self._order else 0
            one, search = under_way.pop(i)
            self.n_back += 1
            if submit.__qualname__.startswith("FanOut"):
                self.done.append(one)
            waiting = [*(on_result(one, search()) or ()), *waiting]
            del search


def run(paths, recordings, params, here, key="latents", hop=16):
    """The stage with the tasks of ``here``; gives selected rows and what was printed.

    Snippets of 16 frames lie ``hop`` frames apart.
    """
    text = StringIO()
    config = StudyConfig(hmm=params, snippets=SnippetParams(hop=hop))
    selected = find_n_states(config, recordings, paths, Console(text), key, here)
    return selected, text.getvalue()


def tables(paths):
    """All tables without the seconds, and every song model's arrays."""
    grid = read_table(paths.hmm_grid, schema=GRID).to_pylist()
    for row in grid:
        assert row.pop("seconds") is not None
    models = {p.relative_to(paths.hmm): p.read_bytes() for p in sorted(paths.hmm.rglob("*.npz"))}
    others = [
        read_table(path, schema=schema).to_pylist()
        for path, schema in (
            (paths.hmm_selected, SELECTED), (paths.hmm_ages, AGES), (paths.hmm_shared, SHARED),
        )
        if path.exists()
    ]  # fmt: skip
    return grid, *others, models
