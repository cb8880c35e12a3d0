"""Every file of a search compared with its seal or its hash; nothing is changed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from study.base.hashes import UNREADABLE, read_sealed, unreadable
from study.base.paths import REPEATS
from study.search.trial_folder import (
    BY_BIRD_AGE,
    CHECKPOINT,
    SEARCH,
    TrialFolder,
    has_begun,
    hashed_files,
)

_ANEW = "Remove the folder {trial}: the same command then trains this trial anew."
_WRITTEN = "Delete it: the same command writes it anew."
_BEGUN = (
    "Delete it: ended.json beside it says the same, and a trial that has not ended writes it anew."
)
_BEFORE = "The same command sets this checkpoint aside and goes on from the one before."
_RECORDS = {
    "trial.json": _ANEW,
    "ended.json": _ANEW,
    "begun.json": _BEGUN,
    "owner.json": _WRITTEN,
}


@dataclass(frozen=True)
class CheckedFile:
    """A file that was compared with its seal or its hash.

    Attributes:
        path: of the file.
        fault: what is wrong with it, as in "was altered"; "" where it is as it was written.
        remedy: what to do then; "" where it cannot be read for now.
    """

    path: Path
    fault: str = ""
    remedy: str = ""


def check_search(search: Path) -> Iterator[CheckedFile]:
    """Check search.json and the folders of all trials and repeats in the folder of a search."""
    if (search / SEARCH).exists():
        yield _sealed(search / SEARCH, _WRITTEN)
    for folder in (search, search / REPEATS):
        for path in sorted(folder.glob("trial-*")):
            try:
                if has_begun(path):
                    yield from check_trial(path)
            except OSError as error:  # of the folder; those of files were said of each
                yield _checked(path, unreadable(error), "")


def check_trial(path: Path) -> Iterator[CheckedFile]:
    """Check the files of one trial's folder.

    Raises:
        OSError: the folder cannot be read.
    """
    trial = TrialFolder(path)
    anew = _ANEW.format(trial=path)
    for name, remedy in _RECORDS.items():
        if (path / name).exists() or name == "trial.json":
            yield _sealed(path / name, remedy.format(trial=path))
    for checkpoint in trial.checkpoints():
        for file, fault in hashed_files(checkpoint / CHECKPOINT):
            yield _checked(file, fault, _BEFORE)
    if trial.decoder.is_dir():
        for file, fault in hashed_files(trial.decoder / "model.json"):
            yield _checked(file, fault, anew)
        yield _sealed(trial.decoder / BY_BIRD_AGE, anew)


def _sealed(path: Path, remedy: str) -> CheckedFile:
    return _checked(path, read_sealed(path)[1], remedy)


def _checked(path: Path, fault: str, remedy: str) -> CheckedFile:
    return CheckedFile(path, fault, "" if fault.startswith(UNREADABLE) else remedy)
