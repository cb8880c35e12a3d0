"""Files of a run folder that no record names: whose they are by their names, and why."""

from collections.abc import Callable
from pathlib import PurePosixPath

from study.base.console import count
from study.base.hashes import UNREADABLE
from study.base.paths import SEARCH_BEFORE, RunPaths

Groups = dict[str, list[str]]  # names of files by a sentence about them


def sort_unnamed(
    names: list[str],
    paths: RunPaths,
    stage_fault: Callable[[str], str],
    faults: dict[str, str],
    known: set[str],
    again: str,
) -> Groups:
    """Say of files without a hash whether a stage, a trial or how much song wrote them.

    Args:
        names: of the files, below the run folder.
        paths: of the run folder.
        stage_fault: what is wrong with the record of a stage; "" where nothing is, or where the
            study has no such stage.
        faults: what is wrong with files that were compared, by name.
        known: names of these, whole ones as well.
        again: how a sentence about what the study's command does begins.

    Returns:
        Names by sentence; those of nobody come last.
    """
    of: dict[str, list[str]] = {}
    for name in names:
        of.setdefault(_owner(name, paths, stage_fault, faults, known), []).append(name)
    last = of.pop("", [])
    groups: Groups = {}
    for owner in sorted(of):
        n, them = len(of[owner]), "it" if len(of[owner]) == 1 else "they"
        if owner in _OTHERS:
            whose, why, remedy = _OTHERS[owner]
        else:
            whose, why = f"the stage {owner}", f"its record {stage_fault(owner)}"
            remedy = "{again}: the stage runs again."
            if UNREADABLE in why:
                remedy = "Check again when the disk can be read."
        names_say = "its name" if n == 1 else "their names"
        head = f"{count(n, 'file')} of {whose}, by {names_say}: {why}, so "
        head += f"{them} cannot be compared. " + remedy.format(again=again)
        groups[head] = _roots(of[owner], 2 if owner == "search" else 1)
    if last:
        n = len(last)
        them = "it" if n == 1 else "them"
        head = f"{count(n, 'file', 'is/are')} left over: no record names {them}, and no result is "
        groups[head + f"made of {them}:"] = last
    return groups


def _roots(names: list[str], depth: int) -> list[str]:
    """The files, or their folders ``depth`` levels below the run folder."""
    shown = (("/".join(name.split("/")[:depth]), name) for name in names)
    return list(dict.fromkeys(root if root == name else f"{root}/" for root, name in shown))


_OTHERS = {
    "search": (
        "trials",
        "the record beside is missing or altered, or the trial has not begun or was set aside",
        "{again}: it goes on with them, or says what to do.",
    ),
    "how_much_song": (
        "how much song",
        "the record .files.json is missing or altered",
        "Give the command how much song again.",
    ),
}


def _owner(
    name: str,
    paths: RunPaths,
    stage_fault: Callable[[str], str],
    faults: dict[str, str],
    known: set[str],
) -> str:
    """Name of a stage, or a word of `_OTHERS`; "" for a file of nobody."""
    parts = PurePosixPath(name).parts
    if any(part.startswith(".") for part in parts):
        return ""  # half-written: the next start removes it
    if (stage := paths.stage_of.get(parts[0])) is not None:
        return stage if stage_fault(stage) else ""
    if parts[0] == paths.search.name or parts[0].startswith(SEARCH_BEFORE):
        n = next((i for i, part in enumerate(parts) if part.startswith("trial-")), None)
        if n is None:
            return ""
        trial = "/".join(parts[: n + 1]) + "/"
        is_whole = any(one.startswith(trial) for one in known - faults.keys())
        has_fault = any(one.startswith(trial) for one in faults) or ".broken" in name
        return "search" if has_fault or not is_whole else ""
    record = paths.how_much_files.relative_to(paths.root).as_posix()
    if parts[0] == paths.how_much.name and record not in known - faults.keys():
        return "how_much_song"
    return ""
