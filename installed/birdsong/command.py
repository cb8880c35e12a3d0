"""The installed commands: the same as the scripts of a checkout.

birdsong --preset demo          is  python study/run_tune.py --preset demo
birdsong-fetch NAME --out DIR   is  python study/fetch_model.py NAME --out DIR
"""

import sys


def study() -> int:
    """Run a study; give the exit code."""
    from study.run_tune import main

    return main(sys.argv[1:])


def fetch() -> int:
    """Fetch a registered decoder; give the exit code."""
    from study.fetch_model import main

    return main(sys.argv[1:])
