"""A command that is cut off at every change of its run folder, and given again.

`record` runs a command once, watched by `tests.helpers.crash_disk`, and notes every state in which
a kill or a power cut could leave the run folder. `recover` builds one of them and gives the same
command again. A state is *equal* where the results are then those of the command that was not cut
off; *said* where the command ends with an error of ours, and its remedy leads to equal results;
and *wrong* otherwise.

A command that goes on is followed through the stage that was cut off and the next one: if their
results are equal, what comes after depends on nothing else. ``whole`` follows it to its end.
"""

import functools
import hashlib
import json
import pickle
import shutil
import signal
import sys
import traceback
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from unittest import mock

import matplotlib.pyplot as plt
import torch

from models.mdgan.pca import fit_pca
from study.base.ledger import Ledger
from study.base.paths import ROOT
from tests.helpers.crash_disk import KINDS, Disk, build, watch
from tests.helpers.inline_ray import forked, inline_command
from tests.helpers.memory_mlflow import MemoryMlflow
from tests.helpers.remedies import follow, sentences
from tests.helpers.same_results import hashes

LONGEST_S = 300
START, END = "start", "end"
_OURS = tuple(f"{ROOT / folder}/" for folder in ("study", "models", "data_io"))


@dataclass
class Point:
    """A change that was about to be made.

    Attributes:
        stage: under way; START before the first, END after the last.
        writer: file and function that made it.
        event: of the audit hook.
        states: index by kind.
        mlflow: index of MLflow's runs.
        n_lost: by kind, stages done whose record the state has not.
    """

    stage: str
    writer: str
    event: str
    states: dict[str, int] = field(default_factory=dict)
    mlflow: int = 0
    n_lost: dict[str, int] = field(default_factory=dict)


@dataclass
class Recorded:
    """A command that was watched.

    Attributes:
        points: in order.
        states: different trees.
        first: the point and kind at which each state was first met.
        blobs: content of files by hash.
        mlflow: MLflow's runs, pickled.
        stages: names in order.
        after: hashes of results after each stage, and at the END.
    """

    points: list[Point] = field(default_factory=list)
    states: list = field(default_factory=list)
    first: list[tuple[Point, str]] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    mlflow: list[bytes] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    after: dict[str, dict[str, str]] = field(default_factory=dict)


class _Enough(BaseException):  # noqa: N818
    """The stages that matter are done."""


def _draw_nothing(figure, to, *args, **settings):
    if hasattr(to, "write"):
        to.write("<svg></svg>")
    else:
        with open(to, "wb") as file:  # noqa: PTH123
            file.write(b"picture")


@functools.cache
def _fitted(content, shape, *args):
    return fit_pca(torch.frombuffer(bytearray(content), dtype=torch.float32).view(shape), *args)


def _fit_once(snippets, *args):
    """`fit_pca`, which takes most of the time of a small study."""
    return _fitted(snippets.numpy().tobytes(), tuple(snippets.shape), *args)


CHEAP = {
    "matplotlib.figure.Figure.savefig": _draw_nothing,
    "study.report.trial_figures.decoder_figure": lambda *args: plt.figure(),
    "models.metrics.reference.fit_pca": _fit_once,
    "models.metrics.songs.fit_pca": _fit_once,
    "models.metrics.measure.N_FITS": 1,
    "study.base.stopping.cause.__defaults__": (0.0,),  # no process of Ray's can have failed
}


@contextmanager
def _stages(before, after):
    """Call ``before(name)`` and ``after(name)`` around every stage; no picture is drawn."""
    run = Ledger.run

    def watched(ledger, name, *args, **kwargs):
        before(name)
        done = run(ledger, name, *args, **kwargs)
        after(name)
        return done

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(Ledger, "run", watched))
        for name, value in CHEAP.items():
            stack.enter_context(mock.patch(name, value))
        yield


def run_whole(words, keep=None):
    """Run the command unwatched, in this process; MLflow's runs go to the file ``keep``.

    What a process has loaded and compiled, its children need not: one study here saves them more
    than half of their time.
    """
    memory = MemoryMlflow()
    with _stages(lambda name: None, lambda name: None):
        code, text = inline_command(words, memory)
    assert code == 0, text
    if keep is not None:
        keep.write_bytes(memory.pickled())


def record(folder, words, keep):
    """Run the command in a child and give a `Recorded`.

    Args:
        folder: is watched; the run folder, ``run``, lies or will lie in it.
        words: of the command.
        keep: file with MLflow's runs of an earlier command; there need be none.
    """
    found = folder.with_name(folder.name + ".recorded")

    def work():
        recorded, memory = Recorded(), _memory(keep.read_bytes() if keep.exists() else None)
        disk, at, known, runs = Disk(folder, recorded.blobs), [START], {}, {}
        done = set(recorded_stages(disk.states()["as it is"]))

        def at_point(event):
            point = Point(at[0], _writer(), event)
            content = memory.pickled()
            point.mlflow = runs.setdefault(content, len(runs))
            for kind, tree in disk.states().items():
                name = hashlib.sha256(repr(tree).encode()).digest()
                if name not in known:
                    known[name] = len(recorded.states)
                    recorded.states.append(tree)
                    recorded.first.append((point, kind))
                point.states[kind] = known[name]
                point.n_lost[kind] = len(done - set(recorded_stages(tree)))
            recorded.points.append(point)

        def before(name):
            at[0] = name
            done.discard(name)
            recorded.stages.append(name)

        def after(name):
            done.add(name)
            recorded.after[name] = hashes(folder / "run")
            at[0] = END if name == "report" else name

        watch(disk, at_point)
        with _stages(before, after):
            code, text = inline_command(words, memory)
        at_point("end")
        assert code == 0, text
        recorded.after[END] = hashes(folder / "run")
        recorded.mlflow = list(runs)
        found.write_bytes(pickle.dumps(recorded))

    assert forked(work) == 0
    recorded = pickle.loads(found.read_bytes())
    found.unlink()
    hashes(folder / "run")  # those of equal files are known from now on
    return recorded


