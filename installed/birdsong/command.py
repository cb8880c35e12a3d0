"""The installed commands: the same as the scripts of a checkout.

birdsong --preset demo          is  python study/run_tune.py --preset demo
birdsong how-much runs/demo     is  python study/how_much_song.py runs/demo
birdsong-fetch NAME --out DIR   is  python study/fetch_model.py NAME --out DIR
"""

import sys

from study.base.stopping import listen


def study() -> int:
    """Run a study, or tell how much song one needs; give the exit code."""
    listen()
    if sys.argv[1:2] == ["how-much"]:
        from study.how_much_song import main as how_much

        return how_much(sys.argv[2:])
    from study.run_tune import main

    return main(sys.argv[1:])


def fetch() -> int:
    """Fetch a registered decoder; give the exit code."""
    listen()
    from study.fetch_model import main

    return main(sys.argv[1:])
