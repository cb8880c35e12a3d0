"""Kill a study again and again, and count what is left: nothing lost, nothing there twice.

    python -m benchmarks.chaos                     8 trials, 20 kills of workers, 10 of the driver
    python -m benchmarks.chaos --workers 2 --drivers 1 --trials 3

Kills are SIGKILL, at random times: of one process of a trial, or of the command with its Ray. It
prints one line per kill (how long until a trial was at work again) and the counts at the end.
"""

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path

from tests.helpers.chaos import Chaos, count


def main() -> None:
    """Run the chaos and print what is left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--workers", type=int, default=20, help="kills of a trial's process")
    parser.add_argument("--drivers", type=int, default=10, help="kills of the command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("overrides", nargs="*", help="key=value")
    options = parser.parse_args()
    usual = {
        "mdgan.n_snippets": 96000, "mdgan.n_reports": 12, "search.grace_reports": 12,
        "search.max_retries": options.workers,
    }  # fmt: skip
    given = {override.partition("=")[0] for override in options.overrides}  # twice is refused
    overrides = [f"{key}={value}" for key, value in usual.items() if key not in given]
    overrides += options.overrides
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        chaos = Chaos(Path(name), options.trials, overrides, random.Random(options.seed))
        code = chaos.run(options.workers, options.drivers)
        print(f"exit code {code}")
        if code:
            print((chaos.folder / "log").read_text()[-3000:])
            sys.exit(1)
        print(json.dumps(count(chaos), indent=2))
        for what, times in (("worker", chaos.after_worker), ("driver", chaos.after_driver)):
            if times:
                mean = sum(times) / len(times)
                print(f"a trial at work again after a kill of a {what}: longest "
                      f"{max(times):.1f} s, mean {mean:.1f} s of {len(times)}")  # fmt: skip


if __name__ == "__main__":
    main()
