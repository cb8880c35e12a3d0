"""The same searches by our E-step and by hmmlearn's: both times, and whether they choose alike."""

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

from data_io.recordings import BirdAge
from models.hmm import HmmParams
from models.hmm.params import Engine
from study.base.console import Console, format_seconds
from study.hmms.fan_out import FanOut, Latents
from study.hmms.journal import Journal
from study.hmms.work import SEARCH


@dataclasses.dataclass(frozen=True)
class Side:
    """All searches by one engine.

    Attributes:
        wall_s: seconds from the first task to the last.
        cpu_s: seconds of CPU of all tasks.
        n_states: chosen for every bird and age; None where there is no model.
    """

    wall_s: float
    cpu_s: float
    n_states: dict[BirdAge, int | None]


def compare_engines(
    latents: Latents,
    seed: int,
    params: HmmParams,
    folder: Path,
    console: Console,
    max_tasks: int | None = None,
) -> dict[str, Any]:
    """Time all searches by both engines, and show what came of it.

    Ours are done again too, on the worker processes that are there by now: those of the stage
    itself may have come from the journal, and started the processes. Nothing of it is kept.

    Args:
        latents: of all birds and ages.
        seed: of the study.
        params: of the searches.
        folder: to write to meanwhile.
        console: shows progress and result.
        max_tasks: that run at once.

    Returns:
        Facts for study.json.
    """
    console.note("the same searches again by either engine, to compare their times")
    ours = _side(latents, seed, params, "ours", folder, console, max_tasks)
    theirs = _side(latents, seed, params, "hmmlearn", folder, console, max_tasks)
    with_model = [p for p in latents.sizes if ours.n_states[p] or theirs.n_states[p]]
    other = [p for p in with_model if ours.n_states[p] != theirs.n_states[p]]
    console.table(
        ["engine", "wall time", "CPU time"],
        [[name, format_seconds(side.wall_s), format_seconds(side.cpu_s)]
         for name, side in (("ours", ours), ("hmmlearn", theirs))],
    )  # fmt: skip
    wall_ratio, cpu_ratio = theirs.wall_s / ours.wall_s, theirs.cpu_s / ours.cpu_s
    console.note(f"hmmlearn takes {wall_ratio:.1f} times as long, {cpu_ratio:.1f} times the CPU")
    console.note(
        f"the same number of states for {len(with_model) - len(other)} of {len(with_model)} birds "
        "and ages"
    )
    for bird, age in other:
        numbers = ours.n_states[bird, age], theirs.n_states[bird, age]
        console.note(f"{bird} {age}: {numbers[0]} by ours, {numbers[1]} by hmmlearn")
    return {
        "compared_engines": {
            "wall_s": {"ours": round(ours.wall_s, 3), "hmmlearn": round(theirs.wall_s, 3)},
            "cpu_s": {"ours": round(ours.cpu_s, 3), "hmmlearn": round(theirs.cpu_s, 3)},
            "wall_ratio": round(wall_ratio, 3),
            "cpu_ratio": round(cpu_ratio, 3),
            "n_compared": len(with_model),
            "n_agreeing": len(with_model) - len(other),
            "disagreeing": [
                {"bird": p[0], "age": p[1], "ours": ours.n_states[p],
                 "hmmlearn": theirs.n_states[p]}
                for p in other
            ],
        }
    }  # fmt: skip


def _side(
    latents: Latents,
    seed: int,
    params: HmmParams,
    engine: Engine,
    folder: Path,
    console: Console,
    max_tasks: int | None,
) -> Side:
    params = dataclasses.replace(params, engine=engine, compare_engines=False)
    with tempfile.TemporaryDirectory(prefix=".engines.", dir=folder) as scratch:
        journal = Journal(Path(scratch), engine, console)
        fan_out = FanOut(latents, seed, params, journal, console, max_tasks)
        began = time.monotonic()
        fan_out.run(f"birds and ages, {engine}")
        wall_s = time.monotonic() - began
        found = {piece: journal.read(piece, SEARCH).found or {} for piece in latents.sizes}
    return Side(wall_s, fan_out.cpu_seconds, {p: row.get("n_states") for p, row in found.items()})
