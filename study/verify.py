"""The check of a whole run folder: is every file of it as it was written? `birdsong verify RUN`."""

import errno
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_io.files import STORAGE_FULL, found, read_json
from study.base.console import Console, Progress
from study.base.errors import REFUSED, StudyError
from study.base.hashes import MISSING, UNREADABLE, compare, read_sealed, unreadable, walk
from study.base.ledger import not_done, read_record, undisturbed
from study.base.paths import SEARCH_BEFORE, RunPaths
from study.how_much.finished import not_of_study
from study.left_over import sort_unnamed
from study.search.trial_check import check_search
from study.tracking.sent import FOLDER

STAGES = ".stages"
KEPT = ".fits"  # of how much song
NAMED = 20  # files with a fault, or left over, that are named
AGAIN = "Give the study's command again"
_DELETE = "Nothing uses it: delete its record in .stages/."
# What nobody reads who makes a result: the lock, Optuna's view of the search (made anew at each
# start), and what is kept of a stage under way (all of it is checked when it is read).
_UNCHECKED = re.compile(rf"\.lock$|(search|{SEARCH_BEFORE}\d+)/optuna\.log|\.(hmm|reading)/")


class NoStudyError(StudyError):
    """There is no study in the folder."""

    exit_code = REFUSED


class UnreadableFolderError(StudyError):
    """A folder cannot be listed, so nobody knows which files there are."""

    exit_code = REFUSED


@dataclass
class Kind:
    """Files that are checked in one way, and mended in one way.

    Attributes:
        name: for the table.
        remedy: what to do where one is not as it was written.
        files: hashes by name, the path below the run folder.
        n_bytes: sizes by name.
        sealed: faults of files that were compared already, by name; "" for a whole one.
        faults: of ``files``, by name.
    """

    name: str
    remedy: str
    files: dict[str, str] = field(default_factory=dict)
    n_bytes: dict[str, int] = field(default_factory=dict)
    sealed: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """Names of all its files."""
        return {*self.files, *self.sealed}

    def all_faults(self) -> dict[str, str]:
        """What is wrong, by name."""
        return {**{name: fault for name, fault in self.sealed.items() if fault}, **self.faults}


def verify(run: Path, console: Console) -> bool:
    """Check every file of a run folder; print a table, and name what is not as it was written.

    Nothing is written or started.

    Args:
        run: folder of a study.
        console: shows progress and the table.

    Returns:
        Whether the study is finished and every file is as it was written.

    Raises:
        NoStudyError: there is no study in the folder.
        FolderInUseError: a study is writing to it.
        UnreadableFolderError: one of its folders cannot be listed.
    """
    paths = RunPaths(run)
    if not (paths.study.is_file() or paths.stages.is_dir()):
        raise NoStudyError(
            f"{run} is not the run folder of a study: it holds neither study.json nor .stages/. "
            "Give a folder that a study wrote to, for instance runs/demo."
        )
    try:
        with undisturbed(run):
            records, kinds = _compare(paths, console)
            unnamed = _unnamed(run, kinds)
    except OSError as error:
        if error.errno in (errno.EPIPE, *STORAGE_FULL):  # of the console: nothing else is written
            raise
        raise UnreadableFolderError(
            f"{error.filename or run} cannot be read ({error.strerror}): nothing is said of the "
            "study's files. Remove nothing: see to the disk, then give the command again."
        ) from error
    kinds = [kind for kind in kinds if kind.names]
    console.line(f"Folder    {run}")
    _show(kinds, console)
    faults = {name: fault for kind in kinds for name, fault in kind.all_faults().items()}
    for sentence, names in sort_unnamed(
        unnamed, paths, records.fault_of, faults, _names(kinds), AGAIN
    ).items():
        _name(sentence, names, console)
    unfinished = records.unfinished()
    if unfinished:
        console.line(unfinished)
    is_whole = not faults and not unfinished
    if is_whole:
        console.line("The study is finished, and every file is as it was written.")
    return is_whole


def _compare(paths: RunPaths, console: Console) -> tuple["Records", list[Kind]]:
    """Read every file."""
    console.note("reading records and the folders of trials")
    records = _records(paths)
    kinds = [*records.kinds, *_searches(paths, records.search), _sent(paths), _how_much(paths)]
    total = sum(len(kind.files) for kind in kinds)
    progress = Progress(console, total, "file read" if total == 1 else "files read")
    for kind in kinds:
        record = {"files": kind.files, "n_bytes": kind.n_bytes}
        kind.faults = compare(paths.root, record, then=lambda name: progress.advance()).faults
    return records, kinds


