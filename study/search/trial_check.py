"""Every file of a search compared with its seal or its hash; nothing is changed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_io.files import BrokenSealError, file_sha256, read_json
from study.base.paths import RunPaths
from study.search.trial_folder import BY_BIRD_AGE, CHECKPOINT, SEARCH, TrialFolder, has_begun

_ANEW = "Remove the folder {trial}: the same command then trains this trial anew."
_WRITTEN = "Delete it: the same command writes it anew."
_BEFORE = "The same command sets this checkpoint aside and goes on from the one before."
_RECORDS = {
    "trial.json": _ANEW,
    "ended.json": _ANEW,
    "begun.json": _WRITTEN,
    "owner.json": _WRITTEN,
}


@dataclass(frozen=True)
class CheckedFile:
    """A file that was compared with its seal or its hash.

    Attributes:
        path: of the file.
        fault: what is wrong with it, as in "was altered"; "" where it is as it was written.
        remedy: what to do then.
    """

    path: Path
    fault: str = ""
    remedy: str = ""


def check_search(paths: RunPaths) -> Iterator[CheckedFile]:
    """Check search.json and the folders of all trials and repeats."""
    search = paths.search / SEARCH
    if search.exists():
        yield _sealed(search, _WRITTEN)[0]
    for folder in (paths.search, paths.repeats_folder):
        for path in sorted(folder.glob("trial-*")):
            if has_begun(path):
                yield from check_trial(path)


def check_trial(path: Path) -> Iterator[CheckedFile]:
    """Check the files of one trial's folder."""
    trial = TrialFolder(path)
    anew = _ANEW.format(trial=path)
    for name, remedy in _RECORDS.items():
        if (path / name).exists() or name == "trial.json":
            yield _sealed(path / name, remedy.format(trial=path))[0]
    for checkpoint in trial.checkpoints():
        yield from _hashed(checkpoint / CHECKPOINT, _BEFORE)
    if trial.decoder.is_dir():
        yield from _hashed(trial.decoder / "model.json", anew)
        yield _sealed(trial.decoder / BY_BIRD_AGE, anew)[0]


def _sealed(path: Path, remedy: str) -> tuple[CheckedFile, Mapping[str, Any]]:
    """A file of sealed JSON, and its content."""
    try:
        content = read_json(path)
    except BrokenSealError as error:
        return CheckedFile(path, error.why, remedy), {}
    if content is None:
        return CheckedFile(path, "is missing", remedy), {}
    return CheckedFile(path), content


def _hashed(path: Path, remedy: str) -> Iterator[CheckedFile]:
    """A file of sealed JSON, and the files of its folder whose hashes it holds."""
    checked, content = _sealed(path, remedy)
    yield checked
    for name, sha256 in content.get("sha256", {}).items():
        file = path.with_name(name)
        if not file.exists():
            yield CheckedFile(file, "is missing", remedy)
        elif file_sha256(file) != sha256:
            yield CheckedFile(file, f"was altered (it has not the hash in {path.name})", remedy)
        else:
            yield CheckedFile(file)
