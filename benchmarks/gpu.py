"""What one GPU does with a training, in eight minutes: how fast, how shared, how exact.

python benchmarks/gpu.py [--pool FRAMES.npz] [--out gpu.json] [--minutes 8]
python benchmarks/gpu.py --cpu-smoke      every section in tiny form on a CPU: no measurement

It needs numpy, torch, scipy, scikit-learn and safetensors, and models/ beside it; no Ray and no
network. Each section is a process of its own with a deadline: what a section gave before it failed
or its time was over stays, and is written to --out after each. At the end it says in words what a
trial of the preset `full` costs and what to set.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, from any folder

import torch

from benchmarks import gpu_sections
from benchmarks.gpu_bench import RECIPES, WAYS, Batch, Bench, read_frames
from models.mdgan.model import Mdgan

Row = dict[str, Any]
Results = dict[str, dict[str, Any]]

N_TRAININGS = 57  # of `full`: 48 trials, and 3 candidates again with 3 fresh seeds; a test compares
RUN_S = 5.0  # that several processes train at once
WORSE = 0.02  # share by which another way may reconstruct worse than float32
START_S = 60.0  # for all of them to begin
# Section, and its deadline in seconds at --minutes 8.
DEADLINES = {
    "facts": 40, "steps": 70, "inputs": 40, "ways": 130, "processes": 100, "determinism": 50,
    "reports": 40,
}  # fmt: skip


def processes(bench: Bench) -> Iterator[Row]:
    """Throughput and memory of several trainings of `full` on one card."""
    for way, counts in (("off", (1, 2, 4, 8)), ("cuda_graphs", (1, 4))):
        for n in counts[: len(counts) // 2] if bench.is_tiny else counts:
            with tempfile.TemporaryDirectory() as folder:
                yield {"compilation": way, "n": n, **_together(bench, way, n, Path(folder))}


def _together(bench: Bench, way: str, n: int, folder: Path) -> Row:
    before = _used_gb(bench)
    command = [*_command(bench), "--worker", str(folder), "--compilation", way]
    workers = [subprocess.Popen([*command, "--number", str(i)]) for i in range(n)]
    try:
        return _row_of(bench, workers, folder, before)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()  # its memory is free once it is gone: the next ones are counted then


def _row_of(
    bench: Bench, workers: list[subprocess.Popen[bytes]], folder: Path, before: float | None
) -> Row:
    n, began = len(workers), time.monotonic()
    while len(list(folder.glob("ready-*"))) < n:
        if any(worker.poll() for worker in workers) or time.monotonic() - began > START_S:
            return {"error": f"not all of {n} processes began (memory is too small, or too slow)"}
        time.sleep(0.05)
    used = _used_gb(bench)
    (folder / "go").touch()
    for worker in workers:
        worker.wait()
    rows = [json.loads(path.read_text()) for path in folder.glob("done-*")]
    if len(rows) < n:
        return {"error": f"{n - len(rows)} of {n} processes failed"}
    return {
        "snippets_per_s": sum(row["snippets_per_s"] for row in rows),
        "gb_each": (used - before) / n if used is not None and before is not None else None,
        # What gpus_per_trial=auto would measure, if the training were alone.
        "gb_by_auto": rows[0]["held_gb"] - before if n == 1 and before is not None else None,
    }


def _used_gb(bench: Bench) -> float | None:
    """Memory of the card that anybody uses, with a context of this process."""
    if bench.device != "cuda":
        return None
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 1e9


def work(bench: Bench, folder: Path, number: int, compilation: str) -> None:
    """One of several trainings: begin, wait for all others, train, and say how fast."""
    params = bench.params("full", compilation=compilation)
    model, batch = Mdgan(params, 16, 0, bench.device), bench.batches(params)
    # The last steps of a training take most memory: `gpus_per_trial=auto` measures these.
    _begin(bench, model, batch, params.n_snippets - 8 * params.batch_size)
    held = None
    if bench.device == "cuda":
        # As study/cluster/gpu_memory.py counts it.
        free, total = torch.cuda.mem_get_info()
        context = total - free - torch.cuda.memory_reserved()
        held = (context + torch.cuda.max_memory_reserved()) / 1e9
    (folder / f"ready-{number}").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    _begin(bench, model, batch, 0)  # most steps of a training are of this kind
    n, began = 0, time.perf_counter()
    while time.perf_counter() - began < (0.2 if bench.is_tiny else RUN_S):
        model.train_step(*batch())
        n += params.batch_size
        if n % (20 * params.batch_size) == 0:
            bench.wait()  # or the CPU runs ahead of the clock
    bench.wait()
    row = {"snippets_per_s": n / (time.perf_counter() - began), "held_gb": held}
    temporary = folder / f"part-{number}"
    temporary.write_text(json.dumps(row))
    temporary.rename(folder / f"done-{number}")


def _begin(bench: Bench, model: Mdgan, batch: Batch, snippets_seen: int) -> None:
    """The first steps from some point of a training on, up to a recorded one and beyond."""
    model.snippets_seen = snippets_seen
    for _ in range(8):
        model.train_step(*batch())
    bench.wait()


SECTIONS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "facts": gpu_sections.facts,
    "steps": gpu_sections.steps,
    "inputs": gpu_sections.inputs,
    "ways": gpu_sections.ways,
    "processes": processes,
    "determinism": gpu_sections.determinism,
    "reports": gpu_sections.reports,
}


def _command(bench: Bench) -> list[str]:
    pool = ["--pool", str(bench.pool)] if bench.pool else []
    return [sys.executable, __file__, *(["--cpu-smoke"] if bench.is_tiny else []), *pool]


def run_section(bench: Bench, name: str, deadline_s: float) -> dict[str, Any]:
    """Rows of a section, and how it ended; its process is killed at the deadline, with its own."""
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as told, tempfile.TemporaryFile("w+") as complaints:
        child = subprocess.Popen(
            [*_command(bench), "--section", name],
            stdout=told,
            stderr=complaints,
            start_new_session=True,
        )
        try:
            code = child.wait(deadline_s)
            ended = "whole" if code == 0 else f"failed (exit {code})"
        except subprocess.TimeoutExpired:
            ended = f"its {deadline_s:.0f} s were over"
        finally:  # also after Ctrl-C, which does not reach a session of its own
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        told.seek(0)
        complaints.seek(0)
        # A row that was cut off has no end of line.
        rows = [json.loads(line) for line in told if line.endswith("\n") and line[0] == "{"]
        is_faulty = ended.startswith("failed") or any("error" in row for row in rows)
        last_words = complaints.read()[-2000:] if is_faulty else ""
    seconds = time.monotonic() - began
    return {"ended": ended, "seconds": seconds, "rows": rows, "last_words": last_words}


def summary(results: Results) -> list[str]:
    """What a trial of `full` costs, and what to set, in words; only what was measured."""
    steps = {
        row["kind"]: row["ms"]
        for row in results["steps"]["rows"]
        if (row["recipe"], row["compilation"]) == ("full", RECIPES["full"].compilation)
    }
    # The first evaluation is the device's: of two of a name the earlier one stays.
    rows = reversed(results["reports"]["rows"])
    at_report = {row["what"].split(" on ")[0]: row["s"] for row in rows}
    lines = []
    params = RECIPES["full"]
    if len(steps) == 2 and len(at_report) == 2:
        n_steps, late = params.n_snippets / params.batch_size, 1 - params.adversarial_from
        first, then = steps["reconstruction"], steps[params.order]
        training = n_steps * ((1 - late) * first + late * then) / 60_000
        measuring = params.n_reports * sum(at_report.values()) / 60
        lines.append(
            f"A trial of `full` alone on this device: {training:.1f} min of steps and "
            f"{measuring:.1f} min of reports. {N_TRAININGS} trainings, one after the other: "
            f"{N_TRAININGS * (training + measuring) / 60:.1f} h."
        )
    together = [row for row in results["processes"]["rows"] if "snippets_per_s" in row]
    alone = [row for row in together if (row["n"], row["compilation"]) == (1, "off")]
    if alone:
        best = max(together, key=lambda row: row["snippets_per_s"])
        lines.append(
            f"Most snippets a second: {best['n']} trainings at once, mdgan.compilation="
            f"{best['compilation']}: {best['snippets_per_s']:,.0f}, "
            f"{best['snippets_per_s'] / alone[0]['snippets_per_s']:.2f} times one alone."
        )
    sound = [row for row in results["ways"]["rows"] if row["recipe"] == "full" and "loss" in row]
    for row in sound:
        speed = row["reconstruction_snippets_per_s"] / sound[0]["reconstruction_snippets_per_s"]
        lines.append(
            f"{row['way']}: {speed:.2f} times as fast as {sound[0]['way']}, "
            f"L1 after {gpu_sections.LOSS_STEPS} steps {row['loss']:.4f} against "
            f"{sound[0]['loss']:.4f}."
        )
    for row in results["determinism"]["rows"]:
        if "is_equal" in row:
            lines.append(f"{row['question']}: {'equal' if row['is_equal'] else 'NOT equal'}.")
    return lines + advice(sound, together)


def advice(ways: list[Row], together: list[Row]) -> list[str]:
    """What to set for `full`: the fastest way that learns as float32 does and can be repeated."""
    if not ways or ways[0]["way"] != "float32":
        return []
    good = [
        row for row in ways
        if row["loss"] < (1 + WORSE) * ways[0]["loss"] and "free to choose" not in row["way"]
    ]  # fmt: skip
    best = max(good, key=lambda row: row["reconstruction_snippets_per_s"])
    settings = [f"mdgan.{name}={str(value).lower()}" for name, value in WAYS[best["way"]].items()]
    sharing = [
        row for row in together if row["compilation"] == WAYS[best["way"]].get("compilation", "off")
    ]
    if sharing:
        n = max(sharing, key=lambda row: row["snippets_per_s"])["n"]
        settings.append(f"resources.gpus_per_trial={1 / n:g}")
    return [f"Set, after this card alone: {' '.join(settings) or 'nothing'}"]


def main(bench: Bench, out: Path, minutes: float) -> int:
    """Run all sections; 1 where one did not end whole."""
    if bench.is_tiny:
        print("On a CPU, in tiny form: this tests the script and measures nothing.", flush=True)
    results: Results = {}
    for name, seconds in DEADLINES.items():
        results[name] = run_section(bench, name, seconds * minutes / 8)
        out.write_text(json.dumps({"is_measurement": not bench.is_tiny, **results}, indent=1))
        print(f"\n{name}: {results[name]['ended']} after {results[name]['seconds']:.0f} s")
        for row in results[name]["rows"]:
            print("  " + ", ".join(f"{key} {_short(value)}" for key, value in row.items()))
        print(results[name]["last_words"], end="", flush=True)
    if bench.is_tiny:
        print("\nThe words below come from tiny networks on a CPU. They say nothing of a GPU.")
    print("\n" + "\n".join(summary(results)))
    return int(any(section["ended"] != "whole" for section in results.values()))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--pool", type=Path, help=".npz with frames [n, 129], starts, and has_sound [n] if known"
    )
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--minutes", type=float, default=8.0, help="for all sections together")
    parser.add_argument("--cpu-smoke", action="store_true")
    for hidden in ("--section", "--worker", "--compilation", "--number"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    given = _arguments()
    here = Bench("cpu" if given.cpu_smoke else "cuda", given.cpu_smoke, given.pool)
    if given.cpu_smoke:
        torch.set_num_threads(1)
    elif not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} finds no GPU. On a CPU there is only --cpu-smoke.")
    if given.worker:
        work(here, Path(given.worker), int(given.number), given.compilation)
    elif given.section:
        for made in SECTIONS[given.section](here):
            print(json.dumps(made), flush=True)
    else:
        if not given.out.resolve().parent.is_dir():
            sys.exit(f"{given.out.resolve().parent} is no folder: give --out in one that exists.")
        if given.pool:
            try:
                read_frames(given.pool)  # or each section would find the same fault
            except ValueError as fault:
                sys.exit(str(fault))
        sys.exit(main(here, given.out, given.minutes))
