"""What is done of the HMM stage, on disk, so that a study that was killed goes on where it was.

One entry per task that came back: its fits and the best model of them. An entry is a JSON file
with a hash of its content, and the model beside it as .npz with a hash in the JSON; the JSON is
written last and makes the entry count. The folder is named by a hash of all that the fits depend
on.
"""

import dataclasses
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_io.files import digest, write_json
from data_io.recordings import BirdAge
from data_io.song_models import SongModel, load_song_model, save_song_model
from data_io.store import BrokenFileError
from models.hmm import HmmParams
from study import __version__
from study.base.console import Console
from study.base.paths import RunPaths
from study.hmms.tables import Row


@dataclass(frozen=True)
class Entry:
    """What one task gave.

    Attributes:
        fits: rows, as `hmm_tables.fit_row` gives them.
        found: what the search of the bird and age found, as `hmm_tables.search_row` gives it; None
            where there is more to do for it.
        model: of the best of the fits; None where none has one.
    """

    fits: list[Row]
    found: Row | None
    model: SongModel | None


def journal_folder(paths: RunPaths) -> Path:
    """Folder of the journals of a run folder."""
    return paths.root / ".hmm"


def journal_key(params: HmmParams, seed: int, latents_digest: str) -> str:
    """Hash of all that the fits of a study depend on.

    Args:
        params: of the fits; whether engines are compared changes no fit.
        seed: of the study.
        latents_digest: hash that the stage of the latents left.
    """
    plain = dataclasses.asdict(dataclasses.replace(params, compare_engines=False))
    parts = {"hmm": plain, "seed": seed, "latents": latents_digest, "version": __version__}
    return digest(parts)[:32]


def remove_journal(paths: RunPaths) -> None:
    """Remove what is no longer needed: the stage's outputs are complete."""
    shutil.rmtree(journal_folder(paths), ignore_errors=True)


class Journal:
    """The entries of one key.

    Args:
        folder: of the journals; those of another key in it are removed.
        key: as `journal_key` gives it.
        console: told of broken files.
    """

    def __init__(self, folder: Path, key: str, console: Console):
        self._root = folder / key
        self._console = console
        self._root.mkdir(parents=True, exist_ok=True)
        for other in folder.iterdir():
            if other != self._root:
                shutil.rmtree(other)
        # Files that a killed study had not finished.
        for half in self._root.rglob(".*.tmp*"):
            half.unlink()

    def save(self, piece: BirdAge, name: str, entry: Entry) -> None:
        """Write an entry; it counts once this has come back.

        Args:
            piece: bird and age.
            name: one for each task of a bird and age.
            entry: what the task gave.
        """
        bird, age = piece
        has_model = entry.model is not None
        content = {"bird": bird, "age": age, "name": name, "fits": entry.fits,
                   "found": entry.found, "has_model": has_model}  # fmt: skip
        # As text: the hash is of what is read again, and json is twice as fast on one line.
        text = json.dumps(content, allow_nan=False)
        record = {"entry": text, "entry_sha256": _sha256(text)}
        if entry.model is None:
            write_json(self._path(piece, name), record)
        else:
            save_song_model(self._root / name, bird, age, entry.model, record)

    def load(self, piece: BirdAge, name: str) -> Entry | None:
        """An entry; None where there is none.

        One that is broken is named, removed, and counts as not there: its work is done again.
        """
        path = self._path(piece, name)
        if not path.exists():
            return None
        try:
            return self._read(path, piece, name)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._console.note(f"{path} is broken: what it held is done again ({error})")
            self.remove(piece, name)
            return None

    def read(self, piece: BirdAge, name: str) -> Entry:
        """An entry that was there before.

        Raises:
            BrokenFileError: it is not there any more, or broken.
        """
        entry = self.load(piece, name)
        if entry is None:
            raise BrokenFileError(
                f"{self._path(piece, name)} was removed or broken while the study ran. Run the "
                "same command again: what it held is done anew, all else is kept."
            )
        return entry

    def _read(self, path: Path, piece: BirdAge, name: str) -> Entry:
        bird, age = piece
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if _sha256(record["entry"]) != record["entry_sha256"]:
            raise ValueError("its content does not have the hash that it should have")
        content = json.loads(record["entry"])
        if (content["bird"], content["age"], content["name"]) != (bird, age, name):
            raise ValueError(f"it is of {content['bird']} at {content['age']}")
        model = None
        if content["has_model"]:
            model, _ = load_song_model(self._root / name, bird, age)
        return Entry(content["fits"], content["found"], model)

    def names(self, piece: BirdAge) -> list[str]:
        """Names of the entries of a bird and age, broken ones too."""
        names = sorted(path.name for path in self._root.iterdir())
        return [name for name in names if self._path(piece, name).exists()]

    def remove(self, piece: BirdAge, name: str) -> None:
        """Remove an entry; what says that it is there goes first."""
        path = self._path(piece, name)
        path.unlink(missing_ok=True)
        path.with_name(f"{piece[1]}.npz").unlink(missing_ok=True)

    def _path(self, piece: BirdAge, name: str) -> Path:
        return self._root / name / piece[0] / f"{piece[1]}.json"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
