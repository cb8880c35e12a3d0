"""Stop a tiny study at every stage in every way, and see that nothing false is left.

    python -m benchmarks.stops                    all ways, all stages: an hour on 2 cores
    python -m benchmarks.stops --ways SIGTERM scancel --seed 3

For each way one run folder: the same command is started again and again, and stopped at every stage
in turn, at a random time in it; then it runs to its end. It prints one line for each stop: exit
code, seconds from the signal to the end of the command, what it said, processes that were left,
MLflow runs that were left RUNNING. At the end of each way: result files that differ from those of a
study that nobody stopped, and MLflow's runs beside that study's. `scancel` is SIGTERM to every
process of the command, `closed terminal` the end of the terminal that it runs in.
"""

import argparse
import random
import re
import sys
import tempfile
import time
from pathlib import Path

from tests.helpers.same_results import same_results
from tests.helpers.stops import WAYS, Command, n_running, n_runs

TITLE = r"^\[\d+/\d+\] "
END = "^Best "


def main() -> None:
    """Stop, go on, compare; print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="stops-") as name:
        folder = Path(name)
        reference, lasts = unstopped(folder / "unstopped")
        n_wrong = sum(stop_everywhere(way, folder, lasts, reference, rng) for way in options.ways)
    print(f"{n_wrong} stops or results are not as they should be")
    sys.exit(n_wrong > 0)


def unstopped(out: Path) -> tuple[Command, dict[str, tuple[str, float]]]:
    """A study that nobody stops; give the words and the seconds of each moment of it."""
    out.mkdir()
    command, began = Command(out), time.monotonic()
    times = {"imports": began}
    while command.process.poll() is None:
        for line in command.text.splitlines():
            if re.match(f"^Results |{TITLE}|{END}|.*again with", line):
                times.setdefault(line.strip(), time.monotonic())
        time.sleep(0.01)
    assert command.ended().code == 0, command.text
    names = [*times, ""]
    ends = [*list(times.values())[1:], time.monotonic()]
    print(f"unstopped: {ends[-1] - began:.0f} s")
    return command, {
        name: (re.escape(name) if name != "imports" else "", end - times[name])
        for name, end in zip(names, ends, strict=False)
    }


def stop_everywhere(
    way: str, folder: Path, lasts: dict[str, tuple[str, float]], reference: Command,
    rng: random.Random,
) -> int:  # fmt: skip
    """Stop a study in one way at every moment, then let it end; how much is wrong."""
    out = folder / way.replace(" ", "-")
    out.mkdir()
    n_wrong = 0
    print(f"\n{way}\n{'moment':28}code  seconds  said                 left  RUNNING")
    for moment, (words, lasts_s) in lasts.items():
        command = Command(out, has_terminal=way == "closed terminal")
        command.wait_for(words)
        time.sleep(rng.uniform(0.0, 0.7) * lasts_s)
        ended = command.stopped(way)
        running = n_running(out)
        said = "; ".join(ended.sentences) or "-"
        # A terminal that is closed hears nothing any more.
        is_said = way == "closed terminal" or len(ended.sentences) == 1
        is_right = (
            ended.code == WAYS[way] and ended.seconds < 15.0 and is_said and ended.is_clean
            and not ended.left and not running
        )  # fmt: skip
        n_wrong += not is_right
        print(f"{moment[:27]:28}{ended.code:4}  {ended.seconds:7.1f}  {said:20} {len(ended.left):4}"
              f"  {running:7}{'' if is_right else '  WRONG'}", flush=True)  # fmt: skip
        if not is_right:
            print(f"{ended.left}\n{ended.text[-3000:]}")
    ended = Command(out).ended()
    differ = same_results(reference.run, out / "run")
    counts = n_runs(out), n_runs(reference.out)
    print(f"then to its end: exit code {ended.code}, {len(differ)} result files differ, "
          f"{counts[0]} MLflow runs (unstopped {counts[1]}), {n_running(out)} RUNNING")  # fmt: skip
    for name in differ:
        print(f"    {name}")
    return n_wrong + (ended.code != 0) + len(differ) + (counts[0] != counts[1])


if __name__ == "__main__":
    main()