@dataclass
class Records:
    """What study.json and the records of the stages say.

    Attributes:
        own: these files.
        kinds: they, and the files that each stage wrote.
        wanted: the key of every stage of the study, as study.json has it; None without one.
        keys: of the records that can be used, by stage.
        search: hash of the search whose trials lie in search/; "" where no record says it.
    """

    own: Kind
    kinds: list[Kind]
    wanted: dict[str, str | None] | None
    keys: dict[str, str]
    search: str

    def fault_of(self, stage: str) -> str:
        """What is wrong with a stage's record; "" where nothing is, or the study has no such one.

        Without study.json nobody knows which stages the study has.
        """
        if stage in self.keys or (self.wanted is not None and stage not in self.wanted):
            return ""
        for name in (STAGES, f"{STAGES}/{stage}.json"):
            if fault := self.own.sealed.get(name):
                return f"{name} {fault}"
        return f"{STAGES}/{stage}.json {MISSING}"

    def unfinished(self) -> str:
        """A sentence about stages that are not done; "" where all are, or nobody can say."""
        if STAGES in self.own.sealed:
            return ""
        broken = {Path(name).stem for name, fault in self.own.sealed.items() if fault}
        left = [name for name in not_done(self.wanted or {}, self.keys) if name not in broken]
        return _unfinished(left, self.keys)


def _records(paths: RunPaths) -> Records:
    """All that the study and its stages wrote."""
    own = Kind("records", f"{AGAIN}: it is written anew; the stage of that name runs again.")
    others = Kind("records of others", f"The study has no stage of that name. {_DELETE}")
    study = _sealed(paths.root, paths.study, own)
    wanted = None if study is None else study["wanted"]
    stages: dict[str, Kind] = {}
    keys: dict[str, str] = {}
    search = ""
    for path in _listed(paths.root, paths.stages, "*.json", own):
        is_wanted = wanted is None or path.stem in wanted
        record = _sealed(paths.root, path, own if is_wanted else others, read_record)
        if record is not None:
            remedy = f"{AGAIN}: the stage {path.stem} runs again."
            if not is_wanted:
                remedy = f"The study has no stage {path.stem}. {_DELETE}"
            stages[path.stem] = Kind(path.stem, remedy, record["files"], record["n_bytes"])
            keys[path.stem] = record["key"]
            if path.stem == "trials":
                search = record["facts"].get("search", "")  # 0.11.1 did not write it
    kinds = [own, others]
    kinds += [stages[name] for name in sorted(stages, key=[*(wanted or {}), *stages].index)]
    return Records(own, kinds, wanted, keys, search)


def _listed(root: Path, folder: Path, pattern: str, kind: Kind) -> list[Path]:
    """What lies in a folder; one that cannot be listed is noted in ``kind``."""
    try:
        return found(folder, pattern)
    except OSError as error:
        kind.sealed[folder.relative_to(root).as_posix()] = unreadable(error)
        return []


def _unfinished(left: list[str], keys: dict[str, str]) -> str:
    """A sentence about stages that are not done, with and without a record; "" where all are."""
    missing = [name for name in left if name not in keys]
    of_another = [name for name in left if name in keys]
    faults = []
    if missing:
        faults.append(
            f"there is no record of {', '.join(missing)} (records are in .stages/, a hidden folder "
            "that belongs to the study)"
        )
    if of_another:
        faults.append(
            f"what there is of {', '.join(of_another)} is of another start than the one that "
            "study.json tells of, perhaps with other settings"
        )
    if not faults:
        return ""
    return f"The study is not finished: {'; '.join(faults)}. {AGAIN}: it goes on from there."


def _searches(paths: RunPaths, key: str) -> list[Kind]:
    """The folders of trials, of searches set aside as well; each file has a remedy of its own.

    Args:
        paths: of the run folder.
        key: hash of the search in use; "" where no record says it.
    """
    now = Kind("search", "a search that goes on needs them, the study's results do not.")
    before = Kind(
        "searches set aside", "they are taken back when their settings return. By the same command "
        "the one with those settings is meant.",
    )  # fmt: skip
    of_kind = [(now, paths.search), *((before, path) for path in paths.searches_before)]
    for kind, search in of_kind:
        for checked in check_search(search, key if kind is now else ""):
            name = checked.path.relative_to(paths.root).as_posix()
            told = f"{checked.fault}. {checked.remedy}".removesuffix(". ")
            kind.sealed[name] = told if checked.fault else ""
    return [now, before]


