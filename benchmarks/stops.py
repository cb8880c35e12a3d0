"""Stop a tiny study at every stage in every way, and see that nothing false is left.

    python -m benchmarks.stops                    all ways, all stages: an hour on 2 cores
    python -m benchmarks.stops --ways SIGTERM scancel --seed 3

For each way one run folder: the same command is started again and again, and stopped at every stage
in turn, at a random time in it; then it runs to its end. It prints one line for each stop: exit
code, seconds from the signal to the end of the command, what it said, processes that were left,
MLflow runs that were left RUNNING, and the stage that had begun last. At the end of each way:
result files that differ from those of a study that nobody stopped, and MLflow's runs beside that
study's. `scancel` is SIGTERM to every process of the command, `closed terminal` the end of the
terminal that it runs in.
"""

import argparse
import os
import random
import re
import sys
import tempfile
import time
from pathlib import Path

# Before numpy is imported: as the commands have it, or the last bits of the results differ.
os.environ["OMP_NUM_THREADS"] = "1"

from data_io.files import read_json  # noqa: E402
from study.base.ledger import not_done  # noqa: E402
from tests.helpers.inline_ray import inline_command  # noqa: E402
from tests.helpers.memory_mlflow import MemoryMlflow  # noqa: E402
from tests.helpers.same_results import same_results  # noqa: E402
from tests.helpers.stops import TINY, WAYS, Command, Ended, n_running, n_runs  # noqa: E402

# What the command says as each begins, and how long it takes at least.
MOMENTS = {
    "imports": ("", 0.6),
    "Ray starts": ("^Results ", 3.0),
    "preflight": ("^Results ", 8.0),
    "simulated birds": (r"^\[.*\] simulated birds$", 0.4),
    "recordings": (r"^\[.*\] recordings$", 1.5),
    "trials": (r"^\[.*\] trials$", 10.0),
    "fresh seeds": ("again with", 8.0),
    "trial figures": (r"^\[.*\] trial figures$", 2.0),
    "latents": (r"^\[.*\] latents$", 1.0),
    "hmm": (r"^\[.*\] hmm$", 1.5),
    "checks": (r"^\[.*\] checks$", 1.5),
    "songs": (r"^\[.*\] songs$", 1.0),
    "report": (r"^\[.*\] report$", 1.0),
    "the end": ("^Best:", 1.0),
}


def main() -> None:
    """Stop, go on, compare; print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="stops-") as name:
        folder, mlflow = Path(name), MemoryMlflow()
        words = ["--preset", "smoke", "--out", str(folder / "unstopped"), *TINY]
        code, text = inline_command(words, mlflow)
        assert code == 0, text
        print(f"unstopped: {len(mlflow.runs)} MLflow runs", flush=True)
        n_wrong = sum(
            stop_everywhere(way, folder, folder / "unstopped", len(mlflow.runs), rng)
            for way in options.ways
        )
    print(f"\n{n_wrong} stops or results are not as they should be")
    sys.exit(n_wrong > 0)


def stop_everywhere(way: str, folder: Path, whole: Path, n_whole: int, rng: random.Random) -> int:
    """Stop a study in one way at every moment, then let it end; how much is wrong."""
    out = folder / way.replace(" ", "-")
    out.mkdir()
    n_wrong = 0
    print(f"\n{way}\n{'moment':18}code  seconds  said                 left  RUNNING  began last",
          flush=True)  # fmt: skip
    for moment, (words, lasts_s) in MOMENTS.items():
        command = Command(out, has_terminal=way == "closed terminal")
        if not command.wait_for(words):
            ended = command.ended()
            n_wrong += ended.code != 0
            print(f"{moment:18}{ended.code:4}  was over before{_wrong(ended.code == 0, ended)}",
                  flush=True)  # fmt: skip
            continue
        time.sleep(rng.uniform(0.0, lasts_s))
        ended = command.stopped(way)
        running = n_running(out)
        said = "; ".join(ended.sentences) or "-"
        # A terminal that is closed hears nothing any more.
        is_said = way == "closed terminal" or len(ended.sentences) == 1
        is_right = (
            ended.code == WAYS[way] and ended.seconds < 15.0 and is_said and ended.is_clean
            and not ended.left and not running
        )  # fmt: skip
        if ended.code == 0 and ended.seconds < 15.0 and is_finished(out / "run"):
            # The signal came behind the end.
            is_right, said = not running and not ended.left, "finished"
        n_wrong += not is_right
        print(f"{moment:18}{ended.code:4}  {ended.seconds:7.1f}  {said:20} {len(ended.left):4}"
              f"  {running:7}  {last_stage(ended.text)}{_wrong(is_right, ended)}",
              flush=True)  # fmt: skip
    ended = Command(out).ended()
    differ = same_results(whole, out / "run")
    print(f"then to its end: exit code {ended.code}, {len(differ)} result files differ, "
          f"{n_runs(out)} MLflow runs (unstopped {n_whole}), {n_running(out)} RUNNING")  # fmt: skip
    for name in differ:
        print(f"    {name}")
    return n_wrong + (ended.code != 0) + len(differ) + (n_runs(out) != n_whole)


def last_stage(text: str) -> str:
    """Name of the stage that a command began last; "-" where it began none."""
    return (re.findall(r"^\[\d+/\d+\] (.+)$", text, re.MULTILINE) or ["-"])[-1]


def is_finished(run: Path) -> bool:
    """Whether every stage is done as the last start wanted it."""
    study = read_json(run / "study.json")
    records = {path.stem: read_json(path) or {} for path in (run / ".stages").glob("*.json")}
    keys = {name: record["key"] for name, record in records.items()}
    return study is not None and "report" in keys and not not_done(study["wanted"], keys)


def _wrong(is_right: bool, ended: Ended) -> str:
    """What is shown behind the line of a stop that is not as it should be."""
    return "" if is_right else f"  WRONG\n{ended.left}\n{ended.text[-3000:]}"


if __name__ == "__main__":
    main()
