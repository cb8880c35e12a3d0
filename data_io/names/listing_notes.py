"""Sentences on a folder of recordings: what is understood in a way that a person should know."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_io.names.ages import age_order, parse_age
from data_io.names.birds_table import Bird
from data_io.names.folders import Folder, Found
from data_io.names.layouts import UNDATED, Place, birds_seem_to_be, within

MOST_NOTES = 20
YEARS_NOT_DAYS = range(1950, 2100)  # as an age: five years and more; as a folder: rather a year


@dataclass(frozen=True)
class PlacedFolder:
    """What became of one folder.

    Attributes:
        parts: names of the folders from the data folder down to this one.
        place: bird and age as they are written.
        ages: of its files, in one spelling each.
        n_files: in it.
        is_word: True if the age is neither an age nor a date.
        flags: what is odd about its dates, with the number of files.
    """

    parts: tuple[str, ...]
    place: Place
    ages: list[str]
    n_files: int
    is_word: bool
    flags: dict[str, int]


def notes_on(
    root: Path,
    found: Found,
    placed: Sequence[PlacedFolder],
    birds: dict[str, Bird],
    counts_from_1: Sequence[str],
) -> list[str]:
    """All that is worth a word about a folder of recordings; excluded birds need no look."""
    excluded = {name for name, bird in birds.items() if bird.is_excluded}
    names = {folder.place.bird for folder in placed if not folder.place.misplaced}
    wanted = [(f, p) for f, p in zip(found.folders, placed, strict=True)
              if p.place.bird not in excluded]  # fmt: skip
    used = [folder for _, folder in wanted if not folder.place.misplaced]
    notes = _swapped(used) or _words(root, used)
    notes += _levels(root, wanted)
    notes += _odd_ages(used)
    notes += _spellings(used)
    notes += _alike(sorted(names - excluded), "birds")
    notes += _birds_csv(sorted(names), birds)
    notes += _dates(used, [bird for bird in counts_from_1 if bird not in excluded])
    notes += [f"{name} is the folder of a study and is left out." for name in found.runs]
    return notes


def shortened(notes: list[str]) -> list[str]:
    """At most 20 sentences and how many more there were."""
    if len(notes) <= MOST_NOTES:
        return notes
    return [*notes[:MOST_NOTES], f"And {len(notes) - MOST_NOTES:,} more."]


def in_words(names: Iterable[str], most: int = 4, joint: str = "and") -> str:
    """Names as a person lists them: a; a and b; a, b and c; a, b, c, d and 12 more."""
    listed = list(names)
    if len(listed) > most:
        return f"{', '.join(listed[:most])} and {len(listed) - most:,} more"
    head = ", ".join(listed[:-1])
    return f"{head} {joint} {listed[-1]}" if head else "".join(listed)


def _swapped(used: Sequence[PlacedFolder]) -> list[str]:
    """<age>/<bird>/ instead of <bird>/<age>/: every bird reads as an age, and no age does."""
    birds = sorted({folder.place.bird for folder in used}, key=age_order)
    ages = sorted({folder.place.age or "" for folder in used})
    is_swapped = used and all(f.is_word and f.place.age for f in used)
    if not is_swapped or any(parse_age(bird) == (None, None) for bird in birds):
        return []
    return [
        f"The folders seem to be <age>/<bird>/: {in_words(birds)} {_are(birds)} taken as birds, "
        f"{in_words(map(_quoted, ages))} as {'its age' if len(ages) == 1 else 'ages'}. Move the "
        "files to <bird>/<age>/ if that is wrong."
    ]


def _words(root: Path, used: Sequence[PlacedFolder]) -> list[str]:
    """What is neither an age nor a date: once for each bird, or for each word of several birds."""
    words: dict[str, list[str]] = {}  # of each bird
    has_ages: set[str] = set()
    top: dict[str, str] = {}
    for folder in used:
        age, bird = folder.place.age, folder.place.bird
        if age == UNDATED:
            continue
        if age is not None and folder.is_word:
            words.setdefault(bird, []).append(age)
        else:
            has_ages.add(bird)
        top[bird] = folder.parts[0] if len(within(folder.parts)) == 2 else ""
    birds_of: dict[str, list[str]] = {}
    for bird, found in words.items():
        for word in found:
            birds_of.setdefault(word, []).append(bird)
    shared = {word: found for word, found in birds_of.items() if len(set(found)) > 1}
    notes = [
        f"{_quoted(word)} ({in_words(sorted(set(found)))}) is neither an age nor a date: it is "
        "kept as a word and sorted after the ages."
        for word, found in sorted(shared.items())
    ]
    for bird, found in sorted(words.items()):
        own = sorted(set(found) - set(shared), key=age_order)
        if not own:
            continue
        are = "is neither an age nor a date" if len(own) == 1 else "are neither ages nor dates"
        kept = "it is kept as a word" if len(own) == 1 else "they are kept as words"
        note = f"{bird}: {in_words(map(_quoted, own))} {are}: {kept} and sorted after the ages"
        if bird not in has_ages and top.get(bird):
            what = "it is a bird" if len(own) == 1 else "these are birds"
            note += f"; if {what}, perhaps --data {root / top[bird]}"
        notes.append(f"{note}.")
    undated = sorted({f.place.bird for f in used if f.place.age == UNDATED})
    if undated:
        notes.append(
            f"{in_words(undated)}: neither folders nor names of files say an age or a date; all "
            f"recordings of a bird are taken as one age, {UNDATED!r}."
        )
    return notes


def _quoted(word: str) -> str:
    return word if word.isprintable() and word == word.strip() and " " not in word else repr(word)


def _levels(root: Path, wanted: Sequence[tuple[Folder, PlacedFolder]]) -> list[str]:
    """Files outside of the layout, and where the birds perhaps are."""
    out = [(f, p) for f, p in wanted if p.place.misplaced]
    if not out:
        return []
    n_files = sum(p.n_files for _, p in out)
    deep = [f for f, p in out if len(within(p.parts)) > 2]
    note = (
        f"{n_files:,} {'file is' if n_files == 1 else 'files are'} outside of the layout and "
        f"skipped; the first: {out[0][0].paths[0]}"
    )
    if len(deep) == len(out) and n_files > sum(p.n_files for _, p in wanted) / 2:
        seem = [str(path) for path in birds_seem_to_be(root, deep)]
        if seem:
            note += f"; the birds are perhaps in {in_words(seem, 3, 'or')}"
    return [f"{note}."]


def _odd_ages(used: Sequence[PlacedFolder]) -> list[str]:
    odd = sorted(
        {f.place.age for f in used if f.place.age and f.place.age.isdigit()
         and len(f.place.age) == 4 and int(f.place.age) in YEARS_NOT_DAYS}
    )  # fmt: skip
    if not odd:
        return []
    return [
        f"{in_words(odd)} {'is' if len(odd) == 1 else 'are'} read as days post hatch; if a year is "
        "meant, give a folder further down."
    ]


def _spellings(used: Sequence[PlacedFolder]) -> list[str]:
    """Folders of one bird that mean the same age, and words that differ in their letters' case."""
    spelled: dict[tuple[str, str], set[str]] = {}
    words: dict[str, set[str]] = {}
    for folder in used:
        if folder.place.age is not None:
            for age in folder.ages:
                spelled.setdefault((folder.place.bird, age), set()).add(folder.place.age)
                words.setdefault(folder.place.bird, set()).add(age)
    notes = [
        f"{bird}: {in_words(sorted(map(_quoted, texts)))} are one age, {age}: their recordings are "
        "taken together."
        for (bird, age), texts in sorted(spelled.items())
        if len(texts) > 1
    ]
    for bird, ages in sorted(words.items()):
        notes += _alike(sorted(ages), f"ages of {bird}")
    return notes