def _sent(paths: RunPaths) -> Kind:
    """The lists of what MLflow was sent, and the id of the folder, which every list holds, too."""
    kind = Kind(
        "sent to MLflow", f"Remove it. {AGAIN}: all is sent again, and nothing is there twice."
    )
    for path in _listed(paths.root, paths.tracking, "*.json", kind):
        _sealed(paths.root, path, kind)
    if paths.tracking.name in kind.sealed:
        return kind
    places = {Path(name).name: fault for name, fault in kind.sealed.items()}
    id_fault = places.pop(FOLDER, MISSING)
    lists_lost = any(_is_lost(fault) for fault in places.values())
    if _is_lost(id_fault) and lists_lost:
        kind.remedy = (
            f"The id by which MLflow's runs are found is lost with {FOLDER} and a list. Put one of "
            f"the two back from a copy, if there is one. Else remove them. {AGAIN}: all is sent a "
            "second time, to new runs; delete those of before in MLflow by hand."
        )
    return kind


def _is_lost(fault: str) -> bool:
    """Whether a file is not as it was written, and will not be."""
    return bool(fault) and not fault.startswith(UNREADABLE)


def _how_much(paths: RunPaths) -> Kind:
    """The answer of how much song, and the fits that are kept for the next."""
    kind = Kind("how much song", "Give the command how much song again: it is made anew.")
    record = _sealed(paths.root, paths.how_much_files, kind)
    if record is not None:
        kind.files, kind.n_bytes = record["files"], record["n_bytes"]
        kind.sealed = {name: not_of_study(paths) for name in kind.sealed}
    elif kind.sealed == {name: MISSING for name in kind.sealed}:
        kind.sealed.clear()  # the command was never given, or was stopped
    for path in _listed(paths.root, paths.how_much / KEPT, "*.json", kind):
        _sealed(paths.root, path, kind)
    return kind


def _sealed(
    root: Path, path: Path, kind: Kind, read: Callable[[Path], dict[str, Any] | None] = read_json
) -> dict[str, Any] | None:
    """Read sealed JSON, and note in ``kind`` what is wrong; None where it cannot be used."""
    content, kind.sealed[path.relative_to(root).as_posix()] = read_sealed(path, read)
    return content


def _names(kinds: list[Kind]) -> set[str]:
    return set().union(*(kind.names for kind in kinds))


def _unnamed(run: Path, kinds: list[Kind]) -> list[str]:
    """Names of files that are in no kind; folders that cannot be listed become a kind."""
    known = _names(kinds)
    folders = Kind("folders", "")

    def note(error: OSError) -> None:
        name = Path(error.filename).relative_to(run).as_posix()
        if name not in known:
            folders.sealed[name] = unreadable(error)

    files = [path.relative_to(run).as_posix() for path in walk(run, note)]
    kinds.append(folders)
    return [name for name in files if name not in known and not _UNCHECKED.match(name)]


def _show(kinds: list[Kind], console: Console) -> None:
    """Print the table, and every fault with its remedy."""
    rows: list[list[Any]] = []
    for kind in kinds:
        faults = kind.all_faults()
        n_missing, n_unread = (
            sum(fault.startswith(start) for fault in faults.values())
            for start in (MISSING, UNREADABLE)
        )
        n, n_altered = len(kind.names), len(faults) - n_missing - n_unread
        mega = round(sum(kind.n_bytes.values()) / 1e6, 1)
        rows.append([kind.name, n, mega, n - len(faults), n_altered, n_missing, n_unread])
    rows.append(["all", *(sum(row[i] for row in rows) for i in range(1, 7))])
    console.table(["kind", "files", "MB", "whole", "altered", "missing", "not read"], rows)
    unread: list[str] = []
    for kind in kinds:
        faults = kind.all_faults()
        lines = [f"{name} {fault}" for name, fault in faults.items() if _is_lost(fault)]
        unread += [f"{name} {fault}" for name, fault in faults.items() if not _is_lost(fault)]
        if lines:
            _name(f"{kind.name}: {kind.remedy}", lines, console)
    if unread:
        _name("Remove nothing: check again when the disk can be read.", unread, console)


def _name(head: str, lines: list[str], console: Console) -> None:
    console.line(head)
    for line in itertools.islice(lines, NAMED):
        console.line(f"  {line}")
    if len(lines) > NAMED:
        console.line(f"  and {len(lines) - NAMED:,} more")
