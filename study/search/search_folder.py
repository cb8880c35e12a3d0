"""The folder of a search: of which search its trials are."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from data_io.files import BrokenSealError, digest, found, read_json, remove_folder, sync, write_json
from study import __version__
from study.base.console import Console
from study.base.paths import REPEATS, SEARCH_BEFORE, RunPaths
from study.config.tree import StudyConfig
from study.search.trial_folder import SEARCH, BrokenRecordError, TrialFolder, has_begun

# Parts of a search by which the same recordings are split, or turned into spectrograms, otherwise.
_MAKE_DATA = ("seed", "snippets.selection_fraction", "snippets.report_fraction", "spectrogram.")


def search_parts(config: StudyConfig, data_sha256: str) -> dict[str, Any]:
    """All that a search depends on; with another value of any part its trials are others."""
    tree = config.to_dict()
    search = {
        k: v for k, v in tree["search"].items() if k not in ("n_trials", "max_retries", "selection")
    }
    return {
        "version": __version__,
        "seed": config.seed,
        "data": data_sha256,
        "mdgan": tree["mdgan"],
        "search": search,
        "snippets": {
            k: v for k, v in tree["snippets"].items() if k != "hop"
        },  # nobody trains by it
        "spectrogram": tree["spectrogram"],
    }


def prepare_folder(config: StudyConfig, data_sha256: str, paths: RunPaths, console: Console) -> str:
    """Keep trials of another search out: they are set aside, and what differs is named.

    Where search.json is lost, the trials say themselves of which search they are. A search that was
    set aside is taken back when the settings are its own again: its trials are not trained twice.

    Returns:
        The hash of the search's parts.

    Raises:
        BrokenRecordError: search.json is lost, and only some of the trials are of this search.
        UnreadableRecordError: a trial that says of which search a folder is cannot be read for now.
        OSError: another file or folder cannot.
    """
    parts = search_parts(config, data_sha256)
    key, path = digest(parts), paths.search / SEARCH
    known, lost = _known(paths.search)
    if known is not None and digest(known) == key:
        return key
    trials = _trials(paths.search)
    if known is None:
        of = _searches_of(trials)
        if set(of.values()) == {key}:
            console.note(f"{path.name} {lost}: the trials are of this search, it is written anew")
            write_json(path, parts)
            return key
        _check_one_search(key, of, lost)
    back = next((one for one in paths.searches_before if _is_of(key, one)), None)
    if trials:
        n = 1
        while (aside := paths.root / f"{SEARCH_BEFORE}{n}").exists():
            n += 1
        paths.search.replace(aside)
        sync(paths.root)
        changed = _differences(known, parts) if known else f"{path.name} {lost}"
        console.note(f"the search is another one ({changed}); the old one is now {aside.name}/")
    if back is not None:
        if paths.search.exists():  # its trials were removed by hand, or none has begun
            remove_folder(paths.search)
        back.replace(paths.search)
        sync(paths.root)
        console.note(f"{back.name}/ is of this search: it is {paths.search.name}/ again")
    write_json(path, parts)
    return key


def _known(search: Path) -> tuple[dict[str, Any] | None, str]:
    """Content of search.json; where it cannot be used, None and why."""
    try:
        return read_json(search / SEARCH), "was missing"
    except BrokenSealError as error:
        return None, error.in_short


def _trials(search: Path) -> list[Path]:
    """Folders of the trials and repeats; a repeat may be of a trial that was removed by hand."""
    both = (search, search / REPEATS)
    return [trial for one in both for trial in found(one, "trial-*") if has_begun(trial)]


def _is_of(key: str, search: Path) -> bool:
    """Whether a folder holds the search of this hash: search.json says it, or else all trials."""
    known, _ = _known(search)
    if known is not None:
        return digest(known) == key
    return set(_searches_of(_trials(search)).values()) == {key}


def _searches_of(trials: list[Path]) -> dict[Path, str]:
    """The hash of each trial's search; those that are altered say nothing."""
    searches = {}
    for trial in trials:
        with suppress(BrokenRecordError):
            searches[trial] = TrialFolder(trial).spec().search
    return searches


def _check_one_search(key: str, of: dict[Path, str], lost: str) -> None:
    """Refuse trials of several searches, ours among them: nobody but the user knows which stay."""
    others = sorted(trial for trial, search in of.items() if search != key)
    if others and len(others) < len(of):
        shown = ", ".join(map(str, others[:3])) + (", ..." if len(others) > 3 else "")
        raise BrokenRecordError(
            f"{others[0].with_name(SEARCH)} {lost}, and {len(others)} of {len(of)} trials beside "
            f"it are of another search than this one ({shown}). Move those to another place: the "
            "same command then goes on with the rest."
        )


def _differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What somebody changed; where the data follow from it, they come last and as such."""
    names = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            names += [
                f"{key}.{k}" for k in sorted(before.keys() | after.keys())
                if before.get(k) != after.get(k)
            ]  # fmt: skip
        elif before != after:
            names.append(key)
    so = ""
    if "data" in names and any(name.startswith(_MAKE_DATA) for name in names):
        names.remove("data")
        so = ", and so the data"
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4} more{so}" if len(names) > 4 else f"{shown}{so}"
