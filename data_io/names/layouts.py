"""Where in a folder of recordings the birds and ages are."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_io.names.ages import parse_age
from data_io.names.folders import NONE, Folder

Layout = Literal["auto", "bird/age", "bird", "age"]
LAYOUTS = ("auto", "bird/age", "bird", "age")
UNDATED = "undated"  # the age of a bird of which neither folders nor names say one

_WHERE = {
    "auto": "<bird>/<age>/songs/, <bird>/<age>/ or <bird>/ with dated names",
    "bird/age": "<bird>/<age>/songs/ or <bird>/<age>/",
    "bird": "<bird>/ or <bird>/songs/",
    "age": "<age>/ or <age>/songs/",
}


@dataclass(frozen=True)
class Place:
    """What the path of a folder says about the files in it.

    Attributes:
        bird: name of the bird.
        age: as the folder's name has it; None if only the files' names say it.
        misplaced: why the files are outside of the layout; empty if they are not.
    """

    bird: str
    age: str | None
    misplaced: str = ""


def place_all(root: Path, folders: Sequence[Folder], layout: Layout) -> list[Place]:
    """The place of every folder, in their order.

    Args:
        root: the data folder.
        folders: those that hold sound files.
        layout: ``bird/age`` for <bird>/<age>/[songs/], ``bird`` for <bird>/[songs/] with dates or
            ages in the files' names, ``age`` for <age>/[songs/] of one bird, which the data folder
            names; ``auto`` tells the first two apart, folder by folder.
    """
    placed = [_place(root, folder, layout) for folder in folders]
    if layout == "bird/age" or layout == "age":
        return [place or _misplaced(f, layout) for place, f in zip(placed, folders, strict=True)]
    # Birds without any age are understood where no other folder has one. Beside others, a folder
    # of calibration tones is not a bird.
    is_alone = layout == "bird" or not any(placed)
    return [
        place or (_undated(folder, layout) if is_alone else None) or _misplaced(folder, layout)
        for place, folder in zip(placed, folders, strict=True)
    ]


def within(parts: Sequence[str]) -> tuple[str, ...]:
    """Names of folders without a last ``songs``."""
    return tuple(parts[:-1] if parts and parts[-1].casefold() == "songs" else parts)


def is_dated(folder: Folder) -> bool:
    """True if the name of a file in it says a date or an age."""
    return any((column != NONE).any() for column in (folder.day, folder.digits, folder.dph))


def _place(root: Path, folder: Folder, layout: Layout) -> Place | None:
    parts = within(folder.parts)
    if layout == "age":
        return Place(root.resolve().name, parts[0]) if len(parts) == 1 else None
    if layout in ("auto", "bird/age") and len(parts) == 2:
        return Place(parts[0], parts[1])
    if layout in ("auto", "bird") and len(parts) == 1 and is_dated(folder):
        is_bird = layout == "bird" or not _is_age(folder)
        return Place(parts[0], None) if is_bird else None
    return None


def unlisted_place(root: Path, name: str, layout: Layout) -> Place:
    """Bird and age of a folder that cannot be listed; misplaced where no recording is looked for.

    Args:
        root: the data folder.
        name: of the folder, relative to ``root``.
        layout: as of `place_all`.
    """
    parts = name.split("/")
    bird, age = (root.resolve().name, parts[0]) if layout == "age" else (*parts, "")[:2]
    depth = 2 if layout in ("auto", "bird/age") else 1
    return Place(bird, age, "" if len(within(parts)) <= depth else f"not in {_WHERE[layout]}")


def _is_age(folder: Folder) -> bool:
    """True if the folder's name is an age, and no file in it says that it is a bird."""
    name = within(folder.parts)[0]
    return _says_age(name) and name not in folder.birds_named


def _says_age(name: str) -> bool:
    return parse_age(name) != (None, None)


def _undated(folder: Folder, layout: Layout) -> Place | None:
    parts = within(folder.parts)
    if len(parts) != 1 or is_dated(folder) or (layout == "auto" and _is_age(folder)):
        return None
    return Place(parts[0], UNDATED)


def _misplaced(folder: Folder, layout: Layout) -> Place:
    parts = within(folder.parts)
    bird, age = (*folder.parts, "", "")[:2]
    reason = f"not in {_WHERE[layout]}"
    if layout != "auto":
        reason += f" (data.layout={layout})"
    if len(parts) == 3 and layout in ("auto", "bird/age") and _says_age(parts[1]):
        advice = "move its files up"
        if parts == folder.parts:
            advice = f"rename {parts[2]} to songs, or {advice}"
        return Place(bird, age, f"{reason}: below an age no folder but songs is read; {advice}")
    if len(parts) == 1 and layout == "auto" and _is_age(folder):
        return Place(bird, age, f"{reason}: {parts[0]} is an age, and no folder names the bird")
    if len(parts) == 1 and layout == "auto":
        return Place(bird, age, f"{reason}, and no file name in {bird} says a date or an age")
    return Place(bird, age, f"{reason}: move the file there if it belongs to the data")


def birds_seem_to_be(root: Path, folders: Sequence[Folder]) -> list[Path]:
    """The folders that perhaps hold the birds, that with most files first; not ``root`` itself."""
    found: Counter[Path] = Counter()
    for folder in folders:
        whole = Path(*within((root.absolute() / Path(*folder.parts)).parts))
        if _says_age(whole.parent.name) and not _says_age(whole.name):  # <bird>/<age>/wav
            whole = whole.parent
        is_bird = is_dated(folder) and not _says_age(whole.name)
        found[whole.parent if is_bird else whole.parent.parent] += len(folder.paths)
    return [path for path, _ in found.most_common() if path != root.absolute()]


def refusal(root: Path, folders: Sequence[Folder], places: list[Place], layout: Layout) -> str:
    """The error for a folder in which no file has a bird and an age."""
    n_files = sum(len(folder.paths) for folder in folders)
    first = next(i for i, place in enumerate(places) if place.misplaced)
    message = (
        f"None of {n_files:,} sound files in {root} lies in {_WHERE[layout]}; "
        f"the first is {folders[first].paths[0]} ({places[first].misplaced}). "
    )
    if layout != "auto" and any(not p.misplaced for p in place_all(root, folders, "auto")):
        return f"{message}With data.layout=auto they are understood."
    seem = [str(path) for path in birds_seem_to_be(root, folders)]
    if seem:
        message += f"Give the folder that holds the birds, here perhaps {' or '.join(seem[:3])}."
    if all(len(within(folder.parts)) == 1 for folder in folders) and layout != "age":
        name = root.resolve().name
        message += f" If {name} is the only bird, and these are its ages, set data.layout=age."
    return message.rstrip()