def _alike(names: Sequence[str], what: str) -> list[str]:
    """Names that differ in case, spaces or Unicode form alone."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_plain(name), []).append(name)
    return [
        f"{in_words([ascii(name) for name in group])} differ in upper and lower case, spaces or "
        f"Unicode form alone and are taken as different {what}: rename one if they are the same."
        for group in groups.values()
        if len(group) > 1
    ]


def _plain(name: str) -> str:
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def _birds_csv(names: Sequence[str], birds: dict[str, Bird]) -> list[str]:
    if not birds:
        return []
    notes = []
    without = sorted(set(birds) - set(names))
    alike = {_plain(name): name for name in names}
    for bird in list(without):
        if _plain(bird) in alike:
            without.remove(bird)
            notes.append(
                f"birds.csv: {ascii(bird)} has no recordings, {ascii(alike[_plain(bird)])} has: "
                "write both in the same way if they are the same bird."
            )
    if without:
        notes.append(f"birds.csv: {in_words(without)} {_have(without)} no recordings here.")
    missing = sorted(set(names) - set(birds))
    if missing:
        notes.append(f"{in_words(missing)} {_are(missing)} not in birds.csv.")
    excluded = sorted(bird for bird in names if bird in birds and birds[bird].is_excluded)
    if excluded:
        notes.append(f"{in_words(excluded)} {_are(excluded)} excluded in birds.csv.")
    return notes


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _have(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _dates(used: Sequence[PlacedFolder], counts_from_1: Sequence[str]) -> list[str]:
    """Birds whose dates do not agree."""
    n_of: dict[str, int] = {}
    first: dict[str, str] = {}
    for folder in used:
        for text, n_files in folder.flags.items():
            n_of[folder.place.bird] = n_of.get(folder.place.bird, 0) + n_files
            first.setdefault(folder.place.bird, text)
    notes = [
        f"{bird}: {n_files:,} {'file is' if n_files == 1 else 'files are'} flagged by "
        f"{'its' if n_files == 1 else 'their'} date; the first: {first[bird]}."
        for bird, n_files in sorted(n_of.items())
    ]
    if counts_from_1:
        notes.append(
            f"{in_words(counts_from_1)}: every folder says one day more than hatch_date and the "
            "names of its files: days seem to be counted from 1, and the folders are believed."
        )
    return notes
