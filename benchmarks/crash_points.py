"""Does a study survive a power cut at every change of its run folder?

python -m benchmarks.crash_points                         every point of a first study
python -m benchmarks.crash_points --scenario again        of one that replaces an earlier result
python -m benchmarks.crash_points --every 20 --first 7    every 20th state, from the 7th on
python -m benchmarks.crash_points --stage trials          states of one stage

The study runs in one process, without Ray; MLflow is one in memory, as it was at the point. Before
every create, rename, removal and sync below the run folder, up to five states are noted in which a
kill or a power cut could leave it (tests/helpers/crash_disk.py). Each different one is built, and
the same command is given again. One in --whole states is followed to the end, the others through
the stage that was cut off and the next. Where the command ends with an error, its remedy is
followed and must give equal results. Pictures are not drawn: a few bytes stand for each.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

for name in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{name}_NUM_THREADS", "1")

from tests.helpers.crash_points import in_table, record, recover, run_whole
from tests.helpers.crash_study import SCENARIOS


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", choices=SCENARIOS, default="first")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--stage", action="append", help="of the point; may be given several times")
    parser.add_argument("--whole", type=int, default=20)
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), help="a fast folder")
    options = parser.parse_args()
    there = Path(tempfile.mkdtemp(prefix="crash-points-", dir=options.memory))
    try:
        sys.exit(1 if _run(options, there) else 0)
    finally:
        shutil.rmtree(there)


def _run(options: argparse.Namespace, there: Path) -> int:
    """Record, recover and print; give the number of wrong states."""
    folder = there / "disk"
    folder.mkdir()
    before, words = SCENARIOS[options.scenario](folder / "run", there)
    run_whole(SCENARIOS[options.scenario](there / "warm", there)[1])
    if before:
        run_whole(before, there / "mlflow")
    recorded = record(folder, words, there / "mlflow")
    chosen = [
        i for i in range(options.first, len(recorded.states), options.every)
        if not options.stage or recorded.first[i][0].stage in options.stage
    ]  # fmt: skip
    print(f"{len(recorded.points)} points, {len(recorded.states)} different states, of which "
          f"{len(chosen)} are tried", flush=True)  # fmt: skip
    verdicts, started = {}, time.monotonic()
    for n, i in enumerate(chosen):
        verdicts[i] = recover(recorded, i, folder, words, n % options.whole == 0)
        verdict, why = verdicts[i]
        if verdict != "equal":
            point, kind = recorded.first[i]
            print(f"state {i} ({kind}; {point.stage}; {point.event} by {point.writer}): {verdict}\n"
                  f"    {why}", flush=True)  # fmt: skip
        if n % 100 == 99:
            print(f"{n + 1} states in {time.monotonic() - started:.0f} s", flush=True)
    _show(recorded, verdicts)
    print(f"{time.monotonic() - started:.0f} s")
    return sum(verdict == "wrong" for verdict, _ in verdicts.values())


def _show(recorded, verdicts) -> None:  # type: ignore[no-untyped-def]
    rows, kinds = in_table(recorded, verdicts)
    columns = ("points", "states", "equal", "said", "wrong")
    heads = ["said, then equal" if name == "said" else name for name in columns]
    print("\n| stage | written by | " + " | ".join(heads) + " |")
    print("|---|---|" + "---|" * len(columns))
    for (stage, writer), row in rows.items():
        print(f"| {stage} | {writer} | " + " | ".join(str(row[name]) for name in columns) + " |")
    total = [sum(row[name] for row in rows.values()) for name in columns]
    print("| all | | " + " | ".join(map(str, total)) + " |")
    print("\n| state | states | equal | said, then equal | wrong | a finished stage was lost |")
    print("|---|---|---|---|---|---|")
    for kind, row in kinds.items():
        n_lost = sum(point.n_lost[kind] > 0 for point in recorded.points)
        print(f"| {kind} | " + " | ".join(str(n) for n in row.values()) + f" | {n_lost} |")


if __name__ == "__main__":
    main()
