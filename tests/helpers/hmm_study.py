"""The HMM stage of a made-up study, with its tasks in this process."""

import random
import weakref
from io import StringIO
from types import SimpleNamespace

import numpy as np

from data_io.files import write_json
from data_io.recordings import Recording
from data_io.store import read_table, write_latents
from study.base.console import Console
from study.base.paths import RunPaths
from study.config.tree import StudyConfig
from study.hmms import fan_out as hmm_fan_out
from study.hmms import stage as hmm_grid
from study.hmms.tables import GRID, SELECTED
from study.hmms.work import (
    Work,
)


def write_study(root, pieces, n_recordings=4, n_snippets=40, n_kinds=3, latent_dim=3):
    """Latents of simple made-up birds; gives the paths and the recordings."""
    paths, recordings = RunPaths(root), []
    for i, (bird, age) in enumerate(pieces):
        rng = np.random.default_rng(i)
        kinds = rng.normal(0, 2.5, (n_kinds, latent_dim))
        latents = []
        for j in range(n_recordings):
            states = rng.integers(n_kinds, size=n_snippets // 4).repeat(4)
            z = kinds[states] + rng.normal(size=(len(states), latent_dim))
            name = f"{bird}/{age}/songs/{j}.wav"
            latents.append((name, z.astype(np.float32)))
            dph = int(age) if age.isdigit() else None
            recordings.append(Recording(bird, age, dph, None, name, n_frames=1, split="train"))
        write_latents(paths.latents, bird, age, latents, 0.064, latent_dim, {})
    whitening = {"mean": [0.0] * latent_dim, "std": [1.0] * latent_dim}
    write_json(paths.whitening, whitening)
    return paths, recordings


class KilledError(Exception):
    """The study ends here."""


class Stored(list):
    """In the object store for as long as there is a reference."""

    __hash__ = object.__hash__


class Here:
    """The tasks in this process, in an order of its own, up to a kill.

    Args:
        monkeypatch: puts it in the place of Ray.
        order_seed: of the order in which tasks end; None for that in which they are handed out.
        kill_after: results that arrive before the study is killed.
    """

    def __init__(self, monkeypatch, order_seed=None, kill_after=None):
        self.done: list[Work] = []
        self.calls: list[tuple] = []
        self.n_put = self.most_stored = 0
        self.stored: weakref.WeakSet = weakref.WeakSet()
        self._order = None if order_seed is None else random.Random(order_seed)
        self._kill_after = kill_after
        for name in ("search_task", "fits_task", "conclusion_task"):
            function = getattr(hmm_fan_out, name)
            function = getattr(function, "_function", function)
            monkeypatch.setattr(hmm_fan_out, name, self._stand_in(name, function))
        monkeypatch.setattr(hmm_fan_out, "ray", SimpleNamespace(put=self._put))
        monkeypatch.setattr(hmm_fan_out, "n_cores", lambda: 2)
        monkeypatch.setattr(
            hmm_fan_out, "TaskRunner", lambda max_tasks: SimpleNamespace(run=self._run)
        )

    def _stand_in(self, name, function):
        def remote(*args):
            self.calls.append((name, sum(map(len, args[0])), *args[1:]))
            self.most_stored = max(self.most_stored, len(self.stored))
            return lambda: function(*args)

        # `_function` lets a second Here take the place of the first.
        return SimpleNamespace(remote=remote, _function=function)

    def _put(self, value):
        self.n_put += 1
        value = Stored(value)
        self.stored.add(value)
        return value

    def _run(self, submit, work, on_result, describe):
        waiting = list(work)
        under_way = []
        while waiting or under_way:
            while waiting and len(under_way) < 4:
                piece = waiting.pop(0)
                under_way.append((piece, submit(piece)))
            if self._kill_after is not None and len(self.done) == self._kill_after:
                raise KilledError
            i = self._order.randrange(len(under_way)) if self._order else 0
            piece, task = under_way.pop(i)
            self.done.append(piece)
            waiting = [*(on_result(piece, task()) or ()), *waiting]


def run(paths, recordings, params, key="latents"):
    """The stage; gives selected rows and what was printed."""
    text = StringIO()
    config = StudyConfig(hmm=params)
    selected, _ = hmm_grid.run_grid(config, recordings, paths, Console(text), key)
    return selected, text.getvalue()


def tables(paths):
    """Both tables without the seconds, and every chosen model's arrays."""
    grid = read_table(paths.hmm_grid, schema=GRID).to_pylist()
    for row in grid:
        assert row.pop("seconds") is not None
    models = {p.relative_to(paths.hmm): p.read_bytes() for p in sorted(paths.hmm.rglob("*.npz"))}
    return grid, read_table(paths.hmm_selected, schema=SELECTED).to_pylist(), models