def recorded_stages(tree):
    """Names of the stages whose record is in a tree."""
    return [
        path.rpartition("/")[2].removesuffix(".json") for path, entry in tree
        if path.startswith("run/.stages/") and entry is not None and entry[1]
        and not path.rpartition("/")[2].startswith(".")
    ]  # fmt: skip


def _writer():
    """File and function of ours that change the disk, without the helper that all use."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_OURS) and not name.endswith("data_io/files.py"):
            return f"{name.removeprefix(f'{ROOT}/')} {frame.f_code.co_name}"
        frame = frame.f_back
    return "-"


def _memory(runs):
    memory = MemoryMlflow()
    if runs is not None:
        memory.runs = pickle.loads(runs)
    return memory


def recover(recorded, i, folder, words, whole=False):
    """Build state ``i`` in ``folder``, give the command again; give verdict and what was wrong."""
    point, _ = recorded.first[i]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    build(recorded.states[i], recorded.blobs, folder)
    said = folder.with_name(folder.name + ".said")
    said.unlink(missing_ok=True)
    names = recorded.stages
    # Of the stage that was cut off, and the next: the first stage after them is not begun.
    last = names.index(point.stage) + 1 if point.stage in names else 1
    until = len(names) if whole or point.stage == END else min(last, len(names) - 1)

    def work():
        signal.alarm(LONGEST_S)
        memory = _memory(recorded.mlflow[point.mlflow])

        def before(name):
            if until + 1 < len(names) and name == names[until + 1]:
                raise _Enough

        def given():
            try:
                with _stages(before, lambda name: None):
                    code, text = inline_command(words, memory)
            except _Enough:
                return _compared(hashes(folder / "run"), recorded.after[names[until]])
            except Exception:
                return "wrong", traceback.format_exc()
            return _judged(code, text, folder, memory, recorded.after[END])

        verdict, why = given()
        if verdict == "said":
            verdict, why = after_remedy(why, given)
        said.write_text(json.dumps((verdict, why)))

    code = forked(work)
    if code or not said.exists():
        return "wrong", f"the process ended with {code}"
    verdict, why = json.loads(said.read_text())
    return verdict, why


def after_remedy(error, given):
    """Do what an error says; give the verdict and what was wrong.

    Args:
        error: of the command.
        given: gives the same command again; verdict and what was wrong.
    """
    sentence = sentences(error)[-1]
    if not (follow(sentence) or "same command" in sentence):
        return "wrong", f"{error}\nIt says no remedy that can be followed."
    verdict, why = given()
    if verdict == "equal":
        return "said", error
    return "wrong", f"{error}\nAfter its remedy: {verdict}, {why}"


def _judged(code, text, folder, memory, wanted):
    if code:
        lines = text.splitlines()
        errors = [i for i, line in enumerate(lines) if line.startswith("error: ")]
        why = "\n".join(lines[errors[-1] :]) if errors else text[-2000:]
        return ("said" if errors else "wrong"), why
    runs = [(run.name, run.tags["study_run_id"]) for run in memory.runs.values()]
    if doubled := sorted({name for name, of in runs if runs.count((name, of)) > 1}):
        return "wrong", f"MLflow has twice: {', '.join(doubled)}"
    if open_runs := [run.name for run in memory.runs.values() if run.status == "RUNNING"]:
        return "wrong", f"MLflow has still open: {', '.join(open_runs)}"
    return _compared(hashes(folder / "run"), wanted)


def _compared(found, wanted):
    if found == wanted:
        return "equal", ""
    names = sorted(n for n in found.keys() | wanted.keys() if found.get(n) != wanted.get(n))
    return "wrong", f"{len(names)} files differ: {', '.join(names[:6])}"


def in_table(recorded, verdicts):
    """Rows of points and verdicts by stage and writer; then by kind of state.

    Args:
        recorded: a `Recorded`.
        verdicts: by index of the state.
    """
    rows = {}
    for point in recorded.points:
        key = (point.stage, point.writer)
        row = rows.setdefault(key, {"points": 0, "states": 0, "equal": 0, "said": 0, "wrong": 0})
        row["points"] += 1
    kinds = {kind: {"states": 0, "equal": 0, "said": 0, "wrong": 0} for kind in KINDS}
    for i, (verdict, _) in verdicts.items():
        point, kind = recorded.first[i]
        for row in (rows[point.stage, point.writer], kinds[kind]):
            row["states"] += 1
            row[verdict] += 1
    return rows, kinds
