"""Who made a result: versions, commit, code."""

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
    """Commit of the project, "-dirty" behind it where files differ; "unknown" outside of git.

    Also where the code is installed: a repository around it would be another project's.
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
    """Hash of all code that makes numbers: the same for the same code, in git or outside of it.

    `ray up` copies the code and not .git, so that on a cluster nothing else tells one from another.
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
