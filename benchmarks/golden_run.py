"""Are two runs of the same study equal? Compares tables, weights, models and songs, by hash.

python -m benchmarks.golden_run RUN              prints a hash for each file
python -m benchmarks.golden_run RUN OTHER_RUN    prints what differs; exit 1 where anything does

Times, hosts, ids of MLflow's runs and names of folders differ between runs of the same code: they
are left out of tables and JSON before a hash is taken. Files that only say how a study went
(study.json, report.html, logs) are not compared.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

# Columns and keys that say when and where, not what.
NOT_COMPARED = (
    "seconds", "node", "n_retries", "mlflow_run_id", "time/", "system/", "ended_at", "reported_at",
    "token",
)  # fmt: skip
PATTERNS = (
    "*.parquet", "reference.npz", "selection.json", "best/*", "decoders/**/*", "trials/*.png",
    "latents/**/*", "spectrograms/**/*", "hmm/**/*", "songs/**/*", "search/trial-*/trial.json",
    "search/trial-*/ended.json", "search/**/decoder/*", "simulated_birds/**/*",
)  # fmt: skip


def plain(value: Any) -> Any:
    """JSON content without what says when and where."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if not k.startswith(NOT_COMPARED)}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def content_hash(path: Path) -> str:
    """Hash of what a file says."""
    if path.suffix == ".parquet":
        table = pq.read_table(path, partitioning=None)
        names = [name for name in table.column_names if not name.startswith(NOT_COMPARED)]
        columns = {name: table[name].to_pylist() for name in sorted(names)}
        text = repr(columns).encode()
    elif path.suffix == ".npz":
        with np.load(path) as arrays:
            text = b"".join(name.encode() + arrays[name].tobytes() for name in sorted(arrays))
    elif path.suffix == ".json":
        text = json.dumps(plain(json.loads(path.read_text("utf-8"))), sort_keys=True).encode()
    else:
        text = path.read_bytes()
    return hashlib.sha256(text).hexdigest()


def hashes(run: Path) -> dict[str, str]:
    """Hash of every file that is compared, by its name in the run folder."""
    found = {path for pattern in PATTERNS for path in run.glob(pattern) if path.is_file()}
    return {path.relative_to(run).as_posix(): content_hash(path) for path in sorted(found)}


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
