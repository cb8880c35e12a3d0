"""Every file of a search compared with its seal or its hash; nothing is changed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_io.files import digest, found
from study.base.errors import MOVE_AWAY
from study.base.hashes import MISSING, UNREADABLE, read_sealed, unreadable
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
_MOVE = "Move the folder {path} to another place: no result of this study is made of it."
ANOTHER = "is of another search than the study's"
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


def check_search(search: Path, key: str = "") -> Iterator[CheckedFile]:
    """Check search.json and the folders of all trials and repeats in the folder of a search.

    Args:
        search: the folder.
        key: hash of the search's parts that its trials should be of; where it is not known, they
            are compared with search.json.
    """
    content, fault = read_sealed(search / SEARCH)
    of = digest(content) if content is not None else ""
    if key and of and of != key:
        yield CheckedFile(search / SEARCH, ANOTHER, _WRITTEN)
    elif fault != MISSING:  # it is written anew, without a word
        yield _checked(search / SEARCH, fault, _WRITTEN)
    for folder in (search, search / REPEATS):
        try:
            trials = found(folder, "trial-*")
        except OSError as error:
            yield _checked(folder, unreadable(error), "")
            continue
        for path in trials:
            try:
                if has_begun(path):
                    yield from check_trial(path, key or of)
            except OSError as error:  # of the folder; those of files were said of each
                yield _checked(path, unreadable(error), "")


def check_trial(path: Path, key: str = "") -> Iterator[CheckedFile]:
    """Check the files of one trial's folder.

    Args:
        path: the folder.
        key: hash of the parts of the search that it should be of; "" where that is not known.

    Raises:
        OSError: the folder cannot be read.
    """
    trial = TrialFolder(path)
    anew = _ANEW.format(trial=path)
    for name, remedy in _RECORDS.items():
        content, fault = read_sealed(path / name)
        if name == "trial.json" and key and content is not None and content.get("search") != key:
            yield CheckedFile(path / name, ANOTHER, _MOVE.format(path=path))
        elif fault != MISSING or name == "trial.json":
            yield _checked(path / name, fault, remedy.format(trial=path))
    for checkpoint in trial.checkpoints():
        for file, fault in hashed_files(checkpoint / CHECKPOINT):
            yield _checked(file, fault, _BEFORE)
    if trial.decoder.is_dir():
        for file, fault in hashed_files(trial.decoder / "model.json"):
            yield _checked(file, fault, anew)
        path = trial.decoder / BY_BIRD_AGE
        yield _checked(path, read_sealed(path)[1], anew)


def _checked(path: Path, fault: str, remedy: str) -> CheckedFile:
    has_own = fault.startswith(UNREADABLE) or MOVE_AWAY in fault
    return CheckedFile(path, fault, "" if has_own else remedy)
