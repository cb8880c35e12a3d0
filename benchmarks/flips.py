"""Is an altered file of a study ever used? One bit is flipped, and the same command given again.

    python -m benchmarks.flips                       every kind of file, 20 flips of each
    python -m benchmarks.flips --flips 2 hmm trial   kinds whose names hold one of these words
    python -m benchmarks.flips --moments             the finished study alone

A tiny study is stopped at five moments and then finished. For each kind of file that its folders
hold at any of these moments, and for the recordings, a bit at a random place of one file is
flipped, its times kept, and the same command is given, in a process of its own, without Ray and
with MLflow in memory. Equal: the results are those of the untouched study; healed where the command
named the file or wrote it anew, harmless where nothing comes of the bit. Refused: the command names
the file and a remedy, which is followed each time and must give equal results. All else is wrong,
and shown.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # a process that forks has one thread

from tests.helpers.flips import MOMENTS, Flips  # noqa: E402


def main() -> None:
    """Flip, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flips", type=int, default=20, help="of each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--moments", nargs="*", default=list(MOMENTS), choices=list(MOMENTS),
                        help="when the study is stopped, beside the finished one")  # fmt: skip
    parser.add_argument("words", nargs="*", help="of kinds; all where none is given")
    options = parser.parse_args()
    started = time.monotonic()
    total = dict.fromkeys(("flips", "healed", "harmless", "refused", "wrong"), 0)
    with tempfile.TemporaryDirectory(prefix="flips-") as name:
        flips = Flips(Path(name) / "study", tuple(options.moments))
        kinds = [kind for kind in flips.kinds()
                 if not options.words or any(word in kind for word in options.words)]  # fmt: skip
        print(f"{'kind':52} {'  '.join(total)}")
        for kind in kinds:
            tally = flips.flip(kind, options.flips, options.seed)
            row = (tally.n, tally.healed, tally.harmless, tally.refused, len(tally.wrong))
            for what, n in zip(total, row, strict=True):
                total[what] += n
            cells = "  ".join(f"{n:{len(what)}}" for what, n in zip(total, row, strict=True))
            print(f"{kind:52} {cells}  {tally.said[:160]}", flush=True)
            for wrong in tally.wrong:
                print(f"    WRONG {wrong}", flush=True)
    print(f"{len(kinds)} kinds: {', '.join(f'{n} {what}' for what, n in total.items())}; "
          f"{time.monotonic() - started:.0f} s")  # fmt: skip
    sys.exit(1 if total["wrong"] else 0)


if __name__ == "__main__":
    main()
