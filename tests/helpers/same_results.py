"""Which results of two run folders differ: by what they say, not by when and where it was done."""

import functools
import hashlib
import io
import json

import numpy as np
import pyarrow.parquet as pq

# Columns and keys that say when and where, not what; a seal is a hash of these as well.
NOT_COMPARED = (
    "seconds", "node", "n_retries", "mlflow_run_id", "time/", "system/", "ended_at", "reported_at",
    "mtime_ns", "begun", "token", "seal",
)  # fmt: skip
# Files that only say how a study went (study.json, report.html, logs) are no results.
PATTERNS = (
    "*.parquet", "reference.npz", "selection.json", "best_held_out.json", "best/*",
    "decoders/**/*", "trials/*.png", "latents/**/*", "spectrograms/**/*", "hmm/**/*", "songs/**/*",
    "search/trial-*/trial.json", "search/trial-*/ended.json", "search/**/decoder/*",
    "simulated_birds/**/*",
)  # fmt: skip


def same_results(run, other):
    """Names of the result files of two run folders that differ, or that one alone has."""
    known, others = hashes(run), hashes(other)
    return sorted(
        name for name in known.keys() | others.keys() if known.get(name) != others.get(name)
    )


def hashes(run):
    """Hash of every result file of a run folder, by its name there."""
    found = {path for pattern in PATTERNS for path in run.glob(pattern) if path.is_file()}
    return {path.relative_to(run).as_posix(): content_hash(path) for path in sorted(found)}


def content_hash(path):
    """Hash of what a file says."""
    return _content_hash(path.suffix, path.read_bytes())


@functools.lru_cache(1000)
def _content_hash(suffix, content):
    if suffix == ".parquet":
        table = pq.ParquetFile(io.BytesIO(content)).read(use_threads=False)
        names = [name for name in table.column_names if not name.startswith(NOT_COMPARED)]
        columns = {name: table[name].to_pylist() for name in sorted(names)}
        text = repr(columns).encode()
    elif suffix == ".npz":
        with np.load(io.BytesIO(content)) as arrays:
            text = b"".join(name.encode() + arrays[name].tobytes() for name in sorted(arrays))
    elif suffix == ".json":
        text = json.dumps(plain(json.loads(content)), sort_keys=True).encode()
    else:
        text = content
    return hashlib.sha256(text).hexdigest()


def plain(value):
    """JSON content without what says when and where."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if not k.startswith(NOT_COMPARED)}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value
