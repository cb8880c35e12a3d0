"""Origin of a result: versions, commit, hash of the code."""

import hashlib
import importlib.metadata
import platform
import subprocess
from typing import Any

from study import __version__
from study.base.paths import ROOT, is_checkout

PACKAGES = (
    "ray", "optuna", "torch", "mlflow", "hmmlearn", "librosa", "soundfile", "soxr", "numpy",
    "scipy", "scikit-learn", "pyarrow", "safetensors",
)  # fmt: skip


def git_commit() -> str:
    """Commit of the project, with "-dirty" if files differ from it; "unknown" outside git.

    It is also "unknown" for installed code: a repository around it is another project's.
    """
    if not is_checkout():
        return "unknown"
    try:
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}-dirty" if changed else commit


def code_hash() -> str:
    """Hash of all code that makes numbers: equal for equal code, in git or outside git.

    `ray up` copies the code without .git, so on a cluster only this hash identifies the code.
    """
    code = hashlib.sha256()
    for package in ("data_io", "models", "study"):
        for path in sorted((ROOT / package).rglob("*.py")):
            code.update(f"{path.relative_to(ROOT).as_posix()}\n".encode())
            code.update(hashlib.sha256(path.read_bytes()).digest())
    return code.hexdigest()


def _git(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def versions() -> dict[str, Any]:
    """Versions of the project, of Python and of every package that makes numbers."""
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"birdsong": __version__, "python": platform.python_version(), **packages}
