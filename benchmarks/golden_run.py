"""Are two runs of the same study equal? Compares tables, weights, models and songs, by hash.

python -m benchmarks.golden_run RUN              prints a hash for each file
python -m benchmarks.golden_run RUN OTHER_RUN    prints what differs; exit 1 where anything does

Times, hosts, ids of MLflow's runs and names of folders differ between runs of the same code: they
are left out of tables and JSON before a hash is taken. Files that only say how a study went
(study.json, report.html, logs) are not compared.
"""

import argparse
import sys
from pathlib import Path

from tests.helpers.same_results import hashes


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("other", type=Path, nargs="?")
    options = parser.parse_args()
    known = hashes(options.run)
    if options.other is None:
        for name, sha256 in known.items():
            print(f"{sha256[:16]}  {name}")
        return
    others = hashes(options.other)
    same = [name for name in known if known[name] == others.get(name)]
    print(f"{len(same)} of {len(known.keys() | others.keys())} files are equal")
    for name in sorted(known.keys() | others.keys()):
        if name not in others:
            print(f"only in {options.run}: {name}")
        elif name not in known:
            print(f"only in {options.other}: {name}")
        elif known[name] != others[name]:
            print(f"differs: {name}")
    if len(same) < len(known.keys() | others.keys()):
        sys.exit(1)


if __name__ == "__main__":
    main()
