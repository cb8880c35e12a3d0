"""The command that tells how much song a bird and age needs.

python study/how_much_song.py runs/demo
python study/how_much_song.py runs/mine --seeds 10
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

# Started as a script, Python looks for modules in study/; our packages lie one folder up.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from study.base.stopping import listen

if __name__ == "__main__":
    listen()  # what is imported below takes a second

from study.base.command import run_command
from study.base.console import Console
from study.base.private import keep_compiled_code

keep_compiled_code()


def main(words: list[str] | None = None) -> int:
    """Answer from command-line words, those of the process where none are given.

    Returns:
        The exit code.
    """
    options = _parser().parse_args(words)
    return run_command(lambda console: _main(options, console))


def _main(options: argparse.Namespace, console: Console) -> int:
    from study.how_much.answer import answer  # Ray takes a second to import

    subsamples = range(options.first_seed, options.first_seed + options.seeds)
    answer(options.run.absolute(), subsamples, options.address, console)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="how_much_song",
        description="How much song does a bird and age need? Fits HMMs to all its song, half of "
        "it, a quarter, ... and says from where on more song changes little. It writes to "
        "RUN/how_much_song/.",
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="run folder of a finished study")
    parser.add_argument(
        "--seeds", metavar="N", type=_between(2, 1000), default=5,
        help="random subsamples of each amount (default 5)",
    )  # fmt: skip
    parser.add_argument(
        "--first-seed", metavar="N", type=_between(0, 10**6), default=0,
        help="number of the first subsample (default 0): other numbers are other subsamples",
    )  # fmt: skip
    parser.add_argument(
        "--address", metavar="ADDR", default=os.environ.get("RAY_ADDRESS") or None,
        help="a running Ray cluster, or auto; left out: RAY_ADDRESS, else Ray on this machine",
    )  # fmt: skip
    return parser


def _between(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a whole number from {least} to {most:,}"
            )
        return int(text)

    return number


if __name__ == "__main__":
    sys.exit(main())
